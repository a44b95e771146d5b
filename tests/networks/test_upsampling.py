# SPDX-License-Identifier: Apache-2.0
"""Tests of upsampling networks against plain layers of Keras."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae import networks


def _weights(shapes):
    rng = np.random.default_rng(1)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def _pair(shape, filters=3, **options):
    """An `UpsampledConv2D` and Keras's layers with the same weights."""
    plain = keras.Sequential(
        [
            keras.layers.UpSampling2D(2),
            keras.layers.Conv2D(filters, 3, padding="same", **options),
        ]
    )
    layer = networks.UpsampledConv2D(filters, **options)
    for one in (layer, plain):
        one.build((None, *shape))
        one.set_weights(_weights([w.shape for w in one.weights]))
    return layer, plain


def _values_and_gradients(layer, maps, training):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(maps)
        outputs = layer(maps, training=training)
        loss = tf.reduce_sum(tf.sin(outputs))
        slope = tape.gradient(loss, maps)
        of_slope = tf.reduce_sum(tf.square(slope))
    weights = layer.trainable_variables
    return [
        outputs,
        slope,
        *tape.gradient(loss, weights),
        *tape.gradient(of_slope, [maps, weights[0]]),
    ]


class UpsampledConv2DTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.product(
        shape=((1, 1, 2), (2, 3, 4), (5, 4, 1)),
        options=({}, {"activation": "tanh"}),
        training=(False, True),
    )
    def test_values_and_gradients_are_those_of_plain_layers(
        self, shape, options, training
    ):
        # The gradients' own gradients too.
        maps = np.random.default_rng(0).normal(size=(2, *shape))
        maps = tf.constant(maps, tf.float32)
        found, expected = (
            _values_and_gradients(one, maps, training)
            for one in _pair(shape, **options)
        )
        for one, other in zip(found, expected, strict=True):
            self.assertAllClose(one, other, rtol=1e-4, atol=1e-3)

    def test_half_precision_is_that_of_plain_layers(self):
        maps = np.random.default_rng(0).normal(size=(2, 3, 3, 2))
        layer, plain = _pair((3, 3, 2), dtype="mixed_bfloat16")
        outputs = layer(maps, training=True)
        self.assertEqual(outputs.dtype, tf.bfloat16)
        # Sums of taps are rounded to 8 bits once more.
        self.assertAllClose(
            tf.cast(outputs, tf.float32),
            tf.cast(plain(maps), tf.float32),
            atol=0.1,
        )

    def test_compiled_values_are_the_same(self):
        maps = tf.ones([2, 3, 3, 2])
        layer, plain = _pair((3, 3, 2))
        compiled = tf.function(
            lambda maps: layer(maps, training=True), jit_compile=True
        )
        self.assertAllClose(compiled(maps), plain(maps), atol=1e-5)

    def test_only_training_graphs_have_gradients_of_their_own(self):
        # They would be missing from a SavedModel.
        layer, _ = _pair((3, 3, 2))
        for training in (False, True):
            graph = tf.function(layer).get_concrete_function(
                tf.TensorSpec([None, 3, 3, 2]), training=training
            )
            found = "_gradient_op_type" in str(graph.graph.as_graph_def())
            self.assertEqual(found, training)


class UpsamplingDecoderTest(tf.test.TestCase, parameterized.TestCase):
    def test_defaults_are_the_published_layers(self):
        network = networks.upsampling_decoder(3072, (32, 32, 3), 32)
        shapes = [
            tuple(layer.output.shape[1:])
            for layer in network.layers
            if layer.name.startswith(("map", "conv", "double"))
        ]
        self.assertEqual(
            shapes,
            [
                *[(2, 2, 8), (2, 2, 64), (4, 4, 32), (8, 8, 16)],
                *[(16, 16, 8), (32, 32, 3)],
            ],
        )

    def test_output_is_that_of_plain_layers(self):
        network = networks.upsampling_decoder(128, (8, 8, 2), 16, (6, 5))
        plain = keras.Sequential(
            [
                keras.layers.Conv2D(6, 3, padding="same"),
                keras.layers.LeakyReLU(0.2),
                keras.layers.UpSampling2D(2),
                keras.layers.Conv2D(5, 3, padding="same"),
                keras.layers.LeakyReLU(0.2),
                keras.layers.UpSampling2D(2),
                keras.layers.Conv2D(2, 3, padding="same"),
            ]
        )
        plain.build((None, 2, 2, 4))
        weights = _weights([w.shape for w in plain.weights])
        network.set_weights(weights)
        plain.set_weights(weights)
        latents = np.random.default_rng(0).normal(size=(3, 16))
        latents = latents.astype(np.float32)
        # Four latents are a channel.
        maps = latents.reshape(3, 4, 2, 2).transpose(0, 2, 3, 1)
        self.assertAllClose(
            network(latents),
            tf.reshape(plain(maps), [3, -1]),
            rtol=1e-4,
            atol=1e-3,
        )

    @parameterized.parameters(
        ((28, 28, 1), (2, 2), 4),
        ((32, 32, 3), (2, 2), 4),
        ((48, 40, 3), (2, 2), 5),
        ((64, 64, 3), (2, 2), 5),
        ((100, 30, 2), (7, 2), 4),
        ((3, 1, 1), (1, 1), 2),
    )
    def test_images_of_any_size_are_made(self, image_shape, small, doublings):
        size = int(np.prod(image_shape))
        num_latents = 2 * small[0] * small[1]
        network = networks.upsampling_decoder(size, image_shape, num_latents)
        self.assertEqual(network.get_layer("map").output.shape[1:], (*small, 2))
        self.assertLen(network.weights, 2 * doublings + 2)
        outputs = network(tf.zeros([1, num_latents]))
        self.assertEqual(outputs.shape, (1, size))

    def test_excess_is_cut_off_below_and_on_the_right(self):
        small = networks.upsampling_decoder(28 * 27, (28, 27, 1), 8)
        large = networks.upsampling_decoder(32 * 32, (32, 32, 1), 8)
        large.set_weights(small.get_weights())
        latents = tf.ones([2, 8])
        images = tf.reshape(large(latents), [2, 32, 32])
        self.assertAllClose(
            small(latents), tf.reshape(images[:, :28, :27], [2, -1])
        )

    def test_heads_of_several_outputs_an_entry_follow_one_another(self):
        # As those of ConvDecoder: biases alone decide the output.
        network = networks.upsampling_decoder(2 * 3 * 3 * 2, (3, 3, 2), 4, (2,))
        last = network.get_layer("double_0")
        kernel, _ = last.get_weights()
        last.set_weights([0.0 * kernel, np.array([1.0, 2.0, 3.0, 4.0])])
        outputs = network(tf.ones([1, 4])).numpy().reshape(2, 9, 2)
        self.assertAllEqual(outputs[0], [[1.0, 2.0]] * 9)
        self.assertAllEqual(outputs[1], [[3.0, 4.0]] * 9)

    def test_number_of_latents_may_be_left_to_the_inputs(self):
        network = networks.upsampling_decoder(16, (4, 4, 1), filters=(2,))
        self.assertEmpty(network.weights)
        network.build((None, 12))
        self.assertEqual(network.weights[0].shape, (3, 3, 3, 2))
        other = networks.upsampling_decoder(16, (4, 4, 1), filters=(2,))
        with self.assertRaisesRegex(ValueError, "input_shape=\\(10,\\)"):
            other.build((None, 10))

    @parameterized.parameters(
        (1000, 16, None, "`num_outputs` .* multiple of 1024.*got 1000"),
        (1024, 18, None, "`num_latents` .* positive multiple of 4.*got 18"),
        (1024, 0, None, "`num_latents` .* positive multiple of 4.*got 0"),
        (1024, 16, (), "`filters` must not be empty"),
    )
    def test_outputs_that_fill_no_map_are_reported(
        self, num_outputs, num_latents, filters, message
    ):
        with self.assertRaisesRegex(ValueError, message):
            networks.upsampling_decoder(
                num_outputs, (32, 32, 1), num_latents, filters
            )


if __name__ == "__main__":
    tf.test.main()
