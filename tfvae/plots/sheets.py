# SPDX-License-Identifier: Apache-2.0
"""Sheets of image tiles: features, samples, reconstructions, tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np

from tfvae.plots.figures import (
    PathLike,
    as_rgb,
    figure_and_axes,
    save,
    show,
)

_SEPARATOR = (0.72, 0.77, 0.82)  # between tiles; no grey, as tiles may be
_MAX_TILES = 1024


def feature_sheet(
    features: np.ndarray,
    event_shape: Sequence[int],
    path: PathLike,
    *,
    title: str | None = "decoder features: what each latent draws alone",
    value_range: tuple[float, float] | None = None,
) -> None:
    """Plots the features of the latents as tiles on a common scale.

    Args:
      features: `[H, D]`, such as the singleton means of a decoder.
      event_shape: Shape of one data point.
      path: File to write.
      title: Title of the figure, or None.
      value_range: Values shown as black and white; if None, the range that
        holds 99 % of the entries.

    Raises:
      ValueError: If the shapes do not fit together.
    """
    _sheet(features, event_shape, path, title, value_range)


def image_grid(
    samples: np.ndarray,
    event_shape: Sequence[int],
    path: PathLike,
    *,
    title: str | None = "samples from the model",
    value_range: tuple[float, float] | None = None,
    per_row: int | None = None,
) -> None:
    """Plots data points as tiles on a common scale.

    Args:
      samples: `[K, D]`; NaN entries are marked as missing.
      event_shape: Shape of one data point.
      path: File to write.
      title: Title of the figure, or None.
      value_range: See `feature_sheet`.
      per_row: Tiles per row; None for a layout of about 3 : 2.

    Raises:
      ValueError: If the shapes do not fit together.
    """
    _sheet(samples, event_shape, path, title, value_range, per_row)


def reconstructions(
    points: np.ndarray,
    estimates: np.ndarray,
    event_shape: Sequence[int],
    path: PathLike,
    *,
    title: str | None = None,
    value_range: tuple[float, float] | None = None,
) -> None:
    """Plots data points above their reconstructions.

    Args:
      points: `[K, D]`; NaN entries are marked as missing.
      estimates: `[K, D]`.
      event_shape: Shape of one data point.
      path: File to write.
      title: Title of the figure, or None.
      value_range: See `feature_sheet`; by default that of `points`.

    Raises:
      ValueError: If the shapes do not fit together.
    """
    points, estimates = np.asarray(points), np.asarray(estimates)
    if points.shape != estimates.shape:
        raise ValueError(
            "`estimates` must have the shape of `points`, "
            f"{points.shape!r}, got {estimates.shape!r}"
        )
    shape = _tile_shape(points, event_shape)
    limits = value_range or _robust_range(points)
    per_row = min(len(points), 12)
    blocks = [
        (points[start : start + per_row], estimates[start : start + per_row])
        for start in range(0, len(points), per_row)
    ]
    tile_inches = 9.0 / max(per_row, 6)
    inches = tile_inches * shape[0] / shape[1]
    figure, grid = figure_and_axes(
        per_row * tile_inches + 1.1,
        len(blocks) * (2 * inches + 0.15) + (0.5 if title else 0.1),
        2 * len(blocks),
    )
    for number, pair in enumerate(blocks):
        for row, (label, part) in enumerate(
            zip(("data", "model"), pair, strict=True)
        ):
            axes = grid[2 * number + row][0]
            canvas = _canvas(part, shape, limits, per_row)
            show(axes, canvas)
            axes.set_ylabel(label, rotation=0, ha="right", va="center")
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    save(figure, path)


def tiles(
    points: np.ndarray,
    event_shape: Sequence[int],
    per_row: int,
    value_range: tuple[float, float],
) -> np.ndarray:
    """Tiles data points into one picture, to be composed further.

    Args:
      points: `[K, D]`; NaN entries are marked as missing.
      event_shape: Shape of one data point.
      per_row: Tiles per row.
      value_range: Values shown as black and white.

    Returns:
      `[h, w, 3]` on 0..1.

    Raises:
      ValueError: If the shapes do not fit together.
    """
    shape = _tile_shape(points, event_shape)
    return _canvas(points, shape, value_range, per_row)


def sheet_of_pictures(
    pictures: Mapping[tuple[str, str], np.ndarray],
    rows: Sequence[str],
    columns: Sequence[str],
    path: PathLike,
    *,
    title: str | None = None,
) -> None:
    """Plots pictures in a labelled table.

    Args:
      pictures: `[height, width, 1 or 3]` on 0..1 each, by (row, column)
        label; missing ones leave their place empty.
      rows: Row labels, from top to bottom.
      columns: Column labels, from left to right.
      path: File to write.
      title: Title of the figure, or None.

    Raises:
      ValueError: If there is no picture of any row and column.
    """
    shapes = [
        pictures[place].shape
        for place in itertools.product(rows, columns)
        if place in pictures
    ]
    if not shapes:
        raise ValueError(
            "`pictures` must have at least one of the given rows and columns, "
            f"got {sorted(pictures)!r}"
        )
    ratio = max(shape[0] / shape[1] for shape in shapes)
    width = max(10.0 / len(columns), 2.0)
    figure, grid = figure_and_axes(
        width * len(columns) + 1.2,
        width * ratio * len(rows) + 0.12 * len(rows) + 0.5,
        len(rows),
        len(columns),
    )
    for (i, row), (j, column) in itertools.product(
        enumerate(rows), enumerate(columns)
    ):
        axes = grid[i][j]
        picture = pictures.get((row, column))
        if picture is None:
            picture = np.ones((*shapes[0][:2], 3))
        show(axes, as_rgb(np.asarray(picture), (0.0, 1.0)))
        if i == 0:
            axes.set_title(column)
        if j == 0:
            axes.set_ylabel(row, rotation=0, ha="right", va="center")
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    save(figure, path)


def captioned_pictures(
    pictures: Sequence[np.ndarray],
    captions: Sequence[str],
    path: PathLike,
    *,
    per_row: int = 3,
    title: str | None = None,
) -> None:
    """Plots pictures in rows, each with a caption below it.

    Args:
      pictures: `[height, width, 1 or 3]` on 0..1 each, at least one.
      captions: As many texts.
      path: File to write.
      per_row: Pictures in a row.
      title: Title of the figure, or None.
    """
    columns = min(per_row, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    ratio = max(one.shape[0] / one.shape[1] for one in pictures)
    width = 9.0 / per_row
    figure, grid = figure_and_axes(
        width * columns + 0.2,
        (width * ratio + 0.35) * rows + (0.4 if title else 0.1),
        rows,
        columns,
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, one, caption in zip(grid.flat, pictures, captions, strict=False):
        axes.set_axis_on()
        show(axes, as_rgb(np.asarray(one), (0.0, 1.0)))
        axes.set_xlabel(caption)
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    save(figure, path)


def _sheet(
    points: np.ndarray,
    event_shape: Sequence[int],
    path: PathLike,
    title: str | None,
    value_range: tuple[float, float] | None,
    per_row: int | None = None,
) -> None:
    points = np.asarray(points)
    shape = _tile_shape(points, event_shape)
    limits = value_range or _robust_range(points)
    total = len(points)
    points = points[:_MAX_TILES]
    # Tiles in about 3 : 2, or one below the other if they are strips.
    fitting = math.ceil(math.sqrt(1.5 * len(points) * shape[0] / shape[1]))
    per_row = max(1, min(per_row or fitting, len(points)))
    canvas = _canvas(points, shape, limits, per_row)
    width = 7.2
    height = (width - 0.8) * canvas.shape[0] / canvas.shape[1]
    figure, axes = figure_and_axes(width, min(max(height, 0.8), 10.0) + 0.45)
    show(axes, canvas)
    if total > len(points):
        title = f"{title or ''} (first {len(points)} of {total})".strip()
    if title:
        axes.set_title(title, loc="left")
    if shape[2] == 1:
        scale = matplotlib.cm.ScalarMappable(
            matplotlib.colors.Normalize(*limits), "gray"
        )
        bar = figure.colorbar(
            scale, ax=axes, fraction=0.04, pad=0.02, shrink=0.9
        )
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=2)
    save(figure, path)


def _tile_shape(
    points: np.ndarray, event_shape: Sequence[int]
) -> tuple[int, int, int]:
    """Returns height, width and channels of a data point's tile."""
    shape = tuple(int(size) for size in event_shape)
    if (
        points.ndim != 2
        or 0 in points.shape
        or math.prod(shape) != points.shape[1]
    ):
        raise ValueError(
            "`event_shape` must have as many entries as a row of the data, "
            f"got {shape!r} for data of shape {points.shape!r}"
        )
    if len(shape) == 2:
        return shape[0], shape[1], 1
    if len(shape) == 3 and shape[2] in (1, 3):
        return shape[0], shape[1], shape[2]
    return 1, points.shape[1], 1


def _robust_range(points: np.ndarray) -> tuple[float, float]:
    finite = points[np.isfinite(points)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = np.quantile(finite, [0.005, 0.995])
    if low == high:
        low, high = low - 0.5, high + 0.5
    return float(low), float(high)


def _canvas(
    points: np.ndarray,
    shape: tuple[int, int, int],
    limits: tuple[float, float],
    per_row: int,
) -> np.ndarray:
    """Tiles data points with lines in between, `[h, w, 3]` on 0..1."""
    zoom = math.ceil(24 / max(shape[:2]))  # lines are thinner than pixels
    height, width = zoom * shape[0], zoom * shape[1]
    line = min(0.05 * max(height, width), 0.4 * min(height, width))
    gap = max(1, round(line))
    num_rows = math.ceil(len(points) / per_row)
    tiles = np.ones((num_rows * per_row, height + gap, width + gap, 3))
    tiles[: len(points)] = _SEPARATOR
    images = as_rgb(points.reshape(-1, *shape), limits)
    images = images.repeat(zoom, axis=1).repeat(zoom, axis=2)
    tiles[: len(points), :height, :width] = images
    tiles = tiles.reshape(num_rows, per_row, height + gap, width + gap, 3)
    canvas = tiles.transpose(0, 2, 1, 3, 4).reshape(
        num_rows * (height + gap), per_row * (width + gap), 3
    )
    return canvas[:-gap, :-gap]
