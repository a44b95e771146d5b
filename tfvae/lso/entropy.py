# SPDX-License-Identifier: Apache-2.0
"""Max-value entropy search: the logarithm of its acquisition function."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

# Below this, rounding errors exceed the value; above, squares overflow.
_LEAST, _LARGEST = -1e3, 1e150


@tf.custom_gradient
def _log_gain(gamma: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """Returns log(gamma phi / (2 Phi) - log Phi), float64, phi at gamma.

    With R = (1 - Phi) / phi at |gamma|, Mills's ratio, which neither underflows
    nor cancels:
      gamma >= 0: phi (gamma / (2 Phi) + R h), h = -log(1 - q) / q, q = phi R,
                  where q underflows long after h has become 1;
      gamma < 0:  gamma / (2 R) - log phi - log R, as Phi = phi R.
    """
    import tensorflow_probability as tfp

    size = tf.abs(gamma)
    mills = np.sqrt(0.5 * np.pi) * tfp.math.erfcx(size / np.sqrt(2.0))
    log_density = -0.5 * tf.square(size) - 0.5 * np.log(2.0 * np.pi)
    # The probability of more than |gamma|.
    tail = tf.exp(log_density) * mills
    some = tf.maximum(tail, 1e-300)
    above = 0.5 * size / (1.0 - tail) - mills * tf.math.log1p(-some) / some
    below = -0.5 * size / mills - log_density - tf.math.log(mills)
    is_above = gamma >= 0.0
    value = tf.where(
        is_above, log_density + tf.math.log(above), tf.math.log(below)
    )

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        # The slope is -r (1 + gamma^2 + gamma r) / 2 with r = phi / Phi.
        ratio = tf.where(
            is_above, tf.exp(log_density) / (1.0 - tail), 1.0 / mills
        )
        factor = 1.0 + tf.square(gamma) + gamma * ratio
        slope = tf.where(
            is_above,
            # Here r and the value both have the factor phi.
            -0.5 * factor / ((1.0 - tail) * above),
            -0.5 * ratio * factor / below,
        )
        return upstream * slope

    return value, gradient


def log_entropy_gain(
    mean: tf.Tensor, std: tf.Tensor, max_values: Any
) -> tf.Tensor:
    """Returns the log of the information gained on the maximum of f.

    That is, of how much the entropy of f at a point falls, in nats, when the
    maximum of f becomes known, in the mean over draws of the maximum (Wang and
    Jegelka, 2017, "Max-value entropy search for efficient Bayesian
    optimization", equation 6).

    Args:
      mean: Mean of f at points, `[q]`.
      std: Standard deviation of f there, `[q]`.
      max_values: Draws of the maximum of f, `[K]`.

    Returns:
      float64 `[q]`.
    """
    mean = tf.cast(mean, tf.float64)
    std = tf.maximum(tf.cast(std, tf.float64), 1e-100)
    values = tf.cast(max_values, tf.float64)
    gamma = (values[:, None] - mean) / std
    gains = _log_gain(tf.clip_by_value(gamma, _LEAST, _LARGEST))  # [K, q]
    count = tf.cast(tf.size(values), tf.float64)
    return tf.reduce_logsumexp(gains, 0) - tf.math.log(count)
