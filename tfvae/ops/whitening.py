# SPDX-License-Identifier: Apache-2.0
"""ZCA whitening of data points."""

from __future__ import annotations

import numpy as np


def zca_whitening(
    points: np.ndarray, *, kept_variance: float = 0.95, bias: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """ZCA whitening: the decorrelating linear map nearest to the identity.

    With the covariance C + bias I = U diag(l) U', eigenvalues in descending
    order, the map is x -> (x - mean) U_k diag(l_k)^-1/2 U_k', where k is the
    smallest number of components that hold `kept_variance` of the sum of l.
    Whitened images look like line drawings of the originals.

    Reference: Bell and Sejnowski, 1997, The "independent components" of
    natural scenes are edge filters.

    Args:
      points: `[N, D]` without missing entries.
      kept_variance: Fraction of the variance to keep, in (0, 1].
      bias: Added to the variance in every direction; damps directions of
        little variance.

    Returns:
      The mean `[D]` and the symmetric map `[D, D]`, both float32: whiten
      with `(points - mean) @ map`.

    Raises:
      ValueError: If an argument is out of range or entries are missing.
    """
    if not 0.0 < kept_variance <= 1.0 or not bias >= 0.0:
        raise ValueError(
            "`kept_variance` must be in (0, 1] and `bias` at least 0, got "
            f"{kept_variance!r} and {bias!r}"
        )
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ValueError(
            "`points` must have shape [points, dimensions] and no missing "
            f"entries, got shape {points.shape!r}"
        )
    mean = points.mean(axis=0)
    centred = points - mean
    covariance = centred.T @ centred / len(points)
    variances, directions = np.linalg.eigh(
        covariance + bias * np.eye(points.shape[1])
    )
    variances, directions = variances[::-1], directions[:, ::-1]
    positive = variances > 1e-12 * variances[0]
    shares = np.cumsum(variances) / variances.sum()
    # Slightly less than the whole, as the sum of the shares is rounded.
    needed = min(kept_variance, 1.0 - 1e-12)
    count = min(int(np.searchsorted(shares, needed)) + 1, positive.sum())
    kept = directions[:, :count]
    transform = (kept / np.sqrt(variances[:count])) @ kept.T
    return mean.astype(np.float32), transform.astype(np.float32)
