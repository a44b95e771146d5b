# SPDX-License-Identifier: Apache-2.0
"""Tests of image folders and of picture patches as data."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae.data import image_sources, images
from tfvae.ops import patches, whitening


class ImageFilesTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path

    def _write(self, name, value, shape=(4, 6, 1)):
        path = os.path.join(self.folder, name)
        images.write_image(path, np.full(shape, value, np.float32))
        return path

    def test_folder_is_read_in_order_of_names(self):
        for value, name in ((3, "c.png"), (1, "a.TIF"), (2, "b.bmp")):
            self._write(name, value)
        self.create_tempfile(os.path.join(self.folder, "notes.txt"))
        self._write(".hidden.png", 9)
        data = image_sources.image_files(self.folder, scale=1.0)
        self.assertAllEqual(data.train, np.repeat([[1], [2], [3]], 24, axis=1))
        self.assertEqual(data.event_shape, (4, 6, 1))
        self.assertEqual(data.value_range, (0.0, 255.0))
        self.assertEqual(data.name, os.path.basename(self.folder))

    def test_pattern_and_single_file(self):
        path = self._write("a1.png", 255)
        self._write("a2.png", 51)
        self._write("b.png", 7)
        data = image_sources.image_files(os.path.join(self.folder, "a*.png"))
        self.assertAllClose(data.train[:, 0], [1.0, 0.2])
        self.assertEqual(data.value_range, (0.0, 1.0))
        self.assertEqual(image_sources.image_files(path).num_data, 1)

    def test_size_and_channels_make_images_agree(self):
        self._write("a.png", 255)
        self._write("b.png", 255, (9, 5, 3))
        data = image_sources.image_files(self.folder, size=(3, 3), channels=3)
        self.assertAllClose(data.train, np.ones((2, 27)))
        self.assertEqual(data.event_shape, (3, 3, 3))

    def test_fraction_is_held_out(self):
        for value in range(10):
            self._write(f"{value}.png", value)
        data = image_sources.image_files(self.folder, test_fraction=0.2)
        self.assertEqual((len(data.train), len(data.test)), (8, 2))

    @parameterized.parameters((5, 6, 1), (4, 6, 3))
    def test_refuses_mixed_shapes(self, *shape):
        self._write("a.png", 1)
        self._write("b.png", 2, shape)
        with self.assertRaisesRegex(
            ValueError, r"one shape unless.*\(4, 6, 1\) in .*a\.png.*b\.png"
        ):
            image_sources.image_files(self.folder)

    def test_refuses_unreadable_image(self):
        self._write("a.png", 1)
        path = os.path.join(self.folder, "b.png")
        with open(path, "wb") as file:
            file.write(b"no")
        with self.assertRaisesRegex(ValueError, "readable image.*b.png"):
            image_sources.image_files(self.folder)

    def test_refuses_absent_images(self):
        for path in (self.folder, "gone.png", "gone/*.png"):
            with self.assertRaisesRegex(FileNotFoundError, "`path` must be"):
                image_sources.image_files(path)

    def test_refuses_scale_and_channels(self):
        self._write("a.png", 1)
        with self.assertRaisesRegex(ValueError, "`scale` must be positive"):
            image_sources.image_files(self.folder, scale=0.0)
        with self.assertRaisesRegex(ValueError, "`channels` must be 1 or 3"):
            image_sources.image_files(self.folder, channels=4)


class ImagePatchesTest(tf.test.TestCase, parameterized.TestCase):
    def test_default_needs_no_files(self):
        data = image_sources.image_patches(num_patches=50)
        self.assertEqual(data.train.shape, (50, 256))
        self.assertEqual(data.event_shape, (16, 16, 1))

    def test_all_patches_of_all_pictures(self):
        first, second = np.random.default_rng(0).uniform(size=(2, 9, 8, 3))
        data = image_sources.image_patches(
            [first, second], patch=(4, 3), stride=2, scale=2.0
        )
        expected = np.concatenate(
            [
                patches.extract_patches(picture.astype(np.float32), (4, 3), 2)
                for picture in (first, second)
            ]
        )
        self.assertAllEqual(data.train, 2 * expected)
        self.assertEqual(data.event_shape, (4, 3, 3))
        self.assertEqual(data.value_range, (0.0, 510.0))

    def test_drawn_patches_are_distinct_and_seeded(self):
        picture = np.arange(100.0).reshape(10, 10)

        def draw(seed):
            return image_sources.image_patches(
                picture, patch=(2, 2), num_patches=40, seed=seed
            ).train

        self.assertLen(np.unique(draw(0)[:, 0]), 40)
        self.assertAllEqual(draw(0), draw(0))
        self.assertNotAllEqual(draw(0), draw(1))

    def test_region_is_cut_first(self):
        data = image_sources.image_patches(
            "camera", patch=(8, 8), crop=(10, 20, 9, 10)
        )
        self.assertEqual(data.num_data, 2 * 3)

    def test_brightest_values_are_lowered(self):
        picture = np.arange(100.0).reshape(10, 10)
        data = image_sources.image_patches(
            picture, patch=(1, 1), brightest_fraction=0.25
        )
        self.assertAllClose(data.train.max(), 0.75 * 99)
        self.assertAllEqual(data.train[:70, 0], np.arange(70))

    def test_whitening_uses_the_training_patches_only(self):
        arguments = {"patch": (4, 4), "num_patches": 500, "test_fraction": 0.2}
        plain = image_sources.image_patches("coins", **arguments)
        white = image_sources.image_patches("coins", whiten=True, **arguments)
        mean, transform = whitening.zca_whitening(plain.train)
        self.assertAllClose(
            white.test, (plain.test - mean) @ transform, atol=1e-4
        )
        self.assertAllClose(white.train.mean(axis=0), np.zeros(16), atol=1e-4)
        # At most unit variance in every direction.
        spread = np.linalg.eigvalsh(np.cov(white.train.T, bias=True))
        self.assertLess(spread.max(), 1.001)
        self.assertEqual(white.value_range, (-3.0, 3.0))

    @parameterized.named_parameters(
        ("bright", {"brightest_fraction": 1.0}, "`brightest_fraction` must"),
        ("mixed", {"images": ["camera", "astronaut"]}, "all grey or all RGB"),
        ("none", {"images": []}, "at least one picture"),
        ("many", {"num_patches": 10**6}, r"`num_patches` must be in \[1, 247"),
        ("zero", {"num_patches": 0}, r"`num_patches` must be in"),
        ("scale", {"scale": -1.0}, "`scale` must be positive"),
        ("patch", {"patch": (600, 8)}, "`patch` must not exceed the image"),
    )
    def test_refuses(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            image_sources.image_patches(**arguments)


if __name__ == "__main__":
    tf.test.main()
