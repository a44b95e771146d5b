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
    @parameterized.parameters(((),), ((7,),), ((7, 5),))
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

    @parameterized.parameters((0, (3,)), (4, (0,)), (4, (2.5,)), (-1, ()))
    def test_sizes_that_are_not_positive_integers_are_told(self, size, hidden):
        with self.assertRaisesRegex(
            ValueError, "`hidden` and `num_outputs` must be positive integers"
        ):
            networks.FullyConnectedDecoder(size, hidden)


if __name__ == "__main__":
    tf.test.main()
