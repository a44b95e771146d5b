# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae import vae
from tfvae.ops import random


class SamplingScaleTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(1.0, 0.01, 0.0)
    def test_noise_of_training_is_scaled(self, scale):
        posterior = vae.GaussianPosterior(sampling_scale=scale)
        mean, log_variance = 3.0, np.log(4.0)
        outputs = tf.tile([[mean, log_variance]], [40000, 1])
        distribution = posterior.distribution(outputs)
        sample = posterior.training_sample(
            distribution, random.make_seed(0), tf.constant(0, tf.int64)
        )
        # Four standard errors of a standard deviation.
        std = 2.0 * scale
        error = 4.0 * std / np.sqrt(2.0 * 40000) + 1e-6
        self.assertAllClose(np.std(sample), std, rtol=0, atol=error)
        error = 4.0 * std / np.sqrt(40000) + 1e-6
        self.assertAllClose(np.mean(sample), mean, rtol=0, atol=error)

    def test_scale_of_1_changes_nothing(self):
        outputs = tf.constant([[0.3, 0.7, -1.0, 2.0]])
        distribution = vae.GaussianPosterior().distribution(outputs)
        seed = random.make_seed(4)
        self.assertAllEqual(
            vae.GaussianPosterior().training_sample(
                distribution, seed, tf.constant(0, tf.int64)
            ),
            distribution.sample(seed),
        )

    @parameterized.parameters(-0.1, np.inf, np.nan)
    def test_wrong_scale_is_reported(self, scale):
        with self.assertRaisesRegex(ValueError, "`sampling_scale` must be"):
            vae.GaussianPosterior(sampling_scale=scale)


if __name__ == "__main__":
    tf.test.main()
