# SPDX-License-Identifier: Apache-2.0
"""Tests of parent selection and variation: distributions and invariants."""

from __future__ import annotations

import itertools

import gin
import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests import oracles
from tfvae import settings, tvae
from tfvae.ops import bits, random
from tfvae.tvae import operators

# Every operator of the library, with settings that are not the default.
PARENTS = {
    tvae.Fitness: {},
    tvae.Elite: {},
    tvae.Softmax: {"temperature": 2.5},
    tvae.Uniform: {},
}
VARIATIONS = {
    tvae.RandFlip: {},
    tvae.SparseFlip: {"flip_rate": 0.3},
    tvae.Crossover: {"mutation": tvae.RandFlip()},
}
EVERY_PARENTS = [(c.__name__, c(**kw)) for c, kw in PARENTS.items()]
EVERY_VARIATION = [
    *((c.__name__, c(**kw)) for c, kw in VARIATIONS.items()),
    ("PlainCrossover", tvae.Crossover()),
]


def _random_states(shape, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.integers(0, 2, shape), tf.float32)


def _vary(variation, seed, parents, num_children, expected_ones=1.0):
    """Varies states `[B, P, H]`, packed on the way: children `[B, K, H]`."""
    num_latents = parents.shape[-1]
    children = variation(
        random.make_seed(seed),
        bits.pack(parents),
        num_children,
        tf.constant(expected_ones),
        num_latents,
    )
    return bits.unpack(children, num_latents)


class ConformanceTest(tf.test.TestCase, parameterized.TestCase):
    def test_every_operator_of_the_library_has_a_case(self):
        found = {
            cls
            for name, cls in keras.saving.get_custom_objects().items()
            if name.startswith("tfvae>")
            and issubclass(cls, settings.Settings)
            and cls.__module__ == operators.__name__
        }
        self.assertEqual(found, {*PARENTS, *VARIATIONS})

    @parameterized.named_parameters(*EVERY_PARENTS, *EVERY_VARIATION)
    def test_every_setting_survives_a_round_trip(self, operator):
        copy = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(operator)
        )
        self.assertIs(type(copy), type(operator))
        self.assertEqual(copy, operator)

    @parameterized.named_parameters(*EVERY_PARENTS, *EVERY_VARIATION)
    def test_gin_refers_to_it_by_name(self, operator):
        cls = type(operator)
        self.assertIs(type(gin.get_configurable(cls.__name__)()), cls)

    @parameterized.named_parameters(*EVERY_PARENTS)
    def test_parents_are_int32_indices_of_each_data_point(self, parents):
        log_joints = np.random.default_rng(0).normal(size=(5, 9))
        chosen = parents(
            random.make_seed(0), tf.constant(log_joints, tf.float32), 4
        )
        self.assertEqual(chosen.dtype, tf.int32)
        self.assertEqual(chosen.shape, (5, 4))
        self.assertAllInRange(chosen, 0, 8)

    @parameterized.named_parameters(*EVERY_PARENTS)
    def test_parents_of_large_negative_log_joints_are_valid(self, parents):
        # The scale of real images: thousands of nats, and far apart.
        log_joints = tf.constant([[-1e6, -9e5, -8.9e5, -3e5, -1e3, -10.0]])
        chosen = parents(random.make_seed(0), tf.repeat(log_joints, 50, 0), 3)
        self.assertAllInRange(chosen, 0, 5)

    @parameterized.named_parameters(*EVERY_PARENTS)
    def test_parents_are_the_same_in_graphs_and_under_xla(self, parents):
        values = np.random.default_rng(0).normal(size=(7, 9))
        log_joints = tf.constant(values, tf.float32)
        expected = parents(random.make_seed(3), log_joints, 4)
        for jit in (False, True):
            compiled = tf.function(parents.__call__, jit_compile=jit)
            chosen = compiled(random.make_seed(3), log_joints, 4)
            self.assertAllEqual(chosen, expected)

    @parameterized.named_parameters(*EVERY_VARIATION)
    def test_children_are_packed_states_with_nothing_behind_them(
        self, variation
    ):
        for num_latents, num_bytes in ((4, 1), (8, 1), (11, 2), (70, 9)):
            parents = _random_states((6, 3, num_latents))
            children = variation(
                random.make_seed(0),
                bits.pack(parents),
                2,
                tf.constant(2.0),
                num_latents,
            )
            self.assertEqual(children.dtype, tf.uint8)
            # P C and P (P - 1)
            self.assertEqual(children.shape, (6, 6, num_bytes))
            whole = oracles.unpack(children.numpy(), 8 * num_bytes)
            self.assertAllEqual(whole[..., num_latents:].sum(), 0.0)

    @parameterized.named_parameters(*EVERY_VARIATION)
    def test_children_are_the_same_in_graphs_and_under_xla(self, variation):
        parents, ones = bits.pack(_random_states((6, 3, 11))), tf.constant(2.0)
        expected = variation(random.make_seed(3), parents, 2, ones, 11)
        for jit in (False, True):

            @tf.function(
                jit_compile=jit,
                input_signature=[tf.TensorSpec([None, 3, 2], tf.uint8)],
            )
            def vary(parents):
                children = variation(random.make_seed(3), parents, 2, ones, 11)
                self.assertEqual(children.shape.as_list(), [None, 6, 2])
                return children

            self.assertAllEqual(vary(parents), expected)

    @parameterized.named_parameters(*EVERY_VARIATION)
    def test_children_depend_on_the_seed(self, variation):
        parents = _random_states((6, 3, 11))
        first, second = (_vary(variation, seed, parents, 2) for seed in (0, 1))
        self.assertNotAllEqual(first, second)


class ParentSelectionTest(tf.test.TestCase, parameterized.TestCase):
    # Different levels: minimum and normalisation are per data point. Positive
    # log-joints, as densities of small variance have.
    log_joints = (
        (-1.0, -2.0, -4.0, -8.0),
        (-103.0, -100.0, -101.0, -102.0),
        (3.0, 1.0, 2.0, 4.0),
        (-1.0, 2.0, 0.0, 1.0),
    )

    def _assert_drawn_in_proportion(self, parents, weights):
        num_draws = 20000
        chosen = parents(
            random.make_seed(1), tf.constant(self.log_joints), num_draws
        )
        for row, expected in zip(chosen.numpy(), weights, strict=True):
            p_value = oracles.chi_square_p(
                np.bincount(row, minlength=4), expected
            )
            self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)

    def test_fitness_draws_in_proportion_to_shifted_log_joints(self):
        weights = [
            [15.0, 14.0, 12.0, 8.0],
            [103.0, 106.0, 105.0, 104.0],
            [3.0, 1.0, 2.0, 4.0],
            [1.0, 4.0, 2.0, 3.0],
        ]
        self._assert_drawn_in_proportion(tvae.Fitness(), weights)

    @parameterized.parameters(0.5, 1.0, 4.0)
    def test_softmax_draws_in_proportion_to_tempered_joints(self, temperature):
        shifted = np.array(self.log_joints)
        shifted -= shifted.max(-1, keepdims=True)
        weights = np.exp(shifted / temperature)
        # Chi-square asks for an expected count of some five in each cell.
        weights[weights < 1e-3] = 0.0
        chosen = tvae.Softmax(temperature)(
            random.make_seed(1), tf.constant(self.log_joints), 20000
        )
        for row, expected in zip(chosen.numpy(), weights, strict=True):
            counts = np.bincount(row, minlength=4) * (expected > 0.0)
            p_value = oracles.chi_square_p(counts, expected)
            self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)
            # What was left out is as rare as it should be.
            self.assertLess(len(row) - counts.sum(), 100)

    def test_uniform_draws_every_set_of_parents_equally_often(self):
        log_joints = tf.repeat(tf.constant(self.log_joints[:1]), 20000, 0)
        chosen = tvae.Uniform()(random.make_seed(1), log_joints, 2).numpy()
        pairs = list(itertools.combinations(range(4), 2))
        found = [pairs.index(tuple(sorted(row))) for row in chosen]
        p_value = oracles.chi_square_p(np.bincount(found), np.ones(6))
        self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)

    @parameterized.parameters(1, 3, 4)
    def test_elite_takes_the_best(self, num_parents):
        chosen = tvae.Elite()(
            random.make_seed(1), tf.constant(self.log_joints), num_parents
        )
        best = np.argsort(-np.array(self.log_joints), -1)[:, :num_parents]
        self.assertAllEqual(chosen, best)

    @parameterized.parameters(0.0, -1.0, float("nan"))
    def test_temperature_that_is_not_positive_is_reported(self, temperature):
        with self.assertRaisesRegex(
            ValueError, "`temperature` must be positive and finite, got"
        ):
            tvae.Softmax(temperature)


class RandFlipTest(tf.test.TestCase):
    def _flips(self, num_data, num_parents, num_children, num_bits):
        parents = _random_states((num_data, num_parents, num_bits))
        children = _vary(tvae.RandFlip(), 1, parents, num_children)
        children = tf.reshape(
            children, [num_data, num_parents, num_children, num_bits]
        )
        return np.abs(children - parents[:, :, None])

    def test_each_child_differs_from_its_parent_in_one_bit(self):
        flips = self._flips(20, 3, 4, 9)
        self.assertAllEqual(flips.sum(-1), np.ones((20, 3, 4)))

    def test_children_of_a_parent_flip_different_bits(self):
        flips = self._flips(20, 3, 9, 9)
        self.assertAllEqual(flips.sum(2), np.ones((20, 3, 9)))

    def test_every_set_of_flipped_bits_is_equally_likely(self):
        flips = self._flips(10000, 2, 2, 5).sum(2).reshape(-1, 5)
        pairs = list(itertools.combinations(range(5), 2))
        found = [pairs.index(tuple(np.flatnonzero(row))) for row in flips]
        p_value = oracles.chi_square_p(np.bincount(found), np.ones(10))
        self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)

    def test_parents_of_a_data_point_flip_independently(self):
        flips = self._flips(20000, 2, 1, 4)[:, :, 0].argmax(-1)
        counts = np.bincount(4 * flips[:, 0] + flips[:, 1], minlength=16)
        p_value = oracles.chi_square_p(counts, np.ones(16))
        self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)


class SparseFlipTest(tf.test.TestCase, parameterized.TestCase):
    def _probs(self, num_ones, num_bits, flip_rate, expected_ones):
        probs = operators.sparse_flip_probs(
            tf.constant(num_ones, tf.float32),
            num_bits,
            flip_rate,
            tf.constant(expected_ones, tf.float32),
        )
        return [prob.numpy() for prob in probs]

    @parameterized.parameters(
        (10, 0.5, 3.0), (10, 0.3, 2.0), (64, 0.1, 2.5), (8, 0.125, 1.0)
    )
    def test_probabilities_equal_the_published_formula(
        self, num_bits, flip_rate, expected_ones
    ):
        reachable = 0
        for num_ones in range(1, num_bits):
            # Where H p flips can bring s to s*, and probabilities stay below 1.
            flips = num_bits * flip_rate
            if not abs(expected_ones - num_ones) < flips:
                continue
            expected = oracles.sparse_flip_probs(
                num_ones, num_bits, flip_rate, expected_ones
            )
            if max(expected) > 1.0:
                continue
            reachable += 1
            found = self._probs(num_ones, num_bits, flip_rate, expected_ones)
            self.assertAllClose(found, expected, rtol=1e-5)
        self.assertGreater(reachable, 0)

    @parameterized.parameters((10, 0.3, 2.0), (64, 0.05, 2.5), (5, 0.2, 4.9))
    def test_probabilities_stay_in_0_to_1_for_every_number_of_ones(
        self, num_bits, flip_rate, expected_ones
    ):
        num_ones = np.arange(num_bits + 1)
        for prob in self._probs(num_ones, num_bits, flip_rate, expected_ones):
            self.assertAllInRange(prob, 0.0, 1.0)

    def test_change_beyond_the_number_of_flips_is_cut_to_it(self):
        # Far too many ones: all H p = 2 flips fall on ones.
        prob_zero, prob_one = self._probs(18, 20, 0.1, 1.0)
        self.assertAllClose([prob_zero, prob_one], [0.0, 2.0 / 18.0])
        # Far too few: all fall on zeros.
        prob_zero, prob_one = self._probs(2, 20, 0.1, 15.0)
        self.assertAllClose([prob_zero, prob_one], [2.0 / 18.0, 0.0])

    @parameterized.parameters(2, 4, 6, 9)
    def test_mean_flips_and_ones_of_children_are_as_asked(self, num_ones):
        num_bits, flip_rate, expected_ones = 12, 0.25, 4.0
        num_data = 4000
        parent = np.zeros(num_bits, np.float32)
        parent[:num_ones] = 1.0
        parents = tf.tile(tf.constant(parent)[None, None], [num_data, 2, 1])
        children = _vary(
            tvae.SparseFlip(flip_rate), 1, parents, 3, expected_ones
        ).numpy()
        self.assertEqual(children.shape, (num_data, 6, num_bits))
        flips = np.abs(children - parent).sum(-1)
        change = np.clip(expected_ones - num_ones, -3.0, 3.0)
        # Sums of independent bits: variance below the mean number of flips.
        error = 4.0 * np.sqrt(3.0 / flips.size)
        self.assertAllClose(flips.mean(), 3.0, rtol=0, atol=error)
        mean_ones = children.sum(-1).mean()
        self.assertAllClose(mean_ones, num_ones + change, rtol=0, atol=error)

    def test_bits_flip_independently_with_their_probabilities(self):
        parent = np.array([1.0, 0.0, 0.0, 0.0], np.float32)
        parents = tf.tile(tf.constant(parent)[None, None], [20000, 1, 1])
        children = _vary(tvae.SparseFlip(0.4), 1, parents, 1, 1.2)
        children = children.numpy()[:, 0]
        prob_zero, prob_one = oracles.sparse_flip_probs(1, 4, 0.4, 1.2)
        expected = [
            np.prod(
                [
                    prob if child != own else 1.0 - prob
                    for child, own, prob in zip(
                        state, parent, [prob_one] + 3 * [prob_zero], strict=True
                    )
                ]
            )
            for state in oracles.enumerate_states(4)
        ]
        found = (children @ 2 ** np.arange(4)).astype(int)
        p_value = oracles.chi_square_p(
            np.bincount(found, minlength=16), np.array(expected)
        )
        self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)

    def test_rate_is_one_flip_a_child_by_default(self):
        parents = tf.tile(tf.constant([[[1.0, 1.0] + [0.0] * 8]]), [4000, 1, 1])
        children = _vary(tvae.SparseFlip(), 1, parents, 1, 2.0)
        flips = np.abs(children - parents).sum(-1)
        self.assertAllClose(flips.mean(), 1.0, rtol=0, atol=4 / 4000**0.5)

    @parameterized.parameters(0.0, 1.0, -0.1, 3.0)
    def test_rate_that_is_no_probability_is_reported(self, flip_rate):
        with self.assertRaisesRegex(
            ValueError, r"`flip_rate` must be inside \(0, 1\) or None, got"
        ):
            tvae.SparseFlip(flip_rate)


class CrossoverTest(tf.test.TestCase):
    def _children(self, num_data, num_parents, num_bits):
        """Of which parent each bit of each child is, `[B, K, H]`."""
        number = np.arange(num_parents)[None, :, None]
        children = 0
        # One binary digit of the parent's number after the other; the same
        # seed cuts alike.
        for digit in range(2):
            parents = np.tile((number >> digit) & 1, [num_data, 1, num_bits])
            parents = tf.constant(parents, tf.float32)
            part = _vary(tvae.Crossover(), 1, parents, 1).numpy()
            children = children + 2**digit * part
        return children

    def test_every_ordered_pair_of_parents_has_one_child(self):
        children = self._children(30, 4, 9)
        self.assertEqual(children.shape, (30, 12, 9))
        for row in children:
            pairs = [(child[0], child[-1]) for child in row]
            self.assertCountEqual(pairs, itertools.permutations(range(4), 2))

    def test_each_child_has_one_cut_between_1_and_h_minus_1(self):
        children = self._children(30, 4, 9)
        changes = (np.diff(children, axis=-1) != 0).sum(-1)
        self.assertAllEqual(changes, np.ones((30, 12)))

    def test_children_of_a_pair_are_complementary(self):
        # What one child takes from a parent, the other does not.
        for row in self._children(30, 4, 9):
            child_of = {(child[0], child[-1]): child for child in row}
            for (mother, father), child in child_of.items():
                other = child_of[father, mother]
                self.assertAllEqual(child + other, [mother + father] * 9)

    def test_cuts_of_pairs_are_uniform_and_independent(self):
        children = self._children(4000, 3, 5)
        cuts = (children[:, :3] == children[:, :3, :1]).sum(-1)
        self.assertAllInRange(cuts, 1, 4)
        for pair in range(3):
            p_value = oracles.chi_square_p(
                np.bincount(cuts[:, pair] - 1, minlength=4), np.ones(4)
            )
            self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)
        both = 4 * (cuts[:, 0] - 1) + cuts[:, 1] - 1
        p_value = oracles.chi_square_p(
            np.bincount(both, minlength=16), np.ones(16)
        )
        self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)

    def test_mutation_is_applied_once_to_each_child(self):
        parents = _random_states((20, 4, 9))
        plain = _vary(tvae.Crossover(), 1, parents, 7)
        mutated = _vary(tvae.Crossover(tvae.RandFlip()), 1, parents, 7)
        self.assertEqual(mutated.shape, (20, 12, 9))
        flips = np.abs(mutated - plain).sum(-1)
        self.assertAllEqual(flips, np.ones((20, 12)))


if __name__ == "__main__":
    tf.test.main()
