# SPDX-License-Identifier: Apache-2.0
"""Overlapping patches of an image, and merging of patch estimates.

Patches are cut at a regular stride; where the stride does not reach the
border, one more patch is placed flush with it, so that every pixel lies in
at least one patch. Patches are ordered row by row, each flattened as
[patch_height, patch_width, channels].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from tfvae.ops.rows import LazyRows

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
    picked = _windows(image, patch)[np.ix_(rows, columns)]
    return picked.reshape(len(rows) * len(columns), -1)


def _windows(image: np.ndarray, patch: tuple[int, int]) -> np.ndarray:
    """Returns a view of all patches, `[height', width', ph, pw, channels]`."""
    windows = np.lib.stride_tricks.sliding_window_view(
        image, tuple(patch), axis=(0, 1)
    )  # [height', width', channels, ph, pw]
    return np.moveaxis(windows, 2, -1)


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
    merger = PatchMerger(image_shape, patch, stride, method)
    patches = np.asarray(patches)
    if patches.shape != merger.shape:
        raise ValueError(
            f"`patches` must have shape {merger.shape!r} for an image of shape "
            f"{tuple(image_shape)!r}, got shape {patches.shape!r}"
        )
    merger.add(patches)
    return merger.image()


class ImagePatches(LazyRows):
    """The overlapping patches of an image, cut when they are asked for."""

    def __init__(
        self,
        image: np.ndarray,
        patch: tuple[int, int],
        stride: int = 1,
        *,
        is_kept: np.ndarray | None = None,
    ) -> None:
        """Sets what is cut; nothing is copied.

        Args:
          image: `[height, width, channels]`; NaN entries are kept, and so is
            the dtype.
          patch: Height and width of a patch in pixels.
          stride: Distance of neighbouring patches in pixels.
          is_kept: bool `[N]`, which of the patches in the order of
            `extract_patches` are rows; None for all.
        """
        self._rows, self._columns = _grid(image.shape, patch, stride)
        self._windows = _windows(image, patch)
        count = len(self._rows) * len(self._columns)
        self._kept = None
        if is_kept is not None and not is_kept.all():
            self._kept = np.flatnonzero(is_kept)
            count = len(self._kept)
        super().__init__(count, math.prod(patch) * image.shape[2])

    def take(self, index: np.ndarray) -> np.ndarray:
        if self._kept is not None:
            index = self._kept[index]
        row, column = np.divmod(index, len(self._columns))
        cut = self._windows[self._rows[row], self._columns[column]]
        return cut.reshape(len(index), -1)


class PatchMerger:
    """Merges patch estimates that come in parts, one patch after the other.

    Means are accumulated in float64, so that memory depends on the size of the
    image alone. For medians all estimates are held.

    Attributes:
      shape: Number of the estimates that have to be added, and the length of
        one.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        patch: tuple[int, int],
        stride: int = 1,
        method: MergeMethod = "mean",
        *,
        is_kept: np.ndarray | None = None,
        with_variances: bool = False,
    ) -> None:
        """Creates accumulators of zeros.

        Args:
          image_shape: Height, width and channels of the image.
          patch: Height and width of a patch in pixels.
          stride: Distance of neighbouring patches in pixels.
          method: See `merge_patches`.
          is_kept: bool `[N]`, which of the patches in the order of
            `extract_patches` have estimates; None for all.
          with_variances: Whether variances are merged as well.

        Raises:
          ValueError: If shapes do not fit together or `method` is unknown.
        """
        if method not in MERGE_METHODS:
            raise ValueError(
                f"`method` must be one of {MERGE_METHODS!r}, got {method!r}"
            )
        self._image_shape = image_shape
        self._rows, self._columns = _grid(image_shape, patch, stride)
        grid = (len(self._rows), len(self._columns))
        self._block = (*patch, image_shape[2])
        if is_kept is None:
            is_kept = np.ones(math.prod(grid), bool)
        self._is_kept = is_kept.reshape(grid)
        self.shape = (int(is_kept.sum()), math.prod(self._block))
        self._window = (
            _gaussian_window(patch) if method == "gaussian" else np.ones(patch)
        )
        self._blocks = None
        if method == "median":
            self._blocks = np.empty((*grid, *self._block), np.float32)
        self._line = 0  # The row of patches that is added to.
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0
        names = ["estimate"] if method != "median" else []
        names += ["square", "variance"] if with_variances else []
        if with_variances and "estimate" not in names:
            names.append("estimate")
        self._sums = {name: np.zeros(image_shape) for name in names}
        self._weight = np.zeros(image_shape)
        self._with_variances = with_variances

    def add(
        self, estimates: np.ndarray, variances: np.ndarray | None = None
    ) -> None:
        """Adds the next estimates.

        Args:
          estimates: `[n, D]`, NaN where there is none.
          variances: `[n, D]`, the variance of each, where they are merged.
        """
        both = [estimates] if variances is None else [estimates, variances]
        part = np.stack(both)  # [1 or 2, n, D]
        self._waiting.append(part)
        self._num_waiting += part.shape[1]
        counts = self._is_kept.sum(1)
        lines: list[int] = []
        # All rows of patches that are complete.
        while self._line + len(lines) < len(counts) and counts[
            self._line + len(lines)
        ] <= self._num_waiting - sum(lines):
            lines.append(int(counts[self._line + len(lines)]))
        if not lines:
            return
        waiting = np.concatenate(self._waiting, 1)
        start = 0
        for count in lines:
            self._add_line(waiting[:, start : start + count])
            start += count
        self._waiting = [waiting[:, start:].copy()]
        self._num_waiting -= start

    def _add_line(self, kept: np.ndarray) -> None:
        """Adds one row of patches, `[1 or 2, n, D]`."""
        is_kept = self._is_kept[self._line]
        line = kept.reshape(len(kept), -1, *self._block)
        if not is_kept.all():
            shape = (len(kept), len(is_kept), *self._block)
            line = np.full(shape, np.nan, np.result_type(kept, np.float32))
            line[:, is_kept] = kept.reshape(len(kept), -1, *self._block)
        if self._blocks is not None:
            self._blocks[self._line] = line[0]
        if self._sums:
            known = ~np.isnan(line[0])  # [columns, ph, pw, channels]
            estimate = np.where(known, line[0], 0.0)
            self._add_sum(self._weight, known)
            self._add_sum(self._sums["estimate"], estimate)
            if self._with_variances:
                square = np.square(estimate, dtype=np.float64)
                self._add_sum(self._sums["square"], square)
                variance = np.where(known, line[1], 0.0)
                self._add_sum(self._sums["variance"], variance)
        self._line += 1

    def _add_sum(self, total: np.ndarray, values: np.ndarray) -> None:
        """Adds one row of patches, `[columns, ph, pw, channels]`, to a sum."""
        height, width = self._window.shape
        top = self._rows[self._line]
        # One row of patches at a time stays in the cache. For one column of
        # their pixels, no two patches touch the same pixel, so one vectorised
        # sum serves them all.
        for column in range(width):
            target = (slice(top, top + height), self._columns + column)
            share = self._window[:, None, column, None]
            total[target] += share * values[:, :, column].swapaxes(0, 1)

    def add_others(
        self, gather: Callable[[np.ndarray], list[np.ndarray]]
    ) -> None:
        """Adds what mergers of other patches of the image have added.

        All of them have to call it, once their estimates are complete.

        Args:
          gather: From an array of this merger to those of all.
        """
        self._weight = np.sum(gather(self._weight), 0)
        for name, total in self._sums.items():
            self._sums[name] = np.sum(gather(total), 0)
        if self._blocks is not None:
            # NaN where a merger has no estimate.
            self._blocks = np.fmax.reduce(gather(self._blocks))

    def image(self) -> np.ndarray:
        """Returns the merged image, `[height, width, channels]` float32.

        NaN where no patch gave an estimate.

        Raises:
          ValueError: If estimates are missing, or are left over.
        """
        missing = int(self._is_kept[self._line :].sum()) - self._num_waiting
        if missing:
            raise ValueError(
                f"`estimates` must be {self.shape[0]}, got "
                f"{self.shape[0] - missing}"
            )
        if self._blocks is not None:
            return _merge_median(
                self._blocks, self._image_shape, self._rows, self._columns
            )
        return self._mean("estimate").astype(np.float32)

    def _mean(self, name: str) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return self._sums[name] / self._weight

    def variances(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns variances within patches, and between them.

        Returns:
          The weighted mean of the variances that the patches give a pixel, and
          the weighted variance of their estimates of it, both
          `[height, width, channels]` float32. Their sum is the variance of the
          mixture of the patches' distributions of the pixel.
        """
        spread = self._mean("square") - np.square(self._mean("estimate"))
        within = self._mean("variance")
        return within.astype(np.float32), np.maximum(spread, 0.0).astype(
            np.float32
        )


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
