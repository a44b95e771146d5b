# SPDX-License-Identifier: Apache-2.0
"""Tests of training: both halves of EM against numeric optimisation."""

from __future__ import annotations

import math
from unittest import mock

import keras
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import tensorflow as tf
from absl.testing import parameterized

from tests import grids, oracles
from tests.tvae import tiny
from tfvae import schedules, tvae
from tfvae.tvae import prior

NAN = float("nan")
ALL_STATES = 2**tiny.NUM_LATENTS


def _compiled(model, optimizer=None, **kwargs):
    """Compiles; without an optimizer the decoder stays as it is."""
    model.compile(optimizer or keras.optimizers.SGD(0.0), **kwargs)
    return model


def _m_states(model):
    """The states of the M-step after a pass, `[N, M, H]` or `[K, H]`."""
    if model.is_exhaustive:
        return oracles.enumerate_states(tiny.NUM_LATENTS)
    return tiny.stored_states(model)[:, : model.num_m_states]


class CountingParents:
    """Takes the best states, and counts how often it is traced."""

    def __init__(self):
        self.count = 0

    def __call__(self, seed, log_joints, num_parents):
        self.count += 1
        return tf.math.top_k(log_joints, num_parents).indices


class GradientTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        ("gaussian", tiny.NUM_STATES, None),
        ("gaussian", tiny.NUM_STATES, 3),
        ("gaussian", ALL_STATES, None),
        ("diagonal", tiny.NUM_STATES, None),
        ("bernoulli", tiny.NUM_STATES, 2),
        ("poisson", tiny.NUM_STATES, None),
    )
    def test_step_is_the_gradient_of_the_bound_with_q_free_or_fixed(
        self, kind, num_states, num_m_states
    ):
        model, x = (
            tiny.make(kind, num_states=num_states, num_m_states=num_m_states),
            tiny.data(),
        )
        # With rate 1 the step is minus the gradient of the loss.
        _compiled(model, keras.optimizers.SGD(1.0))
        old = tiny.Parameters(model)
        model.train_step((x, tiny.INDEX))
        steps = [
            new - before
            for new, before in zip(
                model.decoder.get_weights(), old.weights, strict=True
            )
        ]
        for step in steps:
            self.assertNotAllEqual(step, np.zeros_like(step))
        states = _m_states(model)
        q = old.posterior(x, states)

        def bound(weights):
            old.weights = weights
            return old.bounds(x, states).mean()

        def expected_log_joint(weights):
            old.weights = weights
            return (q * old.log_joints(x, states)).sum(-1).mean()

        weights = old.weights
        for function in (bound, expected_log_joint):
            for i, step in enumerate(steps):

                def of_one(weight, i=i, function=function):
                    return function([*weights[:i], weight, *weights[i + 1 :]])

                gradient = oracles.numeric_gradient(of_one, weights[i])
                self.assertAllClose(step, gradient, rtol=1e-3, atol=1e-5)


class DecoderInTrainingTest(tf.test.TestCase):
    def _trained_weight(self, **options):
        layer = keras.layers.Dense(tiny.NUM_OBSERVED, **options)
        model = _compiled(tiny.make(decoder=layer), keras.optimizers.SGD(0.1))
        before = layer.kernel.numpy()
        model.train_step((tiny.data(), tiny.INDEX))
        return before, layer.kernel.numpy()

    def test_regularisers_of_the_decoder_count(self):
        before, plain = self._trained_weight()
        _, penalised = self._trained_weight(
            kernel_regularizer=keras.regularizers.L2(0.5)
        )
        # The gradient of 0.5 w**2 is w, and the rate 0.1.
        self.assertAllClose(plain - penalised, 0.1 * before, atol=1e-5)

    def test_dropout_acts_in_the_m_step_alone(self):
        modes = []

        class Spy(keras.layers.Dense):
            def call(self, inputs, training=None):
                modes.append(training)
                return super().call(inputs)

        model = _compiled(tiny.make(decoder=Spy(tiny.NUM_OBSERVED)))
        modes.clear()
        model.train_step((tiny.data(), tiny.INDEX))
        self.assertEqual(modes, [False, False, True])

    def test_losses_and_metrics_of_keras_are_refused(self):
        for option in ({"loss": "mse"}, {"metrics": ["mae"]}):
            with self.assertRaisesRegex(ValueError, "left out of compile"):
                _compiled(tiny.make(), **option)


class WeightsTest(tf.test.TestCase, parameterized.TestCase):
    def _trained(self, x, index, weights=None, **settings):
        """A model after a step, and the store's packed states."""
        model = _compiled(
            tiny.make(num_data=5, **settings), keras.optimizers.SGD(0.1)
        )
        model.train_step((x, np.asarray(index), weights))
        return model

    @parameterized.parameters("gaussian", "diagonal", "bernoulli", "poisson")
    def test_a_point_drawn_twice_is_one_of_weight_two(self, likelihood):
        x = tiny.data()
        twice = self._trained(
            x[[0, 2, 0, 1, 0]], [0, 2, 0, 1, 0], likelihood=likelihood
        )
        # Three points that make up a pass of five together.
        weighted = self._trained(
            x[[0, 2, 1]],
            [0, 2, 1],
            np.array([3.0, 1.0, 1.0]) * 3 / 5,
            likelihood=likelihood,
        )
        for one, other in zip(
            twice.trainable_variables, weighted.trainable_variables, strict=True
        ):
            self.assertAllClose(one, other, atol=1e-6)
        self.assertAllEqual(twice.states.packed, weighted.states.packed)

    def test_closed_forms_are_those_of_the_repeated_points(self):
        x = tiny.data()
        drawn = [0, 2, 0, 1, 0]
        # With all 16 states nothing is evolved, and rows need no store.
        model = self._trained(x[drawn], drawn, num_states=16)
        plain = self._trained(x[drawn], [0, 1, 2, 3, 4], num_states=16)
        self.assertAllClose(model.prior_probs, plain.prior_probs, atol=1e-6)
        self.assertAllClose(
            model.likelihood.variance, plain.likelihood.variance, rtol=1e-6
        )

    def test_weights_of_zero_leave_points_out(self):
        x = tiny.data()
        weights = np.array([5.0, 0.0, 0.0, 0.0, 0.0])
        model = self._trained(x[:5], [0, 1, 2, 3, 4], weights, num_states=16)
        alone = self._trained(x[[0] * 5], [0] * 5, num_states=16)
        self.assertAllClose(model.prior_probs, alone.prior_probs, atol=1e-6)
        self.assertAllClose(
            model.likelihood.variance, alone.likelihood.variance, rtol=1e-6
        )
        for one, other in zip(
            model.trainable_variables, alone.trainable_variables, strict=True
        ):
            self.assertAllClose(one, other, atol=1e-6)


class ClosedFormTest(tf.test.TestCase, parameterized.TestCase):
    def _best(self, old, x, states, fits_variance):
        """Maximises the bound, q fixed, over pi and variance numerically."""
        q = old.posterior(x, states)
        outputs = oracles.perceptron(old.weights, states)
        outputs = np.broadcast_to(outputs, (*q.shape, outputs.shape[-1]))
        states = np.broadcast_to(states, (*q.shape, tiny.NUM_LATENTS))
        means = old.offset + old.scale * outputs

        def loss(point):
            prior_probs = scipy.special.expit(point[: tiny.NUM_LATENTS])
            total = 0.0
            for n, k in np.ndindex(q.shape):
                term = oracles.log_prior(states[n, k], prior_probs)
                if fits_variance:
                    term += oracles.gaussian_log_prob(
                        np.float64(x[n]), means[n, k], np.exp(point[-1])
                    )
                total += q[n, k] * term
            return -total

        start = np.zeros(tiny.NUM_LATENTS + fits_variance)
        best = scipy.optimize.minimize(loss, start, tol=1e-9).x
        prior_probs = scipy.special.expit(best[: tiny.NUM_LATENTS])
        margin = prior.PRIOR_MARGIN
        return np.clip(prior_probs, margin, 1 - margin), np.exp(best[-1])

    @parameterized.parameters(
        ("gaussian", tiny.NUM_STATES, None, (11,)),
        ("gaussian", tiny.NUM_STATES, 3, (4, 3, 4)),
        ("gaussian", ALL_STATES, None, (11,)),
        ("bernoulli", tiny.NUM_STATES, None, (11,)),
    )
    @grids.by_default(1)
    def test_prior_and_variance_maximise_the_bound_over_a_pass(
        self, kind, num_states, num_m_states, visits
    ):
        # Batches of 4 do not divide 11; entries are missing; the pass may be
        # split over several calls of fit.
        model, x = (
            tiny.make(kind, num_states=num_states, num_m_states=num_m_states),
            tiny.data(),
        )
        _compiled(model)
        old = tiny.Parameters(model)
        stop = 0
        for visited in visits:
            self.assertAllClose(model.prior_probs, old.prior_probs)
            part = slice(stop, stop + visited)
            stop += visited
            model.fit(x[part], tiny.INDEX[part], batch_size=4, verbose=0)
        is_gaussian = kind == "gaussian"
        prior_probs, variance = self._best(
            old, x, _m_states(model), is_gaussian
        )
        self.assertAllClose(model.prior_probs, prior_probs, rtol=1e-4)
        if is_gaussian:
            self.assertAllClose(model.likelihood.variance, variance, rtol=1e-4)

    def test_exact_em_never_lowers_the_log_likelihood(self):
        model = _compiled(tiny.make(num_states=ALL_STATES))
        history = model.fit(
            tiny.data(), tiny.INDEX, batch_size=4, epochs=12, verbose=0
        ).history
        # The noise of float32 sums.
        self.assertAllGreaterEqual(np.diff(history["bound"]), -1e-6)
        self.assertGreater(history["bound"][-1], history["bound"][0] + 0.1)

    def test_prior_stays_inside_0_and_1(self):
        # A single state of a single data point: pi would be 0 or 1.
        model = _compiled(
            tiny.make(
                num_data=1,
                num_states=1,
                evolution=tvae.Evolution(num_parents=1),
            )
        )
        model.train_step((tiny.data()[:1], np.array([0])))
        state = tiny.stored_states(model)[0, 0]
        margin = prior.PRIOR_MARGIN
        self.assertAllClose(
            model.prior_probs, np.clip(state, margin, 1 - margin), atol=1e-7
        )


class EStepTest(tf.test.TestCase):
    def test_bound_of_each_data_point_rises_and_others_stay(self):
        model, x = _compiled(tiny.make()), tiny.data()
        parameters = tiny.Parameters(model)
        index = np.array([7, 0, 4])
        for _ in range(3):  # 9 of 11 visits: the parameters stay
            before, store = tiny.stored_states(model), model.states
            model.train_step((x[index], index))
            after = tiny.stored_states(model)
            gain = parameters.bounds(x, after) - parameters.bounds(x, before)
            self.assertAllGreaterEqual(gain, -1e-9)
            others = np.delete(tiny.INDEX, index)
            self.assertAllEqual(after[others], before[others])
            self.assertAllEqual(np.flatnonzero(store.visited), np.sort(index))
            for row in after:
                self.assertEqual(oracles.count_distinct(row), tiny.NUM_STATES)
        self.assertGreater(gain.max(), -1.0)

    def test_every_step_draws_from_a_stream_of_its_own(self):
        seeds = []

        def parents(seed, log_joints, num_parents):
            seeds.append(tuple(seed.numpy()))
            return tvae.Elite()(seed, log_joints, num_parents)

        for model_seed in (0, 1):
            model = tiny.make(
                seed=model_seed,
                evolution=tvae.Evolution(
                    parents, num_parents=3, num_generations=1
                ),
            )
            _compiled(model)
            for _ in range(3):
                model.train_step((tiny.data(), tiny.INDEX))
        self.assertLen(set(seeds), 6)


class LogTest(tf.test.TestCase):
    def test_logs_are_means_over_data_at_the_parameters_met(self):
        model, x = tiny.make(num_m_states=2), tiny.data()
        _compiled(model)
        old, before = tiny.Parameters(model), tiny.stored_states(model)
        noise_std = math.sqrt(float(model.likelihood.variance))
        # 4, 4 and 3 data points: means over data are not means over batches.
        history = model.fit(x, tiny.INDEX, batch_size=4, verbose=0).history
        after = tiny.stored_states(model)
        q = old.posterior(x, after)
        active = old.posterior(x, after[:, :2]) * after[:, :2].sum(-1)
        new = [
            [not (state == olds).all(-1).any() for state in news]
            for news, olds in zip(after, before, strict=True)
        ]
        expected = {
            "loss": -old.bounds(x, after).mean(),
            "bound": old.bounds(x, after).mean(),
            "active": active.sum(-1).mean(),
            "effective_states": (1.0 / (q**2).sum(-1)).mean(),
            "dropped_mass": q[:, 2:].sum(-1).mean(),
            "replaced": np.mean(new),
            "noise_std": noise_std,
        }
        self.assertEqual(set(history), set(expected))
        for name, value in expected.items():
            self.assertAllClose(history[name], [value], rtol=1e-4, msg=name)

    def test_bound_on_m_states_is_lower_by_the_dropped_mass(self):
        model, x = _compiled(tiny.make(num_m_states=2)), tiny.data()
        old = tiny.Parameters(model)
        model.train_step((x, tiny.INDEX))
        after = tiny.stored_states(model)
        mass = old.posterior(x, after)[:, 2:].sum(-1)
        self.assertAllClose(
            old.bounds(x, after) + np.log1p(-mass),
            old.bounds(x, after[:, :2]),
            rtol=1e-9,
        )


class FitTest(tf.test.TestCase):
    def _run(self, seed=0, kind="gaussian", fit=None, **compile_options):
        """Trains for two epochs, with a smaller last batch."""
        keras.utils.set_random_seed(1)  # the order of the data
        parents = CountingParents()
        evolution = tvae.Evolution(parents, num_parents=3, num_generations=1)
        model = tiny.make(kind, seed=seed, evolution=evolution)
        rate = schedules.TriangularCyclical(1e-3, 0.05, 2)
        _compiled(model, keras.optimizers.Adam(rate), **compile_options)
        model.fit(
            tiny.data(),
            tiny.INDEX,
            **{"batch_size": 4, "epochs": 2, "verbose": 0, **(fit or {})},
        )
        return model, parents

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model, cls.parents = cls._run(cls)

    def _assert_same(self, model):
        for found, expected in zip(
            model.variables, self.model.variables, strict=True
        ):
            self.assertAllEqual(found, expected)

    def test_step_is_traced_once_whatever_the_batch_sizes(self):
        self.assertEqual(self.parents.count, 1)

    def test_same_seed_gives_the_same_weights_and_states(self):
        model, _ = self._run()
        self._assert_same(model)

    def test_other_seeds_give_other_states(self):
        model, _ = self._run(seed=1)
        self.assertNotAllEqual(model.states.packed, self.model.states.packed)

    def test_several_steps_an_execution_give_the_same(self):
        model, _ = self._run(steps_per_execution=2)
        self._assert_same(model)

    def test_states_stay_distinct(self):
        for row in tiny.stored_states(self.model):
            self.assertEqual(oracles.count_distinct(row), tiny.NUM_STATES)

    def test_validation_is_logged_and_does_not_touch_training(self):
        held_out = tiny.data(seed=9)
        model, _ = self._run(fit={"validation_data": (held_out,)})
        self._assert_same(model)
        history = model.history.history
        evaluated = model.evaluate(
            held_out, batch_size=4, verbose=0, return_dict=True
        )
        self.assertEqual(set(evaluated), {"loss", "bound"})
        self.assertAllClose(history["val_bound"][-1], evaluated["bound"])
        # Each data point counts alike, in a smaller last batch too.
        bounds = [
            model.log_likelihood_bound(held_out[start : start + 4])
            for start in (0, 4, 8)
        ]
        self.assertAllClose(evaluated["bound"], np.concatenate(bounds).mean())

    @pytest.mark.slow  # Others show parts of it.
    @pytest.mark.slow  # test_keras_methods has the callbacks.
    def test_callbacks_stop_early_and_keep_the_best(self):
        path = self.create_tempdir().full_path + "/best.keras"
        weights = []
        callbacks = [
            keras.callbacks.ModelCheckpoint(
                path, monitor="val_bound", mode="max", save_best_only=True
            ),
            keras.callbacks.EarlyStopping(
                "val_bound",
                mode="max",
                min_delta=1e9,
                patience=2,
                restore_best_weights=True,
            ),
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda *_: weights.append(model.get_weights())
            ),
        ]
        keras.utils.set_random_seed(1)
        model = _compiled(tiny.make(), keras.optimizers.Adam(0.01))
        history = model.fit(
            tiny.data(),
            tiny.INDEX,
            batch_size=4,
            epochs=9,
            verbose=0,
            validation_data=(tiny.data(seed=9),),
            callbacks=callbacks,
        ).history
        self.assertLen(history["bound"], 3)
        for value, first in zip(model.get_weights(), weights[0], strict=True):
            self.assertAllEqual(value, first)
        best = keras.models.load_model(path)
        at_best = weights[int(np.argmax(history["val_bound"]))]
        for value, expected in zip(best.get_weights(), at_best, strict=True):
            self.assertAllEqual(value, expected)

    def test_dataset_of_data_and_indices_trains_as_well(self):
        model = _compiled(tiny.make(), keras.optimizers.Adam(0.01))
        dataset = tf.data.Dataset.from_tensor_slices(
            (tiny.data(), tiny.INDEX)
        ).batch(4)
        history = model.fit(
            dataset.repeat(), steps_per_epoch=6, shuffle=False, verbose=0
        )
        self.assertLen(history.history["bound"], 1)
        # Two passes of 3 batches.
        self.assertEqual(int(model._iteration), 6)
        self.assertEqual(int(model.prior.visits), 0)


class WrongInputTest(tf.test.TestCase, parameterized.TestCase):
    def test_training_without_an_index_is_reported(self):
        model = _compiled(tiny.make())
        with self.assertRaisesRegex(ValueError, r"\(x, index\).*got no index"):
            model.fit(tiny.data(), verbose=0)

    def test_training_without_stored_data_is_reported(self):
        model = _compiled(tiny.make(num_data=0))
        with self.assertRaisesRegex(RuntimeError, "created without `num_data`"):
            model.fit(tiny.data(), tiny.INDEX, verbose=0)

    def test_wrong_values_are_reported_by_fit_and_evaluate(self):
        model, x = _compiled(tiny.make("bernoulli")), tiny.data()
        infinite, missing, outside = x.copy(), x.copy(), 2.0 * x
        infinite[2, 1], missing[3] = np.inf, NAN
        for wrong, in_array, in_graph in (
            (infinite, "`x` must be finite", "x has infinite values"),
            (missing, "observed value in every row", "rows without any"),
            (outside, r"`x` must be in \[0, 1\]", r"x must be in \[0, 1\]"),
        ):
            with self.assertRaisesRegex(ValueError, in_array):
                model.fit(wrong, tiny.INDEX, verbose=0)
            with self.assertRaisesRegex(ValueError, in_array):
                model.evaluate(wrong, verbose=0)
            batches = tf.data.Dataset.from_tensors((wrong, tiny.INDEX))
            with self.assertRaisesRegex(
                tf.errors.InvalidArgumentError, in_graph
            ):
                model.fit(batches, shuffle=False, verbose=0)
        batches = tf.data.Dataset.from_tensors((x, tiny.INDEX + 1))
        with self.assertRaisesRegex(
            tf.errors.InvalidArgumentError,
            r"index must be in \[0, num_data = 11\), got",
        ):
            model.fit(batches, shuffle=False, verbose=0)
        for shape in ((4, 5), (4, 3, 1)):
            with self.assertRaisesRegex(ValueError, r"shape \[N, 3\]"):
                model.evaluate(np.ones(shape, np.float32), verbose=0)

    @parameterized.parameters(
        (np.ones((5, 4), np.float32), np.arange(5), ValueError, r"\[N, 3\]"),
        (np.ones((5, 3), bool), np.arange(5), TypeError, "`x` must be numbers"),
        (
            np.ones((5, 3), np.float32),
            np.arange(5.0),
            TypeError,
            "`index` must be integers, got float64",
        ),
    )
    def test_wrong_types_and_widths_are_reported(
        self, x, index, error, message
    ):
        model = _compiled(tiny.make())
        with self.assertRaisesRegex(error, message):
            model.train_step((x, index))

    def test_training_in_several_replicas_is_refused(self):
        model = _compiled(tiny.make())
        strategy = mock.Mock(num_replicas_in_sync=2)
        with (
            mock.patch.object(
                tf.distribute, "get_strategy", return_value=strategy
            ),
            self.assertRaisesRegex(RuntimeError, "trained in one replica"),
        ):
            model.train_step((tiny.data(), tiny.INDEX))


if __name__ == "__main__":
    tf.test.main()
