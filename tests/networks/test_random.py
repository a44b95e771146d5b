# SPDX-License-Identifier: Apache-2.0
"""Tests of random features against the kernels that they approximate."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae import networks

# The square of 2 cos(w.x + b) cos(w.y + b), over all w and b, has mean 1.5 at
# most; five standard errors of the mean of so many.
NUM_FEATURES = 40_000
ERROR = 5.0 * np.sqrt(1.5 / NUM_FEATURES)


def _points(shape=(6, 3)):
    return np.random.default_rng(0).random(shape).astype(np.float32)


def _kernel(kernel, x, y, scale):
    """Exact values at all pairs, `[N, N]`."""
    difference = (x[:, np.newaxis] - y) / scale
    if kernel == "gaussian":
        return np.exp(-0.5 * np.square(difference).sum(-1))
    return np.exp(-np.abs(difference).sum(-1))


def _quarters(images):
    """Flat quarters of images with even sides, `[2, 2, N, pixels]`."""
    rows = np.split(images, 2, axis=1)
    return np.array(
        [
            [part.reshape(len(images), -1) for part in np.split(row, 2, axis=2)]
            for row in rows
        ]
    )


class RandomFeaturesTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.product(kernel=("gaussian", "laplacian"), scale=(0.5, 2.0))
    def test_inner_products_approximate_the_kernel(self, kernel, scale):
        x = _points()
        features = networks.random_features(
            NUM_FEATURES, 3, kernel, scale, seed=0
        )(x).numpy()
        exact = _kernel(kernel, x, x, scale)
        self.assertAllClose(features @ features.T, exact, atol=ERROR)
        # No other scale would do.
        for other in (scale / 1.3, scale * 1.3):
            error = np.abs(exact - _kernel(kernel, x, x, other)).max()
            self.assertGreater(error, ERROR)

    @parameterized.product(
        kernel=("gaussian", "laplacian"),
        policy=("mixed_float16", "mixed_bfloat16", "float16", "bfloat16"),
        is_image=(False, True),
    )
    def test_half_precision_keeps_the_digits_of_large_phases(
        self, kernel, policy, is_image
    ):
        # Neither the data nor their projections are exact in half precision.
        x = 1e3 * _points((5, 24))

        def features():
            if is_image:
                return networks.random_conv_features(
                    32, (4, 6, 1), kernel, 10.0, seed=0
                )
            return networks.random_features(32, 24, kernel, 10.0, seed=0)

        expected = features()(x)
        self.addCleanup(
            keras.config.set_dtype_policy, keras.config.dtype_policy()
        )
        keras.config.set_dtype_policy(policy)
        network = features()
        path = self.create_tempdir().full_path + "/network.keras"
        network.save(path)
        dtype = policy.removeprefix("mixed_")
        # Values are up to sqrt(2 / 32); the last digit is rounded.
        error = 0.25 * {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
        # What float32 makes of phases up to 1e5.
        error += 0.25 * 1e5 * 2.0**-23
        for one in (network, keras.saving.load_model(path)):
            found = one(x)
            self.assertEqual(found.dtype, dtype)
            found = tf.cast(found, tf.float32)
            self.assertAllClose(found, expected, rtol=0.0, atol=error)

    def test_linear_features_are_a_dense_layer_as_keras_draws_it(self):
        network = networks.random_features(50, 80)
        projection, offsets = network.get_weights()
        self.assertAllEqual(offsets, np.zeros(50))
        # Xavier: uniform on +-sqrt(6 / (80 + 50)).
        bound = np.sqrt(6.0 / 130.0)
        self.assertAllInRange(projection, -bound, bound)
        self.assertGreater(np.abs(projection).max(), 0.99 * bound)
        x = _points((4, 80))
        self.assertAllClose(network(x), x @ projection, atol=1e-5)
        scaled = networks.random_features(50, 80, scale=4.0)
        scaled.set_weights([projection, offsets])
        self.assertAllClose(scaled(x), x @ projection / 4.0, atol=1e-5)

    def test_offsets_do_not_depend_on_weights(self):
        layer = networks.RandomFeatures(10_000, "gaussian", seed=3)
        layer.build((None, 1))
        projection, offsets = layer.get_weights()
        self.assertAllInRange(offsets, 0.0, 2.0 * np.pi)
        correlation = np.corrcoef(projection[0], offsets)[0, 1]
        self.assertLess(abs(correlation), 5.0 / np.sqrt(10_000))

    @parameterized.parameters("linear", "gaussian", "laplacian")
    def test_seed_decides_the_draw(self, kernel):
        draws = []
        for seed in (1, 1, 2):
            layer = networks.RandomFeatures(4, kernel, seed=seed)
            layer.build((None, 3))
            draws.append(layer.get_weights()[0])
        self.assertAllEqual(draws[0], draws[1])
        self.assertNotAllClose(draws[0], draws[2])

    def test_layer_may_be_built_within_a_graph(self):
        layer = networks.RandomFeatures(4, "gaussian", seed=0)
        outputs = tf.function(layer)(_points())
        self.assertAllClose(outputs, layer(_points()), rtol=1e-5)

    @parameterized.parameters(
        (
            {"num_features": 0},
            "`num_features` must be an integer of at least 1",
        ),
        ({"kernel": "cubic"}, "`kernel` must be one of linear.*got 'cubic'"),
        ({"scale": 0.0}, "`scale` must be positive and finite, got 0.0"),
    )
    def test_what_can_not_be_drawn_is_reported(self, change, message):
        with self.assertRaisesRegex(ValueError, message):
            networks.RandomFeatures(**{"num_features": 4, **change})


class RandomConvFeaturesTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters("gaussian", "laplacian")
    def test_inner_products_approximate_the_kernel_of_quarters(self, kernel):
        images = _points((5, 4, 2, 1))
        network = networks.random_conv_features(
            4 * NUM_FEATURES, (4, 2, 1), kernel, 0.7, seed=0
        )
        features = network(images.reshape(5, -1)).numpy()
        # Channel by channel: [N, channel, row, column].
        features = features.reshape(5, NUM_FEATURES, 2, 2)
        for i, row in enumerate(_quarters(images)):
            for j, part in enumerate(row):
                here = features[:, :, i, j]
                self.assertAllClose(
                    here @ here.T, _kernel(kernel, part, part, 0.7), atol=ERROR
                )

    def test_quarters_have_the_features_of_a_dense_layer(self):
        images = _points((5, 6, 4, 3))
        conv = networks.RandomConvFeatures(7, (3, 2), "gaussian", 2.0)
        dense = networks.RandomFeatures(7, "gaussian", 2.0)
        found = conv(images)
        self.assertEqual(found.shape, (5, 2, 2, 7))
        dense.build((None, 18))
        projection, offsets = conv.get_weights()
        dense.set_weights([projection.reshape(18, 7), offsets])
        for i, row in enumerate(_quarters(images)):
            for j, part in enumerate(row):
                self.assertAllClose(found[:, i, j], dense(part), atol=1e-5)

    @parameterized.parameters(
        ((32, 32, 1), (16, 16, 1, 4)),
        ((28, 28, 1), (14, 14, 1, 4)),
        ((5, 3, 2), (3, 2, 2, 4)),
        ((2, 64, 3), (1, 32, 3, 4)),
    )
    def test_images_of_any_size_end_in_a_map_of_2_by_2(self, shape, kernel):
        network = networks.random_conv_features(16, shape)
        self.assertEqual(network.weights[0].shape, kernel)
        features = network.get_layer("features").output
        self.assertEqual(features.shape[1:], (2, 2, 4))
        x = tf.zeros([3, int(np.prod(shape))])
        self.assertEqual(network(x).shape, (3, 16))

    def test_odd_sides_are_padded_below_and_on_the_right(self):
        small = networks.random_conv_features(8, (3, 3, 1), "gaussian")
        large = networks.random_conv_features(8, (4, 4, 1), "gaussian")
        large.set_weights(small.get_weights())
        images = _points((2, 3, 3, 1))
        padded = np.pad(images, [(0, 0), (0, 1), (0, 1), (0, 0)])
        self.assertAllClose(
            small(images.reshape(2, -1)), large(padded.reshape(2, -1))
        )

    @parameterized.parameters(
        (6, (4, 4, 1), "`num_outputs` .* positive multiple of 4.*got 6"),
        (4, (1, 4, 1), "`image_shape` must have sides of at least 2 pixels"),
    )
    def test_outputs_that_fill_no_map_are_reported(self, size, shape, message):
        with self.assertRaisesRegex(ValueError, message):
            networks.random_conv_features(size, shape)


if __name__ == "__main__":
    tf.test.main()
