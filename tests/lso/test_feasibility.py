# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized

from tfvae.lso.feasibility import Feasibility
from tfvae.lso.surrogates import EnsembleRegressor, SparseGaussianProcess

LATENTS = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)


class FeasibilityTest(tf.test.TestCase, parameterized.TestCase):
    def _fitted(self, surrogate, **constraints):
        found = Feasibility(surrogate, constraints)
        found.fit(LATENTS, constraints, seed=1)
        return found

    @parameterized.parameters(SparseGaussianProcess, EnsembleRegressor)
    def test_it_is_the_product_over_independent_constraints(self, kind):
        inside = LATENTS[:, 0].astype(np.float64)
        below = LATENTS[:, 1] - 0.5
        below[::3] = np.nan  # Unknown there.
        found = self._fitted(kind(), inside=inside, below=below)
        expected = 0.0
        for values in (below, inside):
            known = ~np.isnan(values)
            surrogate = kind()
            surrogate.fit(LATENTS[known], values[known], 1, False)
            mean, std = (np.asarray(one) for one in surrogate.predict(LATENTS))
            expected += scipy.stats.norm.logcdf(
                0.0, mean, np.maximum(std, 1e-100)
            )
        log_probs = np.asarray(found(LATENTS))
        self.assertAllClose(np.exp(log_probs), np.exp(expected), atol=1e-9)
        self.assertEqual(found.names, ["below", "inside"])

    def test_it_has_a_gradient_where_nothing_is_feasible(self):
        size = 1e3 + LATENTS[:, 0].astype(np.float64)
        found = self._fitted(SparseGaussianProcess(), size=size)
        points = tf.constant(LATENTS, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(points)
            log_probs = found(points)
        gradients = tape.gradient(log_probs, points).numpy()
        self.assertAllInRange(log_probs, -1e300, -1e3)
        self.assertTrue(np.isfinite(gradients).all())
        self.assertGreater(np.abs(gradients).min(), 0.0)


if __name__ == "__main__":
    tf.test.main()
