# SPDX-License-Identifier: Apache-2.0
"""What every network of the library must do."""

from __future__ import annotations

import gin
import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae import networks

# Every decoder: a configuration without one default in it.
CASES = {
    networks.FullyConnectedDecoder: {
        "num_outputs": 24,
        "hidden": (7, 3),
        "activation": "leaky_relu",
        "output_activation": "sigmoid",
    },
    networks.ConvDecoder: {
        "num_outputs": 24,
        "image_shape": (3, 4, 2),
        "filters": (5,),
        "dense_filters": 6,
        "kernel_size": 2,
        "activation": "tanh",
    },
}
EVERY_CASE = [(c.__name__, c, config) for c, config in CASES.items()]


def _states(shape=(10, 6)):
    rng = np.random.default_rng(0)
    return tf.constant(rng.integers(0, 2, shape), tf.float32)


class ConformanceTest(tf.test.TestCase, parameterized.TestCase):
    def test_every_network_of_the_library_has_a_case(self):
        found = {getattr(networks, name) for name in networks.__all__}
        self.assertEqual(found, set(CASES))

    @parameterized.named_parameters(*EVERY_CASE)
    def test_output_has_the_shape_that_is_computed_before(self, cls, config):
        network = cls(**config)
        self.assertEqual(
            tuple(network.compute_output_shape((None, 6))), (None, 24)
        )
        outputs = network(_states())
        self.assertEqual(outputs.shape, (10, 24))
        self.assertEqual(outputs.dtype, tf.float32)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_rows_are_decoded_independently(self, cls, config):
        network = cls(**config)
        states = _states()
        whole = network(states)
        self.assertAllClose(network(states[3:4]), whole[3:4], rtol=1e-5)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_every_weight_is_built_early_and_gets_a_gradient(self, cls, config):
        network = cls(**config)
        network.build((None, 6))
        weights = network.trainable_variables
        self.assertNotEmpty(weights)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(network(_states()) + 0.1))
        for weight, gradient in zip(
            weights, tape.gradient(loss, weights), strict=True
        ):
            self.assertIsNotNone(gradient, weight.path)
            self.assertAllInRange(gradient, -1e6, 1e6)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_every_argument_survives_a_round_trip(self, cls, config):
        network = cls(**config, name="given")
        network.build((None, 6))
        copy = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(network)
        )
        self.assertEqual(copy.name, "given")
        for name, value in config.items():
            self.assertEqual(getattr(copy, name), value, name)
        copy.set_weights(network.get_weights())
        self.assertAllEqual(copy(_states()), network(_states()))

    @parameterized.named_parameters(*EVERY_CASE)
    def test_unknown_batch_size_in_a_graph_gives_the_same(self, cls, config):
        network = cls(**config)
        network.build((None, 6))
        compiled = tf.function(
            network.call,
            input_signature=[tf.TensorSpec([None, 6], tf.float32)],
        )
        self.assertAllClose(compiled(_states()), network(_states()), rtol=1e-5)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_gin_refers_to_it_by_name(self, cls, config):
        network = gin.get_configurable(cls.__name__)(**config)
        self.assertIs(type(network), cls)


if __name__ == "__main__":
    tf.test.main()
