# SPDX-License-Identifier: Apache-2.0
"""Tests of distances of generated data from real ones."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import tensorflow as tf
from absl.testing import parameterized

from tfvae.metrics import generative
from tfvae.ops import frechet

MAP = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


class Linear:
    """Features that are linear in the data; notes what it is asked for."""

    name = "linear features"

    def __init__(self):
        self.calls = []

    def __call__(self, points):
        self.calls.append(points)
        return points @ MAP


def _uniform(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(count, 6)).astype(np.float32)


class SampleDistancesTest(tf.test.TestCase, parameterized.TestCase):
    def test_distances_are_those_of_the_features(self):
        data, samples = _uniform(250), 0.5 * _uniform(130, 1)
        reference = generative.Reference.of(Linear(), data)
        found = generative.sample_distances(
            samples, reference, subset_size=50, num_subsets=7, seed=3
        )
        mean1, mean2 = ((points @ MAP).mean(0) for points in (samples, data))
        cov1, cov2 = (np.cov((x @ MAP).T) for x in (samples, data))
        root = scipy.linalg.sqrtm(cov1 @ cov2).real
        expected = ((mean1 - mean2) ** 2).sum() + np.trace(
            cov1 + cov2 - 2 * root
        )
        self.assertAllClose(found.frechet_distance, expected, rtol=1e-5)
        kernel = frechet.kernel_distance(
            samples @ MAP, data @ MAP, subset_size=50, num_subsets=7, seed=3
        )
        self.assertAllClose(found.kernel_distance, kernel.mean, rtol=1e-5)
        self.assertAllClose(found.kernel_distance_std, kernel.std, rtol=1e-4)
        self.assertEqual((found.num_samples, found.num_data), (130, 250))
        self.assertEqual(found.features, "linear features")

    def test_data_themselves_are_at_zero(self):
        data = _uniform(40)
        reference = generative.Reference.of(Linear(), data)
        found = generative.sample_distances(data, reference, num_subsets=1)
        self.assertAllClose(found.frechet_distance, 0.0, atol=1e-10)

    def test_all_are_compared_where_there_are_fewer_than_a_subset(self):
        data, samples = _uniform(30), _uniform(20, 1)
        reference = generative.Reference.of(Linear(), data)
        found = generative.sample_distances(samples, reference, num_subsets=4)
        kernel = frechet.kernel_distance(
            samples @ MAP, data @ MAP, subset_size=20, num_subsets=4
        )
        self.assertAllClose(found.kernel_distance, kernel.mean, rtol=1e-4)

    def test_features_of_data_are_computed_once_and_in_batches(self):
        extractor = Linear()
        data, samples = _uniform(250), _uniform(110, 1)
        reference = generative.Reference.of(extractor, data)
        for _ in range(2):
            generative.sample_distances(samples, reference, num_subsets=1)
        sizes = [len(points) for points in extractor.calls]
        self.assertEqual(sizes, [100, 100, 50, 100, 10, 100, 10])
        self.assertAllEqual(np.concatenate(extractor.calls[:3]), data)

    @parameterized.parameters(((0.0, 1.0),), ((-2.0, 0.5),))
    def test_samples_are_clipped_as_pictures_would_be(self, value_range):
        samples = 4.0 * _uniform(20) - 2.0
        reference = generative.Reference.of(Linear(), _uniform(20, 1))
        clipped = np.clip(samples, *value_range)
        self.assertEqual(
            generative.sample_distances(
                samples, reference, value_range=value_range, num_subsets=2
            ),
            generative.sample_distances(
                clipped, reference, value_range=(-9.0, 9.0), num_subsets=2
            ),
        )

    def test_distances_grow_with_the_noise(self):
        rng = np.random.default_rng(0)
        data = _uniform(500)
        reference = generative.Reference.of(Linear(), data)
        found = [
            generative.sample_distances(
                data + std * rng.normal(size=data.shape),
                reference,
                value_range=(-9.0, 9.0),
                num_subsets=2,
            )
            for std in (0.0, 0.2, 0.5, 1.0)
        ]
        for name in ("frechet_distance", "kernel_distance"):
            values = [getattr(one, name) for one in found]
            self.assertEqual(values, sorted(values))

    @parameterized.named_parameters(
        ("nan", np.full((3, 6), np.nan), r"`samples` must be finite.*3 of 3"),
        ("infinite", np.full((3, 6), np.inf), r"`samples` must be finite"),
        ("rank", np.zeros(6), r"`samples` must have shape.*\(6,\)"),
        ("one", np.zeros((1, 6)), r"`samples`.*at least two.*\(1, 6\)"),
    )
    def test_refuses_samples(self, samples, message):
        reference = generative.Reference.of(Linear(), _uniform(3))
        with self.assertRaisesRegex(ValueError, message):
            generative.sample_distances(samples, reference)

    def test_refuses_missing_entries_of_data(self):
        with self.assertRaisesRegex(ValueError, "`data` must be finite.*3 of"):
            generative.Reference.of(Linear(), np.full((3, 6), np.nan))


if __name__ == "__main__":
    tf.test.main()
