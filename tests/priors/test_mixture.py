# SPDX-License-Identifier: Apache-2.0
"""Tests of mixtures against float64 sums over their components."""

from __future__ import annotations

import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf

from tests import oracles
from tests.priors import small
from tfvae import priors
from tfvae.ops import random
from tfvae.ops.distributions import DiagonalGaussian
from tfvae.priors import mixture

NUM_CLUSTERS = 4


def _mixture(latents, log_weights, means, variances):
    """Returns log p(z) of each row of `latents`, component by component."""
    return [
        scipy.special.logsumexp(
            [
                log_weight + oracles.gaussian_log_prob(z, mean, variance)
                for log_weight, mean, variance in zip(
                    log_weights, means, variances, strict=True
                )
            ]
        )
        for z in np.float64(latents)
    ]


def _clusters(num_latents=400):
    """Points around 4 centres that are 30 deviations apart."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [30.0, 0.0], [0.0, 30.0], [30.0, 30.0]])
    shares = np.array([0.1, 0.2, 0.3, 0.4])
    which = np.repeat(np.arange(4), np.int64(shares * num_latents))
    points = centres[which] + rng.normal(size=(num_latents, 2)) * [1.0, 0.3]
    return points, which


class GaussianMixtureTest(tf.test.TestCase):
    def test_log_prob_is_a_sum_over_components(self):
        prior = small.model(priors.GaussianMixturePrior, 3).prior
        latents = tf.constant(
            4.0 * np.random.default_rng(1).normal(size=(20, 3)), tf.float32
        )
        expected = _mixture(
            latents,
            scipy.special.log_softmax(np.float64(prior.logits)),
            np.float64(prior.means),
            np.exp(np.float64(prior.log_variances)),
        )
        self.assertAllClose(prior.log_prob(latents), expected, rtol=1e-5)

    def test_log_prob_is_exact_far_from_all_components(self):
        prior = priors.GaussianMixturePrior(2, 3)
        prior.means.assign(np.zeros((3, 2)))
        log_prob = prior.log_prob(tf.constant([[1000.0, 0.0]]))
        variance = 1.0 + mixture.MIN_VARIANCE
        expected = -5e5 / variance - np.log(2.0 * np.pi * variance)
        self.assertAllClose(log_prob, [expected], rtol=2e-7)

    def test_component_of_a_draw_is_independent_of_its_noise(self):
        # Of one latent, where a draw takes as many numbers for either.
        prior = small.model(priors.GaussianMixturePrior, 1).prior
        weights = scipy.special.softmax(np.float64(prior.logits))
        normals = scipy.stats.norm(
            np.float64(prior.means[:, 0]),
            np.exp(0.5 * np.float64(prior.log_variances[:, 0])),
        )
        draws = prior.sample(random.make_seed(0), 20000)[:, 0].numpy()
        p_value = scipy.stats.kstest(
            draws, lambda z: normals.cdf(z[:, None]) @ weights
        ).pvalue
        self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)

    def test_variances_do_not_vanish(self):
        prior = priors.GaussianMixturePrior(2, 1)
        prior.log_variances.assign([[-200.0, -200.0]])
        expected = -np.log(2.0 * np.pi) - np.log(1e-6)
        log_prob = prior.log_prob(prior.means.value)
        self.assertAllClose(log_prob, [expected], rtol=1e-5)

    def test_adapt_finds_clusters_that_are_apart(self):
        prior = priors.GaussianMixturePrior(2, NUM_CLUSTERS)
        points, which = _clusters()
        prior.adapt(points)
        order = np.lexsort(np.round(prior.means.numpy() / 30.0).T)
        means = np.stack([points[which == k].mean(0) for k in range(4)])
        self.assertAllClose(prior.means.numpy()[order], means, rtol=1e-5)
        weights = scipy.special.softmax(prior.logits.numpy()[order])
        self.assertAllClose(weights, [0.1, 0.2, 0.3, 0.4], rtol=1e-5)
        variances = np.square(points - means[which]).mean(0)
        self.assertAllClose(
            tf.exp(prior.log_variances), [variances] * 4, rtol=1e-5
        )

    def test_adapt_takes_fewer_latents_than_components(self):
        prior = priors.GaussianMixturePrior(2, 5)
        latents = np.array([[1.0, 2.0], [1.0, 2.0], [-3.0, 2.0]])
        prior.adapt(latents)
        self.assertAllInSet(prior.means[:, 0], [1.0, -3.0])
        log_prob = prior.log_prob(tf.constant(latents, tf.float32))
        self.assertAllInRange(log_prob, 0.0, 20.0)

    def test_adapt_is_the_same_for_the_same_seed(self):
        points, _ = _clusters()
        means = []
        for seed in (0, 0, 1):
            prior = priors.GaussianMixturePrior(2, 20)
            prior.adapt(points, seed)
            means.append(prior.means.numpy())
        self.assertAllEqual(means[0], means[1])
        self.assertNotAllClose(means[0], means[2])

    def test_wrong_number_of_components_is_reported(self):
        with self.assertRaisesRegex(
            ValueError, "`num_components` must be .* at least 1, got 0"
        ):
            priors.GaussianMixturePrior(2, 0)


class VampPriorTest(tf.test.TestCase):
    def test_log_prob_is_a_sum_over_the_posteriors_of_pseudo_inputs(self):
        model = small.model(priors.VampPrior, 3)
        kernel, bias = map(np.float64, model.encoder.dense.get_weights())
        outputs = np.float64(model.prior.pseudo_inputs) @ kernel + bias
        latents = small.latents(priors.VampPrior, (20, 3))
        expected = _mixture(
            latents, [-np.log(4.0)] * 4, outputs[:, :3], np.exp(outputs[:, 3:])
        )
        self.assertAllClose(model.prior.log_prob(latents), expected, rtol=1e-4)

    def test_encoder_is_not_part_of_the_prior_but_gets_its_gradient(self):
        encoder, prior = small.Encoder(2), priors.VampPrior(2, 4)
        prior.connect(encoder, small.NUM_OBSERVED)
        self.assertLen(prior.weights, 1)
        self.assertIs(prior.weights[0], prior.pseudo_inputs)
        self.assertLen(tf.train.Checkpoint(prior=prior).prior.variables, 1)
        self.assertLen(small.Model(encoder, prior).weights, 3)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(prior.log_prob(tf.ones([1, 2])))
        for gradient in tape.gradient(loss, encoder.trainable_variables):
            self.assertGreater(np.abs(gradient).max(), 0.0)

    def test_variance_may_be_one_for_all(self):
        prior = priors.VampPrior(2, 3)
        prior.connect(
            lambda u: DiagonalGaussian(
                u, tf.constant(np.log(1e-6), tf.float32)
            ),
            2,
        )
        means = prior.pseudo_inputs.numpy()
        draws = prior.sample(random.make_seed(0), 50).numpy()
        self.assertEqual(draws.shape, (50, 2))
        distances = np.abs(draws[:, None] - means).max(-1)
        self.assertAllLess(distances.min(-1), 6e-3)
        expected = _mixture(
            means, [-np.log(3.0)] * 3, np.float64(means), np.full((3, 2), 1e-6)
        )
        self.assertAllClose(prior.log_prob(prior.pseudo_inputs.value), expected)

    def test_use_before_it_is_connected_is_reported(self):
        prior = priors.VampPrior(2)
        for use in (
            lambda: prior.log_prob(tf.zeros([1, 2])),
            lambda: prior.sample(random.make_seed(0), 1),
        ):
            with self.assertRaisesRegex(
                RuntimeError, "VampPrior must be connected to an encoder before"
            ):
                use()
        with self.assertRaisesRegex(
            RuntimeError, "`connect` must be called before `adapt_inputs`"
        ):
            prior.adapt_inputs(np.zeros((5, 3)))

    def test_second_encoder_meets_the_same_pseudo_inputs(self):
        prior = priors.VampPrior(2, 4)
        prior.connect(small.Encoder(2), 3)
        weight = prior.pseudo_inputs
        other = small.Encoder(2)
        prior.connect(other, 3)
        self.assertIs(prior.pseudo_inputs, weight)
        self.assertAllEqual(prior.components().mean, other(weight.value).mean)
        with self.assertRaisesRegex(
            ValueError, "`num_observed` must be .* pseudo-inputs, 3, got 4"
        ):
            prior.connect(small.Encoder(2), 4)

    def test_wrong_numbers_are_reported(self):
        with self.assertRaisesRegex(
            ValueError, "`num_pseudo_inputs` must be .* at least 1, got 0"
        ):
            priors.VampPrior(2, 0)
        with self.assertRaisesRegex(
            ValueError, "`num_observed` must be .* at least 1, got 0"
        ):
            priors.VampPrior(2).connect(small.Encoder(2), 0)

    def test_pseudo_inputs_become_different_data_points(self):
        prior = priors.VampPrior(2, 20)
        prior.connect(small.Encoder(2), 3)
        x = np.random.default_rng(0).normal(size=(25, 3)).astype(np.float32)
        prior.adapt_inputs(x)
        rows = {row.tobytes() for row in prior.pseudo_inputs.numpy()}
        self.assertLen(rows, 20)
        self.assertContainsSubset(rows, {row.tobytes() for row in x})
        # Of too few data points, some are taken again.
        prior.adapt_inputs(x[:3])
        rows = {row.tobytes() for row in prior.pseudo_inputs.numpy()}
        self.assertContainsSubset(rows, {row.tobytes() for row in x[:3]})

    def test_missing_entries_of_pseudo_inputs_are_means_of_the_others(self):
        prior = priors.VampPrior(2, 3)
        prior.connect(small.Encoder(2), 3)
        nan = np.nan
        prior.adapt_inputs(
            np.array([[1.0, nan, 5.0], [3.0, 4.0, nan], [nan, 8.0, 6.0]])
        )
        rows = sorted(map(tuple, prior.pseudo_inputs.numpy()))
        expected = [(1.0, 6.0, 5.0), (2.0, 8.0, 6.0), (3.0, 4.0, 5.5)]
        self.assertAllClose(rows, expected)
        # A column without any value is all zeros, not NaN.
        prior.adapt_inputs(np.array([[1.0, nan, 5.0]] * 3))
        self.assertAllEqual(prior.pseudo_inputs, [[1.0, 0.0, 5.0]] * 3)


class BernoulliTest(tf.test.TestCase):
    def test_adapt_sets_the_shares_of_ones(self):
        prior = priors.IndependentBernoulliPrior(3)
        states = np.zeros((999, 3))
        states[:300, 0] = 1.0
        states[:, 2] = 1.0
        prior.adapt(states)
        # One half of a one and one half of a zero are added.
        self.assertAllClose(
            tf.sigmoid(prior.logits), [0.3005, 0.0005, 0.9995], rtol=1e-5
        )

    def test_ones_are_as_likely_as_zeros_at_the_start(self):
        prior = priors.IndependentBernoulliPrior(3)
        states = tf.constant(oracles.enumerate_states(3), tf.float32)
        self.assertAllClose(prior.log_prob(states), [-3.0 * np.log(2.0)] * 8)


if __name__ == "__main__":
    tf.test.main()
