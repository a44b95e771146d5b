# SPDX-License-Identifier: Apache-2.0
"""The report of a study: tables, tests, verdicts and sheets of pictures."""

from __future__ import annotations

import csv
import itertools
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from papers.random_encoders import (
    anova,
    comparisons,
    published,
    verdicts,
)
from tfvae import files, plots
from tfvae.data import images
from tfvae.sweeps import folders, results
from tfvae.sweeps.results import REPETITION, Layout, Metric, Results

_PICTURES = ("reconstructions", "samples", "interpolations")
_DISTANCES = ("frechet_distance", "kernel_distance")

Table = tuple[list[str], list[list[str]]]
"""Names of the columns, and rows."""


def write(run_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes the report of what is finished of a study, and prints where.

    Args:
      run_dir: Folder of the study.

    Returns:
      The report, a Markdown file; its tables are beside it as CSV files.

    Raises:
      FileNotFoundError: If there is no study.
    """
    path = pathlib.Path(run_dir)
    found = results.read(path)
    folder = path / folders.REPORT
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    (folder / "sheets").mkdir(exist_ok=True)
    found.frame.to_csv(folder / "cells.csv", index=False)
    text = [_head(found)]
    judged: list[list[str]] = []
    for levels, frame in found.parts():
        name = "-".join(levels.values())
        text.append(f"## {' '.join(levels.values()) or 'Results'}\n")
        text += _verdicts(found, levels, frame, judged)
        text += _tables(found, levels, frame, folder, name)
        text += _anovas(found, frame, folder, name)
        text += _sheets(found, frame, path, folder, name)
    text += _duels(found, folder)
    write_csv(
        folder / "verdicts.csv",
        [*found.layout.separate, "finding", "verdict", "test", "numbers"],
        judged,
    )
    target = folder / "report.md"
    folders.write_text(target, "\n".join(text))
    print(
        f"report of {len(found.frame)} of {len(found.cells)} cells: {target}",
        flush=True,
    )
    return target


def _head(found: Results) -> str:
    layout, total = found.layout, len(found.cells)
    lines = [
        "# Report of a study\n",
        f"{len(found.frame)} of {total} cells are finished: "
        + ", ".join(
            f"{name} ({', '.join(levels)})"
            for name, levels in layout.factors.items()
        )
        + f", {_repetitions(found)} repetitions planned. All numbers are means "
        "over repetitions, standard deviations in brackets. All tests are at "
        f"level {comparisons.ALPHA}.\n",
    ]
    if layout.published is not None:
        lines.append(
            f'Columns "published" are those of the thesis ({layout.published}, '
            "5 repetitions of its own training, data and measures). Its "
            "negative ELBO and regularization term are shown for its own "
            "objective only; its Fréchet distance uses another network. "
            "Seconds are those of epochs that read features of frozen layers "
            "from a cache, which the thesis had not, while other cells "
            "trained beside, with one thread each.\n"
        )
    if found.errors:
        lines.append(f"{len(found.errors)} cells failed:\n")
        lines += [f"* {name}: {why}" for name, why in found.errors.items()]
        lines.append("")
    return "\n".join(lines)


def _repetitions(found: Results) -> int:
    return 1 + max(cell["repetition"] for cell in found.cells)


def _verdicts(
    found: Results,
    levels: Mapping[str, str],
    frame: pd.DataFrame,
    judged: list[list[str]],
) -> list[str]:
    """Returns the verdicts as text, and appends them to `judged`."""
    rows = [
        [one.finding, one.decision, one.test, one.numbers]
        for one in verdicts.verdicts(
            found.layout.published, frame, found.layout.within
        )
    ]
    judged += [[*levels.values(), *row] for row in rows]
    if not rows:
        return []
    rows = [[one, f"**{two}**", *rest] for one, two, *rest in rows]
    head = ["finding", "verdict", "test", "numbers"]
    return ["### Verdicts\n", markdown((head, rows))]


def _tables(
    found: Results,
    levels: Mapping[str, str],
    frame: pd.DataFrame,
    folder: pathlib.Path,
    name: str,
) -> list[str]:
    text = ["### Tables\n"]
    planned = _repetitions(found)
    for metric in found.metrics:
        if frame[metric.name].notna().any():
            path = folder / "tables" / f"{_slug(name, metric.name)}.csv"
            records = summary(found.layout, metric, frame, levels)
            write_csv(
                path,
                list(records[0]),
                [[_plain(one) for one in row.values()] for row in records],
            )
    chosen = [m for m in found.metrics if frame[m.name].notna().any()]
    if not _varied(found.layout.rows, frame):
        table = by_metric(found.layout, chosen, frame, levels, planned)
        folders.write_text(
            folder / "tables" / f"{_slug(name, 'overview')}.md", markdown(table)
        )
        return [*text, markdown(table)]
    for metric in chosen:
        caption = f"#### {metric.title}"
        if found.layout.published is not None and metric.table is not None:
            caption += f" (table {metric.table})"
        table = by_model(found.layout, metric, frame, levels, planned)
        body = f"{caption}\n\n{markdown(table)}"
        path = folder / "tables" / f"{_slug(name, metric.name)}.md"
        folders.write_text(path, body)
        text.append(body)
    return text


def summary(
    layout: Layout,
    metric: Metric,
    frame: pd.DataFrame,
    separate: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Returns mean, deviation and published value of each model.

    Args:
      layout: Of the study.
      metric: Which.
      frame: Results of one part of it.
      separate: The levels that the part is of.
    """
    names = [*layout.rows, layout.columns]
    grouped = frame.groupby(names)[metric.name]
    values = grouped.agg(["count", "mean", "std"])
    if len(names) == 1:
        values.index = pd.MultiIndex.from_arrays([values.index])
    found = values.to_dict("index")
    records = []
    for key in _models(layout, frame):
        value = published.find(
            layout.published, metric.name, {**separate, **key}
        )
        nothing = {"count": 0, "mean": None, "std": None}
        ours = found.get(tuple(key.values()), nothing)
        records.append(
            {
                **separate,
                **key,
                "n": ours["count"],
                "mean": ours["mean"],
                "std": ours["std"],
                "published_mean": None if value is None else value.mean,
                "published_std": None if value is None else value.std,
            }
        )
    return records


def by_model(
    layout: Layout,
    metric: Metric,
    frame: pd.DataFrame,
    separate: Mapping[str, str],
    planned: int,
) -> Table:
    """Returns a table of a metric as tables 5.1 to 5.6 have it.

    Args:
      layout: Of the study.
      metric: Which.
      frame: Results of one part of it.
      separate: The levels that the part is of.
      planned: The number of repetitions; others are told.
    """
    records = summary(layout, metric, frame, separate)
    levels = _present(layout, layout.columns, frame)
    is_published = any(one["published_mean"] is not None for one in records)
    head = [*layout.rows]
    for level in levels:
        head += [level, f"{level} published"] if is_published else [level]
    rows: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        key = tuple(record[name] for name in layout.rows)
        row = rows.setdefault(key, [*key])
        row.append(_cell(record, metric, planned))
        if is_published:
            row.append(_published_cell(record, metric))
    return head, list(rows.values())


def by_metric(
    layout: Layout,
    metrics: Sequence[Metric],
    frame: pd.DataFrame,
    separate: Mapping[str, str],
    planned: int,
) -> Table:
    """Returns a table of all metrics as table 5.10 has it; see `by_model`."""
    head, rows = ["metric"], []
    for metric in metrics:
        names, (row,) = by_model(layout, metric, frame, separate, planned)
        names, row = names[len(layout.rows) :], row[len(layout.rows) :]
        if len(names) > len(head) - 1:
            head = ["metric", *names]
        rows.append((metric.title, dict(zip(names, row, strict=True))))
    return head, [
        [title, *(cells.get(name, "") for name in head[1:])]
        for title, cells in rows
    ]


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


def _varied(factors: Sequence[str], frame: pd.DataFrame) -> list[str]:
    return [name for name in factors if frame[name].nunique() > 1]


def _cell(record: Mapping[str, Any], metric: Metric, planned: int) -> str:
    """Returns mean and deviation, and how many there are if not all."""
    if not record["n"]:
        return "-"
    text = format(record["mean"], metric.form)
    if record["n"] > 1 and metric.design != "none":
        text += f" ({format(record['std'], metric.form)})"
    return text if record["n"] == planned else f"{text} n={record['n']}"


def _published_cell(record: Mapping[str, Any], metric: Metric) -> str:
    if record["published_mean"] is None:
        return "-"
    text = format(record["published_mean"], metric.form)
    if metric.design == "none":
        return text
    return f"{text} ({format(record['published_std'], metric.form)})"


def _anovas(
    found: Results, frame: pd.DataFrame, folder: pathlib.Path, name: str
) -> list[str]:
    text = ["### Analyses of variance\n"]
    head = ["metric", "design", "term", "F", "df", "p", "partial eta²"]
    rows: list[list[str]] = []
    for metric in found.metrics:
        if metric.design == "none" or not frame[metric.name].notna().any():
            continue
        one = anova.anova(frame, metric, found.layout.within)
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
    write_csv(folder / "tables" / f"{_slug(name, 'anova')}.csv", head, rows)
    return [*text, markdown((head, rows))]


def _duels(found: Results, folder: pathlib.Path) -> list[str]:
    """Returns which level of a separate factor does best where."""
    text: list[str] = []
    frame, factors = found.frame, list(found.layout.factors)
    if "prior" in frame:  # Without a flow, the objectives differ by a scale.
        flows = frame[frame["prior"].str.startswith("flow")]
        frame = flows if len(flows) else frame
    for factor, metric in itertools.product(found.layout.separate, _DISTANCES):
        one = verdicts.duel(frame, metric, factor, factors)
        if one is None:
            continue
        others = [name for name in factors if name != factor]
        head = [*others, *one.wins, "difference"]
        rows = [
            [
                *model.values(),
                *(f"{means[level]:.4g}" for level in one.wins),
                comparisons.p_text(p_value),
            ]
            for model, means, p_value in one.lines
        ]
        count = ", ".join(
            f"{level} in {wins} of {len(one.lines)}"
            for level, wins in one.wins.items()
        )
        title = metric.replace("_", " ").replace("frechet", "Fréchet")
        write_csv(folder / "tables" / f"{factor}_{metric}.csv", head, rows)
        text += [
            f"## Which {factor} has the smaller {title}\n",
            f"{count} models{_with_flows(frame)}.\n",
            markdown((head, rows)),
        ]
    return text


def _with_flows(frame: pd.DataFrame) -> str:
    return " with a flow" if "prior" in frame else ""


def _sheets(
    found: Results,
    frame: pd.DataFrame,
    path: pathlib.Path,
    folder: pathlib.Path,
    name: str,
) -> list[str]:
    """Puts the pictures of all models of a part into one sheet of a kind."""
    text: list[str] = []
    layout = found.layout
    columns = _present(layout, layout.columns, frame)
    for kind in _PICTURES:
        pictures, rows = {}, []
        for model in _models(layout, frame):
            cells = comparisons.where(frame, model).sort_values(REPETITION)
            row = " ".join(model[one] for one in layout.rows)
            for cell in cells[results.NAME]:
                file = path / folders.CELLS / cell / folders.FIGURES
                picture = file / f"{kind}.png"
                if picture.exists():
                    read = images.read_image(picture).pixels / images.WHITE
                    pictures[row, model[layout.columns]] = read
                    rows.append(row)
                    break
        if pictures:
            target = folder / "sheets" / f"{_slug(name, kind)}.png"
            plots.sheet_of_pictures(
                pictures, list(dict.fromkeys(rows)), columns, target
            )
            text.append(f"![{kind}](sheets/{target.name})\n")
    return ["### Pictures\n", *text] if text else []


def markdown(table: Table) -> str:
    """Returns a table as Markdown."""
    head, rows = table
    lines = [head, ["---"] * len(head), *rows]
    texts = [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
        for line in lines
    ]
    return "\n".join(texts) + "\n"


def write_csv(
    path: pathlib.Path, head: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Writes a table as a file, whole or not at all."""
    with files.replacing(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)


def _plain(value: Any) -> str:
    """Returns a value as text, empty where there is none."""
    return "" if value is None or value != value else str(value)


def _slug(*parts: str) -> str:
    return re.sub(r"\W+", "_", "_".join(filter(None, parts)))
