# SPDX-License-Identifier: Apache-2.0
"""Log-densities in nats, all constants kept, summed over observed entries.

Everywhere: `x` float32 `[..., D]` with missing entries set to any finite
value, `observed` float32 `[..., D]`, 1 where an entry counts and 0 where it is
missing. Leading dimensions broadcast.
"""

from __future__ import annotations

import math

import tensorflow as tf


def split_missing(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits data with NaN for missing entries into values and a mask.

    Args:
      x: float32 `[..., D]`, NaN where missing.

    Returns:
      The data with zeros in place of NaN, and float32 `observed`, both
      `[..., D]`.
    """
    missing = tf.math.is_nan(x)
    return tf.where(missing, 0.0, x), tf.cast(~missing, tf.float32)


def bernoulli_log_prior(states: tf.Tensor, prior_probs: tf.Tensor) -> tf.Tensor:
    """Returns log p(s) = sum_h s_h log pi_h + (1 - s_h) log(1 - pi_h).

    Args:
      states: float32 `[..., H]` of zeros and ones.
      prior_probs: float32 `[H]`, inside (0, 1).

    Returns:
      float32 `[...]`.
    """
    # One matrix-vector product: log-odds of the ones, plus the empty state.
    log_off = tf.math.log1p(-prior_probs)
    log_odds = tf.math.log(prior_probs) - log_off
    return tf.linalg.matvec(states, log_odds) + tf.reduce_sum(log_off)


def squared_error(
    x: tf.Tensor, observed: tf.Tensor, mean: tf.Tensor
) -> tf.Tensor:
    """Returns the squared error summed over observed entries, `[...]`."""
    return tf.reduce_sum(
        observed * tf.math.squared_difference(x, mean), axis=-1
    )


def gaussian_log_prob(
    error: tf.Tensor, num_observed: tf.Tensor, variance: tf.Tensor
) -> tf.Tensor:
    """Returns log N(x; mean, variance I) from the summed squared error.

    Args:
      error: `[...]`, squared error summed over observed entries.
      num_observed: `[...]`, the number of those entries.
      variance: Scalar.

    Returns:
      `[...]`.
    """
    log_normaliser = num_observed * tf.math.log(2.0 * math.pi * variance)
    return -0.5 * (log_normaliser + error / variance)


def diagonal_gaussian_log_prob(
    x: tf.Tensor,
    observed: tf.Tensor,
    mean: tf.Tensor,
    log_variance: tf.Tensor,
) -> tf.Tensor:
    """Returns log N(x; mean, diag(exp(log_variance))), `[...]`."""
    scaled = tf.math.squared_difference(x, mean) * tf.exp(-log_variance)
    per_entry = math.log(2.0 * math.pi) + log_variance + scaled
    return -0.5 * tf.reduce_sum(observed * per_entry, axis=-1)


def bernoulli_log_prob(
    x: tf.Tensor, observed: tf.Tensor, logits: tf.Tensor
) -> tf.Tensor:
    """Returns x log m + (1 - x) log(1 - m), m = sigmoid(logits), `[...]`."""
    # log m = l - softplus(l) and log(1 - m) = -softplus(l).
    per_entry = x * logits - tf.nn.softplus(logits)
    return tf.reduce_sum(observed * per_entry, axis=-1)
