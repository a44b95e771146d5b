# SPDX-License-Identifier: Apache-2.0
"""Frechet distance and kernel distance (MMD) between sets of features."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import scipy.linalg


class Moments(NamedTuple):
    """The first two moments of feature vectors.

    Attributes:
      mean: `[F]` float64.
      covariance: `[F, F]` float64, unbiased.
    """

    mean: np.ndarray
    covariance: np.ndarray


class KernelDistance(NamedTuple):
    """Estimate of a squared distance, averaged over random subsets.

    Attributes:
      mean: Mean of the estimates over the subsets.
      std: Standard deviation of the estimates over the subsets.
    """

    mean: float
    std: float


def moments(features: np.ndarray) -> Moments:
    """Mean and covariance of feature vectors.

    Args:
      features: `[N, F]`, any float type; computed in float64.

    Returns:
      Their moments.

    Raises:
      ValueError: If there are fewer than two vectors or some are not finite.
    """
    return batch_moments([features])


def batch_moments(batches: Iterable[np.ndarray]) -> Moments:
    """Mean and covariance of feature vectors given in batches.

    Only one batch is in memory at a time. Batches are merged as by Chan, Golub
    and LeVeque, 1983, Algorithms for computing the sample variance, equation
    2.1, which loses no precision where the mean is far from zero.

    Args:
      batches: `[n, F]` each, any float type; computed in float64.

    Returns:
      The moments of all of them.

    Raises:
      ValueError: If there are fewer than two vectors or some are not finite.
    """
    count, mean, scatter = 0, np.zeros(()), np.zeros(())
    for batch in batches:
        batch = _as_features("features", batch)
        batch_mean = batch.mean(axis=0)
        centred = batch - batch_mean
        difference = batch_mean - mean
        total = count + len(batch)
        scatter = (
            scatter
            + centred.T @ centred
            + np.outer(difference, difference) * (count * len(batch) / total)
        )
        mean = mean + difference * (len(batch) / total)
        count = total
    if count < 2:
        raise ValueError(
            f"`features` must be at least 2 vectors, got {count!r}"
        )
    return Moments(mean, scatter / (count - 1))


def _as_features(name: str, features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(
            f"`{name}` must have shape [vectors, features], neither of them "
            f"zero, got shape {features.shape!r}"
        )
    if not np.isfinite(features).all():
        rows = np.flatnonzero(~np.isfinite(features).all(axis=1))
        raise ValueError(
            f"`{name}` must be finite, got other values in {rows.size} of "
            f"{len(features)} vectors"
        )
    return features


def frechet_distance(
    mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray
) -> float:
    """Squared Frechet distance between two Gaussians.

        |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1^1/2 C2 C1^1/2)^1/2

    It is the squared 2-Wasserstein distance. For features of images, it is
    the quantity that Heusel et al., 2017, GANs trained by a two time-scale
    update rule, equation 6, introduced as FID; like all later work they report
    it without a square root.

    Args:
      mean1: `[F]`.
      cov1: `[F, F]`, symmetric positive semi-definite; it is singular where
        there are fewer vectors than features.
      mean2: `[F]`.
      cov2: `[F, F]`, likewise.

    Returns:
      The squared distance, at least 0.

    Raises:
      ValueError: If shapes do not fit or values are not finite.
    """
    mean1, mean2 = (np.asarray(mean, np.float64) for mean in (mean1, mean2))
    cov1, cov2 = (np.asarray(cov, np.float64) for cov in (cov1, cov2))
    for name, array, shape in (
        ("mean2", mean2, mean1.shape),
        ("cov1", cov1, mean1.shape * 2),
        ("cov2", cov2, mean1.shape * 2),
    ):
        if array.shape != shape or mean1.ndim != 1:
            raise ValueError(
                f"`{name}` must have shape {shape!r} to fit `mean1`, a "
                f"vector, got shape {array.shape!r}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"`{name}` must be finite, got other values")
    # With C = R R', the eigenvalues of C1^1/2 C2 C1^1/2 are those of
    # R1' C2 R1 = (R2' R1)' (R2' R1), so their roots are the singular values
    # of R2' R1. Taken from there, none of them is the root of a rounding
    # error, and null spaces contribute nothing.
    roots = scipy.linalg.svdvals(_square_root(cov2).T @ _square_root(cov1))
    distance = (
        np.sum((mean1 - mean2) ** 2)
        + np.trace(cov1)
        + np.trace(cov2)
        - 2.0 * np.sum(roots)
    )
    return max(0.0, float(distance))


def _square_root(covariance: np.ndarray) -> np.ndarray:
    """R `[F, r]` with covariance = R R', of rank r."""
    variances, directions = scipy.linalg.eigh(covariance, driver="evd")
    # Eigenvalues below this cannot be distinguished from 0 (rounding).
    epsilon = np.finfo(np.float64).eps * len(covariance)
    kept = variances > epsilon * max(variances[-1], 0.0)
    if not kept.any():
        return np.zeros((len(covariance), 1))
    return directions[:, kept] * np.sqrt(variances[kept])


def kernel_distance(
    features1: np.ndarray,
    features2: np.ndarray,
    *,
    subset_size: int = 1000,
    num_subsets: int = 100,
    seed: int = 0,
) -> KernelDistance:
    """Kernel distance: the unbiased squared maximum mean discrepancy (MMD).

    With the kernel k(x, y) = (x . y / F + 1)^3, it is for two sets of n vectors

        sum_{i /= j} (k(x_i, x_j) + k(y_i, y_j)) / (n (n - 1))
            - 2 sum_{i, j} k(x_i, y_j) / n^2,

    averaged over pairs of random subsets. Its expectation is 0 for vectors
    from the same distribution, so it can be slightly negative.

    Reference: Binkowski, Sutherland, Arbel and Gretton, 2018, Demystifying MMD
    GANs, section 4.

    Args:
      features1: `[N1, F]`, any float type; computed in float64.
      features2: `[N2, F]`, likewise.
      subset_size: Vectors of each set in a subset, n.
      num_subsets: Pairs of subsets.
      seed: Seed of the subsets.

    Returns:
      Mean and standard deviation over the subsets.

    Raises:
      ValueError: If an argument is out of range.
    """
    features1 = _as_features("features1", features1)
    features2 = _as_features("features2", features2)
    if features1.shape[1] != features2.shape[1]:
        raise ValueError(
            "`features2` must have as many features as `features1` "
            f"({features1.shape[1]}), got shape {features2.shape!r}"
        )
    largest = min(len(features1), len(features2))
    if not 2 <= subset_size <= largest or num_subsets < 1:
        raise ValueError(
            f"`subset_size` must be in [2, {largest}], the number of vectors, "
            f"and `num_subsets` at least 1, got {subset_size!r} and "
            f"{num_subsets!r}"
        )
    generator = np.random.default_rng(seed)
    estimates = []
    for _ in range(num_subsets):
        subsets = [
            features[
                generator.choice(len(features), subset_size, replace=False)
            ]
            for features in (features1, features2)
        ]
        estimates.append(_squared_discrepancy(*subsets))
    return KernelDistance(float(np.mean(estimates)), float(np.std(estimates)))


def _squared_discrepancy(first: np.ndarray, second: np.ndarray) -> float:
    """The unbiased estimate from `[n, F]` and `[n, F]`."""
    count = len(first)
    within = 0.0
    for vectors in (first, second):
        kernel = _kernel(vectors, vectors)
        within += (kernel.sum() - np.trace(kernel)) / (count * (count - 1))
    return within - 2.0 * _kernel(first, second).mean()


def _kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """k(x_i, y_j) of `[n, F]` and `[m, F]`; returns `[n, m]`."""
    linear = first @ second.T / first.shape[1] + 1.0
    return linear * linear * linear  # many times as fast as linear ** 3
