# SPDX-License-Identifier: Apache-2.0
"""Curves of HTML pages: SVG without a library, and their values as a table.

A chart is drawn by Python, so that it is seen without scripts. The script of
the page, page.js, reads the table to show values below the pointer, or by the
arrow keys.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

MOST_POINTS = 2000
"""Points of a curve that are drawn."""
MOST_ROWS = 200
"""Rows of a table of values."""

_WIDTH, _HEIGHT = 1000.0, 400.0
_NUM_COLOURS = 5
_MARGIN = 0.06
_MANY = 300
_HUGE = 1e300
# Heights of the range beyond which values are cut off.
_FAR = 5.0
# Of a curve, what does not determine the range: the start.
_START = 0.1
_DOTS = (0.05, 0.95)


class Series(NamedTuple):
    """A curve, or dots."""

    label: str
    values: np.ndarray
    """`[n]`, NaN where there is none."""
    kind: str = "line"
    """"line", "steps", which holds a value until the next one, "dots", or
    "marks" on the axis for those without a value, 1 where there is one."""


def column(
    rows: Sequence[Mapping[str, Any]], name: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the finite values of a metric, and their epochs, if any.

    Args:
      rows: The metrics of each epoch, as text or numbers.
      name: The metric.
    """
    found = []
    for number, row in enumerate(rows, 1):
        try:
            pair = float(row.get("epoch") or number), float(row[name])
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(pair[0]) and abs(pair[1]) < _HUGE:
            found.append(pair)
    if not found:
        return None
    epochs, values = np.array(found).T
    return epochs, values


def chart(
    name: str,
    places: Sequence[float] | np.ndarray,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    description: str,
    references: Mapping[str, float] | None = None,
) -> str:
    """Returns a chart as HTML.

    Where the start of a curve, or a few dots, lie far from the rest, the axis
    is cut, with a note that says so.

    Args:
      name: Its identifier, unique on the page.
      places: `[n]`, x values, increasing.
      series: At least one with a finite value.
      x_label: Label of the x axis, and of its column.
      y_label: Label of the y axis, with the unit.
      description: Text for those who do not see it.
      references: Horizontal lines to compare with, by label.
    """
    x = np.asarray(places, np.float64)
    references = references or {}
    low, high, note = _limits(series, [*references.values()])
    x_low, x_high = _padded(float(x[0]), float(x[-1]))
    at = (x - x_low) / (x_high - x_low)
    y_ticks, x_ticks = _ticks(low, high), _ticks(x_low, x_high, True)
    labels = [
        *(
            f'<span class="tick y" style="top:{100.0 - 100.0 * share:.1f}%">'
            f"{text}</span>"
            for share, text in y_ticks
        ),
        *(
            f'<span class="tick x" style="left:{100.0 * share:.1f}%">'
            f"{text}</span>"
            for share, text in x_ticks
        ),
    ]
    said = escape(description)
    more = "" if note is None else f'<p class="note">{escape(note)}</p>'
    return (
        f'<figure class="chart" id="{name}-chart">\n'
        f'<span class="y-label" aria-hidden="true">{escape(y_label)}</span>\n'
        f'<div class="area" role="group" tabindex="0" aria-label="{said}; '
        'arrow keys read its values">'
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" '
        f'preserveAspectRatio="none" aria-label="{said}">\n'
        + "\n".join(
            [
                _grid([share for share, _ in y_ticks]),
                *_references(references, low, high),
                *_paths(at, series, low, high),
            ]
        )
        + '\n</svg><span aria-hidden="true">'
        + "".join(labels)
        + '</span><span class="cursor" hidden></span>'
        '<p class="reading" role="status"></p></div>\n'
        f'<span class="x-label" aria-hidden="true">{escape(x_label)}</span>\n'
        f"{_legend(series, references)}{more}\n"
        f"{_values(name, x, at, series, x_label, description)}\n</figure>"
    )


def _limits(
    series: Sequence[Series], references: Sequence[float]
) -> tuple[float, float, str | None]:
    """Returns the range of the y axis, and a note on what is outside."""
    core, every = [np.asarray(references, np.float64)], []
    for one in series:
        if one.kind == "marks":
            continue
        values = one.values[np.isfinite(one.values)]
        every.append(values)
        if one.kind == "dots" and values.size:
            core.append(np.quantile(values, _DOTS))
        else:
            first = math.ceil(_START * len(values)) if len(values) > 3 else 0
            core.append(values[first:])
    inner, outer = np.concatenate(core), np.concatenate([*every, references])
    if not outer.size:
        return 0.0, 1.0, None
    low, high = float(inner.min()), float(inner.max())
    span = (high - low) or 0.1 * max(abs(high), 1.0)
    lowest, highest = float(outer.min()), float(outer.max())
    ends = (
        low if lowest < low - _FAR * span else lowest,
        high if highest > high + _FAR * span else highest,
    )
    low, high = _padded(*ends)
    outside = outer[(outer < low) | (outer > high)]
    if not outside.size:
        return low, high, None
    note = (
        f"{outside.size} values outside the range, from {outside.min():.4g} to "
        f"{outside.max():.4g}, are not drawn."
    )
    if outside.size == 1:
        note = f"One value outside the range, {outside[0]:.4g}, is not drawn."
    return low, high, note


def _padded(low: float, high: float) -> tuple[float, float]:
    """Returns a range with a margin, of some width."""
    margin = _MARGIN * (high - low) or 0.05 * max(abs(high), 1.0)
    return low - margin, high + margin


def _ticks(
    low: float, high: float, is_whole: bool = False
) -> list[tuple[float, str]]:
    """Returns three to six round numbers of a range: where, 0..1, and text."""
    rough = (high - low) / 5.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(k * power for k in (1.0, 2.0, 5.0, 10.0) if k * power >= rough)
    if is_whole:
        step = max(step, 1.0)
    first = math.ceil(low / step)
    count = math.floor(high / step) - first + 1
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    found = []
    for number in range(first, first + count):
        value = number * step
        is_long = abs(value) >= 1e5 or digits > 4
        text = f"{value:.3g}" if is_long else f"{value:.{digits}f}"
        text = text.replace("-", "\N{MINUS SIGN}")
        found.append(((value - low) / (high - low), text))
    return found


def _grid(shares: Sequence[float]) -> str:
    lines = "".join(
        f"M0 {_HEIGHT * (1.0 - share):.1f}H{_WIDTH:g}" for share in shares
    )
    return f'<path class="grid" d="{lines}"/>'


def _references(
    references: Mapping[str, float], low: float, high: float
) -> list[str]:
    return [
        f'<path class="reference{_second(number)}" '
        f'd="M0 {_down(value, low, high):.1f}H{_WIDTH:g}"/>'
        for number, value in enumerate(references.values())
    ]


def _second(number: int) -> str:
    """Returns the class that tells references apart."""
    return " second" if number % 2 else ""


def _down(value: float, low: float, high: float) -> float:
    return _HEIGHT * (1.0 - (value - low) / (high - low))


def _paths(
    at: np.ndarray, series: Sequence[Series], low: float, high: float
) -> list[str]:
    return [
        f'<path class="{_class(one)}" style="stroke:{_colour(number)}" '
        f'd="{_path(at, one, low, high)}"/>'
        for number, one in enumerate(series)
    ]


def _class(one: Series) -> str:
    if one.kind not in ("dots", "marks"):
        return "curve"
    return "dots many" if np.isfinite(one.values).sum() > _MANY else "dots"


def _colour(number: int) -> str:
    return f"var(--c{number % _NUM_COLOURS})"


def _path(at: np.ndarray, one: Series, low: float, high: float) -> str:
    """Returns the path of a curve through the points that have a value."""
    known = np.flatnonzero(np.isfinite(one.values))
    is_dotted = one.kind in ("dots", "marks")
    drawn = known[thinned(len(known), MOST_POINTS)]
    parts, before = [], None
    for k in drawn:
        x = _WIDTH * at[k]
        y = _HEIGHT - 4.0
        if one.kind != "marks":
            # Far outside it is the same for the eye, and shorter.
            y = _down(float(one.values[k]), low, high)
            y = min(max(y, -_HEIGHT), 2.0 * _HEIGHT)
        if is_dotted:
            parts.append(f"M{x:.1f} {y:.1f}h0")
        elif before is None:
            parts.append(f"M{x:.1f} {y:.1f}")
        elif one.kind == "steps":
            parts.append(f"H{x:.1f}V{y:.1f}")
        else:
            parts.append(f"L{x:.1f} {y:.1f}")
        before = k
    if len(drawn) == 1 and not is_dotted:
        parts.append("h0")
    return "".join(parts)


def thinned(count: int, most: int) -> np.ndarray:
    """Returns at most so many of the indices, evenly spaced, with both ends."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(int))


def _legend(series: Sequence[Series], references: Mapping[str, float]) -> str:
    items = []
    for number, one in enumerate(series):
        known = one.values[np.isfinite(one.values)]
        is_dotted = one.kind in ("dots", "marks")
        last = "" if is_dotted or not known.size else f": {known[-1]:.4g}"
        items.append(
            f'<li class="{"dots" if is_dotted else "curve"}" '
            f'style="--key:{_colour(number)}">{escape(one.label)}{last}</li>'
        )
    items += [
        f'<li class="reference{_second(number)}">{escape(label)}: '
        f"{value:.4g}</li>"
        for number, (label, value) in enumerate(references.items())
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _values(
    name: str,
    x: np.ndarray,
    at: np.ndarray,
    series: Sequence[Series],
    x_label: str,
    description: str,
) -> str:
    """Returns the values as a table, closed at first."""
    kept = thinned(len(x), MOST_ROWS)
    some = "" if len(kept) == len(x) else f", {len(kept)} of {len(x)}"
    shown = [one for one in series if one.kind != "marks"]
    head = "".join(
        f'<th scope="col" class="n">{escape(title)}</th>'
        for title in (x_label, *(one.label for one in shown))
    )
    lines = []
    for k in kept:
        cells = itertools.chain([x[k]], (one.values[k] for one in shown))
        texts = (f"{v:.6g}" if math.isfinite(v) else "" for v in cells)
        row = "".join(f'<td class="n">{text}</td>' for text in texts)
        lines.append(f'<tr data-at="{at[k]:.4f}">{row}</tr>')
    return (
        f"<details><summary>Values{some}</summary>"
        f'<div class="scroll" tabindex="0" role="group" '
        f'aria-label="Values: {escape(description)}"><table class="rows">'
        f"<caption>{escape(description)}</caption>"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n"
        + "\n".join(lines)
        + "\n</tbody></table></div></details>"
    )
