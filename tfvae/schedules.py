# SPDX-License-Identifier: Apache-2.0
"""Triangular cyclical learning rate schedule."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfvae import typed_gin
from tfvae.arguments import check_counts


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class TriangularCyclical(keras.optimizers.schedules.LearningRateSchedule):
    """Cyclical learning rate that varies linearly between two bounds.

    Reference: Smith, 2017, "Cyclical learning rates for training neural
    networks", policy "triangular".
    """

    def __init__(
        self,
        min_learning_rate: float,
        max_learning_rate: float,
        half_cycle_steps: int,
    ):
        """Creates the schedule.

        Args:
          min_learning_rate: Learning rate at the start and end of each cycle.
          max_learning_rate: Learning rate in the middle of each cycle.
          half_cycle_steps: Optimizer steps from one to the other.

        Raises:
          ValueError: If the rates are not 0 < min <= max, or the half cycle
            is shorter than one step.
        """
        if not 0.0 < min_learning_rate <= max_learning_rate:
            raise ValueError(
                "`min_learning_rate` must be positive and at most "
                f"`max_learning_rate`, got {min_learning_rate!r} and "
                f"{max_learning_rate!r}"
            )
        check_counts(half_cycle_steps=half_cycle_steps)
        self.min_learning_rate = min_learning_rate
        self.max_learning_rate = max_learning_rate
        self.half_cycle_steps = half_cycle_steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate of an optimizer step, counted from 0."""
        cycle_steps = 2 * self.half_cycle_steps
        # Integer remainder: float32 cannot count steps beyond 2**24.
        phase = tf.math.floormod(tf.cast(step, tf.int64), cycle_steps)
        distance = tf.abs(phase - self.half_cycle_steps)  # from the peak
        height = 1.0 - tf.cast(distance, tf.float32) / self.half_cycle_steps
        span = self.max_learning_rate - self.min_learning_rate
        return self.min_learning_rate + span * height

    def get_config(self) -> dict:
        return {
            "min_learning_rate": self.min_learning_rate,
            "max_learning_rate": self.max_learning_rate,
            "half_cycle_steps": self.half_cycle_steps,
        }
