# SPDX-License-Identifier: Apache-2.0
"""Tests of random draws against their distributions, by chi-square."""

from __future__ import annotations

import itertools
from unittest import mock

import numpy as np
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized

from tests import oracles
from tfvae.ops import random


def _three_ways(draw):
    """Results of `draw()` eagerly, in a graph and under XLA."""
    return (
        draw().numpy(),
        tf.function(draw)().numpy(),
        tf.function(draw, jit_compile=True)().numpy(),
    )


class SeedTest(tf.test.TestCase):
    def test_different_paths_give_different_draws(self):
        paths = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (7, 2, 3), (2, 7, 3)]
        seeds = {tuple(random.make_seed(3, *p).numpy()) for p in paths}
        self.assertLen(seeds, len(paths))
        draws = {
            random.uniform(random.make_seed(3, *p), [4]).numpy().tobytes()
            for p in paths
        }
        self.assertLen(draws, len(paths))

    def test_different_integers_of_64_bits_give_different_draws(self):
        seeds = (0, 1, -1, 2**31, 2**32, 2**32 + 1, 2**40, 2**63 - 1)
        draws = {
            random.uniform(random.make_seed(s, 0), [4]).numpy().tobytes()
            for s in seeds
        }
        self.assertLen(draws, len(seeds))

    def test_integers_may_be_tensors(self):
        expected = random.make_seed(5, 6, 7)
        of_tensors = random.make_seed(
            tf.constant(5), tf.constant(6, tf.int64), tf.Variable(7)
        )
        self.assertAllEqual(of_tensors, expected)
        self.assertAllEqual(
            random.make_seed(random.make_seed(5, 6), 7), expected
        )

    def test_seeds_are_the_same_eagerly_in_graphs_and_under_xla(self):
        eager, graph, compiled = _three_ways(lambda: random.make_seed(1, 2, 3))
        self.assertAllEqual(graph, eager)
        self.assertAllEqual(compiled, eager)


class PackedBitsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters((1, 0.5), (3, 1 / 3), (4, 0.5), (5, 0.8))
    def test_states_have_the_probabilities_of_independent_bits(
        self, num_bits, prob
    ):
        packed = random.packed_bits(
            random.make_seed(3), [40, 100], num_bits, prob
        )
        every = oracles.enumerate_states(num_bits)
        probs = np.prod(np.where(every, prob, 1.0 - prob), -1)
        counts = np.bincount(packed.numpy().ravel(), minlength=len(every))
        self.assertLen(counts, len(every))
        # State i of all has the bits of i, as a byte has.
        self.assertAllEqual(every @ 2 ** np.arange(num_bits), range(len(every)))
        self.assertGreater(
            oracles.chi_square_p(counts, probs), oracles.CHI_SQUARE_LEVEL
        )

    @parameterized.parameters((64, 1 / 64), (512, 1 / 512), (300, 0.02))
    def test_bits_and_numbers_of_ones_have_their_frequencies(
        self, num_bits, prob
    ):
        num_draws = 20000
        packed = random.packed_bits(
            random.make_seed(4), [num_draws], num_bits, prob
        )
        states = oracles.unpack(packed.numpy(), num_bits)
        # A sum of H squared deviations, each over its variance.
        deviations = states.sum(0) - num_draws * prob
        variance = num_draws * prob * (1.0 - prob)
        statistic = np.square(deviations).sum() / variance
        p_value = scipy.stats.chi2.sf(statistic, num_bits)
        self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)
        # Numbers of ones are binomial; large ones are counted as one class.
        ones = np.minimum(states.sum(1), 5).astype(int)
        probs = scipy.stats.binom.pmf(np.arange(6), num_bits, prob)
        probs[5] = 1.0 - probs[:5].sum()
        counts = np.bincount(ones, minlength=6)
        self.assertGreater(
            oracles.chi_square_p(counts, probs), oracles.CHI_SQUARE_LEVEL
        )

    def test_draws_are_the_same_eagerly_in_graphs_and_under_xla(self):
        eager, graph, compiled = _three_ways(
            lambda: random.packed_bits(random.make_seed(1), [6, 5], 20, 0.1)
        )
        self.assertEqual(eager.shape, (6, 5, 3))
        self.assertAllEqual(graph, eager)
        self.assertAllEqual(compiled, eager)
        # No bit past the last one.
        self.assertLess(eager[..., -1].max(), 2**4)


class UniformTest(tf.test.TestCase):
    def test_draws_are_the_same_eagerly_in_graphs_and_under_xla(self):
        eager, graph, compiled = _three_ways(
            lambda: random.uniform(random.make_seed(1), [300, 7])
        )
        self.assertAllEqual(graph, eager)
        self.assertAllEqual(compiled, eager)

    def test_draws_are_multiples_of_2_to_the_minus_23_below_1(self):
        draws = random.uniform(random.make_seed(2), [10000]).numpy()
        self.assertAllInRange(draws, 0.0, 1.0 - 2.0**-23)
        self.assertAllEqual(draws * 2.0**23, np.round(draws * 2.0**23))

    def test_draws_are_uniform(self):
        draws = random.uniform(random.make_seed(3), [100000]).numpy()
        counts, _ = np.histogram(draws, bins=100, range=(0.0, 1.0))
        p_value = oracles.chi_square_p(counts, np.ones(100))
        self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)

    def test_neighbouring_draws_are_independent(self):
        draws = random.uniform(random.make_seed(4), [50000, 2]).numpy()
        counts, _, _ = np.histogram2d(*draws.T, bins=8, range=[[0, 1]] * 2)
        p_value = oracles.chi_square_p(counts.reshape(-1), np.ones(64))
        self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)


class NormalTest(tf.test.TestCase):
    def test_draws_are_the_same_eagerly_in_graphs_and_under_xla(self):
        eager, graph, compiled = _three_ways(
            lambda: random.normal(random.make_seed(1), [300, 7])
        )
        self.assertAllEqual(graph, eager)
        # XLA may contract multiplications and additions: the last bits.
        self.assertAllClose(compiled, eager, rtol=1e-5, atol=1e-6)

    def test_draws_are_standard_normal(self):
        draws = random.normal(random.make_seed(2), [100000]).numpy()
        p_value = scipy.stats.kstest(draws, "norm").pvalue
        self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)

    def test_extreme_uniforms_give_finite_normals(self):
        # The least and the largest uniform there are, with the half step.
        extremes = tf.constant([2.0**-24, 1.0 - 2.0**-23 + 2.0**-24])
        self.assertLess(float(extremes[1]), 1.0)
        self.assertAllInRange(tf.abs(tf.math.ndtri(extremes)), 5.0, 5.4)


class IntegersTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(1, 2, 3, 7, 64, 300)
    def test_every_integer_is_equally_likely(self, num_values):
        draws = random.integers(random.make_seed(1), [50000], num_values)
        self.assertEqual(draws.dtype, tf.int32)
        counts = np.bincount(draws, minlength=num_values)
        p_value = oracles.chi_square_p(counts, np.ones(num_values))
        self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)

    @parameterized.parameters((5, 1), (5, 2), (6, 3), (7, 6), (4, 4), (1, 1))
    def test_every_subset_is_equally_likely(self, num_values, count):
        draws = random.distinct_integers(
            random.make_seed(1), [20000], num_values, count
        )
        subsets = list(itertools.combinations(range(num_values), count))
        number = {subset: i for i, subset in enumerate(subsets)}
        found = [number[tuple(sorted(row))] for row in draws.numpy()]
        counts = np.bincount(found, minlength=len(subsets))
        p_value = oracles.chi_square_p(counts, np.ones(len(subsets)))
        self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)

    @parameterized.parameters((300, 10), (64, 64), (200, 30))
    def test_integers_of_a_sample_are_distinct(self, num_values, count):
        draws = random.distinct_integers(
            random.make_seed(1), [50, 3], num_values, count
        )
        self.assertEqual(draws.shape, [50, 3, count])
        self.assertAllInRange(draws, 0, num_values - 1)
        for row in draws.numpy().reshape(-1, count):
            self.assertLen(set(row), count)


class CategoricalTest(tf.test.TestCase):
    weights = ((1.0, 2.0, 3.0, 4.0), (0.0, 5.0, 0.0, 5.0), (0.0, 0.0, 9.0, 0.0))

    def test_draws_are_in_proportion_to_each_rows_weights(self):
        draws = random.categorical(
            random.make_seed(1), tf.constant(self.weights), 20000
        )
        self.assertEqual(draws.dtype, tf.int32)
        for row, weights in zip(draws.numpy(), self.weights, strict=True):
            p_value = oracles.chi_square_p(
                np.bincount(row, minlength=4), np.array(weights)
            )
            self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)

    def test_scale_of_the_weights_does_not_matter(self):
        seed, weights = random.make_seed(1), tf.constant(self.weights)
        # Powers of two, so that rounding is the same.
        expected = random.categorical(seed, weights, 500)
        for scale in (2.0**-60, 2.0**60):
            scaled = random.categorical(seed, weights * scale, 500)
            self.assertAllEqual(scaled, expected)

    def test_extreme_uniforms_draw_the_first_and_last_positive_weight(self):
        weights = tf.constant([[0.0, 3.0, 0.1, 0.0], [7.0, 0.0, 0.0, 0.3]])
        for extreme, expected in ((0.0, [1, 0]), (1.0 - 2.0**-23, [2, 3])):
            with mock.patch.object(
                random, "uniform", return_value=tf.fill([2, 1], extreme)
            ):
                draws = random.categorical(random.make_seed(1), weights, 1)
            self.assertAllEqual(draws[:, 0], expected)

    def test_rows_are_drawn_independently(self):
        draws = random.categorical(
            random.make_seed(1), tf.ones([2, 4]), 20000
        ).numpy()
        counts = np.bincount(4 * draws[0] + draws[1], minlength=16)
        p_value = oracles.chi_square_p(counts, np.ones(16))
        self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)


if __name__ == "__main__":
    tf.test.main()
