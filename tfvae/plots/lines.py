# SPDX-License-Identifier: Apache-2.0
"""Line plots of metrics and timings, and bar plots of latent usage."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tfvae.plots.figures import (
    COLOURS,
    GREY,
    PathLike,
    decorate,
    figure_and_axes,
    save,
)

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


def curves(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    path: PathLike,
    *,
    references: Mapping[str, float] | None = None,
    title: str | None = None,
) -> None:
    """Plots metrics over epochs; the legend gives their last values.

    Where the first epochs of a bound lie orders of magnitude below the rest,
    the axis is cut to the flat part of the curve, with a note that says so.

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
    figure, axes = figure_and_axes(7.2, 3.8)
    for colour, (name, (epochs, values)) in zip(
        itertools.cycle(COLOURS), series.items(), strict=False
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
            color=GREY,
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
    decorate(axes, title)
    axes.legend(frameon=False, loc="best")
    save(figure, path)


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
    """Cuts the axis where the first tenth of the epochs would dominate it."""
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
            color=GREY,
            fontsize=8,
        )
    else:
        axes.margins(y=0.1)


class Panel(NamedTuple):
    """One panel of `panels`."""

    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    """x and y values by label."""
    x_label: str
    y_label: str
    is_logarithmic: bool = False
    """Whether both axes are logarithmic."""
    references: Mapping[str, tuple[Sequence[float], Sequence[float]]] = {}
    """Reference curves, drawn as grey dashes."""


def panels(
    content: Sequence[Panel], path: PathLike, *, title: str | None = None
) -> None:
    """Plots curves in panels side by side, with the legend of the first one.

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
    figure, grid = figure_and_axes(4.4 * len(content), 3.6, 1, len(content))
    for axes, panel in zip(grid[0], content, strict=True):
        _draw_panel(axes, panel)
    grid[0][0].legend(frameon=False, fontsize=8)
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    save(figure, path)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for colour, (label, (places, values)) in zip(
        itertools.cycle(COLOURS), panel.curves.items(), strict=False
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
            color=GREY,
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
    decorate(axes, None)


def latent_usage(
    prior_probs: np.ndarray, path: PathLike, *, title: str | None = None
) -> None:
    """Plots how often each latent is active, most used first.

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
    figure, axes = figure_and_axes(7.2, 3.4)
    rank = np.arange(1, len(usage) + 1)
    wide = usage[0] > 50.0 * max(usage[-1], 1e-12)
    axes.bar(
        rank, usage, width=0.85 if len(usage) < 80 else 1.0, color=COLOURS[0]
    )
    if wide:
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(usage[-1], 1e-6) / 2)
    mean = float(usage.mean())
    axes.axhline(mean, color=COLOURS[1], linestyle="--", linewidth=1.2)
    axes.annotate(
        f"mean {mean:.3g}",
        (1.0, mean),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 4),
        textcoords="offset points",
        ha="right",
        color=COLOURS[1],
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
    save(figure, path)
