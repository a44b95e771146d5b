# SPDX-License-Identifier: Apache-2.0
"""Tests of packed states against bit-by-bit loops."""

from __future__ import annotations

import itertools

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests import oracles
from tfvae.ops import bits


def _random_states(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, shape).astype(np.float32)


class PackTest(tf.test.TestCase):
    def test_unpacked_equals_what_was_packed_for_1_to_130_latents(self):
        for num_latents in range(1, 131):
            states = _random_states((2, 3, num_latents), num_latents)
            packed = bits.pack(tf.constant(states))
            self.assertEqual(packed.dtype, tf.uint8)
            self.assertEqual(packed.shape[-1], bits.packed_size(num_latents))
            self.assertAllEqual(bits.unpack(packed, num_latents), states)

    def test_latent_h_is_bit_h_mod_8_of_byte_h_div_8_and_the_rest_is_zero(self):
        for num_latents in range(1, 131):
            states = _random_states((4, num_latents), num_latents)
            packed = bits.pack(tf.constant(states)).numpy()
            self.assertAllEqual(oracles.unpack(packed, num_latents), states)
            whole = oracles.unpack(packed, 8 * packed.shape[-1])
            self.assertAllEqual(whole[:, num_latents:].sum(), 0.0)

    def test_size_is_the_least_number_of_bytes(self):
        sizes = [bits.packed_size(n) for n in (1, 7, 8, 9, 16, 17, 130)]
        self.assertEqual(sizes, [1, 1, 1, 2, 2, 3, 17])

    def test_batch_dimensions_may_be_unknown_in_a_graph(self):
        @tf.function(
            input_signature=[tf.TensorSpec([None, None, 11], tf.float32)]
        )
        def round_trip(states):
            packed = bits.pack(states)
            unpacked = bits.unpack(packed, 11)
            self.assertEqual(unpacked.shape.as_list(), [None, None, 11])
            return unpacked

        states = _random_states((2, 5, 11))
        self.assertAllEqual(round_trip(states), states)


class KeysTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(1, 5, 8, 9, 63, 64, 65, 72, 128, 130)
    def test_keys_are_equal_where_states_are_equal_and_nowhere_else(
        self, num_latents
    ):
        # A few flips of one state, each twice: near neighbours and repeats.
        rng = np.random.default_rng(num_latents)
        base = rng.integers(0, 2, num_latents)
        flips = rng.random((40, num_latents)) < 1.5 / num_latents
        states = np.concatenate([(base + flips) % 2] * 2).astype(np.float32)
        equal = (states[:, None] == states[None]).all(-1)
        keys = bits.keys(bits.pack(tf.constant(states))).numpy()
        self.assertEqual(keys.dtype, np.int64)
        self.assertAllEqual(keys[:, None] == keys[None], equal)

    @parameterized.parameters(10, 12)
    def test_all_states_have_different_keys(self, num_latents):
        for place in (0, 57, 118):  # in one word, across words, at the end
            states = np.zeros((2**num_latents, 130), np.float32)
            few = oracles.enumerate_states(num_latents)
            states[:, place : place + num_latents] = few
            keys = bits.keys(bits.pack(tf.constant(states))).numpy()
            self.assertLen(set(keys.tolist()), 2**num_latents)

    def test_keys_of_long_states_are_splitmix64_of_their_words(self):
        packed = np.random.default_rng(0).integers(0, 256, (20, 24), np.uint8)
        golden, mask = 0x9E3779B97F4A7C15, 2**64 - 1
        expected = []
        for row in packed:
            words = [int(word) for word in row.view("<u8")]
            key = sum(
                oracles.splitmix64((word + (i + 1) * golden) & mask)
                for i, word in enumerate(words)
            )
            expected.append(key & mask)
        keys = bits.keys(tf.constant(packed)).numpy().view(np.uint64)
        self.assertEqual(keys.tolist(), expected)

    def test_keys_differ_where_mixed_words_are_complements(self):
        # An arithmetic shift instead of a logical one would not tell a word
        # from its complement.
        place, mask = 2 * 0x9E3779B97F4A7C15, 2**64 - 1
        word = 5
        twin = (~(word + place) - place) & mask
        packed = np.zeros((2, 16), np.uint8)
        for row, value in zip(packed, (word, twin), strict=True):
            row[8:] = np.frombuffer(value.to_bytes(8, "little"), np.uint8)
        first, second = bits.keys(tf.constant(packed)).numpy()
        self.assertNotEqual(first, second)

    @parameterized.parameters(3, 9, 17)
    def test_keys_are_the_same_under_xla(self, num_bytes):
        rng = np.random.default_rng(0)
        packed = tf.constant(rng.integers(0, 256, (3, 5, num_bytes), np.uint8))
        compiled = tf.function(bits.keys, jit_compile=True)
        self.assertAllEqual(compiled(packed), bits.keys(packed))


class SingletonsAndHeadsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(1, 5, 8, 9, 16, 70)
    def test_singleton_h_has_latent_h_alone(self, num_latents):
        packed = bits.singletons(num_latents)
        self.assertEqual(packed.dtype, np.uint8)
        self.assertEqual(
            packed.shape, (num_latents, bits.packed_size(num_latents))
        )
        whole = oracles.unpack(packed, 8 * packed.shape[1])
        expected = [
            [float(h == latent) for h in range(8 * packed.shape[1])]
            for latent in range(num_latents)
        ]
        self.assertAllEqual(whole, expected)

    @parameterized.parameters(1, 5, 8, 9, 16, 70)
    def test_prefix_mask_c_has_the_latents_before_c(self, num_latents):
        packed = bits.prefix_masks(num_latents)
        self.assertEqual(packed.dtype, np.uint8)
        self.assertEqual(
            packed.shape, (num_latents + 1, bits.packed_size(num_latents))
        )
        whole = oracles.unpack(packed, 8 * packed.shape[1])
        expected = [
            [float(h < cut) for h in range(8 * packed.shape[1])]
            for cut in range(num_latents + 1)
        ]
        self.assertAllEqual(whole, expected)


class AllStatesTest(tf.test.TestCase):
    def test_row_i_holds_the_bits_of_i(self):
        states = bits.all_states(6)
        self.assertEqual(states.dtype, np.float32)
        self.assertAllEqual(states, oracles.enumerate_states(6))
        self.assertEqual(
            {tuple(row) for row in states},
            set(itertools.product((0.0, 1.0), repeat=6)),
        )


if __name__ == "__main__":
    tf.test.main()
