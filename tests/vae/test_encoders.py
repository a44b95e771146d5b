# SPDX-License-Identifier: Apache-2.0
"""Tests of encoders and of what they freeze."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests.vae import tiny
from tfvae import vae
from tfvae.vae import encoders


def _residual(num_outputs):
    """A functional network with a skip connection before its last layer."""
    x = inputs = keras.Input((tiny.NUM_OBSERVED,))
    h = keras.layers.Dense(tiny.NUM_OBSERVED, "relu")(x)
    h = keras.layers.Add()([x, h])
    return keras.Model(inputs, keras.layers.Dense(num_outputs)(h))


class PolicyTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        ("learnable", 6 * 5 + 5 + 5 * 4 + 4 + 4 * 4 + 4 + 2 * (5 + 4)),
        ("partially_non_learnable", 4 * 4 + 4),
        ("non_learnable", 0),
        ("random_kitchen_sinks", 0),
    )
    def test_policy_trains_what_it_says(self, policy, num_trained):
        encoder = tiny.make(policy).encoder
        sizes = [int(np.prod(v.shape)) for v in encoder.trainable_variables]
        self.assertEqual(sum(sizes), num_trained)

    @parameterized.parameters(*tiny.POLICIES)
    def test_posterior_is_a_gaussian_of_all_latents(self, policy):
        posterior = tiny.make(policy).encode(tiny.data())
        self.assertEqual(posterior.mean.shape, [tiny.NUM_DATA, 2])
        self.assertTrue(np.isfinite(posterior.log_prob(posterior.mean)).all())

    @parameterized.parameters("non_learnable", "random_kitchen_sinks")
    def test_frozen_variance_is_the_published_one(self, policy):
        posterior = tiny.make(policy).encode(tiny.data())
        self.assertAllClose(tf.exp(posterior.log_variance), 1e-6, rtol=1e-5)

    @parameterized.parameters(*tiny.POLICIES)
    def test_features_and_rest_make_the_whole(self, policy):
        encoder = tiny.make(policy).encoder
        x = tf.constant(tiny.data())
        parts = encoder.posterior_of_features(encoder.features(x))
        self.assertAllEqual(parts.mean, encoder(x).mean)

    def test_frozen_layers_are_those_of_the_network(self):
        whole = tiny.network(4)
        encoder = encoders.Encoder(*vae.encoders.cut_before_last(whole))
        x = tf.constant(tiny.data())
        mean, _ = tf.split(whole(x, training=False), 2, -1)
        self.assertAllClose(encoder(x).mean, mean, atol=1e-6)

    def test_any_chain_can_be_cut(self):
        encoder = vae.partially_non_learnable(_residual, 2)
        self.assertEqual(encoder.feature_shape, (tiny.NUM_OBSERVED,))
        self.assertLen(encoder.trainable_variables, 2)

    def test_frozen_layers_run_in_inference_mode(self):
        encoder = tiny.make("partially_non_learnable").encoder
        x = tf.constant(tiny.data())
        one, other = encoder(x, training=True), encoder(x, training=True)
        self.assertAllEqual(one.mean, other.mean)

    def test_network_that_cannot_be_cut_is_reported(self):
        with self.assertRaisesRegex(ValueError, "two layers with weights.*1"):
            vae.partially_non_learnable(tiny.sinks, 2)

    def test_sinks_of_several_layers_are_reported(self):
        with self.assertRaisesRegex(ValueError, "one layer with weights"):
            vae.random_kitchen_sinks(tiny.network, 2)

    def test_encoder_without_network_is_reported(self):
        with self.assertRaisesRegex(ValueError, "got None for both"):
            encoders.Encoder(None, None)

    def test_parts_that_do_not_fit_are_reported(self):
        with self.assertRaisesRegex(ValueError, r"shape, \(4,\), got \(6,\)"):
            encoders.Encoder(tiny.network(4), tiny.network(4))

    def test_odd_outputs_are_reported(self):
        with self.assertRaisesRegex(ValueError, "even number of outputs.*3"):
            encoders.Encoder(None, tiny.network(3))


class FrozenFeaturesTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        ("partially_non_learnable", 4),
        ("non_learnable", 2),
        ("random_kitchen_sinks", 2),
    )
    def test_features_are_the_frozen_network_s(self, policy, width):
        encoder = tiny.make(policy).encoder
        x = tiny.data(num_data=2500)
        found = vae.frozen_features(encoder, x)
        self.assertEqual(found.shape, (2500, width))
        self.assertAllClose(found, encoder.features(x), atol=1e-6)

    def test_there_are_none_where_all_trains(self):
        encoder = tiny.make().encoder
        self.assertIsNone(vae.frozen_features(encoder, tiny.data()))

    def test_file_holds_what_memory_would(self):
        encoder = tiny.make("non_learnable").encoder
        path = self.create_tempdir().full_path + "/cache/features.npy"
        found = vae.frozen_features(
            encoder, tiny.data(), path=path, max_memory_bytes=10
        )
        self.assertIsInstance(found, np.memmap)
        self.assertAllEqual(found, vae.frozen_features(encoder, tiny.data()))
        self.assertAllEqual(np.load(path), found)

    def test_missing_file_is_reported(self):
        encoder = tiny.make("non_learnable").encoder
        with self.assertRaisesRegex(ValueError, "104 bytes, more than"):
            vae.frozen_features(encoder, tiny.data(), max_memory_bytes=10)


if __name__ == "__main__":
    tf.test.main()
