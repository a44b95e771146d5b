# SPDX-License-Identifier: Apache-2.0
"""Estimate of the standard deviation of white noise in a picture.

Patches of pictures lie near a subspace, so that the smallest eigenvalues of
their covariance are those of the noise (Pyatykh, Hesser and Zheng, 2013, "Image
noise level estimation by principal component analysis"). Among finitely many
patches even the smallest ones of pure noise are below its variance: they are
compared with those of pure noise in a picture of the same size.
"""

from __future__ import annotations

import numpy as np

_SIDE = 8
# Share of the eigenvalues that are taken for those of the noise.
_SHARE = 0.1
# Values of patches in memory at a time.
_VALUES = 2**22


def noise_std(image: np.ndarray) -> float:
    """Estimates the standard deviation of the white noise of a picture.

    Texture as fine as noise counts as noise.

    Args:
      image: `[height, width, channels]`, NaN where missing.

    Returns:
      The standard deviation, in the units of the picture, the same for all
      channels; 0 for a picture without noise.

    Raises:
      ValueError: If fewer patches are complete than they have pixels.
    """
    image = np.asarray(image, np.float64)
    reference = np.random.default_rng(0).standard_normal(image.shape)
    reference[np.isnan(image)] = np.nan
    return float(np.sqrt(_least(image) / _least(reference)))


def _least(image: np.ndarray) -> float:
    """Returns the mean over channels of the mean of the least eigenvalues."""
    side = min(_SIDE, *image.shape[:2])
    found = [
        _least_of_channel(image[..., i], side) for i in range(image.shape[2])
    ]
    return float(np.mean(found))


def _least_of_channel(image: np.ndarray, side: int) -> float:
    dim = side * side
    windows = np.lib.stride_tricks.sliding_window_view(image, (side, side))
    # Sums of patches and of their products, some rows of patches at a time.
    centre = np.nanmean(image)
    step = max(1, _VALUES // (dim * windows.shape[1]))
    count, total, products = 0, np.zeros(dim), np.zeros((dim, dim))
    for i in range(0, len(windows), step):
        patches = windows[i : i + step].reshape(-1, dim) - centre
        patches = patches[~np.isnan(patches).any(-1)]
        count += len(patches)
        total += patches.sum(0)
        products += patches.T @ patches
    if count <= dim:
        raise ValueError(
            "the noise cannot be estimated, as only "
            f"{count} patches of {side} x {side} pixels are complete"
        )
    mean = total / count
    eigenvalues = np.linalg.eigvalsh(products / count - np.outer(mean, mean))
    least = eigenvalues[: max(1, int(_SHARE * dim))].mean()
    return max(float(least), 0.0)
