# SPDX-License-Identifier: Apache-2.0
"""Tests of the autoregressive decoder against all sequences, enumerated."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized

from tfvae.networks.autoregressive import AutoregressiveDecoder
from tfvae.ops import random

T, K = 3, 3
# All that have symbol 0 after the first that is 0.
SEQUENCES = [
    one
    for one in itertools.product(range(K), repeat=T)
    if all(b == 0 for a, b in itertools.pairwise(one) if a == 0)
]


def _one_hot(sequences):
    rows = np.eye(K, dtype=np.float32)[np.array(sequences)]
    return tf.constant(rows.reshape(len(sequences), T * K))


def _decoder(has_positions=False, num_latents=T):
    decoder = AutoregressiveDecoder(T, K, num_latents, 5, has_positions)
    rng = np.random.default_rng(0)
    decoder.set_weights(
        [rng.normal(size=one.shape) for one in decoder.get_weights()]
    )
    return decoder


def _latents(count, seed=0):
    draws = np.random.default_rng(seed).normal(size=(count, T))
    return tf.constant(draws, tf.float32)


def _log_probs(decoder, latent):
    """Log-probabilities of all sequences, for one latent."""
    latents = tf.repeat(latent[None], len(SEQUENCES), 0)
    return decoder.log_prob(latents, _one_hot(SEQUENCES)).numpy()


class AutoregressiveDecoderTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(False, True)
    def test_probabilities_of_all_sequences_sum_to_one(self, has_positions):
        decoder = _decoder(has_positions)
        for latent in _latents(3):
            total = np.exp(_log_probs(decoder, latent)).sum()
            self.assertAllClose(total, 1.0, rtol=1e-5)

    def test_logits_depend_on_the_symbols_before_alone(self):
        decoder = _decoder()
        latents = tf.repeat(_latents(1), 2, 0)
        first, second = (
            decoder((latents, _one_hot([(1, 2, 1), other])))
            for other in ((1, 2, 1), (1, 1, 2))
        )
        first, second = (
            tf.reshape(one, [2, T, K])[1] for one in (first, second)
        )
        self.assertAllClose(first[:2], second[:2])
        self.assertNotAllClose(first[2], second[2])

    def test_a_step_sees_the_latents_of_its_position(self):
        decoder = _decoder(has_positions=True)
        decoder._start.set_weights(
            [0.0 * one for one in decoder._start.get_weights()]
        )
        x = _one_hot([(1, 2, 1)] * 2)
        latents = tf.constant([[1.0, 2.0, 3.0], [1.0, -2.0, 3.0]])
        logits = tf.reshape(decoder((latents, x)), [2, T, K])
        self.assertAllEqual(logits[0, 0], logits[1, 0])
        self.assertNotAllClose(logits[0, 1], logits[1, 1])

    @pytest.mark.slow  # A second each to trace.
    def test_draws_have_the_probabilities(self):
        decoder, latent = _decoder(), _latents(1)[0]
        count = 4000
        drawn = tf.function(decoder.sample)(
            tf.repeat(latent[None], count, 0), random.make_seed(3)
        ).numpy()
        places = {one: i for i, one in enumerate(SEQUENCES)}
        counts = np.bincount(
            [places[tuple(one)] for one in drawn.tolist()],
            minlength=len(SEQUENCES),
        )
        expected = count * np.exp(_log_probs(decoder, latent))
        is_often = expected > 5.0
        found = np.append(counts[is_often], counts[~is_often].sum())
        expected = np.append(expected[is_often], expected[~is_often].sum())
        test = scipy.stats.chisquare(
            found, expected / expected.sum() * found.sum()
        )
        self.assertGreater(test.pvalue, 1e-3)

    def test_low_temperature_draws_the_likeliest_symbols(self):
        decoder, latents = _decoder(), _latents(6)
        drawn = decoder.sample(latents, random.make_seed(0), 1e-4)
        best = decoder.beam_search(latents, 1)
        self.assertAllEqual(drawn, best.symbols[:, 0])

    @parameterized.parameters(False, True)
    def test_wide_search_finds_all_sequences_in_order(self, has_positions):
        decoder, latents = _decoder(has_positions), _latents(2)
        found = tf.function(decoder.beam_search)(latents, 20)
        for row, latent in enumerate(latents):
            log_probs = _log_probs(decoder, latent)
            order = np.argsort(-log_probs)
            count = len(SEQUENCES)
            self.assertAllEqual(
                found.symbols[row, :count], np.array(SEQUENCES)[order]
            )
            self.assertAllClose(found.log_probs[row, :count], log_probs[order])
            self.assertAllEqual(
                found.log_probs[row, count:], [-np.inf] * (20 - count)
            )

    def test_search_of_few_beams_gives_true_probabilities(self):
        decoder, latents = _decoder(), _latents(4)
        found = decoder.beam_search(latents, 2)
        for beam in range(2):
            self.assertAllClose(
                decoder.log_prob(
                    latents, _one_hot(found.symbols[:, beam].numpy())
                ),
                found.log_probs[:, beam],
            )

    @pytest.mark.slow  # A second each to trace.
    def test_learns_sequences_by_teacher_forcing(self):
        keras.utils.set_random_seed(0)
        decoder = AutoregressiveDecoder(T, K, T, 16)
        latents, x = (
            _latents(4),
            _one_hot([(1, 2, 0), (2, 2, 1), (0,) * 3, (1,) * 3]),
        )
        optimizer = keras.optimizers.Adam(0.03)
        optimizer.build(decoder.trainable_variables)

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                loss = -tf.reduce_mean(decoder.log_prob(latents, x))
            weights = decoder.trainable_variables
            optimizer.apply(tape.gradient(loss, weights), weights)
            return loss

        for _ in range(80):
            loss = step()
        self.assertLess(loss, 0.1)
        found = decoder.beam_search(latents, 3).symbols[:, 0]
        self.assertAllEqual(_one_hot(found.numpy()), x)

    @pytest.mark.slow  # Five seconds to trace and write it.
    def test_exported_decoder_gives_the_same(self):
        decoder, latents = _decoder(), _latents(3)
        folder = self.create_tempdir().full_path
        decoder.export(folder, num_beams=4)
        loaded = tf.saved_model.load(folder).signatures
        found = loaded["beam_search"](latents=latents)
        expected = decoder.beam_search(latents, 4)
        self.assertAllEqual(found["symbols"], expected.symbols)
        self.assertAllClose(found["log_probs"], expected.log_probs)
        seed = random.make_seed(1)
        drawn = loaded["sample"](latents=latents, seed=seed)["symbols"]
        self.assertAllEqual(drawn, decoder.sample(latents, seed))

    def test_every_argument_survives_a_round_trip(self):
        decoder = _decoder(has_positions=True, num_latents=2 * T)
        copy = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(decoder)
        )
        self.assertEqual(copy.get_config(), decoder.get_config())
        copy.set_weights(decoder.get_weights())
        latents = tf.ones([2, 2 * T])
        self.assertAllEqual(
            copy.beam_search(latents).symbols,
            decoder.beam_search(latents).symbols,
        )

    def test_wrong_sizes_are_reported(self):
        with self.assertRaisesRegex(ValueError, "multiple of the 3 steps.* 4"):
            AutoregressiveDecoder(3, 2, 4, has_positions=True)
        with self.assertRaisesRegex(ValueError, "`hidden` must be an integer"):
            AutoregressiveDecoder(3, 2, 4, 0)


if __name__ == "__main__":
    tf.test.main()
