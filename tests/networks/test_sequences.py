# SPDX-License-Identifier: Apache-2.0
"""Tests of the networks for sequences against numpy transcriptions."""

from __future__ import annotations

import functools

import keras
import numpy as np
import tensorflow as tf

from tfvae import likelihoods, networks, priors, vae


def _sigmoid(values):
    return 1.0 / (1.0 + np.exp(-values))


def _gru(steps, kernel, recurrent, bias):
    """A gated recurrent unit that resets states before it multiplies them."""
    size = len(recurrent)
    state = np.zeros((len(steps), size))
    states = []
    for t in range(steps.shape[1]):
        into = steps[:, t] @ kernel + bias
        gates = _sigmoid(into[:, : 2 * size] + state @ recurrent[:, : 2 * size])
        update, reset = gates[:, :size], gates[:, size:]
        new = np.tanh(
            into[:, 2 * size :] + (reset * state) @ recurrent[:, 2 * size :]
        )
        state = update * state + (1.0 - update) * new
        states.append(state)
    return np.stack(states, 1)


def _normalized(values, gamma, beta, mean, variance):
    return gamma * (values - mean) / np.sqrt(variance + 1e-3) + beta


def _with_other_weights(network):
    """Gives every weight a value that is not its first."""
    rng = np.random.default_rng(0)
    weights = [
        weight + rng.uniform(0.1, 0.5, weight.shape)
        for weight in network.get_weights()
    ]
    network.set_weights(weights)
    return iter([np.float64(weight) for weight in weights])


class EncoderTest(tf.test.TestCase):
    def test_equals_the_transcription(self):
        network = networks.sequence_encoder(3, 5, 2, (3, 2), (2, 3), 4)
        weights = _with_other_weights(network)
        x = np.random.default_rng(1).normal(size=(6, 10))
        values = x.reshape(6, 5, 2)
        for size in (2, 3):
            kernel, bias = next(weights), next(weights)
            places = range(values.shape[1] - size + 1)
            values = np.stack(
                [
                    np.einsum("bti,tio->bo", values[:, t : t + size], kernel)
                    for t in places
                ],
                1,
            )
            values = np.maximum(values + bias, 0.0)
            values = _normalized(values, *(next(weights) for _ in range(4)))
        values = values.reshape(6, -1) @ next(weights) + next(weights)
        values = np.maximum(values, 0.0) @ next(weights) + next(weights)
        self.assertAllClose(network(tf.constant(x, tf.float32)), values, 1e-4)

    def test_wrong_arguments_are_reported(self):
        for arguments, message in (
            (((2, 3), (2,)), "`kernel_sizes` must have one entry for each of"),
            (((), ()), "at least one, got"),
            (((2, 3), (3, 4)), "must leave at least one of the 5 steps"),
        ):
            with self.assertRaisesRegex(ValueError, message):
                networks.sequence_encoder(3, 5, 2, *arguments)


class DecoderTest(tf.test.TestCase):
    def test_equals_the_transcription(self):
        network = networks.sequence_decoder(12, 4, 3, (5, 2))
        weights = _with_other_weights(network)
        latents = np.random.default_rng(1).normal(size=(6, 3))
        values = _normalized(latents, *(next(weights) for _ in range(4)))
        values = np.maximum(values @ next(weights) + next(weights), 0.0)
        values = np.repeat(values[:, None], 4, axis=1)
        for _ in range(2):
            values = _gru(values, *(next(weights) for _ in range(3)))
        values = values @ next(weights) + next(weights)
        self.assertAllClose(
            network(tf.constant(latents, tf.float32)),
            values.reshape(6, 12),
            1e-4,
        )

    def test_outputs_that_are_no_steps_are_reported(self):
        with self.assertRaisesRegex(ValueError, "`num_outputs` .* of 4.*13"):
            networks.sequence_decoder(13, 4, 3)


def _convolved(values, kernel, bias):
    """A convolution of width 3 of `[b, T, i]`, padded with zeros."""
    padded = np.pad(values, ((0, 0), (1, 1), (0, 0)))
    return bias + sum(
        padded[:, k : k + values.shape[1]] @ kernel[k] for k in range(3)
    )


def _residual(values, weights, num_blocks):
    values = values @ next(weights) + next(weights)
    for _ in range(num_blocks):
        change = values
        for _ in range(2):
            change = _convolved(
                np.maximum(change, 0.0), next(weights), next(weights)
            )
        values = values + change
    return values


class ResidualTest(tf.test.TestCase):
    def test_encoder_equals_the_transcription(self):
        network = networks.residual_sequence_encoder(20, 5, 3, 2, 4, 2)
        weights = _with_other_weights(network)
        x = np.random.default_rng(1).normal(size=(6, 15))
        values = _residual(x.reshape(6, 5, 3), weights, 2)
        values = values @ next(weights) + next(weights)
        # Both latents of a position, then both of their log-variances.
        means, log_variances = values[..., :2], values[..., 2:]
        expected = np.concatenate(
            [means.reshape(6, 10), log_variances.reshape(6, 10)], 1
        )
        self.assertAllClose(network(tf.constant(x, tf.float32)), expected, 1e-4)

    def test_decoder_equals_the_transcription(self):
        network = networks.residual_sequence_decoder(15, 5, 2, 4, 3)
        weights = _with_other_weights(network)
        latents = np.random.default_rng(1).normal(size=(6, 10))
        values = _residual(latents.reshape(6, 5, 2), weights, 3)
        values = np.maximum(values, 0.0) @ next(weights) + next(weights)
        self.assertAllClose(
            network(tf.constant(latents, tf.float32)),
            values.reshape(6, 15),
            1e-4,
        )

    def test_latents_act_close_to_their_position_alone(self):
        network = networks.residual_sequence_decoder(40, 20, 3, 4, 1)
        latents = np.zeros((2, 20, 3), np.float32)
        latents[1, 9] = 1.0
        outputs = network(latents.reshape(2, 60)).numpy().reshape(2, 20, 2)
        changed = np.abs(outputs[0] - outputs[1]).max(-1) > 0.0
        self.assertAllEqual(np.flatnonzero(changed), range(7, 12))

    def test_a_vae_has_latents_for_each_position(self):
        model = vae.VAE(
            vae.learnable(
                functools.partial(
                    networks.residual_sequence_encoder,
                    num_steps=5,
                    num_symbols=3,
                    num_channels=2,
                    filters=4,
                    num_blocks=1,
                ),
                10,
            ),
            networks.residual_sequence_decoder(15, 5, 2, 4),
            priors.StandardNormalPrior(10),
            likelihoods.SequenceLikelihood(5, 3),
        )
        x = np.eye(3, dtype=np.float32)[np.arange(20).reshape(4, 5) % 3]
        x = x.reshape(4, 15)
        x[1] = x[0]
        x[1, 12:] = [0.0, 0.0, 1.0]
        modes = model.posterior_mode(x).reshape(4, 5, 2)
        # Two convolutions see two steps to either side.
        self.assertAllEqual(modes[0, :2], modes[1, :2])
        self.assertNotAllClose(modes[0, 2], modes[1, 2])

    def test_wrong_arguments_are_reported(self):
        with self.assertRaisesRegex(ValueError, "`num_outputs` .* of 10.*25"):
            networks.residual_sequence_encoder(25, 5, 3, 2)
        with self.assertRaisesRegex(ValueError, "`num_outputs` .* of 4.*13"):
            networks.residual_sequence_decoder(13, 4, 3)
        with self.assertRaisesRegex(ValueError, "`kernel_size` must be an in"):
            networks.residual_sequence_decoder(12, 4, 3, kernel_size=0)


class PublishedTest(tf.test.TestCase):
    def test_networks_have_the_published_number_of_weights(self):
        # Of 12 symbols in 15 steps, with 25 latents: 169,271, of which 68 are
        # moving averages.
        parts = [
            networks.sequence_encoder(50, 15, 12),
            networks.sequence_decoder(180, 15, 25),
        ]
        self.assertEqual(sum(part.count_params() for part in parts), 169_271)
        averages = [w for part in parts for w in part.non_trainable_weights]
        self.assertEqual(sum(keras.ops.size(weight) for weight in averages), 68)


if __name__ == "__main__":
    tf.test.main()
