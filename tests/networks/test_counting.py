# SPDX-License-Identifier: Apache-2.0
"""Tests of counts of weights against published ones."""

from __future__ import annotations

import keras
import tensorflow as tf
from absl.testing import parameterized

from tfvae import networks
from tfvae.networks import counting


def _trainable(kind, policy):
    """Weights of the published models with a normal prior that train."""
    if kind == "fc":
        encoder = networks.fully_connected_encoder(32, 1024)
        decoder = networks.FullyConnectedDecoder(1024, (128, 256, 512, 1024))
        decoder.build((None, 16))
    else:
        encoder = networks.conv_encoder(32, (32, 32, 1))
        decoder = networks.upsampling_decoder(1024, (32, 32, 1), 16)
    last = [layer for layer in encoder.layers if layer.weights][-1]
    return {
        "L": encoder.weights + decoder.weights,
        "PNL": last.weights + decoder.weights,
        "NL": decoder.weights,
    }[policy]


class CountingTest(tf.test.TestCase, parameterized.TestCase):
    def test_counts_of_a_dense_layer(self):
        layer = keras.layers.Dense(5)
        layer.build((None, 3))
        self.assertEqual(counting.num_parameters(layer.weights), 3 * 5 + 5)
        self.assertEqual(counting.sum_of_dimensions(layer.weights), 3 + 5 + 5)
        self.assertEqual(counting.num_parameters([]), 0)
        self.assertEqual(counting.sum_of_dimensions([]), 0)

    # Random kitchen sinks train what non-learnable encoders do.
    @parameterized.parameters(
        ("fc", "L", 10_256),
        ("fc", "PNL", 7_952),
        ("fc", "NL", 7_824),
        ("conv", "L", 521),
        ("conv", "PNL", 434),
        ("conv", "NL", 396),
    )
    def test_sums_of_dimensions_are_the_published_numbers(
        self, kind, policy, published
    ):
        weights = _trainable(kind, policy)
        self.assertEqual(counting.sum_of_dimensions(weights), published)

    def test_number_of_parameters_is_another(self):
        weights = _trainable("fc", "L")
        self.assertEqual(counting.num_parameters(weights), 2_047_328)


if __name__ == "__main__":
    tf.test.main()
