# SPDX-License-Identifier: Apache-2.0
"""Tests of the first layer against Keras's own dense layer."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae.networks import binary

SMALL, LARGE = binary.MIN_SPARSE_INPUTS - 1, binary.MIN_SPARSE_INPUTS
OPTIONS = (
    {},
    {"use_bias": False},
    {"activation": "tanh"},
    {"activation": "leaky_relu", "use_bias": False},
    {"kernel_regularizer": "l2"},
)


def _states(num_latents, num_states=9):
    rng = np.random.default_rng(0)
    states = rng.random((num_states, num_latents)) < 0.02
    states[[0, -1]] = False
    return tf.constant(states, tf.float32)


def _pair(num_latents, options):
    """A `BinaryDense` and Keras's layer with the same weights."""
    layer = binary.BinaryDense(4, **options)
    dense = keras.layers.Dense(4, **options)
    for one in (layer, dense):
        one.build((None, num_latents))
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=w.shape) for w in dense.weights]
    layer.set_weights(weights)
    dense.set_weights(weights)
    return layer, dense


def _training(layer):
    """The argument with which `BinaryDense` is differentiable in its inputs."""
    is_binary = isinstance(layer, binary.BinaryDense)
    return {"training": True} if is_binary else {}


class BinaryDenseTest(tf.test.TestCase, parameterized.TestCase):
    def test_plain_products_have_no_sparse_sums(self):
        layer, dense = _pair(LARGE, {})
        spec = tf.TensorSpec([None, LARGE], tf.float32)

        def operations():
            traced = tf.function(layer, [spec]).get_concrete_function()
            graph = traced.graph.as_graph_def()
            bodies = [graph.node, *(f.node_def for f in graph.library.function)]
            return traced, {node.op for nodes in bodies for node in nodes}

        with binary.plain_products():
            plain, without = operations()
        _, with_sums = operations()
        self.assertNotIn("SparseSegmentSumWithNumSegments", without)
        self.assertIn("SparseSegmentSumWithNumSegments", with_sums)
        states = _states(LARGE)
        self.assertAllClose(plain(states), dense(states), atol=1e-5)

    @parameterized.product(num_latents=(5, SMALL, LARGE, 300), options=OPTIONS)
    def test_values_and_gradients_are_those_of_a_dense_layer(
        self, num_latents, options
    ):
        results = []
        for layer in _pair(num_latents, options):
            with tf.GradientTape() as tape:
                outputs = layer(_states(num_latents))
                loss = tf.reduce_sum(tf.square(outputs + 0.1))
                loss += sum(layer.losses)
            gradients = tape.gradient(loss, layer.trainable_variables)
            results.append(
                [outputs, *(tf.convert_to_tensor(g) for g in gradients)]
            )
        for found, expected in zip(*results, strict=True):
            self.assertEqual(found.shape, expected.shape)
            self.assertAllClose(found, expected, rtol=1e-4, atol=1e-5)

    @parameterized.product(
        num_latents=(SMALL, LARGE),
        leading=((9,), (3, 3)),
        kind=("binary", "real"),
    )
    def test_any_inputs_have_the_values_and_gradients_of_a_dense_layer(
        self, num_latents, leading, kind
    ):
        inputs = tf.reshape(_states(num_latents), [*leading, num_latents])
        if kind == "real":
            inputs *= 0.3
        results = []
        for layer in _pair(num_latents, {"activation": "tanh"}):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = layer(inputs, training=True)
                loss = tf.reduce_sum(tf.square(outputs + 0.1))
            results.append([outputs, tape.gradient(loss, inputs)])
        for found, expected in zip(*results, strict=True):
            self.assertAllClose(found, expected, rtol=1e-4, atol=1e-5)

    @parameterized.product(
        num_latents=(SMALL, LARGE),
        policy=("mixed_float16", "mixed_bfloat16", "float16", "bfloat16"),
    )
    def test_half_precision_is_that_of_a_dense_layer(self, num_latents, policy):
        layer, dense = (
            kind(4, dtype=policy)
            for kind in (binary.BinaryDense, keras.layers.Dense)
        )
        sparse = _states(num_latents)
        for one in (layer, dense):
            one.build(sparse.shape)
        dense.set_weights(layer.get_weights())
        # Zeros alone, sparse ones, too many ones, and no ones.
        for states in (0.0 * sparse, sparse, 1.0 - sparse, 0.5 * sparse):
            results = []
            for one in (layer, dense):
                inputs = states
                with tf.GradientTape() as tape:
                    tape.watch(inputs)
                    outputs = one(inputs, **_training(one))
                    loss = tf.reduce_sum(tf.square(outputs + 0.1))
                gradients = tape.gradient(
                    loss, [inputs, *one.trainable_variables]
                )
                results.append([outputs, *gradients])
            for found, expected in zip(*results, strict=True):
                self.assertEqual(found.dtype, expected.dtype)
                found, expected = np.float32(found), np.float32(expected)
                limit = 0.02 * np.abs(expected).max() + 1e-3
                self.assertAllClose(found, expected, rtol=0.0, atol=limit)

    @parameterized.parameters(SMALL, LARGE)
    def test_unknown_batch_size_in_a_graph_gives_the_same(self, num_latents):
        layer, dense = _pair(num_latents, {"activation": "tanh"})
        compiled = tf.function(
            layer.call,
            input_signature=[tf.TensorSpec([None, num_latents], tf.float32)],
        )
        states = _states(num_latents)
        self.assertAllClose(compiled(states), dense(states), atol=1e-5)

    @parameterized.parameters(SMALL, LARGE)
    def test_layer_survives_a_file(self, num_latents):
        layer, _ = _pair(num_latents, {"activation": "tanh", "use_bias": False})
        model = keras.Sequential([keras.layers.Input((num_latents,)), layer])
        path = self.create_tempdir().full_path + "/model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
        self.assertIs(type(loaded.layers[-1]), binary.BinaryDense)
        self.assertEqual(loaded.layers[-1].get_config(), layer.get_config())
        states = _states(num_latents)
        self.assertAllEqual(loaded(states), layer(states))


if __name__ == "__main__":
    tf.test.main()
