# SPDX-License-Identifier: Apache-2.0
"""Poisson likelihood: counts of any size, against scipy, and in models."""

from __future__ import annotations

import functools
import math

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized

from tfvae import likelihoods, networks, priors, tvae, vae
from tfvae.ops import random

N, D, H = 60, 6, 2


def _rates(mean, seed=0):
    """Rates `[N, D]` of four patterns, which differ by about a factor of 2."""
    rng = np.random.default_rng(seed)
    patterns = rng.uniform(0.5, 1.5, (4, D))
    return mean * patterns[rng.integers(0, 4, N)]


def _counts(mean, seed=0):
    rng = np.random.default_rng(seed + 1)
    return rng.poisson(_rates(mean, seed)).astype(np.float32)


def _adapted(mean):
    likelihood = likelihoods.PoissonLikelihood()
    likelihood.adapt(_counts(mean))
    return likelihood


def _pairs(likelihood, x, outputs):
    of_data, of_outputs = likelihood.features(x, tf.ones_like(x))
    return tf.matmul(of_data, of_outputs(outputs), transpose_b=True)


class DensityTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        (1e-3, 1e-5), (1.0, 1e-5), (15.5, 1e-5), (300.0, 2e-4), (1e6, 2e-3),
        (1e9, 0.1),
    )  # fmt: skip
    def test_log_prob_equals_scipy_for_counts_of_any_size(self, mean, atol):
        likelihood = _adapted(mean)
        # Of 1e9, float32 holds every 64th: these are exact.
        x = np.float64(_counts(mean)[:8])
        outputs = np.random.default_rng(2).normal(0.0, 0.3, (5, D))
        outputs = outputs.astype(np.float32)
        rate = np.float64(likelihood.mean(tf.constant(outputs)))
        expected = scipy.stats.poisson.logpmf(x[:, None], rate).sum(-1)
        x = tf.constant(x, tf.float32)
        found = likelihood.log_prob(x[:, None], tf.ones([8, 1, D]), outputs)
        self.assertAllClose(found, expected, rtol=1e-5, atol=atol)

    @parameterized.parameters((0.1, 1e-5), (30.0, 1e-3), (3000.0, 0.05))
    def test_pairs_equal_scipy(self, mean, atol):
        likelihood = _adapted(mean)
        x = _counts(mean)
        outputs = np.random.default_rng(2).normal(size=(5, D))
        outputs = tf.constant(outputs, tf.float32)
        rate = np.float64(likelihood.mean(outputs))
        expected = scipy.stats.poisson.logpmf(np.float64(x)[:, None], rate).sum(
            -1
        )
        found = _pairs(likelihood, tf.constant(x), outputs)
        self.assertAllClose(found, expected, rtol=1e-5, atol=atol)

    def test_values_between_integers_are_interpolated(self):
        likelihood = likelihoods.PoissonLikelihood()
        x = tf.constant([[0.0], [0.5], [1.0], [15.9], [16.0], [16.1]])
        found = likelihood.log_prob(x, tf.ones_like(x), tf.ones([6, 1]))
        rate = math.log1p(math.e)
        expected = [
            v * math.log(rate) - rate - math.lgamma(v + 1.0)
            for v in x.numpy()[:, 0].tolist()
        ]
        self.assertAllClose(found, expected, rtol=1e-6)

    @parameterized.parameters(1e-3, 5.0, 1e4)
    def test_gradient_is_that_of_float64(self, mean):
        likelihood = _adapted(mean)
        x = tf.constant(_counts(mean)[:3])
        outputs = tf.constant(np.random.default_rng(3).normal(size=(3, D)))
        outputs = tf.cast(outputs, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            found = likelihood.log_prob(x, tf.ones_like(x), outputs)
        # d log p / d output = (x / rate - 1) d rate / d output.
        rate = np.float64(likelihood.mean(outputs))
        argument = np.float64(likelihood.shift) + np.float64(outputs)
        slope = float(likelihood.scale) / (1.0 + np.exp(-argument))
        expected = (np.float64(x) / rate - 1.0) * slope
        gradient = tape.gradient(found, outputs)
        self.assertAllClose(gradient, expected, rtol=1e-3, atol=1e-3)

    @parameterized.product(
        mean=[1e-3, 1.0, 1e9], output=[-3e38, -1e6, -90.0, 90.0, 1e6, 3e38]
    )
    def test_everything_is_finite_at_outputs_of_any_size(self, mean, output):
        likelihood = _adapted(mean)
        x = tf.constant([[0.0] * D, [1.0] * D, [1e9] * D, [3e38] * D])
        outputs = tf.fill([4, D], output)
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            found = likelihood.log_prob(x, tf.ones_like(x), outputs)
        gradient = tape.gradient(found, outputs)
        pairs = _pairs(likelihood, x, outputs)
        rates = likelihood.mean(outputs)
        for value in (found, gradient, pairs, rates):
            self.assertTrue(np.isfinite(value).all(), value)
        self.assertAllGreaterEqual(rates, 0.0)


class AdaptTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(1e-30, 1e-3, 1.0, 255.0, 1e9, 1e30)
    def test_outputs_of_0_have_the_mean_of_the_data(self, scale):
        x = scale * np.random.default_rng(0).random((50, D)).astype(np.float32)
        x[::7, 2] = np.nan
        likelihood = likelihoods.PoissonLikelihood()
        likelihood.adapt(x)
        found = likelihood.mean(tf.zeros([1, D]))
        mean = np.nanmean(np.float64(x))
        self.assertAllClose(found / mean, np.ones((1, D)), rtol=1e-5)

    def test_outputs_are_in_standard_deviations_of_bright_data(self):
        likelihood = _adapted(1e4)
        x = np.float64(_counts(1e4))
        found = likelihood.mean(tf.constant([[-1.0], [1.0], [2.0]]))
        expected = x.mean() + x.std() * np.array([[-1.0], [1.0], [2.0]])
        self.assertAllClose(found, expected, rtol=0.06)

    def test_counts_of_one_rate_have_its_root_as_scale(self):
        likelihood = likelihoods.PoissonLikelihood()
        likelihood.adapt(np.full((10, 3), 25.0))
        self.assertAllClose(likelihood.scale, 5.0)
        self.assertAllClose(likelihood.mean(tf.zeros([1, 1])), [[25.0]])

    def test_zeros_alone_have_a_positive_rate(self):
        likelihood = likelihoods.PoissonLikelihood()
        likelihood.adapt(np.zeros((10, 5)))
        self.assertAllClose(likelihood.mean(tf.zeros([1, 1])), [[0.01]])

    def test_counts_of_other_units_than_adapted_to_are_refused(self):
        likelihood = likelihoods.PoissonLikelihood()
        likelihood.check_units(np.full((2, 2), 1e11))
        with self.assertRaisesRegex(
            ValueError, r"`x` must be at most 1e\+12 .* got 1e\+13; call adapt"
        ):
            likelihood.check_units(np.array([[1e13, np.nan]]))


class SampleTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(0.0, 0.2, 3.0, 30.0)
    def test_draws_have_the_probabilities_of_scipy(self, rate):
        draws = random.poisson(random.make_seed(5), tf.fill([40000], rate))
        values = np.arange(scipy.stats.poisson.ppf(1.0 - 1e-3, rate) + 1)
        counts = [np.sum(draws == v) for v in values]
        counts.append(40000 - sum(counts))
        expected = scipy.stats.poisson.pmf(values, rate)
        expected = np.append(expected, 1.0 - expected.sum())
        for count, share in zip(counts, expected, strict=True):
            # Five standard errors of a binomial count.
            error = 5.0 * math.sqrt(40000 * share * (1.0 - share))
            self.assertAllClose(count, 40000 * share, rtol=0, atol=error + 1e-6)

    def test_draws_of_large_rates_have_their_moments(self):
        draws = random.poisson(random.make_seed(6), tf.fill([20000], 1e7))
        draws = np.float64(draws) - 1e7
        self.assertAllClose(draws.mean(), 0.0, atol=5.0 * math.sqrt(1e7 / 2e4))
        self.assertAllClose(draws.var(), 1e7, rtol=5.0 * math.sqrt(2.0 / 2e4))

    def test_draws_depend_on_the_seed_alone(self):
        rate = tf.linspace(0.0, 100.0, 500)
        draw = functools.partial(random.poisson, rate=rate)
        eager = draw(random.make_seed(1))
        self.assertAllEqual(tf.function(draw)(random.make_seed(1)), eager)
        self.assertNotAllEqual(draw(random.make_seed(2)), eager)


def _model(kind):
    keras.utils.set_random_seed(1)
    likelihood = likelihoods.PoissonLikelihood()
    decoder = networks.FullyConnectedDecoder(D, (8,))
    if kind == "TVAE":
        # All states: nothing is evolved, which takes long to trace.
        return tvae.TVAE(decoder, H, N, likelihood=likelihood, num_states=2**H)
    encoder = vae.learnable(
        functools.partial(
            networks.fully_connected_encoder, num_observed=D, hidden=(8,)
        ),
        2,
    )
    return vae.VAE(encoder, decoder, priors.StandardNormalPrior(2), likelihood)


def _fit(model, x, num_steps):
    """Makes steps on all data points; one epoch, which is faster than many."""
    model.adapt(x)
    model.compile(keras.optimizers.Adam(0.05))
    batch = x
    if isinstance(model, tvae.TVAE):
        batch = (x, np.arange(N))
    batches = tf.data.Dataset.from_tensors(batch).repeat(num_steps)
    model.fit(batches, shuffle=False, verbose=0)


class ModelTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(("VAE", 0.05), ("VAE", 1e9), ("TVAE", 1e9))
    def test_training_on_counts_of_any_size_raises_a_finite_bound(
        self, kind, mean
    ):
        model, x = _model(kind), _counts(mean)
        model.adapt(x)
        before = np.mean(model.log_likelihood_bound(x))
        _fit(model, x, num_steps=10)
        after = np.mean(model.log_likelihood_bound(x))
        self.assertTrue(np.isfinite([before, after]).all())
        self.assertGreater(after, before)
        far = np.float32([[0.0] * D, [1e12] * D, [3e38] * D])
        found = model.log_likelihood_bound(far)
        self.assertTrue(np.isfinite(found).all(), found)
        self.assertTrue(np.isfinite(model.predict(x, verbose=0)).all())

    @pytest.mark.slow
    def test_patterns_of_rates_are_learned_from_incomplete_counts(self):
        mean = 20.0
        x, rates = _counts(mean), _rates(mean)
        is_missing = np.random.default_rng(3).random(x.shape) < 0.2
        x[is_missing] = np.nan
        model = _model("TVAE")
        _fit(model, x, num_steps=100)
        exact = model.log_likelihood(x)
        # The truth: four patterns, equally likely.
        patterns = np.unique(rates, axis=0)
        log_pmf = scipy.stats.poisson.logpmf(x[:, None], patterns)
        true = scipy.special.logsumexp(np.nansum(log_pmf, -1), 1) - math.log(4)
        self.assertGreater(np.mean(exact), np.mean(true) - 0.5)
        found = model.predict(x, verbose=0)
        # Mean squared errors: the counts themselves would have the rate, and
        # the mean of all rows the variance of the rates.
        errors = np.square(found - rates)
        self.assertLess(errors[~is_missing].mean(), 0.4 * mean)
        self.assertLess(errors[is_missing].mean(), 0.4 * rates.var(0).mean())

    def test_negative_counts_are_refused(self):
        with self.assertRaisesRegex(
            ValueError, r"must be in \[0, inf\] for PoissonLikelihood, got"
        ):
            _model("TVAE").adapt(-_counts(3.0))


if __name__ == "__main__":
    tf.test.main()
