# SPDX-License-Identifier: Apache-2.0
"""Tests of convolutional networks."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae import networks


class ConvDecoderTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        ((28, 28, 1), (32, 16)),
        ((5, 7, 3), (4, 4)),
        ((8, 8, 1), ()),
        ((1, 1, 2), (3,)),
    )
    def test_images_of_any_size_are_made(self, image_shape, filters):
        size = int(np.prod(image_shape))
        network = networks.ConvDecoder(
            size, image_shape, filters, dense_filters=3
        )
        self.assertEqual(network(tf.ones([2, 5])).shape, (2, size))

    def test_each_doubling_doubles_the_sides(self):
        network = networks.ConvDecoder(16 * 12, (16, 12, 1), (6, 5))
        network.build((None, 4))
        shape, sides = (None, 4), []
        for layer in network.layers:
            shape = layer.compute_output_shape(shape)
            if len(shape) == 4:
                sides.append(tuple(shape[1:3]))
        self.assertEqual(sides, [(4, 3), (8, 6), (16, 12), (16, 12)])

    @parameterized.parameters(((4, 6, 2),), ((3, 5, 2),))
    def test_output_is_flattened_row_by_row_with_channels_last(self, shape):
        # What doubling makes too much is cut off below and on the right.
        network = networks.ConvDecoder(int(np.prod(shape)), shape, (3,))
        states = tf.ones([1, 5])
        flat = network(states)
        maps = states
        for layer in network.layers:
            maps = layer(maps)
        self.assertEqual(maps.shape, (1, 4, 6, 2))
        height, width, _ = shape
        self.assertAllClose(tf.reshape(flat, shape), maps[0, :height, :width])

    def test_heads_of_several_outputs_an_entry_follow_one_another(self):
        # Biases alone decide the output: head 0 is 1 and 2, head 1 is 3 and 4
        # in the two channels.
        network = networks.ConvDecoder(2 * 3 * 3 * 2, (3, 3, 2), (2,))
        network.build((None, 4))
        last = network.layers[-1]
        kernel, _ = last.get_weights()
        last.set_weights([0.0 * kernel, np.array([1.0, 2.0, 3.0, 4.0])])
        outputs = network(tf.ones([1, 4])).numpy().reshape(2, 9, 2)
        self.assertAllEqual(outputs[0], [[1.0, 2.0]] * 9)
        self.assertAllEqual(outputs[1], [[3.0, 4.0]] * 9)

    def test_outputs_that_make_no_whole_images_are_reported(self):
        with self.assertRaisesRegex(
            ValueError, r"`num_outputs` .* positive multiple of 12.*got 18"
        ):
            networks.ConvDecoder(18, (2, 3, 2))

    @parameterized.parameters(((3, 4),), ((3, 0, 1),), ((3, 2.5, 1),))
    def test_shapes_that_are_none_of_an_image_are_reported(self, image_shape):
        for make in (
            networks.ConvDecoder,
            networks.conv_encoder,
            networks.upsampling_decoder,
            networks.random_conv_features,
        ):
            with self.assertRaisesRegex(
                ValueError, r"`image_shape` must be \(height, width, channels"
            ):
                make(12, image_shape)


class ConvEncoderTest(tf.test.TestCase, parameterized.TestCase):
    def test_defaults_are_the_published_layers(self):
        network = networks.conv_encoder(32, (32, 32, 3))
        shapes = [
            tuple(layer.output.shape[1:])
            for layer in network.layers
            if layer.name.startswith(("conv", "halve", "channels"))
        ]
        self.assertEqual(
            shapes,
            [
                *[(32, 32, 4), (16, 16, 4), (16, 16, 8), (8, 8, 8)],
                *[(8, 8, 16), (4, 4, 16), (2, 2, 8), (8, 2, 2)],
            ],
        )

    def test_output_is_that_of_plain_layers_channel_by_channel(self):
        # Plain layers apply the activation before they take the maximum.
        network = networks.conv_encoder(8, (16, 16, 2))
        plain = []
        for size in (4, 8):
            plain += [
                keras.layers.Conv2D(
                    size, 3, padding="same", activation="leaky_relu"
                ),
                keras.layers.MaxPooling2D(2),
            ]
        plain = keras.Sequential([*plain, keras.layers.Conv2D(2, 3)])
        plain.build((None, 16, 16, 2))
        rng = np.random.default_rng(0)
        weights = [rng.normal(size=w.shape) for w in plain.weights]
        network.set_weights(weights)
        plain.set_weights(weights)
        images = rng.normal(size=(3, 16, 16, 2)).astype(np.float32)
        maps = plain(images).numpy()  # [3, 2, 2, 2]
        expected = [
            np.concatenate([m[..., 0], m[..., 1]]).ravel() for m in maps
        ]
        found = network(images.reshape(3, -1))
        self.assertAllClose(found, expected, rtol=1e-4, atol=1e-4)

    @parameterized.parameters(
        ((28, 28, 1), (2, 2)),
        ((32, 32, 3), (2, 2)),
        ((48, 40, 3), (1, 1)),
        ((64, 64, 3), (2, 2)),
        ((100, 30, 2), (11, 2)),
        ((5, 5, 1), (1, 1)),
    )
    def test_images_of_any_size_are_encoded(self, image_shape, last_map):
        num_outputs = 2 * last_map[0] * last_map[1]
        network = networks.conv_encoder(num_outputs, image_shape)
        self.assertEqual(
            network.get_layer("channels").output.shape[1:], (*last_map, 2)
        )
        x = tf.zeros([1, int(np.prod(image_shape))])
        self.assertEqual(network(x).shape, (1, num_outputs))

    def test_padding_is_that_of_a_padded_image(self):
        small = networks.conv_encoder(4, (28, 27, 1))
        large = networks.conv_encoder(4, (32, 32, 1))
        large.set_weights(small.get_weights())
        images = np.random.default_rng(0).random((2, 28, 27, 1), np.float32)
        padded = np.zeros((2, 32, 32, 1), np.float32)
        padded[:, :28, :27] = images
        self.assertAllClose(
            small(images.reshape(2, -1)),
            large(padded.reshape(2, -1)),
            atol=1e-6,
        )

    def test_number_of_halvings_follows_the_filters(self):
        network = networks.conv_encoder(36, (32, 32, 1), filters=(3, 5))
        self.assertEqual(
            network.get_layer("channels").output.shape[1:3], (6, 6)
        )

    @parameterized.parameters(
        (
            30,
            (32, 32, 1),
            None,
            "`num_outputs` .* positive multiple of 4.*got 30",
        ),
        (0, (32, 32, 1), None, "`num_outputs` .* multiple of 4.*got 0"),
        (4, (4, 9, 1), None, "`image_shape` must have .* more than 4 pixels"),
        (4, (16, 16, 1), (2,) * 4, "`image_shape` must have .* more than 32"),
    )
    def test_outputs_that_fill_no_map_are_reported(
        self, num_outputs, image_shape, filters, message
    ):
        with self.assertRaisesRegex(ValueError, message):
            networks.conv_encoder(num_outputs, image_shape, filters)


if __name__ == "__main__":
    tf.test.main()
