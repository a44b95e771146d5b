# SPDX-License-Identifier: Apache-2.0
"""Observation models p(x | s): what a decoder's outputs mean.

A likelihood is a Keras layer that owns the noise parameters and turns decoder
outputs into log-probabilities, means and samples; the densities themselves are
in `tfvae.ops.densities`. Every model of the library takes one as an argument.
A new one is a class with these methods; the conformance tests pick it up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gin
import keras
import numpy as np
import tensorflow as tf

from tfvae.ops import densities, random

# A variance below this is no noise model any more, and its inverse overflows.
MIN_VARIANCE = 1e-8
# Log-variances of a decoder are kept within this of twice the log of its scale.
MAX_LOG_VARIANCE_RATIO = 15.0


class Likelihood(keras.layers.Layer):
    """What a latent-variable model asks of its observation model.

    `x` and `observed` are as `densities.split_missing` returns them, with
    shapes that broadcast against the decoder outputs' leading dimensions.

    Attributes:
      support: The least and the largest value that an entry of x may have.
    """

    support: tuple[float, float] = (-math.inf, math.inf)

    def num_outputs(self, num_observed: int) -> int:
        """Returns how many decoder outputs D observed dimensions take."""
        return num_observed

    def num_observed(self, num_outputs: int) -> int:
        """Returns D for a decoder with `num_outputs` outputs."""
        return num_outputs

    def validate(self, x: np.ndarray) -> None:
        """Raises ValueError if `x`, NaN missing, is outside the support."""
        low, high = self.support
        if np.any((x < low) | (x > high)):
            raise ValueError(
                f"`x` must be in [{low:g}, {high:g}] for "
                f"{type(self).__name__}, got values from {np.nanmin(x):g} to "
                f"{np.nanmax(x):g}"
            )

    def adapt(self, x: np.ndarray) -> None:
        """Sets what initially depends on the data, `[N, D]`, NaN missing."""

    def log_prob(
        self, x: tf.Tensor, observed: tf.Tensor, outputs: tf.Tensor
    ) -> tf.Tensor:
        """Returns log p(x | s), nats, `[...]`."""
        raise NotImplementedError

    def features(
        self, x: tf.Tensor, observed: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        """Writes log p(x | s) of all pairs as products of features.

        Only models that score every state with every data point need it, as
        `TVAE` does whose candidates are shared.

        Args:
          x: `[B, D]`.
          observed: `[B, D]`.

        Returns:
          Features of the data, `[B, K]`, and a function from decoder outputs
          `[U, O]` to theirs, `[U, K]`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no `features`; write them, or use "
            "Evolution(shared=False)"
        )

    def mean(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the mean of x given s, `[..., D]`."""
        raise NotImplementedError

    def sample(self, seed: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Draws x given s, `[..., D]`."""
        raise NotImplementedError

    def accumulate(
        self,
        x: tf.Tensor,
        observed: tf.Tensor,
        outputs: tf.Tensor,
        weights: tf.Tensor,
    ) -> None:
        """Adds a batch to the sums that the closed-form update needs.

        Args:
          x: `[B, 1, D]`.
          observed: `[B, 1, D]`.
          outputs: `[B, M, O]`.
          weights: `[B, M]`, posterior weights of the M states.
        """

    def maximise(self, pass_done: tf.Tensor, kept: float = 0.0) -> None:
        """Updates in closed form where `pass_done`.

        Args:
          pass_done: Scalar, whether to do anything.
          kept: Share of the sums that the next pass begins with.
        """

    def monitored(self) -> dict[str, tf.Tensor]:
        """Returns scalars worth a column in the training log."""
        return {}


class _StandardizedLikelihood(Likelihood):
    """A likelihood whose decoder outputs are in units of the data.

    A mean is offset + scale * output. `adapt` sets the offset to the mean of
    all data and the scale to their standard deviation, so that a fresh
    decoder, with outputs around 0 and 1, starts where the data are and
    optimisers meet the same problem whatever the data's units. Everything
    seen from outside (bounds, noise, means) stays in the data's own units.

    Attributes:
      offset: Scalar weight; not trained.
      scale: Scalar weight; not trained.
    """

    def __init__(self, standardize: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.standardize = standardize
        self.offset = self._add_scalar("offset", 0.0)
        self.scale = self._add_scalar("scale", 1.0)

    def _add_scalar(
        self, name: str, value: float, dtype: str = "float32"
    ) -> keras.Variable:
        return self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(value),
            dtype=dtype,
            trainable=False,
            name=name,
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "standardize": self.standardize}

    def adapt(self, x: np.ndarray) -> None:
        if self.standardize:
            self.offset.assign(np.nanmean(x, dtype=np.float64))
            std = float(np.nanstd(x, dtype=np.float64))
            self.scale.assign(max(std, MIN_VARIANCE**0.5))

    def _to_outputs(self, x: tf.Tensor) -> tf.Tensor:
        return (x - self.offset.value) / self.scale.value

    def _from_outputs(self, outputs: tf.Tensor) -> tf.Tensor:
        return self.offset.value + self.scale.value * outputs


@gin.register
@keras.saving.register_keras_serializable("tfvae")
class GaussianLikelihood(_StandardizedLikelihood):
    """N(x; mean, variance I), one variance for all, updated in closed form.

    Attributes:
      variance: Scalar weight; not trained by gradient.
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
          initial_variance: Where the variance starts; None for the variance
            of the data given to `adapt` (and 1 without it).
          standardize: Whether decoder outputs are in units of the data's
            standard deviation about their mean, or in the data's own.
          is_fixed: Whether the variance stays where it starts. With a
            variance of 1 / 2 the log-likelihood is the negative squared
            error, but for a constant.
          **kwargs: Of `keras.layers.Layer`.

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
        self.variance = self._add_scalar("variance", start)
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

    def adapt(self, x: np.ndarray) -> None:
        super().adapt(x)
        if self.initial_variance is None:
            variance = float(np.nanvar(x, dtype=np.float64))
            self.variance.assign(max(variance, MIN_VARIANCE))

    def _squared_error(
        self, x: tf.Tensor, observed: tf.Tensor, outputs: tf.Tensor
    ) -> tf.Tensor:
        # In the outputs' units, where x is moved once for all states.
        error = densities.squared_error(self._to_outputs(x), observed, outputs)
        return tf.square(self.scale.value) * error

    def log_prob(
        self, x: tf.Tensor, observed: tf.Tensor, outputs: tf.Tensor
    ) -> tf.Tensor:
        return densities.gaussian_log_prob(
            self._squared_error(x, observed, outputs),
            tf.reduce_sum(observed, -1),
            self.variance.value,
        )

    def features(
        self, x: tf.Tensor, observed: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        # In the outputs' units; the density's change of units is a constant
        # for each observed entry.
        scale = self.scale.value
        of_data, of_outputs = densities.gaussian_features(
            self._to_outputs(x),
            observed,
            self.variance.value / tf.square(scale),
        )
        num_observed = tf.reduce_sum(observed, -1, keepdims=True)
        of_x_alone = of_data[:, -1:] - num_observed * tf.math.log(scale)
        return tf.concat([of_data[:, :-1], of_x_alone], -1), of_outputs

    def mean(self, outputs: tf.Tensor) -> tf.Tensor:
        return self._from_outputs(outputs)

    def sample(self, seed: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        mean = self.mean(outputs)
        noise = random.normal(seed, tf.shape(mean))
        return mean + tf.sqrt(self.variance.value) * noise

    def accumulate(
        self,
        x: tf.Tensor,
        observed: tf.Tensor,
        outputs: tf.Tensor,
        weights: tf.Tensor,
    ) -> None:
        error = self._squared_error(x, observed, outputs)
        expected_error = tf.reduce_sum(weights * error)
        self._error_sum.assign_add(tf.cast(expected_error, tf.float64))
        self._entry_sum.assign_add(tf.cast(tf.reduce_sum(observed), tf.float64))

    def maximise(self, pass_done: tf.Tensor, kept: float = 0.0) -> None:
        if self.is_fixed:
            return
        # d F / d variance = 0 at the mean squared error over observed entries.
        error, entries = self._error_sum.value, self._entry_sum.value
        best = tf.cast(error / tf.maximum(entries, 1.0), tf.float32)
        best = tf.maximum(best, MIN_VARIANCE)
        self.variance.assign(tf.where(pass_done, best, self.variance.value))
        for total in (self._error_sum, self._entry_sum):
            rest = kept * total.value
            total.assign(tf.where(pass_done, rest, total.value))

    def monitored(self) -> dict[str, tf.Tensor]:
        return {"noise_std": tf.sqrt(self.variance.value)}


@gin.register
@keras.saving.register_keras_serializable("tfvae")
class DiagonalGaussianLikelihood(_StandardizedLikelihood):
    """N(x; mean, diag(variance)), both given by the decoder.

    The decoder has 2 D outputs: D means, then D log-variances, each relative
    to the squared scale of the means.
    """

    def __init__(self, standardize: bool = True, **kwargs: Any):
        """Creates the likelihood.

        Args:
          standardize: Whether decoder outputs are in units of the data's
            standard deviation about their mean, or in the data's own.
          **kwargs: Of `keras.layers.Layer`.
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
        ratio = outputs[..., outputs.shape[-1] // 2 :]
        # A smooth limit: gradients never vanish altogether.
        ratio = MAX_LOG_VARIANCE_RATIO * tf.tanh(ratio / MAX_LOG_VARIANCE_RATIO)
        return ratio + 2.0 * tf.math.log(self.scale.value)

    def log_prob(
        self, x: tf.Tensor, observed: tf.Tensor, outputs: tf.Tensor
    ) -> tf.Tensor:
        return densities.diagonal_gaussian_log_prob(
            x, observed, self.mean(outputs), self._log_variance(outputs)
        )

    def features(
        self, x: tf.Tensor, observed: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        of_data, of_parameters = densities.diagonal_gaussian_features(
            x, observed
        )

        def of_outputs(outputs: tf.Tensor) -> tf.Tensor:
            return of_parameters(
                self.mean(outputs), self._log_variance(outputs)
            )

        return of_data, of_outputs

    def mean(self, outputs: tf.Tensor) -> tf.Tensor:
        return self._from_outputs(outputs[..., : outputs.shape[-1] // 2])

    def sample(self, seed: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        mean = self.mean(outputs)
        noise_std = tf.exp(0.5 * self._log_variance(outputs))
        return mean + noise_std * random.normal(seed, tf.shape(mean))


@gin.register
@keras.saving.register_keras_serializable("tfvae")
class BernoulliLikelihood(Likelihood):
    """Bern(x; sigmoid(outputs)), data in [0, 1]."""

    support = (0.0, 1.0)

    def log_prob(
        self, x: tf.Tensor, observed: tf.Tensor, outputs: tf.Tensor
    ) -> tf.Tensor:
        return densities.bernoulli_log_prob(x, observed, outputs)

    def features(
        self, x: tf.Tensor, observed: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return densities.bernoulli_features(x, observed)

    def mean(self, outputs: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(outputs)

    def sample(self, seed: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        draws = random.uniform(seed, tf.shape(outputs))
        return tf.cast(draws < tf.sigmoid(outputs), tf.float32)
