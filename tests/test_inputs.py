# SPDX-License-Identifier: Apache-2.0
"""Tests of what models say about wrong data."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae import inputs

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
    def test_what_is_no_number_is_reported(self, check):
        for x in ([["a", "b"]], [[True, False]], [[1j, 2.0]]):
            with self.assertRaisesRegex(TypeError, "`x` must be numbers, got"):
                check(np.array(x), 2)

    @parameterized.product(
        check=(inputs.as_batch, inputs.check_data),
        shape=((3,), (2, 4), (2, 3, 1), (), (3, 2)),
    )
    def test_wrong_rank_or_width_is_reported(self, check, shape):
        with self.assertRaisesRegex(
            ValueError, r"`x` must have shape \[N, 3\].*got \("
        ):
            check(np.ones(shape, np.float32), 3)

    @parameterized.parameters(INF, -INF)
    def test_infinite_values_are_reported_with_their_first_row(self, value):
        x = np.zeros((9, 2), np.float32)
        x[[4, 7], 1] = value
        with self.assertRaisesRegex(
            ValueError, "infinite values in 2 rows, the first 4"
        ):
            inputs.check_data(x, 2)

    def test_rows_without_any_value_are_reported_with_the_first(self):
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
    def test_graphs_report_wrong_values_when_they_run(self, x, message):
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])
        def check(x):
            return inputs.as_batch(x, 2, (0.0, 1.0))

        right = [[0.0, NAN], [1.0, 0.5]]
        self.assertAllEqual(check(tf.constant(right)), right)
        with self.assertRaisesRegex(tf.errors.InvalidArgumentError, message):
            check(tf.constant(x))

    def test_graphs_report_wrong_shapes_not_known_before_when_they_run(self):
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

    def test_graphs_report_wrong_widths_when_they_are_traced(self):
        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
        def check(x):
            return inputs.as_batch(x, 2)

        with self.assertRaisesRegex(ValueError, r"got \(None, 4\)"):
            check.get_concrete_function()


if __name__ == "__main__":
    tf.test.main()
