# SPDX-License-Identifier: Apache-2.0
"""Report of a study of optimisations: top-K curves, tables, best inputs.

The report compares cells that differ in their factor "setting" and seed only.
Each combination of levels of other factors, such as the task, has a separate
section. `write` writes the whole report. To extend it, for example by
published values, pass a `section` that is composed of the functions below.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tfvae.lso import curves
from tfvae.lso.round_table import STAGES
from tfvae.runs import optimization_figures as figures
from tfvae.runs import optimization_results, optimize
from tfvae.runs.optimization_figures import NUM_BEST, TOP
from tfvae.runs.optimization_results import Run
from tfvae.sweeps import folders, report_page, tables
from tfvae.sweeps.report import failures

SETTING = "setting"
"""The factor whose levels are compared."""
_LONGEST_INPUT = 120
_NOT_LOADED = (
    AttributeError,
    ImportError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)

Published = Callable[[Run, str, int], Sequence[tuple[float, float, float]]]
"""From a run, a setting and K to published top-K: (query, mean, std)."""


class Comparison(NamedTuple):
    """Runs of one task that differ in their setting and seed only."""

    title: str
    groups: dict[str, list[Run]]
    """The runs by their setting."""

    @property
    def slug(self) -> str:
        """The title, for use in file names."""
        return folders.file_stem(self.title)

    @property
    def run(self) -> Run:
        """Any of the runs."""
        return next(iter(self.groups.values()))[0]


Section = Callable[[Comparison, pathlib.Path], list[str]]
"""From a comparison and the folder of the report to Markdown texts."""


def section(one: Comparison, folder: pathlib.Path) -> list[str]:
    """Returns the default section of a comparison; see `Section`."""
    return [
        f"## {one.title}\n",
        f"{facts(one)}\n",
        *curves_figure(one, folder),
        "### After the last query\n",
        tables.markdown(final_table(one)),
        *costs_and_inputs(one, folder),
    ]


def write(
    run_dir: str | os.PathLike[str],
    *,
    notes: Sequence[str] = (),
    section: Section = section,
) -> pathlib.Path:
    """Writes the report of the finished cells of a study, and prints its path.

    Finished cells of an earlier version first get the label of their scores
    and the pictures of their best inputs, which replaces gin's configuration.

    Args:
      run_dir: Folder of the study.
      notes: Paragraphs after the introduction.
      section: Returns the section of a comparison.

    Returns:
      Path of the report, a Markdown file; the same as a page, report.html, and
      tables as CSV files are written beside it.

    Raises:
      FileNotFoundError: If there is no study.
      ValueError: If an earlier version wrote study.json in an older format.
    """
    path = pathlib.Path(run_dir)
    cells = folders.read_study(path)["cells"]
    incomplete = _complete(path, cells)
    found = comparisons(path, cells)
    folder = path / folders.REPORT
    (folder / folders.FIGURES).mkdir(parents=True, exist_ok=True)
    count = sum(len(runs) for one in found for runs in one.groups.values())
    text = [
        "# Report of optimisations\n",
        f"{count} of {len(cells)} cells are finished. Only queries count, not "
        "the initial data of a run. Top-1 is the best query so far; "
        "top-10 and top-50 are the 10th and 50th best distinct inputs, or "
        "the worst while there are fewer. Invalid decodes count as one "
        "input. A run that ended early keeps its last value. Numbers are "
        "means and population standard deviations over seeds.\n",
        *(f"{note}\n" for note in notes),
        *failures(folders.read_errors(path, cells)),
        *incomplete,
    ]
    for one in found:
        text += section(one, folder)
    tables.write_csv(folder / "runs.csv", _run_table(found))
    tables.write_csv(folder / "curves.csv", _curve_table(found))
    return report_page.write(folder, text, count, len(cells))


def _complete(
    path: pathlib.Path, cells: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Completes finished cells of an earlier version; see `optimize.complete`.

    Returns:
      A paragraph on the cells for which this fails; empty if there are none.
    """
    failed = {}
    for cell in cells:
        folder = path / folders.CELLS / cell["name"]
        result = folders.read_json(folder / folders.RESULT)
        if result is None or "score_label" in result:
            continue
        try:
            optimize.complete(folder)
        # The task may be in a file or a package that is not there any more.
        except _NOT_LOADED as err:
            first = str(err).strip().partition("\n")[0]
            failed[cell["name"]] = f"{type(err).__name__}: {first}"
    if not failed:
        return []
    name, why = next(iter(failed.items()))
    return [
        f"{len(failed)} finished cells of an earlier version lack the label of "
        "their scores and the pictures of their best inputs, as their task can "
        f"not be loaded from {folders.CONFIG} ({name}: {why}). Once it can, "
        f"`tfvae study --run_dir={path} --report_only` adds both.\n"
    ]


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
        if SETTING not in levels:  # Then all factors are compared.
            levels[SETTING], others = " ".join(others), []
        parts = [run.task, *(one for one in others if one != run.task)]
        groups = found.setdefault(" ".join(parts), {})
        groups.setdefault(levels[SETTING], []).append(run)
    return [Comparison(title, groups) for title, groups in found.items()]


def facts(one: Comparison) -> str:
    """Returns a text on the scores, the best of the data and the optimum."""
    run = one.run
    parts = [
        f"Scores: {figures.score_label(run)}, "
        f"{'larger' if run.maximise else 'smaller'} ones are better."
    ]
    if run.best_in_data is not None:
        parts.append(f"Best of the data: {run.best_in_data:.6g}.")
    if run.optimum is not None:
        parts.append(f"Optimum: {run.optimum:.6g}.")
    return " ".join(parts)


def curves_figure(
    one: Comparison, folder: pathlib.Path, published: Published | None = None
) -> list[str]:
    """Draws the top-K curves; returns Markdown that shows the figure.

    Args:
      one: The runs.
      folder: Folder of the report.
      published: Published points to draw beside the curves, or None.
    """
    caption = (
        "Best queries; lines and bands are means and deviations over seeds"
    )
    points: figures.Points | None = None
    if published is not None:
        caption += ", circles with bars are published"
        points = functools.partial(published, one.run)
    return _figure(
        folder,
        f"{one.slug}_top_k.png",
        caption,
        lambda path: figures.draw_curves(
            one.groups, path, published=points, title=one.title
        ),
    )


def final_table(one: Comparison) -> pd.DataFrame:
    """Returns top-1, top-10 and top-50 after the last query, by setting."""
    rows = []
    for label, runs in one.groups.items():
        num_queries = max(len(run.scores) for run in runs)
        row = [label, str(len(runs)), str(num_queries)]
        for k in TOP:
            mean, spread = curves.mean_and_spread(figures.top_k(runs, k))
            row.append(f"{mean[-1]:.4g} ± {spread[-1]:.3g}")
        rows.append(row)
    head = ["setting", "seeds", "queries", *(f"top-{k}" for k in TOP)]
    return tables.table(head, rows)


def costs_and_inputs(one: Comparison, folder: pathlib.Path) -> list[str]:
    """Returns the section's parts on costs, other figures and best inputs."""
    return [
        "### Queries and time\n",
        tables.markdown(cost_table(one)),
        *_other_figures(one, folder),
        *_best_inputs(one, folder),
    ]


def cost_table(one: Comparison) -> pd.DataFrame:
    """Returns counts of queries, and the time of each stage, by setting."""
    head = [
        "setting",
        "distinct inputs",
        "invalid",
        "failed",
        "minutes per run",
        "s per query",
        *STAGES,
    ]
    rows = []
    for label, runs in one.groups.items():
        distinct = [len({*run.keys} - {None}) for run in runs]
        rows.append(
            [
                label,
                _extent(distinct),
                _extent([run.num_invalid for run in runs]),
                _extent([run.num_failed for run in runs]),
                _mean([_seconds(run, "total") / 60.0 for run in runs]),
                _mean([_per_query(run, "total") for run in runs]),
                *(
                    _mean([_per_query(run, stage) for run in runs])
                    for stage in STAGES
                ),
            ]
        )
    return tables.table(head, rows)


def _extent(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _mean(values: Sequence[float]) -> str:
    known = [value for value in values if np.isfinite(value)]
    return f"{np.mean(known):.3g}" if known else "-"


def _seconds(run: Run, stage: str) -> float:
    return float(run.result.get("seconds", {}).get(stage, "nan"))


def _per_query(run: Run, stage: str) -> float:
    return _seconds(run, stage) / len(run.scores)


def _run_table(found: Sequence[Comparison]) -> pd.DataFrame:
    """Returns a row for each run."""
    head = ["comparison", "setting", "run", "seed", "queries"]
    head += [f"top_{k}" for k in TOP] + ["distinct", "invalid", "failed"]
    head += [f"seconds_{stage}" for stage in (*STAGES, "total")]
    rows = [
        [
            one.title,
            label,
            run.path.name,
            str(run.result.get("seed", "")),
            str(len(run.scores)),
            *(str(run.top_k(k)[-1]) for k in TOP),
            str(len({*run.keys} - {None})),
            str(run.num_invalid),
            str(run.num_failed),
            *(str(_seconds(run, stage)) for stage in (*STAGES, "total")),
        ]
        for one in found
        for label, runs in one.groups.items()
        for run in runs
    ]
    return tables.table(head, rows)


def _curve_table(found: Sequence[Comparison]) -> pd.DataFrame:
    """Returns a row for each point of a curve."""
    rows = []
    for one in found:
        for (label, runs), k in itertools.product(one.groups.items(), TOP):
            mean, spread = curves.mean_and_spread(figures.top_k(runs, k))
            rows += [
                [one.title, label, str(k), str(query), str(a), str(b)]
                for query, (a, b) in enumerate(
                    zip(mean, spread, strict=True), start=1
                )
            ]
    head = ["comparison", "setting", "k", "query", "mean", "spread"]
    return tables.table(head, rows)


def _figure(
    folder: pathlib.Path,
    name: str,
    caption: str,
    draw: Callable[[pathlib.Path], bool],
) -> list[str]:
    """Draws a figure; returns Markdown that shows it, if there is one."""
    path = folder / folders.FIGURES / name
    if not draw(path):
        return []
    return [f"![{caption}]({folders.FIGURES}/{name})\n\n{caption}.\n"]


def _other_figures(one: Comparison, folder: pathlib.Path) -> list[str]:
    text = _figure(
        folder,
        f"{one.slug}_weights.png",
        "Training data of the first round: scores by weight, and the total "
        "weight of the best data",
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
            f"{one.slug}_{folders.file_stem(label)}_manifold.png",
            f"Decoded grid of latents over the rounds of {label}",
            functools.partial(figures.draw_manifold, runs[0], title=label),
        )
    return ["### Weights, samples and latents\n", *text] if text else []


def _best_inputs(one: Comparison, folder: pathlib.Path) -> list[str]:
    text = [f"### The {NUM_BEST} best inputs of each setting\n"]
    shown = _figure(
        folder,
        f"{one.slug}_best.png",
        "Best inputs of all seeds, best first, with the range of their scores",
        lambda path: figures.draw_best(one.groups, path),
    )
    if shown:
        return text + shown
    for label, runs in one.groups.items():
        rows = [
            [f"{score:.6g}", f"`{_shortened(value)}`"]
            for score, value in figures.best(runs)
        ]
        table = tables.table(["score", "input"], rows)
        text += [f"{label}\n", tables.markdown(table)]
    return text


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) <= _LONGEST_INPUT:
        return text
    return f"{text[:_LONGEST_INPUT]}... ({len(text)} characters)"
