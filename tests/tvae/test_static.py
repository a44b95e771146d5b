# SPDX-License-Identifier: Apache-2.0
"""Tests of training steps in fixed shapes, which XLA compiles.

By default they run without XLA, which takes seconds to compile each; the slow
tests compile. `test_evolution.py` tests the E-step alone, compiled as well.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests import grids, oracles
from tests.tvae import tiny
from tfvae import networks, tvae
from tfvae.ops import random
from tfvae.tvae import draws

OWN = tvae.Evolution(num_parents=3, num_generations=1, shared=False)
POOL = tvae.Evolution(num_parents=3, num_generations=2, pool_size=7)
ALL_STATES = 2**tiny.NUM_LATENTS

# Likelihood and settings of models.
CASES = (
    ("gaussian", {"m_batch_size": 3}),
    ("diagonal", {"num_m_states": 2}),
    ("bernoulli", {"evolution": OWN, "m_batch_size": 2}),
    ("poisson", {}),
    ("gaussian", {"num_states": ALL_STATES, "m_batch_size": 3}),
    ("gaussian", {"evolution": OWN}),
    ("gaussian", {"states_in_memory": 0}),
)
# Batches of data points: whole ones, one with repeats, a smaller last one.
BATCHES = ([0, 1, 2, 3, 4], [5, 6, 5, 8, 5], [9, 10], [9, 9])
WEIGHTS = np.array([1.0, 0.5, 2.0, 0.0, 1.0])


def _compiled(kind="gaussian", is_static=True, decoder=None, **settings):
    """A model; its steps in fixed shapes run without XLA."""
    model = tiny.make(kind, decoder, **settings)
    model.compile(keras.optimizers.Adam(0.02), jit_compile=is_static)
    model.optimizer.build(model.trainable_variables)
    if is_static:
        model._compiled_step._step = model._static_step
        model._compiled_step._draws = draws.static_draws
    return model


def _train(model, batches=BATCHES):
    """Trains by weighted batches, and returns the last one's logs."""
    x = tiny.data()
    for index in batches:
        data = x[index], np.array(index), WEIGHTS[: len(index)]
        logs = model.train_step(data)
    return {name: float(value) for name, value in logs.items()}


def _assert_same(test, model, expected, atol=1e-5):
    """Asserts that states are equal, and all else nearly."""
    pairs = [
        *zip(model.variables, expected.variables, strict=True),
        *zip(
            model.optimizer.variables, expected.optimizer.variables, strict=True
        ),
    ]
    for found, other in pairs:
        if found.dtype in ("uint8", "bool", "int64"):
            test.assertAllEqual(found, other, msg=found.path)
        else:
            test.assertAllClose(
                found, other, rtol=1e-4, atol=atol, msg=found.path
            )
    for name, found in model.arrays_on_disk().items():
        test.assertAllEqual(found, expected.arrays_on_disk()[name], msg=name)


class StaticDrawsTest(tf.test.TestCase):
    def test_draws_are_the_distinct_ones_and_places_that_do_not_count(self):
        index = random.integers(random.make_seed(3), [9], 6)
        x = tf.gather(random.uniform(random.make_seed(4), [6, 2]), index)
        weights = tf.range(1.0, 10.0)
        expected = draws.distinct_draws(x, index, weights)
        size = len(expected.index)
        self.assertLess(size, 8)
        rows = draws.padded(x, index, weights, tf.constant(12))
        for static in (
            draws.static_draws(*rows),
            tf.function(draws.static_draws, jit_compile=True)(*rows),
        ):
            for name in ("x", "index", "weights", "counts"):
                found = getattr(static, name)
                self.assertLen(found, 12)
                self.assertAllEqual(found[:size], getattr(expected, name), name)
            self.assertAllEqual(static.position[:9], expected.position)
            self.assertAllEqual(static.is_point, np.arange(12) < size)
            self.assertAllEqual(static.weights[size:], np.zeros(12 - size))
            self.assertAllEqual(
                static.index[size:], np.repeat(index[0], 12 - size)
            )


class StaticStepTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(*CASES)
    @grids.by_default(0, 2)
    def test_training_is_that_of_the_usual_form(self, kind, settings):
        static, usual = (
            _compiled(kind, is_static, **settings)
            for is_static in (True, False)
        )
        found, expected = _train(static), _train(usual)
        _assert_same(self, static, usual)
        self.assertEqual(set(found), set(expected))
        for name, value in found.items():
            self.assertAllClose(value, expected[name], atol=1e-5, msg=name)

    def test_logged_bound_is_that_of_the_states_with_a_small_pool(self):
        model = _compiled(evolution=POOL)
        before = tiny.Parameters(model)
        logs = _train(model, [[0, 1, 2, 3, 4]])
        x = tiny.data()[:5]
        states = tiny.stored_states(model)[:5]
        expected = np.average(before.bounds(x, states), weights=WEIGHTS)
        self.assertAllClose(logs["bound"], expected, rtol=1e-4)
        self.assertGreater(logs["left_out"], 0.0)
        every = oracles.enumerate_states(model.num_latents)
        exact = before.bounds(x, every)
        self.assertAllLess(before.bounds(x, states) - exact, 1e-6)
        for row in states:
            self.assertEqual(oracles.count_distinct(row), tiny.NUM_STATES)

    def test_bound_with_all_states_is_the_log_likelihood(self):
        model = _compiled(num_states=ALL_STATES)
        expected = np.average(
            tiny.exact(model, tiny.data())[:5], weights=WEIGHTS
        )
        logs = _train(model, [[0, 1, 2, 3, 4]])
        self.assertAllClose(logs["bound"], expected, rtol=1e-4)

    def test_rows_that_differ_at_equal_indices_are_reported(self):
        model = _compiled()
        x = tiny.data()
        before = model.get_weights()
        with self.assertRaisesRegex(
            tf.errors.InvalidArgumentError, "must be equal where their indices"
        ):
            model.train_step((x[[0, 2]], np.array([0, 0])))
        for found, expected in zip(model.get_weights(), before, strict=True):
            self.assertAllEqual(found, expected)


class CompileTest(tf.test.TestCase, parameterized.TestCase):
    def test_compilation_is_kept_by_configurations(self):
        model = tiny.make()
        model.compile("sgd", jit_compile=True)
        self.assertTrue(model.is_static)
        self.assertTrue(model.get_compile_config()["jit_compile"])
        other = tiny.make()
        other.compile_from_config(model.get_compile_config())
        self.assertTrue(other.is_static)
        for jit_compile in (False, "auto"):
            model.compile("sgd", jit_compile=jit_compile)
            self.assertFalse(model.is_static)
            self.assertFalse(model.get_compile_config()["jit_compile"])

    def test_eager_steps_are_not_compiled(self):
        model = tiny.make()
        with self.assertWarnsRegex(UserWarning, "Disabling `jit_compile`"):
            model.compile("sgd", jit_compile=True, run_eagerly=True)
        self.assertFalse(model.is_static)

    @parameterized.named_parameters(
        ("mass", {"max_dropped_mass": 0.1}, None, "use `num_m_states`, .* 0.1"),
        (
            "normalization",
            {},
            [
                keras.layers.BatchNormalization(name="mean"),
                keras.layers.Dense(3),
            ],
            "the layer 'mean' normalizes by",
        ),
        (
            "activity",
            {},
            [keras.layers.Dense(3, activity_regularizer="l2", name="costly")],
            "activity regularization of the layer 'costly'",
        ),
    )
    def test_what_has_no_fixed_shape_is_reported(
        self, settings, layers, message
    ):
        decoder = None
        if layers is not None:
            decoder = keras.Sequential(
                [keras.Input((tiny.NUM_LATENTS,)), *layers]
            )
        model = tvae.TVAE(
            decoder or networks.FullyConnectedDecoder(3, (5,)),
            tiny.NUM_LATENTS,
            num_states=tiny.NUM_STATES,
            **settings,
        )
        with self.assertRaisesRegex(
            ValueError, f"`jit_compile` must be False here.*{message}"
        ):
            model.compile("sgd", jit_compile=True)
        self.assertFalse(model.compiled)

    @parameterized.parameters(
        ({"pool_size": 0}, "`pool_size` must be a positive integer .* got 0"),
        (
            {"pool_size": 9, "shared": False},
            "`pool_size` must be None where .* not `shared`, got 9",
        ),
    )
    def test_pools_that_can_not_be_are_reported(self, settings, message):
        with self.assertRaisesRegex(ValueError, message):
            tvae.Evolution(**settings)

    def test_pool_smaller_than_a_points_states_is_reported(self):
        with self.assertRaisesRegex(
            ValueError, "`pool_size` must be None, or at least .* 6, got 5"
        ):
            tiny.make(evolution=tvae.Evolution(num_parents=3, pool_size=5))


@pytest.mark.slow  # XLA compiles for seconds.
class XlaTest(tf.test.TestCase, parameterized.TestCase):
    def _fit(self, jit_compile, kind="gaussian", model=None, **settings):
        keras.utils.set_random_seed(1)  # the order of the data
        if model is None:
            model = tiny.make(kind, **settings)
            model.compile(keras.optimizers.Adam(0.02), jit_compile=jit_compile)
        return model, model.fit(
            tiny.data(), tiny.INDEX, batch_size=4, epochs=2, verbose=0
        ).history

    @parameterized.parameters(*CASES)
    def test_training_is_that_of_the_usual_form(self, kind, settings):
        model, found = self._fit(True, kind, **settings)
        usual, expected = self._fit(False, kind, **settings)
        _assert_same(self, model, usual)
        for name, values in found.items():
            self.assertAllClose(
                values, expected[name], rtol=1e-4, atol=1e-5, msg=name
            )

    def test_loaded_model_goes_on_as_if_never_saved(self):
        model, _ = self._fit(True, evolution=POOL, m_batch_size=3)
        path = self.create_tempdir().full_path + "/model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
        self.assertTrue(loaded.is_static)
        for one in (model, loaded):
            self._fit(True, model=one)
        _assert_same(self, loaded, model, atol=0.0)

    def test_larger_batches_and_inference_work(self):
        model, _ = self._fit(True)
        logs = model.fit(
            tiny.data(), tiny.INDEX, batch_size=11, epochs=3, verbose=0
        ).history
        self.assertGreater(logs["bound"][-1], logs["bound"][0])
        self.assertAllClose(
            model.evaluate(tiny.data(), verbose=0, return_dict=True)["bound"],
            tf.reduce_mean(model.infer(tiny.data()).bound),
            rtol=1e-5,
        )

    def test_mixed_precision_and_several_steps_an_execution_train(self):
        keras.config.set_dtype_policy("mixed_float16")
        self.addCleanup(keras.config.set_dtype_policy, "float32")
        model = tiny.make(m_batch_size=2)
        model.compile(
            keras.optimizers.Adam(0.02), jit_compile=True, steps_per_execution=2
        )
        logs = model.fit(
            tiny.data(), tiny.INDEX, batch_size=4, epochs=6, verbose=0
        ).history
        self.assertGreater(logs["bound"][-1], logs["bound"][0])


if __name__ == "__main__":
    tf.test.main()
