# SPDX-License-Identifier: Apache-2.0
"""Tests of strided networks against sums over pixels, written out."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae import networks
from tfvae.networks import strided


def _relu(values):
    return np.maximum(values, 0.0)


def _convolved(maps, kernel, bias, stride):
    """What PyTorch calls a convolution of padding (k - 1) / 2, odd k."""
    num, height, width, _ = maps.shape
    margin = (len(kernel) - 1) // 2
    shape = (-(-height // stride), -(-width // stride), kernel.shape[-1])
    outputs = np.zeros((num, *shape)) + bias
    for i, j in np.ndindex(*shape[:2]):
        for a, b in np.ndindex(*kernel.shape[:2]):
            row, column = stride * i + a - margin, stride * j + b - margin
            if 0 <= row < height and 0 <= column < width:
                outputs[:, i, j] += maps[:, row, column] @ kernel[a, b]
    return outputs


def _transposed(maps, kernel, bias, stride):
    """PyTorch's transposed one, of output padding s - 1; `[k, k, out, in]`."""
    num, height, width, _ = maps.shape
    margin = (len(kernel) - 1) // 2
    shape = (stride * height, stride * width, kernel.shape[2])
    outputs = np.zeros((num, *shape)) + bias
    for i, j in np.ndindex(height, width):
        for a, b in np.ndindex(*kernel.shape[:2]):
            row, column = stride * i + a - margin, stride * j + b - margin
            if 0 <= row < shape[0] and 0 <= column < shape[1]:
                outputs[:, row, column] += maps[:, i, j] @ kernel[a, b].T
    return outputs


def _random_weights(network):
    rng = np.random.default_rng(0)
    weights = [
        rng.normal(size=w.shape).astype(np.float32) for w in network.weights
    ]
    network.set_weights(weights)
    kernels, biases = weights[::2], weights[1::2]
    return list(zip(kernels, biases, strict=True))


class EncoderTest(tf.test.TestCase, parameterized.TestCase):
    def test_output_is_that_of_pytorch(self):
        convolutions = ((3, 3, 1), (4, 5, 2), (2, 3, 2))
        network = networks.strided_conv_encoder(
            6, (8, 4, 2), convolutions, hidden=(5,)
        )
        *layers, hidden, last = _random_weights(network)
        images = np.random.default_rng(1).normal(size=(3, 8, 4, 2))
        maps = images
        for (kernel, bias), (_, _, stride) in zip(
            layers, convolutions, strict=True
        ):
            maps = _relu(_convolved(maps, kernel, bias, stride))
        features = maps.reshape(3, -1)
        expected = _relu(features @ hidden[0] + hidden[1]) @ last[0] + last[1]
        found = network(images.reshape(3, -1).astype(np.float32))
        self.assertAllClose(found, expected, rtol=1e-4, atol=1e-2)

    def test_maps_have_the_published_sides(self):
        network = networks.strided_conv_encoder(4, (64, 64, 1))
        shapes = [
            layer.output.shape[1:]
            for layer in network.layers
            if layer.name.startswith("conv")
        ]
        sides = [64, 32, 32, 16, 16, 16, 8, 8, 8, 4, 4]
        channels = [4, 8, 8] + [16] * 8
        self.assertEqual(
            shapes,
            [(n, n, c) for n, c in zip(sides, channels, strict=True)],
        )

    def test_odd_sides_are_rounded_up(self):
        network = networks.strided_conv_encoder(
            3, (7, 5, 1), ((2, 3, 2), (4, 3, 3))
        )
        self.assertEqual(network.get_layer("features").output.shape[1:], (8,))


class DecoderTest(tf.test.TestCase, parameterized.TestCase):
    def test_output_is_that_of_pytorch(self):
        convolutions = ((3, 3, 1), (4, 5, 2), (2, 3, 2))
        network = networks.strided_conv_decoder(
            64, (8, 4, 2), 3, convolutions, hidden=(5,), map_channels=6
        )
        hidden, small, *layers = _random_weights(network)
        latents = np.random.default_rng(1).normal(size=(2, 3))
        outputs = _relu(latents @ hidden[0] + hidden[1])
        outputs = _relu(outputs @ small[0] + small[1])
        maps = outputs.reshape(2, 2, 1, 6)
        strides = [stride for _, _, stride in convolutions] + [1]
        for i, ((kernel, bias), stride) in enumerate(
            zip(layers, strides, strict=True)
        ):
            if stride == 1:
                # The convolution with the kernel turned by half a turn.
                kernel = np.flip(kernel, (0, 1)).swapaxes(2, 3)
            maps = _transposed(maps, kernel, bias, stride)
            maps = maps if i == len(strides) - 1 else _relu(maps)
        expected = maps.reshape(2, -1)
        found = network(latents.astype(np.float32))
        self.assertAllClose(found, expected, rtol=1e-4, atol=1e-2)

    def test_maps_have_the_published_sides(self):
        network = networks.strided_conv_decoder(4096, (64, 64, 1), 2)
        shapes = [
            layer.output.shape[1:]
            for layer in network.layers
            if layer.name.startswith(("map", "transposed", "channels", "crop"))
            # Those that are cropped count after that only.
            and getattr(layer, "padding", "same") != "valid"
        ]
        sides = [4, 4, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64]
        channels = [16, 32, 32, 32, 16, 16, 16, 16, 8, 8, 8, 1]
        self.assertEqual(
            shapes,
            [(n, n, c) for n, c in zip(sides, channels, strict=True)],
        )

    def test_excess_is_cut_off_below_and_on_the_right(self):
        config = {"convolutions": ((3, 5, 2), (2, 3, 2)), "map_channels": 2}
        small = networks.strided_conv_decoder(7 * 6, (7, 6, 1), 2, **config)
        large = networks.strided_conv_decoder(8 * 8, (8, 8, 1), 2, **config)
        large.set_weights(small.get_weights())
        latents = tf.constant([[1.0, -2.0]])
        image = tf.reshape(large(latents), [8, 8])
        self.assertAllClose(
            small(latents), tf.reshape(image[:7, :6], [1, -1]), rtol=1e-5
        )

    def test_heads_of_several_outputs_an_entry_follow_one_another(self):
        network = networks.strided_conv_decoder(
            2 * 2 * 4 * 3, (2, 4, 3), 2, ((2, 3, 2),), map_channels=2
        )
        *weights, bias = network.get_weights()
        bias = np.arange(6.0)
        network.set_weights([*map(np.zeros_like, weights), bias])
        found = tf.reshape(network(tf.ones([1, 2])), [2, 2, 4, 3])
        expected = np.broadcast_to(bias.reshape(2, 1, 1, 3), (2, 2, 4, 3))
        self.assertAllEqual(found, expected)

    def test_latents_may_be_left_to_the_first_inputs(self):
        network = networks.strided_conv_decoder(
            64, (8, 8, 1), convolutions=((2, 3, 2),), kernel_initializer="zeros"
        )
        self.assertEqual(network(tf.ones([3, 7])).shape, (3, 64))


class BothTest(tf.test.TestCase, parameterized.TestCase):
    def test_weights_are_as_many_as_published(self):
        both = (
            networks.strided_conv_encoder(2 * 2, (64, 64, 1)),
            networks.strided_conv_decoder(64 * 64, (64, 64, 1), 2),
        )
        self.assertEqual(sum(one.count_params() for one in both), 112_797)

    def test_weights_start_as_those_of_pytorch(self):
        keras.utils.set_random_seed(0)
        encoder = networks.strided_conv_encoder(4, (64, 64, 1))
        decoder = networks.strided_conv_decoder(4096, (64, 64, 1), 2)
        # Inputs of an output; of transposed layers outputs of an input.
        for layer, fan in (
            (encoder.get_layer("conv_1"), 4 * 25),
            (encoder.get_layer("conv_10"), 16 * 9),
            (encoder.get_layer("dense_0"), 256),
            (decoder.get_layer("dense_0"), 2),
            (decoder.get_layer("transposed_1"), 32 * 25),
            (decoder.get_layer("transposed_5"), 16 * 9),
            (decoder.get_layer("channels"), 9),
        ):
            kernel, bias = (w.numpy().ravel() for w in layer.weights)
            limit = 1 / np.sqrt(fan)
            self.assertAllInRange(kernel, -limit, limit)
            self.assertAllInRange(bias, -limit, limit)
            # The variance of a uniform is limit^2 / 3, and that of its square
            # 4 limit^4 / 45: five standard errors.
            error = 5 * limit**2 * np.sqrt(4 / 45 / kernel.size)
            self.assertAllClose(
                np.mean(kernel**2), limit**2 / 3, atol=error, rtol=0
            )
            self.assertGreater(np.abs(bias).max(), 0.0)

    def test_given_initializer_leaves_biases_at_zero(self):
        network = networks.strided_conv_decoder(
            64, (8, 8, 1), 2, ((2, 3, 2),), kernel_initializer="ones"
        )
        for kernel, bias in zip(
            network.weights[::2], network.weights[1::2], strict=True
        ):
            self.assertAllEqual(kernel, tf.ones_like(kernel))
            self.assertAllEqual(bias, tf.zeros_like(bias))

    @parameterized.parameters(
        ((4, (64, 64)), {}, r"`image_shape` must be \(height, width, channels"),
        (
            (0, (8, 8, 1)),
            {},
            "`num_outputs` must be an integer of .* got 0",
        ),
        ((4, (8, 8, 1), ((2, 3),)), {}, r"`convolutions` .*got \(2, 3\)"),
        ((4, (8, 8, 1), ((2, 3, 0),)), {}, r"`convolutions` .*\(2, 3, 0\)"),
    )
    def test_encoder_reports_wrong_arguments(self, arguments, options, message):
        with self.assertRaisesRegex(ValueError, message):
            strided.strided_conv_encoder(*arguments, **options)

    @parameterized.parameters(
        ((63, (8, 8, 1), 2), {}, "`num_outputs` .* positive multiple of 64"),
        ((64, (8, 8, 1)), {}, "`num_latents` must be given where"),
        ((64, (8, 8, 1), 2), {"last_kernel": 0}, r"`convolutions` .*1, 0, 1"),
    )
    def test_decoder_reports_wrong_arguments(self, arguments, options, message):
        with self.assertRaisesRegex(ValueError, message):
            strided.strided_conv_decoder(*arguments, **options)


if __name__ == "__main__":
    tf.test.main()
