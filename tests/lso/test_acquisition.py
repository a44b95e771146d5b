# SPDX-License-Identifier: Apache-2.0
"""Strategies against integrals, grids and enumeration."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf
import threadpoolctl
from absl.testing import parameterized

from tests import oracles
from tfvae.lso import acquisition, candidates, search, strategies
from tfvae.lso.acquisition import Box, Context
from tfvae.lso.surrogates import EnsembleRegressor, SparseGaussianProcess
from tfvae.tvae import evolution, operators


class Space:
    """A latent space of which there is a prior only."""

    def __init__(self, num_latents=2, is_binary=False):
        self.num_latents = num_latents
        self.is_binary = is_binary

    def sample_prior(self, seed, count):
        rng = np.random.default_rng(seed)
        shape = (count, self.num_latents)
        if self.is_binary:
            return (rng.random(shape) < 0.3).astype(np.float32)
        return rng.standard_normal(shape).astype(np.float32)


class Known:
    """A surrogate that is told, in TensorFlow or in numpy."""

    def __init__(self, mean, std, has_gradients=True):
        self._mean, self._std = mean, std
        self.has_gradients = has_gradients

    def predict(self, latents):
        if self.has_gradients:
            return self._mean(latents), self._std(latents)
        latents = tf.constant(latents, tf.float64)
        return self._mean(latents).numpy(), self._std(latents).numpy()

    def lengthscales(self):
        return None

    def sample(self, latents, num_samples, seed):
        latents = tf.constant(latents, tf.float64)
        draws = np.random.default_rng(seed).standard_normal(
            (num_samples, len(latents))
        )
        return self._mean(latents).numpy() + self._std(latents).numpy() * draws


def _bumps(latents):
    """Two hills, the higher one at (1, -0.5)."""
    latents = tf.cast(latents, tf.float64)
    first = tf.reduce_sum(tf.square(latents - [1.0, -0.5]), -1)
    second = tf.reduce_sum(tf.square(latents - [-1.0, 1.0]), -1)
    return 2.0 * tf.exp(-2.0 * first) + 1.5 * tf.exp(-2.0 * second)


def _ripples(latents):
    latents = tf.cast(latents, tf.float64)
    return 0.2 + 0.02 * tf.reduce_sum(tf.square(latents), -1)


def _context(surrogate=None, count=100, num_latents=2, **changes):
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(count, num_latents)).astype(np.float32)
    scores = _bumps(latents[:, :2]).numpy()
    context = Context(Space(num_latents), latents, scores, surrogate)
    return context._replace(**changes)


def _holds_on_the_left(latents):
    """Log probability of a constraint that ends near the zero of z_0."""
    return tf.math.log_sigmoid(-6.0 * tf.cast(latents, tf.float64)[:, 0])


def _constrained(context):
    log_feasibility = _holds_on_the_left
    if not context.surrogate.has_gradients:

        def log_feasibility(latents):
            return _holds_on_the_left(tf.constant(latents)).numpy()

    return context._replace(
        is_feasible=context.latents[:, 0] < 0.0,
        log_feasibility=log_feasibility,
    )


class IncumbentTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters((None, 1.0), (0.5, 0.5))
    def test_is_of_the_feasible_points(self, quantile, level):
        context = _constrained(_context(Known(_bumps, _ripples)))
        self.assertAllClose(
            strategies.incumbent_of(context, quantile),
            np.quantile(context.scores[context.latents[:, 0] < 0.0], level),
        )

    def test_is_of_all_points_without_constraints(self):
        context = _context()
        self.assertEqual(
            strategies.incumbent_of(context, None), context.scores.max()
        )

    def test_of_noisy_scores_is_the_best_posterior_mean(self):
        context = _context(Known(_bumps, _ripples), is_noisy=True)
        lucky = context.scores + 100.0 * (np.arange(100) == 7)
        context = context._replace(scores=lucky)
        self.assertAllClose(
            strategies.incumbent_of(context, None),
            _bumps(context.latents).numpy().max(),
        )

    def test_is_none_before_any_point_is_feasible(self):
        context = _constrained(_context(Known(_bumps, _ripples)))
        context = context._replace(is_feasible=np.zeros(100, bool))
        self.assertIsNone(strategies.incumbent_of(context, 0.9))

    def test_noise_needs_a_surrogate(self):
        with self.assertRaisesRegex(ValueError, "must be fitted"):
            strategies.incumbent_of(_context(is_noisy=True), None)


class BestPointsTest(tf.test.TestCase):
    def test_are_feasible(self):
        context = _constrained(_context(Known(_bumps, _ripples)))
        near = candidates.best_points(context, 0.1)
        left = context.latents[context.is_feasible]
        order = np.argsort(-_bumps(left).numpy())
        count = int(np.ceil(0.1 * len(left)))
        self.assertAllEqual(near, left[order[:count]])

    def test_are_the_most_probably_feasible_before_any_is(self):
        context = _constrained(_context(Known(_bumps, _ripples)))
        context = context._replace(is_feasible=np.zeros(100, bool))
        near = candidates.best_points(context, 0.05)
        order = np.argsort(context.latents[:, 0], kind="stable")
        self.assertAllEqual(near, context.latents[order[:5]])

    def test_of_noisy_scores_have_the_best_posterior_mean(self):
        context = _context(Known(_bumps, _ripples), is_noisy=True)
        context = context._replace(scores=-context.scores)
        means = _bumps(context.latents).numpy()
        self.assertAllEqual(
            candidates.best_points(context, 0.01),
            context.latents[[np.argmax(means)]],
        )


class ImprovementTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        (0.0, 1.0, 0.5), (2.0, 0.3, 1.0), (-1.0, 2.0, 0.0)
    )
    def test_is_the_mean_of_draws(self, mean, std, incumbent):
        draws = mean + std * np.random.default_rng(0).standard_normal(200_000)
        gains = np.maximum(draws - incumbent, 0.0)
        error = 5.0 * gains.std() / np.sqrt(len(gains))
        self.assertAllClose(
            acquisition.expected_improvement(mean, std, incumbent),
            gains.mean(),
            rtol=0.0,
            atol=error,
        )

    @parameterized.parameters(-30.0, -10.0, -3.0, -0.5, 0.0, 1.0, 8.0)
    def test_is_the_integral(self, z):
        # E max(z + e, 0) = integral of Phi up to z, scaled to be of order 1.
        scale = scipy.stats.norm.logpdf(z)
        expected, _ = scipy.integrate.quad(
            lambda t: np.exp(scipy.stats.norm.logcdf(t) - scale),
            min(z, 0.0) - 50.0 / max(1.0, abs(min(z, 0.0))),
            z,
            epsabs=0.0,
            epsrel=1e-10,
        )
        improvement = acquisition.expected_improvement(3.0 * z, 3.0, 0.0)
        self.assertAllClose(
            np.log(improvement), np.log(3.0 * expected) + scale, rtol=1e-6
        )
        log_improvement = acquisition.log_expected_improvement(3.0 * z, 3.0, 0)
        self.assertAllClose(log_improvement, np.log(improvement), rtol=1e-9)

    def test_without_doubt_is_what_is_gained(self):
        self.assertAllClose(
            acquisition.expected_improvement([1.0, 3.0], [0.0, 0.0], 2.0),
            [0.0, 1.0],
        )

    def test_log_has_values_and_gradients_far_below_the_incumbent(self):
        means = tf.constant(
            [-1e100, -1e8, -1e5, -9e3, -1e3, -30.0, -1.0, 0.0, 5.0], tf.float64
        )
        with tf.GradientTape() as tape:
            tape.watch(means)
            values = acquisition.log_expected_improvement(means, 1.0, 0.0)
        gradients = tape.gradient(values, means)
        self.assertTrue(np.all(np.isfinite(values)))
        self.assertTrue(np.all(np.diff(values) > 0.0))
        # The derivative of log(z^-2 phi(z)) far below.
        self.assertAllClose(gradients[:5] / -means[:5], np.ones(5), rtol=1e-5)
        self.assertTrue(np.all(gradients > 0.0))

    def test_gradients_of_log_are_those_of_differences(self):
        z = np.array([-9.99e3, -50.0, -2.0, -1e-3, 1e-3, 1.0, 4.0])
        points = tf.constant(z)
        with tf.GradientTape() as tape:
            tape.watch(points)
            values = acquisition.log_expected_improvement(points, 1.0, 0.0)
        step = 1e-5 * np.maximum(1.0, np.abs(z))
        ends = [
            acquisition.log_expected_improvement(z + sign * step, 1.0, 0.0)
            for sign in (1.0, -1.0)
        ]
        self.assertAllClose(
            tape.gradient(values, points),
            (ends[0] - ends[1]) / (2.0 * step),
            rtol=1e-5,
        )


class BoxTest(tf.test.TestCase):
    def test_has_one_bound_for_all_coordinates(self):
        latents = np.random.default_rng(0).normal(size=(500, 3)) * [1, 2, 3]
        bound = 1.1 * np.percentile(np.abs(latents), 99.9)
        box = Box.of(latents)
        self.assertAllClose(box.high, [bound] * 3)
        self.assertAllClose(box.low, [-bound] * 3)

    def test_may_have_one_for_each(self):
        latents = np.random.default_rng(0).normal(size=(500, 3)) * [1, 2, 3]
        box = Box.of(latents, 0.9, 1.0, shares_bound=False)
        expected = np.percentile(np.abs(latents), 90.0, axis=0)
        self.assertAllClose(box.high, expected)


class SelectPointsTest(tf.test.TestCase):
    def test_takes_the_best_and_others_at_random(self):
        scores = np.random.default_rng(0).permutation(100).astype(float)
        counts = np.zeros(100)
        for seed in range(400):
            index = acquisition.select_points(scores, 10, 30, seed)
            self.assertLen(set(index.tolist()), 40)
            self.assertAllEqual(scores[index[:10]], np.arange(99, 89, -1))
            counts[index[10:]] += 1
        rest = counts[scores < 90]
        # Each with a chance of a third; five standard errors.
        error = 5.0 * np.sqrt(400 * (1 / 3) * (2 / 3))
        self.assertAllInRange(rest, 400 / 3 - error, 400 / 3 + error)

    def test_takes_all_where_there_are_no_more(self):
        for count in (5, 12):
            index = acquisition.select_points(np.arange(count), 8, 4, 0)
            self.assertAllEqual(np.sort(index), np.arange(count))


class SearchTest(tf.test.TestCase, parameterized.TestCase):
    def test_searches_end_at_the_nearest_maximum_each(self):
        centres = np.array([[0.5, 0.5], [5.0, -0.5]])

        def function(points):
            # A hill for each search; the second one's lies outside the box.
            differences = points - centres
            return -np.sum(differences**2, -1), -2.0 * differences

        box = Box(np.full(2, -2.0, "f4"), np.full(2, 2.0, "f4"))
        found = search.multi_start_lbfgs(function, np.zeros([2, 2], "f4"), box)
        self.assertAllClose(
            found.points, [[0.5, 0.5], [2.0, -0.5]], rtol=0.0, atol=1e-4
        )
        self.assertAllClose(found.best, [[0.5, 0.5]], atol=1e-4)

    def test_searches_pass_on_what_the_function_raises(self):
        def function(points):
            raise ArithmeticError("no value")

        box = Box(np.full(2, -2.0, "f4"), np.full(2, 2.0, "f4"))
        with self.assertRaisesRegex(ArithmeticError, "no value"):
            search.multi_start_lbfgs(function, np.zeros([3, 2]), box)

    def test_searches_survive_points_without_a_value(self):
        def function(points):
            values = np.where(points[:, 0] > 0.5, np.nan, points[:, 0])
            return values, np.ones_like(points)

        box = Box(np.full(1, -2.0, "f4"), np.full(1, 2.0, "f4"))
        found = search.multi_start_lbfgs(
            function, np.array([[-1.0], [0.0]]), box
        )
        self.assertTrue(np.all(np.isfinite(found.values)))

    @parameterized.parameters(search.multi_start_lbfgs, search.sequential_lbfgs)
    def test_searches_need_one_thread_of_blas_and_give_back_the_others(
        self, maximise
    ):
        def counts():
            pools = threadpoolctl.threadpool_info()
            return {
                one["num_threads"] for one in pools if one["user_api"] == "blas"
            }

        seen = []

        def function(points):
            seen.append(counts())
            return -np.sum(points**2, 1), -2.0 * points

        with threadpoolctl.threadpool_limits(2, "blas"):
            before = counts()
            maximise(function, np.ones((2, 3)), Box(-np.ones(3), np.ones(3)))
            self.assertEqual(counts(), before)
        self.assertEqual(seen, [{1}] * len(seen))

    def test_batch_is_greedy_in_joint_improvement(self):
        draws = np.random.default_rng(0).normal(size=(50, 6))
        chosen = search.greedy_batch(draws, 0.3, 3)
        expected: list[int] = []
        for _ in range(3):
            totals = [
                np.maximum(draws[:, [*expected, j]].max(1) - 0.3, 0).mean()
                if j not in expected
                else -1.0
                for j in range(6)
            ]
            expected.append(int(np.argmax(totals)))
        self.assertAllEqual(chosen, expected)

    def test_batch_counts_improvements_by_their_feasibility(self):
        draws = np.random.default_rng(0).normal(size=(50, 6))
        probs = np.array([1.0, 1e-3, 0.9, 1e-3, 0.5, 1e-3])
        chosen = search.greedy_batch(draws, 0.3, 2, probs=probs)
        gains = probs * np.maximum(draws - 0.3, 0.0).mean(0)
        first = int(np.argmax(gains))
        # What the first is expected to reach, draw by draw.
        reached = 0.3 + probs[first] * np.maximum(draws[:, first] - 0.3, 0.0)
        gains = probs * np.maximum(draws - reached[:, None], 0.0).mean(0)
        gains[first] = -1.0
        self.assertAllEqual(chosen, [first, int(np.argmax(gains))])

    def test_batch_is_distinct_without_any_improvement(self):
        draws = np.zeros((5, 4))
        chosen = search.greedy_batch(draws, 1.0, 4, [2])
        self.assertEqual(chosen[0], 2)
        self.assertAllEqual(np.sort(chosen), np.arange(4))


class ExpectedImprovementTest(tf.test.TestCase, parameterized.TestCase):
    def _grid_maximum(self, strategy, context):
        box = strategy.box(context.latents)
        ticks = np.linspace(box.low[0], box.high[0], 301)
        grid = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)
        quantile = strategy.incumbent_quantile
        incumbent = np.quantile(
            context.scores, 1.0 if quantile is None else quantile
        )
        values = acquisition.log_expected_improvement(
            *context.surrogate.predict(grid), incumbent
        ).numpy()
        return grid[np.argmax(values)], values.max(), incumbent

    @parameterized.product(
        incumbent_quantile=(0.9, None), has_gradients=(True, False)
    )
    def test_finds_the_maximum_of_a_dense_grid(
        self, incumbent_quantile, has_gradients
    ):
        surrogate = Known(_bumps, _ripples, has_gradients)
        context = _context(surrogate)
        strategy = acquisition.ExpectedImprovement(incumbent_quantile)
        point, value, incumbent = self._grid_maximum(strategy, context)
        query = strategy.propose(context, 1, 0)
        reached = acquisition.log_expected_improvement(
            *surrogate.predict(query), incumbent
        )
        self.assertEqual(query.shape, (1, 2))
        self.assertEqual(query.dtype, np.float32)
        self.assertAllGreaterEqual(reached, value - 5e-3)
        if has_gradients:
            self.assertAllGreaterEqual(reached, value - 1e-6)
            self.assertAllClose(query[0], point, rtol=0.0, atol=0.03)

    @parameterized.product(
        is_any_feasible=(True, False), has_gradients=(True, False)
    )
    def test_respects_constraints(self, is_any_feasible, has_gradients):
        surrogate = Known(_bumps, _ripples, has_gradients)
        context = _constrained(_context(surrogate))
        if not is_any_feasible:
            context = context._replace(is_feasible=np.zeros(100, bool))
        strategy = acquisition.ExpectedImprovement()
        box = strategy.box(context.latents)
        ticks = np.linspace(box.low[0], box.high[0], 301)
        grid = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)

        def value(points):
            total = np.asarray(context.log_feasibility(points))
            if is_any_feasible:
                incumbent = strategies.incumbent_of(
                    context, strategy.incumbent_quantile
                )
                total = total + acquisition.log_expected_improvement(
                    *surrogate.predict(points), incumbent
                )
            return np.asarray(total)

        query = strategy.propose(context, 1, 0)
        # Without them it is at (1, -0.5).
        self.assertLess(query[0, 0], 0.0)
        self.assertAllGreaterEqual(value(query), value(grid).max() - 5e-3)
        batch = strategy.propose(context, 5, 0)
        self.assertAllEqual(batch[:1], query)
        self.assertLen(np.unique(batch, axis=0), 5)
        self.assertAllLess(batch[:, 0], 0.3)

    def test_stays_in_the_box(self):
        surrogate = Known(
            lambda z: tf.reduce_sum(tf.cast(z, tf.float64), -1), _ripples
        )
        context = _context(surrogate)
        for batch_size in (1, 4):
            strategy = acquisition.ExpectedImprovement(batch_size=batch_size)
            box = strategy.box(context.latents)
            queries = strategy.propose(context, batch_size, 0)
            self.assertAllInRange(queries, box.low[0], box.high[0])
            self.assertAllClose(queries[0], box.high)

    def test_starts_are_half_of_the_prior_half_of_the_best(self):
        strategy = acquisition.ExpectedImprovement()
        context = _context()
        starts = strategy.starts(context, 20, 0)
        order = np.argsort(-context.scores)[:20]
        best = {row.tobytes() for row in context.latents[order]}
        among = [row.tobytes() in best for row in starts]
        self.assertAllEqual(among, [False] * 10 + [True] * 10)
        self.assertLen(np.unique(starts, axis=0), 20)

    @parameterized.parameters(True, False)
    def test_batch_is_distinct_and_begins_with_the_best(self, has_gradients):
        surrogate = Known(_bumps, _ripples, has_gradients)
        context = _context(surrogate)
        strategy = acquisition.ExpectedImprovement(batch_size=8)
        self.assertEqual(strategy.num_at_a_time(5), 5)
        self.assertEqual(strategy.num_at_a_time(50), 8)
        queries = strategy.propose(context, 8, 3)
        self.assertLen(np.unique(queries, axis=0), 8)
        self.assertAllEqual(queries[:1], strategy.propose(context, 1, 3))

    def test_same_seed_same_query_whatever_was_asked_before(self):
        surrogate = SparseGaussianProcess(20, num_kernel_steps=5, num_steps=0)
        context = _context(surrogate)
        surrogate.fit(context.latents, context.scores, 0, False)
        strategy = acquisition.ExpectedImprovement()
        first = strategy.propose(context, 1, 0)
        strategy.propose(context, 1, 1)
        self.assertAllEqual(strategy.propose(context, 1, 0), first)

    def test_refits_change_what_is_proposed(self):
        surrogate = SparseGaussianProcess(40, num_kernel_steps=8, num_steps=0)
        context = _context(surrogate)
        strategy = acquisition.ExpectedImprovement(0.9)
        surrogate.fit(context.latents, context.scores, 0, False)
        self.assertAllClose(
            strategy.propose(context, 1, 0), [[1.0, -0.5]], atol=0.25
        )
        scores = -np.sum((context.latents + 0.5) ** 2, -1)
        surrogate.fit(context.latents, scores, 0, False)
        query = strategy.propose(context._replace(scores=scores), 1, 0)
        self.assertAllClose(query, [[-0.5, -0.5]], atol=0.25)

    @parameterized.parameters((0.9, True), (None, False))
    def test_over_the_best_vanishes_at_what_is_known(self, quantile, repeats):
        # Without doubt about the best point, and little elsewhere.
        best = tf.constant([[1.0, -0.5]], tf.float64)

        def std(latents):
            away = tf.reduce_sum(tf.square(latents - best), -1)
            return 0.3 * tf.sqrt(1.0 - tf.exp(-away) + 1e-9)

        context = _context(Known(_bumps, std))
        latents = np.concatenate([context.latents, best])
        context = context._replace(
            latents=latents, scores=_bumps(latents).numpy()
        )
        strategy = acquisition.ExpectedImprovement(quantile)
        distance = np.linalg.norm(strategy.propose(context, 1, 0)[0] - best[0])
        self.assertEqual(distance < 1e-2, repeats)

    def test_early_stop_still_returns_a_point_of_the_box(self):
        context = _context(Known(_bumps, _ripples))
        strategy = acquisition.ExpectedImprovement(stops_early=True)
        query = strategy.propose(context, 1, 0)
        self.assertGreater(_bumps(query)[0], 1.0)

    def test_asks_an_ensemble_too(self):
        surrogate = EnsembleRegressor(10)
        context = _context(surrogate)
        surrogate.fit(context.latents, context.scores, 0, False)
        strategy = acquisition.ExpectedImprovement(max_iterations=5)
        query = strategy.propose(context, 1, 0)
        self.assertGreater(
            surrogate.predict(query)[0][0], np.quantile(context.scores, 0.9)
        )

    def test_says_what_is_wrong(self):
        with self.assertRaisesRegex(ValueError, "`incumbent_quantile` must"):
            acquisition.ExpectedImprovement(1.5)
        strategy = acquisition.ExpectedImprovement()
        with self.assertRaisesRegex(ValueError, "must be fitted"):
            strategy.propose(_context(), 1, 0)
        context = _context(Known(_bumps, _ripples), space=Space(2, True))
        with self.assertRaisesRegex(ValueError, "continuous latents"):
            strategy.propose(context, 1, 0)


class ThompsonSamplingTest(tf.test.TestCase, parameterized.TestCase):
    def test_without_doubt_takes_the_best_candidates(self):
        surrogate = Known(_bumps, lambda z: 0.0 * _ripples(z))
        context = _context(surrogate)
        strategy = acquisition.ThompsonSampling(3, 2000)
        queries = strategy.propose(context, 3, 0)
        self.assertLen(np.unique(queries, axis=0), 3)
        self.assertAllClose(
            _bumps(queries),
            [float(_bumps(np.array([[1.0, -0.5]]))[0])] * 3,
            atol=0.05,
        )

    @parameterized.parameters(True, False)
    def test_respects_constraints(self, is_any_feasible):
        surrogate = Known(_bumps, lambda z: 0.0 * _ripples(z))
        context = _constrained(_context(surrogate))
        if not is_any_feasible:
            context = context._replace(is_feasible=np.zeros(100, bool))
        strategy = acquisition.ThompsonSampling(20, 500)
        queries = strategy.propose(context, 20, 0)
        self.assertLen(np.unique(queries, axis=0), 20)
        if not is_any_feasible:
            self.assertAllLess(queries[:, 0], -1.5)
            return
        # A constraint of probability p is taken to hold with probability p.
        probs = np.exp(_holds_on_the_left(tf.constant(queries)))
        self.assertGreater(probs.mean(), 0.4)
        self.assertGreater(_bumps(queries).numpy().max(), 1.2)

    def test_draws_of_binary_spaces_are_states(self):
        space = Space(12, True)
        latents = space.sample_prior(0, 50)
        surrogate = Known(
            lambda z: tf.reduce_sum(z, -1), lambda z: 0.1 + 0 * z[:, 0]
        )
        context = Context(space, latents, latents.sum(-1), surrogate)
        queries = acquisition.ThompsonSampling(4).propose(context, 4, 0)
        self.assertAllInSet(queries, [0.0, 1.0])
        self.assertLen(np.unique(queries, axis=0), 4)
        self.assertAllGreater(queries.sum(-1), latents.sum(-1).mean())

    def test_local_candidates_stay_near_the_best(self):
        rng = np.random.default_rng(0)
        latents = rng.normal(size=(1000, 2)).astype(np.float32)
        # The ten best are in two places; steps are of a tenth, far from all.
        latents[:10] *= 1e-3
        latents[:10] += np.repeat([[20.0, 20.0], [24.0, 20.0]], 5, axis=0)
        scores = np.concatenate([np.ones(10), np.zeros(990)])
        context = Context(Space(), latents, scores)
        box = Box(np.full(2, -30.0, "f4"), np.full(2, 30.0, "f4"))
        near = candidates.best_points(context, 0.01)
        self.assertAllEqual(near, latents[:10])
        local = candidates.box_candidates(context, box, near, 3000, 0, 1.0)
        spread = latents.std(0)
        self.assertAllInRange((local[:, 1] - 20.0) / spread[1], -5.0, 5.0)
        # A half near a place, half of whose others are between the two.
        between = np.abs(local[:, 0] - 22.0) < 1.0
        small = np.abs(local[:, 1] - 20.0) < 0.1 * spread[1]
        share = between[small].mean()
        expected = 0.5 * 0.5 * 0.5
        error = 5.0 * np.sqrt(expected * (1 - expected) / small.sum())
        self.assertAllInRange(share, expected - error, expected + error)
        mixed = candidates.box_candidates(context, box, near, 3000, 0, 0.5)
        self.assertAllInRange(mixed[:750], -6.0, 6.0)  # Of the prior.
        self.assertGreater(np.abs(mixed[750:1500]).max(), 25.0)  # Of the box.
        self.assertAllGreater(mixed[1500:], 20.0 - 5.0 * spread.max())

    def test_local_states_are_few_flips_from_the_best(self):
        space = Space(40, True)
        near = np.ones([1, 40], np.float32)
        context = Context(space, near, np.zeros(1))
        states = candidates.binary_candidates(context, near, 1000, 0, 1.0)
        zeros = (1.0 - states).sum(-1)
        # 1, 2 or 4 flips on average.
        self.assertAllClose(zeros.mean(), 7 / 3, atol=0.3)
        mixed = candidates.binary_candidates(context, near, 1000, 0, 0.25)
        self.assertAllClose(
            (mixed.mean(-1) < 0.7).mean(), 0.75, rtol=0.0, atol=0.01
        )

    @parameterized.parameters("best_share", "local_share")
    def test_says_what_is_wrong(self, name):
        with self.assertRaisesRegex(ValueError, f"`{name}` must .* got 1.5"):
            acquisition.ThompsonSampling(**{name: 1.5})


class AggregateSamplingTest(tf.test.TestCase):
    def test_draws_have_the_moments_of_the_data(self):
        rng = np.random.default_rng(0)
        latents = rng.normal([1.0, -2.0], [0.1, 0.5], (500, 2))
        context = Context(Space(), latents.astype(np.float32), np.zeros(500))
        draws = acquisition.AggregateSampling().propose(context, 4000, 0)
        self.assertEqual(draws.dtype, np.float32)
        error = 5.0 * latents.std(0) / np.sqrt(len(draws))
        bound = Box.of(latents).high
        self.assertAllInRange(draws, -bound[0], bound[0])
        self.assertAllInRange(
            (draws.mean(0) - latents.mean(0)) / error, -1.0, 1.0
        )
        self.assertAllClose(draws.std(0), latents.std(0), rtol=0.06)

    def test_refuses_binary_latents(self):
        context = Context(Space(2, True), np.zeros([3, 2]), np.zeros(3))
        with self.assertRaisesRegex(ValueError, "continuous latents"):
            acquisition.AggregateSampling().propose(context, 1, 0)


class MixtureTest(tf.test.TestCase, parameterized.TestCase):
    def test_asks_each_as_often_as_its_share(self):
        grid = acquisition.OracleGrid(1, 50.0)  # One point, far away.
        mixture = acquisition.Mixture(
            [grid, acquisition.PriorSampling()], (3, 1)
        )
        context = Context(
            Space(),
            None,
            None,
            None,
            lambda latents: (np.zeros(len(latents)), [0] * len(latents)),
        )
        queries = np.concatenate(
            [mixture.propose(context, 1, seed) for seed in range(1000)]
        )
        share = (queries == -50.0).all(-1).mean()
        error = 5.0 * np.sqrt(0.75 * 0.25 / 1000)
        self.assertAllInRange(share, 0.75 - error, 0.75 + error)
        self.assertAllEqual(
            mixture.propose(context, 1, 7), mixture.propose(context, 1, 7)
        )

    def test_needs_what_one_of_them_needs(self):
        prior = acquisition.PriorSampling()
        aggregate = acquisition.AggregateSampling()
        thompson = acquisition.ThompsonSampling(3)
        for parts, uses_data, uses_surrogate, count in (
            ([prior], False, False, 9),
            ([prior, aggregate], True, False, 9),
            ([aggregate, thompson], True, True, 3),
        ):
            mixture = acquisition.Mixture(parts, [1.0] * len(parts))
            self.assertEqual(mixture.uses_data, uses_data)
            self.assertEqual(mixture.uses_surrogate, uses_surrogate)
            self.assertEqual(mixture.num_at_a_time(9), count)

    @parameterized.parameters(
        ([1.0],), ([],), ([0.0, 0.0],), ([1.0, -1.0],), ([1.0, np.nan],)
    )
    def test_says_what_is_wrong(self, shares):
        parts = [acquisition.PriorSampling()] * 2
        with self.assertRaisesRegex(ValueError, "`shares` must"):
            acquisition.Mixture(parts, shares)


class OracleGridTest(tf.test.TestCase):
    def _score(self, latents):
        # Cells of a unit side decode to the same input.
        cells = np.round(latents) + 0.0  # No negative zeros.
        return cells.sum(-1), [row.tobytes() for row in cells]

    def test_takes_the_best_distinct_inputs(self):
        strategy = acquisition.OracleGrid(13, 3.0)
        context = Context(Space(), None, None, None, self._score)
        queries = strategy.propose(context, 5, 0)
        cells = np.round(queries)
        self.assertLen(np.unique(cells, axis=0), 5)
        self.assertAllEqual(cells.sum(-1), [6.0, 5.0, 5.0, 4.0, 4.0])
        self.assertAllInRange(queries, -3.0, 3.0)

    def test_returns_fewer_where_there_are_no_more(self):
        strategy = acquisition.OracleGrid(13, 3.0)
        context = Context(Space(), None, None, None, self._score)
        self.assertLen(strategy.propose(context, 1_000, 0), 49)

    def test_grid_is_square_and_has_the_corners(self):
        points = acquisition.OracleGrid(50, 3.0).points()
        self.assertEqual(points.shape, (2500, 2))
        self.assertLen(np.unique(points, axis=0), 2500)
        self.assertAllEqual(points[[0, -1]], [[-3.0, -3.0], [3.0, 3.0]])

    def test_says_what_is_wrong(self):
        context = Context(Space(3), None, None, None, self._score)
        with self.assertRaisesRegex(ValueError, "2 latents, got 3"):
            acquisition.OracleGrid().propose(context, 1, 0)
        with self.assertRaisesRegex(
            ValueError, "`side` must be an integer of at least 1"
        ):
            acquisition.OracleGrid(0)


class PriorSamplingTest(tf.test.TestCase):
    def test_draws_all_that_are_left_from_the_prior(self):
        strategy = acquisition.PriorSampling()
        context = _context()
        self.assertEqual(strategy.num_at_a_time(77), 77)
        self.assertAllEqual(
            strategy.propose(context, 77, 5),
            context.space.sample_prior(5, 77),
        )


# Few children, as what takes long is to trace them.
_EVOLUTION = evolution.Evolution(
    num_parents=4, num_children=2, num_generations=1
)


def _binary_context(has_gradients):
    rng = np.random.default_rng(0)
    space = Space(10, True)
    weights = tf.constant(rng.normal(size=(10, 10)))

    def mean(states):
        states = tf.cast(states, tf.float64)
        return tf.reduce_sum(tf.matmul(states, weights) * states, -1)

    def std(states):
        return 0.5 + 0.1 * tf.cast(states, tf.float64)[:, 3]

    latents = np.unique(space.sample_prior(0, 40), axis=0)
    scores = mean(latents).numpy()
    return Context(space, latents, scores, Known(mean, std, has_gradients))


class EvolutionaryExpectedImprovementTest(
    tf.test.TestCase, parameterized.TestCase
):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.context = _binary_context(True)

    def _assert_finds_the_maximum(self, context, settings):
        strategy = acquisition.EvolutionaryExpectedImprovement(
            evolution=settings
        )
        query = strategy.propose(context, 1, 0)
        known = {row.tobytes() for row in context.latents}
        states = oracles.enumerate_states(10).astype(np.float32)
        states = np.stack([s for s in states if s.tobytes() not in known])
        mean, std = context.surrogate.predict(states)
        improvement = acquisition.expected_improvement(
            mean, std, np.quantile(context.scores, 0.9)
        )
        self.assertEqual(query.dtype, np.float32)
        self.assertAllEqual(query[0], states[np.argmax(improvement)])

    def test_finds_the_maximum_of_all_new_states(self):
        self._assert_finds_the_maximum(self.context, _EVOLUTION)

    @pytest.mark.slow
    def test_finds_it_without_gradients_too(self):
        self._assert_finds_the_maximum(_binary_context(False), _EVOLUTION)

    def test_finds_it_under_constraints(self):
        def log_feasibility(states):
            return -4.0 * tf.cast(states[:, 0] + states[:, 5], tf.float64)

        latents = self.context.latents
        context = self.context._replace(
            is_feasible=latents[:, 0] + latents[:, 5] == 0.0,
            log_feasibility=log_feasibility,
        )
        strategy = acquisition.EvolutionaryExpectedImprovement(
            evolution=_EVOLUTION
        )
        known = {row.tobytes() for row in context.latents}
        states = oracles.enumerate_states(10).astype(np.float32)
        states = np.stack([s for s in states if s.tobytes() not in known])
        values = acquisition.log_expected_improvement(
            *context.surrogate.predict(states),
            strategies.incumbent_of(context, strategy.incumbent_quantile),
        ) + log_feasibility(states)
        self.assertAllEqual(
            strategy.propose(context, 1, 0)[0], states[np.argmax(values)]
        )

    @pytest.mark.slow
    def test_finds_it_by_crossover_too(self):
        crossover = operators.Crossover(operators.RandFlip())
        self._assert_finds_the_maximum(
            self.context,
            dataclasses.replace(_EVOLUTION, variation=crossover),
        )

    def test_prior_weight_is_of_log_probabilities(self):
        strategy = acquisition.EvolutionaryExpectedImprovement(
            prior_weight=1e3, evolution=_EVOLUTION
        )
        # So that the prior's mode is new.
        context = self.context._replace(
            latents=np.ones([1, 10], np.float32), scores=np.zeros(1)
        )
        self.assertAllEqual(strategy.propose(context, 1, 0), np.zeros([1, 10]))

    def test_batch_is_distinct_and_new(self):
        strategy = acquisition.EvolutionaryExpectedImprovement(
            batch_size=6, evolution=_EVOLUTION
        )
        queries = strategy.propose(self.context, 6, 0)
        self.assertLen(np.unique(queries, axis=0), 6)
        self.assertAllInSet(queries, [0.0, 1.0])
        known = {row.tobytes() for row in self.context.latents}
        self.assertNoCommonElements(known, [row.tobytes() for row in queries])

    def test_proposes_known_states_where_there_are_no_others(self):
        space = Space(3, True)
        latents = oracles.enumerate_states(3).astype(np.float32)
        scores = latents.sum(-1)
        surrogate = Known(_count_ones, _ripples)
        context = Context(space, latents, scores, surrogate)
        strategy = acquisition.EvolutionaryExpectedImprovement(
            evolution=_EVOLUTION
        )
        self.assertAllEqual(strategy.propose(context, 1, 0), [[1.0, 1.0, 1.0]])


def _count_ones(states):
    return tf.reduce_sum(tf.cast(states, tf.float64), -1)


if __name__ == "__main__":
    tf.test.main()
