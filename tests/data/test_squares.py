# SPDX-License-Identifier: Apache-2.0
"""Tests of the images of squares, against a plain count of them."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae import data


def _is_square(image):
    """Whether the ones are a full rectangle of equal sides."""
    rows, columns = np.nonzero(image)
    size = np.ptp(rows) + 1
    return size == np.ptp(columns) + 1 and image.sum() == size**2


class SquareImagesTest(tf.test.TestCase, parameterized.TestCase):
    def test_published_images_are_all_and_different(self):
        images = data.square_images()
        # A square of s pixels begins at one of 65 - s rows.
        self.assertLen(images, sum(65 - size for size in range(1, 21)))
        self.assertLen(np.unique(images.reshape(1090, -1), axis=0), 1090)
        self.assertTrue(all(map(_is_square, images)))
        self.assertAllEqual(images.any(axis=1).argmax(axis=1), [32] * 1090)
        areas = images.sum(axis=(1, 2))
        self.assertEqual(areas.max(), 400)
        self.assertAllClose(areas.mean(), 130.69, atol=0.005)

    @parameterized.parameters(
        ((4, 1, 4, None), sum((5 - size) ** 2 for size in range(1, 5))),
        ((4, 2, 3, None), 9 + 4),
        ((4, 2, 3, (1, 2)), 6 + 2),
        ((4, 4, 4, (0,)), 1),
    )
    def test_number_is_that_of_the_corners(self, arguments, expected):
        images = data.square_images(*arguments)
        self.assertEqual(images.shape, (expected, 4, 4))
        self.assertLen(np.unique(images, axis=0), expected)
        self.assertTrue(all(map(_is_square, images)))

    @parameterized.parameters(
        ({"min_size": 0}, "`min_size`, `max_size`.*got 0, 20 and 64"),
        ({"side": 19}, "`min_size`, `max_size`.*got 1, 20 and 19"),
        ({"columns": ()}, r"`columns` must be in \[0, 63\], got \[\]"),
        ({"columns": (-1,)}, r"`columns` must be in \[0, 63\], got \[-1\]"),
        ({"columns": (64,)}, r"`columns` must be in \[0, 63\], got \[64\]"),
        ({"min_size": 9, "columns": (60,)}, r"room .* = 9 .*got \[60\]"),
    )
    def test_wrong_arguments_are_reported(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            data.square_images(**arguments)


class SquaresTest(tf.test.TestCase, parameterized.TestCase):
    def test_published_sizes(self):
        found = data.squares()
        self.assertEqual(found.train.shape, (10_355, 4096))
        self.assertEqual(found.validation.shape, (545, 4096))
        self.assertEqual(found.event_shape, (64, 64, 1))
        self.assertIsNone(found.test)
        self.assertAllEqual(np.unique(found.train), [0.0, 1.0])

    def test_every_image_has_its_copies_in_one_part_or_the_other(self):
        small = data.squares(6, 1, 3, None, copies=4, validation_fraction=0.1)
        images = data.square_images(6, 1, 3, None).reshape(-1, 36)
        self.assertLen(small.validation, int(0.1 * 4 * len(images)))
        both = np.concatenate([small.validation, small.train])
        found, counts = np.unique(both, axis=0, return_counts=True)
        self.assertAllEqual(found, np.unique(images, axis=0))
        self.assertAllEqual(counts, [4] * len(images))

    def test_seed_decides_the_order(self):
        first, again, other = (
            data.squares(8, 1, 3, seed=s, columns=(1,)) for s in (0, 0, 1)
        )
        self.assertAllEqual(first.train, again.train)
        self.assertNotAllEqual(first.train, other.train)
        # Mixed: the areas of 200 points in ascending order by chance.
        areas = first.train.sum(axis=1)
        self.assertLess(
            abs(np.corrcoef(areas, np.arange(len(areas)))[0, 1]), 0.4
        )

    def test_nothing_need_be_held_out(self):
        found = data.squares(
            8, 1, 2, copies=1, validation_fraction=0.0, columns=None
        )
        self.assertIsNone(found.validation)
        self.assertLen(found.train, 64 + 49)

    @parameterized.parameters(
        ({"copies": 0}, "`copies` must be an integer .* got 0"),
        ({"validation_fraction": 1.0}, "`validation_fraction` must .* got 1.0"),
        ({"validation_fraction": -0.1}, "`validation_fraction` .* got -0.1"),
    )
    def test_wrong_arguments_are_reported(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            data.squares(**arguments)


if __name__ == "__main__":
    tf.test.main()
