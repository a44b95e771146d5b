# SPDX-License-Identifier: Apache-2.0
"""Tests of the Gaussian process on counts against the exact one."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae.lso.tanimoto_process import TanimotoProcess, tanimoto

F = 12


def _data(count=60, seed=0):
    """Counts, and scores that depend on two of them."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.choice([0.0, 0.5, 3.0], F), (count, F))
    counts[:, :2] = rng.poisson(2.0, (count, 2))
    scores = np.sqrt(counts[:, 0]) - 0.3 * counts[:, 1] * (counts[:, 0] > 1)
    return counts.astype(np.uint8), scores + 5.0


def _kernel(surrogate, first, second):
    """The kernel, pair by pair."""
    state = surrogate.state()
    kept = state["spread"] > 0.0
    variance, linear, _ = np.exp(state["logs"])
    found = np.zeros((len(first), len(second)))
    for i, x in enumerate(np.float64(first)):
        for j, y in enumerate(np.float64(second)):
            both = np.maximum(x, y).sum()
            z, w = (
                ((one - state["centre"])[kept] / state["spread"][kept])
                for one in (x, y)
            )
            similarity = np.minimum(x, y).sum() / both if both else 1.0
            found[i, j] = variance * similarity + linear * z @ w / kept.sum()
    return found


class TanimotoProcessTest(tf.test.TestCase, parameterized.TestCase):
    def test_kernel_is_that_of_minima_and_maxima(self):
        first, second = np.float64(_data(7)[0]), np.float64(_data(9, 1)[0])
        first[0] = second[0] = 0.0
        first[1] += 300.0  # Beyond any count of the other ones.
        expected = [
            [
                np.minimum(x, y).sum() / max(np.maximum(x, y).sum(), 1e-300)
                for y in second
            ]
            for x in first
        ]
        expected[0][0] = 1.0
        self.assertAllClose(tanimoto(first, second), expected)

    @parameterized.parameters(0, 20)
    def test_is_the_exact_process_while_all_points_are_inducing(self, steps):
        counts, scores = _data()
        queries = _data(9, 1)[0]
        surrogate = TanimotoProcess(num_iterations=steps)
        surrogate.fit(counts, scores, 0, False)
        state = surrogate.state()
        y = (scores - state["score_centre"]) / state["score_spread"]
        spread = state["score_spread"]
        known = _kernel(surrogate, counts, counts)
        known += np.exp(state["logs"][2]) * np.eye(len(counts))
        cross = _kernel(surrogate, queries, counts)
        mean = state["score_centre"] + spread * (
            cross @ np.linalg.solve(known, y)
        )
        covariance = spread**2 * (
            _kernel(surrogate, queries, queries)
            - cross @ np.linalg.solve(known, cross.T)
        )
        found = surrogate.predict(queries)
        self.assertAllClose(found[0], mean, rtol=1e-5)
        self.assertAllClose(found[1], np.sqrt(np.diag(covariance)), rtol=1e-4)
        self.assertAllClose(
            surrogate.covariance(queries, queries), covariance, atol=1e-5
        )
        draws = surrogate.sample(queries, 20_000, 3)
        self.assertAllClose(np.cov(draws.T), covariance, atol=0.02)
        self.assertAllLess(
            np.abs(draws.mean(0) - mean) / found[1], 5.0 / np.sqrt(20_000)
        )

    def test_few_inducing_points_leave_the_deviation_of_what_they_lack(self):
        counts, scores = _data(200)
        queries, truth = _data(100, 1)
        surrogate = TanimotoProcess(num_inducing=20)
        surrogate.fit(counts, scores, 0, False)
        mean, std = surrogate.predict(queries)
        self.assertAllClose(
            std**2, np.diag(surrogate.covariance(queries, queries)), rtol=1e-6
        )
        self.assertLess(np.mean((mean - truth) ** 2), 0.9 * np.var(truth))
        self.assertGreater(np.mean(np.abs(mean - truth) < 3.0 * std), 0.9)
        # Far from all points nothing is known.
        far = np.zeros((1, F))
        far[0, 2:] = 200.0
        self.assertGreater(surrogate.predict(far)[1][0], 0.5 * scores.std())

    def test_tuning_raises_the_likelihood_of_unseen_scores(self):
        counts, scores = _data(200)
        queries, truth = _data(100, 1)
        losses = []
        for steps in (0, 20):
            surrogate = TanimotoProcess(num_iterations=steps)
            surrogate.fit(counts, scores, 0, False)
            mean, std = surrogate.predict(queries)
            noise = np.exp(surrogate.state()["logs"][2])
            variance = std**2 + noise * surrogate.state()["score_spread"] ** 2
            losses.append(
                np.mean((truth - mean) ** 2 / variance + np.log(variance))
            )
        self.assertLess(losses[1], losses[0])

    def test_a_warm_fit_keeps_the_kernel_and_follows_a_restored_state(self):
        counts, scores = _data(80)
        surrogate = TanimotoProcess(num_inducing=30)
        surrogate.fit(counts[:50], scores[:50], 0, False)
        state = surrogate.state()
        surrogate.fit(counts, scores, 1, True)
        other = TanimotoProcess(num_inducing=30)
        other.restore(state)
        other.fit(counts, scores, 2, True)
        self.assertAllEqual(surrogate.state()["logs"], state["logs"])
        for one, same in zip(
            surrogate.predict(counts), other.predict(counts), strict=True
        ):
            self.assertAllEqual(one, same)

    def test_constant_scores_and_counts_are_fitted(self):
        counts = np.ones((10, 3))
        surrogate = TanimotoProcess()
        surrogate.fit(counts, np.full(10, 2.0), 0, False)
        mean, std = surrogate.predict(counts[:2])
        self.assertAllClose(mean, [2.0, 2.0])
        self.assertAllInRange(std, 0.0, 1.0)

    def test_wrong_use_is_refused(self):
        counts, scores = _data(5)
        for wrong in (-9.0, 0.5):
            with self.assertRaisesRegex(ValueError, "`latents` must be counts"):
                TanimotoProcess().fit(counts + wrong, scores, 0, False)
        with self.assertRaisesRegex(ValueError, "`warm` must be False"):
            TanimotoProcess().fit(counts, scores, 0, True)
        with self.assertRaisesRegex(ValueError, "must be fitted"):
            TanimotoProcess().predict(counts)
        with self.assertRaisesRegex(ValueError, "`num_inducing` must be an "):
            TanimotoProcess(num_inducing=0)


if __name__ == "__main__":
    tf.test.main()
