# SPDX-License-Identifier: Apache-2.0
"""What every network of the library must do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gin
import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae import networks


class Case(NamedTuple):
    """A network and the shapes of one data point's inputs and outputs."""

    make: Callable[..., keras.layers.Layer]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    # Without one default in it.
    config: dict[str, Any]


INITIALIZER = keras.initializers.serialize(keras.initializers.HeUniform(5))
CASES = (
    Case(
        networks.FullyConnectedDecoder,
        (6,),
        (24,),
        {
            "num_outputs": 24,
            "hidden": [7, 3],
            "activation": "leaky_relu",
            "output_activation": "sigmoid",
            "kernel_initializer": INITIALIZER,
        },
    ),
    Case(
        networks.ConvDecoder,
        (6,),
        (24,),
        {
            "num_outputs": 24,
            "image_shape": [3, 4, 2],
            "filters": [5],
            "dense_filters": 6,
            "kernel_size": 2,
            "activation": "tanh",
        },
    ),
    Case(
        networks.UpsampledConv2D,
        (2, 3, 4),
        (4, 6, 5),
        {
            "filters": 5,
            "activation": "tanh",
            "kernel_initializer": INITIALIZER,
        },
    ),
    Case(
        networks.RandomFeatures,
        (6,),
        (5,),
        {"num_features": 5, "kernel": "gaussian", "scale": 2.0, "seed": 3},
    ),
    Case(
        networks.RandomConvFeatures,
        (5, 4, 2),
        (3, 2, 5),
        {
            "num_features": 5,
            "patch_size": [2, 3],
            "kernel": "laplacian",
            "scale": 2.0,
            "seed": 3,
        },
    ),
    Case(
        networks.fully_connected_encoder,
        (6,),
        (4,),
        {
            "num_outputs": 4,
            "num_observed": 6,
            "hidden": (5, 3),
            "activation": "tanh",
            "kernel_initializer": INITIALIZER,
        },
    ),
    Case(
        networks.conv_encoder,
        (9 * 14 * 2,),
        (8,),
        {
            "num_outputs": 8,
            "image_shape": (9, 14, 2),
            "filters": (3, 2),
            "activation": "tanh",
            "kernel_initializer": INITIALIZER,
        },
    ),
    Case(
        networks.upsampling_decoder,
        (12,),
        (2 * 3 * 5 * 2,),
        {
            "num_outputs": 2 * 3 * 5 * 2,
            "image_shape": (3, 5, 2),
            "num_latents": 12,
            "filters": (3,),
            "activation": "tanh",
            "kernel_initializer": INITIALIZER,
        },
    ),
    Case(
        networks.strided_conv_encoder,
        (9 * 6 * 2,),
        (4,),
        {
            "num_outputs": 4,
            "image_shape": (9, 6, 2),
            "convolutions": ((3, 3, 1), (4, 5, 2)),
            "hidden": (5,),
            "activation": "tanh",
            "kernel_initializer": INITIALIZER,
        },
    ),
    Case(
        networks.strided_conv_decoder,
        (3,),
        (2 * 3 * 5 * 2,),
        {
            "num_outputs": 2 * 3 * 5 * 2,
            "image_shape": (3, 5, 2),
            "num_latents": 3,
            "convolutions": ((3, 3, 1), (4, 5, 2)),
            "hidden": (5,),
            "map_channels": 2,
            "last_kernel": 1,
            "activation": "tanh",
            "kernel_initializer": INITIALIZER,
        },
    ),
    Case(
        networks.sequence_encoder,
        (5 * 3,),
        (4,),
        {
            "num_outputs": 4,
            "num_steps": 5,
            "num_symbols": 3,
            "filters": (3, 2),
            "kernel_sizes": (2, 3),
            "hidden": 7,
            "activation": "tanh",
        },
    ),
    Case(
        networks.sequence_decoder,
        (6,),
        (5 * 3,),
        {
            "num_outputs": 5 * 3,
            "num_steps": 5,
            "num_latents": 6,
            "recurrent": (4, 3),
            "activation": "tanh",
        },
    ),
    Case(
        networks.random_features,
        (6,),
        (4,),
        {
            "num_outputs": 4,
            "num_observed": 6,
            "kernel": "laplacian",
            "scale": 2.0,
            "seed": 3,
        },
    ),
    Case(
        networks.random_conv_features,
        (3 * 4 * 2,),
        (8,),
        {
            "num_outputs": 8,
            "image_shape": (3, 4, 2),
            "kernel": "gaussian",
            "scale": 2.0,
            "seed": 3,
        },
    ),
)
EVERY_CASE = [(case.make.__name__, case) for case in CASES]
EVERY_CLASS = [one for one in EVERY_CASE if isinstance(one[1].make, type)]
EVERY_FUNCTION = [one for one in EVERY_CASE if one not in EVERY_CLASS]


def _inputs(case, num_rows=10):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (num_rows, *case.inputs))
    return tf.constant(values, tf.float32)


def _built(case, **kwargs):
    network = case.make(**case.config, **kwargs)
    if not network.built:
        network.build((None, *case.inputs))
    return network


class ConformanceTest(tf.test.TestCase, parameterized.TestCase):
    def test_every_network_of_the_library_has_a_case(self):
        found = {getattr(networks, name) for name in networks.__all__}
        self.assertEqual(found, {case.make for case in CASES})

    @parameterized.named_parameters(*EVERY_CASE)
    def test_output_has_the_shape_that_is_computed_before(self, case):
        network = case.make(**case.config)
        self.assertEqual(
            tuple(network.compute_output_shape((None, *case.inputs))),
            (None, *case.outputs),
        )
        outputs = network(_inputs(case))
        self.assertEqual(outputs.shape, (10, *case.outputs))
        self.assertEqual(outputs.dtype, tf.float32)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_rows_are_mapped_independently(self, case):
        network = _built(case)
        inputs = _inputs(case)
        whole = network(inputs)
        self.assertAllClose(network(inputs[3:4]), whole[3:4], rtol=1e-5)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_every_weight_is_built_early_and_gets_a_gradient(self, case):
        network = _built(case)
        weights = network.trainable_variables
        self.assertNotEmpty(weights)
        with tf.GradientTape() as tape:
            outputs = network(_inputs(case), training=True)
            loss = tf.reduce_sum(tf.square(outputs + 0.1))
        for weight, gradient in zip(
            weights, tape.gradient(loss, weights), strict=True
        ):
            self.assertIsNotNone(gradient, weight.path)
            self.assertAllInRange(gradient, -1e6, 1e6)
            self.assertGreater(np.abs(gradient).max(), 0.0, weight.path)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_frozen_network_has_no_trainable_weights(self, case):
        network = _built(case)
        network.trainable = False
        self.assertEmpty(network.trainable_variables)
        self.assertNotEmpty(network.weights)

    @parameterized.named_parameters(*EVERY_CLASS)
    def test_every_argument_survives_a_round_trip(self, case):
        network = _built(case, name="given")
        copy = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(network)
        )
        self.assertEqual(copy.name, "given")
        found = copy.get_config()
        self.assertEqual(
            {name: found[name] for name in case.config}, case.config
        )
        copy.set_weights(network.get_weights())
        self.assertAllEqual(copy(_inputs(case)), network(_inputs(case)))

    @parameterized.named_parameters(*EVERY_CASE)
    def test_network_survives_a_file(self, case):
        model = keras.Sequential(
            [keras.layers.Input(case.inputs), _built(case)]
        )
        path = self.create_tempdir().full_path + "/model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
        self.assertAllEqual(loaded(_inputs(case)), model(_inputs(case)))

    @parameterized.named_parameters(*EVERY_CASE)
    def test_unknown_batch_size_in_a_graph_gives_the_same(self, case):
        network = _built(case)
        compiled = tf.function(
            network.call,
            input_signature=[tf.TensorSpec([None, *case.inputs], tf.float32)],
        )
        self.assertAllClose(
            compiled(_inputs(case)), network(_inputs(case)), rtol=1e-5
        )

    @parameterized.named_parameters(*EVERY_FUNCTION)
    def test_function_returns_named_layers_with_weights(self, case):
        network = case.make(**case.config)
        self.assertIsInstance(network, keras.Sequential)
        self.assertEqual(network.name, case.make.__name__)
        self.assertNotEmpty(network.weights)
        for layer in network.layers:
            self.assertNotRegex(layer.name, "conv2d|pooling|flatten|reshape")

    @parameterized.named_parameters(*EVERY_FUNCTION, *EVERY_CLASS[:2])
    def test_gin_refers_to_it_by_name(self, case):
        network = gin.get_configurable(case.make.__name__)(**case.config)
        self.assertIs(type(network), type(case.make(**case.config)))

    @parameterized.named_parameters(*EVERY_CASE)
    def test_same_global_seed_draws_the_same_weights(self, case):
        drawn = []
        config = {k: v for k, v in case.config.items() if k != "seed"}
        config.pop("kernel_initializer", None)
        for seed in (0, 0, 1):
            keras.utils.set_random_seed(seed)
            drawn.append(_built(case._replace(config=config)).get_weights())
        for first, second in zip(*drawn[:2], strict=True):
            self.assertAllEqual(first, second)
        are_same = [
            np.array_equal(first, other)
            for first, other in zip(drawn[0], drawn[2], strict=True)
        ]
        self.assertFalse(all(are_same))


if __name__ == "__main__":
    tf.test.main()
