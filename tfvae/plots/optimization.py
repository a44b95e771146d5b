# SPDX-License-Identifier: Apache-2.0
"""Figures of latent space optimisation: top-K curves, weights, scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tfvae.plots.figures import (
    COLOURS,
    GREY,
    PathLike,
    decorate,
    figure_and_axes,
    save,
)

_MORE_COLOURS = (*COLOURS, "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
_STYLES = ("-", "--", "-.", ":")
_REFERENCE_STYLES = ("--", "-.", ":")
_NUM_BINS = 40
_PANELS_PER_ROW = 3


class Band(NamedTuple):
    """Mean and spread over runs of a curve over queries."""

    mean: np.ndarray
    """Mean, `[queries]`; entry q - 1 is the value after q queries."""
    spread: np.ndarray
    """`[queries]`, half the height of the band."""
    published: Sequence[tuple[float, float, float]] = ()
    """Numbers of queries, means and spreads of published reference points."""


def top_k_curves(
    content: Mapping[str, Mapping[str, Band]],
    path: PathLike,
    *,
    y_label: str,
    references: Mapping[str, float] | None = None,
    title: str | None = None,
) -> None:
    """Plots the K-th best score so far over queries, one panel for each K.

    The first few queries do not determine the range of the axis.

    Args:
      content: Curves by label, by title of the panel, such as "top-10". All
        panels share the legend of the first one.
      path: File to write.
      y_label: Label of the y axis, with the unit.
      references: Horizontal lines to compare with, by label.
      title: Title of the figure, or None.

    Raises:
      ValueError: If there is nothing to draw.
    """
    if not content or not all(content.values()):
        raise ValueError(
            f"`content` must be panels with curves, got {content!r}"
        )
    references = references or {}
    figure, grid = figure_and_axes(4.4 * len(content), 4.2, 1, len(content))
    for axes, (name, bands) in zip(grid[0], content.items(), strict=True):
        for number, (label, band) in enumerate(bands.items()):
            shift = (number - (len(bands) - 1) / 2) * 0.008 * len(band.mean)
            _draw_band(axes, band, label, _look(number), shift)
        for style, (label, value) in zip(
            _REFERENCE_STYLES, references.items(), strict=False
        ):
            axes.axhline(
                value, color=GREY, linestyle=style, linewidth=1.2, label=label
            )
        _limit_to_late(axes, list(bands.values()), list(references.values()))
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("queries")
        decorate(axes, name)
    grid[0][0].set_ylabel(y_label)
    if any(
        band.published for bands in content.values() for band in bands.values()
    ):
        grid[0][0].errorbar(
            [], [], yerr=[], fmt="o", color=GREY, mfc="white", label="published"
        )
    _legend_below(figure, grid[0][0])
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    save(figure, path)


def _look(number: int) -> tuple[str, str]:
    """Style and colour of a curve; the colour changes first."""
    style, colour = divmod(number, len(_MORE_COLOURS))
    return _STYLES[style % len(_STYLES)], _MORE_COLOURS[colour]


def _draw_band(
    axes: Axes, band: Band, label: str, look: tuple[str, str], shift: float
) -> None:
    """Draws a curve; published points are shifted so as not to overlap."""
    style, colour = look
    queries = np.arange(1, len(band.mean) + 1)
    axes.plot(
        queries,
        band.mean,
        color=colour,
        linestyle=style,
        linewidth=1.7,
        drawstyle="steps-post",
        label=label,
    )
    axes.fill_between(
        queries,
        band.mean - band.spread,
        band.mean + band.spread,
        step="post",
        color=colour,
        alpha=0.15,
        linewidth=0,
    )
    if band.published:
        places, means, spreads = np.array(band.published).T
        axes.errorbar(
            places + shift,
            means,
            yerr=spreads,
            fmt="o",
            color=colour,
            markerfacecolor="white",
            markersize=4.5,
            linewidth=1,
            capsize=2,
            zorder=3,
        )


def _limit_to_late(
    axes: Axes, bands: Sequence[Band], references: Sequence[float]
) -> None:
    """Fits the y axis to all but the first twentieth of the curves."""
    shown = [np.asarray(references, np.float64)]
    for band in bands:
        late = slice(len(band.mean) // 20, None)
        shown += [(band.mean - band.spread)[late]]
        shown += [(band.mean + band.spread)[late]]
        points = [
            one for one in band.published if one[0] > len(band.mean) // 20
        ]
        shown += [np.array([m - s, m + s]) for _, m, s in points]
    _fit_y(axes, shown)
    axes.margins(x=0.02)


def _fit_y(axes: Axes, shown: Sequence[np.ndarray]) -> None:
    """Fits the y axis to all finite numbers of `shown`, with a margin."""
    values = np.concatenate(shown)
    values = values[np.isfinite(values)]
    if values.size:
        low, high = float(values.min()), float(values.max())
        margin = 0.06 * ((high - low) or max(abs(high), 1.0))
        axes.set_ylim(low - margin, high + margin)


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(len(labels), 4),
        frameon=False,
        fontsize=9,
    )


class Progress(NamedTuple):
    """The queries of a run, in their order."""

    scores: np.ndarray
    """`[n]` float64, NaN for a query without a score."""
    curves: Mapping[str, np.ndarray]
    """Best scores so far, `[n]`, by label; NaN where there is none yet."""
    is_feasible: np.ndarray
    """`[n]` bool, whether all constraints hold."""


def progress(
    content: Progress,
    path: PathLike,
    *,
    y_label: str,
    references: Mapping[str, float] | None = None,
    title: str | None = None,
) -> None:
    """Plots the scores of a run over its queries, and the best so far.

    A query without a score is a mark on the axis. Outliers among the scores do
    not determine the range.

    Args:
      content: The queries.
      path: File to write.
      y_label: Label of the y axis, with the unit.
      references: Horizontal lines to compare with, by label.
      title: Title of the figure, or None.

    Raises:
      ValueError: If there is no query.
    """
    if not len(content.scores):
        raise ValueError("`content` must have queries, got none")
    references = references or {}
    figure, axes = figure_and_axes(7.2, 4.2)
    queries = np.arange(1, len(content.scores) + 1)
    _draw_queries(axes, content, queries)
    for number, (label, curve) in enumerate(content.curves.items()):
        axes.plot(
            queries,
            curve,
            color=_MORE_COLOURS[number % len(_MORE_COLOURS)],
            linewidth=1.7,
            drawstyle="steps-post",
            label=label,
        )
    for style, (label, value) in zip(
        _REFERENCE_STYLES, references.items(), strict=False
    ):
        axes.axhline(
            value, color=GREY, linestyle=style, linewidth=1.2, label=label
        )
    _limit_to_most(axes, content, [*references.values()])
    axes.set_xlim(0.5, len(queries) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("queries")
    axes.set_ylabel(_without_math(y_label))
    decorate(axes, None)
    _legend_below(figure, axes)
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    save(figure, path)


def _draw_queries(axes: Axes, content: Progress, queries: np.ndarray) -> None:
    """Draws a dot for each score, and a mark for each query without."""
    has_score = np.isfinite(content.scores)
    size = 14.0 if len(queries) <= 200 else 4.0
    for shown, face, label in (
        (has_score & content.is_feasible, GREY, "query"),
        (has_score & ~content.is_feasible, "none", "violates a constraint"),
    ):
        if shown.any():
            axes.scatter(
                queries[shown],
                content.scores[shown],
                s=size,
                facecolors=face,
                edgecolors=GREY,
                linewidths=0.7,
                label=label,
            )
    if not has_score.all():
        # In x data, in y a fraction of the axes.
        axes.plot(
            queries[~has_score],
            np.full(int((~has_score).sum()), 0.015),
            transform=axes.get_xaxis_transform(),
            color=COLOURS[1],
            linestyle="",
            marker="x",
            markersize=5.0 if len(queries) <= 200 else 2.5,
            clip_on=False,
            label="no score",
        )


def _without_math(text: str) -> str:
    return text.replace("$", r"\$")


def _limit_to_most(
    axes: Axes, content: Progress, references: Sequence[float]
) -> None:
    """Fits the y axis to the curves and to nine of ten scores."""
    scores = content.scores[np.isfinite(content.scores)]
    shown = [np.asarray(references, np.float64)]
    if scores.size:
        shown += [np.quantile(scores, (0.05, 0.95)), *content.curves.values()]
    _fit_y(axes, shown)
    if not scores.size:
        axes.set_yticks([])


class Weighted(NamedTuple):
    """Data with weights."""

    scores: np.ndarray
    """`[N]`."""
    weights: np.ndarray
    """`[N]`, not negative; their sum does not matter."""


def weights(
    content: Mapping[str, Weighted],
    path: PathLike,
    *,
    x_label: str,
    maximise: bool = True,
    title: str | None = None,
) -> None:
    """Plots the distribution of the scores under several weightings.

    On the left is the (weighted) histogram of the scores, on the right the
    total weight of the best fraction of the data.

    Args:
      content: Data with weights, by label.
      path: File to write.
      x_label: Label of the scores, with their unit.
      maximise: Whether larger scores are better.
      title: Title of the figure, or None.

    Raises:
      ValueError: If there is nothing to draw, or no positive weight.
    """
    if not content:
        raise ValueError(f"`content` must have weights, got {content!r}")
    for label, data in content.items():
        _check_weights(label, data)
    figure, grid = figure_and_axes(9.0, 4.0, 1, 2)
    scores = np.concatenate([data.scores for data in content.values()])
    edges = _edges(scores, maximise)
    grid[0][0].hist(
        scores,
        edges,
        weights=np.full(len(scores), 100.0 / len(scores)),
        color="#cccccc",
        label="data without weights",
    )
    for number, (label, data) in enumerate(content.items()):
        _draw_weights(grid[0], data, edges, maximise, label, _look(number))
    _label_weights(grid[0], x_label)
    _legend_below(figure, grid[0][0])
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    save(figure, path)


def _draw_weights(
    axes: Sequence[Axes],
    data: Weighted,
    edges: Sequence[float],
    maximise: bool,
    label: str,
    look: tuple[str, str],
) -> None:
    style, colour = look
    shares = data.weights / data.weights.sum()
    axes[0].hist(
        data.scores,
        edges,
        weights=100.0 * shares,
        histtype="step",
        color=colour,
        linestyle=style,
        linewidth=1.6,
        label=label,
    )
    best_first = np.argsort(-data.scores if maximise else data.scores)
    axes[1].plot(
        100.0 * np.arange(1, len(shares) + 1) / len(shares),
        100.0 * np.cumsum(shares[best_first]),
        color=colour,
        linestyle=style,
        linewidth=1.6,
    )


def _check_weights(label: str, data: Weighted) -> None:
    scores, given = np.asarray(data.scores), np.asarray(data.weights)
    if (
        scores.ndim != 1
        or scores.shape != given.shape
        or not (given >= 0.0).all()
        or not given.sum() > 0.0
    ):
        raise ValueError(
            "`content` must have as many weights as scores, none negative "
            f"and one positive, got shapes {scores.shape!r} and "
            f"{given.shape!r} with a sum of {given.sum()} for {label!r}"
        )


def _label_weights(axes: Sequence[Axes], x_label: str) -> None:
    axes[0].set_xlabel(x_label)
    axes[0].set_ylabel("share of the weight / %")
    axes[1].set_xscale("log")
    axes[1].set_xlabel("best of the data / %")
    axes[1].set_ylabel("their share of the weight / %")
    axes[1].set_ylim(0.0, 102.0)
    low, high = axes[1].get_xlim()
    ticks = [tick for tick in (0.01, 0.1, 1, 10, 100) if low <= tick <= high]
    axes[1].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        decorate(one, None)


def _edges(scores: np.ndarray, maximise: bool) -> list[float]:
    """Bin edges that leave out the worst 0.5 %, possible outliers."""
    scores = scores[np.isfinite(scores)]
    ends = (0.005, 1.0) if maximise else (0.0, 0.995)
    low, high = np.quantile(scores, ends) if scores.size else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, _NUM_BINS + 1).tolist()


def sample_scores(
    content: Mapping[str, Mapping[str, np.ndarray]],
    path: PathLike,
    *,
    x_label: str,
    maximise: bool = True,
    references: Mapping[str, float] | None = None,
    title: str | None = None,
) -> None:
    """Plots histograms of the scores of a model's samples.

    Args:
      content: Scores by label, such as those of the first and of the last
        round, by title of the panel; values that are not finite are left
        out. All panels share the legend of the first one.
      path: File to write.
      x_label: Label of the scores, with their unit.
      maximise: Whether larger scores are better.
      references: Vertical lines to compare with, by label.
      title: Title of the figure, or None.

    Raises:
      ValueError: If there is nothing to draw.
    """
    if not content or not all(content.values()):
        raise ValueError(
            f"`content` must be panels with scores, got {content!r}"
        )
    columns = min(len(content), _PANELS_PER_ROW)
    rows = math.ceil(len(content) / columns)
    figure, grid = figure_and_axes(
        max(3.4 * columns, 5.0), 2.3 * rows + 0.9, rows, columns
    )
    edges = _edges(
        np.concatenate(
            [one for panel in content.values() for one in panel.values()]
        ),
        maximise,
    )
    for axes in grid.flat[len(content) :]:
        axes.set_visible(False)
    for axes, (name, panel) in zip(grid.flat, content.items(), strict=False):
        _draw_scores(axes, panel, edges, references or {})
        decorate(axes, name)
    for axes in grid[:, 0]:
        axes.set_ylabel("samples / %")
    for axes in grid.flat[max(0, len(content) - columns) : len(content)]:
        axes.set_xlabel(x_label)
    _legend_below(figure, grid[0][0])
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    save(figure, path)


def _draw_scores(
    axes: Axes,
    panel: Mapping[str, np.ndarray],
    edges: Sequence[float],
    references: Mapping[str, float],
) -> None:
    """Draws the histograms of a panel, the first of them in grey."""
    for number, (label, values) in enumerate(panel.items()):
        scores = np.asarray(values, np.float64)
        scores = scores[np.isfinite(scores)]
        colour = "#aaaaaa" if number == 0 else _MORE_COLOURS[number - 1]
        axes.hist(
            scores,
            edges,
            weights=np.full(len(scores), 100.0 / max(len(scores), 1)),
            histtype="stepfilled" if number == 0 else "step",
            color=colour,
            linewidth=1.6,
            label=label,
        )
        if scores.size:
            axes.axvline(
                float(np.median(scores)),
                color=GREY if number == 0 else colour,
                linestyle=":",
                linewidth=1.4,
                label=f"median, {label}",
            )
    for style, (label, value) in zip(
        _REFERENCE_STYLES, references.items(), strict=False
    ):
        axes.axvline(
            value, color=GREY, linestyle=style, linewidth=1.2, label=label
        )
    axes.set_xlim(*_with_references(edges, list(references.values())))
    axes.spines[["top", "right"]].set_visible(False)


def _with_references(
    edges: Sequence[float], references: Sequence[float]
) -> tuple[float, float]:
    low, high = min([edges[0], *references]), max([edges[-1], *references])
    margin = 0.02 * (high - low)
    return low - margin, high + margin
