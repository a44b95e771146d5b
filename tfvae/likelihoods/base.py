# SPDX-License-Identifier: Apache-2.0
"""Base classes of likelihoods (observation models)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae import ranks as ranks_lib
from tfvae.ops import moments
from tfvae.ops.rows import LazyRows

# A smaller variance, in units of the squared scale, no longer models noise.
MIN_VARIANCE = 1e-8
# Scales from the offset at which data count as no further away: all squares
# stay finite, so that a log-likelihood is a finite number, however low.
MAX_DISTANCE = 1e12
# Ratio of standard deviations from which on columns are reported.
_FAR_APART = 1e3
# Scale of constant data, in units of their absolute value.
_CONSTANT_SCALE = MIN_VARIANCE**0.5


class Likelihood(keras.layers.Layer):
    """Base class of likelihoods p(x | s), given decoder outputs.

    Densities are computed in float32, also where a decoder computes in 16
    bits: a likelihood has this type, whatever the global dtype policy.

    `x` and `observed` are as `densities.split_missing` returns them, with
    shapes that broadcast against the decoder outputs' leading dimensions.

    Attributes:
      support: Smallest and largest value that an entry of x may have.
      ranks: The processes that train the model. `adapt` sums over them what
        it sums over data points.
    """

    support: tuple[float, float] = (-math.inf, math.inf)
    ranks: ranks_lib.Ranks = ranks_lib.ONE_PROCESS

    def __init__(self, **kwargs: Any):
        """Creates the likelihood.

        Args:
          **kwargs: Keyword arguments of `keras.layers.Layer`.
        """
        super().__init__(**{**kwargs, "dtype": "float32"})

    def _add_scalar(
        self, name: str, value: float, dtype: str = "float32"
    ) -> keras.Variable:
        return self.add_weight(
            shape=(),
            # Keras's `Constant` would round float64 values to float32.
            initializer=lambda shape, dtype: tf.constant(value, dtype, shape),
            dtype=dtype,
            trainable=False,
            autocast=False,
            name=name,
        )

    def num_outputs(self, num_observed: int) -> int:
        """Returns the number of decoder outputs for D observed dimensions."""
        return num_observed

    def num_observed(self, num_outputs: int) -> int:
        """Returns D for a decoder with `num_outputs` outputs."""
        return num_outputs

    def validate(self, x: np.ndarray | LazyRows) -> None:
        """Raises ValueError if `x`, NaN where missing, leaves the support."""
        low, high = self.support
        if isinstance(x, LazyRows):
            if x.limits is not None:
                Likelihood.validate(self, np.array(x.limits))
            elif math.isfinite(low) or math.isfinite(high):
                for _, part in x.parts():
                    self.validate(part)
            return
        if np.any((x < low) | (x > high)):
            raise ValueError(
                f"`x` must be in [{low:g}, {high:g}] for "
                f"{type(self).__name__}, got values from {np.nanmin(x):g} to "
                f"{np.nanmax(x):g}"
            )

    def adapt(self, x: np.ndarray) -> None:
        """Initialises data-dependent parameters from `[N, D]`, NaN missing."""

    def _moments(self, x: np.ndarray) -> moments.Moments:
        """Returns the moments of each column of all ranks' data."""
        return moments.merged(self.ranks.gather(moments.of_columns(x)))

    def check_units(self, x: np.ndarray) -> None:
        """Raises ValueError if `x`, NaN where missing, is too far from `adapt`.

        Likelihoods that do not depend on the units of the data accept all.

        Args:
          x: `[N, D]`, training data.
        """

    def log_prob(
        self, x: tf.Tensor, observed: tf.Tensor, outputs: tf.Tensor
    ) -> tf.Tensor:
        """Returns log p(x | s), nats, `[...]`."""
        raise NotImplementedError

    def features(
        self, x: tf.Tensor, observed: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        """Writes log p(x | s) as an inner product of features of x and s.

        Only models that score every state with every data point need it, such
        as a `TVAE` with shared candidates; see `tfvae.ops.densities`.

        Args:
          x: `[B, D]`.
          observed: `[B, D]`.

        Returns:
          Features of the data, `[B, K]`, and a function from decoder outputs
          `[U, O]` to theirs, `[U, K]`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not implement `features`; implement "
            "it, or use Evolution(shared=False)"
        )

    def mean(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the mean of x given s, `[..., D]`."""
        raise NotImplementedError

    def sample(self, seed: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Draws x given s, `[..., D]`."""
        raise NotImplementedError

    def statistics(
        self,
        x: tf.Tensor,
        observed: tf.Tensor,
        outputs: tf.Tensor,
        weights: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        """Returns a batch's sufficient statistics of the closed-form update.

        They are sums over data points, which a model adds up over the ranks
        that train it.

        Args:
          x: `[B, 1, D]`.
          observed: `[B, 1, D]`.
          outputs: `[B, M, O]`.
          weights: `[B, M]`, posterior weights of the M states.

        Returns:
          Tensors of static shapes, the arguments of `accumulate`; none without
          such an update.
        """
        return ()

    def accumulate(self, *statistics: tf.Tensor) -> None:
        """Adds the `statistics` of a batch to those of the batches before."""

    def maximise(self, pass_done: tf.Tensor, kept: float = 0.0) -> None:
        """Updates the noise parameters in closed form where `pass_done`.

        Args:
          pass_done: Boolean scalar, whether to update.
          kept: Fraction of the sufficient statistics that is kept for the next
            update.
        """

    def monitored(self) -> dict[str, tf.Tensor]:
        """Returns scalars to log in training, by name."""
        return {}


class StandardizedLikelihood(Likelihood):
    """A likelihood with decoder outputs in standardised units.

    The mean of x is offset + scale * output. `adapt` sets the offset to the
    mean of all data and the scale to their standard deviation, so that the
    outputs of a new decoder match the data and optimisation does not depend on
    the data's units. Bounds, noise and means stay in the data's own units.

    Attributes:
      offset: Scalar weight; not trained.
      scale: Scalar weight; not trained.
    """

    def __init__(self, standardize: bool = True, **kwargs: Any):
        """Creates the likelihood.

        Args:
          standardize: Whether `adapt` sets offset and scale.
          **kwargs: Keyword arguments of `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.standardize = standardize
        self.offset = self._add_scalar("offset", 0.0)
        self.scale = self._add_scalar("scale", 1.0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "standardize": self.standardize}

    def adapt(self, x: np.ndarray) -> None:
        self._adapt_to(self._moments(x))

    def _adapt_to(self, columns: moments.Moments) -> None:
        """Initialises data-dependent parameters from the moments of data."""
        if self.standardize:
            found, within = columns.pooled(), columns.within_columns()
            if found.variance > _FAR_APART**2 * within.variance > 0.0:
                warnings.warn(
                    "the columns of `x` are much further apart (standard "
                    f"deviation {found.variance**0.5:.3g}) than the rows "
                    f"({within.variance**0.5:.3g}), which a decoder has to "
                    "learn first; subtract each column's mean",
                    stacklevel=4,
                )
            self.offset.assign(found.mean)
            self.scale.assign(moments.scale_of(found, _CONSTANT_SCALE))

    def check_units(self, x: np.ndarray) -> None:
        offset, scale = self.offset.numpy(), self.scale.numpy()
        # The farthest is an end: no copy of the data is made.
        ends = np.array([np.nanmin(x), np.nanmax(x)], np.float64)
        largest = np.abs(ends - offset).max() / scale
        if largest > MAX_DISTANCE:
            raise ValueError(
                f"`x` must be at most {MAX_DISTANCE:g} of the likelihood's "
                f"scales, {scale:g}, from its offset, {offset:g}, to be "
                f"trained on, got {largest:g}; call adapt(x) first"
            )

    def _to_outputs(self, x: tf.Tensor) -> tf.Tensor:
        """Returns data in the units of the outputs, limited to finite ones."""
        standardized = (x - self.offset.value) / self.scale.value
        return tf.clip_by_value(standardized, -MAX_DISTANCE, MAX_DISTANCE)

    def _from_outputs(self, outputs: tf.Tensor) -> tf.Tensor:
        return self.offset.value + self.scale.value * outputs

    def _log_volume(self, observed: tf.Tensor) -> tf.Tensor:
        """Returns sum_d o_d log(scale), nats, `[...]`.

        It is what a log-density in the units of the outputs exceeds the one in
        the data's units by.
        """
        return tf.reduce_sum(observed, -1) * tf.math.log(self.scale.value)
