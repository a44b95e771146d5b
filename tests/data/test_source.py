# SPDX-License-Identifier: Apache-2.0
"""Tests of observations and splitting."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae.data import source


def _points(num_data: int, num_observed: int = 3) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.normal(size=(num_data, num_observed)).astype(np.float32)


class ObservationsTest(tf.test.TestCase, parameterized.TestCase):
    def test_arrays_become_contiguous_float32(self):
        array = np.asfortranarray(_points(5).astype(np.float64))
        data = source.Observations(name="x", train=array, test=array[:2])
        self.assertDTypeEqual(data.train, np.float32)
        self.assertTrue(data.train.flags.c_contiguous)
        self.assertDTypeEqual(data.test, np.float32)
        self.assertEqual((data.num_data, data.num_observed), (5, 3))
        self.assertEqual(data.event_shape, (3,))

    def test_partly_missing_rows_are_allowed(self):
        array = _points(4)
        array[1, :2] = np.nan
        data = source.Observations(name="x", train=array)
        self.assertAllEqual(np.isnan(data.train), np.isnan(array))

    def test_labels_become_int64_of_each_part(self):
        data = source.Observations(
            name="x",
            train=_points(4),
            test=_points(2),
            validation=_points(3).astype(np.float64),
            train_labels=np.array([3, 1, 0, 2], np.uint8),
            test_labels=[5, 6],
        )
        self.assertAllEqual(data.train_labels, [3, 1, 0, 2])
        self.assertAllEqual(data.test_labels, [5, 6])
        self.assertDTypeEqual(data.train_labels, np.int64)
        self.assertDTypeEqual(data.validation, np.float32)

    @parameterized.named_parameters(
        (
            "floats",
            {"train_labels": np.zeros(3)},
            TypeError,
            r"`train_labels` must be.*integers, got dtype float64",
        ),
        (
            "count",
            {"train_labels": np.zeros(2, int)},
            ValueError,
            r"`train_labels` must have shape \(3,\).*got shape \(2,\)",
        ),
        (
            "one_hot",
            {"train_labels": np.eye(3, dtype=int)},
            ValueError,
            r"`train_labels`.*\(3, 3\)",
        ),
        (
            "no_test",
            {"test_labels": np.zeros(3, int)},
            ValueError,
            r"`test_labels` must have shape \(0,\)",
        ),
        (
            "validation",
            {"validation": np.zeros((2, 4))},
            ValueError,
            r"`validation` must have as many.*\(2, 4\)",
        ),
        (
            "infinite",
            {"validation": np.full((2, 3), np.inf)},
            ValueError,
            r"`validation` must be finite",
        ),
    )
    def test_refuses_labels_and_validation(self, fields, error, message):
        with self.assertRaisesRegex(error, message):
            source.Observations(name="x", train=_points(3), **fields)

    @parameterized.named_parameters(
        ("rank", np.zeros((2, 2, 2)), ValueError, r"`train`.*\(2, 2, 2\)"),
        ("empty", np.zeros((0, 2)), ValueError, r"`train`.*\(0, 2\)"),
        ("integers", np.zeros((2, 2), int), TypeError, r"floats.*int64"),
        ("strings", np.array([["a"]]), TypeError, r"floats"),
        (
            "infinite",
            np.array([[0.0], [np.inf], [-np.inf]]),
            ValueError,
            r"finite.*2 rows \(1, 2\)",
        ),
        ("overflow", np.array([[1e39]]), ValueError, r"float32.*1 row \(0\)"),
        (
            "all_missing",
            np.full((7, 2), np.nan),
            ValueError,
            r"observed entry.*7 rows \(0, 1, 2, 3, 4, \.\.\.\)",
        ),
    )
    def test_refuses_train(self, train, error, message):
        with self.assertRaisesRegex(error, message):
            source.Observations(name="x", train=train)

    @parameterized.named_parameters(
        ("shape", {"event_shape": (2, 2)}, r"`event_shape`.*3 columns.*2, 2"),
        ("negative", {"event_shape": (-1, -3)}, r"`event_shape` must be posi"),
        ("test", {"test": _points(2, 4)}, r"`test` must have as many.*\(2, 4"),
        ("features", {"features": _points(2, 1)}, r"`features` must have as"),
        ("range", {"value_range": (1.0, 1.0)}, r"`value_range`.*1.0, 1.0"),
        ("nan", {"value_range": (0.0, np.nan)}, r"`value_range` must be two"),
    )
    def test_refuses_field(self, fields, message):
        with self.assertRaisesRegex(ValueError, message):
            source.Observations(name="x", train=_points(3), **fields)


class SplitTestTest(tf.test.TestCase, parameterized.TestCase):
    def test_parts_are_disjoint_and_complete(self):
        points = np.arange(20)
        train, test = source.split_test(points, 0.25, seed=3)
        self.assertLen(test, 5)
        self.assertAllEqual(np.sort(np.append(train, test)), points)
        self.assertAllEqual(np.sort(train), train)

    def test_seed_decides_the_parts(self):
        points = np.arange(100)
        first = source.split_test(points, 0.5, seed=0)[1]
        self.assertAllEqual(first, source.split_test(points, 0.5, seed=0)[1])
        other = source.split_test(points, 0.5, seed=1)[1]
        self.assertNotAllEqual(first, other)

    def test_zero_holds_out_nothing(self):
        self.assertIsNone(source.split_test(np.arange(3), 0.0)[1])

    @parameterized.parameters(-0.1, 1.0, float("nan"))
    def test_refuses_fraction(self, fraction):
        with self.assertRaisesRegex(ValueError, r"`test_fraction` must be in"):
            source.split_test(np.arange(3), fraction)

    def test_refuses_to_leave_no_training_point(self):
        with self.assertRaisesRegex(ValueError, "at least one training point"):
            source.split_test(np.arange(3), 0.9)


if __name__ == "__main__":
    tf.test.main()
