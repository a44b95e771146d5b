# SPDX-License-Identifier: Apache-2.0
"""Gaussian likelihoods: one learned variance, or variances from the decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfvae import typed_gin
from tfvae.likelihoods.base import MIN_VARIANCE, StandardizedLikelihood
from tfvae.ops import densities, moments, random

# Decoder log-variances stay within this distance of log(scale**2).
MAX_LOG_VARIANCE_RATIO = 15.0
# Variances that are given, in units of the squared scale, so that densities of
# all data are finite float32 numbers: the least of a fixed one, the largest.
_LEAST_FIXED, _LARGEST = 1e-12, 1e30


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class GaussianLikelihood(StandardizedLikelihood):
    """p(x | s) = N(x; mean, variance I), variance updated in closed form.

    Attributes:
      variance: Scalar float64 weight, in the data's squared units, which
        float32 may not hold; not trained by gradient.
    """

    def __init__(
        self,
        initial_variance: float | None = None,
        standardize: bool = True,
        *,
        is_fixed: bool = False,
        **kwargs: Any,
    ):
        """Creates the likelihood.

        Args:
          initial_variance: Initial variance; None for the variance of the
            data given to `adapt` (1 before it is called). `adapt` raises one
            below 1e-8 of the squared scale to that.
          standardize: Whether decoder outputs are in standardised units (the
            data's mean and standard deviation) or in the data's own.
          is_fixed: Whether the variance keeps its initial value. With a
            variance of 1 / 2 the log-likelihood is the negative squared error
            up to a constant. `adapt` refuses one below 1e-12 of the squared
            scale.
          **kwargs: Keyword arguments of `keras.layers.Layer`.

        Raises:
          ValueError: If `initial_variance` is not positive.
        """
        super().__init__(standardize, **kwargs)
        if initial_variance is not None and not initial_variance > 0.0:
            raise ValueError(
                "`initial_variance` must be positive or None, got "
                f"{initial_variance!r}"
            )
        self.initial_variance = initial_variance
        self.is_fixed = is_fixed
        start = 1.0 if initial_variance is None else initial_variance
        self.variance = self._add_scalar("variance", start, "float64")
        # Sums over millions of entries: float64.
        self._error_sum = self._add_scalar("error_sum", 0.0, "float64")
        self._entry_sum = self._add_scalar("entry_sum", 0.0, "float64")
        self.built = True

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "initial_variance": self.initial_variance,
            "is_fixed": self.is_fixed,
        }

    def _adapt_to(self, columns: moments.Moments) -> None:
        super()._adapt_to(columns)
        unit = float(self.scale.numpy()) ** 2
        least, largest = MIN_VARIANCE * unit, _LARGEST * unit
        variance = self.initial_variance
        if variance is None:
            variance = float(columns.pooled().variance)
            if self.standardize and variance < least:
                # Constant data: what decoders have to learn first is as large
                # as the scale. Gradients are in proportion to 1 / variance.
                variance = unit
        if self.is_fixed and self.initial_variance is not None:
            least = _LEAST_FIXED * unit
            if not least <= variance <= largest:
                raise ValueError(
                    "`initial_variance` that is fixed must be from "
                    f"{least:.3g} to {largest:.3g} for these data, got "
                    f"{variance:.3g}"
                )
        self.variance.assign(min(max(variance, least), largest))

    def _squared_scale(self) -> tf.Tensor:
        """Returns the squared scale, a float64 scalar."""
        return tf.square(tf.cast(self.scale.value, tf.float64))

    def _relative_variance(self) -> tf.Tensor:
        """Returns the variance in units of the squared scale, float32."""
        return tf.cast(self.variance.value / self._squared_scale(), tf.float32)

    def _relative_error(
        self, x: tf.Tensor, observed: tf.Tensor, outputs: tf.Tensor
    ) -> tf.Tensor:
        """Returns the squared error in units of the squared scale, `[...]`."""
        return densities.squared_error(self._to_outputs(x), observed, outputs)

    def log_prob(
        self, x: tf.Tensor, observed: tf.Tensor, outputs: tf.Tensor
    ) -> tf.Tensor:
        log_density = densities.gaussian_log_prob(
            self._relative_error(x, observed, outputs),
            tf.reduce_sum(observed, -1),
            self._relative_variance(),
        )
        return log_density - self._log_volume(observed)

    def features(
        self, x: tf.Tensor, observed: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        of_data, of_outputs = densities.gaussian_features(
            self._to_outputs(x), observed, self._relative_variance()
        )
        of_x_alone = of_data[:, -1:] - self._log_volume(observed)[:, None]
        return tf.concat([of_data[:, :-1], of_x_alone], -1), of_outputs

    def mean(self, outputs: tf.Tensor) -> tf.Tensor:
        return self._from_outputs(outputs)

    def sample(self, seed: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        return _drawn(seed, self.mean(outputs), self._noise_std())

    def _noise_std(self) -> tf.Tensor:
        return tf.cast(tf.sqrt(self.variance.value), tf.float32)

    def statistics(
        self,
        x: tf.Tensor,
        observed: tf.Tensor,
        outputs: tf.Tensor,
        weights: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        error = self._relative_error(x, observed, outputs)
        expected_error = tf.cast(tf.reduce_sum(weights * error), tf.float64)
        return (
            self._squared_scale() * expected_error,
            tf.cast(tf.reduce_sum(observed), tf.float64),
        )

    def accumulate(self, *statistics: tf.Tensor) -> None:
        error_sum, entry_sum = statistics
        self._error_sum.assign_add(error_sum)
        self._entry_sum.assign_add(entry_sum)

    def maximise(self, pass_done: tf.Tensor, kept: float = 0.0) -> None:
        if self.is_fixed:
            return
        # d F / d variance = 0 at the mean squared error over observed entries.
        error, entries = self._error_sum.value, self._entry_sum.value
        least = MIN_VARIANCE * self._squared_scale()
        best = tf.maximum(tf.math.divide_no_nan(error, entries), least)
        # Without any weight there is nothing to learn from.
        is_known = tf.logical_and(pass_done, entries > 0.0)
        self.variance.assign(tf.where(is_known, best, self.variance.value))
        for total in (self._error_sum, self._entry_sum):
            rest = kept * total.value
            total.assign(tf.where(pass_done, rest, total.value))

    def monitored(self) -> dict[str, tf.Tensor]:
        return {"noise_std": self._noise_std()}


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class DiagonalGaussianLikelihood(StandardizedLikelihood):
    """p(x | s) = N(x; mean, diag(variance)), both given by the decoder.

    The decoder has 2 D outputs: D means, then D log-variances, the latter in
    units of the squared scale (see `StandardizedLikelihood`).
    """

    def __init__(self, standardize: bool = True, **kwargs: Any):
        """Creates the likelihood.

        Args:
          standardize: Whether decoder outputs are in standardised units (the
            data's mean and standard deviation) or in the data's own.
          **kwargs: Keyword arguments of `keras.layers.Layer`.
        """
        super().__init__(standardize, **kwargs)
        self.built = True

    def num_outputs(self, num_observed: int) -> int:
        return 2 * num_observed

    def num_observed(self, num_outputs: int) -> int:
        if num_outputs % 2:
            raise ValueError(
                "`decoder` must have an even number of outputs for "
                "DiagonalGaussianLikelihood (means, then log-variances), got "
                f"{num_outputs}"
            )
        return num_outputs // 2

    def _log_variance(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns log-variances in units of the squared scale."""
        ratio = outputs[..., outputs.shape[-1] // 2 :]
        # A smooth bound: gradients never vanish.
        return MAX_LOG_VARIANCE_RATIO * tf.tanh(ratio / MAX_LOG_VARIANCE_RATIO)

    def log_prob(
        self, x: tf.Tensor, observed: tf.Tensor, outputs: tf.Tensor
    ) -> tf.Tensor:
        log_density = densities.diagonal_gaussian_log_prob(
            self._to_outputs(x),
            observed,
            self._means(outputs),
            self._log_variance(outputs),
        )
        return log_density - self._log_volume(observed)

    def features(
        self, x: tf.Tensor, observed: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        of_data, of_parameters = densities.diagonal_gaussian_features(
            self._to_outputs(x), observed
        )
        of_x_alone = -self._log_volume(observed)[:, None]

        def of_outputs(outputs: tf.Tensor) -> tf.Tensor:
            features = of_parameters(
                self._means(outputs), self._log_variance(outputs)
            )
            return tf.pad(features, [[0, 0], [0, 1]], constant_values=1.0)

        return tf.concat([of_data, of_x_alone], -1), of_outputs

    def _means(self, outputs: tf.Tensor) -> tf.Tensor:
        return outputs[..., : outputs.shape[-1] // 2]

    def mean(self, outputs: tf.Tensor) -> tf.Tensor:
        return self._from_outputs(self._means(outputs))

    def sample(self, seed: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        noise_std = self.scale.value * tf.exp(0.5 * self._log_variance(outputs))
        return _drawn(seed, self.mean(outputs), noise_std)


def _drawn(seed: tf.Tensor, mean: tf.Tensor, std: tf.Tensor) -> tf.Tensor:
    """Returns draws about means `[...]`, finite where these and the noise are.

    Noise that float32 does not hold is the largest number, as infinite noise
    about an infinite mean may be NaN.
    """
    largest = mean.dtype.max
    noise = tf.minimum(std, largest) * random.normal(seed, tf.shape(mean))
    return mean + tf.clip_by_value(noise, -largest, largest)
