# SPDX-License-Identifier: Apache-2.0
"""`report.html`: a training run so far as one page that opens from disk.

It shows what is in the run folder: curves of the metrics, figures of the model,
the configuration. It needs neither the model nor TensorFlow.
"""

from __future__ import annotations

import datetime
import json
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from tfvae import __version__, files
from tfvae.runs import charts, pages
from tfvae.runs.kinds import CONFIG, SUMMARY
from tfvae.runs.pages import NAME, Head, Panel

_BOUNDS = {
    "bound": "training data",
    "test_bound": "test data",
    "validation_bound": "validation data",
}
_BOUND_LABEL = "bound on log p(x) / nats per data point"
_TITLES = {
    "active": "Active latents per state",
    "dropped_mass": "Posterior mass of dropped states",
    "effective_states": "Effective number of states",
    "kl": "KL divergence",
    "learning_rate": "Learning rate",
    "noise_std": "Standard deviation of the noise",
    "psnr": "PSNR / dB",
    "replaced": "Share of states replaced",
    "seconds": "Seconds of an epoch",
    "ssim": "SSIM",
}
# Drawn as curves of the page.
_CURVES = ("bound", "psnr")
# What is looked at first.
_FIRST = ("reconstructions", "samples", "features")
_WIDE = ("reconstructions",)
_MOST_ROWS = 500
# Share of the time of a run that its pages may take.
_SHARE = 0.02


class Outcome(NamedTuple):
    """What a page is about.

    Attributes:
      folder: The run folder.
      rows: The metrics of each epoch.
      epochs: Epochs of the whole run.
      references: Values to compare the bound with, by label.
      written: When it was so far.
    """

    folder: pathlib.Path
    rows: Sequence[Mapping[str, Any]]
    epochs: int
    references: Mapping[str, float]
    written: datetime.datetime

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done."""
        return len(self.rows) >= self.epochs

    def summary(self) -> dict[str, Any]:
        """Returns the summary of the run, empty unless it is finished."""
        if not self.is_finished:
            return {}
        try:
            text = (self.folder / SUMMARY).read_text(encoding="utf-8")
            return dict(json.loads(text))
        except (OSError, TypeError, ValueError):
            return {}


class Writer:
    """Writes the page of a run again and again, in a share of its time."""

    def __init__(
        self,
        folder: pathlib.Path,
        epochs: int,
        references: Mapping[str, float] | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Starts without a page.

        Args:
          folder: The run folder.
          epochs: Epochs of the whole run.
          references: Values to compare the bound with, by label.
          clock: Returns the time in seconds.
        """
        self._folder = folder
        self._epochs = epochs
        self._references = references or {}
        self._clock = clock
        self._took = 0.0
        self._written = -float("inf")

    def write(self, rows: Sequence[Mapping[str, Any]]) -> pathlib.Path:
        """Writes the page and returns its path.

        Args:
          rows: The metrics of each epoch so far.
        """
        started = self._clock()
        now = datetime.datetime.now().astimezone()
        outcome = Outcome(
            self._folder, rows, self._epochs, self._references, now
        )
        path = self._folder / NAME
        with files.replacing(path) as file:
            file.write(page(outcome))
        self._written = self._clock()
        self._took = self._written - started
        return path

    def refresh(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes it if the last one took little of the time since then.

        Args:
          rows: The metrics of each epoch so far.
        """
        if self._took <= _SHARE * (self._clock() - self._written):
            self.write(rows)


def page(outcome: Outcome) -> str:
    """Returns the page as HTML."""
    name = outcome.folder.absolute().name
    summary = outcome.summary()
    data = summary.get("data")
    command = str(summary.get("command") or shlex.join(sys.argv))
    done = f"epoch {len(outcome.rows)} of {outcome.epochs}"
    return pages.page(
        Head(
            f"{name}, trained",
            f"{escape(name)} <span>trained{_on(data)}</span>",
            "finished" if outcome.is_finished else "unfinished",
            f"{done}, {outcome.written:%Y-%m-%d %H:%M %Z}",
            pages.without_folder(command),
            "All settings are in config.gin of the run folder, which "
            "<code>--gin_file</code> takes; the same command resumes it.",
        ),
        _tiles(outcome),
        _panels(outcome, summary),
        f"tfvae {__version__}; {outcome.written:%Y-%m-%d %H:%M %Z}",
    )


def _on(data: Any) -> str:
    return "" if data is None else f" on {escape(str(data))}"


def _tiles(outcome: Outcome) -> Iterable[str]:
    """Yields the figures at the head of the page."""
    for name, data in _BOUNDS.items():
        found = charts.column(outcome.rows, name)
        if found is not None:
            value = f"{found[1][-1]:.5g}"
            yield pages.tile(f"Bound, {data}", value, "nats per data point")
    for label, reference in outcome.references.items():
        title = label[:1].upper() + label[1:]
        yield pages.tile(title, f"{reference:.5g}", "nats per data point")
    for name, title in (("psnr", "PSNR"), ("noise_std", "Noise")):
        found = charts.column(outcome.rows, name)
        if found is not None:
            note = "dB" if name == "psnr" else "standard deviation"
            yield pages.tile(title, f"{found[1][-1]:.4g}", note)
    seconds = charts.column(outcome.rows, "seconds")
    if seconds is None:
        return
    spent = float(seconds[1].sum())
    left = outcome.epochs - len(outcome.rows)
    note = f"{len(outcome.rows)} epochs"
    if left > 0:
        each = float(np.median(seconds[1][-20:]))
        note += f", {pages.duration(left * each)} left"
    yield pages.tile("Time", pages.duration(spent), note)


def _panels(outcome: Outcome, summary: Mapping[str, Any]) -> list[Panel]:
    panels = [
        _bounds(outcome),
        *_figures(outcome.folder / "figures"),
        *_curves(outcome),
        _epochs(outcome.rows),
        _summary(summary),
        _configuration(outcome.folder),
    ]
    return [panel for panel in panels if panel is not None]


def _bounds(outcome: Outcome) -> Panel | None:
    """Returns a panel with the bounds of all data, if there are any."""
    found = {
        label: column
        for name, label in _BOUNDS.items()
        if (column := charts.column(outcome.rows, name)) is not None
    }
    if not found:
        return None
    epochs = np.unique(np.concatenate([x for x, _ in found.values()]))
    series = []
    for label, (x, values) in found.items():
        spread = np.full(len(epochs), np.nan)
        spread[np.searchsorted(epochs, x)] = values
        series.append(charts.Series(label, spread))
    last = next(iter(found.values()))[1][-1]
    drawing = charts.chart(
        "bound",
        epochs,
        series,
        x_label="epoch",
        y_label=_BOUND_LABEL,
        references=outcome.references,
        description=f"Bound over epochs, at the end {last:.4g}",
    )
    return Panel("bound", "Bound", drawing, is_wide=True)


def _curves(outcome: Outcome) -> Iterable[Panel]:
    """Yields a panel for each other metric that changes."""
    names = dict.fromkeys(name for row in outcome.rows for name in row)
    bound = charts.column(outcome.rows, "bound")
    for name in names:
        if name == "epoch" or name in _BOUNDS:
            continue
        found = charts.column(outcome.rows, name)
        if found is None or len(found[0]) < 2 or np.ptp(found[1]) == 0.0:
            continue
        if name == "loss" and bound is not None:
            if np.array_equal(found[1], -bound[1]):
                continue
        title = _TITLES.get(name, name.replace("_", " ").capitalize())
        drawing = charts.chart(
            name.replace("_", "-"),
            found[0],
            [charts.Series(title, found[1])],
            x_label="epoch",
            y_label="",
            description=f"{title} over epochs, at the end {found[1][-1]:.4g}",
        )
        yield Panel(name.replace("_", "-"), title, drawing)


def _figures(folder: pathlib.Path) -> Iterable[Panel]:
    """Yields a panel for each picture that the run has drawn."""
    paths = [one for one in folder.glob("*.png") if one.stem not in _CURVES]
    places = {name: place for place, name in enumerate(_FIRST)}
    paths.sort(key=lambda one: (places.get(one.stem, len(places)), one.stem))
    for path in paths:
        title = path.stem.replace("_", " ").capitalize()
        body = pages.picture(path, title)
        if body is not None:
            name = escape(path.stem.replace("_", "-"))
            yield Panel(f"figure-{name}", title, body, path.stem in _WIDE)


def _epochs(rows: Sequence[Mapping[str, Any]]) -> Panel | None:
    """Returns a table of the metrics of all epochs, or of some of many."""
    if not rows:
        return None
    names = [*dict.fromkeys(name for row in rows for name in row)]
    kept = charts.thinned(len(rows), _MOST_ROWS)
    cells = []
    for number in kept:
        row = rows[number]
        found = (charts.column([row], name) for name in names)
        cells.append(
            [
                pages.number_cell(None if one is None else float(one[1][0]))
                for one in found
            ]
        )
    title = "All epochs"
    if len(kept) < len(rows):
        title = f"{len(kept)} of {len(rows)} epochs"
    body = pages.rows_table(
        [name.replace("_", " ") for name in names], cells, title
    )
    return Panel("epochs", title, body, is_wide=True)


def _summary(summary: Mapping[str, Any]) -> Panel | None:
    rows = [
        (name, pages.number(value))
        for name, value in summary.items()
        if isinstance(value, int | float | str) and name != "command"
    ]
    versions = summary.get("versions")
    if isinstance(versions, dict):
        rows += [(str(k), escape(str(v))) for k, v in versions.items()]
    if not rows:
        return None
    return Panel("summary", "Summary", pages.table(rows), is_wide=True)


def _configuration(folder: pathlib.Path) -> Panel | None:
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return pages.configuration(text)
