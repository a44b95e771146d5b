# SPDX-License-Identifier: Apache-2.0
"""Acquisition functions against integrals, large samples and dense grids."""

from __future__ import annotations

import numpy as np
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized

from tests import grids
from tests.lso.test_acquisition import Space
from tfvae.lso import acquisition, maximisation, strategies
from tfvae.lso.entropy import log_entropy_gain
from tfvae.lso.strategies import Context
from tfvae.lso.surrogates import EnsembleRegressor, SparseGaussianProcess


def _function(latents):
    return np.sin(2.0 * latents[:, 0]) - 0.3 * (latents[:, 1] - 0.5) ** 2


def _context(surrogate, count=12, noise=0.0, **changes):
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(count, 2)).astype(np.float32)
    scores = _function(latents) + noise * rng.standard_normal(count)
    surrogate.fit(latents, scores, 0, False)
    return Context(Space(), latents, scores, surrogate)._replace(**changes)


def _grid(box, side=81):
    ticks = np.linspace(box.low[0], box.high[0], side)
    return np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)


def _left(latents):
    return tf.math.log_sigmoid(-6.0 * tf.cast(latents, tf.float64)[:, 0])


def _right(latents):
    return _left(-latents)


class EntropyTest(tf.test.TestCase, parameterized.TestCase):
    def test_is_the_entropy_that_truncation_takes(self):
        gamma = np.array([-5.0, -1.0, 0.0, 0.3, 2.0, 5.0])
        kept = [scipy.stats.truncnorm(-37.0, one).entropy() for one in gamma]
        whole = scipy.stats.norm.entropy()
        # f has mean 1 and standard deviation 2.
        found = [
            log_entropy_gain(np.array([1.0]), np.array([2.0]), [1.0 + 2.0 * g])
            for g in gamma
        ]
        self.assertAllClose(
            np.exp(found)[:, 0], whole - np.array(kept), rtol=1e-6
        )

    def test_is_the_mean_over_maxima(self):
        mean, std = np.array([0.1, -2.0]), np.array([1.0, 0.3])
        each = [log_entropy_gain(mean, std, [one]) for one in (0.5, 2.0)]
        self.assertAllClose(
            log_entropy_gain(mean, std, [0.5, 2.0]),
            np.log(np.mean(np.exp(each), 0)),
        )

    def test_is_finite_where_it_underflows(self):
        gamma = np.array([20.0, 50.0, 1e4, 1e9])
        mean, std = np.zeros(1), np.ones(1)
        found = [log_entropy_gain(mean, std, [one])[0] for one in gamma]
        # phi (gamma / 2 + 1 / gamma), up to higher orders.
        expected = scipy.stats.norm.logpdf(gamma)
        expected += np.log(gamma / 2.0 + 1.0 / gamma)
        self.assertAllClose(found, expected, rtol=1e-6)

    def test_gradients_are_those_of_differences(self):
        gamma = np.array([-50.0, -3.0, -1e-3, 1e-3, 1.0, 6.0, 30.0, 100.0])
        means = tf.constant(-gamma)
        with tf.GradientTape() as tape:
            tape.watch(means)
            values = log_entropy_gain(means, np.ones(8), [0.0])
        ends = [
            log_entropy_gain(means + sign * 1e-5, np.ones(8), [0.0])
            for sign in (1.0, -1.0)
        ]
        self.assertAllClose(
            tape.gradient(values, means),
            (ends[0] - ends[1]) / 2e-5,
            rtol=1e-5,
        )


class ConditionalTest(tf.test.TestCase, parameterized.TestCase):
    def _all(self):
        context = _context(SparseGaussianProcess())
        rng = np.random.default_rng(1)
        points, given = rng.normal(size=(2, 3, 2))
        both = np.concatenate([given, points])
        return context.surrogate, points, given, both

    def test_covariance_is_that_of_draws(self):
        surrogate, _, _, both = self._all()
        draws = surrogate.sample(both, 40_000, 0)
        covariance = np.asarray(surrogate.covariance(both, both))
        scale = np.sqrt(np.diag(covariance))
        # Five standard errors of a correlation.
        self.assertAllClose(
            np.cov(draws.T) / scale / scale[:, None],
            covariance / scale / scale[:, None],
            rtol=0.0,
            atol=5.0 * np.sqrt(2.0 / 40_000),
        )
        self.assertAllClose(scale, surrogate.predict(both)[1])

    def test_covariance_of_an_ensemble_is_that_of_its_trees(self):
        surrogate = EnsembleRegressor(30)
        context = _context(surrogate)
        first, second = context.latents[:3], context.latents[2:7]
        draws = surrogate._draws(context.latents)
        self.assertAllClose(
            surrogate.covariance(first, second),
            np.cov(draws.T, bias=True)[:3, 2:7],
        )

    def test_is_that_of_a_joint_normal(self):
        surrogate, points, given, both = self._all()
        covariance = np.asarray(surrogate.covariance(both, both))
        found = maximisation.conditional(
            surrogate, points, maximisation.Given.of(surrogate, given)
        )
        cross = np.linalg.solve(covariance[:3, :3], covariance[:3, 3:])
        left = covariance[3:, 3:] - covariance[3:, :3] @ cross
        self.assertAllClose(found.std, np.sqrt(np.diag(left)), rtol=1e-3)
        # Where f at the given points has the deviations of f = mean + L e.
        base = np.array([0.3, -1.0, 0.5])
        root = np.linalg.cholesky(covariance[:3, :3])
        self.assertAllClose(
            base @ np.asarray(found.slopes), (root @ base) @ cross, atol=1e-3
        )


def _strategies():
    settings = {"num_starts": 10, "batch_size": 3}
    return (
        acquisition.UpperConfidenceBound(**settings),
        acquisition.MaxValueEntropySearch(**settings),
        acquisition.QLogExpectedImprovement(**settings),
    )


class SearchedTest(tf.test.TestCase, parameterized.TestCase):
    """What is the same for all acquisition functions."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.context = _context(SparseGaussianProcess())

    @parameterized.parameters(*_strategies())
    @grids.by_default(0, 1)
    def test_first_query_is_the_maximum_of_a_dense_grid(self, strategy):
        self._assert_maximum(strategy, self.context)

    @parameterized.parameters(*_strategies())
    @grids.by_default(2)
    def test_of_noisy_scores_too(self, strategy):
        surrogate = SparseGaussianProcess()
        self._assert_maximum(
            strategy, _context(surrogate, 25, 0.3, is_noisy=True)
        )

    @parameterized.parameters(*_strategies())
    @grids.by_default(1)
    def test_under_constraints_too(self, strategy):
        first = self.context.latents[:, 0]
        left = self.context._replace(
            is_feasible=first < 0.0, log_feasibility=_left
        )
        self.assertLess(self._assert_maximum(strategy, left)[0, 0], 0.3)
        right = self.context._replace(
            is_feasible=first > 0.0, log_feasibility=_right
        )
        self.assertGreater(self._assert_maximum(strategy, right)[0, 0], -0.3)

    def _assert_maximum(self, strategy, context):
        box = strategy.box(context.latents)
        batch_seed = strategies.seeds_of(0, 3)[2]
        function = strategy.acquisition(
            context,
            strategies.incumbent_of(context, None),
            np.zeros((0, 2), np.float32),
            batch_seed,
        )

        def value(points):
            return maximisation.constrained_values(
                function, context.surrogate, context.log_feasibility, points
            ).numpy()

        query = strategy.propose(context, 1, 0)
        self.assertAllInRange(query, box.low[0], box.high[0])
        self.assertGreaterEqual(value(query)[0], value(_grid(box)).max() - 1e-4)
        return query

    @parameterized.parameters(*_strategies())
    def test_gradients_are_those_of_differences(self, strategy):
        # Where scores have noise, as differences of a far smaller standard
        # deviation would be rounding errors.
        context = _context(SparseGaussianProcess(), 25, 0.3)
        function = strategy.acquisition(
            context, context.scores.max(), context.latents[:2] + 0.5, 0
        )
        points = tf.constant(
            np.random.default_rng(2).normal(size=(4, 2)), tf.float64
        )

        def value(points):
            return maximisation.constrained_values(
                function, context.surrogate, _left, points
            )

        with tf.GradientTape() as tape:
            tape.watch(points)
            values = value(points)
        step = 1e-5 * np.eye(2)
        numeric = [(value(points + s) - value(points - s)) / 2e-5 for s in step]
        self.assertAllClose(
            tape.gradient(values, points),
            np.transpose(numeric),
            rtol=1e-4,
            atol=1e-5,
        )

    @parameterized.parameters(*_strategies())
    @grids.by_default(2)
    def test_before_any_point_is_feasible_feasibility_counts(self, strategy):
        context = self.context._replace(
            is_feasible=np.zeros(12, bool), log_feasibility=_left
        )
        query = strategy.propose(context, 1, 0)
        self.assertAllClose(query[0, 0], strategy.box(context.latents).low[0])

    @parameterized.parameters(*_strategies())
    @grids.by_default(2)
    def test_surrogates_without_gradients_are_asked_too(self, strategy):
        context = _context(EnsembleRegressor(10), 40)
        queries = strategy.propose(context, 2, 0)
        self.assertLen(np.unique(queries, axis=0), 2)
        self.assertAllInRange(queries, *strategy.box(context.latents))

    @parameterized.parameters(*_strategies())
    @grids.by_default()
    def test_batch_is_distinct_and_begins_with_the_maximum(self, strategy):
        strategy = type(strategy)(batch_size=2, num_starts=10)
        queries = strategy.propose(self.context, 4, 0)
        self.assertLen(np.unique(queries, axis=0), 4)
        self.assertAllEqual(queries[:1], strategy.propose(self.context, 1, 0))


class UpperConfidenceBoundTest(tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.context = _context(SparseGaussianProcess())
        cls.strategy = acquisition.UpperConfidenceBound(2.0, batch_size=2)

    def test_batch_has_the_largest_bounds_one_after_the_other(self):
        surrogate = self.context.surrogate
        grid = _grid(self.strategy.box(self.context.latents))
        mean, std = (np.asarray(one) for one in surrogate.predict(grid))
        queries = self.strategy.propose(self.context, 2, 0)
        for i, query in enumerate(queries.astype(np.float64)):
            known = queries[:i].astype(np.float64)
            points = np.concatenate([query[None], grid])
            mean, std = (np.asarray(one) for one in surrogate.predict(points))
            variance = std**2
            if i:
                cross = np.asarray(surrogate.covariance(known, points))
                own = np.asarray(surrogate.covariance(known, known))
                variance = variance - cross[0] ** 2 / own[0, 0]
            bounds = mean + np.sqrt(2.0 * np.maximum(variance, 0.0))
            self.assertGreaterEqual(bounds[0], bounds[1:].max() - 1e-4)

    def test_excess_is_finite_far_below_the_incumbent(self):
        found = acquisition._log_excess(
            self.context.surrogate,
            self.context.latents,
            *tf.unstack(tf.constant([0.0, 1e6, 1.0], tf.float64)),
            None,
        )
        mean = np.asarray(
            self.context.surrogate.predict(self.context.latents)[0]
        )
        self.assertAllClose(found, mean - 1e6, rtol=1e-12)

    def test_says_what_is_wrong(self):
        with self.assertRaisesRegex(ValueError, "`beta` must .* got -1"):
            acquisition.UpperConfidenceBound(-1.0)


class MaxValueEntropySearchTest(tf.test.TestCase):
    def test_maxima_are_those_of_joint_draws(self):
        context = _context(SparseGaussianProcess())
        strategy = acquisition.MaxValueEntropySearch(200)
        values = strategy.max_values(context, -10.0, 0)
        grid = _grid(strategy.box(context.latents), 30)
        draws = context.surrogate.sample(grid, 200, 1).max(1)
        # Quantiles of 200 draws each; both sets of points are dense.
        self.assertGreater(scipy.stats.ks_2samp(values, draws).pvalue, 1e-3)
        level = np.median(values)
        self.assertAllEqual(
            strategy.max_values(context, level, 0), np.maximum(values, level)
        )

    def test_maxima_are_where_constraints_may_hold(self):
        context = _context(SparseGaussianProcess())
        strategy = acquisition.MaxValueEntropySearch(50)
        free = strategy.max_values(context, -10.0, 0)
        context = context._replace(
            is_feasible=context.latents[:, 0] < 0.0, log_feasibility=_left
        )
        held = strategy.max_values(context, -10.0, 0)
        self.assertLess(held.mean(), free.mean())

    def test_says_what_is_wrong(self):
        with self.assertRaisesRegex(ValueError, "`num_max_values` must"):
            acquisition.MaxValueEntropySearch(0)


class QLogExpectedImprovementTest(tf.test.TestCase, parameterized.TestCase):
    def _values(self, strategy, context, chosen, points):
        function = strategy.acquisition(
            context, float(context.scores.max()), chosen, 3
        )
        return maximisation.constrained_values(
            function, context.surrogate, None, points
        ).numpy()

    def test_of_one_query_without_noise_is_expected_improvement(self):
        context = _context(SparseGaussianProcess())
        self.assertAllEqual(
            acquisition.QLogExpectedImprovement().propose(context, 1, 0),
            acquisition.ExpectedImprovement().propose(context, 1, 0),
        )

    @parameterized.parameters(False, True)
    def test_is_the_mean_improvement_of_joint_draws(self, is_noisy):
        surrogate = SparseGaussianProcess()
        count, noise = (25, 0.3) if is_noisy else (8, 0.0)
        context = _context(surrogate, count, noise, is_noisy=is_noisy)
        strategy = acquisition.QLogExpectedImprovement(
            batch_size=3, num_draws=1024
        )
        best = context.latents[np.argmax(context.scores)]
        chosen = best + np.float32([[0.3, 0.0], [-0.3, 0.5]])
        points = best + np.float32([[0.4, 0.3], [0.0, 0.6]])
        found = self._values(strategy, context, chosen, points)
        known = chosen
        if is_noisy:
            known = np.concatenate([strategy.baseline(context), chosen])
        draws = surrogate.sample(np.concatenate([known, points]), 40_000, 0)
        reached = draws[:, : len(known)].max(1, keepdims=True)
        if not is_noisy:
            reached = np.maximum(reached, context.scores.max())
        gains = np.maximum(draws[:, len(known) :] - reached, 0.0)
        # Five standard errors, and what 1024 quasi-random draws leave.
        error = 5.0 * gains.std(0) / np.sqrt(len(gains)) + 0.05 * gains.mean(0)
        self.assertAllInRange((np.exp(found) - gains.mean(0)) / error, -1, 1)

    def test_reaches_further_by_what_is_probably_feasible(self):
        context = _context(SparseGaussianProcess())
        strategy = acquisition.QLogExpectedImprovement(batch_size=2)
        chosen = context.latents[[np.argmax(context.scores)]] + 0.3
        points = chosen + np.float32(0.05)
        values = [
            self._values(
                strategy,
                context._replace(
                    log_feasibility=lambda z, p=p: np.full(len(z), np.log(p))
                ),
                chosen,
                points,
            )
            for p in (1.0, 0.5, 1e-9)
        ]
        # A point beside one that is infeasible anyway is worth the most.
        self.assertAllEqual(np.argsort(np.ravel(values)), np.arange(3))

    def test_baseline_is_feasible_and_has_no_repeats(self):
        context = _context(SparseGaussianProcess(), 25)
        latents = np.repeat(context.latents, 2, axis=0)
        context = context._replace(
            latents=latents,
            scores=np.repeat(context.scores, 2),
            is_feasible=latents[:, 0] < 0.5,
        )
        strategy = acquisition.QLogExpectedImprovement(num_baseline=5)
        baseline = strategy.baseline(context)
        self.assertEqual(baseline.shape, (5, 2))
        self.assertLen(np.unique(baseline, axis=0), 5)
        self.assertAllLess(baseline[:, 0], 0.5)

    def test_says_what_is_wrong(self):
        with self.assertRaisesRegex(ValueError, "`num_baseline` must"):
            acquisition.QLogExpectedImprovement(0)


if __name__ == "__main__":
    tf.test.main()
