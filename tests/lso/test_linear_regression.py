# SPDX-License-Identifier: Apache-2.0
"""Tests of Bayesian linear regression against normal densities."""

from __future__ import annotations

import numpy as np
import scipy.stats
import tensorflow as tf

from tfvae.lso import linear_regression


class LinearRegressionTest(tf.test.TestCase):
    def test_evidence_is_the_density_of_the_scores(self):
        rng = np.random.default_rng(0)
        features, scores = rng.normal(size=(7, 4)), rng.normal(size=7)
        covariance = features @ features.T + 0.3 * np.eye(7)
        self.assertAllClose(
            linear_regression.log_evidence(features, scores, 0.3),
            scipy.stats.multivariate_normal(cov=covariance).logpdf(scores),
        )

    def test_posterior_is_that_of_normal_weights(self):
        rng = np.random.default_rng(0)
        features, scores = rng.normal(size=(7, 4)), rng.normal(size=7)
        mean, root = linear_regression.posterior(
            tf.constant(features),
            tf.constant(scores),
            tf.constant(0.3, tf.float64),
        )
        # Conditional on the scores, as all are jointly normal.
        gain = features.T @ np.linalg.inv(
            features @ features.T + 0.3 * np.eye(7)
        )
        self.assertAllClose(mean, gain @ scores)
        self.assertAllClose(
            root.numpy() @ root.numpy().T, np.eye(4) - gain @ features
        )


if __name__ == "__main__":
    tf.test.main()
