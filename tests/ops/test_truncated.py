# SPDX-License-Identifier: Apache-2.0
"""Tests of truncated posteriors and of sets of distinct states."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from absl.testing import parameterized

from tests import oracles
from tfvae.ops import bits, random, truncated

LOWEST = np.finfo(np.float32).min


def _falling_log_joints(shape, scale=3.0, seed=0):
    values = np.random.default_rng(seed).normal(-50.0, scale, shape)
    return -np.sort(-values, -1).astype(np.float32)


def _pool(batch_size, num_states, num_bits, seed=0):
    """Packed states of `num_bits` bits, with many repeats where bits are few.

    Log-joints depend on the state alone, and different states may tie.
    """
    rng = np.random.default_rng(seed)
    states = rng.integers(0, 2, (batch_size, num_states, num_bits))
    packed = bits.pack(tf.constant(states, tf.float32)).numpy()
    values = rng.integers(-5, 5, 2 ** min(num_bits, 10)).astype(np.float32)
    values[0] = -np.inf
    code = states @ (2 ** np.arange(num_bits)) % len(values)
    return packed, values[code]


class FunctionsOfLogJointsTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.log_joints = _falling_log_joints((7, 12))
        self.weights = scipy.special.softmax(
            self.log_joints.astype(np.float64), -1
        )

    def test_free_energy_is_the_log_of_the_sum_of_joints(self):
        expected = scipy.special.logsumexp(self.log_joints, -1)
        self.assertAllClose(truncated.free_energy(self.log_joints), expected)

    def test_posterior_weights_are_joints_renormalised(self):
        weights = truncated.posterior_weights(self.log_joints)
        self.assertAllClose(weights, self.weights, rtol=1e-5)

    def test_free_energy_is_expected_log_joint_plus_entropy(self):
        expected = (
            self.weights * (self.log_joints - np.log(self.weights))
        ).sum(-1)
        self.assertAllClose(truncated.free_energy(self.log_joints), expected)

    def test_posterior_weights_maximise_the_bound(self):
        # F(q) = <lj>_q + entropy of q; no other q on the same set does better.
        best = truncated.free_energy(self.log_joints).numpy()
        others = np.random.default_rng(0).dirichlet(np.ones(12), (50, 7))
        bound = (others * (self.log_joints - np.log(others))).sum(-1)
        self.assertAllLess(bound - best, 0.0)

    def test_effective_states_counts_equal_weights(self):
        log_joints = np.full((1, 12), -200.0, np.float32)
        for count in (1, 3, 12):
            log_joints[0, :count] = -5.0
            effective = truncated.effective_states(tf.constant(log_joints))
            self.assertAllClose(effective, [count], rtol=1e-5)

    @parameterized.parameters(1, 4, 11, 12)
    def test_bound_on_m_states_is_lower_by_the_dropped_mass(self, num_kept):
        mass = truncated.dropped_mass(tf.constant(self.log_joints), num_kept)
        self.assertAllClose(
            mass, self.weights[:, num_kept:].sum(-1), rtol=1e-4, atol=1e-6
        )
        of_all = truncated.free_energy(self.log_joints)
        of_kept = truncated.free_energy(self.log_joints[:, :num_kept])
        self.assertAllClose(of_all + tf.math.log1p(-mass), of_kept, rtol=1e-6)

    def test_replacing_a_state_by_a_better_one_raises_the_bound(self):
        before = truncated.free_energy(self.log_joints).numpy()
        for position in range(12):
            better = self.log_joints.copy()
            better[:, position] += 1.0
            after = truncated.free_energy(better).numpy()
            self.assertAllGreaterEqual(after - before, 0.0)


class NumKeptTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(0.0, 1e-3, 0.02, 0.1, 0.3, 0.7, 0.999)
    def test_number_is_the_least_that_keeps_to_the_mass(self, max_mass):
        for scale in (0.01, 1.0, 5.0, 30.0):
            log_joints = _falling_log_joints((7, 12), scale)
            num_kept = int(truncated.num_kept(log_joints, max_mass))
            if max_mass:  # Float32 does not see masses below 1e-7.
                expected = oracles.num_kept(log_joints, max_mass)
                self.assertEqual(num_kept, expected)
            mass = truncated.dropped_mass(log_joints, num_kept)
            self.assertLessEqual(tf.reduce_mean(mass), max_mass)
            if num_kept > 1:
                mass = truncated.dropped_mass(log_joints, num_kept - 1)
                self.assertGreater(tf.reduce_mean(mass), max_mass)

    def test_mass_is_the_mean_over_the_batch(self):
        # Of one data point a single state, of the other one of four.
        log_joints = tf.constant([[0.0] + 3 * [-99.0], 4 * [-7.0]])
        for max_mass, expected in ((0.4, 1), (0.37, 2), (0.2, 3), (0.1, 4)):
            num_kept = truncated.num_kept(log_joints, max_mass)
            self.assertEqual(int(num_kept), expected)

    def test_single_state_is_kept(self):
        self.assertEqual(int(truncated.num_kept(tf.zeros([3, 1]), 0.0)), 1)


class DistinctTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters((0, 5), (1, 1), (60, 5), (60, 1000), (60, 1))
    def test_result_equals_a_slow_loop(self, num_keys, num_values):
        rng = np.random.default_rng(0)
        values = rng.integers(-(2**63), 2**63 - 1, num_values)
        keys = rng.choice(values, num_keys)
        found = truncated.distinct(tf.constant(keys, tf.int64))
        for one, expected in zip(found, oracles.distinct(keys), strict=True):
            self.assertAllEqual(one, expected)

    def test_graphs_give_the_same(self):
        keys = tf.constant([5, -3, 5, 7, -3, 2], tf.int64)
        compiled = tf.function(
            truncated.distinct,
            input_signature=[tf.TensorSpec([None], tf.int64)],
        )
        for found, expected in zip(
            compiled(keys),
            ([5, -3, 7, 2], [0, 1, 3, 5], [0, 1, 0, 2, 1, 3]),
            strict=True,
        ):
            self.assertAllEqual(found, expected)


class BestDistinctTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        *(
            (num_bits, num_pool, num_states)
            for num_bits in (2, 4, 9, 70)
            for num_pool, num_states in ((20, 5), (20, 20), (40, 1))
        )
    )
    def test_result_equals_a_slow_loop(self, num_bits, num_pool, num_states):
        packed, log_joints = _pool(10, num_pool, num_bits)
        packed[:, ::3] = packed[:, :1]  # repeats, also of long states
        states = truncated.best_distinct(
            tf.constant(packed), tf.constant(log_joints), num_states
        )
        self.assertEqual(states.packed.shape, (10, num_states, packed.shape[2]))
        for n in range(10):
            found = states.log_joints[n].numpy()
            expected = oracles.best_distinct(
                packed[n], log_joints[n], num_states
            )
            self.assertAllEqual(found, expected)
            # Each state stands beside its own log-joint.
            given = {}
            for row, value in zip(packed[n], log_joints[n], strict=True):
                given.setdefault(row.tobytes(), max(value, LOWEST))
            kept = states.packed[n].numpy()
            real = found > -np.inf
            self.assertEqual(
                [given[row.tobytes()] for row in kept[real]],
                found[real].tolist(),
            )
            self.assertEqual(oracles.count_distinct(kept[real]), real.sum())
            for row in kept[~real]:
                self.assertIn(row.tobytes(), given)

    def test_of_equal_states_the_first_counts(self):
        packed = tf.constant([[[3], [5], [3], [3]]], tf.uint8)
        log_joints = tf.constant([[-2.0, -3.0, -1.0, -9.0]])
        states = truncated.best_distinct(packed, log_joints, 2)
        self.assertAllEqual(states.packed, [[[3], [5]]])
        self.assertAllEqual(states.log_joints, [[-2.0, -3.0]])

    def test_tied_states_are_all_kept(self):
        packed = tf.constant([[[1], [2], [1], [4], [8]]], tf.uint8)
        states = truncated.best_distinct(packed, tf.zeros([1, 5]), 4)
        self.assertCountEqual(states.packed.numpy().ravel(), [1, 2, 4, 8])

    def test_a_state_of_minus_infinity_goes_before_a_repeat(self):
        packed = tf.constant([[[7], [7], [9], [7], [1]]], tf.uint8)
        log_joints = tf.constant([[-1.0, -1.0, -np.inf, -1.0, -np.inf]])
        states = truncated.best_distinct(packed, log_joints, 4)
        self.assertCountEqual(states.packed.numpy()[0, :3].ravel(), [7, 9, 1])
        self.assertAllEqual(
            states.log_joints, [[-1.0, LOWEST, LOWEST, -np.inf]]
        )

    def test_result_is_the_same_under_xla(self):
        packed, log_joints = _pool(5, 30, 12)
        arguments = tf.constant(packed), tf.constant(log_joints), 8
        compiled = tf.function(truncated.best_distinct, jit_compile=True)
        states, compiled_states = (
            best(*arguments) for best in (truncated.best_distinct, compiled)
        )
        self.assertAllEqual(compiled_states.packed, states.packed)
        self.assertAllEqual(compiled_states.log_joints, states.log_joints)


class FirstEqualsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters((1, 1), (40, 9), (40, 2**62))
    def test_first_of_equal_keys_is_found(self, size, num_values):
        keys = np.random.default_rng(0).integers(0, num_values, size)
        found = truncated.first_equals(tf.constant(keys))
        expected = [list(keys).index(key) for key in keys]
        self.assertAllEqual(found, expected)

    @parameterized.parameters(1, 7, 30)
    def test_places_are_those_chosen_first(self, size):
        is_chosen = np.random.default_rng(1).random(30) < 0.4
        expected = np.flatnonzero(is_chosen)
        places, number = truncated.places_of(tf.constant(is_chosen), size)
        self.assertEqual(number, len(expected))
        self.assertLen(places, size)
        expected = [*expected, *(30 * [0])][:size]
        self.assertAllEqual(places, expected)


class TopKTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.product(
        num_columns=(5, 640, 1000), num_values=(3, 10**6), count=(1, 5)
    )
    def test_columns_are_those_of_tensorflow(
        self, num_columns, num_values, count
    ):
        # Of few different numbers most are equal.
        values = np.random.default_rng(2).integers(
            -num_values, num_values, (6, num_columns)
        )
        values = tf.constant(values, tf.float32)
        values = tf.where(values == tf.reduce_min(values), -np.inf, values)
        expected = tf.math.top_k(values, count)
        for find in (truncated.top_k, truncated._top_k_by_blocks):
            found = find(values, count)
            self.assertAllEqual(found[0], expected.values)
            self.assertAllEqual(found[1], expected.indices)


class InitialStatesTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        (1, 1), (1, 2), (2, 3), (3, 8), (5, 31), (5, 32), (8, 255), (8, 256),
        (8, 20), (64, 100), (130, 50),
    )  # fmt: skip
    def test_states_of_each_data_point_are_distinct(self, num_bits, num_states):
        packed = truncated.initial_states(
            random.make_seed(0), 5, num_states, num_bits
        )
        self.assertEqual(
            packed.shape, (5, num_states, bits.packed_size(num_bits))
        )
        self.assertEqual(packed.dtype, tf.uint8)
        for row in packed.numpy():
            self.assertEqual(oracles.count_distinct(row), num_states)
        # Distinct in the bits that count, not in the padding.
        self.assertAllEqual(bits.pack(bits.unpack(packed, num_bits)), packed)

    @parameterized.parameters(2, 10, 64)
    def test_single_states_have_bits_of_probability_1_in_h(self, num_bits):
        num_data = 4000
        packed = truncated.initial_states(
            random.make_seed(1), num_data, 1, num_bits
        )
        ones = oracles.unpack(packed, num_bits)[:, 0].sum(0)
        # Each bit's count is binomial: the squared deviations in units of its
        # variance are chi-square.
        prob = 1.0 / num_bits
        for count in ones:
            p_value = oracles.chi_square_p(
                [count, num_data - count], [prob, 1.0 - prob]
            )
            self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL / num_bits)

    def test_bits_of_larger_sets_stay_of_the_order_of_1_in_h(self):
        packed = truncated.initial_states(random.make_seed(1), 50, 64, 64)
        mean_ones = oracles.unpack(packed, 64).sum(-1).mean()
        # Leaving out repeats, mostly of the empty state and of single bits,
        # raises the mean over 1, and later rounds raise it a little more.
        self.assertBetween(mean_ones, 1.0, 2.0)

    def test_data_points_get_different_states(self):
        packed = truncated.initial_states(random.make_seed(1), 20, 8, 32)
        self.assertEqual(oracles.count_distinct(packed.numpy()), 20)

    @pytest.mark.slow  # Others show parts of it.
    def test_seed_decides_and_graphs_and_xla_agree(self):
        def draw(seed):
            return truncated.initial_states(random.make_seed(seed), 7, 12, 4)

        expected = draw(3)
        self.assertAllEqual(draw(3), expected)
        self.assertNotAllEqual(draw(4), expected)
        for jit in (False, True):
            compiled = tf.function(lambda: draw(3), jit_compile=jit)
            self.assertAllEqual(compiled(), expected)


class BestProductsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.product(
        num_rows=(1, 7), num_products=(5, 30), at_once=(1, 64, 10**6)
    )
    def test_slices_find_what_sorting_finds(
        self, num_rows, num_products, at_once
    ):
        original = truncated._PRODUCTS_AT_ONCE
        self.addCleanup(setattr, truncated, "_PRODUCTS_AT_ONCE", original)
        truncated._PRODUCTS_AT_ONCE = at_once
        rng = np.random.default_rng(0)
        # Whole numbers: exact in any order.
        left = rng.integers(-9, 9, (num_rows, 3)).astype(np.float32)
        right = rng.integers(-99, 99, (num_products, 3)).astype(np.float32)

        @tf.function(input_signature=2 * [tf.TensorSpec([None, 3])])
        def find(left, right):
            return truncated.best_products(left, right, 4)

        values, index = find(left, right)
        products = left @ right.T
        self.assertAllEqual(values, -np.sort(-products, -1)[:, :4])
        self.assertAllEqual(
            np.take_along_axis(products, index.numpy(), -1), values
        )
        for row in index.numpy():
            self.assertLen(set(row), 4)

    @parameterized.product(at_once=(1, 64, 10**6))
    def test_fixed_shapes_find_the_best_of_valid_rows(self, at_once):
        original = truncated._PRODUCTS_AT_ONCE
        self.addCleanup(setattr, truncated, "_PRODUCTS_AT_ONCE", original)
        truncated._PRODUCTS_AT_ONCE = at_once
        rng = np.random.default_rng(0)
        left = rng.integers(-9, 9, (7, 3)).astype(np.float32)
        right = rng.integers(-99, 99, (30, 3)).astype(np.float32)
        is_valid = rng.random(30) < 0.5
        values, index = truncated.best_masked_products(
            tf.constant(left), tf.constant(right), tf.constant(is_valid), 4
        )
        products = np.where(is_valid, left @ right.T, -np.inf)
        self.assertAllEqual(values, -np.sort(-products, -1)[:, :4])
        self.assertAllEqual(
            np.take_along_axis(products, index.numpy(), -1), values
        )


if __name__ == "__main__":
    tf.test.main()
