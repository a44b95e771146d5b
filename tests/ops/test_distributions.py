# SPDX-License-Identifier: Apache-2.0
"""Tests of posteriors against scipy, TensorFlow Probability and sampling."""

from __future__ import annotations

import math

import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp
from absl.testing import parameterized

from tests import oracles
from tfvae.ops import random
from tfvae.ops.distributions import DiagonalGaussian, IndependentBernoulli

NUM_SAMPLES = 20000
# A right estimate is off by more for one seed in two million.
STANDARD_ERRORS = 5.0


def _gaussian(shape=(3, 4), scalar_variance=False):
    rng = np.random.default_rng(0)
    mean = rng.normal(size=shape).astype(np.float32)
    log_variance = rng.normal(size=shape).astype(np.float32)
    return DiagonalGaussian(
        tf.constant(mean),
        tf.constant(-0.7 if scalar_variance else log_variance),
    )


def _full_log_variance(gaussian):
    return np.broadcast_to(gaussian.log_variance, gaussian.mean.shape)


def _tfp_gaussian(gaussian):
    return tfp.distributions.MultivariateNormalDiag(
        gaussian.mean, np.exp(0.5 * _full_log_variance(gaussian))
    )


def _bernoulli(shape=(3, 4)):
    logits = 2.0 * np.random.default_rng(1).normal(size=shape)
    return IndependentBernoulli(tf.constant(logits, tf.float32))


def _tfp_bernoulli(bernoulli):
    return tfp.distributions.Independent(
        tfp.distributions.Bernoulli(logits=bernoulli.logits), 1
    )


class _SamplingTestCase(tf.test.TestCase, parameterized.TestCase):
    def _check_mean(self, draws, expected):
        """Holds the mean over the first dimension to `expected`."""
        draws = np.asarray(draws, np.float64)
        error = draws.std(0) / math.sqrt(len(draws))
        difference = np.abs(draws.mean(0) - np.asarray(expected))
        self.assertAllLessEqual(difference - STANDARD_ERRORS * error, 1e-6)


EXTREMES = (0.0, 1e-42, 1.0, 1e3, 1e10, 1e19, 1e30, 3e38)


def _pairs_of_extremes():
    """All pairs of values with both signs, `[n, 1]` each."""
    values = np.float32([*EXTREMES, *(-x for x in EXTREMES)])
    pairs = np.stack(np.meshgrid(values, values), -1).reshape(-1, 2, 1)
    return tf.constant(pairs[:, 0]), tf.constant(pairs[:, 1])


class ExtremesTest(tf.test.TestCase):
    def test_gaussian_is_finite_for_any_finite_values(self):
        one, other = _pairs_of_extremes()
        ones = tf.ones_like(one)
        for log_variance in (ones, other, -400.0 * ones):
            for latents, mean in ((one, other), (other, one), (one, one)):
                self._assert_finite(
                    lambda z, m, v: [
                        DiagonalGaussian(m, v).log_prob(z),
                        DiagonalGaussian(m, v).entropy(),
                        DiagonalGaussian(m, v).kl_from_standard_normal(),
                    ],
                    (latents, mean, log_variance),
                )

    def test_bernoulli_is_finite_for_any_finite_values(self):
        one, other = _pairs_of_extremes()
        self._assert_finite(
            lambda states, logits: [
                IndependentBernoulli(logits).log_prob(states),
                IndependentBernoulli(logits).entropy(),
            ],
            (one, other),
        )

    def _assert_finite(self, function, arguments):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(arguments)
            values = function(*arguments)
        for value in values:
            self.assertTrue(np.isfinite(value).all(), value)
            for gradient in tape.gradient(value, arguments):
                if gradient is not None:
                    self.assertTrue(np.isfinite(gradient).all(), gradient)

    def test_probabilities_of_0_and_1_are_certain(self):
        certain = IndependentBernoulli(tf.constant([np.inf, -np.inf]))
        self.assertEqual(certain.log_prob(tf.constant([1.0, 0.0])), 0.0)
        self.assertEqual(certain.entropy(), 0.0)
        self.assertLess(certain.log_prob(tf.constant([0.0, 0.0])), -1e14)

    def test_far_latents_do_not_change_the_density_of_others(self):
        gaussian = _gaussian((4,))
        latents = np.random.default_rng(2).normal(size=(5, 4))
        alone = gaussian.log_prob(tf.constant(latents, tf.float32))
        latents[0] = 1e30
        found = gaussian.log_prob(tf.constant(latents, tf.float32))
        self.assertAllClose(found[1:], alone[1:], rtol=1e-6)


class DiagonalGaussianTest(_SamplingTestCase):
    @parameterized.parameters(False, True)
    def test_log_prob_is_a_sum_over_latents(self, scalar_variance):
        gaussian = _gaussian(scalar_variance=scalar_variance)
        latents = np.random.default_rng(2).normal(size=(5, 3, 4))
        log_prob = gaussian.log_prob(tf.constant(latents, tf.float32))
        variance = np.exp(np.float64(_full_log_variance(gaussian)))
        expected = [
            [
                oracles.gaussian_log_prob(
                    latents[k, b], gaussian.mean[b].numpy(), variance[b]
                )
                for b in range(3)
            ]
            for k in range(5)
        ]
        self.assertAllClose(log_prob, expected, rtol=1e-5)

    @parameterized.parameters(False, True)
    def test_values_equal_those_of_another_library(self, scalar_variance):
        gaussian = _gaussian(scalar_variance=scalar_variance)
        other = _tfp_gaussian(gaussian)
        latents = tf.constant(
            np.random.default_rng(2).normal(size=(5, 3, 4)), tf.float32
        )
        standard = tfp.distributions.MultivariateNormalDiag(tf.zeros(4))
        for found, expected in (
            (gaussian.log_prob(latents), other.log_prob(latents)),
            (gaussian.entropy(), other.entropy()),
            (gaussian.kl_from_standard_normal(), other.kl_divergence(standard)),
        ):
            self.assertAllClose(found, expected, rtol=1e-5, atol=1e-5)

    def test_draws_have_the_moments(self):
        gaussian = _gaussian()
        draws = gaussian.sample(random.make_seed(3), NUM_SAMPLES)
        self.assertEqual(draws.shape, (NUM_SAMPLES, 3, 4))
        self._check_mean(draws, gaussian.mean)
        squares = tf.math.squared_difference(draws, gaussian.mean)
        self._check_mean(squares, tf.exp(gaussian.log_variance))

    @parameterized.parameters(False, True)
    def test_draws_have_the_entropy_and_the_divergence(self, scalar_variance):
        gaussian = _gaussian(scalar_variance=scalar_variance)
        draws = gaussian.sample(random.make_seed(4), NUM_SAMPLES)
        log_prob = gaussian.log_prob(draws)
        self._check_mean(-log_prob, gaussian.entropy())
        standard = DiagonalGaussian(tf.zeros([4]), tf.constant(0.0))
        self._check_mean(
            log_prob - standard.log_prob(draws),
            gaussian.kl_from_standard_normal(),
        )

    def test_draw_of_one_has_no_dimension_of_its_own(self):
        draw = _gaussian().sample(random.make_seed(0))
        self.assertEqual(draw.shape, (3, 4))
        self.assertNotAllClose(draw, _gaussian().sample(random.make_seed(1)))

    def test_gradients_of_draws_are_those_of_their_moments(self):
        # d E[z] / d mean = 1 and d E[(z - mean)**2] / d log_variance is the
        # variance: of each draw, the mean of which is taken.
        gaussian = _gaussian((3,))
        mean = tf.repeat(gaussian.mean[tf.newaxis], NUM_SAMPLES, 0)
        log_variance = tf.repeat(
            gaussian.log_variance[tf.newaxis], NUM_SAMPLES, 0
        )
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([mean, log_variance])
            repeated = DiagonalGaussian(mean, log_variance)
            draws = repeated.sample(random.make_seed(5))
            squares = tf.math.squared_difference(draws, gaussian.mean)
        self.assertAllClose(tape.gradient(draws, mean), tf.ones_like(draws))
        self._check_mean(
            tape.gradient(squares, log_variance),
            tf.exp(gaussian.log_variance),
        )

    def test_gradients_of_values_equal_differences(self):
        # Differences over 2e-2 in float32 carry errors of some 1e-4.
        gaussian = _gaussian((2,))
        latents = tf.constant([0.3, -1.0])
        for value in (
            lambda g: g.log_prob(latents),
            lambda g: g.entropy(),
            lambda g: g.kl_from_standard_normal(),
        ):
            gradients = tf.test.compute_gradient(
                lambda m, v, value=value: value(DiagonalGaussian(m, v)),
                list(gaussian),
                delta=1e-2,
            )
            for theoretical, numeric in zip(*gradients, strict=True):
                self.assertAllClose(theoretical, numeric, atol=1e-3)


class IndependentBernoulliTest(_SamplingTestCase):
    def test_log_prob_equals_the_oracle_for_every_state(self):
        bernoulli = _bernoulli((4,))
        states = oracles.enumerate_states(4)
        expected = [
            oracles.log_prior(state, scipy.special.expit(bernoulli.logits))
            for state in states
        ]
        log_prob = bernoulli.log_prob(tf.constant(states, tf.float32))
        self.assertAllClose(log_prob, expected, rtol=1e-4, atol=1e-5)
        self.assertAllClose(tf.reduce_sum(tf.exp(log_prob)), 1.0, rtol=1e-5)
        probs = np.exp(expected)
        self.assertAllClose(
            bernoulli.entropy(), -probs @ np.array(expected), rtol=1e-5
        )
        self.assertAllClose(bernoulli.mean, probs @ states, rtol=1e-5)

    def test_mode_is_the_likeliest_state(self):
        bernoulli = _bernoulli((4,))
        states = tf.constant(oracles.enumerate_states(4), tf.float32)
        best = tf.argmax(bernoulli.log_prob(states))
        self.assertAllEqual(bernoulli.mode, states[best])
        self.assertAllEqual(_gaussian().mode, _gaussian().mean)

    def test_values_equal_those_of_another_library(self):
        bernoulli = _bernoulli()
        other = _tfp_bernoulli(bernoulli)
        states = np.random.default_rng(2).integers(0, 2, (5, 3, 4))
        states = tf.constant(states, tf.float32)
        for found, expected in (
            (bernoulli.log_prob(states), other.log_prob(states)),
            (bernoulli.entropy(), other.entropy()),
        ):
            self.assertAllClose(found, expected, rtol=1e-5, atol=1e-5)

    def test_extreme_logits_stay_finite(self):
        bernoulli = IndependentBernoulli(tf.constant([200.0, -200.0]))
        self.assertAllClose(bernoulli.log_prob(tf.constant([1.0, 0.0])), 0.0)
        self.assertAllClose(bernoulli.log_prob(tf.constant([0.0, 0.0])), -200.0)
        self.assertAllClose(bernoulli.entropy(), 0.0)
        relaxed = bernoulli.relaxed_sample(random.make_seed(0), 0.1)
        self.assertAllClose(relaxed, [1.0, 0.0])

    def test_draws_are_binary_and_have_the_mean_and_the_entropy(self):
        bernoulli = _bernoulli()
        draws = bernoulli.sample(random.make_seed(3), NUM_SAMPLES)
        self.assertEqual(draws.shape, (NUM_SAMPLES, 3, 4))
        self.assertAllInSet(draws, [0.0, 1.0])
        self._check_mean(draws, bernoulli.mean)
        self._check_mean(-bernoulli.log_prob(draws), bernoulli.entropy())
        self.assertEqual(bernoulli.sample(random.make_seed(3)).shape, (3, 4))

    @parameterized.parameters(0.2, 0.66, 2.0)
    def test_relaxed_draws_are_from_the_relaxed_distribution(self, temperature):
        # logit(draw) * temperature - logits is logistic.
        logits = tf.tile([[-1.0, 0.0, 2.0]], [NUM_SAMPLES, 1])
        draws = IndependentBernoulli(logits).relaxed_sample(
            random.make_seed(6), temperature
        )
        self.assertAllInRange(draws, 0.0, 1.0)
        for h in range(3):
            found = np.float64(draws[:, h])
            # In float32 what is near to 1 is 1: only the rest has a logit.
            inside = (found > 1e-6) & (found < 1.0 - 1e-6)
            limit = scipy.special.logit(1e-6) * temperature
            logistic = scipy.stats.logistic(float(logits[0, h]))
            low, high = logistic.cdf(limit), logistic.cdf(-limit)

            def cdf(v, low=low, high=high, of=logistic):
                return (of.cdf(v) - low) / (high - low)

            values = scipy.special.logit(found[inside]) * temperature
            p_value = scipy.stats.kstest(values, cdf).pvalue
            self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)
        # At any temperature, more than one half is as likely as a one.
        ones = tf.cast(draws > 0.5, tf.float32)
        self._check_mean(ones, tf.sigmoid(logits[0]))

    def test_relaxed_draws_become_binary_as_the_temperature_falls(self):
        bernoulli = _bernoulli((1000,))
        seed = random.make_seed(7)
        cold = bernoulli.relaxed_sample(seed, 1e-4)
        share = np.mean((cold > 1e-3) & (cold < 1.0 - 1e-3))
        self.assertLess(share, 0.01)
        warm = bernoulli.relaxed_sample(seed, 0.5)
        self.assertAllEqual(warm > 0.5, cold > 0.5)

    def test_relaxed_draws_have_a_gradient(self):
        # y = sigmoid(u / t) with u = logits + noise: dy / dlogits is
        # y (1 - y) / t.
        temperature = 0.66
        logits = _bernoulli().logits
        with tf.GradientTape() as tape:
            tape.watch(logits)
            draws = IndependentBernoulli(logits).relaxed_sample(
                random.make_seed(8), temperature
            )
        self.assertAllClose(
            tape.gradient(draws, logits),
            draws * (1.0 - draws) / temperature,
            rtol=1e-4,
            atol=1e-6,
        )

    def test_gradients_of_values_equal_differences(self):
        states = tf.constant([1.0, 0.0, 0.3])
        for value in (
            lambda b: b.log_prob(states),
            lambda b: b.entropy(),
        ):
            theoretical, numeric = tf.test.compute_gradient(
                lambda logits, value=value: value(IndependentBernoulli(logits)),
                [_bernoulli((3,)).logits],
                delta=1e-2,
            )
            self.assertAllClose(theoretical[0], numeric[0], atol=1e-3)


if __name__ == "__main__":
    tf.test.main()
