# SPDX-License-Identifier: Apache-2.0
"""Keras's methods of both models: what users mean by their arguments."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests import grids
from tests.lso import tiny
from tests.vae import tiny as tiny_vae
from tfvae import networks, tvae
from tfvae.ops import random

KINDS = {"VAE": tiny.model, "TVAE": tiny.binary_model}
EVERY = [(kind, kind) for kind in KINDS]
X = tiny.data().points
INDEX = np.arange(len(X))


def _targets(kind):
    """What `fit` needs beside data."""
    return INDEX if kind == "TVAE" else None


def _compiled(kind, optimizer="sgd", **settings):
    model = KINDS[kind]()
    # Tracing graphs would take longer than the few steps.
    model.compile(optimizer, **{"run_eagerly": True, **settings})
    return model


def _moved(model, before):
    return [
        after.numpy() - one
        for after, one in zip(model.trainable_variables, before, strict=True)
    ]


class TargetsTest(tf.test.TestCase, parameterized.TestCase):
    def test_vae_encodes_the_inputs_and_scores_the_targets(self):
        noisy = X + np.random.default_rng(0).normal(0.0, 2.0, X.shape)
        noisy = noisy.astype(np.float32)
        model = _compiled("VAE", run_eagerly=True)
        seen = {}
        encoder, likelihood = model.encoder, model.likelihood
        features, log_prob = encoder.features, likelihood.log_prob

        def spy_features(x):
            seen["encoder"] = x
            return features(x)

        def spy_log_prob(x, observed, outputs):
            seen["likelihood"] = x
            return log_prob(x, observed, outputs)

        encoder.features = spy_features
        likelihood.log_prob = spy_log_prob
        for call in (model.train_on_batch, model.test_on_batch):
            call(noisy, X)
            self.assertAllEqual(seen["encoder"], noisy)
            self.assertAllEqual(seen["likelihood"], X)
            call(noisy)
            self.assertAllEqual(seen["likelihood"], noisy)

    @pytest.mark.slow  # Others show parts of it.
    def test_denoising_vae_returns_cleaner_data_than_it_gets(self):
        rng = np.random.default_rng(0)
        causes = rng.normal(size=(400, 1))
        clean = (causes * [1.0, -2.0, 1.5, 0.5]).astype(np.float32)
        noisy = clean + rng.normal(0.0, 1.0, clean.shape).astype(np.float32)
        model = tiny.model()
        model.adapt(noisy, clean)
        model.compile(keras.optimizers.Adam(0.01))
        model.fit(noisy, clean, batch_size=50, epochs=30, verbose=0)
        model.calibrate(noisy, clean)
        error = np.mean((model.predict(noisy, verbose=0) - clean) ** 2)
        self.assertLess(error, 0.4)  # of the noise: 1
        # What is left of clean data is less than what is left of noisy data.
        remaining = float(model.likelihood.variance)
        model.calibrate(noisy)
        self.assertLess(remaining, 0.6 * float(model.likelihood.variance))

    def test_targets_that_are_the_inputs_change_nothing(self):
        weights = []
        for y in (None, X):
            model = _compiled("VAE")
            model.fit(X, y, shuffle=False, verbose=0)
            weights.append(model.get_weights())
        for one, other in zip(*weights, strict=True):
            self.assertAllEqual(one, other)

    @parameterized.parameters(
        (INDEX,), (np.eye(24)[:, :3],), (INDEX[:, None],), (X[:, :3],)
    )
    def test_labels_and_features_are_refused_by_a_vae(self, y):
        model = _compiled("VAE")
        for method in (model.fit, model.evaluate, model.train_on_batch):
            with self.assertRaisesRegex(ValueError, r"`y` must have .*Labels"):
                method(X, y)
        data = tf.data.Dataset.from_tensor_slices((X, y)).batch(8)
        with self.assertRaisesRegex(ValueError, r"`y` must have .*Labels"):
            model.fit(data, shuffle=False, verbose=0)

    def test_targets_of_a_tvae_are_the_index(self):
        model = _compiled("TVAE")
        for method in (model.fit, model.evaluate, model.train_on_batch):
            for y in (X, X[:, 0], INDEX[:5], np.eye(24, dtype=int)):
                with self.assertRaisesRegex(ValueError, "index of each row"):
                    method(X, y)
        with self.assertRaisesRegex(ValueError, r"in \[0, 24\).*got 24"):
            model.fit(X, INDEX + 1)
        for weights in (None, np.ones(len(X))):
            with self.assertRaisesRegex(ValueError, "got no index"):
                model.fit(X, sample_weight=weights, verbose=0)
        # Evaluation is of unseen data, whose index does not matter.
        bounds = [
            model.evaluate(X, y, verbose=0, return_dict=True)["bound"]
            for y in (None, INDEX, INDEX + 100)
        ]
        self.assertAllEqual(bounds, bounds[:1] * 3)

    def test_labels_of_a_tvae_are_no_index(self):
        model = _compiled("TVAE")
        labels = INDEX % 10
        for method in (model.fit, model.evaluate, model.train_on_batch):
            for y in (labels, labels[:, None]):
                with self.assertRaisesRegex(
                    ValueError, "labels; got rows 0 and 10, .* with index 0"
                ):
                    method(X, y)
        data = tf.data.Dataset.from_tensors((X, labels))
        rule = "must be equal where their indices are equal"
        with self.assertRaisesRegex(tf.errors.InvalidArgumentError, rule):
            model.fit(data, shuffle=False, verbose=0)
        # A row may occur several times, missing values and all.
        missing = np.where(INDEX[:, None] == [0, 1, 2, 3], np.nan, X)
        missing = missing.astype(np.float32)
        repeated = np.array([0, 5, 0, 1, 1])
        model.fit(missing[repeated], repeated, verbose=0)
        data = tf.data.Dataset.from_tensors((missing[repeated], repeated))
        model.fit(data, shuffle=False, verbose=0)

    def test_features_need_a_frozen_part_and_its_shape(self):
        x = tiny_vae.data()
        model = tiny_vae.make()
        model.compile("sgd")
        with self.assertRaisesRegex(ValueError, "no part .* is frozen"):
            model.fit((x, x))
        model = tiny_vae.make("non_learnable")
        model.compile("sgd")
        with self.assertRaisesRegex(ValueError, r"shape \(None, 2\).*\(.*6\)"):
            model.fit((x, x))


def _square(latents, targets):
    """A latent loss, float64."""
    sums = tf.reduce_sum(tf.cast(latents, tf.float64), 1)
    return tf.square(sums - tf.cast(targets, tf.float64))


class LatentLossTest(tf.test.TestCase, parameterized.TestCase):
    def _gradients(self, weights=None, **settings):
        """Returns what a step of gradient descent subtracts, and the logs."""
        model = _compiled("VAE", keras.optimizers.SGD(1.0), **settings)
        before = [one.numpy() for one in model.trainable_variables]
        y = X[:, 0] if settings else None
        logs = model.train_on_batch(X, y, weights, return_dict=True)
        return _moved(model, before), logs, model

    @parameterized.parameters(False, True)
    def test_its_gradients_are_added_to_those_of_the_objective(self, weighted):
        weights = np.linspace(0.0, 2.0, len(X)) if weighted else None
        plain, plain_logs, model = self._gradients(weights)
        both, logs, _ = self._gradients(weights, latent_loss=_square)
        # The same draws as in the step.
        model = tiny.model()
        seed = random.make_seed(model.seed, 0, 0, 0)
        share = np.ones(len(X)) if weights is None else weights
        with tf.GradientTape() as tape:
            latents = model.encoder(X, training=True).sample(seed)
            losses = tf.cast(_square(latents, X[:, 0]), tf.float32)
            loss = tf.reduce_mean(share * losses)
        added = tape.gradient(
            loss,
            [one.value for one in model.trainable_variables],
            unconnected_gradients="zero",
        )
        for one, other, gradient in zip(plain, both, added, strict=True):
            self.assertAllClose(other, one - gradient, rtol=1e-4, atol=1e-5)
        self.assertGreater(np.abs(added[0]).max(), 0.1)
        self.assertAllClose(logs["loss"], plain_logs["loss"] + loss, rtol=1e-5)
        mean = np.average(losses, weights=share)
        self.assertAllClose(logs["latent_loss"], mean, rtol=1e-5)
        self.assertNotIn("latent_loss", plain_logs)

    def test_loss_of_zero_changes_nothing(self):
        found = []
        for settings in ({}, {"latent_loss": lambda z, y: 0.0 * z[:, 0]}):
            model = _compiled("VAE", **settings)
            y = X[:, 0] if settings else None
            model.fit(X, y, shuffle=False, verbose=0)
            found.append(model.get_weights())
        for one, other in zip(*found, strict=True):
            self.assertAllEqual(one, other)

    def test_is_no_part_of_evaluation_nor_of_a_saved_model(self):
        model = _compiled("VAE", latent_loss=_square)
        plain = _compiled("VAE").evaluate(X, verbose=0, return_dict=True)
        for y in (None, X[:, 0]):
            logs = model.evaluate(X, y, verbose=0, return_dict=True)
            self.assertEqual(logs, plain)
        path = self.create_tempdir().full_path + "/model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
        logs = loaded.train_on_batch(X, return_dict=True)
        self.assertNotIn("latent_loss", logs)

    def test_targets_are_one_number_for_each_point(self):
        model = _compiled("VAE", latent_loss=_square)
        for y in (X, X[:, :1], X[:5, 0]):
            with self.assertRaisesRegex(ValueError, "`y` must have"):
                model.fit(X, y, verbose=0)
        for weights in (None, np.ones(len(X))):
            with self.assertRaisesRegex(ValueError, "`y` must be the targets"):
                model.fit(X, sample_weight=weights, verbose=0)
        with self.assertRaisesRegex(TypeError, "`latent_loss` must be a func"):
            model.compile("sgd", latent_loss=3.0)


class WeightsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.named_parameters(*EVERY)
    def test_weights_act_on_gradients_as_in_keras(self, kind):
        # The loss is the mean of weight times loss: halves halve the step.
        moved = []
        for weights in (None, np.full(len(X), 0.5)):
            model = _compiled(kind)
            before = [v.numpy() for v in model.trainable_variables]
            model.fit(
                X,
                _targets(kind),
                batch_size=len(X),
                sample_weight=weights,
                shuffle=False,
                verbose=0,
            )
            moved.append(_moved(model, before))
        self.assertGreater(max(np.abs(one).max() for one in moved[0]), 1e-4)
        for one, other in zip(*moved, strict=True):
            self.assertAllClose(0.5 * one, other, rtol=2e-3, atol=1e-6)

    def test_weights_of_zero_leave_rows_out(self):
        weights = (INDEX < 12).astype(np.float32)
        model = _compiled("TVAE")
        model.fit(X, INDEX, batch_size=24, sample_weight=weights, verbose=0)
        other = _compiled("TVAE")
        other.fit(X, INDEX, batch_size=24, verbose=0)
        # The closed forms, too, are weighted means: prior and noise.
        self.assertNotAllClose(model.prior_probs, other.prior_probs)
        doubled = _compiled("TVAE")
        doubled.fit(
            X, INDEX, batch_size=24, sample_weight=2.0 * weights, verbose=0
        )
        self.assertAllClose(model.prior_probs, doubled.prior_probs)
        self.assertAllClose(
            model.likelihood.variance, doubled.likelihood.variance, rtol=1e-5
        )

    def test_weight_of_two_equals_a_row_twice(self):
        # With all 2**H states a TVAE's bound has no noise.
        model = tvae.TVAE(
            networks.FullyConnectedDecoder(tiny.NUM_OBSERVED, (3,)),
            num_latents=2,
            num_data=30,
            num_states=4,
        )
        model.adapt(X)
        model.compile("sgd")
        weights = 1.0 + (INDEX % 3 == 0)
        twice = np.concatenate([X, X[::3]])
        weighted = model.evaluate(
            X, sample_weight=weights, verbose=0, return_dict=True
        )
        repeated = model.evaluate(twice, verbose=0, return_dict=True)
        self.assertAllClose(weighted["bound"], repeated["bound"], rtol=1e-6)
        # The loss is per row, as in Keras.
        self.assertAllClose(
            weighted["loss"] * len(X), repeated["loss"] * len(twice), rtol=1e-6
        )

    @parameterized.named_parameters(*EVERY)
    def test_metrics_are_weighted_means(self, kind):
        model = _compiled(kind)
        alone = model.evaluate(X[:1], verbose=0, return_dict=True)["bound"]
        only_first = model.evaluate(
            X,
            sample_weight=INDEX == 0,
            batch_size=len(X),
            verbose=0,
            return_dict=True,
        )["bound"]
        every = model.evaluate(X, verbose=0, return_dict=True)["bound"]
        # Draws differ by the place in a batch, the data point by far more.
        self.assertLess(abs(alone - only_first), 0.3 * abs(alone - every) + 0.5)
        self.assertNotAllClose(only_first, every)

    @parameterized.product(kind=list(KINDS), has_targets=[True, False])
    @grids.by_default(0, 2)
    def test_weights_of_validation_data_act(self, kind, has_targets):
        model = _compiled(kind)
        weights = np.linspace(0.0, 2.0, len(X), dtype=np.float32)
        y = X if kind == "VAE" else INDEX
        data = (X, y if has_targets else None, weights)
        logs = model.fit(
            X, _targets(kind), validation_data=data, verbose=0
        ).history
        expected = model.evaluate(
            X, sample_weight=weights, verbose=0, return_dict=True
        )
        self.assertAllClose(logs["val_bound"][0], expected["bound"])
        self.assertAllClose(logs["val_loss"][0], expected["loss"])
        self.assertNotAllClose(
            logs["val_bound"][0],
            model.evaluate(X, verbose=0, return_dict=True)["bound"],
        )

    @parameterized.product(
        kind=list(KINDS), wrong=[np.nan, -1.0, 2e12], is_dataset=[True, False]
    )
    def test_wrong_weights_are_refused(self, kind, wrong, is_dataset):
        weights = np.where(INDEX == 5, wrong, 1.0).astype(np.float32)
        model = _compiled(kind)
        y = _targets(kind)
        before = [v.numpy() for v in model.trainable_variables]
        rule = "sample_weight.* must be finite, not negative, and at"
        if is_dataset:
            y = X if y is None else y
            data = tf.data.Dataset.from_tensors((X, y, weights))
            with self.assertRaisesRegex(tf.errors.InvalidArgumentError, rule):
                model.fit(data, shuffle=False, verbose=0)
        else:
            for method in (model.fit, model.evaluate, model.test_on_batch):
                with self.assertRaisesRegex(ValueError, rule):
                    method(X, y, sample_weight=weights)
        for one in _moved(model, before):
            self.assertAllEqual(one, np.zeros_like(one))

    @parameterized.named_parameters(*EVERY)
    def test_other_arguments_about_weights_are_refused(self, kind):
        model = _compiled(kind)
        y = _targets(kind)
        for method in (model.fit, model.train_on_batch):
            with self.assertRaisesRegex(ValueError, "`class_weight` must be N"):
                method(X, y, class_weight={0: 1.0})
        with self.assertRaisesRegex(ValueError, r"shape \(24,\).*\(3,\)"):
            model.fit(X, y, sample_weight=np.ones(3))


class LogsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.named_parameters(*EVERY)
    def test_default_callbacks_watch_the_loss(self, kind):
        model = _compiled(kind)
        path = f"{self.create_tempdir().full_path}/best.weights.h5"
        callbacks = [
            keras.callbacks.EarlyStopping(),
            keras.callbacks.ReduceLROnPlateau(),
            keras.callbacks.ModelCheckpoint(
                path, save_best_only=True, save_weights_only=True
            ),
            keras.callbacks.TerminateOnNaN(),
        ]
        logs = model.fit(
            X,
            _targets(kind),
            validation_data=(X, _targets(kind)),
            epochs=2,
            callbacks=callbacks,
            verbose=0,
        ).history
        self.assertTrue(tf.io.gfile.exists(path))
        for name in ("", "val_"):
            loss, bound = logs[f"{name}loss"], logs[f"{name}bound"]
            self.assertAllClose(loss, np.negative(bound), rtol=1e-5)

    def test_loss_of_repeated_draws_is_minus_the_bound(self):
        model = _compiled("TVAE")
        index = np.array([0, 0, 0, 1, 2, 2], np.int32)
        logs = model.train_on_batch(X[index], index, return_dict=True)
        self.assertAllClose(logs["loss"], -logs["bound"], rtol=1e-6)


class ArgumentsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.named_parameters(*EVERY)
    def test_data_of_a_wrong_shape_are_refused(self, kind):
        model = _compiled(kind)
        y = _targets(kind)
        calls = [
            lambda x: model.fit(x, y),
            model.evaluate,
            model.predict,
            model.predict_on_batch,
            model.test_on_batch,
            lambda x: model.train_on_batch(x, y),
            lambda x: model.fit(X, y, validation_data=(x, None)),
            model.adapt,
            model.posterior_mode,
        ]
        for call in calls:
            for x in (X[:, :3], X[0], X[:, :, None]):
                with self.assertRaisesRegex(ValueError, r"shape \[N, 4\]"):
                    call(x)
            with self.assertRaisesRegex(ValueError, "at least one row"):
                call(X[:0])
            with self.assertRaisesRegex(ValueError, "must be finite"):
                call(np.where(X == X[3, 1], np.inf, X))

    @parameterized.named_parameters(*EVERY)
    def test_no_data_are_refused(self, kind):
        model = _compiled(kind)
        for call in (model.fit, model.evaluate, model.predict):
            with self.assertRaisesRegex(ValueError, "`x` must be .*got None"):
                call(None)

    @parameterized.named_parameters(*EVERY)
    def test_counts_are_integers_in_their_range(self, kind):
        model = KINDS[kind]()
        calls = [model.sample, model.sample_prior]
        if kind == "VAE":
            calls.append(lambda count: model.log_likelihood_bound(X, count))
        else:
            calls.append(lambda count: model.infer(X, max_steps=count))
        for call in calls:
            for wrong in (-1, 2.5, True, "3", [3], np.float32(2.0), None):
                if wrong is None and call is calls[-1]:
                    continue
                with self.assertRaisesRegex(ValueError, "must be an integer"):
                    call(wrong)
        for right in (2, np.int64(2), tf.constant(2)):
            self.assertLen(model.sample(right), 2)
        self.assertLen(model.sample(0), 0)
        with self.assertRaisesRegex(TypeError, "`seed` must be an integer"):
            model.sample(2, seed=0.5)

    @parameterized.named_parameters(*EVERY)
    def test_latents_are_finite(self, kind):
        model = KINDS[kind]()
        latents = np.zeros((2, model.num_latents))
        self.assertEqual(model.decode(latents).shape, [2, tiny.NUM_OBSERVED])
        latents[1, 1] = np.nan
        with self.assertRaisesRegex(ValueError, "`(latents|states)` must be"):
            model.decode(latents)

    @parameterized.named_parameters(*EVERY)
    def test_data_in_units_of_no_adapt_are_refused_in_training(self, kind):
        model = _compiled(kind)
        with self.assertRaisesRegex(ValueError, r"call adapt\(x\) first"):
            model.fit(1e20 * X, _targets(kind))

    def test_a_loss_is_refused_by_compile(self):
        for kind in KINDS:
            model = KINDS[kind]()
            with self.assertRaisesRegex(ValueError, "`loss` must be left out"):
                model.compile("sgd", loss="mse")
            self.assertFalse(model.compiled)


class NoWeightTest(tf.test.TestCase):
    def test_pass_without_any_weight_leaves_prior_and_noise(self):
        model = _compiled("TVAE")
        prior, noise = model.prior_probs.numpy(), model.likelihood.variance
        noise = float(noise)
        model.fit(X, INDEX, sample_weight=np.zeros(len(X)), verbose=0)
        self.assertAllEqual(model.prior_probs, prior)
        self.assertEqual(float(model.likelihood.variance), noise)


if __name__ == "__main__":
    tf.test.main()
