# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules that Keras does not have."""

from __future__ import annotations

import gin
import keras
import tensorflow as tf


@gin.register
@keras.saving.register_keras_serializable("tfvae")
class TriangularCyclical(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that climbs and falls in straight lines, for ever.

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
          min_learning_rate: At step 0 and at every even half cycle's end.
          max_learning_rate: At every odd half cycle's end.
          half_cycle_steps: Optimiser steps from one to the other.

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
        if half_cycle_steps < 1:
            raise ValueError(
                f"`half_cycle_steps` must be at least 1, got "
                f"{half_cycle_steps!r}"
            )
        self.min_learning_rate = min_learning_rate
        self.max_learning_rate = max_learning_rate
        self.half_cycle_steps = half_cycle_steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate of an optimiser step, counted from 0."""
        cycle_steps = 2 * self.half_cycle_steps
        # The remainder in integers: float32 steps lose their unit past 2**24.
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
