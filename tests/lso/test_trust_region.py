# SPDX-License-Identifier: Apache-2.0
"""Trust regions against a transcription of TuRBO-1, step by step."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests.lso.test_acquisition import Known, Space
from tfvae.lso import acquisition, candidates, trust_region
from tfvae.lso.search import Box
from tfvae.lso.strategies import Context
from tfvae.lso.surrogates import EnsembleRegressor, SparseGaussianProcess
from tfvae.lso.trust_region import Rules, TrustRegion

RULES = Rules(2, 0.8, 0.5**4, 1.6, 3, 2, 3)


class Turbo:
    """The published code's state, for minimisation, told one batch a time."""

    def __init__(self, rules, best):
        self.rules, self.values = rules, [best]
        self.length = rules.length
        self.succcount = self.failcount = self.initial = 0
        self.done = self.begin = 0
        self.restart = False

    def adjust_length(self, batch):
        if min(batch) < min(self.values) - 1e-3 * math.fabs(min(self.values)):
            self.succcount += 1
            self.failcount = 0
        else:
            self.succcount = 0
            self.failcount += 1
        if self.succcount == self.rules.success_tolerance:
            self.length = min(2.0 * self.length, self.rules.max_length)
            self.succcount = 0
        elif self.failcount == self.rules.failure_tolerance:
            self.length /= 2.0
            self.failcount = 0

    def tell(self, batch):
        """Takes what has been evaluated: a batch, or initial points."""
        self.done += len(batch)
        if self.initial:
            self.values += batch
            self.initial = 0
            return
        self.adjust_length(batch)
        self.values += batch
        if self.length < self.rules.min_length:
            self.values, self.begin = [], self.done
            self.length = self.rules.length
            self.succcount = self.failcount = 0
            self.initial = self.rules.num_initial


class ReplayTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(*range(10))
    def test_is_what_turbo_does_step_by_step(self, seed):
        rng = np.random.default_rng(seed)
        start = 1.0
        turbo, history = Turbo(RULES, -start), []
        num_restarts = 0
        for _ in range(120):
            count = turbo.initial or RULES.batch_size
            # Improvements become rare, and some are below 0.1 %.
            batch = rng.normal(size=count) * rng.choice([0.5, 2.0])
            if turbo.values:
                near = -min(turbo.values) * (1.0 + rng.choice([5e-4, 2e-3]))
                batch = np.where(rng.random(count) < 0.2, near, batch)
            turbo.tell((-batch).tolist())
            history += batch.tolist()
            num_restarts += turbo.initial > 0
            state = trust_region.replay(np.array(history), start, RULES)
            self.assertEqual(
                state,
                (turbo.length, turbo.begin, turbo.initial),
            )
        self.assertGreater(num_restarts, 0)

    def test_part_of_a_batch_does_not_count(self):
        whole = trust_region.replay(np.zeros(4), 1.0, RULES)
        self.assertEqual(whole.length, 0.4)
        self.assertEqual(trust_region.replay(np.zeros(5), 1.0, RULES), whole)

    def test_initial_queries_are_counted_one_by_one(self):
        rules = RULES._replace(batch_size=1)
        # Eight failures end the first region.
        for count, left in ((8, 3), (9, 2), (10, 1), (11, 0)):
            state = trust_region.replay(np.zeros(count), 1.0, rules)
            self.assertEqual(state, (0.8, 8, left))

    def test_failures_are_no_successes(self):
        failures = np.full(4, -np.inf)
        self.assertEqual(
            trust_region.replay(failures, -np.inf, RULES).length, 0.4
        )
        # Any score is one, if there was none before.
        history = np.array([-np.inf, -3.0, -2.0, -1.0, -0.5, 0.1])
        state = trust_region.replay(history, -np.inf, RULES)
        self.assertEqual(state.length, 1.6)


class RegionTest(tf.test.TestCase):
    def test_has_the_length_as_the_mean_of_its_edges(self):
        box = Box(np.array([-2.0, -1.0], "f4"), np.array([2.0, 1.0], "f4"))
        lengthscales = np.array([0.4, 0.8])
        region = trust_region.region_of(np.zeros(2), 0.5, box, lengthscales)
        edges = (region.high - region.low) / (box.high - box.low)
        self.assertAllClose(np.sqrt(edges.prod()), 0.5)
        # TuRBO's weights, for inputs in the unit cube.
        weights = lengthscales / [4.0, 2.0]
        weights = weights / weights.mean()
        weights = weights / np.prod(np.power(weights, 1.0 / 2.0))
        self.assertAllClose(edges, 0.5 * weights)

    def test_is_cut_off_at_the_box(self):
        box = Box(np.full(2, -1.0, "f4"), np.full(2, 1.0, "f4"))
        region = trust_region.region_of(np.array([0.9, 0.0]), 0.4, box, None)
        self.assertAllClose(region.low, [0.5, -0.4])
        self.assertAllClose(region.high, [1.0, 0.4])


class CandidatesTest(tf.test.TestCase):
    def test_are_in_the_region_and_move_about_twenty_coordinates(self):
        box = Box(np.full(50, -0.5, "f4"), np.full(50, 0.5, "f4"))
        centre = np.full(50, 0.25, np.float32)
        found = candidates.region_candidates(box, centre, 1000, 0)
        self.assertEqual(found.shape, (1000, 50))
        self.assertAllInRange(found, -0.5, 0.5)
        num_moved = (found != centre).sum(1)
        # Of 50 draws with a chance of 0.4; five standard errors.
        error = 5.0 * np.sqrt(50 * 0.4 * 0.6 / 1000)
        self.assertAllInRange(num_moved.mean(), 20.0 - error, 20.1 + error)
        self.assertGreater(num_moved.min(), 0)
        self.assertAllClose(found[found != 0.25].mean(), 0.0, atol=0.01)


def _peak(latents):
    latents = tf.cast(latents, tf.float64)
    return -tf.reduce_sum(tf.square(latents - 3.0), -1)


def _context(surrogate, **changes):
    latents = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    scores = _peak(latents).numpy()
    return Context(
        Space(), latents, scores, surrogate, start=scores.max()
    )._replace(**changes)


class Sure(Known):
    """Knows the peak, and lengthscales."""

    def __init__(self):
        super().__init__(_peak, lambda z: 0.0 * _peak(z) + 1e-3)

    def lengthscales(self):
        return np.array([1.0, 2.0])


class TrustRegionTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        acquisition.ThompsonSampling(),
        acquisition.ExpectedImprovement(),
        acquisition.ThompsonSampling(3),
        acquisition.ExpectedImprovement(batch_size=3),
    )
    def test_queries_are_in_the_region_around_the_best(self, inner):
        # Half the length after two failures; the peak is far outside.
        failures = np.full(2 * inner.batch_size, -1e3)
        context = _context(Sure(), history=failures)
        strategy = TrustRegion(inner, failure_tolerance=2, length=0.4)
        queries = strategy.propose(context, 3, 0)
        self.assertLen(np.unique(queries, axis=0), 3)
        best = context.latents[np.argmax(context.scores)]
        size = 2.0 * Box.of(context.latents).high
        edges = 0.2 * size * [0.5**0.5, 2.0**0.5]
        bound = Box.of(context.latents).high
        self.assertAllLessEqual(np.abs(queries - best), edges.max() / 2 + 1e-5)
        self.assertAllLessEqual(np.abs(queries - best).max(0) - edges / 2, 1e-5)
        # As near to the peak as the region admits, one of them.
        corner = np.minimum(best + edges / 2, bound)
        self.assertGreater(
            _peak(queries).numpy().max(), _peak([corner]).numpy()[0] - 2.0
        )

    def test_begins_anew_at_random_and_then_at_its_own_best(self):
        rules = {"failure_tolerance": 1, "num_initial": 2, "min_length": 0.5}
        strategy = TrustRegion(acquisition.ThompsonSampling(), **rules)
        context = _context(Sure(), history=np.array([-1e3]))
        drawn = strategy.propose(context, 400, 0)
        bound = Box.of(context.latents).high
        # Uniform in the whole box; five standard errors.
        self.assertAllClose(
            drawn.std(0), bound / 3**0.5, rtol=5 / (2 * 400) ** 0.5
        )
        query_of = np.full(30, -1)
        query_of[[4, 5, 6]] = [0, 1, 2]
        context = context._replace(
            history=np.array([-1e3, -5.0, -4.0]), query_of=query_of
        )
        queries = strategy.propose(context, 50, 0)
        own = context.latents[[5, 6]]
        centre = own[np.argmax(context.scores[[5, 6]])]
        edges = 0.8 * 2.0 * bound * [0.5**0.5, 2.0**0.5]
        self.assertAllLessEqual(np.abs(queries - centre) - edges / 2, 1e-5)

    def test_centre_is_feasible(self):
        context = _context(Sure())
        feasible = np.argsort(context.scores) < 15
        context = context._replace(
            is_feasible=feasible, log_feasibility=lambda z: -0.0 * z[:, 0]
        )
        strategy = TrustRegion(
            acquisition.ThompsonSampling(), length=0.01, min_length=1e-3
        )
        query = strategy.propose(context, 1, 0)
        scores = np.where(feasible, context.scores, -np.inf)
        self.assertAllClose(
            query[0], context.latents[np.argmax(scores)], atol=0.1
        )

    def test_lengthscales_are_in_units_of_latents(self):
        rng = np.random.default_rng(0)
        latents = rng.normal(size=(60, 2)) * [1.0, 100.0]
        scores = np.sin(3.0 * latents[:, 0]) + np.sin(0.03 * latents[:, 1])
        surrogate = SparseGaussianProcess()
        surrogate.fit(latents, scores, 0, False)
        ratio = surrogate.lengthscales() / [1.0, 100.0]
        self.assertAllClose(ratio[0] / ratio[1], 1.0, rtol=0.3)
        self.assertIsNone(EnsembleRegressor().lengthscales())

    def test_says_what_is_wrong(self):
        with self.assertRaisesRegex(TypeError, "`strategy` must .*Thompson"):
            TrustRegion(acquisition.ThompsonSampling)
        inner = acquisition.ThompsonSampling()
        with self.assertRaisesRegex(ValueError, "`max_length` must be posi"):
            TrustRegion(inner, length=2.0)
        with self.assertRaisesRegex(ValueError, "`num_initial` must be an"):
            TrustRegion(inner, num_initial=0)
        context = _context(Sure(), space=Space(2, True))
        with self.assertRaisesRegex(ValueError, "continuous latents"):
            TrustRegion(inner).propose(context, 1, 0)


if __name__ == "__main__":
    tf.test.main()
