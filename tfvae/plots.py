# SPDX-License-Identifier: Apache-2.0
"""Figures of a run, from NumPy arrays to files.

Every function writes one file, whose ending chooses the format, in a single
step that replaces an older file. Figures are objects of their own; nothing
here touches matplotlib's global state.
"""

from __future__ import annotations

import itertools
import math
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from tfvae.ops.image_quality import psnr

PathLike = str | os.PathLike[str]
"""Where a figure goes."""

_DPI = 150
_WHITE = 255.0  # largest value of an entry of an image
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito
_GREY = "#666666"
_MISSING = (0.27, 0.45, 0.72)  # shown where an entry of a grey image is missing
_SEPARATOR = (0.72, 0.77, 0.82)  # between tiles; no grey, as tiles may be
_LABELS = {
    "bound": ("training data", "bound on log p(x) / nats per data point"),
    "test_bound": ("test data", "bound on log p(x) / nats per data point"),
    "validation_bound": (
        "validation data",
        "bound on log p(x) / nats per data point",
    ),
    "psnr": ("PSNR", "PSNR / dB"),
    "ssim": ("SSIM", "SSIM"),
    "noise_std": ("noise", "standard deviation of the noise"),
    "active": ("active", "active latents per state"),
    "effective_states": ("states", "effective number of states"),
}
_FRAME = "#F0E442"  # around an enlarged region
_PANEL_INCHES = 3.6
_MAX_TILES = 1024


def curves(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    path: PathLike,
    *,
    references: Mapping[str, float] | None = None,
    title: str | None = None,
) -> None:
    """Draws metrics over epochs; the legend gives their last values.

    The first epochs of a bound lie orders of magnitude below the rest; the
    axis then begins where the curve has become flat enough to read, and says
    so.

    Args:
        rows: One mapping per epoch with "epoch" and metrics by name; a
            metric may be missing in some rows.
        columns: Names of the metrics to draw; those that no row has are
            left out.
        path: File to write.
        references: Horizontal lines to compare with, by label.
        title: Title of the figure, or None.

    Raises:
        ValueError: If no row has any of the metrics.
    """
    series = {name: _series(rows, name) for name in columns}
    series = {name: xy for name, xy in series.items() if xy[0].size}
    if not series:
        raise ValueError(
            f"`rows` must have a finite value of one of {list(columns)!r}"
        )
    figure, axes = _figure(7.2, 3.8)
    for colour, (name, (epochs, values)) in zip(
        itertools.cycle(_COLOURS), series.items(), strict=False
    ):
        axes.plot(
            epochs,
            values,
            color=colour,
            linewidth=1.8,
            marker="o" if len(epochs) <= 40 else None,
            markersize=3,
            label=f"{_LABELS.get(name, (name,))[0]}: {values[-1]:.4g}",
        )
    references = references or {}
    for label, value in references.items():
        axes.axhline(
            value,
            color=_GREY,
            linestyle="--",
            linewidth=1.2,
            label=f"{label}: {value:.4g}",
        )
    _limit_transient(
        axes, [values for _, values in series.values()], [*references.values()]
    )
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    first = next(iter(series))
    axes.set_ylabel(_LABELS.get(first, (first, first))[1])
    axes.margins(x=0.02)
    _decorate(axes, title)
    axes.legend(frameon=False, loc="best")
    _save(figure, path)


def _decorate(axes: Axes, title: str | None) -> None:
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    if title:
        axes.set_title(title, loc="left")


def _series(
    rows: Sequence[Mapping[str, Any]], name: str
) -> tuple[np.ndarray, np.ndarray]:
    points = []
    for number, row in enumerate(rows):
        value = row.get(name)
        if value is None or value == "":
            continue
        if math.isfinite(float(value)):
            points.append((float(row.get("epoch", number + 1)), float(value)))
    epochs, values = np.array(points).reshape(-1, 2).T
    return epochs, values


def _limit_transient(
    axes: Axes, series: Sequence[np.ndarray], references: Sequence[float]
) -> None:
    """Cuts the axis where a first tenth of the epochs would fill it."""
    late = [values[len(values) // 10 :] for values in series]
    shown = np.concatenate([*late, references])
    low, high = float(shown.min()), float(shown.max())
    lowest = min(float(values.min()) for values in series)
    span = (high - low) or max(abs(high), 1.0) * 0.1
    if lowest < low - span:
        axes.set_ylim(low - 0.08 * span, high + 0.12 * span)
        axes.annotate(
            f"the first epochs, from {lowest:.3g} on, lie below",
            (0.012, 0.02),
            xycoords="axes fraction",
            color=_GREY,
            fontsize=8,
        )
    else:
        axes.margins(y=0.1)


class Panel(NamedTuple):
    """What `panels` draws side by side."""

    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    """Places and values by label."""
    x_label: str
    y_label: str
    is_logarithmic: bool = False
    """Whether both axes are."""
    references: Mapping[str, tuple[Sequence[float], Sequence[float]]] = {}
    """Curves to compare with, drawn as grey dashes."""


def panels(
    content: Sequence[Panel], path: PathLike, *, title: str | None = None
) -> None:
    """Draws curves in panels side by side; all have the first one's legend.

    Args:
        content: The panels.
        path: File to write.
        title: Title of the figure, or None.

    Raises:
        ValueError: If there is nothing to draw.
    """
    if not content or not all(panel.curves for panel in content):
        raise ValueError(
            f"`content` must be panels with curves, got {content!r}"
        )
    figure, grid = _figure(4.4 * len(content), 3.6, 1, len(content))
    for axes, panel in zip(grid[0], content, strict=True):
        _draw_panel(axes, panel)
    grid[0][0].legend(frameon=False, fontsize=8)
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    _save(figure, path)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for colour, (label, (places, values)) in zip(
        itertools.cycle(_COLOURS), panel.curves.items(), strict=False
    ):
        axes.plot(
            places,
            values,
            color=colour,
            linewidth=1.6,
            marker="o",
            markersize=3,
            label=label,
        )
    for label, (places, values) in panel.references.items():
        axes.plot(
            places,
            values,
            color=_GREY,
            linestyle="--",
            linewidth=1.2,
            label=label,
        )
    if panel.is_logarithmic:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        ticks = sorted(
            {x for places, _ in panel.curves.values() for x in places}
        )
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    _decorate(axes, None)


def latent_usage(
    prior_probs: np.ndarray, path: PathLike, *, title: str | None = None
) -> None:
    """Draws how often each latent is active, most used first.

    Args:
        prior_probs: `[H]`, the probability of each latent.
        path: File to write.
        title: Title of the figure; the expected number of active latents
            if None.

    Raises:
        ValueError: If it is not a vector of probabilities.
    """
    usage = np.sort(np.asarray(prior_probs, dtype=np.float64))[..., ::-1]
    if usage.ndim != 1 or not ((usage >= 0.0) & (usage <= 1.0)).all():
        raise ValueError(
            "`prior_probs` must be a vector of probabilities, got shape "
            f"{usage.shape!r} with values in "
            f"[{usage.min(initial=1.0)}, {usage.max(initial=0.0)}]"
        )
    figure, axes = _figure(7.2, 3.4)
    rank = np.arange(1, len(usage) + 1)
    wide = usage[0] > 50.0 * max(usage[-1], 1e-12)
    axes.bar(
        rank, usage, width=0.85 if len(usage) < 80 else 1.0, color=_COLOURS[0]
    )
    if wide:
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(usage[-1], 1e-6) / 2)
    mean = float(usage.mean())
    axes.axhline(mean, color=_COLOURS[1], linestyle="--", linewidth=1.2)
    axes.annotate(
        f"mean {mean:.3g}",
        (1.0, mean),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 4),
        textcoords="offset points",
        ha="right",
        color=_COLOURS[1],
        bbox={"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 1},
    )
    axes.set_xlim(0.5, len(usage) + 0.5)
    axes.set_xlabel("latent, most used first")
    axes.set_ylabel("probability of being active")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title(
        title or f"{usage.sum():.2f} of {len(usage)} latents active on average",
        loc="left",
    )
    _save(figure, path)


def feature_sheet(
    features: np.ndarray,
    event_shape: Sequence[int],
    path: PathLike,
    *,
    title: str | None = "decoder features: what each latent draws alone",
    value_range: tuple[float, float] | None = None,
) -> None:
    """Draws what each latent stands for, as tiles on a common scale.

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
    """Draws data points as tiles on a common scale.

    Args:
        samples: `[K, D]`; NaN entries are marked as missing.
        event_shape: Shape of one data point.
        path: File to write.
        title: Title of the figure, or None.
        value_range: See `feature_sheet`.
        per_row: Tiles of a row; None for what fits a page.

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
    """Draws data points above their reconstructions.

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
    figure, grid = _figure(
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
            _show(axes, canvas)
            axes.set_ylabel(label, rotation=0, ha="right", va="center")
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    _save(figure, path)


def tiles(
    points: np.ndarray,
    event_shape: Sequence[int],
    per_row: int,
    value_range: tuple[float, float],
) -> np.ndarray:
    """Puts data points side by side, for pictures that are put together.

    Args:
        points: `[K, D]`; NaN entries are marked as missing.
        event_shape: Shape of one data point.
        per_row: Tiles of a row.
        value_range: What is drawn black and white.

    Returns:
        `[h, w, 3]` on 0..1.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    shape = _tile_shape(points, event_shape)
    return _canvas(points, shape, value_range, per_row)


def restoration_panel(
    clean: np.ndarray | None,
    corrupted: np.ndarray,
    restored: np.ndarray,
    path: PathLike,
    *,
    labels: Sequence[str] | None = None,
) -> None:
    """Draws clean, corrupted and restored image side by side.

    Below each is its most structured region, enlarged.

    Args:
        clean: `[height, width, 1 or 3]` on 0..255, or None if unknown.
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
    if len(labels) != len(pictures):
        raise ValueError(
            f"`labels` must be {len(pictures)} titles, got {labels!r}"
        )
    height, width = pictures[0].shape[:2]
    top, left, size = _busiest_region(restored if clean is None else clean)
    zoomed = min(height, width) > size
    ratio = height / width
    figure, grid = _figure(
        _PANEL_INCHES * len(pictures),
        _PANEL_INCHES * (ratio + zoomed) + 0.35,
        1 + zoomed,
        len(pictures),
        height_ratios=[ratio, 1.0] if zoomed else [ratio],
    )
    for axes, picture, label in zip(grid.T, pictures, labels, strict=True):
        shown = _as_rgb(picture, (0.0, _WHITE))
        _show(axes[0], shown)
        axes[0].set_title(label)
        if zoomed:
            _show(axes[1], shown[top : top + size, left : left + size])
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
    _save(figure, path)


def _check_panel(pictures: Sequence[np.ndarray]) -> None:
    shapes = sorted({picture.shape for picture in pictures})
    shape = shapes[0]
    if len(shapes) > 1 or len(shape) != 3 or shape[2] not in (1, 3):
        raise ValueError(
            "`clean`, `corrupted` and `restored` must have one shape "
            f"[height, width, 1 or 3], got {shapes!r}"
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


def _busiest_region(image: np.ndarray) -> tuple[int, int, int]:
    """Top, left and side of the square with the most local contrast."""
    height, width = image.shape[:2]
    size = max(min(height, width) // 4, min(height, width, 32))
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
    figure, axes = _figure(width, min(max(height, 0.8), 10.0) + 0.45)
    _show(axes, canvas)
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
    _save(figure, path)


def _tile_shape(
    points: np.ndarray, event_shape: Sequence[int]
) -> tuple[int, int, int]:
    """Height, width and channels that a data point is drawn with."""
    shape = tuple(int(size) for size in event_shape)
    if (
        points.ndim != 2
        or 0 in points.shape
        or math.prod(shape) != points.shape[1]
    ):
        raise ValueError(
            "`event_shape` must have as many entries as a row of the data "
            f"has, got {shape!r} for data of shape {points.shape!r}"
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


def _as_rgb(image: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """`[..., 1 or 3]` as RGB on 0..1; missing entries in a signal colour.

    A pixel with only some of its colours missing shows the others.
    """
    low, high = limits
    scaled = np.clip((image.astype(np.float64) - low) / (high - low), 0.0, 1.0)
    missing = np.isnan(image)
    if image.shape[-1] == 1:
        return np.where(missing, np.array(_MISSING), scaled)
    return np.where(missing, 0.0, scaled)


def _canvas(
    points: np.ndarray,
    shape: tuple[int, int, int],
    limits: tuple[float, float],
    per_row: int,
) -> np.ndarray:
    """Data points as tiles with lines between, `[h, w, 3]` on 0..1."""
    zoom = math.ceil(24 / max(shape[:2]))  # lines are thinner than pixels
    height, width = zoom * shape[0], zoom * shape[1]
    line = min(0.05 * max(height, width), 0.4 * min(height, width))
    gap = max(1, round(line))
    num_rows = math.ceil(len(points) / per_row)
    tiles = np.ones((num_rows * per_row, height + gap, width + gap, 3))
    tiles[: len(points)] = _SEPARATOR
    images = _as_rgb(points.reshape(-1, *shape), limits)
    images = images.repeat(zoom, axis=1).repeat(zoom, axis=2)
    tiles[: len(points), :height, :width] = images
    tiles = tiles.reshape(num_rows, per_row, height + gap, width + gap, 3)
    canvas = tiles.transpose(0, 2, 1, 3, 4).reshape(
        num_rows * (height + gap), per_row * (width + gap), 3
    )
    return canvas[:-gap, :-gap]


def _show(axes: Axes, image: np.ndarray) -> None:
    small = max(image.shape[:2]) <= 400
    axes.imshow(image, interpolation="nearest" if small else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _figure(
    width: float,
    height: float,
    rows: int | None = None,
    columns: int = 1,
    height_ratios: Sequence[float] | None = None,
) -> tuple[Figure, Any]:
    """A figure of its own and its axes: one, or a grid if `rows` is given."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if rows is None:
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        return figure, axes
    grid = figure.subplots(
        rows, columns, squeeze=False, height_ratios=height_ratios
    )
    return figure, grid


def _save(figure: Figure, path: PathLike) -> None:
    path = pathlib.Path(path)
    handle, temporary = tempfile.mkstemp(suffix=path.suffix, dir=path.parent)
    os.close(handle)
    try:
        figure.savefig(temporary, bbox_inches="tight", pad_inches=0.08)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def sheet_of_pictures(
    pictures: Mapping[tuple[str, str], np.ndarray],
    rows: Sequence[str],
    columns: Sequence[str],
    path: PathLike,
    *,
    title: str | None = None,
) -> None:
    """Draws finished pictures in a table with labels.

    Args:
        pictures: `[height, width, 1 or 3]` on 0..1 each, by row and column;
            the place of one that is missing stays empty.
        rows: Labels, from top to bottom.
        columns: Labels, from left to right.
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
            "`pictures` must have some of the rows and columns, got "
            f"{sorted(pictures)!r}"
        )
    ratio = max(shape[0] / shape[1] for shape in shapes)
    width = max(10.0 / len(columns), 2.0)
    figure, grid = _figure(
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
        _show(axes, _as_rgb(np.asarray(picture), (0.0, 1.0)))
        if i == 0:
            axes.set_title(column)
        if j == 0:
            axes.set_ylabel(row, rotation=0, ha="right", va="center")
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    _save(figure, path)
