# SPDX-License-Identifier: Apache-2.0
"""Tests of what a TVAE says about wrong inputs."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae.tvae import inputs

NAN, INF = float("nan"), float("inf")


class DataTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(inputs.as_batch, inputs.check_data)
    def test_numbers_of_any_type_become_float32(self, check):
        for dtype in (np.float16, np.float64, np.int64, np.uint8):
            x = check(np.array([[1, 0, 3]], dtype), 3)
            self.assertEqual(x.dtype, np.float32)
            self.assertAllEqual(x, [[1.0, 0.0, 3.0]])

    @parameterized.parameters(inputs.as_batch, inputs.check_data)
    def test_missing_entries_are_kept(self, check):
        x = np.array([[1.0, NAN], [NAN, -2.0]], np.float32)
        self.assertAllEqual(check(x, 2), x)

    @parameterized.parameters(inputs.as_batch, inputs.check_data)
    def test_what_is_no_number_is_told(self, check):
        for x in ([["a", "b"]], [[True, False]], [[1j, 2.0]]):
            with self.assertRaisesRegex(TypeError, "`x` must be numbers, got"):
                check(np.array(x), 2)

    @parameterized.product(
        check=(inputs.as_batch, inputs.check_data),
        shape=((3,), (2, 4), (2, 3, 1), (), (3, 2)),
    )
    def test_wrong_rank_or_width_is_told(self, check, shape):
        with self.assertRaisesRegex(
            ValueError, r"`x` must have shape \[N, 3\].*got \("
        ):
            check(np.ones(shape, np.float32), 3)

    @parameterized.parameters(INF, -INF)
    def test_infinite_values_are_told_with_their_first_row(self, value):
        x = np.zeros((9, 2), np.float32)
        x[[4, 7], 1] = value
        with self.assertRaisesRegex(
            ValueError, "infinite values in 2 rows, the first 4"
        ):
            inputs.check_data(x, 2)

    def test_rows_without_any_value_are_told_with_the_first(self):
        x = np.zeros((9, 2), np.float32)
        x[[3, 5, 6]] = NAN
        x[0, 0] = NAN
        with self.assertRaisesRegex(
            ValueError, "observed value in every row, got none in 3 rows.* 3"
        ):
            inputs.check_data(x, 2)

    @parameterized.named_parameters(
        ("infinite", [[1.0, INF]], "x has infinite values"),
        ("missing", [[1.0, 1.0], [NAN, NAN]], "rows without any observed"),
        ("outside", [[1.0, NAN], [0.5, 1.5]], r"x must be in \[0, 1\]"),
        ("below", [[1.0, -0.01]], r"x must be in \[0, 1\]"),
    )
    def test_graphs_tell_wrong_values_when_they_run(self, x, message):
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])
        def check(x):
            return inputs.as_batch(x, 2, (0.0, 1.0))

        right = [[0.0, NAN], [1.0, 0.5]]
        self.assertAllEqual(check(tf.constant(right)), right)
        with self.assertRaisesRegex(tf.errors.InvalidArgumentError, message):
            check(tf.constant(x))

    def test_graphs_tell_wrong_shapes_not_known_before_when_they_run(self):
        @tf.function(input_signature=[tf.TensorSpec(None, tf.float32)])
        def check(x):
            x = inputs.as_batch(x, 2)
            self.assertEqual(x.shape.as_list(), [None, 2])
            return x

        self.assertAllEqual(check(tf.ones([3, 2])), np.ones((3, 2)))
        for shape in ([3, 4], [3], [3, 2, 1]):
            with self.assertRaisesRegex(
                tf.errors.InvalidArgumentError, r"expected shape \[\?,2\]"
            ):
                check(tf.ones(shape))

    def test_graphs_tell_wrong_widths_when_they_are_traced(self):
        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
        def check(x):
            return inputs.as_batch(x, 2)

        with self.assertRaisesRegex(ValueError, r"got \(None, 4\)"):
            check.get_concrete_function()


class IndexTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(np.int32, np.int64, np.uint8)
    def test_integers_become_an_int32_vector(self, dtype):
        for index in ([2, 0, 1], [[2], [0], [1]]):
            found = inputs.as_index(np.array(index, dtype), 3)
            self.assertEqual(found.dtype, tf.int32)
            self.assertAllEqual(found, [2, 0, 1])

    @parameterized.parameters(([0, 3],), ([-1, 0],))
    def test_indices_out_of_range_are_told(self, index):
        with self.assertRaisesRegex(
            tf.errors.InvalidArgumentError,
            r"index must be in \[0, num_data = 3\), got",
        ):
            inputs.as_index(np.array(index), 3)

    def test_indices_that_are_no_integers_are_told(self):
        with self.assertRaisesRegex(
            TypeError, "`index` must be integers, got float32"
        ):
            inputs.as_index(np.array([0.0, 1.0], np.float32), 3)


class SizesTest(tf.test.TestCase, parameterized.TestCase):
    def test_sizes_at_their_limits_fit(self):
        inputs.check_sizes(3, 0, 8, 8, None, None)
        inputs.check_sizes(1, 5, 1, None, 0.0, 1)
        inputs.check_sizes(500, 10**6, 64, 1, 0.999, 10**9)

    @parameterized.parameters(
        ((0, 5, 1, None), "`num_latents` must be at least 1, got 0"),
        ((3, -1, 8, None), "`num_data` must not be negative, got -1"),
        (
            (3, 5, 9, None),
            r"`num_states` must be .* 2\*\*num_latents = 8, got 9",
        ),
        ((3, 5, 0, None), "`num_states` must be from 1 to .*got 0"),
        ((3, 5, 4, 5), "`num_m_states` must be .*`num_states` = 4, got 5"),
        ((3, 5, 4, 0), "`num_m_states` must be from 1 to .*got 0"),
        ((3, 5, 8, 2), "`num_m_states` must be None where the states are all"),
        ((3, -1, 9, None), "`num_data` .*; `num_states` "),
    )
    def test_sizes_that_do_not_fit_are_told(self, sizes, message):
        with self.assertRaisesRegex(ValueError, message):
            inputs.check_sizes(*sizes, None, None)

    @parameterized.parameters(-0.1, 1.0, 2.0, NAN)
    def test_mass_to_drop_that_is_no_share_is_told(self, mass):
        with self.assertRaisesRegex(
            ValueError,
            rf"`max_dropped_mass` must be in \[0, 1\) or None, got {mass}",
        ):
            inputs.check_sizes(3, 5, 4, 2, mass, None)

    @parameterized.parameters(0, -3)
    def test_m_step_batches_without_data_are_told(self, size):
        with self.assertRaisesRegex(
            ValueError, f"`m_batch_size` must be at least 1 or None, got {size}"
        ):
            inputs.check_sizes(3, 5, 4, 2, None, size)


if __name__ == "__main__":
    tf.test.main()
