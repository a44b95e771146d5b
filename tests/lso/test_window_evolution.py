# SPDX-License-Identifier: Apache-2.0
"""Tests of the evolution of latents with positions, without models."""

from __future__ import annotations

import collections
import itertools

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae.lso import window_evolution
from tfvae.lso.strategies import Context
from tfvae.lso.window_evolution import WindowEvolution

T, C = 8, 2


class Space:
    num_latents, is_binary = T * C, False


class Pairs:
    """A surrogate that counts positions whose latents are about (1, -1)."""

    has_gradients = False

    def predict(self, latents):
        z = np.asarray(latents, np.float64).reshape(-1, T, C)
        near = np.exp(-4.0 * np.sum((z - [1.0, -1.0]) ** 2, -1))
        return near.sum(-1), np.full(len(z), 0.1)

    def sample(self, latents, num_samples, seed):
        mean, std = self.predict(latents)
        rng = np.random.default_rng(seed)
        return mean + std * rng.standard_normal((num_samples, len(mean)))


def _reread(latents, seed):
    """Latents are their own points, and inputs are tenths of them.

    No input has a negative first latent.
    """
    del seed
    rounded = np.round(np.asarray(latents, np.float64), 1) + 0.0
    _, first = np.unique(rounded, axis=0, return_index=True)
    rows = np.array([i for i in np.sort(first) if rounded[i, 0] >= 0.0], int)
    return rounded[rows].astype(np.float32), rows


def _context(count=40, seed=0):
    rng = np.random.default_rng(seed)
    z = np.round(0.3 * rng.standard_normal((count, T, C)), 1)
    # Each has what is good at one position, none at another.
    z[np.arange(count), rng.integers(T, size=count)] = [1.0, -1.0]
    latents = z.reshape(count, -1).astype(np.float32)
    surrogate = Pairs()
    return Context(
        Space(),
        latents,
        surrogate.predict(latents)[0],
        surrogate=surrogate,
        reread=_reread,
    )


def _small(**settings):
    defaults = {
        "batch_size": 6,
        "num_parents": 20,
        "num_children": 40,
        "num_generations": 8,
        "max_window": 3,
    }
    return WindowEvolution(T, **(defaults | settings))


class WindowEvolutionTest(tf.test.TestCase, parameterized.TestCase):
    def test_goes_beyond_the_data_by_copying(self):
        context = _context()
        found = {}
        for share in (0.0, 0.7):
            strategy = _small(copied_share=share)
            queries = strategy.propose(context, 6, 1)
            self.assertEqual(queries.shape, (6, T * C))
            self.assertEqual(queries.dtype, np.float32)
            found[share] = context.surrogate.predict(queries)[0].max()
        self.assertGreater(found[0.7], context.scores.max() + 2.0)
        self.assertGreater(found[0.7], found[0.0])

    def test_queries_are_new_inputs_read_again(self):
        context = _context()
        queries = _small().propose(context, 6, 1)
        self.assertAllClose(np.round(queries, 1), queries)
        self.assertAllGreaterEqual(queries[:, 0], 0.0)
        known = {tuple(row) for row in np.round(context.latents, 1).tolist()}
        chosen = {tuple(row) for row in np.round(queries, 1).tolist()}
        self.assertLen(chosen, 6)
        self.assertEmpty(chosen & known)

    def test_few_queries_descend_from_one_point(self):
        # One point alone is good: all that is good descends from it.
        context = _context(2)
        strategy = _small(max_per_lineage=2, copied_share=0.0)
        self.assertLen(strategy.propose(context, 6, 1), 4)
        self.assertLen(_small(copied_share=0.0).propose(context, 6, 1), 6)

    def test_seed_decides(self):
        context = _context()
        first, same, other = (
            _small(num_generations=2).propose(context, 6, seed)
            for seed in (1, 1, 2)
        )
        self.assertAllEqual(first, same)
        self.assertNotAllClose(first, other)

    def test_proposes_nothing_where_nothing_decodes(self):
        context = _context()._replace(
            reread=lambda latents, seed: (latents[:0], np.zeros(0, int))
        )
        queries = _small(num_generations=2).propose(context, 3, 0)
        self.assertEqual(queries.shape, (0, T * C))

    def test_says_what_is_wrong(self):
        with self.assertRaisesRegex(ValueError, "`max_window` must be an in"):
            _small(max_window=0)
        with self.assertRaisesRegex(ValueError, "`copied_share` must be in"):
            _small(copied_share=1.5)
        with self.assertRaisesRegex(ValueError, "`context.reread` must be"):
            _small().propose(_context()._replace(reread=None), 1, 0)
        strategy = WindowEvolution(5)
        with self.assertRaisesRegex(ValueError, "`num_positions`, 5, got 16"):
            strategy.propose(_context(), 1, 0)


class OperatorsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(1, 3, 20)
    def test_a_window_of_a_donor_is_copied_from_any_position(self, widest):
        rng = np.random.default_rng(0)
        latents = -np.arange(1.0, 300.0 * T + 1.0).reshape(300, T, 1)
        donors = np.arange(1.0, 4.0 * T + 1.0).reshape(4, T, 1)
        children = window_evolution.copy_windows(latents, donors, widest, rng)
        seen = collections.Counter()
        for before, after in zip(latents, children, strict=True):
            places = np.flatnonzero(after[:, 0] > 0.0)
            length = len(places)
            start, value = places[0], after[places[0], 0]
            donor, source = divmod(int(value) - 1, T)
            expected = before.copy()
            expected[start : start + length] = donors[
                donor, source : source + length
            ]
            self.assertAllEqual(after, expected)
            seen[donor, length, start, source] += 1
        self.assertEqual({k[0] for k in seen}, set(range(4)))
        self.assertEqual(
            {k[1] for k in seen}, set(range(1, min(widest, T) + 1))
        )
        if widest == 1:  # All pairs of positions.
            pairs = {k[2:] for k in seen}
            self.assertGreater(len(pairs), 60)
            self.assertContainsSubset(
                pairs, set(itertools.product(range(T), repeat=2))
            )

    def test_noise_is_added_to_a_window_alone(self):
        rng = np.random.default_rng(0)
        latents = rng.normal(size=(500, T, C))
        step = np.array([0.1, 10.0])
        change = window_evolution.add_noise(latents, 3, step, rng) - latents
        moved = np.abs(change).max(-1) > 0.0
        self.assertAllInRange(moved.sum(-1), 1, 3)
        for row in moved:
            places = np.flatnonzero(row)
            self.assertAllEqual(np.diff(places), np.ones(len(places) - 1))
        # E s^2 for log s uniform on [log 0.1, 0] is 0.99 / (2 log 10).
        squares = np.mean(np.square(change[moved] / step), 0)
        self.assertAllClose(squares, [0.215, 0.215], atol=0.05)

    def test_ranks_count_within_groups(self):
        groups = np.array([3, 1, 3, 3, 1, 2])
        self.assertAllEqual(
            window_evolution.rank_within(groups), [0, 0, 1, 2, 1, 0]
        )


if __name__ == "__main__":
    tf.test.main()
