# SPDX-License-Identifier: Apache-2.0
"""Tests of residuals as pictures, and of their autocorrelation."""

from __future__ import annotations

import math

import numpy as np
import scipy.ndimage
import tensorflow as tf
from absl.testing import parameterized

from tfvae.data import images
from tfvae.ops import residuals

PICTURES = ("camera", "coins", "grass", "text")


def _clean(name, size=128):
    """The middle of an embedded picture, which has its texture."""
    picture = images.convert_channels(images.embedded_image(name), 1)
    top, left = ((n - size) // 2 for n in picture.shape[:2])
    return picture[top : top + size, left : left + size]


def _white(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def _blurred(shape, sigma=0.7):
    """Noise of unit variance whose neighbours are correlated."""
    noise = scipy.ndimage.gaussian_filter(
        _white(shape), (sigma, sigma, 0), mode="wrap"
    )
    return noise / noise.std()


def _restored(clean, noise):
    """What a model finds: most of the texture, and a part of the noise."""
    texture = clean - scipy.ndimage.gaussian_filter(clean, (2, 2, 0))
    leak = scipy.ndimage.gaussian_filter(noise, (1.5, 1.5, 0))
    lost = min(0.5, noise.std() / 50.0)
    return (clean - lost * texture + leak).astype(np.float32)


class AutocorrelationTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.product(name=PICTURES, std=(5.0, 15.0, 25.0, 50.0))
    def test_white_noise_on_texture_is_white(self, name, std):
        clean = _clean(name)
        noise = std * _white(clean.shape)
        found = residuals.autocorrelation(
            clean + noise, _restored(clean, noise)
        )
        self.assertTrue(found.is_white, found)

    @parameterized.product(name=PICTURES, std=(15.0, 50.0))
    def test_blurred_noise_is_not(self, name, std):
        clean = _clean(name)
        noise = std * _blurred(clean.shape)
        found = residuals.autocorrelation(
            clean + noise, _restored(clean, noise)
        )
        self.assertFalse(found.is_white, found)

    def test_correlations_are_those_of_the_noise_in_each_direction(self):
        # Means of a pixel and the next one: a correlation of 1/2 across.
        white = _white((200, 201, 2))
        noise = (white[:, :-1] + white[:, 1:]) / math.sqrt(2.0)
        flat = np.full(noise.shape, 90.0)
        found = residuals.autocorrelation(flat + noise, flat)
        # A local mean has the variance 2 / 49, which is taken off covariances
        # (0 and 1 / 2) and variances (1) alike. Standard errors are 0.007.
        self.assertAllClose(found.down, -0.043, atol=0.03)
        self.assertAllClose(found.across, 0.479, atol=0.03)
        # One direction alone may be texture.
        self.assertTrue(found.is_white)

    def test_missing_pixels_are_left_out(self):
        noise = _blurred((100, 100, 1))
        flat = np.full(noise.shape, 90.0)
        whole = residuals.autocorrelation(flat + noise, flat)
        noise[::7] = np.nan
        noise[20:50, 30:60] = np.nan
        found = residuals.autocorrelation(flat + noise, flat)
        self.assertAllClose(found[:2], whole[:2], atol=0.1)
        self.assertLess(found.num_pairs, 0.8 * whole.num_pairs)

    def test_margins_without_noise_do_not_count(self):
        noise = 10.0 * _white((60, 60, 1))
        clean = np.zeros((120, 120, 1))
        clean[30:90, 30:90] = 100.0 + noise
        # An estimate that is biased there, as those of models are.
        restored = scipy.ndimage.gaussian_filter(clean, (3, 3, 0))
        found = residuals.autocorrelation(clean, restored)
        self.assertTrue(found.is_white, found)

    @parameterized.parameters(3, 5, 8, 16)
    def test_few_pixels_prove_nothing(self, size):
        flat = np.zeros((size, size, 1))
        for seed in range(50):
            noise = _white(flat.shape, seed)
            found = residuals.autocorrelation(noise, flat)
            self.assertTrue(found.is_white, found)

    def test_picture_without_noise_is_white(self):
        flat = np.full((20, 20, 1), 90.0)
        found = residuals.autocorrelation(flat, flat)
        self.assertEqual(found, (0.0, 0.0, 0))
        self.assertTrue(found.is_white)


if __name__ == "__main__":
    tf.test.main()
