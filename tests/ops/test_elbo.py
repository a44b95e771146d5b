# SPDX-License-Identifier: Apache-2.0
"""Tests of the importance-weighted bound against float64 sums of weights."""

from __future__ import annotations

import math

import numpy as np
import scipy.special
import tensorflow as tf

from tfvae.ops import elbo

# Draws of a batch of four data points, `[K, B]`: usual ones, one and all
# but one of which the weight is 0, and no other ones.
INF = math.inf
LOG_WEIGHTS = np.float32(
    [
        [-1.0, -INF, -INF, -INF],
        [-3.0, -2.0, -700.0, -INF],
        [2.0, -5e4, -INF, -INF],
    ]
)


def _bound_and_gradient(compute):
    """Returns the bound `[B]` and its gradient in the log-weights `[K, B]`."""
    log_weights = tf.constant(LOG_WEIGHTS)
    with tf.GradientTape() as tape:
        tape.watch(log_weights)
        bound = compute(log_weights)
    return bound, tape.gradient(bound, log_weights)


class ImportanceWeightedBoundTest(tf.test.TestCase):
    def _compute(self, log_weights):
        return elbo.importance_weighted_bound(
            lambda draw: log_weights[draw], 4, tf.constant(3)
        )

    def _assert_right(self, bound, gradient):
        expected = scipy.special.logsumexp(np.float64(LOG_WEIGHTS), 0)
        self.assertAllClose(bound, expected - math.log(3.0), rtol=1e-6)
        shares = np.exp(np.float64(LOG_WEIGHTS[:, :3]) - expected[:3])
        self.assertAllClose(gradient[:, :3], shares, rtol=1e-5, atol=1e-7)
        self.assertAllEqual(gradient[:, 3], np.zeros(3))

    def test_weights_of_zero_count_as_such_in_value_and_gradient(self):
        self._assert_right(*_bound_and_gradient(self._compute))

    def test_graph_computes_the_same(self):
        self._assert_right(*_bound_and_gradient(tf.function(self._compute)))


if __name__ == "__main__":
    tf.test.main()
