# SPDX-License-Identifier: Apache-2.0
"""Importance-weighted lower bound on log p(x), accumulated draw by draw."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf


def importance_weighted_bound(
    log_weight: Callable[[tf.Tensor], tf.Tensor],
    batch_size: int | tf.Tensor,
    num_samples: int | tf.Tensor,
) -> tf.Tensor:
    """Returns log 1/K sum_k p(x, z_k) / q(z_k | x), a lower bound on log p(x).

    It is the ELBO for K = 1; its expectation never decreases with K and
    converges to log p(x). Memory does not grow with K.

    Reference: Burda, Grosse and Salakhutdinov, 2016, "Importance weighted
    autoencoders", equation 8 and theorem 1.

    Args:
      log_weight: From the index of the draw k, int32 scalar, to the log
        importance weights log p(x, z_k) - log q(z_k | x), `[B]`; each call
        uses a new draw z_k.
      batch_size: B.
      num_samples: K, at least 1.

    Returns:
      `[B]`, nats; -inf, with gradient 0, where all weights are zero.
    """

    def advance(
        draw: tf.Tensor, total: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return draw + 1, _log_add(total, log_weight(draw))

    num_samples = tf.cast(num_samples, tf.int32)
    nothing = tf.fill([batch_size], -math.inf)
    _, total = tf.while_loop(
        lambda draw, _: draw < num_samples,
        advance,
        (tf.constant(0), nothing),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None])),
        parallel_iterations=1,
    )
    return total - tf.math.log(tf.cast(num_samples, tf.float32))


def _log_add(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns log(exp(one) + exp(other)), differentiable where one is -inf."""
    low, high = tf.minimum(one, other), tf.maximum(one, other)
    are_positive = low > -math.inf
    # The gradient of a difference of infinities would be NaN, selected or not.
    gap = tf.where(are_positive, low, 0.0) - tf.where(are_positive, high, 0.0)
    total = high + tf.math.log1p(tf.exp(gap))
    only = tf.where(high > -math.inf, high, -math.inf)
    return tf.where(are_positive, total, only)
