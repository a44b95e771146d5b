# SPDX-License-Identifier: Apache-2.0
"""`report.html`: a restoration as one page that opens from disk.

The page is a list of panels, see `_panels`, in the frame of `pages`.
"""

from __future__ import annotations

import csv
import datetime
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from tfvae import files, plots
from tfvae.data import images
from tfvae.plots import embedding
from tfvae.restoration import Restoration
from tfvae.runs import charts, pages, uncertainty
from tfvae.runs.pages import NAME, Head, Panel
from tfvae.runs.run_directory import RunDirectory

# What is of a picture, not of the model of several.
_OF_A_PICTURE = frozenset(("psnr", "ssim", "noise_std"))
_DETAIL_PIXELS = 128
# Pictures of fewer pixels a side are enlarged to squares.
_SMALL_PIXELS = 600


class Outcome(NamedTuple):
    """What a page is about.

    Attributes:
      folder: The run folder, for the standard deviations.
      restoration: The restoration.
      restored: `[height, width, channels]` float32 on 0..255.
      rows: The metrics of each epoch.
      summary: The summary of the run.
      ended: When the run ended.
    """

    folder: pathlib.Path
    restoration: Restoration
    restored: np.ndarray
    rows: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]
    ended: datetime.datetime


def write(
    run: RunDirectory,
    restoration: Restoration,
    restored: np.ndarray,
    rows: Sequence[Mapping[str, Any]],
    folder: pathlib.Path | None = None,
    scores: Mapping[str, float] | None = None,
) -> pathlib.Path:
    """Writes the page of a finished run and returns its path.

    Args:
      run: The folder of the run, which has a summary.
      restoration: The restoration.
      restored: `[height, width, channels]` on 0..255, see
        `Restoration.restore`.
      rows: The metrics of each epoch.
      folder: Folder of the page and of the figures; None for that of the run.
      scores: Noise and scores of this picture, where the summary is of
        several.
    """
    folder = folder or run.path
    ended = datetime.datetime.fromtimestamp(run.summary.stat().st_mtime)
    path = folder / NAME
    summary = run.read_summary() or {}
    if scores is not None:
        summary = {k: v for k, v in summary.items() if k not in _OF_A_PICTURE}
    text = page(
        Outcome(
            folder,
            restoration,
            restored,
            rows,
            {**summary, **(scores or {})},
            ended.astimezone(),
        )
    )
    with files.replacing(path) as file:
        file.write(text)
    return path


def is_current(run: RunDirectory) -> bool:
    """Whether a finished run has the page of its last summary."""
    path = run.path / NAME
    if not path.exists():
        return False
    return path.stat().st_mtime >= run.summary.stat().st_mtime


def read_rows(run: RunDirectory) -> list[dict[str, str]]:
    """Returns the metrics of each epoch of a run, "" where there are none."""
    with run.metrics.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def page(outcome: Outcome) -> str:
    """Returns the page as HTML.

    Args:
      outcome: What it is about.
    """
    name = outcome.restoration.name
    return pages.page(
        Head(
            f"{name}, restored",
            f"{escape(name)} <span>restored</span>",
            "finished",
            f"{outcome.ended:%Y-%m-%d %H:%M %Z}",
            pages.without_folder(str(outcome.summary.get("command", ""))),
            "All settings are in config.gin of the run folder, which "
            "<code>--gin_file</code> takes.",
        ),
        _tiles(outcome),
        _panels(outcome),
        _made(outcome),
        "restoration_page",
    )


def _panels(outcome: Outcome) -> list[Panel]:
    """Returns the panels in their order; some need files or a clean picture."""
    panels = [
        _comparison(outcome),
        _detail(outcome),
        _residual(outcome),
        _uncertainty(outcome),
        _curve(outcome, "psnr", "PSNR", "PSNR / dB"),
        _curve(
            outcome,
            "bound",
            "Bound",
            "bound on log p(x) / nats per data point",
        ),
        _noise_curve(outcome),
        _picture(outcome),
        _summary(outcome),
    ]
    return [panel for panel in panels if panel is not None]


def _tiles(outcome: Outcome) -> Iterable[str]:
    """Yields the figures at the head of the page."""
    summary, restoration = outcome.summary, outcome.restoration
    if "noise_std" in summary:
        found = float(summary["noise_std"])
        share = 100.0 * found / restoration.value_range.width
        yield pages.tile(
            "Noise",
            f"{found:.4g}",
            f"standard deviation, {share:.3g} % of the range",
        )
    missing = restoration.missing_fraction
    if missing:
        yield pages.tile(
            "Filled in", f"{100.0 * missing:.3g} %", "of the values"
        )
    for name, unit, digits in (("psnr", " dB", 2), ("ssim", "", 3)):
        if not math.isfinite(summary.get(name, math.nan)):
            continue
        before = summary.get(f"corrupted_{name}", math.nan)
        is_known = math.isfinite(before)
        note = f"before: {before:.{digits}f}{unit}" if is_known else ""
        value = f"{summary[name]:.{digits}f}{unit}"
        yield pages.tile(name.upper(), value, note)
    height, width, _ = restoration.image.shape
    kind = f"pixels, {restoration.source.values.dtype}"
    yield pages.tile("Picture", f"{width} × {height}", kind)
    if "training_seconds" in summary:
        took = pages.duration(float(summary["training_seconds"]))
        if "rounds" in summary:
            yield pages.tile("Time", took, f"{summary['rounds']} rounds")
        else:
            yield pages.tile("Training", took, f"{summary['epochs']} epochs")


def _views(outcome: Outcome) -> dict[str, tuple[str, np.ndarray]]:
    """Returns title and picture, `[h, w, channels]` on 0..255, of each view."""
    restoration = outcome.restoration
    views = {
        "before": ("Before", restoration.image),
        "after": ("Restored", outcome.restored),
    }
    if restoration.clean is not None:
        views["clean"] = ("Clean", restoration.clean)
    return views


def _as_shown(picture: np.ndarray) -> np.ndarray:
    """Returns a picture on 0..255 as the figures show it, on 0..1."""
    shown = images.shown_channels(picture)
    return plots.as_rgb(shown, (0.0, images.WHITE))


def _comparison(outcome: Outcome) -> Panel:
    views = {
        name: (title, embedding.embedded(_as_shown(picture)))
        for name, (title, picture) in _views(outcome).items()
    }
    first = views["before"][1]
    sides = {"before": " left", "after": " right"}
    layers = "\n".join(
        _image(
            one,
            f"{title}: {outcome.restoration.name}",
            f'class="layer{sides.get(name, "")}" data-view="{name}" '
            f'data-title="{title}"',
        )
        for name, (title, one) in views.items()
    )
    body = (
        f'<div class="stage" style="--w:{first.width};--h:{first.height}">\n'
        f"{layers}\n"
        '<span class="tag left" aria-hidden="true">Before</span>\n'
        '<span class="tag right" aria-hidden="true">Restored</span>\n'
        '<span class="divider" aria-hidden="true"></span>\n'
        '<input type="range" min="0" max="100" step="1" value="50" '
        'aria-label="Divider between Before (left) and Restored (right)">\n'
        f"</div>\n{_choice(views)}\n"
        f'<p class="note">{escape(_how_shown(outcome, first))}</p>'
    )
    return Panel("comparison", "Before and after", body, is_wide=True)


def _choice(views: Mapping[str, Any]) -> str:
    """Returns buttons to choose two views, where there are more."""
    if "clean" not in views:
        return ""
    buttons = "\n".join(
        f'<label><input type="radio" name="pair" value="{left} {right}"'
        f"{' checked' if left == 'before' and right == 'after' else ''}>"
        f"<span>{views[left][0]} | {views[right][0]}</span></label>"
        for left, right in (
            ("before", "after"),
            ("after", "clean"),
            ("before", "clean"),
        )
    )
    return (
        '<fieldset class="choice"><legend>Left | right</legend>\n'
        f"{buttons}\n</fieldset>"
    )


def _image(one: embedding.Embedded, alt: str, attributes: str = "") -> str:
    is_small = max(one.width, one.height) <= _SMALL_PIXELS
    return (
        f'<img src="{one.uri}" width="{one.width}" height="{one.height}" '
        f'alt="{escape(alt)}"{" data-small" if is_small else ""} {attributes}>'
    )


def _how_shown(outcome: Outcome, one: embedding.Embedded) -> str:
    """Says how the pictures are drawn, and what is not seen."""
    restoration = outcome.restoration
    channels = restoration.image.shape[-1]
    num_shown = images.shown_channels(restoration.image).shape[-1]
    said = [f"Drawn on {restoration.value_range} as black to white."]
    if num_shown < channels:
        which = "first" if num_shown == 1 else f"first {num_shown}"
        said.append(f"Of {channels} channels the {which} can be seen.")
    if restoration.source.alpha is not None:
        said.append("Transparency is not drawn.")
    if restoration.missing_fraction:
        colour = "blue" if num_shown == 1 else "black"
        said.append(f"Missing values are {colour}.")
    height, width = restoration.image.shape[:2]
    if one.is_reduced:
        said.append(
            f"Scaled down from {width} × {height} to {one.width} × "
            f"{one.height} pixels, which averages some of the noise away; the "
            "detail below is not."
        )
    if one.is_lossy:
        said.append(f"Compressed as JPEG of quality {embedding.JPEG_QUALITY}.")
    return " ".join(said)


def _detail(outcome: Outcome) -> Panel | None:
    views = _views(outcome)
    reference = views.get("clean", views["after"])[1]
    top, left, size = plots.busiest_region(
        images.shown_channels(reference), _DETAIL_PIXELS
    )
    if size == max(reference.shape[:2]):
        return None
    figures = "\n".join(
        "<figure>"
        + _image(
            embedding.embedded(
                _as_shown(picture[top : top + size, left : left + size])
            ),
            f"{title}, enlarged",
        )
        + f"<figcaption>{title}</figcaption></figure>"
        for title, picture in views.values()
    )
    body = (
        f'<div class="row">{figures}</div>\n<p class="note">{size} × {size} '
        f"pixels from column {left} and row {top}, where the contrast is "
        "highest, enlarged without smoothing.</p>"
    )
    return Panel("detail", "Detail", body, is_wide=True)


def _residual(outcome: Outcome) -> Panel | None:
    restoration = outcome.restoration
    values = images.shown_channels(restoration.residual(outcome.restored))
    limit = embedding.signed_limit(values)
    if not limit:  # All observed values are kept.
        return None
    one = embedding.embedded(embedding.signed(values, limit))
    note = (
        f"Observed − restored; mid-grey is 0, black −{limit:.4g} and white "
        f"+{limit:.4g}, in the picture's units. Structure of the picture in it "
        "is what the restoration has removed with the noise."
    )
    if restoration.missing_fraction:
        note += " Missing values are mid-grey."
    body = _figure(one, f"Residual of {restoration.name}", note)
    return Panel("residual", "Residual", body)


def _uncertainty(outcome: Outcome) -> Panel | None:
    """Returns a panel with the standard deviations, if the run has them."""
    path = outcome.folder / uncertainty.FILE
    if not path.exists():
        return None
    shown, white = uncertainty.drawn(np.load(path))
    note = (
        "Posterior standard deviation of each pixel, in the picture's units; "
        f"black is 0, white {white:.4g} and more."
    )
    one = embedding.embedded(shown)
    body = _figure(one, f"Uncertainty of {outcome.restoration.name}", note)
    return Panel("uncertainty", "Uncertainty", body)


def _figure(one: embedding.Embedded, alt: str, note: str) -> str:
    return (
        f"<figure>{_image(one, alt)}"
        f'<figcaption class="note">{escape(note)}</figcaption></figure>'
    )


def _noise_curve(outcome: Outcome) -> Panel | None:
    """Returns a panel with the noise over epochs, in the picture's units."""
    if "noise_std" not in outcome.summary:
        return None
    factor = outcome.restoration.in_units(1.0)[0]
    label = "standard deviation of the noise"
    return _curve(outcome, "noise_std", "Noise", label, factor)


def _curve(
    outcome: Outcome, column: str, title: str, label: str, factor: float = 1.0
) -> Panel | None:
    """Returns a panel with a metric over epochs, if there are two values."""
    found = charts.column(outcome.rows, column)
    if found is None or len(found[0]) < 2 or "epoch" not in outcome.rows[0]:
        return None
    epochs, values = found[0], factor * found[1]
    name = column.replace("_", "-")
    drawing = charts.chart(
        name,
        epochs,
        [charts.Series(title, values)],
        x_label="epoch",
        y_label=label,
        description=f"{title} over epochs, at the end {values[-1]:.4g}",
    )
    return Panel(name, title, drawing)


def _picture(outcome: Outcome) -> Panel:
    lines = "\n".join(
        f"<li>{escape(line)}</li>"
        for line in outcome.restoration.describe().splitlines()
    )
    title = "What the picture is taken to be"
    return Panel("picture", title, f"<ul>{lines}</ul>")


def _summary(outcome: Outcome) -> Panel:
    body = pages.table(
        (name, pages.number(value))
        for name, value in outcome.summary.items()
        if isinstance(value, int | float | str) and name != "command"
    )
    return Panel("summary", "Summary", body)


def _made(outcome: Outcome) -> str:
    """Says by what, and when."""
    versions = outcome.summary.get("versions", {})
    parts = [
        f"{package} {versions[package]}"
        for package in ("tfvae", "tensorflow", "keras")
        if package in versions
    ]
    return f"{', '.join(parts)}; {outcome.ended:%Y-%m-%d %H:%M %Z}"
