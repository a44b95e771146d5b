# SPDX-License-Identifier: Apache-2.0
"""Tests of whitening by the statistics that it promises."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae.ops import whitening


def _points(num_data=400, num_observed=6, rank=6):
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(rank, num_observed))
    return generator.normal(size=(num_data, rank)) @ mixing + 3.0


class ZcaWhiteningTest(tf.test.TestCase, parameterized.TestCase):
    def test_covariance_becomes_the_identity(self):
        points = _points()
        mean, transform = whitening.zca_whitening(
            points, kept_variance=1.0, bias=0.0
        )
        white = (points - mean) @ transform
        self.assertAllClose(white.mean(axis=0), np.zeros(6), atol=1e-5)
        self.assertAllClose(white.T @ white / 400, np.eye(6), atol=1e-4)
        self.assertAllClose(transform, transform.T)

    @parameterized.parameters(0.3, 0.7, 0.95)
    def test_fewest_components_that_keep_the_variance(self, kept_variance):
        points = _points()
        _, transform = whitening.zca_whitening(
            points, kept_variance=kept_variance, bias=0.0
        )
        spectrum = np.sort(np.linalg.eigvalsh(np.cov(points.T)))[::-1]
        rank = np.linalg.matrix_rank(transform, tol=1e-4)
        share = spectrum.cumsum() / spectrum.sum()
        self.assertGreaterEqual(share[rank - 1], kept_variance)
        self.assertLess(
            share[rank - 1] - spectrum[rank - 1] / spectrum.sum(), kept_variance
        )

    def test_bias_damps_each_direction_as_stated(self):
        points = _points()
        mean, transform = whitening.zca_whitening(
            points, kept_variance=1.0, bias=0.5
        )
        covariance = np.cov(points.T, bias=True)
        square = transform.astype(np.float64) @ transform
        self.assertAllClose(
            square @ (covariance + 0.5 * np.eye(6)), np.eye(6), atol=1e-4
        )

    def test_directions_without_variance_are_dropped(self):
        points = _points(rank=4)
        mean, transform = whitening.zca_whitening(
            points, kept_variance=1.0, bias=0.0
        )
        self.assertEqual(np.linalg.matrix_rank(transform, tol=1e-4), 4)
        self.assertTrue(np.isfinite(transform).all())

    @parameterized.named_parameters(
        ("kept", np.zeros((3, 2)), {"kept_variance": 0.0}, "`kept_variance`"),
        ("bias", np.zeros((3, 2)), {"bias": -1.0}, "`bias` at least 0.*-1"),
        ("rank", np.zeros(3), {}, r"`points` must have shape.*\(3,\)"),
        ("missing", np.full((3, 2), np.nan), {}, "no missing entries"),
    )
    def test_refuses(self, points, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            whitening.zca_whitening(points, **arguments)


if __name__ == "__main__":
    tf.test.main()
