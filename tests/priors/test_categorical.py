# SPDX-License-Identifier: Apache-2.0
"""Priors of categorical latents, by enumeration of all codes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tfvae import priors
from tfvae.ops import random
from tfvae.ops.distributions import IndependentCategorical

G, C = 3, 2
CODES = np.array(list(itertools.product(range(C), repeat=G)))
ONE_HOT = np.eye(C, dtype=np.float32)[CODES].reshape(len(CODES), G * C)


def _prior(cls, seed=0):
    prior = cls(G * C, num_variables=G)
    rng = np.random.default_rng(seed)
    for weight in prior.weights:
        weight.assign(0.3 * rng.normal(size=weight.shape))
    return prior


class CategoricalTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        priors.IndependentCategoricalPrior,
        priors.AutoregressiveCategoricalPrior,
    )
    def test_probabilities_of_all_codes_sum_to_1_and_draws_have_them(self, cls):
        prior = _prior(cls)
        probs = np.exp(np.float64(prior.log_prob(ONE_HOT)))
        self.assertAllClose(probs.sum(), 1.0, rtol=1e-5)
        draws = prior.sample(random.make_seed(1), 20000).numpy()
        self.assertAllInSet(draws, [0.0, 1.0])
        codes = draws.reshape(-1, G, C).argmax(-1)
        found = np.bincount(codes @ [4, 2, 1], minlength=8) / len(codes)
        # Five standard errors.
        error = 5.0 * np.sqrt(probs * (1.0 - probs) / len(codes))
        self.assertAllLessEqual(np.abs(found - probs) - error, 0.0)

    def test_log_prob_is_that_of_a_loop_over_variables(self):
        prior = _prior(priors.IndependentCategoricalPrior)
        logits = np.float64(prior.logits)
        for code, row in zip(CODES, ONE_HOT, strict=True):
            expected = 0.0
            for g in range(G):
                total = np.log(np.exp(logits[g]).sum())
                expected += logits[g, code[g]] - total
            self.assertAllClose(prior.log_prob(row), expected, rtol=1e-5)

    def test_autoregressive_variables_depend_on_those_before(self):
        prior = _prior(priors.AutoregressiveCategoricalPrior)
        probs = np.exp(prior.log_prob(ONE_HOT)).reshape([C] * G)
        last = probs / probs.sum(-1, keepdims=True)
        self.assertGreater(np.abs(last[0, 0] - last[1, 0]).max(), 0.01)
        self.assertGreater(np.abs(last[0, 0] - last[0, 1]).max(), 0.01)

    @pytest.mark.slow
    def test_fitting_finds_what_independent_codes_cannot(self):
        # Two variables that are always equal, a third of its own.
        rng = np.random.default_rng(0)
        codes = rng.integers(0, C, (600, G))
        codes[:, 1] = codes[:, 0]
        latents = np.eye(C, dtype=np.float32)[codes].reshape(-1, G * C)
        found = {}
        for cls in (
            priors.IndependentCategoricalPrior,
            priors.AutoregressiveCategoricalPrior,
        ):
            prior = cls(G * C, num_variables=G)
            priors.fit_prior(
                prior, latents, learning_rate=0.02, epochs=15, batch_size=100
            )
            found[cls] = np.mean(prior.log_prob(latents))
        independent, autoregressive = found.values()
        self.assertAllClose(independent, -3.0 * np.log(2.0), atol=0.02)
        self.assertAllClose(autoregressive, -2.0 * np.log(2.0), atol=0.05)

    @parameterized.parameters(0, 4, 2.0)
    def test_wrong_number_of_variables_is_reported(self, number):
        with self.assertRaisesRegex(ValueError, "`num_variables` must"):
            priors.IndependentCategoricalPrior(6, number)


class DistributionTest(tf.test.TestCase):
    def _q(self, shape=(G, C)):
        logits = np.random.default_rng(3).normal(size=shape)
        return IndependentCategorical(tf.constant(logits, tf.float32))

    def test_entropy_mean_and_mode_are_those_of_the_enumeration(self):
        q = self._q()
        log_q = np.float64(q.log_prob(ONE_HOT))
        probs = np.exp(log_q)
        self.assertAllClose(probs.sum(), 1.0, rtol=1e-5)
        self.assertAllClose(q.entropy(), -probs @ log_q, rtol=1e-5)
        self.assertAllClose(q.mean, probs @ ONE_HOT, rtol=1e-5)
        self.assertAllEqual(q.mode, ONE_HOT[probs.argmax()])

    def test_draws_have_the_mean(self):
        q = self._q((2, G, C))
        draws = q.sample(random.make_seed(0), 20000)
        self.assertEqual(draws.shape, (20000, 2, G * C))
        error = 5.0 * np.sqrt(0.25 / 20000)
        self.assertAllClose(tf.reduce_mean(draws, 0), q.mean, atol=error)

    def test_relaxed_draws_become_one_hot_with_the_mean(self):
        q = self._q()
        many = IndependentCategorical(tf.tile(q.logits[None], [20000, 1, 1]))
        warm = many.relaxed_sample(random.make_seed(0), 1.0)
        sums = tf.reduce_sum(tf.reshape(warm, [-1, G, C]), -1)
        self.assertAllClose(sums, tf.ones_like(sums))
        self.assertAllInRange(warm, 0.0, 1.0)
        cold = many.relaxed_sample(random.make_seed(0), 1e-3)
        self.assertLess(np.mean(np.minimum(cold, 1.0 - cold)), 1e-3)
        error = 5.0 * np.sqrt(0.25 / 20000)
        self.assertAllClose(tf.reduce_mean(cold, 0), q.mean, atol=error)


if __name__ == "__main__":
    tf.test.main()
