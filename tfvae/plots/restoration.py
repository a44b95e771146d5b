# SPDX-License-Identifier: Apache-2.0
"""Figure of clean, corrupted and restored image side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Rectangle

from tfvae.ops.image_quality import psnr
from tfvae.plots.figures import (
    PathLike,
    as_rgb,
    figure_and_axes,
    save,
    show,
)

_WHITE = 255.0  # largest value of an entry of an image
_FRAME = "#F0E442"  # around an enlarged region
_PANEL_INCHES = 3.6


def restoration_panel(
    clean: np.ndarray | None,
    corrupted: np.ndarray,
    restored: np.ndarray,
    path: PathLike,
    *,
    labels: Sequence[str] | None = None,
) -> None:
    """Plots clean, corrupted and restored image side by side.

    Below each is the region of most local contrast, enlarged.

    Args:
      clean: `[height, width, channels]` on 0..255, or None if unknown; of
        others than 1 or 3 channels the first or the first three are drawn.
      corrupted: The same shape; NaN entries are marked as missing.
      restored: The same shape.
      path: File to write.
      labels: Titles of the two or three images; by default they name the
        images and give their PSNR (without clipping).

    Raises:
      ValueError: If shapes differ or the number of labels is wrong.
    """
    pictures = [
        np.asarray(one)
        for one in (clean, corrupted, restored)
        if one is not None
    ]
    _check_panel(pictures)
    labels = labels or _panel_labels(clean, corrupted, restored)
    region = busiest_region(restored if clean is None else clean)
    comparison(pictures, labels, region, path)


def comparison(
    pictures: Sequence[np.ndarray],
    labels: Sequence[str],
    region: tuple[int, int, int],
    path: PathLike,
) -> None:
    """Plots pictures side by side, and below each the same region, enlarged.

    Args:
      pictures: `[height, width, channels]` on 0..255, of one shape.
      labels: Their titles.
      region: Top, left and side of the region; one that is as large as the
        pictures is not drawn.
      path: File to write.

    Raises:
      ValueError: If the number of labels is wrong.
    """
    if len(labels) != len(pictures):
        raise ValueError(
            f"`labels` must be {len(pictures)} titles, got {labels!r}"
        )
    height, width = pictures[0].shape[:2]
    top, left, size = region
    zoomed = min(height, width) > size
    ratio = height / width
    figure, grid = figure_and_axes(
        _PANEL_INCHES * len(pictures),
        _PANEL_INCHES * (ratio + zoomed) + 0.35,
        1 + zoomed,
        len(pictures),
        height_ratios=[ratio, 1.0] if zoomed else [ratio],
    )
    for axes, picture, label in zip(grid.T, pictures, labels, strict=True):
        shown = as_rgb(picture, (0.0, _WHITE))
        show(axes[0], shown)
        axes[0].set_title(label)
        if zoomed:
            show(axes[1], shown[top : top + size, left : left + size])
            axes[0].add_patch(
                Rectangle(
                    (left - 0.5, top - 0.5),
                    size,
                    size,
                    fill=False,
                    edgecolor=_FRAME,
                    linewidth=1.2,
                )
            )
    save(figure, path)


def _check_panel(pictures: Sequence[np.ndarray]) -> None:
    shapes = sorted({picture.shape for picture in pictures})
    shape = shapes[0]
    if len(shapes) > 1 or len(shape) != 3:
        raise ValueError(
            "`clean`, `corrupted` and `restored` must have one shape "
            f"[height, width, channels], got {shapes!r}"
        )


def _panel_labels(
    clean: np.ndarray | None, corrupted: np.ndarray, restored: np.ndarray
) -> list[str]:
    missing = float(np.isnan(corrupted).mean())
    before = f"{100 * missing:.3g} % missing" if missing else "corrupted"
    if clean is None:
        return [before, "restored"]
    if not missing:
        before = f"noisy, {psnr(clean, corrupted, _WHITE):.2f} dB"
    return [
        "clean",
        before,
        f"restored, {psnr(clean, restored, _WHITE):.2f} dB",
    ]


def busiest_region(
    image: np.ndarray, max_size: int | None = None
) -> tuple[int, int, int]:
    """Returns top, left and side of the square with the most local contrast.

    Args:
      image: `[height, width, channels]` without NaN.
      max_size: Largest side in pixels; None for a quarter of the image's
        shorter side.
    """
    height, width = image.shape[:2]
    size = max(min(height, width) // 4, min(height, width, 32))
    size = size if max_size is None else min(size, max_size)
    step = max(1, size // 4)
    corners = [
        (top, left)
        for top in range(0, height - size + 1, step)
        for left in range(0, width - size + 1, step)
    ]
    grey = image.mean(axis=-1)
    contrast = np.zeros_like(grey)
    contrast[:-1, :-1] = np.abs(np.diff(grey, axis=0))[:, :-1]
    contrast[:-1, :-1] += np.abs(np.diff(grey, axis=1))[:-1]
    top, left = max(
        corners,
        key=lambda corner: contrast[
            corner[0] : corner[0] + size, corner[1] : corner[1] + size
        ].sum(),
    )
    return top, left, size
