# SPDX-License-Identifier: Apache-2.0
"""Overlapping patches of an image, and merging of patch estimates.

Patches are cut at a regular stride; where the stride does not reach the
border, one more patch is placed flush with it, so that every pixel lies in
at least one patch. Patches are ordered row by row, each flattened as
[patch_height, patch_width, channels].
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

MergeMethod = Literal["mean", "median", "gaussian"]
"""How the estimates of one pixel by several patches become one value."""

MERGE_METHODS: tuple[MergeMethod, ...] = ("mean", "median", "gaussian")

_GAUSSIAN_STD_IN_PATCHES = 0.5
"""Standard deviation of the merging window, as a share of the patch side."""

_MEDIAN_BYTES = 64 * 2**20
"""Memory for the estimates whose medians are taken at a time."""


def patch_starts(image_size: int, patch_size: int, stride: int) -> np.ndarray:
    """First pixels of the patches along one axis.

    Args:
      image_size: Pixels of the image along the axis.
      patch_size: Pixels of a patch along the axis.
      stride: Distance of neighbouring patches.

    Returns:
      `[n]` ascending int: the multiples of `stride` that fit, and the last
      position that fits.

    Raises:
      ValueError: If the patch does not fit or a number is not positive.
    """
    if patch_size < 1 or stride < 1:
        raise ValueError(
            "`patch` and `stride` must be at least 1, got "
            f"{patch_size!r} and {stride!r}"
        )
    if patch_size > image_size:
        raise ValueError(
            f"`patch` must not exceed the image ({image_size} pixels), got "
            f"{patch_size!r}"
        )
    if stride > patch_size:
        raise ValueError(
            f"`stride` must not exceed the patch ({patch_size} pixels), so "
            f"that patches cover every pixel, got {stride!r}"
        )
    last = image_size - patch_size
    starts = np.arange(0, last + 1, stride)
    return starts if starts[-1] == last else np.append(starts, last)


def extract_patches(
    image: np.ndarray, patch: tuple[int, int], stride: int = 1
) -> np.ndarray:
    """Cuts an image into overlapping patches.

    Args:
      image: `[height, width, channels]`; NaN entries are kept.
      patch: Height and width of a patch in pixels.
      stride: Distance of neighbouring patches in pixels.

    Returns:
      `[N, patch_height * patch_width * channels]` of the image's dtype.

    Raises:
      ValueError: If the image has another rank or a patch does not fit.
    """
    image = np.asarray(image)
    if image.ndim != 3:
        raise ValueError(
            "`image` must have shape [height, width, channels], got shape "
            f"{image.shape!r}"
        )
    rows, columns = _grid(image.shape, patch, stride)
    windows = np.lib.stride_tricks.sliding_window_view(
        image, tuple(patch), axis=(0, 1)
    )  # [height', width', channels, ph, pw]
    windows = np.moveaxis(windows, 2, -1)  # [height', width', ph, pw, channels]
    picked = windows[np.ix_(rows, columns)]
    return picked.reshape(len(rows) * len(columns), -1)


def merge_patches(
    patches: np.ndarray,
    image_shape: tuple[int, int, int],
    patch: tuple[int, int],
    stride: int = 1,
    method: MergeMethod = "mean",
) -> np.ndarray:
    """Merges patch estimates into an image; inverse of `extract_patches`.

    Args:
      patches: `[N, patch_height * patch_width * channels]` in the order of
        `extract_patches`. NaN entries give no estimate.
      image_shape: Height, width and channels of the image.
      patch: Height and width of a patch in pixels.
      stride: Distance of neighbouring patches in pixels.
      method: Per pixel, the mean of its estimates, their median, or their
        mean weighted by a Gaussian window that favours patch centres
        (standard deviation half a patch side).

    Returns:
      `[height, width, channels]` float32; NaN where no patch gave an
      estimate.

    Raises:
      ValueError: If shapes do not fit together or `method` is unknown.
    """
    if method not in MERGE_METHODS:
        raise ValueError(
            f"`method` must be one of {MERGE_METHODS!r}, got {method!r}"
        )
    rows, columns = _grid(image_shape, patch, stride)
    grid = (len(rows), len(columns), *patch, image_shape[2])
    patches = np.asarray(patches)
    expected = (grid[0] * grid[1], math.prod(grid[2:]))
    if patches.shape != expected:
        raise ValueError(
            f"`patches` must have shape {expected!r} for an image of shape "
            f"{tuple(image_shape)!r}, got shape {patches.shape!r}"
        )
    blocks = patches.reshape(grid)
    if method == "median":
        return _merge_median(blocks, image_shape, rows, columns)
    window = np.ones(patch) if method == "mean" else _gaussian_window(patch)
    return _merge_weighted(blocks, image_shape, rows, columns, window)


def _grid(
    image_shape: tuple[int, ...], patch: tuple[int, int], stride: int
) -> tuple[np.ndarray, np.ndarray]:
    if len(image_shape) != 3 or len(patch) != 2:
        raise ValueError(
            "`image_shape` must be (height, width, channels) and `patch` "
            f"(height, width), got {image_shape!r} and {patch!r}"
        )
    return (
        patch_starts(image_shape[0], patch[0], stride),
        patch_starts(image_shape[1], patch[1], stride),
    )


def _gaussian_window(patch: tuple[int, int]) -> np.ndarray:
    profiles = []
    for size in patch:
        distance = np.arange(size) - (size - 1) / 2
        std = _GAUSSIAN_STD_IN_PATCHES * size
        profiles.append(np.exp(-0.5 * (distance / std) ** 2))
    return np.outer(*profiles)


def _merge_weighted(
    blocks: np.ndarray,  # [rows, columns, ph, pw, channels]
    image_shape: tuple[int, int, int],
    rows: np.ndarray,
    columns: np.ndarray,
    window: np.ndarray,  # [ph, pw]
) -> np.ndarray:
    total = np.zeros(image_shape)
    weight = np.zeros(image_shape)
    height, width = window.shape
    # One row of patches at a time stays in the cache. For one column of
    # their pixels, no two patches touch the same pixel, so one vectorised
    # sum serves them all.
    for top, line in zip(rows, blocks, strict=True):
        known = ~np.isnan(line)  # [columns, ph, pw, channels]
        estimate = np.where(known, line, 0.0)
        for column in range(width):
            target = (slice(top, top + height), columns + column)
            share = window[:, None, column, None]
            total[target] += share * estimate[:, :, column].swapaxes(0, 1)
            weight[target] += share * known[:, :, column].swapaxes(0, 1)
    with np.errstate(invalid="ignore"):
        return (total / weight).astype(np.float32)


def _merge_median(
    blocks: np.ndarray,  # [rows, columns, ph, pw, channels]
    image_shape: tuple[int, int, int],
    rows: np.ndarray,
    columns: np.ndarray,
) -> np.ndarray:
    height, width, channels = image_shape
    patch = blocks.shape[2:4]
    image = np.empty(image_shape, dtype=np.float32)
    row_bytes = math.prod(patch) * width * channels * 4
    step = max(1, _MEDIAN_BYTES // row_bytes)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        estimates = np.full(
            (bottom - top, width, channels, math.prod(patch)),
            np.nan,
            dtype=np.float32,
        )
        for layer, (row, column) in enumerate(np.ndindex(*patch)):
            # No two patches have this pixel of theirs in the same place.
            inside = (rows + row >= top) & (rows + row < bottom)
            target = np.ix_(rows[inside] + row - top, columns + column)
            estimates[..., layer][target] = blocks[inside, :, row, column]
        image[top:bottom] = _median_of_known(estimates)
    return image


def _median_of_known(values: np.ndarray) -> np.ndarray:
    """Median over the last axis without NaNs; NaN where there is nothing."""
    values = np.sort(values, axis=-1)  # NaN last
    count = np.count_nonzero(~np.isnan(values), axis=-1)[..., None]
    middle = np.maximum(count - 1, 0)
    low = np.take_along_axis(values, middle // 2, axis=-1)[..., 0]
    high = np.take_along_axis(values, middle - middle // 2, axis=-1)[..., 0]
    return 0.5 * (low + high)
