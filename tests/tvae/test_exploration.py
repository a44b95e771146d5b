# SPDX-License-Identifier: Apache-2.0
"""Tests of exploration: renaming, perturbing, and keeping the best."""

from __future__ import annotations

import functools
import math
import pathlib
from unittest import mock

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests import grids, oracles
from tests.runs import small
from tests.tvae import tiny
from tfvae import checkpoints, networks, schedules, tvae
from tfvae.ops import random
from tfvae.runs import config
from tfvae.runs.train import train
from tfvae.tvae import exploration

# pi of ten latents, in two bytes of a state; four are over 1/2.
PROBS = np.float32([0.2, 0.7, 0.5, 0.9, 0.1, 0.4, 0.3, 0.6, 0.2, 0.8])
RENAMED = PROBS > 0.5
NUM_LATENTS = len(PROBS)


def _fully_connected():
    return networks.FullyConnectedDecoder(tiny.NUM_OBSERVED, (5,), "tanh")


def _conv():
    return networks.ConvDecoder(
        tiny.NUM_OBSERVED, (1, 3, 1), filters=(2,), dense_filters=2
    )


def _sequential():
    return keras.Sequential(
        [
            keras.Input((NUM_LATENTS,)),
            _fully_connected(),
            keras.layers.Dense(tiny.NUM_OBSERVED),
        ]
    )


def _linear():
    return keras.layers.Dense(tiny.NUM_OBSERVED)


def _without_bias():
    return keras.Sequential(
        [
            keras.layers.Dense(5, "relu", use_bias=False),
            keras.layers.Dense(tiny.NUM_OBSERVED),
        ]
    )


def _with_a_shortcut():
    states = keras.Input((NUM_LATENTS,))
    hidden = keras.layers.Dense(5, "tanh")(states)
    hidden = keras.layers.Concatenate()([hidden, states])
    return keras.Model(states, keras.layers.Dense(tiny.NUM_OBSERVED)(hidden))


class ScaledDecoder(keras.layers.Layer):
    """A dense layer and a scale that nobody knows the beginning of."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(
            40,
            kernel_initializer="he_normal",
            bias_initializer=keras.initializers.Constant(2.0),
        )

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.scale = self.add_weight(shape=(), name="scale")

    def call(self, states):
        return self.scale * self.dense(states)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 40)


def _frequent(make_decoder=_fully_connected, **kwargs):
    """A model of ten latents, some of them on in most data."""
    model = tiny.make(decoder=make_decoder(), num_latents=NUM_LATENTS, **kwargs)
    model.prior_probs.assign(PROBS)
    return model


def _inverted(states, renamed=RENAMED):
    return np.where(renamed, 1.0 - states, states)


def _explorer(**kwargs):
    """A model that explores in cycles of two epochs."""
    settings = {"period": 2, "until": 8, **kwargs}
    model = tiny.make(exploration=tvae.Exploration(**settings))
    return _compile(model)


def _compile(model):
    model.compile(
        keras.optimizers.Adam(schedules.TriangularCyclical(1e-3, 0.05, 3))
    )
    return model


def _fit(model, epochs, start=0, callbacks=None):
    model.fit(
        tiny.data(),
        tiny.INDEX,
        batch_size=4,
        epochs=epochs,
        initial_epoch=start,
        shuffle=False,
        verbose=0,
        callbacks=[tvae.Explore()] if callbacks is None else callbacks,
    )
    return model


@functools.cache
def _unbroken():
    """A model that was trained for ten epochs without a stop."""
    return _fit(_explorer(), 10)


class SettingsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        ({"period": 0}, "`period` must be an integer of at least 1, got 0"),
        ({"period": 2.5}, "`period` must be an integer of at least 1, got 2.5"),
        ({"until": 19}, "`until` must .* at least `period` = 20, got 19"),
        ({"share": 0.0}, r"`share` must be in \(0, 1\], got 0.0"),
        ({"share": 1.5}, "`share` must .*, got 1.5"),
        ({"share": float("nan")}, "`share` must .*, got nan"),
        ({"until": "a", "share": 2}, "`until` must .* got 'a'; `share` must"),
    )
    def test_wrong_settings_are_reported(self, settings, message):
        with self.assertRaisesRegex(ValueError, message):
            tvae.Exploration(**settings)

    @parameterized.parameters(
        (3, 9, [3, 6, 9], [3, 6]),
        (3, 11, [3, 6, 9], [3, 6]),
        (4, 4, [4], []),
        (1, 2, [1, 2], [1]),
    )
    def test_every_cycle_but_the_last_is_followed_by_another(
        self, period, until, ends, perturbs
    ):
        settings = tvae.Exploration(period, until)
        epochs = range(15)
        self.assertEqual([n for n in epochs if settings.ends_cycle(n)], ends)
        self.assertEqual([n for n in epochs if settings.perturbs(n)], perturbs)

    def test_settings_and_best_parameters_survive_in_a_file(self):
        model = _fit(_explorer(share=0.25), 3)
        path = self.create_tempdir().full_path + "/model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
        self.assertEqual(loaded.exploration, tvae.Exploration(2, 8, 0.25))
        best, expected = loaded.best_parameters, model.best_parameters
        self.assertGreater(float(best.bound), -math.inf)
        for found, weight in zip(best.weights, expected.weights, strict=True):
            self.assertAllEqual(found, weight, msg=found.path)

    def test_mixin_turns_it_on(self):
        config.load(
            ["papers/ecml2022_tvae/bars.gin", "mixins/exploration.gin"],
            ["Exploration.share = 0.125"],
        )
        built = gin.get_configurable("TVAE")(networks.ConvDecoder(4, (2, 2, 1)))
        self.assertEqual(built.exploration, tvae.Exploration(share=0.125))


class RenamingTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(_fully_connected, _conv, _sequential, _linear)
    @grids.by_default(0, 1)
    def test_model_is_the_same_with_other_names(self, make_decoder):
        model, x = _frequent(make_decoder), tiny.data()
        states, drawn = tiny.stored_states(model), model.decode(np.eye(10))
        log_likelihood = model.log_likelihood(x)
        reconstructed = model.stored_reconstruction(x, tiny.INDEX)
        exploration.invert_frequent(model)
        self.assertAllClose(
            model.prior_probs, np.where(RENAMED, 1.0 - PROBS, PROBS)
        )
        self.assertAllEqual(tiny.stored_states(model), _inverted(states))
        for row in tiny.stored_states(model):
            self.assertEqual(oracles.count_distinct(row), tiny.NUM_STATES)
        self.assertAllClose(model.decode(_inverted(np.eye(10))), drawn)
        self.assertAllClose(model.log_likelihood(x), log_likelihood)
        self.assertAllClose(
            model.stored_reconstruction(x, tiny.INDEX), reconstructed
        )

    def test_log_joints_and_bounds_are_the_same(self):
        model, x = _frequent(), tiny.data()
        before = tiny.Parameters(model)
        states = tiny.stored_states(model)
        exploration.invert_frequent(model)
        after, renamed = tiny.Parameters(model), tiny.stored_states(model)
        self.assertAllClose(
            after.log_joints(x, renamed), before.log_joints(x, states)
        )
        self.assertAllClose(after.bounds(x, renamed), before.bounds(x, states))

    @parameterized.product(
        shared=(False, True), num_states=(tiny.NUM_STATES, 2**NUM_LATENTS)
    )
    @grids.by_default(0)
    def test_renaming_in_a_pass_is_renaming_after_it(self, shared, num_states):
        # The decoder rests, but Adam's mean gradients and all sums move on.
        models = []
        for rename_first in (False, True):
            model = _frequent(
                num_states=num_states,
                evolution=tvae.Evolution(
                    num_parents=3, num_generations=1, shared=shared
                ),
            )
            model.compile(keras.optimizers.Adam(0.0))
            model.optimizer.build(model.trainable_variables)
            for start in (0, 4, 8):
                part = slice(start, start + 4)
                model.train_step((tiny.data()[part], tiny.INDEX[part]))
                if start == 4 and rename_first:
                    exploration.invert_frequent(model)
            models.append(model)
        plain, renamed = models
        self.assertEqual(int(plain.prior.visits), 0)
        probs = plain.prior_probs.numpy()
        self.assertAllClose(
            renamed.prior_probs, np.where(RENAMED, 1.0 - probs, probs)
        )
        self.assertAllClose(
            renamed.likelihood.variance, plain.likelihood.variance
        )
        if plain.states is not None:
            self.assertAllEqual(
                tiny.stored_states(renamed),
                _inverted(tiny.stored_states(plain)),
            )
        kernel, bias, *others = plain.optimizer._momentums
        expected = np.where(
            RENAMED[:, None], bias.numpy() - kernel.numpy(), kernel
        )
        found = renamed.optimizer._momentums
        for slot, value in zip(found, [expected, bias, *others], strict=True):
            self.assertNotAllClose(slot, np.zeros(slot.shape))
            self.assertAllClose(slot, value, atol=1e-5, msg=slot.path)

    @parameterized.parameters("nadam", "sgd", "rmsprop")
    @grids.by_default(0)
    def test_trained_model_is_the_same_with_any_optimizer(self, optimizer):
        model, x = _frequent(), tiny.data()
        model.compile(optimizer)
        model.fit(x[:8], tiny.INDEX[:8], batch_size=4, verbose=0)
        expected = model.log_likelihood(x)
        exploration.invert_frequent(model)
        self.assertAllClose(model.log_likelihood(x), expected)
        self.assertAllLessEqual(model.prior_probs, 0.5)

    @parameterized.parameters(_without_bias, _with_a_shortcut, ScaledDecoder)
    def test_other_decoders_are_left_alone(self, make_decoder):
        if make_decoder is ScaledDecoder:
            model = tvae.TVAE(make_decoder(), NUM_LATENTS)
            model.prior_probs.assign(PROBS)
        else:
            model = _frequent(make_decoder)
        self.assertIsNone(exploration.first_dense(model.decoder))
        before = model.get_weights()
        exploration.invert_frequent(model)
        for found, weight in zip(model.get_weights(), before, strict=True):
            self.assertAllEqual(found, weight)

    def test_rare_latents_keep_their_names(self):
        model = _frequent()
        model.prior_probs.assign(np.minimum(PROBS, 0.5))
        before = model.get_weights()
        exploration.invert_frequent(model)
        for found, weight in zip(model.get_weights(), before, strict=True):
            self.assertAllEqual(found, weight)


class PerturbationTest(tf.test.TestCase, parameterized.TestCase):
    def _perturbed(self, decoder, share, seed=0):
        before = decoder.get_weights()
        exploration.perturb(decoder, share, random.make_seed(seed))
        after = decoder.get_weights()
        decoder.set_weights(before)
        return after

    @parameterized.parameters(_fully_connected, _conv, _sequential)
    def test_weights_move_towards_a_fresh_draw(self, make_decoder):
        decoder = make_decoder()
        decoder.build((None, NUM_LATENTS))
        rng = np.random.default_rng(0)
        weights = [rng.normal(size=w.shape) for w in decoder.get_weights()]
        decoder.set_weights(weights)
        fresh = self._perturbed(decoder, 1.0)
        part = self._perturbed(decoder, 0.25)
        for old, new, moved in zip(weights, fresh, part, strict=True):
            self.assertAllClose(moved, 0.75 * old + 0.25 * new)
            self.assertNotAllClose(old, new)
            if new.ndim == 1:
                self.assertAllEqual(new, np.zeros_like(new))

    def test_draws_are_those_of_each_variables_own_initializer(self):
        decoder = ScaledDecoder()
        decoder.build((None, 500))
        decoder.scale.assign(3.0)
        exploration.perturb(decoder, 1.0, random.make_seed(0))
        dense, scale = decoder.dense, float(decoder.scale)
        kernel, bias = dense.kernel.numpy(), dense.bias.numpy()
        # 20,000 normal draws: a standard error of half a percent.
        self.assertAllClose(kernel.std(), (2.0 / 500) ** 0.5, rtol=0.02)
        self.assertAllClose(kernel.mean(), 0.0, atol=2e-3)
        self.assertAllEqual(bias, np.full(40, 2.0))
        self.assertEqual(scale, 3.0)

    def test_draws_depend_on_seed_and_variable_alone(self):
        decoder = networks.FullyConnectedDecoder(8, (8, 8))
        decoder.build((None, 8))
        first = self._perturbed(decoder, 1.0, seed=3)
        keras.utils.set_random_seed(0)
        again = self._perturbed(decoder, 1.0, seed=3)
        for weight, other in zip(first, again, strict=True):
            self.assertAllEqual(weight, other)
        other = self._perturbed(decoder, 1.0, seed=-4)
        kernels = [*first[::2], *other[::2]]
        # All of one shape: none of them is another one's draw.
        self.assertEqual(oracles.count_distinct(np.stack(kernels)), 6)


class ExploreTest(tf.test.TestCase, parameterized.TestCase):
    def _end_cycle(self, callback, epoch, bound, change):
        """Ends an epoch with all parameters changed by a factor."""
        for variable in exploration.parameters(callback.model):
            variable.assign(tf.cast(change, variable.dtype) * variable)
        before = [v.numpy() for v in exploration.parameters(callback.model)]
        callback.on_epoch_end(epoch, {"bound": bound})
        after = [v.numpy() for v in exploration.parameters(callback.model)]
        return before, after

    def test_best_parameters_are_kept_and_brought_back(self):
        model = _explorer()
        model.prior_probs.assign([0.1, 0.2, 0.1, 0.2])
        callback = tvae.Explore()
        callback.set_model(model)
        best = None
        for epoch, bound, change, result in (
            (1, math.nan, 1.0, "left"),
            (1, -5.0, 1.0, "kept"),
            (2, 9.0, 0.5, "left"),  # Not the end of a cycle.
            (3, -6.0, 0.5, "lost"),
            (5, -4.0, 0.5, "kept"),
            (7, math.nan, 2.0, "lost"),
            (9, -9.0, 0.5, "left"),  # Exploration is over.
        ):
            states = model.states.packed.numpy()
            before, after = self._end_cycle(callback, epoch, bound, change)
            best = before if result == "kept" else best
            expected = best if result == "lost" else before
            for value, wanted in zip(after, expected, strict=True):
                self.assertAllEqual(value, wanted)
            self.assertAllEqual(model.states.packed, states)
        self.assertEqual(float(model.best_parameters.bound), -4.0)

    def test_epochs_begin_with_what_the_cycle_says(self):
        model = _explorer(share=0.125)
        callback = tvae.Explore()
        callback.set_model(model)
        perturbed, draws = [], []
        for epoch in range(12):
            before = model.decoder.get_weights()
            others = [v.numpy() for v in model.weights]
            callback.on_epoch_begin(epoch)
            kernel, *_ = model.decoder.get_weights()
            if not np.array_equal(kernel, before[0]):
                perturbed.append(epoch)
                draws.append((kernel - 0.875 * before[0]) / 0.125)
                self.assertAllClose(
                    model.decoder.get_weights()[1], 0.875 * before[1]
                )
            in_decoder = {id(v) for v in model.decoder.weights}
            for variable, value in zip(model.weights, others, strict=True):
                if id(variable) not in in_decoder:
                    self.assertAllEqual(variable, value)
        self.assertEqual(perturbed, [2, 4, 6])
        self.assertGreater(np.abs(draws[0] - draws[1]).max(), 0.1)
        self.assertGreater(np.abs(draws[1] - draws[2]).max(), 0.1)

    def test_frequent_latents_are_inverted_at_the_end_of_every_epoch(self):
        model = _explorer()
        callback = tvae.Explore()
        callback.set_model(model)
        for epoch in (0, 20):
            model.prior_probs.assign([0.1, 0.9, 0.75, 0.25])
            callback.on_epoch_end(epoch, {"bound": 0.0})
            self.assertAllClose(model.prior_probs, [0.1, 0.1, 0.25, 0.25])

    @parameterized.parameters(1, 4, 8)
    @grids.by_default(1)
    def test_resumed_run_ends_like_the_unbroken_one(self, stop):
        unbroken, broken = _unbroken(), _fit(_explorer(), stop)
        path = self.create_tempdir().full_path + "/model.keras"
        broken.save(path)
        loaded = _fit(keras.models.load_model(path), 10, start=stop)
        for found, expected in zip(
            [*loaded.variables, *loaded.optimizer.variables],
            [*unbroken.variables, *unbroken.optimizer.variables],
            strict=True,
        ):
            self.assertAllEqual(found, expected, msg=found.path)

    def test_training_without_the_callback_is_reported(self):
        model = _explorer()
        with self.assertRaisesRegex(
            RuntimeError, r"callbacks=\[tfvae.Explore\(\)\]"
        ):
            _fit(model, 1, callbacks=[])
        _fit(model, 1)
        with self.assertRaisesRegex(RuntimeError, "with `exploration`"):
            _fit(model, 1, callbacks=[])

    @pytest.mark.slow  # Trains twice.
    def test_nothing_is_different_without_it(self):
        plain = _fit(_compile(tiny.make()), 4, callbacks=[])
        watched = _fit(_compile(tiny.make()), 4)
        self.assertIsNone(watched.best_parameters)
        for found, expected in zip(
            watched.variables, plain.variables, strict=True
        ):
            self.assertAllEqual(found, expected, msg=found.path)

    @pytest.mark.slow  # Trains twice.
    def test_first_cycle_is_plain_training(self):
        # Nothing is frequent here, so there is nothing to rename.
        models = [_compile(tiny.make()), _explorer()]
        for model in models:
            model.prior_probs.assign([0.1, 0.2, 0.1, 0.2])
        plain, explorer = (_fit(model, 1) for model in models)
        self.assertLess(float(plain.prior_probs.numpy().max()), 0.5)
        for found, expected in zip(
            explorer.get_weights(), plain.get_weights(), strict=False
        ):
            self.assertAllEqual(found, expected)


class RunTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        for name in ("draw", "draw_model"):
            patch = mock.patch(f"tfvae.runs.summaries.{name}")
            self.enterContext(patch)
        self.enterContext(
            mock.patch("tfvae.runs.summaries.read_figures", return_value={})
        )

    def _train(self, name):
        small.load_bars(
            "Exploration.period = 1",
            "Exploration.until = 3",
            "fit.epochs = 4",
            "train.export = False",
        )
        return train(self.folder / name)

    @parameterized.parameters(2, 3)
    @pytest.mark.slow  # ExploreTest resumes models.
    def test_killed_and_resumed_run_ends_like_the_unbroken_one(self, kill_at):
        calls, save = [], checkpoints.save

        def save_until_killed(*args, **kwargs):
            calls.append(None)
            if len(calls) == kill_at:
                raise KeyboardInterrupt
            return save(*args, **kwargs)

        self._train("unbroken")
        with mock.patch.object(checkpoints, "save", save_until_killed):
            with self.assertRaises(KeyboardInterrupt):
                self._train("broken")
        self._train("broken")
        self.assertEqual(
            small.metrics(self.folder / "broken"),
            small.metrics(self.folder / "unbroken"),
        )

    @parameterized.product(correlated=(False, True), seed=(100, 101, 102))
    @pytest.mark.slow
    def test_all_bars_are_found_with_the_published_settings(
        self, correlated, seed
    ):
        config.load(
            ["papers/ecml2022_tvae/bars.gin", "mixins/exploration.gin"],
            [
                f"bars.correlated = {correlated}",
                f"experiment.seed = {seed}",
                "bars.num_test = 0",
                "train.export = False",
            ],
        )
        summary = train(self.folder / "run")
        self.assertEqual(summary["features_found"], 8)
        self.assertAllClose(
            summary["bound"], summary["generator_log_likelihood"], atol=0.5
        )


if __name__ == "__main__":
    tf.test.main()
