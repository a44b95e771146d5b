# SPDX-License-Identifier: Apache-2.0
"""Tests of InceptionV3's features, with weights that were never trained."""

from __future__ import annotations

import os
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tfvae import data
from tfvae.metrics import inception


def _images(count=3, shape=(8, 8), **fields):
    points = np.random.default_rng(0).uniform(size=(count, *shape))
    points = points.reshape(count, -1).astype(np.float32)
    return data.Observations(
        **{"name": "x", "train": points, "event_shape": shape} | fields
    )


class InceptionFeaturesTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(None, "given")
    def test_absent_weights_are_reported_with_where_to_get_them(self, given):
        home = self.create_tempdir().full_path
        path = given and os.path.join(home, given)
        looked = path or os.path.join(home, "models", inception.WEIGHTS_FILE)
        with (
            mock.patch.dict(os.environ, KERAS_HOME=home),
            mock.patch.object(keras.utils, "get_file") as download,
            self.assertRaisesRegex(
                FileNotFoundError,
                rf"`weights_path` must be.*there is none at {looked}\. .*"
                rf"https://.*/{inception.WEIGHTS_FILE}$",
            ),
        ):
            inception.InceptionFeatures(_images(), weights_path=path)
        download.assert_not_called()

    @parameterized.named_parameters(
        ("rank", {"event_shape": (64,)}, {}, r"`data` must be images.*64,"),
        ("channels", {"event_shape": (4, 8, 2)}, {}, r"one or three.*4, 8, 2"),
        ("side", {}, {"side": 74}, r"`side` must be at least 75, got 74"),
    )
    def test_refuses(self, fields, settings, message):
        with self.assertRaisesRegex(ValueError, message):
            inception.InceptionFeatures(_images(**fields), **settings)

    @parameterized.parameters((5, 7, 3), (20, 10, 1), (6, 6))
    def test_images_are_resized_bilinearly(self, *shape):
        # Pixel centres lie at half-integers; between them it is linear.
        images = _images(3, shape, value_range=(-1.0, 3.0))
        side = 11
        found = inception._inputs(images.train, images, side)
        for values, point in zip(found, images.train, strict=True):
            image = point.reshape(*shape[:2], -1)
            rows, columns = (
                (np.arange(side) + 0.5) * old / side - 0.5 for old in shape[:2]
            )
            for channel in range(3):
                one = image[..., channel if image.shape[-1] == 3 else 0]
                one = np.stack(
                    [np.interp(rows, np.arange(shape[0]), c) for c in one.T], 1
                )
                one = np.stack(
                    [np.interp(columns, np.arange(shape[1]), r) for r in one]
                )
                self.assertAllClose(
                    values[..., channel], (one + 1.0) / 2.0 - 1.0, atol=1e-5
                )

    @pytest.mark.slow
    def test_features_are_those_of_the_network_of_the_file(self):
        home = self.create_tempdir().full_path
        os.mkdir(os.path.join(home, "models"))
        path = os.path.join(home, "models", inception.WEIGHTS_FILE)
        keras.utils.set_random_seed(0)
        network = keras.applications.InceptionV3(
            include_top=False,
            weights=None,
            input_shape=(75, 75, 3),
            pooling="avg",
        )
        network.save(path)
        images = _images(3, (75, 75, 1))
        with mock.patch.dict(os.environ, KERAS_HOME=home):
            extractor = inception.InceptionFeatures(images, home, side=75)
        found = extractor(images.train)
        self.assertEqual(found.shape, (3, 2048))
        grey = images.train.reshape(3, 75, 75, 1).repeat(3, axis=-1)
        expected = network.predict(2.0 * grey - 1.0, verbose=0)
        self.assertAllClose(found, expected, rtol=1e-4, atol=1e-5)
        self.assertGreater(found.std(), 0.0)
        with open(path, "wb") as file:
            file.write(b"no weights")
        with self.assertRaisesRegex(ValueError, "`weights_path` must hold"):
            inception.InceptionFeatures(images, weights_path=path, side=75)


if __name__ == "__main__":
    tf.test.main()
