# SPDX-License-Identifier: Apache-2.0
"""Tests of scikit-learn's digits against what is published of them."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae.data import digits

# The first image, on 0..16, and the number of images of each class.
FIRST = [
    [0, 0, 5, 13, 9, 1, 0, 0],
    [0, 0, 13, 15, 10, 15, 5, 0],
    [0, 3, 15, 2, 0, 11, 8, 0],
    [0, 4, 12, 0, 0, 8, 8, 0],
    [0, 5, 8, 0, 0, 9, 8, 0],
    [0, 4, 11, 0, 1, 12, 7, 0],
    [0, 2, 14, 5, 10, 12, 0, 0],
    [0, 0, 6, 13, 10, 0, 0, 0],
]
CLASS_COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


class SklearnDigitsTest(tf.test.TestCase, parameterized.TestCase):
    def test_images_and_labels_are_the_published_ones(self):
        data = digits.sklearn_digits()
        self.assertEqual((data.num_data, data.event_shape), (1797, (8, 8, 1)))
        self.assertAllClose(data.train[0].reshape(8, 8) * 16, FIRST)
        self.assertEqual(data.train_labels[0], 0)
        self.assertAllEqual(np.bincount(data.train_labels), CLASS_COUNTS)
        self.assertEqual((data.train.min(), data.train.max()), (0.0, 1.0))
        self.assertEqual((data.name, data.value_range), ("digits", (0.0, 1.0)))
        self.assertIsNone(data.test)

    def test_each_pixel_becomes_a_square(self):
        small = digits.sklearn_digits().train.reshape(-1, 8, 8)
        data = digits.sklearn_digits(size=(24, 24))
        self.assertEqual(data.event_shape, (24, 24, 1))
        large = data.train.reshape(-1, 24, 24)
        for row in range(24):
            for column in range(24):
                self.assertAllEqual(
                    large[:, row, column], small[:, row // 3, column // 3]
                )

    @parameterized.parameters((4, 4), (8, 16), (12, 12), (0, 0))
    def test_refuses_size(self, *size):
        with self.assertRaisesRegex(ValueError, "`size` must.*same multiple"):
            digits.sklearn_digits(size=size)


if __name__ == "__main__":
    tf.test.main()
