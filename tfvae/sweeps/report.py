# SPDX-License-Identifier: Apache-2.0
"""Report of a grid of models: tables, analyses of variance, sheets of images.

`write` writes the whole report. To extend it, for example by published values
or tests of hypotheses, pass a `section` or an `appendix` that is composed of
the functions below.
"""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from tfvae import plots
from tfvae.data import images
from tfvae.sweeps import (
    anova,
    comparisons,
    folders,
    report_page,
    results,
    tables,
)
from tfvae.sweeps.anova import Design
from tfvae.sweeps.grid import Layout
from tfvae.sweeps.results import REPETITION, Metric, Part, Results

_DISTANCES = ("frechet_distance", "kernel_distance")
_PICTURES = ("reconstructions", "samples", "interpolations")

Published = Callable[[str, Mapping[str, str]], tuple[float, float] | None]
"""From a metric's name and a model's levels to a published (mean, std)."""
Section = Callable[[Results, Part, pathlib.Path], list[str]]
"""From results, one part and the folder of the report to Markdown texts."""
Appendix = Callable[[Results, pathlib.Path], list[str]]
"""From results and the folder of the report to Markdown texts."""


def section(found: Results, part: Part, folder: pathlib.Path) -> list[str]:
    """Returns the default section of a part; see `Section`."""
    return [
        *metric_tables(found, part, folder),
        *anovas(found, part, folder),
        *sheets(found, part, folder),
    ]


def anovas(
    found: Results,
    part: Part,
    folder: pathlib.Path,
    designs: Mapping[str, Design] | None = None,
) -> list[str]:
    """Returns a table of analyses of variance, and writes it to a file.

    Args:
      found: Results of the study.
      part: The part to report.
      folder: Folder of the report.
      designs: Designs of analyses by metric name; others have the full one.
    """
    head = ["metric", "design", "term", "F", "df", "p", "partial eta²"]
    rows: list[list[str]] = []
    for metric in found.metrics:
        if metric.is_fixed or not part.frame[metric.name].notna().any():
            continue
        design = (designs or {}).get(metric.name, anova.FULL)
        one = anova.anova(part.frame, metric.name, found.layout.within, design)
        if one.note:
            rows.append([metric.title, one.formula, one.note, *[""] * 4])
        rows += [
            [
                metric.title,
                one.formula,
                term.name,
                f"{term.f:.2f}",
                f"{term.df:.0f}, {one.residual_df:.0f}",
                comparisons.p_text(term.p)
                .removeprefix("p ")
                .removeprefix("= "),
                f"{term.eta_squared:.3f}",
            ]
            for term in one.terms
        ]
    table = tables.table(head, rows)
    name = folders.file_stem(part.name, "anova")
    tables.write_csv(folder / "tables" / f"{name}.csv", table)
    return ["### Analyses of variance\n", tables.markdown(table)]


def duels(
    found: Results,
    folder: pathlib.Path,
    *,
    frame: pd.DataFrame | None = None,
    qualifier: str = "",
) -> list[str]:
    """Returns tables of the best level of each separate factor, by model.

    Args:
      found: Results of the study.
      folder: Folder of the report.
      frame: The rows of `found.frame` to compare; None for all.
      qualifier: What the models of `frame` are, after the word "models".
    """
    text: list[str] = []
    frame = found.frame if frame is None else frame
    factors = list(found.layout.factors)
    for factor, metric in itertools.product(found.layout.separate, _DISTANCES):
        one = comparisons.duel(frame, metric, factor, factors)
        if one is None:
            continue
        others = [name for name in factors if name != factor]
        rows = [
            [
                *model.values(),
                *(f"{means[level]:.4g}" for level in one.wins),
                comparisons.p_text(p_value),
            ]
            for model, means, p_value in one.lines
        ]
        table = tables.table([*others, *one.wins, "difference"], rows)
        tables.write_csv(folder / "tables" / f"{factor}_{metric}.csv", table)
        count = ", ".join(
            f"{level} in {wins} of {len(one.lines)}"
            for level, wins in one.wins.items()
        )
        title = metric.replace("_", " ").replace("frechet", "Fréchet")
        text += [
            f"## Which {factor} has the smaller {title}\n",
            f"{count} models{qualifier}.\n",
            tables.markdown(table),
        ]
    return text


def write(
    run_dir: str | os.PathLike[str],
    *,
    notes: Sequence[str] = (),
    section: Section = section,
    appendix: Appendix = duels,
) -> pathlib.Path:
    """Writes the report of the finished cells of a study, and prints its path.

    Args:
      run_dir: Folder of the study.
      notes: Paragraphs after the introduction.
      section: Returns the section of a part.
      appendix: Returns the text at the end, on all parts together.

    Returns:
      Path of the report, a Markdown file; the same as a page, report.html, and
      its tables as CSV files are written beside it.

    Raises:
      FileNotFoundError: If there is no study.
      ValueError: If an earlier version wrote study.json in an older format.
    """
    found = results.read(run_dir)
    folder = found.path / folders.REPORT
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    (folder / "sheets").mkdir(exist_ok=True)
    found.frame.to_csv(folder / "cells.csv", index=False)
    text = [_summary_text(found), *(f"{note}\n" for note in notes)]
    text += failures(found.errors)
    for part in found.parts():
        text.append(f"## {' '.join(part.levels.values()) or 'Results'}\n")
        text += section(found, part, folder)
    text += appendix(found, folder)
    return report_page.write(folder, text, len(found.frame), len(found.cells))


def _summary_text(found: Results) -> str:
    factors = ", ".join(
        f"{name} ({', '.join(levels)})"
        for name, levels in found.layout.factors.items()
    )
    return (
        f"# Report of a study\n\n{len(found.frame)} of {len(found.cells)} "
        f"cells are finished: {factors}, {found.num_repetitions} repetitions "
        "planned. All numbers are means over repetitions, standard deviations "
        "in brackets.\n"
    )


def failures(errors: Mapping[str, str]) -> list[str]:
    """Returns a list of the failed cells; empty if there are none."""
    if not errors:
        return []
    lines = [f"* {name}: {why}" for name, why in errors.items()]
    return [f"{len(errors)} cells failed:\n", *lines, ""]


def metric_tables(
    found: Results,
    part: Part,
    folder: pathlib.Path,
    *,
    published: Published | None = None,
    captions: Mapping[str, str] | None = None,
) -> list[str]:
    """Returns a table of each metric, and writes it to files.

    Args:
      found: Results of the study.
      part: The part to report.
      folder: Folder of the report.
      published: Published values, shown in additional columns.
      captions: By metric name, a text in brackets after its title.
    """
    planned, layout = found.num_repetitions, found.layout
    chosen = [m for m in found.metrics if part.frame[m.name].notna().any()]
    stem = folder / "tables"
    summaries = []
    for metric in chosen:
        one = summary(layout, metric, part, published)
        tables.write_csv(
            stem / f"{folders.file_stem(part.name, metric.name)}.csv", one
        )
        summaries.append((metric, one))
    if not any(part.frame[name].nunique() > 1 for name in layout.rows):
        body = tables.markdown(_by_metric(layout, summaries, planned))
        name = folders.file_stem(part.name, "overview")
        folders.write_text(stem / f"{name}.md", body)
        return ["### Tables\n", body]
    text = ["### Tables\n"]
    for metric, one in summaries:
        caption = (captions or {}).get(metric.name)
        title = f"{metric.title} ({caption})" if caption else metric.title
        table = _by_model(layout, metric, one, planned)
        body = f"#### {title}\n\n{tables.markdown(table)}"
        name = folders.file_stem(part.name, metric.name)
        folders.write_text(stem / f"{name}.md", body)
        text.append(body)
    return text


def summary(
    layout: Layout,
    metric: Metric,
    part: Part,
    published: Published | None = None,
) -> pd.DataFrame:
    """Returns count, mean and standard deviation of a metric of each model.

    Args:
      layout: Layout of the study.
      metric: The metric.
      part: One part of the results.
      published: Published values, for additional columns.

    Returns:
      A row for each model; columns are its levels, n, mean and std, and with
      `published` also published_mean and published_std, NaN if missing.
    """
    names = [*layout.rows, layout.columns]
    models = pd.DataFrame(_models(layout, part.frame))
    grouped = part.frame.groupby(names)[metric.name]
    values = grouped.agg(n="count", mean="mean", std="std").reset_index()
    table = models.merge(values, on=names, how="left")
    table["n"] = table["n"].fillna(0).astype(int)
    for place, (factor, level) in enumerate(part.levels.items()):
        table.insert(place, factor, level)
    if published is not None:
        found = [
            published(metric.name, levels) or (None, None)
            for levels in table[[*part.levels, *names]].to_dict("records")
        ]
        table[["published_mean", "published_std"]] = pd.DataFrame(
            found, index=table.index, dtype=float
        )
    return table


def _by_model(
    layout: Layout, metric: Metric, summary: pd.DataFrame, planned: int
) -> pd.DataFrame:
    """Returns a metric with a row for each combination of `layout.rows`.

    Args:
      layout: Layout of the study.
      metric: The metric.
      summary: Summary of the metric; see `summary`.
      planned: Number of planned repetitions; cells with another number of
        repetitions show it.
    """
    is_published = (
        "published_mean" in summary and summary["published_mean"].notna().any()
    )
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for record in summary.to_dict("records"):
        key = tuple(record[name] for name in layout.rows)
        row = rows.setdefault(key, {name: record[name] for name in layout.rows})
        level = record[layout.columns]
        row[level] = _cell(record, metric, planned)
        if is_published:
            row[f"{level} published"] = _published_cell(record, metric)
    return pd.DataFrame([*rows.values()], dtype=object)


def _by_metric(
    layout: Layout,
    summaries: Sequence[tuple[Metric, pd.DataFrame]],
    planned: int,
) -> pd.DataFrame:
    """Returns a table with a row for each metric; see `_by_model`."""
    rows = []
    for metric, one in summaries:
        row = _by_model(layout, metric, one, planned)
        row = row.drop(columns=layout.rows)
        row.insert(0, "metric", metric.title)
        rows.append(row)
    # Some metrics have columns of published values: use the longest list.
    columns = max((row.columns for row in rows), key=len, default=["metric"])
    if not rows:
        return tables.table(columns, [])
    return pd.concat(rows)[[*columns]].fillna("")


def _models(layout: Layout, frame: pd.DataFrame) -> list[dict[str, str]]:
    """Returns the levels of each model that has results, in order."""
    names = [*layout.rows, layout.columns]
    options = [_present(layout, name, frame) for name in names]
    return [
        dict(zip(names, levels, strict=True))
        for levels in itertools.product(*options)
    ]


def _present(layout: Layout, factor: str, frame: pd.DataFrame) -> list[str]:
    found = set(frame[factor])
    return [level for level in layout.factors[factor] if level in found]


def _cell(record: Mapping[str, Any], metric: Metric, planned: int) -> str:
    """Returns mean and standard deviation, and n unless it is complete."""
    if not record["n"]:
        return "-"
    text = format(record["mean"], metric.form)
    if record["n"] > 1 and not metric.is_fixed:
        text += f" ({format(record['std'], metric.form)})"
    return text if record["n"] == planned else f"{text} n={record['n']}"


def _published_cell(record: Mapping[str, Any], metric: Metric) -> str:
    mean, deviation = record["published_mean"], record["published_std"]
    if pd.isna(mean):
        return "-"
    text = format(mean, metric.form)
    if metric.is_fixed:
        return text
    return f"{text} ({format(deviation, metric.form)})"


def sheets(found: Results, part: Part, folder: pathlib.Path) -> list[str]:
    """Combines the images of all models of a part, one sheet for each kind.

    Args:
      found: Results of the study.
      part: The part to report.
      folder: Folder of the report.

    Returns:
      Markdown that shows the sheets; empty if there are no images.
    """
    text: list[str] = []
    layout = found.layout
    columns = _present(layout, layout.columns, part.frame)
    for kind in _PICTURES:
        pictures, rows = {}, []
        for model in _models(layout, part.frame):
            row = " ".join(model[one] for one in layout.rows)
            picture = _picture(found.path, part.frame, model, kind)
            if picture is not None:
                read = images.read_image(picture).pixels / images.WHITE
                pictures[row, model[layout.columns]] = read
                rows.append(row)
        if pictures:
            name = folders.file_stem(part.name, kind)
            target = folder / "sheets" / f"{name}.png"
            plots.sheet_of_pictures(
                pictures, list(dict.fromkeys(rows)), columns, target
            )
            text.append(f"![{kind}](sheets/{target.name})\n")
    return ["### Images\n", *text] if text else []


def _picture(
    run_dir: pathlib.Path,
    frame: pd.DataFrame,
    model: Mapping[str, str],
    kind: str,
) -> pathlib.Path | None:
    """Returns the image of a model, of the first repetition that has one."""
    cells = results.where(frame, model).sort_values(REPETITION)
    for name in cells[results.NAME]:
        figures = run_dir / folders.CELLS / name / folders.FIGURES
        if (figures / f"{kind}.png").exists():
            return figures / f"{kind}.png"
    return None
