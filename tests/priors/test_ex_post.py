# SPDX-License-Identifier: Apache-2.0
"""Tests that priors fitted to latents come close to where they are from."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized

from tests import oracles
from tests.priors import small
from tfvae import priors

WEIGHTS = np.array([0.2, 0.3, 0.5])
MEANS = np.array([[-3.0, 0.0], [1.0, 4.0], [2.0, -2.0]])
STDS = np.array([[1.0, 0.3], [0.5, 1.5], [0.8, 0.8]])


def _draw_mixture(num_draws, seed):
    rng = np.random.default_rng(seed)
    which = rng.choice(3, num_draws, p=WEIGHTS)
    return MEANS[which] + STDS[which] * rng.normal(size=(num_draws, 2))


def _mixture_log_prob(z):
    log_probs = scipy.stats.norm.logpdf(z[:, None], MEANS, STDS).sum(-1)
    return scipy.special.logsumexp(np.log(WEIGHTS) + log_probs, -1)


def _mean_log_prob(prior, z):
    return float(tf.reduce_mean(prior.log_prob(tf.constant(z, tf.float32))))


class FitTest(tf.test.TestCase, parameterized.TestCase):
    def test_mixture_finds_the_mixture_that_the_latents_are_from(self):
        keras.utils.set_random_seed(0)
        prior = priors.GaussianMixturePrior(2, 3)
        history = priors.fit_prior(
            prior,
            _draw_mixture(4000, 0),
            epochs=40,
            batch_size=200,
            learning_rate=0.01,
        )
        # KL(truth || fit), as a mean of differences over 10000 other draws,
        # with a standard error of 0.001. A maximum-likelihood fit of 14
        # weights to 3600 latents has about 14 / 2 / 3600 = 0.002; the rest
        # is left to the steps' noise.
        z = _draw_mixture(10000, 1)
        difference = _mixture_log_prob(z).mean() - _mean_log_prob(prior, z)
        self.assertBetween(difference, -0.003, 0.01)
        means = prior.means.numpy()
        order = np.argsort(means[:, 0])
        self.assertAllClose(means[order], MEANS, atol=0.15)
        weights = scipy.special.softmax(prior.logits.numpy()[order])
        self.assertAllClose(weights, WEIGHTS, atol=0.03)
        self.assertGreater(
            history.held_out_log_prob[history.best_epoch],
            history.held_out_log_prob[0],
        )

    def test_flow_finds_the_dependence_of_latents(self):
        keras.utils.set_random_seed(0)
        correlation = 0.9
        covariance = [[1.0, correlation], [correlation, 1.0]]
        truth = scipy.stats.multivariate_normal([5.0, -2.0], covariance)
        prior = priors.RealNVPPrior(2, hidden=(16,))
        priors.fit_prior(
            prior,
            truth.rvs(4000, random_state=0),
            epochs=15,
            batch_size=200,
            learning_rate=5e-3,
        )
        z = truth.rvs(10000, random_state=1)
        difference = truth.logpdf(z).mean() - _mean_log_prob(prior, z)
        # Independent normals lose the mutual information, 0.83 nats.
        self.assertBetween(difference, -0.01, 0.08)

    @parameterized.named_parameters(
        (cls.__name__, cls)
        for cls in small.CASES
        if cls is not priors.StandardNormalPrior
    )
    def test_latents_held_out_become_likelier(self, cls):
        model = small.model(cls, 2)
        rng = np.random.default_rng(0)
        if cls in small.BINARY:
            latents = rng.random((600, 2)) < [0.1, 0.7]
        else:
            latents = _draw_mixture(600, 0)
        encoder = model.encoder.get_weights()
        history = priors.fit_prior(
            model.prior,
            latents,
            epochs=5,
            batch_size=50,
            learning_rate=0.01,
            held_out=0.2,
            adapt=False,
        )
        self.assertLen(history.log_prob, 6)
        self.assertLen(history.held_out_log_prob, 6)
        self.assertGreater(history.log_prob[-1], history.log_prob[0])
        self.assertGreater(
            history.held_out_log_prob[-1], history.held_out_log_prob[0]
        )
        # Only the prior is fitted.
        for found, expected in zip(
            model.encoder.get_weights(), encoder, strict=True
        ):
            self.assertAllEqual(found, expected)

    def test_prior_has_the_weights_of_the_best_epoch(self):
        # A rate at which epochs are good or bad by chance.
        prior = priors.GaussianMixturePrior(2, 3)
        latents = np.float32(_draw_mixture(300, 0))
        history = priors.fit_prior(
            prior, latents, epochs=12, batch_size=20, learning_rate=0.5, seed=1
        )
        values = history.held_out_log_prob
        self.assertEqual(history.best_epoch, np.argmax(values))
        self.assertGreater(history.best_epoch, 0)
        self.assertLess(values[-1], max(values) - 0.05)
        held_out = np.random.default_rng(1).permutation(300)[:30]
        self.assertAllClose(
            _mean_log_prob(prior, latents[held_out]), max(values), rtol=1e-5
        )

    def test_training_ends_when_nothing_becomes_better(self):
        history = priors.fit_prior(
            priors.GaussianMixturePrior(2, 3),
            _draw_mixture(100, 0),
            learning_rate=0.0,
            patience=3,
        )
        self.assertLen(history.held_out_log_prob, 1 + 3)
        self.assertEqual(history.best_epoch, 0)

    def test_same_seed_gives_the_same_fit(self):
        fits = []
        for seed in (1, 1, 2):
            prior = small.model(priors.GaussianMixturePrior).prior
            history = priors.fit_prior(
                prior, _draw_mixture(200, 0), epochs=2, seed=seed
            )
            fits.append((history.held_out_log_prob, prior.means.numpy()))
        self.assertEqual(fits[0][0], fits[1][0])
        self.assertAllEqual(fits[0][1], fits[1][1])
        self.assertNotAllClose(fits[0][1], fits[2][1])

    def test_start_is_adapted_if_asked_for(self):
        latents = 50.0 + _draw_mixture(200, 0)
        starts = []
        for adapt in (True, False):
            prior = small.model(priors.GaussianMixturePrior).prior
            history = priors.fit_prior(prior, latents, epochs=1, adapt=adapt)
            starts.append(history.log_prob[0])
        self.assertGreater(starts[0], starts[1] + 100.0)

    def test_vamp_prior_fits_by_its_pseudo_inputs(self):
        keras.utils.set_random_seed(0)
        model = small.Model(small.Encoder(2), priors.VampPrior(2, 10))
        x = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
        latents = model.encoder(x).mean.numpy()
        model.encoder.dense.bias.assign([0.0, 0.0, -2.0, -2.0])
        model.prior.adapt_inputs(x)
        history = priors.fit_prior(
            model.prior, latents, epochs=20, learning_rate=0.01
        )
        self.assertGreater(
            history.held_out_log_prob[history.best_epoch],
            history.held_out_log_prob[0],
        )


def _draw_moons(num_draws):
    """Returns latents around two interleaved half circles, `[N, 2]`."""
    rng = np.random.default_rng(0)
    angles = np.pi * rng.random(num_draws)
    is_upper = rng.random(num_draws) < 0.5
    x = np.where(is_upper, np.cos(angles), 1.0 - np.cos(angles))
    y = np.where(is_upper, np.sin(angles), 0.5 - np.sin(angles))
    return np.stack([x, y], -1) + 0.1 * rng.normal(size=(num_draws, 2))


def _flow(num_flows, hidden, bound):
    return priors.RealNVPPrior(2, num_flows, hidden, bound, bound)


class MassTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.named_parameters(
        (
            "mixture",
            lambda: small.model(priors.GaussianMixturePrior).prior,
            0.05,
        ),
        ("vamp_prior", lambda: small.model(priors.VampPrior).prior, 0.5),
        ("unbounded_flow", lambda: _flow(2, (16,), None), 0.1),
    )
    def test_fitted_density_has_the_mass_1(self, make, gain):
        self._assert_mass_1(make, gain, num_points=321)

    @parameterized.parameters(1.0, 5.0, None)
    @pytest.mark.slow  # Larger flows on a finer grid.
    def test_fitted_density_of_a_deep_flow_has_the_mass_1(self, bound):
        self._assert_mass_1(lambda: _flow(6, (32, 32), bound), 0.3, 1001)

    def _assert_mass_1(self, make, gain, num_points):
        """Asserts a mass of 1 after a fit that gains so many nats at least."""
        keras.utils.set_random_seed(0)
        prior = make()
        history = priors.fit_prior(
            prior,
            _draw_moons(2000),
            epochs=20,
            batch_size=200,
            learning_rate=0.01,
        )
        best = history.held_out_log_prob[history.best_epoch]
        self.assertGreater(best, history.held_out_log_prob[0] + gain)
        axis = np.linspace(-8.0, 8.0, num_points)
        log_prob = tf.function(prior.log_prob)
        mass = 0.0
        for y in np.split(axis, [num_points // 2]):
            grid = np.stack(np.meshgrid(axis, y), -1).reshape(-1, 2)
            values = np.float64(log_prob(tf.constant(grid, tf.float32)))
            mass += np.exp(values).sum() * (axis[1] - axis[0]) ** 2
        self.assertAllClose(mass, 1.0, rtol=0.0, atol=0.01)

    def test_fitted_probabilities_of_all_states_sum_to_1(self):
        prior = priors.IndependentBernoulliPrior(3)
        states = np.random.default_rng(0).random((500, 3)) < [0.02, 0.5, 0.9]
        priors.fit_prior(prior, states, epochs=3, learning_rate=0.1)
        every = oracles.enumerate_states(3).astype(np.float32)
        probs = np.exp(np.float64(prior.log_prob(every)))
        self.assertAllClose(probs.sum(), 1.0, rtol=1e-5)
        self.assertAllClose(tf.sigmoid(prior.logits), states.mean(0), atol=0.1)


class ArgumentsTest(tf.test.TestCase, parameterized.TestCase):
    def test_prior_without_weights_is_reported(self):
        for cls in (priors.StandardNormalPrior, priors.VampPrior):
            with self.assertRaisesRegex(
                ValueError,
                "`prior` must have trainable weights, got a "
                f"{cls.__name__} without any",
            ):
                priors.fit_prior(cls(2), np.zeros((5, 2)))

    @parameterized.parameters(
        ((5,), r"`latents` must have the shape \[N, 2\], got \[5\]"),
        ((5, 3), r"`latents` must have the shape \[N, 2\], got \[5, 3\]"),
    )
    def test_wrong_shape_is_reported(self, shape, message):
        prior = priors.GaussianMixturePrior(2)
        with self.assertRaisesRegex(ValueError, message):
            priors.fit_prior(prior, np.zeros(shape))

    def test_latents_that_are_not_finite_are_reported(self):
        latents = np.zeros((5, 2))
        latents[0] = np.nan, np.inf
        with self.assertRaisesRegex(
            ValueError, "`latents` must be finite, got 2 values that are not"
        ):
            priors.fit_prior(priors.GaussianMixturePrior(2), latents)

    @parameterized.parameters(0.0, 1.0, -0.1, 0.95)
    def test_split_without_one_side_is_reported(self, held_out):
        with self.assertRaisesRegex(
            ValueError,
            f"`held_out` must be a fraction .* hold out, got {held_out} of 10",
        ):
            priors.fit_prior(
                priors.GaussianMixturePrior(2),
                np.zeros((10, 2)),
                held_out=held_out,
            )

    @parameterized.parameters("epochs", "batch_size", "patience")
    def test_wrong_count_is_reported(self, name):
        with self.assertRaisesRegex(
            ValueError, f"`{name}` must be an integer of at least 1, got 0"
        ):
            priors.fit_prior(
                priors.GaussianMixturePrior(2), np.zeros((5, 2)), **{name: 0}
            )


if __name__ == "__main__":
    tf.test.main()
