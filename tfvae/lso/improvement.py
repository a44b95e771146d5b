# SPDX-License-Identifier: Apache-2.0
"""Expected improvement and its numerically stable logarithm (LogEI)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.special
import tensorflow as tf

if TYPE_CHECKING:
    from tfvae.lso.surrogates import Surrogate


def expected_improvement(
    mean: np.ndarray, std: np.ndarray, incumbent: float
) -> np.ndarray:
    """Returns E max(f - incumbent, 0) for normal f, elementwise.

    Args:
      mean: Mean of f.
      std: Standard deviation of f; not negative.
      incumbent: The score to improve on.
    """
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    gain = mean - incumbent
    z = gain / np.where(std > 0.0, std, 1.0)
    density = np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)
    # Phi(z) = density(z) ratio(z) avoids cancellation with the density.
    ratio = np.sqrt(0.5 * np.pi) * scipy.special.erfcx(
        np.maximum(-z, 0.0) / np.sqrt(2.0)
    )
    below = density * np.maximum(1.0 + z * ratio, 0.0)
    above = density + z * scipy.special.ndtr(z)
    improvement = std * np.where(z < 0.0, below, above)
    return np.where(std > 0.0, improvement, np.maximum(gain, 0.0))


# Below this, 1 - |z| ratio(z) = 1 / z^2 is more accurate than the difference.
_FAR_BELOW = -1e4


@tf.custom_gradient
def _log_improvement(z: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """Returns log(phi(z) + z Phi(z)), float64, accurate to z = -1e150."""
    import tensorflow_probability as tfp

    log_density = -0.5 * tf.square(z) - 0.5 * np.log(2.0 * np.pi)
    near = tf.clip_by_value(z, _FAR_BELOW, 0.0)
    ratio = np.sqrt(0.5 * np.pi) * tfp.math.erfcx(-near / np.sqrt(2.0))
    share = 1.0 + near * ratio
    size = tf.maximum(tf.abs(z), 1.0)
    positive = tf.maximum(z, 0.0)
    density = tf.exp(-0.5 * tf.square(positive)) / np.sqrt(2.0 * np.pi)
    cumulative = 0.5 * tf.math.erfc(-positive / np.sqrt(2.0))
    above = density + positive * cumulative
    below = tf.where(
        z < _FAR_BELOW,
        log_density - 2.0 * tf.math.log(size),
        log_density + tf.math.log(share),
    )
    value = tf.where(z < 0.0, below, tf.math.log(above))

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        slope = tf.where(z < _FAR_BELOW, size, ratio / share)
        return upstream * tf.where(z < 0.0, slope, cumulative / above)

    return value, gradient


def log_expected_improvement(
    mean: tf.Tensor, std: tf.Tensor, incumbent: Any
) -> tf.Tensor:
    """Returns the log of expected improvement, float64, elementwise.

    It has the same maxima, and a gradient even where expected improvement
    underflows to zero (Ament et al., 2023, "Unexpected improvements to
    expected improvement for Bayesian optimization").
    """
    mean = tf.cast(mean, tf.float64)
    std = tf.maximum(tf.cast(std, tf.float64), 1e-100)
    # So that the square of z does not overflow.
    z = tf.maximum((mean - tf.cast(incumbent, tf.float64)) / std, -1e150)
    return tf.math.log(std) + _log_improvement(z)


def log_improvement_at(
    surrogate: Surrogate, latents: Any, incumbent: Any
) -> tf.Tensor:
    """Returns the log of expected improvement at latents `[q, M]`, `[q]`."""
    return log_expected_improvement(*surrogate.predict(latents), incumbent)


def log_normal_cdf(z: tf.Tensor) -> tf.Tensor:
    """Returns the log of the standard normal distribution function.

    Args:
      z: float64, any shape.

    Returns:
      float64, with a gradient even where the function underflows to zero.
    """
    import tensorflow_probability as tfp

    normal = tfp.distributions.Normal(np.float64(0.0), np.float64(1.0))
    # So that the square of z does not overflow.
    return normal.log_cdf(tf.maximum(tf.cast(z, tf.float64), -1e150))
