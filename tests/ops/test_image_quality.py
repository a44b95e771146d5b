# SPDX-License-Identifier: Apache-2.0
"""Tests of image quality against scikit-image and closed forms."""

from __future__ import annotations

import math

import numpy as np
import skimage.metrics
import tensorflow as tf
from absl.testing import parameterized

from tfvae.ops import image_quality


class ImageQualityTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.product(
        shape=((7, 7, 1), (40, 30, 1), (40, 30, 3)), data_range=(1.0, 255.0)
    )
    def test_equals_scikit_image(self, shape, data_range):
        generator = np.random.default_rng(0)
        clean = generator.uniform(0, data_range, shape)
        image = clean + generator.normal(0, 0.1 * data_range, shape)
        self.assertAllClose(
            image_quality.psnr(clean, image, data_range),
            skimage.metrics.peak_signal_noise_ratio(
                clean, image, data_range=data_range
            ),
            rtol=1e-12,
        )
        self.assertAllClose(
            image_quality.ssim(clean, image, data_range),
            skimage.metrics.structural_similarity(
                clean, image, data_range=data_range, channel_axis=-1
            ),
            rtol=1e-12,
        )

    def test_float32_images_are_compared_in_float64(self):
        clean = np.full((9, 9, 1), 254.3, np.float32)
        image = np.full((9, 9, 1), 254.4, np.float32)
        error = float(image[0, 0, 0]) - float(clean[0, 0, 0])
        self.assertAllClose(
            image_quality.psnr(clean, image, 255.0),
            20 * math.log10(255 / error),
            rtol=1e-12,
        )

    def test_equal_images_are_perfect(self):
        clean = np.random.default_rng(0).uniform(size=(9, 9, 3))
        self.assertEqual(image_quality.psnr(clean, clean, 1.0), math.inf)
        self.assertAllClose(image_quality.ssim(clean, clean, 1.0), 1.0)

    def test_images_below_a_window_have_no_ssim(self):
        image = np.zeros((6, 9, 1))
        self.assertTrue(math.isnan(image_quality.ssim(image, image, 1.0)))


if __name__ == "__main__":
    tf.test.main()
