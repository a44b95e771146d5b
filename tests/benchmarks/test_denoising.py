# SPDX-License-Identifier: Apache-2.0
"""Tests of what pictures are restored by for comparison."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from sklearn.linear_model import OrthogonalMatchingPursuit

from benchmarks import dictionary
from benchmarks.denoising import damaged


class DenoisingTest(tf.test.TestCase):
    def test_codes_of_partly_observed_patches_are_those_of_sklearn(self):
        rng = np.random.default_rng(0)
        atoms = rng.normal(size=(12, 64))
        patches = 100.0 + rng.normal(0.0, 30.0, (5, 64))
        observed = rng.random((5, 64)) < [[0.2], [0.4], [0.6], [0.8], [1.0]]
        given = np.where(observed, patches, np.nan)
        found = dictionary.coded(given, observed, atoms)
        for patch, seen, one in zip(patches, observed, found, strict=True):
            mean = patch[seen].mean()
            part = atoms[:, seen]
            norms = np.linalg.norm(part, axis=1)
            pursuit = OrthogonalMatchingPursuit(
                n_nonzero_coefs=min(12, max(1, int(0.2 * seen.sum()))),
                fit_intercept=False,
            ).fit((part / norms[:, None]).T, patch[seen] - mean)
            expected = mean + (pursuit.coef_ / norms) @ atoms
            self.assertAllClose(one, expected, rtol=1e-6)

    def test_the_same_values_are_missing_for_all(self):
        clean = np.arange(600.0, dtype=np.float32).reshape(20, 30, 1)
        found = damaged(clean, 80.0)
        is_missing = np.isnan(found)
        self.assertAllEqual(np.isnan(damaged(clean, 80.0)), is_missing)
        self.assertAllEqual(found[~is_missing], clean[~is_missing])
        self.assertBetween(is_missing.mean(), 0.75, 0.85)


if __name__ == "__main__":
    tf.test.main()
