# SPDX-License-Identifier: Apache-2.0
"""Tests of the estimate of the noise of a picture."""

from __future__ import annotations

import numpy as np
import skimage.data
import skimage.draw
import tensorflow as tf
from absl.testing import parameterized

from tfvae.ops import noise_level


def _noise(shape, std, seed=1):
    return np.random.default_rng(seed).normal(0.0, std, shape)


class NoiseLevelTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(((40, 50, 1),), ((200, 120, 1),), ((64, 64, 3),))
    def test_is_that_of_pure_noise_whatever_the_size(self, shape):
        self.assertAllClose(
            noise_level.noise_std(_noise(shape, 7.0)), 7.0, rtol=0.04
        )

    @parameterized.parameters(5.0, 15.0, 50.0)
    def test_is_that_of_noise_in_a_picture(self, std):
        picture = skimage.data.astronaut()[:256, 100:356].astype(np.float64)
        found = noise_level.noise_std(picture + _noise(picture.shape, std))
        # The picture has some noise of its own.
        own = noise_level.noise_std(picture)
        self.assertBetween(own, 0.0, 2.0)
        self.assertAllClose(found, np.hypot(std, own), rtol=0.03)

    def test_large_pictures_are_looked_at_in_part(self):
        image = _noise((300, 400, 1), 3.0)
        most, noise_level._MOST = noise_level._MOST, 10_000
        try:
            self.assertAllClose(noise_level.noise_std(image), 3.0, rtol=0.03)
        finally:
            noise_level._MOST = most

    def test_a_smooth_picture_has_none(self):
        ramp = np.add.outer(np.arange(40.0), np.arange(50.0))[..., None]
        self.assertLess(noise_level.noise_std(ramp), 1e-3)

    def test_missing_values_are_left_out(self):
        image = _noise((64, 64, 1), 3.0)
        image[20:30, 20:60] = np.nan
        self.assertAllClose(noise_level.noise_std(image), 3.0, rtol=0.05)

    @parameterized.parameters(
        ("clipped", 25.0), ("black", 5.0), ("black", 50.0), ("grey", 15.0)
    )
    def test_clipped_and_added_parts_are_left_out(self, kind, std):
        picture = skimage.data.astronaut()[:256, 100:356].astype(np.float64)
        image = picture + _noise(picture.shape, std)
        image = np.clip(np.round(image), 0.0, 255.0)
        if kind != "clipped":
            image[:60] = {"black": 0.0, "grey": 100.0}[kind]
        # Black hair: of all blocks the noise of a clipped channel is half.
        self.assertAllClose(noise_level.noise_std(image), std, rtol=0.08)

    def test_line_art_has_none(self):
        image = np.full((96, 96, 1), 255.0)
        for k in range(5):
            rows, columns, values = skimage.draw.line_aa(9 + 12 * k, 3, 80, 90)
            image[rows, columns, 0] -= 255.0 * values
        self.assertEqual(noise_level.noise_std(image), 0.0)
        image[40:70, 5:30] = 90.0
        self.assertEqual(noise_level.noise_std(image), 0.0)

    def test_too_little_of_a_picture_is_refused(self):
        image = np.full((20, 20, 1), np.nan)
        image[:9, :9] = 1.0
        for wrong in (image, np.ones((7, 20, 1))):
            with self.assertRaisesRegex(ValueError, "16 complete blocks of 8"):
                noise_level.noise_std(wrong)


if __name__ == "__main__":
    tf.test.main()
