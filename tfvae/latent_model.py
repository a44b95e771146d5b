# SPDX-License-Identifier: Apache-2.0
"""Base class of the models: validation, metrics, step counter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae import inputs
from tfvae.likelihoods import Likelihood


class LatentModel(keras.Model):
    """Base class of Keras models of data `[N, D]`.

    It provides validation, metrics and a step counter. A subclass sets the
    attributes below, and implements `train_step` and `call` (reconstruction).

    Attributes:
      likelihood: The likelihood.
      num_observed: D.
    """

    likelihood: Likelihood
    num_observed: int

    def _count_and_monitor(self, names: Iterable[str]) -> None:
        """Creates the step counter, and mean metrics of the given names."""
        self._iteration = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int64",
            trainable=False,
            name="iteration",
        )
        self._means = {
            name: keras.metrics.Mean(name=name)
            for name in (*names, *self.likelihood.monitored())
        }

    @property
    def iteration(self) -> tf.Variable:
        """Number of training steps so far, int64 scalar."""
        return self._iteration.value

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._means.values())

    def _monitor(self, **values: tf.Tensor) -> dict[str, tf.Tensor]:
        """Updates metrics by a batch, and returns their running means."""
        for name, value in values.items():
            self._means[name].update_state(value)
        return {name: self._means[name].result() for name in values}

    def adapt(self, x: np.ndarray) -> None:
        """Initialises data-dependent parameters; call it before training.

        Args:
          x: `[N, D]`, NaN where missing.

        Raises:
          ValueError: If `x` has a wrong shape, infinite values, rows without
            any observed value, or values outside the likelihood's support.
        """
        x = inputs.check_data(x, self.num_observed)
        self.likelihood.validate(x)
        self.likelihood.adapt(x)

    def make_train_function(self, force: bool = False) -> Any:
        """Builds the optimizer, which Keras does in the first step.

        A step that creates variables would be traced twice.
        """
        inputs.check_compiled(self.get_compile_config())
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def predict_step(self, data: Any) -> tf.Tensor:
        """Returns the reconstruction of a batch of unseen data."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self(x)

    def reconstruct(self, x: np.ndarray | tf.Tensor) -> tf.Tensor:
        """Validates one batch and reconstructs it by `call`, `[B, D]`."""
        return self(self._checked(x))

    def _checked(self, x: Any) -> np.ndarray | tf.Tensor:
        """Validates eager data, for which errors can give details."""
        if not tf.executing_eagerly():
            return x
        x = inputs.check_data(x, self.num_observed)
        self.likelihood.validate(x)
        return x

    def _as_batch(self, x: Any) -> tf.Tensor:
        return inputs.as_batch(x, self.num_observed, self.likelihood.support)
