# SPDX-License-Identifier: Apache-2.0
"""What every network of the library must do."""

from __future__ import annotations

import gin
import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests.networks import small
from tfvae import networks

# By dtype policy, the largest difference from float32, as a part of the largest
# value: of outputs, and of gradients.
PRECISION = {
    "mixed_float16": (3e-3, 0.02),
    "bfloat16": (0.02, 0.2),
    "float64": (1e-5, 1e-5),
}
EVERY_CASE = [(case.make.__name__, case) for case in small.CASES]
EVERY_CLASS = [one for one in EVERY_CASE if isinstance(one[1].make, type)]
EVERY_FUNCTION = [one for one in EVERY_CASE if one not in EVERY_CLASS]


class ConformanceTest(tf.test.TestCase, parameterized.TestCase):
    def test_every_network_of_the_library_has_a_case(self):
        found = {getattr(networks, name) for name in networks.__all__}
        self.assertEqual(found, {case.make for case in small.CASES})

    @parameterized.named_parameters(*EVERY_CASE)
    def test_output_has_the_shape_that_is_computed_before(self, case):
        network = case.make(**case.config)
        self.assertEqual(
            tuple(network.compute_output_shape((None, *case.inputs))),
            (None, *case.outputs),
        )
        outputs = network(small.inputs(case))
        self.assertEqual(outputs.shape, (10, *case.outputs))
        self.assertEqual(outputs.dtype, tf.float32)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_rows_are_mapped_independently(self, case):
        network = small.built(case)
        inputs = small.inputs(case)
        whole = network(inputs)
        self.assertAllClose(network(inputs[3:4]), whole[3:4], rtol=1e-5)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_every_weight_is_built_early_and_gets_a_gradient(self, case):
        network = small.built(case)
        weights = network.trainable_variables
        self.assertNotEmpty(weights)
        with tf.GradientTape() as tape:
            outputs = network(small.inputs(case), training=True)
            loss = tf.reduce_sum(tf.square(outputs + 0.1))
        for weight, gradient in zip(
            weights, tape.gradient(loss, weights), strict=True
        ):
            self.assertIsNotNone(gradient, weight.path)
            self.assertAllInRange(gradient, -1e6, 1e6)
            self.assertGreater(np.abs(gradient).max(), 0.0, weight.path)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_dtype_policy_changes_nothing_but_the_precision(self, case):
        weights = small.built(case).get_weights()
        expected = self._outputs_and_gradients(case, weights)
        self.addCleanup(
            keras.config.set_dtype_policy, keras.config.dtype_policy()
        )
        for name, tolerances in PRECISION.items():
            if case.make is networks.sequence_decoder and name == "bfloat16":
                continue
            keras.config.set_dtype_policy(name)
            policy = keras.config.dtype_policy()
            network = small.built(case)
            for weight in network.weights:
                # The phases of random features need float32.
                self.assertIn(weight.dtype, (policy.variable_dtype, "float32"))
            self.assertEqual(
                network(small.inputs(case)).dtype, policy.compute_dtype
            )
            found = self._outputs_and_gradients(case, weights)
            for tolerance, one, other in zip(
                tolerances, found, expected, strict=True
            ):
                limit = tolerance * np.abs(other).max()
                self.assertAllClose(one, other, rtol=0.0, atol=limit, msg=name)

    def _outputs_and_gradients(self, case, weights):
        """Returns outputs, and gradients in all trained weights, `[num]`."""
        network = small.built(case)
        network.set_weights(weights)
        with tf.GradientTape() as tape:
            outputs = tf.cast(network(small.inputs(case)), tf.float32)
            loss = tf.reduce_mean(tf.square(outputs))
        gradients = tape.gradient(loss, network.trainable_variables)
        flat = [tf.reshape(tf.cast(g, tf.float32), [-1]) for g in gradients]
        return outputs.numpy(), np.concatenate(flat)

    def test_network_without_initial_weights_in_bfloat16_is_refused(self):
        (case,) = (
            case
            for case in small.CASES
            if case.make is networks.sequence_decoder
        )
        self.addCleanup(
            keras.config.set_dtype_policy, keras.config.dtype_policy()
        )
        keras.config.set_dtype_policy("bfloat16")
        with self.assertRaisesRegex(
            ValueError, "`sequence_decoder`.*'mixed_bfloat16'.*got 'bfloat16'"
        ):
            small.built(case)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_frozen_network_has_no_trainable_weights(self, case):
        network = small.built(case)
        network.trainable = False
        self.assertEmpty(network.trainable_variables)
        self.assertNotEmpty(network.weights)

    @parameterized.named_parameters(*EVERY_CLASS)
    def test_every_argument_survives_a_round_trip(self, case):
        network = small.built(case, name="given")
        copy = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(network)
        )
        self.assertEqual(copy.name, "given")
        found = copy.get_config()
        self.assertEqual(
            {name: found[name] for name in case.config}, case.config
        )
        copy.set_weights(network.get_weights())
        self.assertAllEqual(
            copy(small.inputs(case)), network(small.inputs(case))
        )

    @parameterized.named_parameters(*EVERY_CASE)
    def test_unknown_batch_size_in_a_graph_gives_the_same(self, case):
        network = small.built(case)
        compiled = tf.function(
            network.call,
            input_signature=[tf.TensorSpec([None, *case.inputs], tf.float32)],
        )
        self.assertAllClose(
            compiled(small.inputs(case)), network(small.inputs(case)), rtol=1e-5
        )

    @parameterized.named_parameters(*EVERY_FUNCTION)
    def test_function_returns_named_layers_with_weights(self, case):
        network = case.make(**case.config)
        self.assertIsInstance(network, keras.Model)
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
            drawn.append(
                small.built(case._replace(config=config)).get_weights()
            )
        for first, second in zip(*drawn[:2], strict=True):
            self.assertAllEqual(first, second)
        are_same = [
            np.array_equal(first, other)
            for first, other in zip(drawn[0], drawn[2], strict=True)
        ]
        self.assertFalse(all(are_same))


if __name__ == "__main__":
    tf.test.main()
