# SPDX-License-Identifier: Apache-2.0
"""Tests of residuals as pictures, and of their autocorrelation."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfvae.ops import residuals


class ShownTest(tf.test.TestCase):
    def test_zero_and_missing_are_mid_grey_between_equal_magnitudes(self):
        residual = np.array([-4000.0, -2000.0, 0.0, np.nan, 2000.0, 4000.0])
        expected = [0.0, 63.75, 127.5, 127.5, 191.25, 255.0]
        self.assertAllClose(residuals.shown(residual), expected, rtol=0.01)

    def test_scale_is_that_of_the_data_but_for_outliers(self):
        residual = np.random.default_rng(0).normal(0.0, 0.01, (100, 100))
        residual[7, 7] = 50.0
        found = residuals.shown(residual)
        # Of a normal distribution 0.5 % are beyond 2.81 standard deviations.
        self.assertAllClose(found.std() / 127.5, 1 / 2.81, rtol=0.03)
        self.assertEqual(found[7, 7], 255.0)

    def test_few_entries_besides_zeros_are_seen(self):
        residual = np.zeros((100, 100))
        self.assertAllEqual(residuals.shown(residual), residual + 127.5)
        residual[3, 4] = -1e-3
        self.assertEqual(residuals.shown(residual)[3, 4], 0.0)


if __name__ == "__main__":
    tf.test.main()
