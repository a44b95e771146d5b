# SPDX-License-Identifier: Apache-2.0
"""The report of a study whose cells are optimisations.

Cells are compared that differ in their "setting" and seed only; what else is
varied, the task above all, has a section of its own.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from papers.weighted_retraining import tables
from papers.weighted_retraining.published import TITLES, setting_of
from papers.weighted_retraining.tables import (
    Comparison,
    published_points,
    slug,
)
from tfvae.runs import optimization_figures as figures
from tfvae.runs import optimization_results
from tfvae.runs.optimization_figures import NUM_BEST
from tfvae.runs.optimization_results import Run
from tfvae.sweeps import folders
from tfvae.sweeps.report import markdown, write_csv

SETTING = "setting"
"""The factor whose levels are compared."""
_LONGEST_INPUT = 120


def write(run_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes the report of what is finished of a study, and prints where.

    Args:
      run_dir: Folder of the study.

    Returns:
      The report, a Markdown file; tables are beside it as CSV files.

    Raises:
      FileNotFoundError: If there is no study.
    """
    path = pathlib.Path(run_dir)
    content = folders.read_json(path / folders.STUDY)
    if content is None:
        raise FileNotFoundError(
            f"`run_dir` must be the folder of a study, got {path} without "
            f"{folders.STUDY}."
        )
    found = comparisons(path, content["cells"])
    folder = path / folders.REPORT
    (folder / folders.FIGURES).mkdir(parents=True, exist_ok=True)
    count = sum(len(runs) for one in found for runs in one.groups.values())
    text = [_head(path, content["cells"], count)]
    for one in found:
        text += _section(one, folder)
    write_csv(folder / "runs.csv", *tables.run_table(found))
    write_csv(folder / "curves.csv", *tables.curve_table(found))
    target = folder / "report.md"
    folders.write_text(target, "\n".join(text))
    print(
        f"report of {count} of {len(content['cells'])} cells: {target}",
        flush=True,
    )
    return target


def comparisons(
    path: pathlib.Path, cells: Sequence[Mapping[str, Any]]
) -> list[Comparison]:
    """Reads the finished cells of a study.

    Args:
      path: Folder of the study.
      cells: As study.json has them.
    """
    found: dict[str, dict[str, list[Run]]] = {}
    for cell in cells:
        folder = path / folders.CELLS / cell["name"]
        if folders.read_json(folder / folders.RESULT) is None:
            continue
        run = optimization_results.read(folder)
        levels = dict(cell["levels"])
        others = [value for name, value in levels.items() if name != SETTING]
        if SETTING not in levels:  # Then all that is varied is compared.
            levels[SETTING], others = " ".join(others), []
        parts = [run.task, *(one for one in others if one != run.task)]
        groups = found.setdefault(" ".join(parts), {})
        groups.setdefault(levels[SETTING], []).append(run)
    return [Comparison(title, groups) for title, groups in found.items()]


def _head(
    path: pathlib.Path, cells: Sequence[Mapping[str, Any]], count: int
) -> str:
    lines = [
        "# Report of optimisations\n",
        f"{count} of {len(cells)} cells are finished. Only queries count, not "
        "the data that a run begins with. Top-1 is the best query so far; "
        "top-10 and top-50 are the 10th and 50th best of different inputs, "
        "the worst as long as there are fewer. Invalid decodes count as one "
        "input. A run that ended early keeps its last value. Numbers are "
        "means and population standard deviations over seeds; published are "
        "those of the files of Tripp, Daxberger and Hernandez-Lobato, 2020, "
        "after as many queries or as q says.\n",
    ]
    errors = {}
    for cell in cells:
        folder = path / folders.CELLS / cell["name"]
        error = folder / folders.ERROR
        if error.exists() and not (folder / folders.RESULT).exists():
            told = error.read_text(encoding="utf-8").strip()
            errors[cell["name"]] = told.rpartition("\n")[2]
    if errors:
        lines.append(f"{len(errors)} cells failed:\n")
        lines += [f"* {name}: {why}" for name, why in errors.items()]
        lines.append("")
    return "\n".join(lines)


def _section(one: Comparison, folder: pathlib.Path) -> list[str]:
    text = [f"## {one.title}\n", _facts(one)]
    text += _figure(
        folder,
        f"{one.slug}_top_k.png",
        "Best queries; lines and bands are means and deviations over seeds, "
        "circles with bars are published",
        lambda path: figures.draw_curves(
            one.groups,
            path,
            published=lambda label, k: published_points(one.run, label, k),
            title=one.title,
        ),
    )
    text += ["### After the last query\n", markdown(tables.final_table(one))]
    text += _orders(one)
    text += ["### Queries and time\n", markdown(tables.cost_table(one))]
    text += _figures(one, folder)
    text += _best(one, folder)
    return text


def _facts(one: Comparison) -> str:
    run = one.run
    parts = [
        f"Scores: {figures.score_label(run)}, "
        f"{'larger' if run.maximise else 'smaller'} ones are better."
    ]
    if run.best_in_data is not None:
        parts.append(f"Best of the data: {run.best_in_data:.6g}.")
    if run.optimum is not None:
        parts.append(f"Optimum: {run.optimum:.6g}.")
    known = [label for label in one.groups if setting_of(label) is not None]
    parts += [f"{label}: {TITLES[str(setting_of(label))]}." for label in known]
    return " ".join(parts) + "\n"


def _figure(
    folder: pathlib.Path, name: str, caption: str, draw: Any
) -> list[str]:
    """Draws a figure; returns the text that shows it, if there is one."""
    path = folder / folders.FIGURES / name
    if not draw(path):
        return []
    return [f"![{caption}]({folders.FIGURES}/{name})\n\n{caption}.\n"]


def _orders(one: Comparison) -> list[str]:
    table = tables.order_table(one)
    if not table[1]:
        return []
    counts = [
        f"{sum(row[-1] == verdict for row in table[1])} {text}"
        for verdict, text in (
            (tables.AGREES, "agree"),
            (tables.DIFFERS, "differ"),
            (tables.WITHIN, "are within the spread"),
        )
    ]
    return [
        "### Order of the settings by top-1\n",
        f"Of {len(table[1])} pairs, {', '.join(counts)}. Within the spread "
        "are those whose means, here or as published, are no farther apart "
        "than the root of the sum of their variances. One seed has no "
        "spread.\n",
        markdown(table),
    ]


def _figures(one: Comparison, folder: pathlib.Path) -> list[str]:
    text = _figure(
        folder,
        f"{one.slug}_weights.png",
        "What the first round trains on: scores of the data by weight, and "
        "the weight that the best of the data have together",
        lambda path: figures.draw_weights(one.groups, path, title=one.title),
    )
    text += _figure(
        folder,
        f"{one.slug}_samples.png",
        "Scores of samples from the prior, decoded, in the first and last "
        "round",
        lambda path: figures.draw_samples(one.groups, path, title=one.title),
    )
    for label, runs in one.groups.items():
        text += _figure(
            folder,
            f"{one.slug}_{slug(label)}_manifold.png",
            f"What the latents decode to over the rounds of {label}",
            lambda path, run=runs[0], label=label: figures.draw_manifold(
                run, path, title=label
            ),
        )
    return ["### Weights, samples and latents\n", *text] if text else []


def _best(one: Comparison, folder: pathlib.Path) -> list[str]:
    text = [f"### The {NUM_BEST} best inputs of each setting\n"]
    shown = _figure(
        folder,
        f"{one.slug}_best.png",
        "Best inputs of all seeds, best first; their scores are to the left",
        lambda path: figures.draw_best(one.groups, path),
    )
    if shown:
        return text + shown
    for label, runs in one.groups.items():
        rows = [
            [f"{score:.6g}", f"`{_shortened(value)}`"]
            for score, value in figures.best(runs)
        ]
        text += [f"{label}\n", markdown((["score", "input"], rows))]
    return text


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) <= _LONGEST_INPUT:
        return text
    return f"{text[:_LONGEST_INPUT]}... ({len(text)} characters)"
