# SPDX-License-Identifier: Apache-2.0
"""Tests of products with binary vectors against dense matrix products."""

from __future__ import annotations

from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae.ops import sparse

# Of 7 states, which ones have no active latent.
EMPTY_ROWS = (
    ("none", ()),
    ("first", (0,)),
    ("middle", (2, 3)),
    ("last", (5, 6)),
    ("all", tuple(range(7))),
)


def _states_and_matrix(empty=(), shape=(7, 200, 4), density=0.02):
    num_states, num_latents, size = shape
    rng = np.random.default_rng(0)
    states = (rng.random((num_states, num_latents)) < density).astype("f")
    states[list(empty)] = 0.0
    matrix = rng.normal(size=(num_latents, size)).astype(np.float32)
    return states, matrix


class SumRowsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.named_parameters(*EMPTY_ROWS)
    def test_sum_and_its_gradient_equal_those_of_a_product(self, empty):
        states, matrix = _states_and_matrix(empty)
        variable = tf.Variable(matrix)
        slope = np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)
        with tf.GradientTape() as tape:
            total = sparse.sum_rows(tf.constant(states), variable)
            loss = tf.reduce_sum(slope * total)
        self.assertEqual(total.shape, (7, 4))
        self.assertAllClose(total, states @ matrix, rtol=1e-5, atol=1e-6)
        gradient = tf.convert_to_tensor(tape.gradient(loss, variable))
        self.assertAllClose(gradient, states.T @ slope, rtol=1e-5, atol=1e-6)

    @parameterized.parameters(0.0, 0.02, 1.0)
    def test_any_share_of_ones_gives_the_same(self, density):
        states, matrix = _states_and_matrix(shape=(40, 300, 5), density=density)
        total = sparse.sum_rows(tf.constant(states), tf.constant(matrix))
        self.assertAllClose(total, states @ matrix, rtol=1e-4, atol=1e-5)

    @parameterized.parameters((0.02, True), (0.2, False))
    def test_rows_are_added_where_ones_are_few(self, density, adds_rows):
        states, matrix = _states_and_matrix(density=density)
        with mock.patch.object(
            tf.sparse, "segment_sum", wraps=tf.sparse.segment_sum
        ) as added:
            sparse.sum_rows(tf.constant(states), tf.constant(matrix))
        self.assertEqual(added.called, adds_rows)

    @parameterized.parameters(2.0, -1.0, 0.5, 1.0 + 2.0**-23, 1e-30, np.inf)
    def test_a_single_entry_that_is_no_bit_counts_as_it_is(self, entry):
        states, matrix = _states_and_matrix()
        states[3, 5] = entry
        slope = np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)
        variable = tf.Variable(matrix)
        with tf.GradientTape() as tape:
            total = sparse.sum_rows(tf.constant(states), variable)
            loss = tf.reduce_sum(slope * total)
        with np.errstate(invalid="ignore"):
            expected = states @ matrix
            of_matrix = states.T @ slope
        self.assertAllClose(total, expected, rtol=1e-5, atol=1e-6)
        gradient = tf.convert_to_tensor(tape.gradient(loss, variable))
        self.assertAllClose(gradient, of_matrix, rtol=1e-5, atol=1e-6)

    @parameterized.parameters(1.0, 0.01, 1e-4)
    def test_real_numbers_give_the_product(self, scale):
        rng = np.random.default_rng(0)
        states = scale * rng.normal(size=(9, 300)).astype(np.float32)
        _, matrix = _states_and_matrix(shape=(9, 300, 4))
        total = sparse.sum_rows(tf.constant(states), tf.constant(matrix))
        self.assertAllClose(total / scale, states / scale @ matrix, atol=1e-4)

    @parameterized.parameters((0.02, True), (0.02, False), (1.0, True))
    def test_states_have_a_gradient_where_it_is_asked_for(self, density, asked):
        states, matrix = _states_and_matrix(density=density)
        states = tf.constant(states)
        slope = np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)

        @tf.function
        def gradient():
            with tf.GradientTape() as tape:
                tape.watch(states)
                total = sparse.sum_rows(
                    states, tf.constant(matrix), with_state_gradient=asked
                )
                loss = tf.reduce_sum(slope * total)
            return tape.gradient(loss, states)

        if not asked:
            self.assertIsNone(gradient())
        else:
            self.assertAllClose(gradient(), slope @ matrix.T, rtol=1e-5)

    def test_unknown_number_of_states_in_a_graph_gives_the_same(self):
        states, matrix = _states_and_matrix([5, 6])

        @tf.function(input_signature=[tf.TensorSpec([None, 200], tf.float32)])
        def product(states):
            total = sparse.sum_rows(states, tf.constant(matrix))
            self.assertEqual(total.shape.as_list(), [None, 4])
            return total

        for count in (7, 1, 0):
            self.assertAllClose(
                product(states[:count]),
                states[:count] @ matrix,
                rtol=1e-5,
                atol=1e-6,
            )


if __name__ == "__main__":
    tf.test.main()
