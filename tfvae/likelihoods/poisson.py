# SPDX-License-Identifier: Apache-2.0
"""Poisson likelihood for counts, such as photons at each pixel."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae import typed_gin
from tfvae.likelihoods.base import MAX_DISTANCE, Likelihood
from tfvae.ops import densities, random

# Smallest argument of the softplus: a rate of exp(-1000) scales is as good as
# none, and its logarithm is no obstacle to float32.
_LEAST_ARGUMENT = -1e3
# Below this argument, log(softplus(a)) is a + O(exp(a)), less than rounding.
_SMALL_ARGUMENT = -20.0
# Largest rate and count that differ from others: sums over entries are finite.
_MOST = 1e32


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class PoissonLikelihood(Likelihood):
    """p(x | s) = Pois(x; rate), for counts x >= 0 of any size.

    The rate is scale * softplus(shift + output): positive, and linear in the
    outputs where it exceeds the scale, as is the mean of `GaussianLikelihood`.
    `adapt` sets the scale to the standard deviation of all data, and the shift
    such that outputs of 0 have their mean as rate.

    The data have to be in counts: divide what a camera records by its gain.
    They need not be integers (x! is the gamma function), but probabilities of
    the integers alone sum to 1. For noise besides that of counting, such as a
    camera's read noise, see `tfvae.ops.anscombe`.

    Attributes:
      scale: Scalar weight, counts; not trained.
      shift: Scalar weight, in units of the outputs; not trained.
    """

    support = (0.0, math.inf)

    def __init__(self, **kwargs: Any):
        """Creates the likelihood.

        Args:
          **kwargs: Keyword arguments of `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.scale = self._add_scalar("scale", 1.0)
        self.shift = self._add_scalar("shift", 0.0)
        self.built = True

    def adapt(self, x: np.ndarray) -> None:
        found = self._moments(x).pooled()
        # Nothing but zeros: the rate at which half a count is expected.
        mean = float(found.mean) or 0.5 / max(float(found.size), 1.0)
        # Counts of one rate have its square root as standard deviation.
        scale = math.sqrt(max(float(found.variance), mean))
        ratio = mean / scale
        self.scale.assign(scale)
        # The inverse of softplus, log(exp(ratio) - 1).
        self.shift.assign(ratio + math.log(-math.expm1(-ratio)))

    def check_units(self, x: np.ndarray) -> None:
        scale = float(self.scale)
        largest = float(np.nanmax(x)) / scale
        if largest > MAX_DISTANCE:
            raise ValueError(
                f"`x` must be at most {MAX_DISTANCE:g} of the likelihood's "
                f"scales, {scale:g}, to be trained on, got {largest:g}; call "
                "adapt(x) first"
            )

    def _argument(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the argument of softplus, limited to finite rates."""
        argument = self.shift.value + outputs
        return tf.clip_by_value(argument, _LEAST_ARGUMENT, self._most())

    def _most(self) -> tf.Tensor:
        """Returns the largest rate and count, in units of the scale."""
        return tf.minimum(MAX_DISTANCE, _MOST / self.scale.value)

    def _log_rate(self, outputs: tf.Tensor) -> tf.Tensor:
        argument = self._argument(outputs)
        # No logarithm of 0, whose gradient is not a number.
        usual = tf.maximum(argument, _SMALL_ARGUMENT)
        log_softplus = tf.where(
            argument < _SMALL_ARGUMENT,
            argument,
            tf.math.log(tf.nn.softplus(usual)),
        )
        return tf.math.log(self.scale.value) + log_softplus

    def _counts(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the data, limited to those of finite log-likelihoods."""
        return tf.minimum(x, self.scale.value * self._most())

    def log_prob(
        self, x: tf.Tensor, observed: tf.Tensor, outputs: tf.Tensor
    ) -> tf.Tensor:
        return densities.poisson_log_prob(
            self._counts(x), observed, self._log_rate(outputs)
        )

    def features(
        self, x: tf.Tensor, observed: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        of_data, of_log_rate = densities.poisson_features(
            self._counts(x), observed
        )
        return of_data, lambda outputs: of_log_rate(self._log_rate(outputs))

    def mean(self, outputs: tf.Tensor) -> tf.Tensor:
        return self.scale.value * tf.nn.softplus(self._argument(outputs))

    def sample(self, seed: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        return random.poisson(seed, self.mean(outputs))
