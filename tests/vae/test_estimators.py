# SPDX-License-Identifier: Apache-2.0
"""Gradient estimators against exact gradients by enumeration."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import scipy.special
import tensorflow as tf
from absl.testing import parameterized

from tests import grids, oracles
from tests.vae import tiny
from tfvae import likelihoods, priors, vae
from tfvae.ops import random
from tfvae.ops.distributions import IndependentBernoulli
from tfvae.vae import estimators

H = 3
LOGITS = np.array([0.4, -1.3, 2.1])
STATES = oracles.enumerate_states(H)
# log p(x, z) of a data point: any numbers, as far from additive as possible.
LOG_JOINTS = np.random.default_rng(0).normal(size=2**H, scale=2.0)
NUM_DRAWS = 20000
# A right estimate is off by more for one seed in two million.
STANDARD_ERRORS = 5.0


def _log_q(logits):
    """Log q of every state, `[2**H]`."""
    per_latent = STATES * logits - np.logaddexp(0.0, logits)
    return per_latent.sum(-1)


def _elbo(logits):
    """E_q[log p(x, z) - log q(z)], a sum over all states."""
    log_q = _log_q(logits)
    return np.exp(log_q) @ (LOG_JOINTS - log_q)


def _multi_sample_bound(logits, num_samples):
    """E log 1/K sum_k p(x, z_k) / q(z_k), a sum over all K-tuples of states."""
    log_q, total = _log_q(logits), 0.0
    for draws in itertools.product(range(2**H), repeat=num_samples):
        draws = list(draws)
        bound = scipy.special.logsumexp(LOG_JOINTS[draws] - log_q[draws])
        total += np.exp(log_q[draws].sum()) * (bound - np.log(num_samples))
    return total


def _differences(function):
    """The gradient in the logits, by central differences."""
    step = 1e-4
    return np.array(
        [
            (function(LOGITS + e) - function(LOGITS - e)) / (2.0 * step)
            for e in step * np.eye(H)
        ]
    )


def _multilinear(latents):
    """LOG_JOINTS between the states: what its slopes are is up to us."""
    states = tf.constant(STATES, tf.float32)
    latents = latents[..., None, :]
    factors = states * latents + (1.0 - states) * (1.0 - latents)
    log_joints = tf.constant(LOG_JOINTS, tf.float32)
    return tf.reduce_sum(tf.reduce_prod(factors, -1) * log_joints, -1)


def _bent(latents):
    """The same at all states, with other slopes there."""
    bends = tf.constant([3.0, -2.0, 1.0]) * latents * (1.0 - latents)
    return _multilinear(latents) + tf.reduce_sum(bends, -1)


def _estimates(estimator, log_joint=_multilinear):
    """Losses and gradients in the logits of many independent estimates."""
    logits = tf.tile(tf.constant(LOGITS[None], tf.float32), [NUM_DRAWS, 1])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        q = IndependentBernoulli(logits)
        latents = estimator.sample(q, random.make_seed(1))
        if estimator.has_log_ratios:
            losses = q.log_prob(latents) - log_joint(latents)
        else:
            losses = -q.entropy() - log_joint(latents)
        estimate = estimator.estimate(q, latents, losses)
    gradients = tape.gradient(estimate.losses, logits)
    return np.float64(estimate.losses), np.float64(gradients), estimate.shares


def _excess(values, expected):
    """How far the mean is off, in standard errors."""
    error = values.std(0) / np.sqrt(len(values))
    return np.abs(values.mean(0) - expected) / error


class UnbiasedTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(1, 3)
    def test_disarm_is_unbiased_for_the_elbo(self, num_pairs):
        found = _estimates(vae.DisARM(num_pairs), _bent)
        losses, gradients, shares = found
        self.assertAllLess(_excess(-losses, _elbo(LOGITS)), STANDARD_ERRORS)
        expected = _differences(_elbo)
        self.assertAllLess(_excess(-gradients, expected), STANDARD_ERRORS)
        self.assertAllClose(tf.reduce_sum(shares, 0), np.ones(NUM_DRAWS))

    @parameterized.parameters(2, 3)
    def test_vimco_is_unbiased_for_its_own_bound(self, num_samples):
        found = _estimates(vae.VIMCO(num_samples), _bent)
        losses, gradients, shares = found

        def bound(logits):
            return _multi_sample_bound(logits, num_samples)

        self.assertAllLess(_excess(-losses, bound(LOGITS)), STANDARD_ERRORS)
        expected = _differences(bound)
        self.assertAllLess(_excess(-gradients, expected), STANDARD_ERRORS)
        self.assertAllClose(tf.reduce_sum(shares, 0), np.ones(NUM_DRAWS))
        # The gradient of the ELBO is another one, which the test can tell.
        self.assertGreater(
            _excess(-gradients, _differences(_elbo)).max(), STANDARD_ERRORS
        )

    def test_more_pairs_have_less_variance(self):
        one, three = (_estimates(vae.DisARM(n))[1] for n in (1, 3))
        self.assertAllClose(one.var(0) / three.var(0), [3.0] * H, rtol=0.1)

    def test_disarm_has_less_variance_than_two_independent_draws(self):
        q = IndependentBernoulli(
            tf.tile(tf.constant(LOGITS[None], tf.float32), [NUM_DRAWS, 1])
        )
        z = q.sample(random.make_seed(2), 2)
        f = tf.stack([_multilinear(z[0]), _multilinear(z[1])])
        # REINFORCE with the other draw as its baseline.
        scores = (z - q.mean)[0] - (z - q.mean)[1]
        independent = 0.5 * (f[0] - f[1])[:, None] * scores
        antithetic = _estimates(vae.DisARM())[1]
        self.assertLess(
            antithetic.var(0).sum(), independent.numpy().var(0).sum()
        )


class StraightThroughTest(tf.test.TestCase):
    def test_it_is_right_for_what_is_linear_in_each_latent(self):
        _, gradients, _ = _estimates(vae.StraightThrough(), _multilinear)
        expected = _differences(_elbo)
        self.assertAllLess(_excess(-gradients, expected), STANDARD_ERRORS)

    def test_it_is_biased_for_another_function_of_the_same_values(self):
        losses, gradients, _ = _estimates(vae.StraightThrough(), _bent)
        self.assertAllLess(_excess(-losses, _elbo(LOGITS)), STANDARD_ERRORS)
        expected = _differences(_elbo)
        self.assertGreater(_excess(-gradients, expected).min(), 20.0)

    def test_draws_are_binary(self):
        q = IndependentBernoulli(tf.constant([LOGITS], tf.float32))
        sample = vae.StraightThrough().sample(q, random.make_seed(0))
        self.assertAllInSet(sample, [0.0, 1.0])


class LeaveOneOutTest(tf.test.TestCase):
    def test_it_is_the_published_formula(self):
        log_weights = np.random.default_rng(1).normal(size=(4, 2), scale=3.0)
        expected = np.zeros_like(log_weights)
        for k, b in np.ndindex(*log_weights.shape):
            others = np.delete(log_weights[:, b], k)
            weights = [*np.exp(others), np.exp(others.mean())]
            expected[k, b] = np.log(np.mean(weights))
        found = estimators.leave_one_out_bounds(
            tf.constant(log_weights, tf.float32)
        )
        self.assertAllClose(found, expected, rtol=1e-5)


def _model(estimator, **kwargs):
    keras.utils.set_random_seed(2)
    encoder = vae.learnable(
        lambda count: tiny.network(count, (4,), dropout=0.0),
        H,
        posterior=vae.BernoulliPosterior(estimator),
    )
    return tiny.make(
        encoder=encoder,
        prior=priors.IndependentBernoulliPrior(H),
        likelihood=likelihoods.GaussianLikelihood(0.1),
        **kwargs,
    )


class InModelTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(vae.DisARM(), vae.VIMCO(2))
    def test_a_step_follows_the_enumerated_gradient(self, estimator):
        # One data point many times: the mean of many estimates.
        x = np.repeat(tiny.data(1, 1), NUM_DRAWS, 0)
        model = _model(estimator)
        last = model.encoder.trained.layers[-1].bias
        model.prior.logits.assign([0.3, -0.5, 1.0])
        model.likelihood.variance.assign(2.0)
        # The network is in training mode in a step: only the last bias, whose
        # gradient is that of the logits, is compared.
        logits = model.encoder.posterior_of_features(
            tf.constant(x[:50]), training=True
        ).logits[0]
        states = tf.constant(STATES, tf.float32)
        outputs = model.decode_outputs(states)
        log_joint = model.likelihood.log_prob(
            tf.constant(x[:1]), tf.ones([1, tiny.NUM_OBSERVED]), outputs
        )
        log_joint += model.prior.log_prob(states)
        num = estimator.num_samples if estimator.has_log_ratios else 1
        draws = [*itertools.product(range(2**H), repeat=num)]
        with tf.GradientTape() as tape:
            tape.watch(logits)
            log_q = IndependentBernoulli(logits).log_prob(states)
            log_weights = tf.gather(log_joint - log_q, draws)
            bounds = tf.reduce_logsumexp(log_weights, 1) - np.log(num)
            probs = tf.exp(tf.reduce_sum(tf.gather(log_q, draws), 1))
            exact = tf.reduce_sum(probs * bounds)
        expected = tape.gradient(exact, logits)
        model.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
        before = last.numpy()
        logs = model.fit(x, batch_size=len(x), verbose=0).history
        self.assertAllClose(-logs["loss"][0], exact, rtol=0.01)
        self.assertAllClose(last - before, expected, atol=0.02)
        self.assertGreater(np.abs(expected).max(), 0.1)

    @parameterized.parameters(
        vae.DisARM(2), vae.VIMCO(3), vae.StraightThrough()
    )
    @grids.by_default(0, 1)
    def test_weight_zero_leaves_a_data_point_out(self, estimator):
        x = tiny.data()
        variances, losses = [], []
        for last in (x[-1:], 1000.0 + x[-1:]):
            model = _model(estimator)
            model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
            weight = np.array([1.0] * (len(x) - 1) + [0.0], np.float32)
            points = np.concatenate([x[:-1], last])
            targets = tf.data.Dataset.from_tensors((x, points, weight))
            logs = model.fit(targets, shuffle=False, verbose=0).history
            losses.append(logs["loss"][0])
            variances.append(model.likelihood.variance.numpy())
        self.assertAllClose(losses[0], losses[1], rtol=1e-5)
        self.assertAllClose(variances[0], variances[1], rtol=1e-5)

    def test_wrong_uses_are_reported(self):
        with self.assertRaisesRegex(TypeError, "`estimator` must be a grad"):
            vae.BernoulliPosterior(vae.Elbo())
        with self.assertRaisesRegex(ValueError, "`num_samples` must be an int"):
            vae.VIMCO(1)
        with self.assertRaisesRegex(ValueError, "`num_pairs` must be an int"):
            vae.DisARM(0)
        for objective in (vae.Thesis(), vae.Elbo(weighs_distortion=False)):
            with self.assertRaisesRegex(ValueError, "`objective` must weigh"):
                _model(vae.VIMCO(), objective=objective)
        with self.assertRaisesRegex(ValueError, "`latent_loss` must be None"):
            _model(vae.DisARM()).compile(
                keras.optimizers.SGD(0.1), latent_loss=lambda z, y: z[:, 0] - y
            )


if __name__ == "__main__":
    tf.test.main()
