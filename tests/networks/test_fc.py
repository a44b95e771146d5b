# SPDX-License-Identifier: Apache-2.0
"""Tests of fully connected networks."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests import oracles
from tfvae import networks


class FullyConnectedDecoderTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(((),), ((7,),), ((7, 5),), ((np.int64(7), 5),))
    def test_output_is_that_of_a_plain_perceptron(self, hidden):
        network = networks.FullyConnectedDecoder(4, hidden, activation="tanh")
        states = oracles.enumerate_states(3)
        outputs = network(tf.constant(states, tf.float32))
        self.assertLen(network.weights, 2 * len(hidden) + 2)
        expected = oracles.perceptron(network.get_weights(), states)
        self.assertAllClose(outputs, expected, atol=1e-5)

    @parameterized.parameters("relu", "leaky_relu")
    def test_activations_are_those_of_keras(self, activation):
        network = networks.FullyConnectedDecoder(
            2, (3,), activation, output_activation="sigmoid"
        )
        network.build((None, 2))
        states = tf.constant([[0.0, 1.0], [1.0, 1.0]])
        first, bias, last, last_bias = network.weights
        values = keras.activations.get(activation)(states @ first + bias)
        self.assertAllClose(
            network(states), tf.sigmoid(values @ last + last_bias)
        )

    def test_weights_start_xavier_normal_and_biases_at_0(self):
        keras.utils.set_random_seed(0)
        network = networks.FullyConnectedDecoder(300, (200,))
        network.build((None, 100))
        for layer, std in zip(
            network.layers, (np.sqrt(2 / 300), np.sqrt(2 / 500)), strict=True
        ):
            kernel, bias = layer.get_weights()
            # Five standard errors of a standard deviation.
            error = 5.0 / np.sqrt(2.0 * kernel.size)
            self.assertAllClose(kernel.std(), std, rtol=error)
            self.assertAllEqual(bias, np.zeros_like(bias))

    @parameterized.parameters("glorot_uniform", keras.initializers.HeNormal())
    def test_other_initializers_draw_every_layer_anew(self, initializer):
        network = networks.FullyConnectedDecoder(
            5, (5, 5), kernel_initializer=initializer
        )
        network.build((None, 5))
        first, second, third = network.get_weights()[::2]
        self.assertNotAllClose(first, second)
        self.assertNotAllClose(second, third)
        if initializer == "glorot_uniform":
            self.assertAllInRange(first, -np.sqrt(6 / 10), np.sqrt(6 / 10))

    def test_activation_may_be_a_layer_with_a_slope_of_its_own(self):
        network = networks.FullyConnectedDecoder(
            1, (), output_activation=keras.layers.LeakyReLU(0.01)
        )
        network.build((None, 1))
        copy = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(network)
        )
        x = tf.constant([[-2.0], [3.0]])
        for one in (network, copy):
            one.set_weights([np.array([[1.0]]), np.array([0.0])])
            self.assertAllClose(one(x), [[-0.02], [3.0]])

    @parameterized.parameters(
        ("num_outputs", 0, (3,)),
        ("hidden", 4, (0,)),
        ("hidden", 4, (2.5,)),
        ("num_outputs", -1, ()),
    )
    def test_sizes_that_are_not_positive_integers_are_reported(
        self, name, size, hidden
    ):
        for make in (
            lambda: networks.FullyConnectedDecoder(size, hidden),
            lambda: networks.fully_connected_encoder(size, 3, hidden),
        ):
            with self.assertRaisesRegex(
                ValueError, f"`{name}` must be .*integers? of at least 1, got"
            ):
                make()


class FullyConnectedEncoderTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(((),), ((7,),), ((7, 5),), ((np.int64(7), 5),))
    def test_output_is_that_of_a_plain_perceptron(self, hidden):
        network = networks.fully_connected_encoder(4, 3, hidden, "tanh")
        x = np.random.default_rng(0).normal(size=(6, 3))
        self.assertLen(network.weights, 2 * len(hidden) + 2)
        expected = oracles.perceptron(network.get_weights(), x)
        self.assertAllClose(network(x), expected, atol=1e-5)

    def test_defaults_are_the_published_layers(self):
        network = networks.fully_connected_encoder(32, 1024)
        self.assertEqual(
            [weight.shape for weight in network.weights[::2]],
            [(1024, 256), (256, 128), (128, 64), (64, 32)],
        )
        *hidden, last = network.layers
        for layer in hidden:
            self.assertIs(layer.activation, keras.activations.leaky_relu)
        self.assertIs(last.activation, keras.activations.linear)
        kernel, bias = last.get_weights()
        # Xavier: uniform on +-sqrt(6 / (64 + 32)); one of 2,048 is near it.
        self.assertAllInRange(kernel, -0.25, 0.25)
        self.assertGreater(np.abs(kernel).max(), 0.24)
        self.assertAllEqual(bias, np.zeros(32))


if __name__ == "__main__":
    tf.test.main()
