# SPDX-License-Identifier: Apache-2.0
"""Tests of pictures as text."""

from __future__ import annotations

import base64
import io

import numpy as np
import PIL.Image
import tensorflow as tf
from absl.testing import parameterized

from tfvae.plots import embedding


def _decoded(one):
    kind, _, content = one.uri.partition(";base64,")
    picture = PIL.Image.open(io.BytesIO(base64.b64decode(content)))
    assert kind == f"data:image/{picture.format.lower()}", kind
    return np.asarray(picture)


class EmbeddedTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(1, 3)
    def test_small_pictures_are_exact(self, channels):
        steps = np.random.default_rng(0).integers(0, 256, (5, 7, channels))
        one = embedding.embedded(steps / 255.0)
        decoded = _decoded(one).reshape(steps.shape)
        self.assertAllEqual(decoded, steps)
        self.assertEqual(one[1:], (7, 5, False, False))

    def test_equal_channels_are_one(self):
        grey = embedding.embedded(np.full((4, 4, 3), 0.2))
        self.assertEqual(_decoded(grey).shape, (4, 4))

    def test_values_beyond_black_and_white_are_clipped(self):
        one = embedding.embedded(np.array([[[-3.0], [0.5], [7.0]]]))
        self.assertAllEqual(_decoded(one), [[0, 128, 255]])

    def test_long_pictures_are_averaged_in_proportion(self):
        picture = np.zeros((4, 2560, 1))
        picture[:, ::2] = 1.0
        one = embedding.embedded(picture)
        self.assertEqual(one[1:], (1280, 2, True, False))
        self.assertAllEqual(_decoded(one), np.full((2, 1280), 128))
        self.assertEqual(embedding.embedded(np.zeros((1, 9999, 1))).height, 1)

    def test_most_noise_that_there_can_be_takes_few_megabytes(self):
        noise = np.random.default_rng(0).random((1000, 1280, 3))
        one = embedding.embedded(noise)
        self.assertTrue(one.is_lossy)
        self.assertLess(len(one.uri), 4 * 2**20)
        error = _decoded(one) / 255.0 - noise
        self.assertLess(np.abs(error).mean(), 0.05)


class SignedTest(tf.test.TestCase):
    def test_zero_and_missing_are_mid_grey_and_limits_black_and_white(self):
        shown = embedding.signed(np.array([0.0, np.nan, -4, 4, 2, 9]), 4.0)
        self.assertAllEqual(shown, [0.5, 0.5, 0.0, 1.0, 0.75, 1.0])

    def test_limit_leaves_out_the_largest_and_missing(self):
        values = np.arange(-500.0, 501.0)
        self.assertAllClose(
            embedding.signed_limit(np.append(values, np.nan), 0.9), 450, atol=1
        )

    def test_limit_is_zero_only_without_any_difference(self):
        self.assertEqual(embedding.signed_limit(np.zeros(3)), 0.0)
        self.assertEqual(embedding.signed_limit(np.full(3, np.nan)), 0.0)
        few = np.zeros(10**4)
        few[7] = -0.5
        self.assertEqual(embedding.signed_limit(few), 0.5)


if __name__ == "__main__":
    tf.test.main()
