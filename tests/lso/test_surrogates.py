# SPDX-License-Identifier: Apache-2.0
"""Surrogates against the exact Gaussian process and their own promises."""

from __future__ import annotations

import numpy as np
import scipy.optimize
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized

from tests import grids
from tfvae.lso import collapsed_bound
from tfvae.lso.surrogates import EnsembleRegressor, SparseGaussianProcess


def _function(latents):
    return np.sin(2.0 * latents[:, 0]) - 0.5 * latents[:, 1] ** 2


def _data(count=40, seed=0, num_latents=2):
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(count, num_latents)).astype(np.float32)
    scores = 5.0 + 3.0 * _function(latents) + 0.1 * rng.normal(size=count)
    return latents, scores


def _kernel(state, first, second):
    """The squared exponential, point by point."""
    lengthscales = np.exp(state["log_lengthscales"])
    differences = (first[:, None] - second[None]) / lengthscales
    squares = np.sum(differences**2, -1)
    return np.exp(state["log_variance"] - 0.5 * squares)


def _noise(state):
    return np.exp(state["log_noise"]) + collapsed_bound.MIN_NOISE


def _exact(surrogate, latents, scores, queries):
    """The exact process with the surrogate's parameters: mean, covariance."""
    state = surrogate.state()
    x = (latents - state["centre"]) / state["spread"]
    z = (queries - state["centre"]) / state["spread"]
    y = (scores - state["score_centre"]) / state["score_spread"]
    covariance = _kernel(state, x, x) + _noise(state) * np.eye(len(x))
    cross = _kernel(state, z, x)
    mean = cross @ np.linalg.solve(covariance, y)
    shrunk = cross @ np.linalg.solve(covariance, cross.T)
    spread = state["score_spread"]
    return (
        state["score_centre"] + spread * mean,
        spread**2 * (_kernel(state, z, z) - shrunk),
    )


def _small(**settings):
    defaults = {"num_kernel_steps": 12, "num_steps": 3, "num_inducing": 100}
    return SparseGaussianProcess(**(defaults | settings))


class CollapsedBoundTest(tf.test.TestCase, parameterized.TestCase):
    def _terms(self, inducing, seed=0):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(30, 2))
        y = _function(x)
        parameters = collapsed_bound.Parameters(
            np.array([-0.1, 0.3]),
            np.array(0.2),
            np.array(-2.0),
            x if inducing is None else x[:inducing],
        )
        jitter = np.array(1e-9)
        bound = collapsed_bound.bound_of(
            parameters, tf.constant(x), tf.constant(y), jitter
        )
        state = parameters._asdict()
        covariance = _kernel(state, x, x) + _noise(state) * np.eye(30)
        _, log_det = np.linalg.slogdet(covariance)
        exact = -0.5 * (
            y @ np.linalg.solve(covariance, y)
            + log_det
            + 30 * np.log(2.0 * np.pi)
        )
        return float(bound), exact

    def test_is_the_marginal_likelihood_where_inducing_points_are_the_data(
        self,
    ):
        bound, exact = self._terms(None)
        self.assertAllClose(bound, exact, rtol=1e-6, atol=1e-5)

    @parameterized.parameters(1, 5, 15, 25)
    def test_is_below_the_marginal_likelihood(self, num_inducing):
        bound, exact = self._terms(num_inducing)
        self.assertLess(bound, exact)

    def test_rises_with_more_inducing_points(self):
        bounds = [self._terms(count)[0] for count in (2, 5, 10, 20)]
        self.assertAllEqual(bounds, sorted(bounds))

    def test_gradients_are_those_of_finite_differences(self):
        rng = np.random.default_rng(1)
        x = rng.normal(size=(12, 2))
        y = _function(x)
        parameters = collapsed_bound.Parameters(
            np.array([0.1, 0.2]), np.array(0.3), np.array(-1.0), x[:4] + 0.1
        )
        jitter = np.array(1e-6)
        _, gradients, of_scores = collapsed_bound.loss_and_gradients(
            parameters, x, y, jitter
        )
        direction = rng.normal(size=12)
        ends = [
            collapsed_bound.loss_and_gradients(
                parameters, x, y + step * direction, jitter
            )[0]
            for step in (1e-5, -1e-5)
        ]
        self.assertAllClose(
            np.sum(of_scores * direction),
            (ends[0] - ends[1]) / 2e-5,
            rtol=1e-4,
            atol=1e-7,
        )
        for name, value in parameters._asdict().items():
            direction = rng.normal(size=value.shape)
            ends = [
                collapsed_bound.loss_and_gradients(
                    parameters._replace(**{name: value + step * direction}),
                    x,
                    y,
                    jitter,
                )[0]
                for step in (1e-5, -1e-5)
            ]
            with self.subTest(name):
                self.assertAllClose(
                    np.sum(getattr(gradients, name) * direction),
                    (ends[0] - ends[1]) / 2e-5,
                    rtol=1e-4,
                    atol=1e-7,
                )


class SparseGaussianProcessTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters("each", "all", "none")
    def test_is_the_exact_process_where_inducing_points_are_the_data(
        self, standardise
    ):
        latents, scores = _data()
        surrogate = _small(standardise=standardise, num_steps=0)
        surrogate.fit(latents, scores, 0, False)
        queries = np.random.default_rng(1).normal(size=(7, 2))
        mean, std = surrogate.predict(queries)
        exact_mean, exact_covariance = _exact(
            surrogate, latents, scores, queries
        )
        # Up to the jitter.
        self.assertAllClose(mean, exact_mean, rtol=1e-3, atol=1e-3)
        self.assertAllClose(
            std, np.sqrt(np.diag(exact_covariance)), rtol=0.02, atol=1e-3
        )

    @parameterized.parameters((1.73, 0), (None, 1))
    def test_exact_fit_reaches_a_maximum_of_the_posterior_density(
        self, lengthscale_std, seed
    ):
        latents, scores = _data(15, seed)
        surrogate = SparseGaussianProcess(lengthscale_std=lengthscale_std)
        surrogate.fit(latents, scores, seed, False)
        state = surrogate.state()
        x = (latents - state["centre"]) / state["spread"]
        y = (scores - state["score_centre"]) / state["score_spread"]
        names = ("log_lengthscales", "log_variance", "log_noise")
        reached = [*state["log_lengthscales"], state["log_variance"]]
        reached = np.array([*reached, state["log_noise"], 0.0])

        def loss(values):
            """Minus the log density of the scores and the lengthscales."""
            own = dict(zip(names, (values[:2], *values[2:4]), strict=True))
            covariance = _kernel(own, x, x) + _noise(own) * np.eye(len(x))
            rest = y - values[4]
            found = rest @ np.linalg.solve(covariance, rest)
            found = 0.5 * (found + np.linalg.slogdet(covariance)[1])
            if lengthscale_std is not None:
                centre = np.log(0.71 * np.sqrt(2.0)) + lengthscale_std**2
                prior = scipy.stats.lognorm(
                    lengthscale_std, scale=np.exp(centre)
                )
                found -= prior.logpdf(np.exp(values[:2])).sum()
            return found

        # Searches from other starts find nothing better.
        best = min(
            scipy.optimize.minimize(loss, start).fun
            for start in (
                [1.0, 1.0, 0.0, -1.0, 0.0],
                [-0.5, 0.0, 0.0, -4.0, 0.5],
            )
        )
        self.assertAllClose(loss(reached), best, rtol=0.0, atol=0.05)

    def test_prior_keeps_lengthscales_of_few_points_in_bounds(self):
        # Ten points in six dimensions say nothing of most lengthscales.
        sizes = {1.73: [], None: []}
        for seed in range(4):
            rng = np.random.default_rng(seed)
            latents = rng.normal(size=(10, 6)).astype(np.float32)
            scores = _function(latents)
            for std, found in sizes.items():
                surrogate = SparseGaussianProcess(lengthscale_std=std)
                surrogate.fit(latents, scores, 0, False)
                found.append(surrogate.state()["log_lengthscales"])
        self.assertAllLess(np.abs(sizes[1.73]), np.log(30.0))
        self.assertGreater(np.max(sizes[None]), np.log(100.0))

    def test_warm_exact_fit_converges_as_a_cold_one(self):
        latents, scores = _data(40)
        warm, cold = SparseGaussianProcess(), SparseGaussianProcess()
        warm.fit(latents[:20], scores[:20], 0, False)
        scale = {k: warm.state()[k] for k in ("centre", "spread")}
        warm.fit(latents, scores, 0, True)
        cold.fit(latents, scores, 0, False)
        queries, _ = _data(30, seed=1)
        for a, b in zip(
            warm.predict(queries), cold.predict(queries), strict=True
        ):
            self.assertAllClose(a, b, rtol=0.05, atol=0.05)
        # They are standardised by other statistics.
        self.assertNotAllClose(scale["centre"], cold.state()["centre"])

    def test_finds_how_much_noise_scores_have(self):
        latents, _ = _data(40)
        signal = _function(latents)
        noise = np.random.default_rng(3).normal(size=40)
        for share in (0.0, 0.3):
            surrogate = SparseGaussianProcess()
            scores = signal + share * noise
            surrogate.fit(latents, scores, 0, False)
            state = surrogate.state()
            found = np.sqrt(_noise(state)) * state["score_spread"]
            with self.subTest(share):
                self.assertAllClose(found, share, rtol=0.3, atol=0.01)

    def test_learns_a_function(self):
        latents, scores = _data(300)
        surrogate = _small(num_inducing=50, num_kernel_steps=30)
        surrogate.fit(latents, scores, 0, False)
        queries, _ = _data(200, seed=1)
        mean, std = surrogate.predict(queries)
        error = mean - (5.0 + 3.0 * _function(queries))
        self.assertLess(np.sqrt(np.mean(np.square(error))), 0.3)
        self.assertLess(np.mean(np.abs(error) < 3.0 * std), 1.01)
        self.assertGreater(np.mean(np.abs(error) < 3.0 * std), 0.9)

    def test_prediction_has_gradients(self):
        surrogate = _small()
        surrogate.fit(*_data(), 0, False)
        queries = tf.constant([[0.3, -0.2], [1.0, 0.5]], tf.float64)
        numeric = np.zeros((2, 2))
        for i in range(2):
            step = np.zeros(2)
            step[i] = 1e-4
            ends = [
                sum(surrogate.predict(queries + sign * step))
                for sign in (1.0, -1.0)
            ]
            numeric[:, i] = (ends[0] - ends[1]) / 2e-4
        with tf.GradientTape() as tape:
            tape.watch(queries)
            total = tf.add_n(surrogate.predict(queries))
        self.assertAllClose(
            tape.gradient(total, queries), numeric, rtol=1e-3, atol=1e-4
        )

    def test_warm_fit_remains_exact_as_long_as_there_is_room(self):
        latents, scores = _data(40)
        surrogate = _small(num_inducing=36)
        surrogate.fit(latents[:30], scores[:30], 0, False)
        cold = surrogate.state()
        # All data points are inducing points, and did not move.
        x = (latents - cold["centre"]) / cold["spread"]
        self.assertAllEqual(
            np.unique(cold["inducing"], axis=0), np.unique(x[:30], axis=0)
        )
        surrogate.fit(latents[:36], scores[:36], 0, True)
        state = surrogate.state()
        self.assertAllEqual(
            np.unique(state["inducing"], axis=0), np.unique(x[:36], axis=0)
        )
        self.assertEqual(state["first/inducing"].shape, (36, 2))
        far = np.random.default_rng(1).normal(size=(5, 2))
        mean, covariance = _exact(surrogate, latents[:36], scores[:36], far)
        self.assertAllClose(
            surrogate.predict(far)[0], mean, rtol=1e-3, atol=1e-3
        )
        self.assertAllClose(
            surrogate.predict(far)[1], np.sqrt(np.diag(covariance)), rtol=0.02
        )
        # Then there is none; the process is sparse, its points may move.
        surrogate.fit(latents, scores, 0, True)
        after = surrogate.state()["inducing"]
        self.assertEqual(after.shape, (36, 2))
        self.assertNotAllClose(after, state["inducing"], atol=1e-4)

    def test_uncertainty_vanishes_where_a_warm_fit_has_looked(self):
        latents, scores = _data(20)
        surrogate = _small()
        surrogate.fit(latents, scores, 0, False)
        query = np.array([[6.0, -6.0]])  # Far from all data.
        before = surrogate.predict(query)[1]
        surrogate.fit(
            np.concatenate([latents, query]), np.append(scores, 9.0), 0, True
        )
        self.assertAllLess(surrogate.predict(query)[1] / before, 0.4)

    def test_warm_fit_knows_new_points_exactly(self):
        latents, scores = _data()
        surrogate = _small(num_warm_steps=0, num_inducing=20)
        surrogate.fit(latents[:30], scores[:30], 0, False)
        inducing = surrogate.state()["inducing"]
        surrogate.fit(latents, scores, 0, True)
        self.assertAllEqual(surrogate.state()["inducing"], inducing)
        # The same parameters, with all points, by moments alone.
        state = surrogate.state()
        x = (latents - state["centre"]) / state["spread"]
        y = (scores - state["score_centre"]) / state["score_spread"]
        moments = _kernel(state, inducing, x)
        prior = _kernel(state, inducing, inducing)
        weights = np.linalg.solve(
            _noise(state)
            * (
                prior
                + 1e-6 * np.exp(state["log_variance"]) * np.eye(len(prior))
            )
            + moments @ moments.T,
            moments @ y,
        )
        expected = state["score_centre"] + state["score_spread"] * (
            moments.T @ weights
        )
        self.assertAllClose(
            surrogate.predict(latents)[0], expected, rtol=1e-4, atol=1e-4
        )

    def test_restored_warm_fit_gives_the_same_numbers(self):
        latents, scores = _data(60)
        surrogate = _small(num_inducing=20)
        surrogate.fit(latents[:50], scores[:50], 3, False)
        surrogate.fit(latents[:51], scores[:51], 4, True)
        state = {k: v.copy() for k, v in surrogate.state().items()}
        other = _small(num_inducing=20)
        other.restore(state)
        self.assertAllEqual(sorted(other.state()), sorted(state))
        for one in (surrogate, other):
            one.fit(latents, scores, 5, True)
        for name, value in surrogate.state().items():
            self.assertAllEqual(other.state()[name], value)
        for a, b in zip(
            surrogate.predict(latents), other.predict(latents), strict=True
        ):
            self.assertAllEqual(a, b)

    def test_cold_fit_depends_on_seed_and_data_alone(self):
        latents, scores = _data(60)
        first, second = _small(num_inducing=20), _small(num_inducing=20)
        second.fit(latents[:30], 2.0 * scores[:30], 9, False)
        for one in (first, second):
            one.fit(latents, scores, 3, False)
        for name, value in first.state().items():
            self.assertAllEqual(second.state()[name], value)

    def test_statistics_stay_within_a_round(self):
        latents, scores = _data()
        surrogate = _small()
        surrogate.fit(latents, scores, 0, False)
        before = surrogate.state()
        surrogate.fit(3.0 * latents, 2.0 * scores, 0, True)
        after = surrogate.state()
        for name in ("centre", "spread", "score_spread"):
            self.assertAllEqual(before[name], after[name])
        # The mean of an exact process is learnt, that of a sparse one stays.
        self.assertNotAllClose(before["score_centre"], after["score_centre"])
        surrogate = _small(num_inducing=20)
        surrogate.fit(latents, scores, 0, False)
        self.assertAllClose(surrogate.state()["score_centre"], scores.mean())
        surrogate.fit(3.0 * latents, 2.0 * scores, 0, True)
        self.assertAllClose(surrogate.state()["score_centre"], scores.mean())

    def test_mean_is_not_that_of_many_scores_in_one_place(self):
        rng = np.random.default_rng(0)
        latents = rng.normal(size=(60, 2)) * np.where(
            np.arange(60)[:, None] < 20, 2.0, 0.05
        )
        scores = np.exp(-0.5 * np.sum(np.square(latents), 1))
        surrogate = SparseGaussianProcess()
        surrogate.fit(latents, scores, 0, False)
        self.assertGreater(scores.mean(), 0.7)
        far, _ = surrogate.predict(np.array([[9.0, -9.0]]))
        self.assertAllLess(np.abs(far), 0.3)

    @parameterized.parameters(
        ("each", [0.0, 1.0], [1.0, 3.0]), ("all", [0.5, 0.5], None)
    )
    def test_standardises_by_coordinate_or_by_all(
        self, standardise, centre, spread
    ):
        latents = np.array([[-1.0, -2.0], [1.0, 4.0]])
        surrogate = _small(standardise=standardise)
        surrogate.fit(latents, np.array([1.0, 2.0]), 0, False)
        state = surrogate.state()
        self.assertAllClose(state["centre"], centre)
        expected = [latents.std()] * 2 if spread is None else spread
        self.assertAllClose(state["spread"], expected)

    def test_growing_data_do_not_retrace(self):
        latents, scores = _data(60, num_latents=3)
        surrogate = _small(num_inducing=20)
        surrogate.fit(latents[:50], scores[:50], 0, False)
        functions = (
            collapsed_bound.loss_and_gradients,
            collapsed_bound.posterior,
        )
        before = [one.experimental_get_tracing_count() for one in functions]
        for count in (51, 52, 60):
            surrogate.fit(latents[:count], scores[:count], 0, count < 60)
        after = [one.experimental_get_tracing_count() for one in functions]
        self.assertAllEqual(before, after)

    def test_traces_of_callers_serve_later_fits(self):
        latents, scores = _data()
        surrogate = _small()
        surrogate.fit(latents, scores, 0, False)
        predict = tf.function(surrogate.predict)
        predict(tf.constant(latents))
        surrogate.fit(latents[:10], -scores[:10], 0, False)
        self.assertAllClose(
            predict(tf.constant(latents))[0],
            surrogate.predict(latents)[0],
            rtol=1e-6,
            atol=1e-6,
        )

    @parameterized.named_parameters(
        ("constant_scores", lambda x, y: (x, 0.0 * y + 3.0)),
        ("constant_latent", lambda x, y: (x * [1.0, 0.0] + 1e6, y)),
        ("all_points_equal", lambda x, y: (0.0 * x, 0.0 * y)),
        ("duplicates", lambda x, y: (np.tile(x, (3, 1)), np.tile(y, 3))),
        (
            "close_points",
            lambda x, y: (
                np.tile(x, (3, 1))
                + 1e-9 * np.arange(3 * x.size).reshape(-1, 2),
                np.tile(y, 3),
            ),
        ),
        ("one_point", lambda x, y: (x[:1], y[:1])),
        ("huge_scores", lambda x, y: (x, 1e12 * y)),
    )
    def test_gives_finite_predictions_of(self, change):
        latents, scores = change(*_data(15))
        surrogate = _small()
        surrogate.fit(latents, scores, 0, False)
        surrogate.fit(latents, scores, 0, True)
        mean, std = surrogate.predict(latents)
        self.assertTrue(np.all(np.isfinite(mean)))
        self.assertTrue(np.all(std > 0.0))
        self.assertTrue(np.all(np.isfinite(surrogate.sample(latents, 2, 0))))

    def test_constant_scores_are_predicted(self):
        latents, scores = _data()
        surrogate = _small()
        surrogate.fit(latents, 0.0 * scores + 3.0, 0, False)
        self.assertAllClose(surrogate.predict(latents)[0], 0.0 * scores + 3.0)

    def test_samples_have_the_posteriors_moments(self):
        latents, scores = _data()
        surrogate = _small(num_steps=0)
        surrogate.fit(latents, scores, 0, False)
        queries = np.random.default_rng(1).normal(size=(3, 2)) * 2.0
        mean, covariance = _exact(surrogate, latents, scores, queries)
        draws = surrogate.sample(queries, 20_000, 0)
        std = np.sqrt(np.diag(covariance))
        # Five standard errors of means, and of correlations at most 1 / sqrt n.
        self.assertAllLess(
            np.abs(draws.mean(0) - mean) / std, 5.0 / np.sqrt(20_000) + 0.01
        )
        self.assertAllClose(
            np.corrcoef(draws.T),
            covariance / std / std[:, None],
            atol=0.05,
        )

    def test_says_what_is_wrong(self):
        with self.assertRaisesRegex(ValueError, "`standardise` must be one"):
            SparseGaussianProcess(standardise="some")
        with self.assertRaisesRegex(ValueError, "`lengthscale` .* got 0.0"):
            SparseGaussianProcess(lengthscale=0.0)
        with self.assertRaisesRegex(ValueError, "`lengthscale_std` .* got inf"):
            SparseGaussianProcess(lengthscale_std=np.inf)
        with self.assertRaisesRegex(ValueError, "must be fitted"):
            _small().predict(np.zeros([1, 2]))
        latents, scores = _data()
        with self.assertRaisesRegex(ValueError, "`warm` must be False"):
            _small().fit(latents, scores, 0, True)
        scores[3] = np.nan
        with self.assertRaisesRegex(ValueError, "`scores` must be finite"):
            _small().fit(latents, scores, 0, False)

    def test_representation_reports_the_settings(self):
        self.assertIn("num_inducing=7", repr(SparseGaussianProcess(7)))


class EnsembleRegressorTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(True, False)
    def test_moments_are_those_over_its_trees(self, extremely_random):
        latents, scores = _data(60)
        surrogate = EnsembleRegressor(20, extremely_random)
        surrogate.fit(latents, scores, 0, False)
        queries, expected = _data(30, seed=1)
        mean, std = surrogate.predict(queries)
        draws = surrogate.sample(queries, 4_000, 0)
        # Draws are trees: their means within five standard errors.
        self.assertLen(np.unique(draws, axis=0), 20)
        error = 5.0 * std.max() / np.sqrt(4_000) + 1e-9
        self.assertAllClose(draws.mean(0), mean, rtol=0.0, atol=error)
        self.assertGreater(np.corrcoef(mean, expected)[0, 1], 0.8)

    def test_restored_warm_fit_gives_the_same_numbers(self):
        latents, scores = _data(60)
        surrogate, other = EnsembleRegressor(10), EnsembleRegressor(10)
        surrogate.fit(latents[:50], scores[:50], 3, False)
        other.restore(surrogate.state())
        for one in (surrogate, other):
            one.fit(latents, scores, 8, True)
        self.assertAllEqual(
            surrogate.predict(latents)[0], other.predict(latents)[0]
        )


def _odd_data():
    latents, scores = _data(20)
    return {
        "outlier": (latents, np.append(scores[1:], 1e30)),
        "low outlier": (latents, np.append(scores[1:], -1e30)),
        "overflow": (latents, np.append(scores[1:], 1.7e308)),
        "huge": (latents, 1e30 * scores),
        "tiny": (latents, 1e-310 * scores),
        "constant": (latents, np.full(20, 0.1)),
        "zero": (latents, np.zeros(20)),
        "one point": (latents[:1], scores[:1]),
        "repeats": (np.repeat(latents[:2], 10, 0), scores),
        "one point, repeated": (np.repeat(latents[:1], 20, 0), scores),
        "constant coordinate": (latents * [1.0, 0.0], scores),
        "far latent": (np.append(latents[1:], [[1e30, 1e30]], 0), scores),
    }


class OddDataTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        _small(),
        _small(standardise="all"),
        _small(standardise="none"),
        EnsembleRegressor(3),
    )
    @grids.by_default(1, 3)
    def test_predictions_are_finite(self, surrogate):
        for name, (latents, scores) in _odd_data().items():
            with self.subTest(name):
                surrogate.fit(latents, scores, 0, False)
                surrogate.fit(latents, scores, 0, True)
                for found in surrogate.predict(latents):
                    self.assertTrue(np.all(np.isfinite(found)))
                draws = surrogate.sample(latents, 2, 0)
                self.assertTrue(np.all(np.isfinite(draws)))


if __name__ == "__main__":
    tf.test.main()
