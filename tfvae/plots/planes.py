# SPDX-License-Identifier: Apache-2.0
"""Decoded grid of a two-dimensional latent space, coloured by score."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator

from tfvae.plots.figures import PathLike, figure_and_axes, save

_BACKGROUND, _LINE = 0.1, 0.3  # greys of a manifold's tiles
_LOW_TO_HIGH = "RdYlGn"


def manifold(
    images: np.ndarray,
    path: PathLike,
    *,
    bound: float,
    labels: Sequence[str],
    scores: np.ndarray,
    score_label: str,
    maximise: bool = True,
    title: str | None = None,
) -> None:
    """Plots the decoded images of a grid of two latents, at several times.

    Images are coloured by score, from red (worst) to green (best).

    Args:
      images: `[times, g, g, height, width]` on 0..1; the first axis of the
        grid is that of the first latent, both go from low to high.
      path: File to write.
      bound: The grid covers [-bound, bound]^2.
      labels: Titles, one for each time.
      scores: `[times, g, g]`; images whose score is not finite are grey.
      score_label: Label of the scores, with their unit.
      maximise: Whether larger scores are better.
      title: Title of the figure, or None.

    Raises:
      ValueError: If the shapes do not fit together.
    """
    images, scores = np.asarray(images), np.asarray(scores, np.float64)
    _check(images, scores, labels)
    finite = scores[np.isfinite(scores)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    scale = matplotlib.cm.ScalarMappable(
        matplotlib.colors.Normalize(low, high if high > low else low + 1.0),
        _LOW_TO_HIGH if maximise else f"{_LOW_TO_HIGH}_r",
    )
    side = images.shape[1]
    end = bound * side / (side - 1) if side > 1 else bound  # Tiles' outer edge.
    figure, grid = figure_and_axes(4.0 * len(images) + 0.9, 4.3, 1, len(images))
    for axes, pictures, values, label in zip(
        grid[0], images, scores, labels, strict=True
    ):
        axes.imshow(
            _plane(pictures, scale.to_rgba(values)[..., :3]),
            extent=(-end, end, -end, end),
            interpolation="antialiased",
        )
        axes.set_xlabel("latent 1")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_title(label, loc="left")
    grid[0][0].set_ylabel("latent 2")
    bar = figure.colorbar(scale, ax=list(grid[0]), fraction=0.03, pad=0.01)
    bar.set_label(score_label)
    bar.outline.set_visible(False)
    if title:  # Above the space of the panels, whose aspect is fixed.
        figure.suptitle(title, x=0.01, y=1.0, ha="left", va="bottom")
    save(figure, path)


def _check(
    images: np.ndarray, scores: np.ndarray, labels: Sequence[str]
) -> None:
    if (
        images.ndim != 5
        or images.shape[1] != images.shape[2]
        or scores.shape != images.shape[:3]
        or len(labels) != len(images)
    ):
        raise ValueError(
            "`images`, `scores` and `labels` must have shapes [times, g, g, "
            "height, width], [times, g, g] and [times], got "
            f"{images.shape!r}, {scores.shape!r} and [{len(labels)}]"
        )


def _plane(images: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Tiles images `[g, g, h, w]` in colours `[g, g, 3]` into one picture."""
    ink = np.clip(images.astype(np.float64), 0.0, 1.0)[..., None]
    tiles = ink * colours[:, :, None, None] + (1.0 - ink) * _BACKGROUND
    tiles = np.pad(
        tiles,
        [(0, 0), (0, 0), (0, 1), (0, 1), (0, 0)],
        constant_values=_LINE,
    )
    tiles = tiles.transpose(1, 0, 2, 3, 4)[::-1]  # Latent 2 grows upwards.
    rows, columns, height, width, _ = tiles.shape
    return tiles.transpose(0, 2, 1, 3, 4).reshape(
        rows * height, columns * width, 3
    )
