# SPDX-License-Identifier: Apache-2.0
"""Tests of log-densities against float64, entry by entry."""

from __future__ import annotations

import numpy as np
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized

from tests import oracles
from tfvae.ops import densities

NAN = float("nan")


def _incomplete_data(shape, seed=0, low=-2.0, high=2.0):
    """Random data with some entries missing."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(low, high, shape).astype(np.float32)
    x[rng.random(shape) < 0.3] = NAN
    return x


class SplitMissingTest(tf.test.TestCase):
    def test_missing_entries_become_zeros_and_are_marked(self):
        x, observed = densities.split_missing(
            tf.constant([[1.0, NAN, 0.0], [NAN, -2.0, 3.0]])
        )
        self.assertAllEqual(x, [[1.0, 0.0, 0.0], [0.0, -2.0, 3.0]])
        self.assertAllEqual(observed, [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])


class PriorTest(tf.test.TestCase):
    def test_log_prior_equals_a_sum_over_latents(self):
        prior_probs = np.array([0.1, 0.5, 0.99999, 1e-5, 0.3], np.float32)
        states = oracles.enumerate_states(5)
        expected = [oracles.log_prior(s, prior_probs) for s in states]
        log_prior = densities.bernoulli_log_prior(
            tf.constant(states.reshape(4, 8, 5), tf.float32),
            tf.constant(prior_probs),
        )
        # The log-odds of 0.99999 in float32 carry an error of 2**-24 / 1e-5.
        self.assertAllClose(
            log_prior, np.reshape(expected, (4, 8)), rtol=1e-4, atol=1e-4
        )

    def test_prior_sums_to_1_over_all_states(self):
        log_prior = densities.bernoulli_log_prior(
            tf.constant(oracles.enumerate_states(8), tf.float32),
            tf.constant(np.linspace(0.05, 0.9, 8), tf.float32),
        )
        self.assertAllClose(tf.reduce_sum(tf.exp(log_prior)), 1.0, rtol=1e-5)


class LikelihoodTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(0.01, 1.0, 900.0)
    def test_gaussian_equals_a_sum_over_observed_entries(self, variance):
        data = _incomplete_data((6, 1, 5))
        mean = np.random.default_rng(1).normal(size=(6, 4, 5))
        x, observed = densities.split_missing(tf.constant(data))
        error = densities.squared_error(
            x, observed, tf.constant(mean, tf.float32)
        )
        log_prob = densities.gaussian_log_prob(
            error, tf.reduce_sum(observed, -1), tf.constant(variance)
        )
        expected = [
            [oracles.gaussian_log_prob(row[0], m, variance) for m in means]
            for row, means in zip(data, mean, strict=True)
        ]
        self.assertAllClose(log_prob, expected, rtol=1e-5, atol=1e-5)

    def test_diagonal_gaussian_equals_a_sum_over_observed_entries(self):
        data = _incomplete_data((6, 1, 5))
        rng = np.random.default_rng(1)
        mean, log_variance = rng.normal(size=(2, 6, 4, 5)).astype(np.float32)
        x, observed = densities.split_missing(tf.constant(data))
        log_prob = densities.diagonal_gaussian_log_prob(
            x, observed, tf.constant(mean), tf.constant(log_variance)
        )
        for n in range(6):
            for k in range(4):
                expected = oracles.gaussian_log_prob(
                    data[n, 0], mean[n, k], np.exp(log_variance[n, k])
                )
                self.assertAllClose(log_prob[n, k], expected, rtol=1e-5)

    @parameterized.parameters(0.01, 1.0, 900.0)
    def test_gaussian_oracle_equals_scipy(self, variance):
        x, mean = np.random.default_rng(0).normal(size=(2, 5))
        expected = scipy.stats.norm.logpdf(x, mean, variance**0.5).sum()
        found = oracles.gaussian_log_prob(x, mean, variance)
        self.assertAllClose(found, expected, rtol=1e-12)

    def test_bernoulli_equals_its_formula_over_observed_entries(self):
        # Data between 0 and 1 count in proportion.
        data = _incomplete_data((6, 1, 5), low=0.0, high=1.0)
        logits = np.random.default_rng(1).normal(size=(6, 4, 5), scale=3.0)
        x, observed = densities.split_missing(tf.constant(data))
        log_prob = densities.bernoulli_log_prob(
            x, observed, tf.constant(logits, tf.float32)
        )
        expected = [
            [oracles.bernoulli_log_prob(row[0], one) for one in rows]
            for row, rows in zip(data, logits, strict=True)
        ]
        self.assertAllClose(log_prob, expected, rtol=1e-5, atol=1e-5)

    def test_bernoulli_is_exact_at_extreme_logits(self):
        log_prob = densities.bernoulli_log_prob(
            tf.constant([[1.0], [0.0], [1.0], [0.0]]),
            tf.ones([4, 1]),
            tf.constant([[200.0], [200.0], [-200.0], [-200.0]]),
        )
        self.assertAllClose(log_prob, [0.0, -200.0, -200.0, 0.0])

    def test_missing_entries_do_not_count_whatever_stands_there(self):
        observed = tf.constant([[1.0, 0.0]])
        outputs, log_variance = tf.constant([[0.2, -3.0]]), tf.zeros([1, 2])
        first, second = tf.constant([[0.5, 0.0]]), tf.constant([[0.5, 99.0]])
        for log_prob in (
            lambda x: densities.squared_error(x, observed, outputs),
            lambda x: densities.bernoulli_log_prob(x, observed, outputs),
            lambda x: densities.diagonal_gaussian_log_prob(
                x, observed, outputs, log_variance
            ),
        ):
            self.assertAllEqual(log_prob(first), log_prob(second))


if __name__ == "__main__":
    tf.test.main()
