# SPDX-License-Identifier: Apache-2.0
"""Tests that a saved TVAE is the same TVAE, and goes on as if never saved."""

from __future__ import annotations

import gin
import keras
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests import oracles
from tests.tvae import tiny
from tfvae import likelihoods, networks, schedules, tvae


def _functional(num_outputs):
    states = keras.Input((tiny.NUM_LATENTS,))
    hidden = keras.layers.Dense(5, "tanh")(states)
    outputs = keras.layers.Dense(num_outputs)(hidden)
    # A connection past the hidden layer: no Sequential could do this.
    outputs = keras.layers.Add()(
        [outputs, keras.layers.Dense(num_outputs, use_bias=False)(states)]
    )
    return keras.Model(states, outputs)


def _sequential(num_outputs):
    return keras.Sequential(
        [keras.layers.Dense(5, "relu"), keras.layers.Dense(num_outputs)]
    )


def _conv(num_outputs):
    return networks.ConvDecoder(
        num_outputs, (1, 3, 1), filters=(2,), dense_filters=2
    )


def _fit(model, epochs, stop=tiny.NUM_DATA):
    model.fit(
        tiny.data()[:stop],
        tiny.INDEX[:stop],
        batch_size=4,
        epochs=epochs,
        shuffle=False,
        verbose=0,
    )
    return model


def _compile(model):
    rate = schedules.TriangularCyclical(1e-3, 0.05, 3)
    model.compile(keras.optimizers.Adam(rate))
    return model


class SavingTest(tf.test.TestCase, parameterized.TestCase):
    def _saved(self, model):
        path = self.create_tempdir().full_path + "/model.keras"
        model.save(path)
        return keras.models.load_model(path)

    def _assert_same(self, model, expected):
        variables = [*model.variables, *model.optimizer.variables]
        others = [*expected.variables, *expected.optimizer.variables]
        for found, other in zip(variables, others, strict=True):
            self.assertAllEqual(found, other, msg=found.path)

    def test_continued_training_equals_unbroken_training(self):
        # Saved in the middle of a pass: 8 of 11 data points visited.
        unbroken = _fit(_fit(_compile(tiny.make()), 2), 1, stop=8)
        self.assertEqual(int(unbroken.prior.visits), 8)
        loaded = self._saved(unbroken)
        self._assert_same(loaded, unbroken)
        self.assertIsNot(loaded, unbroken)
        for row in tiny.stored_states(loaded):
            self.assertEqual(oracles.count_distinct(row), tiny.NUM_STATES)
        # In the same process and order of data, nothing else is random.
        _fit(loaded, 2)
        _fit(unbroken, 2)
        self._assert_same(loaded, unbroken)

    def test_loaded_model_infers_reconstructs_and_samples_the_same(self):
        model, x = tiny.shared("diagonal"), tiny.data()
        loaded = self._saved(model)
        self.assertAllEqual(loaded.reconstruct(x), model.reconstruct(x))
        self.assertAllEqual(
            loaded.log_likelihood_bound(x), model.log_likelihood_bound(x)
        )
        self.assertAllEqual(
            loaded.stored_reconstruction(x, tiny.INDEX),
            model.stored_reconstruction(x, tiny.INDEX),
        )
        self.assertAllEqual(loaded.sample(3), model.sample(3))

    def test_every_argument_survives_with_a_value_not_the_default(self):
        evolution = tvae.Evolution(
            tvae.Uniform(), tvae.Crossover(tvae.RandFlip()), 3, 2, 4, False
        )
        config = dict(
            num_latents=5,
            num_data=7,
            num_states=9,
            evolution=evolution,
            num_m_states=4,
            max_dropped_mass=0.125,
            m_batch_size=3,
            inference_steps=13,
            inference_tolerance=0.25,
            num_archived=12,
            seed=3,
            name="given",
        )
        likelihood = likelihoods.GaussianLikelihood(
            initial_variance=0.5, standardize=False
        )
        decoder = networks.FullyConnectedDecoder(2, (6, 3), "tanh", "sigmoid")
        default = tvae.TVAE(networks.FullyConnectedDecoder(2), 6)
        model = tvae.TVAE(decoder, likelihood=likelihood, **config)
        loaded = self._saved(model)
        for name, value in config.items():
            self.assertNotEqual(getattr(default, name), value, name)
            self.assertEqual(getattr(loaded, name), value, name)
        self.assertEqual(loaded.likelihood.initial_variance, 0.5)
        self.assertFalse(loaded.likelihood.standardize)
        self.assertEqual(loaded.decoder.get_config(), decoder.get_config())

    def test_weights_load_into_another_model(self):
        path = self.create_tempdir().full_path + "/model.weights.h5"
        model = _fit(_compile(tiny.make(seed=1)), 1)
        model.save_weights(path)
        other = tiny.make(seed=2)
        self.assertNotAllEqual(other.states.packed, model.states.packed)
        other.load_weights(path)
        for found, expected in zip(
            other.variables, model.variables, strict=True
        ):
            self.assertAllEqual(found, expected, msg=found.path)

    @parameterized.parameters(_functional, _sequential, _conv)
    @pytest.mark.slow  # Files are tested below.
    def test_any_keras_decoder_trains_saves_and_loads(self, make_decoder):
        likelihood = likelihoods.DiagonalGaussianLikelihood()
        decoder = make_decoder(likelihood.num_outputs(3))
        model = tvae.TVAE(
            decoder,
            tiny.NUM_LATENTS,
            num_data=tiny.NUM_DATA,
            likelihood=likelihood,
            num_states=tiny.NUM_STATES,
            evolution=tvae.Evolution(num_parents=2, num_generations=1),
        )
        model.adapt(tiny.data())
        before = decoder.get_weights()
        _fit(_compile(model), 1)
        for old, new in zip(before, decoder.get_weights(), strict=True):
            self.assertNotAllEqual(old, new)
        loaded = self._saved(model)
        self._assert_same(loaded, model)
        self.assertIs(type(loaded.decoder), type(decoder))
        self.assertAllEqual(loaded.singleton_means(), model.singleton_means())

    def test_gin_builds_a_model_with_its_bindings(self):
        gin.parse_config(
            """
            TVAE.num_latents = 5
            TVAE.num_states = 7
            TVAE.decoder = @FullyConnectedDecoder()
            TVAE.likelihood = @BernoulliLikelihood()
            TVAE.evolution = @Evolution()
            FullyConnectedDecoder.num_outputs = 3
            Evolution.parents = @Elite()
            Evolution.variation = @SparseFlip()
            Evolution.num_parents = 2
            SparseFlip.flip_rate = 0.3
            """
        )
        model = gin.get_configurable("TVAE")()
        self.assertIs(type(model), tvae.TVAE)
        self.assertEqual((model.num_latents, model.num_states), (5, 7))
        self.assertEqual(
            model.evolution,
            tvae.Evolution(tvae.Elite(), tvae.SparseFlip(0.3), num_parents=2),
        )
        loaded = self._saved(model)
        self.assertEqual(loaded.evolution, model.evolution)
        self.assertIsInstance(
            loaded.likelihood, likelihoods.BernoulliLikelihood
        )


if __name__ == "__main__":
    tf.test.main()
