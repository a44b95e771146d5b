# SPDX-License-Identifier: Apache-2.0
"""Shared parts of the figures: colours, axes, atomic saving."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfvae import files

PathLike = str | os.PathLike[str]
"""Path of a figure's file; its suffix chooses the format."""

DPI = 150
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito
GREY = "#666666"
MISSING = (0.27, 0.45, 0.72)  # shown where an entry of a grey image is missing


def figure_and_axes(
    width: float,
    height: float,
    rows: int | None = None,
    columns: int = 1,
    height_ratios: Sequence[float] | None = None,
) -> tuple[Figure, Any]:
    """Returns a new figure with one axes, or a grid if `rows` is given."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if rows is None:
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        return figure, axes
    grid = figure.subplots(
        rows, columns, squeeze=False, height_ratios=height_ratios
    )
    return figure, grid


def save(figure: Figure, path: PathLike) -> None:
    """Writes a figure's file atomically."""
    ending = pathlib.Path(path).suffix.removeprefix(".")
    with files.replacing(path, "wb") as file:
        figure.savefig(
            file, format=ending or None, bbox_inches="tight", pad_inches=0.08
        )


def decorate(axes: Axes, title: str | None) -> None:
    """Draws horizontal lines behind the data, and the title, if any."""
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    if title:
        axes.set_title(title, loc="left")


def show(axes: Axes, image: np.ndarray) -> None:
    """Draws a picture, `[height, width, 3]` on 0..1, without any ticks."""
    small = max(image.shape[:2]) <= 400
    axes.imshow(image, interpolation="nearest" if small else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def as_rgb(image: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Returns `[..., channels]` as RGB on 0..1, missing entries highlighted.

    A pixel with only some of its colours missing shows the others. Of others
    than 1 or 3 channels it is the first or the first three.
    """
    image = image[..., : 3 if image.shape[-1] >= 3 else 1]
    low, high = limits
    scaled = np.clip((image.astype(np.float64) - low) / (high - low), 0.0, 1.0)
    missing = np.isnan(image)
    if image.shape[-1] == 1:
        return np.where(missing, np.array(MISSING), scaled)
    return np.where(missing, 0.0, scaled)
