# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import math

import gin
import keras
import numpy as np
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized

from tests import oracles
from tfvae import likelihoods, networks, priors, tvae, vae
from tfvae.data import indexed_batches
from tfvae.ops import densities, random

T, K = 3, 5
GROUPS = {"one group": None, "three groups": (0, 1, 0, 1, 2)}


def _make(groups):
    return likelihoods.SequenceLikelihood(T, K, groups)


def _one_hot(symbols):
    rows = np.eye(K, dtype=np.float32)[symbols]
    return rows.reshape(*rows.shape[:-2], T * K)


def _data(num_data=6, seed=0):
    """Symbols `[N, T]` and their rows, some steps missing."""
    rng = np.random.default_rng(seed)
    symbols = rng.integers(0, K, (num_data, T))
    rows = _one_hot(symbols).reshape(num_data, T, K)
    is_missing = rng.random((num_data, T)) < 0.3
    rows[is_missing] = np.nan
    return np.where(is_missing, -1, symbols), rows.reshape(num_data, T * K)


def _outputs(num_states=4, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(0.0, 3.0, (num_states, T * K)).astype(np.float32)


def _log_prob(symbols, output, groups):
    """Log p of symbols `[T]`, -1 where missing, in float64, one by one."""
    logits = np.float64(output).reshape(T, K)
    total = 0.0
    for t, symbol in enumerate(symbols):
        if symbol >= 0:
            rivals = [
                k
                for k in range(K)
                if groups is None or groups[k] == groups[symbol]
            ]
            normaliser = sum(math.exp(logits[t, k]) for k in rivals)
            total += logits[t, symbol] - math.log(normaliser)
    return total


class SequenceLikelihoodTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.named_parameters(*GROUPS.items())
    def test_log_prob_equals_the_transcription(self, groups):
        likelihood = _make(groups)
        symbols, rows = _data()
        outputs = _outputs()
        expected = [
            [_log_prob(one, output, groups) for output in outputs]
            for one in symbols
        ]
        x, observed = densities.split_missing(tf.constant(rows[:, None]))
        log_prob = likelihood.log_prob(x, observed, tf.constant(outputs))
        self.assertAllClose(log_prob, expected, rtol=1e-5, atol=1e-5)
        of_data, of_outputs = likelihood.features(x[:, 0], observed[:, 0])
        pairs = tf.matmul(of_data, of_outputs(outputs), transpose_b=True)
        self.assertAllClose(pairs, expected, rtol=1e-5, atol=1e-5)

    def test_all_sequences_have_probability_1_together(self):
        likelihood = _make(None)
        x = _one_hot(np.array(list(itertools.product(range(K), repeat=T))))
        outputs = tf.constant(_outputs(1))
        log_prob = likelihood.log_prob(x, tf.ones_like(x), outputs)
        self.assertAllClose(tf.reduce_sum(tf.exp(log_prob)), 1.0, rtol=1e-4)

    @parameterized.named_parameters(*GROUPS.items())
    def test_mean_is_made_of_probabilities_that_masks_normalise(self, groups):
        outputs = _outputs()
        mean = _make(groups).mean(tf.constant(outputs))
        self.assertEqual(mean.shape, (4, T * K))
        steps = mean.numpy().reshape(4, T, K)
        self.assertAllClose(steps.sum(-1), np.ones((4, T)), rtol=1e-5)
        exact = np.exp(np.float64(outputs)).reshape(4, T, K)
        groups = np.zeros(K, int) if groups is None else np.array(groups)
        for group in set(groups):
            chosen = [
                one[..., groups == group]
                / one[..., groups == group].sum(-1, keepdims=True)
                for one in (steps, exact)
            ]
            self.assertAllClose(*chosen, rtol=1e-4)

    def test_far_logits_of_another_group_leave_the_mean_usable(self):
        likelihood = likelihoods.SequenceLikelihood(1, 3, (0, 0, 1))
        mean = likelihood.mean(tf.constant([[math.log(3.0), 0.0, 500.0]]))
        self.assertAllClose(mean, [[0.375, 0.125, 0.5]])

    @parameterized.named_parameters(*GROUPS.items())
    def test_samples_are_symbols_of_these_probabilities(self, groups):
        likelihood = _make(groups)
        outputs = tf.constant(_outputs(1)) / 3.0
        num_samples = 20000
        samples = likelihood.sample(
            random.make_seed(3), tf.repeat(outputs, num_samples, axis=0)
        ).numpy()
        likelihood.validate(samples)
        counts = samples.reshape(-1, T, K).sum(0)
        expected = likelihood.mean(outputs).numpy().reshape(T, K)
        for found, wanted in zip(counts, expected, strict=True):
            shares = np.float64(wanted) / np.float64(wanted).sum()
            test = scipy.stats.chisquare(found, shares * num_samples)
            self.assertGreater(test.pvalue, oracles.CHI_SQUARE_LEVEL)

    @parameterized.named_parameters(*GROUPS.items())
    def test_graph_of_unknown_sizes_gives_the_same(self, groups):
        likelihood = _make(groups)
        outputs = tf.constant(_outputs(6).reshape(2, 3, -1))
        for method in (
            likelihood.mean,
            lambda one: likelihood.sample(random.make_seed(0), one),
        ):
            compiled = tf.function(
                method,
                input_signature=[tf.TensorSpec([None, None, T * K])],
            )
            self.assertAllClose(compiled(outputs), method(outputs), rtol=1e-6)

    @parameterized.named_parameters(*GROUPS.items())
    def test_gradient_is_finite_at_extreme_outputs(self, groups):
        likelihood = _make(groups)
        x, observed = densities.split_missing(tf.constant(_data()[1]))
        outputs = 50.0 * tf.constant(_outputs(6))
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            log_prob = likelihood.log_prob(x, observed, outputs)
        self.assertAllInRange(log_prob, -1e6, 0.0)
        self.assertAllInRange(tape.gradient(log_prob, outputs), -10.0, 10.0)

    @parameterized.named_parameters(*GROUPS.items())
    def test_configuration_survives_a_round_trip(self, groups):
        likelihood = _make(groups)
        copy = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(likelihood)
        )
        self.assertEqual(copy.get_config(), likelihood.get_config())
        outputs = tf.constant(_outputs())
        self.assertAllEqual(copy.mean(outputs), likelihood.mean(outputs))

    def test_gin_refers_to_it_by_name(self):
        made = gin.get_configurable("SequenceLikelihood")(T, K)
        self.assertEqual(made.num_observed(T * K), T * K)

    def test_symbols_that_are_none_are_reported(self):
        likelihood = _make(None)
        _, rows = _data()
        likelihood.validate(rows)
        likelihood.validate(likelihood.mean(_outputs()).numpy())
        for value, message in (
            (
                0.5,
                r"`x` must be one-hot .* got \[1\.0, 0\.5.* at step 1 of row 2",
            ),
            (2.0, r"`x` must be in \[0, 1\]"),
        ):
            wrong = _one_hot(np.zeros((4, T), int))
            wrong[2, K + 1] = value
            with self.assertRaisesRegex(ValueError, message):
                likelihood.validate(wrong)
        wrong = np.zeros((1, T * K), np.float32)
        with self.assertRaisesRegex(ValueError, "at step 0 of row 0"):
            likelihood.validate(wrong)

    @parameterized.named_parameters(*GROUPS.items())
    def test_probabilities_weigh_the_symbols(self, groups):
        likelihood = _make(groups)
        outputs = tf.constant(_outputs(1))
        rows = _one_hot(np.array([[0, 1, 2], [2, 1, 4]]))
        mixed = 0.3 * rows[:1] + 0.7 * rows[1:]
        log_probs = likelihood.log_prob(rows, tf.ones_like(rows), outputs)
        self.assertAllClose(
            likelihood.log_prob(mixed, tf.ones_like(mixed), outputs),
            [0.3 * log_probs[0] + 0.7 * log_probs[1]],
            rtol=1e-5,
        )

    def test_wrong_arguments_are_reported(self):
        for arguments, message in (
            ((0, 3), "`num_steps` must be an integer of at least 1, got 0"),
            ((2, 3, (0, 1)), r"`groups` must be .* of 3 symbols.*\(0, 1\)"),
            ((2, 3, (0, 2, 2)), "`groups` must be .* none of them empty"),
        ):
            with self.assertRaisesRegex(ValueError, message):
                likelihoods.SequenceLikelihood(*arguments)
        with self.assertRaisesRegex(ValueError, "3 times 5 outputs.*got 16"):
            _make(None).num_observed(16)


class InModelsTest(tf.test.TestCase):
    def test_vae_learns_sequences(self):
        keras.utils.set_random_seed(0)
        model = vae.VAE(
            vae.learnable(
                lambda n: networks.sequence_encoder(n, T, K, (3,), (2,), 20), 2
            ),
            networks.sequence_decoder(T * K, T, 2, (20,)),
            priors.StandardNormalPrior(2),
            _make(GROUPS["three groups"]),
        )
        x = np.repeat(_one_hot(np.array([[0, 1, 4], [2, 3, 0]])), 32, 0)
        model.adapt(x)
        model.compile(keras.optimizers.Adam(0.03))
        model.fit(
            model.batches(x, 32), steps_per_epoch=80, verbose=0, shuffle=False
        )
        # Two sequences, equally likely: log p(x) = -log 2 at best.
        bound = model.log_likelihood_bound(x[::32], 64)
        self.assertAllInRange(bound, -1.2, 0.0)
        self.assertAllEqual(
            tf.reshape(model(x[::32]), [2, T, K])[:, 0, :3:2] > 0.25,
            [[True, False], [False, True]],
        )

    def test_tvae_learns_sequences(self):
        keras.utils.set_random_seed(0)
        x = np.repeat(_one_hot(np.array([[0, 1, 4], [2, 3, 0]])), 8, 0)
        model = tvae.TVAE(
            networks.FullyConnectedDecoder(T * K, (6,)),
            num_latents=3,
            num_states=8,
            num_data=len(x),
            likelihood=_make(GROUPS["three groups"]),
        )
        model.adapt(x)
        model.compile(keras.optimizers.Adam(0.1))
        batches = indexed_batches(x, 8, 0)
        model.fit(
            batches, steps_per_epoch=2, epochs=30, verbose=0, shuffle=False
        )
        # All sequences are equally likely at first: -2.9.
        self.assertAllInRange(model.log_likelihood(x[::8]), -1.5, 0.0)


if __name__ == "__main__":
    tf.test.main()
