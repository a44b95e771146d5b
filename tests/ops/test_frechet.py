# SPDX-License-Identifier: Apache-2.0
"""Tests of distances of feature vectors, against closed forms and loops."""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized

from tfvae.ops import frechet


def _covariance(rng, size, rank=None):
    """A random covariance matrix of given rank."""
    root = rng.normal(size=(size, rank or size))
    return root @ root.T / size


def _rotation(rng, size):
    return np.linalg.qr(rng.normal(size=(size, size)))[0]


class MomentsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters((2, 1), (50, 3), (5, 20))
    def test_equal_those_of_numpy(self, count, size):
        features = np.random.default_rng(0).normal(size=(count, size))
        found = frechet.moments(features)
        covariance = np.cov(features, rowvar=False).reshape(size, size)
        self.assertAllClose(found.mean, features.mean(0), rtol=1e-12)
        self.assertAllClose(found.covariance, covariance, rtol=1e-12)

    @parameterized.parameters(((7,),), ((1, 1, 5),), ((3, 1, 2, 1),))
    def test_batches_do_not_matter(self, sizes):
        features = np.random.default_rng(0).normal(3.0, size=(7, 4))
        parts = np.split(features, np.cumsum(sizes)[:-1])
        found = frechet.batch_moments(iter(parts))
        for one, other in zip(found, frechet.moments(features), strict=True):
            self.assertAllClose(one, other, rtol=1e-12, atol=1e-14)

    def test_distant_mean_costs_no_precision(self):
        # E[x^2] - E[x]^2 would leave no digit of the variance: 1e16 has a
        # rounding error of about 1.
        features = np.random.default_rng(0).normal(size=(1000, 2))
        shifted = frechet.batch_moments(np.split(features + 1e8, 10))
        expected = frechet.moments((features + 1e8) - 1e8).covariance
        self.assertAllClose(shifted.covariance, expected, rtol=1e-7)

    def test_float32_features_are_summed_in_float64(self):
        features = np.full((3000, 1), 0.1, np.float32)
        self.assertAllClose(
            frechet.moments(features).mean, [float(np.float32(0.1))], rtol=1e-14
        )

    @parameterized.named_parameters(
        ("rank", np.zeros(3), r"`features` must have shape.*\(3,\)"),
        ("empty", np.zeros((0, 3)), r"`features` must have shape.*\(0, 3\)"),
        ("one", np.zeros((1, 3)), r"at least 2 vectors, got 1"),
        ("nan", np.array([[0.0], [np.nan]]), r"finite.*1 of 2 vectors"),
    )
    def test_refuses(self, features, message):
        with self.assertRaisesRegex(ValueError, message):
            frechet.moments(features)

    def test_refuses_no_batches(self):
        with self.assertRaisesRegex(ValueError, r"at least 2 vectors, got 0"):
            frechet.batch_moments([])


class FrechetDistanceTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(1, 2, 30)
    def test_axes_add_up_where_covariances_are_diagonal(self, size):
        rng = np.random.default_rng(size)
        mean1, mean2 = rng.normal(size=(2, size))
        std1, std2 = rng.uniform(0.1, 3.0, size=(2, size))
        expected = ((mean1 - mean2) ** 2 + (std1 - std2) ** 2).sum()
        # Neither do they care for the axes' directions.
        turn = _rotation(rng, size)
        for u in (np.eye(size), turn):
            found = frechet.frechet_distance(
                u @ mean1,
                u @ np.diag(std1**2) @ u.T,
                u @ mean2,
                u @ np.diag(std2**2) @ u.T,
            )
            self.assertAllClose(found, expected, rtol=1e-10)

    def test_planar_covariances_have_a_closed_form(self):
        # Of a 2 x 2 matrix, (tr M^1/2)^2 = tr M + 2 (det M)^1/2; here of
        # M = C1 C2, whose factors do not commute.
        rng = np.random.default_rng(0)
        cov1, cov2 = _covariance(rng, 2), _covariance(rng, 2)
        product = cov1 @ cov2
        root = math.sqrt(
            np.trace(product) + 2.0 * math.sqrt(np.linalg.det(product))
        )
        expected = np.trace(cov1) + np.trace(cov2) - 2.0 * root
        zero = np.zeros(2)
        self.assertAllClose(
            frechet.frechet_distance(zero, cov1, zero, cov2),
            expected,
            rtol=1e-10,
        )

    def test_linear_transport_map_has_a_closed_form(self):
        # x -> A x with a symmetric positive A is the optimal map, and costs
        # E |x - A x|^2 = tr (I - A) C (I - A).
        rng = np.random.default_rng(0)
        cov, a = _covariance(rng, 6), _covariance(rng, 6) + 0.1 * np.eye(6)
        rest = np.eye(6) - a
        zero = np.zeros(6)
        self.assertAllClose(
            frechet.frechet_distance(zero, cov, zero, a @ cov @ a),
            np.trace(rest @ cov @ rest),
            rtol=1e-10,
        )

    @parameterized.parameters((10, 10), (64, 64), (64, 20))
    def test_identical_gaussians_are_at_zero(self, size, rank):
        rng = np.random.default_rng(0)
        mean, cov = rng.normal(size=size), _covariance(rng, size, rank)
        found = frechet.frechet_distance(mean, cov, mean, cov)
        self.assertBetween(found, 0.0, 1e-12 * np.trace(cov))

    def test_points_are_as_far_as_their_means(self):
        mean1, mean2 = np.array([1.0, 2.0]), np.array([4.0, -2.0])
        zero = np.zeros((2, 2))
        self.assertAllClose(
            frechet.frechet_distance(mean1, zero, mean2, zero), 25.0
        )

    def test_singular_covariances_have_a_closed_form(self):
        # Of rank 1, C_i = v_i v_i', and the trace of the root is |v1 . v2|.
        rng = np.random.default_rng(0)
        first, second = rng.normal(size=(2, 100))
        zero = np.zeros(100)
        found = frechet.frechet_distance(
            zero, np.outer(first, first), zero, np.outer(second, second)
        )
        expected = first @ first + second @ second - 2 * abs(first @ second)
        self.assertAllClose(found, expected, rtol=1e-12)

    def test_orthogonal_subspaces_share_nothing(self):
        rng = np.random.default_rng(0)
        turn = _rotation(rng, 40)
        variances = rng.uniform(size=40)
        halves = np.arange(40) < 20
        cov1 = (turn * (variances * halves)) @ turn.T
        cov2 = (turn * (variances * ~halves)) @ turn.T
        zero = np.zeros(40)
        self.assertAllClose(
            frechet.frechet_distance(zero, cov1, zero, cov2),
            variances.sum(),
            rtol=1e-12,
        )

    @parameterized.parameters(3, 50)
    def test_equals_the_published_formula(self, size):
        # As the public programs compute it, with the square root of a matrix
        # that is not symmetric.
        rng = np.random.default_rng(size)
        mean1, mean2 = rng.normal(size=(2, size))
        cov1, cov2 = _covariance(rng, size), _covariance(rng, size)
        root = scipy.linalg.sqrtm(cov1 @ cov2).real
        expected = (
            np.sum((mean1 - mean2) ** 2)
            + np.trace(cov1)
            + np.trace(cov2)
            - 2.0 * np.trace(root)
        )
        found = frechet.frechet_distance(mean1, cov1, mean2, cov2)
        self.assertAllClose(found, expected, rtol=1e-6)
        swapped = frechet.frechet_distance(mean2, cov2, mean1, cov1)
        self.assertAllClose(found, swapped, rtol=1e-12)

    def test_sampled_gaussians_are_as_far_as_the_true_ones(self):
        # d = sum_i (m_i^2 + (s_i - 1)^2) for N(m, diag s^2) and N(0, I). To
        # first order only the estimated m_i and s_i matter, with variances
        # s^2 / N and s^2 / 2N, so the variance of the estimate is
        #     sum_i (4 m_i^2 (s_i^2 + 1) + 2 (s_i - 1)^2 (s_i^2 + 1)) / N,
        # and its bias of order F^2 / N, here 8e-4.
        count = 20_000
        mean, std = np.array([0.0, 1.0, -0.5, 2.0]), np.array([1, 0.5, 2, 1])
        rng = np.random.default_rng(0)
        samples = [
            frechet.moments(mean + std * rng.normal(size=(count, 4))),
            frechet.moments(rng.normal(size=(count, 4))),
        ]
        found = frechet.frechet_distance(*samples[0], *samples[1])
        expected = (mean**2 + (std - 1) ** 2).sum()
        weights = 4 * mean**2 + 2 * (std - 1) ** 2
        error = math.sqrt((weights * (std**2 + 1)).sum() / count)
        self.assertLess(abs(found - expected), 3 * error + 8e-4)

    @parameterized.named_parameters(
        ("mean2", {"mean2": np.zeros(3)}, r"`mean2` must.*\(2,\).*\(3,\)"),
        ("cov1", {"cov1": np.zeros(2)}, r"`cov1` must.*\(2, 2\).*\(2,\)"),
        ("cov2", {"cov2": np.eye(3)}, r"`cov2` must.*\(2, 2\).*\(3, 3\)"),
        ("nan", {"cov2": np.full((2, 2), np.nan)}, r"`cov2` must be finite"),
        ("rank", {"mean1": np.zeros(())}, r"`mean2` must.*`mean1`, a vector"),
    )
    def test_refuses(self, changed, message):
        moments = {
            "mean1": np.zeros(2),
            "cov1": np.eye(2),
            "mean2": np.zeros(2),
            "cov2": np.eye(2),
        }
        with self.assertRaisesRegex(ValueError, message):
            frechet.frechet_distance(**(moments | changed))


def _naive_discrepancy(first, second):
    """The unbiased estimate, one pair after the other."""
    size = len(first[0])

    def kernel(x, y):
        return (sum(a * b for a, b in zip(x, y, strict=True)) / size + 1) ** 3

    count, total = len(first), 0.0
    for i in range(count):
        for j in range(count):
            total -= 2.0 * kernel(first[i], second[j]) / count**2
            if i != j:
                within = kernel(first[i], first[j])
                within += kernel(second[i], second[j])
                total += within / (count * (count - 1))
    return total


class KernelDistanceTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters((2, 1), (9, 4))
    def test_equals_a_loop_over_pairs(self, count, size):
        rng = np.random.default_rng(0)
        first, second = rng.normal(size=(2, count, size))
        found = frechet.kernel_distance(
            first, second, subset_size=count, num_subsets=3
        )
        expected = _naive_discrepancy(first.tolist(), second.tolist())
        self.assertAllClose(found.mean, expected, rtol=1e-10)
        # The only subset is the whole, in another order.
        self.assertAllClose(found.std, 0.0, atol=1e-10)

    def test_subsets_are_averaged(self):
        # All subsets of two of three and of three vectors are as likely.
        rng = np.random.default_rng(0)
        first, second = rng.normal(size=(2, 3, 2))
        pairs = [(0, 1), (0, 2), (1, 2)]
        every = [
            _naive_discrepancy(first[list(one)], second[list(other)])
            for one in pairs
            for other in pairs
        ]
        found = frechet.kernel_distance(
            first, second, subset_size=2, num_subsets=2000
        )
        error = np.std(every) / math.sqrt(2000)
        self.assertLess(abs(found.mean - np.mean(every)), 3 * error)
        self.assertAllClose(found.std, np.std(every), rtol=0.1)

    def test_same_distribution_is_at_zero_on_average(self):
        # Unbiased: over independent pairs of sets the mean is zero, to three
        # standard errors, whereas with the diagonal it would be far from it.
        rng = np.random.default_rng(0)
        estimates = [
            frechet.kernel_distance(
                *rng.normal(size=(2, 20, 5)), subset_size=20, num_subsets=1
            ).mean
            for _ in range(2000)
        ]
        error = np.std(estimates) / math.sqrt(2000)
        self.assertLess(abs(np.mean(estimates)), 3 * error)
        self.assertLess(error, 0.01)

    def test_shifted_gaussian_has_a_closed_form(self):
        # In one dimension k(x, y) = x^3 y^3 + 3 x^2 y^2 + 3 x y + 1, so the
        # squared discrepancy is the sum of squared differences of the first
        # three moments, weighted 3, 3, 1. Of N(1, 1) these are 1, 2, 4; of
        # N(0, 1) they are 0, 1, 0: 3 + 3 + 16.
        rng = np.random.default_rng(0)
        estimates = [
            frechet.kernel_distance(
                rng.normal(1.0, size=(200, 1)),
                rng.normal(size=(200, 1)),
                subset_size=200,
                num_subsets=1,
            ).mean
            for _ in range(200)
        ]
        error = np.std(estimates) / math.sqrt(200)
        self.assertLess(abs(np.mean(estimates) - 22.0), 3 * error)

    def test_seed_decides_the_subsets(self):
        rng = np.random.default_rng(0)
        first, second = rng.normal(size=(2, 30, 2))

        def distance(seed):
            return frechet.kernel_distance(
                first, second, subset_size=5, num_subsets=4, seed=seed
            )

        self.assertEqual(distance(0), distance(0))
        self.assertNotEqual(distance(0), distance(1))

    @parameterized.named_parameters(
        (
            "large",
            {"subset_size": 5},
            r"`subset_size` must be in \[2, 4\].* 5 ",
        ),
        (
            "small",
            {"subset_size": 1},
            r"`subset_size` must be in \[2, 4\].* 1 ",
        ),
        ("none", {"num_subsets": 0}, r"`num_subsets` at least 1.* 0"),
        ("width", {"features2": np.zeros((9, 2))}, r"`features2` must.*9, 2"),
        ("nan", {"features1": np.full((9, 3), np.nan)}, r"`features1`.*9 of 9"),
    )
    def test_refuses(self, changed, message):
        arguments = {
            "features1": np.zeros((4, 3)),
            "features2": np.zeros((9, 3)),
            "subset_size": 3,
            "num_subsets": 2,
        } | changed
        with self.assertRaisesRegex(ValueError, message):
            frechet.kernel_distance(**arguments)


if __name__ == "__main__":
    tf.test.main()
