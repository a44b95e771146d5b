# SPDX-License-Identifier: Apache-2.0
"""Report of optimisations, compared with published weighted retraining.

`write` is a value of `study.report`. It extends the report of
`tfvae.sweeps.optimization_report` by published values, and by a comparison of
the order of settings with the published order.
"""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Mapping

import numpy as np
import pandas as pd

from papers.weighted_retraining import published
from papers.weighted_retraining.published import TITLES, setting_of
from tfvae.lso import curves
from tfvae.runs import optimization_figures as figures
from tfvae.runs.optimization_figures import TOP
from tfvae.runs.optimization_results import Run
from tfvae.sweeps import optimization_report, tables
from tfvae.sweeps.optimization_report import Comparison

AGREES, DIFFERS, WITHIN = "agrees", "differs", "within the spread"

_NOTE = (
    "Published values are from the files of Tripp, Daxberger and "
    "Hernandez-Lobato, 2020, after the same number of queries, or after q."
)


def write(run_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes the report of a study; see `optimization_report.write`."""
    return optimization_report.write(run_dir, notes=[_NOTE], section=_section)


def _section(one: Comparison, folder: pathlib.Path) -> list[str]:
    return [
        f"## {one.title}\n",
        f"{' '.join([optimization_report.facts(one), *_titles(one)])}\n",
        *optimization_report.curves_figure(one, folder, _points),
        "### After the last query\n",
        tables.markdown(final_table(one)),
        *_orders(one),
        *optimization_report.costs_and_inputs(one, folder),
    ]


def _titles(one: Comparison) -> list[str]:
    """Returns descriptions of the settings that have published values."""
    known = [(label, setting_of(label)) for label in one.groups]
    return [f"{label}: {TITLES[name]}." for label, name in known if name]


def _points(run: Run, label: str, k: int) -> list[tuple[float, float, float]]:
    """Returns the published points of a curve: (query, mean, std)."""
    found = published.find(run.task, label, k, run.maximise)
    return [(queries, *value) for queries, value in found.items()]


def final_table(one: Comparison) -> pd.DataFrame:
    """Returns top-1, top-10 and top-50 at the end, and the published values.

    Published settings without runs are at the end, in brackets.
    """
    table = optimization_report.final_table(one)
    for k in TOP:
        values = [
            _published_cell(runs[0], label, k, figures.top_k(runs, k).shape[1])
            for label, runs in one.groups.items()
        ]
        place = table.columns.get_loc(f"top-{k}") + 1
        table.insert(place, "published", values, allow_duplicates=True)
    rows = [*table.to_numpy().tolist(), *_rows_without_runs(one)]
    return tables.table(list(table.columns), rows)


def _rows_without_runs(one: Comparison) -> list[list[str]]:
    present = {setting_of(label) for label in one.groups}
    if present == {None}:
        return []  # None of the settings has been published.
    length = max(one.run.budget, len(one.run.scores))
    rows = []
    for label in [name for name in TITLES if name not in present]:
        found = [_published_cell(one.run, label, k, length) for k in TOP]
        if found != ["-"] * len(TOP):
            values = [text for value in found for text in ("-", value)]
            rows.append([f"({label})", "0", "0", *values])
    return rows


def _published_cell(run: Run, label: str, k: int, num_queries: int) -> str:
    """Returns the published value, with its number of queries if different."""
    found = _comparable(run, label, k, num_queries)
    if found is None:
        return "-"
    queries, value = found
    text = f"{value.mean:.4g} ± {value.spread:.3g}"
    return text if queries == num_queries else f"{text} (q = {queries})"


def _comparable(
    run: Run, label: str, k: int, num_queries: int
) -> tuple[int, published.Value] | None:
    """Returns the last published value after at most `num_queries` queries.

    If all published values are after more queries, returns the first one.
    """
    found = published.find(run.task, label, k, run.maximise)
    if not found:
        return None
    fewer = [queries for queries in found if queries <= num_queries]
    queries = max(fewer) if fewer else min(found)
    return queries, found[queries]


def _orders(one: Comparison) -> list[str]:
    table = order_table(one)
    if table.empty:
        return []
    counts = [
        f"{(table['order'] == verdict).sum()} {text}"
        for verdict, text in (
            (AGREES, "agree"),
            (DIFFERS, "differ"),
            (WITHIN, "are within the spread"),
        )
    ]
    return [
        "### Order of the settings by top-1\n",
        f"Of {len(table)} pairs, {', '.join(counts)}. Within the spread "
        "are pairs whose means, here or as published, differ by at most the "
        "square root of the sum of their variances. A single seed has no "
        "spread.\n",
        tables.markdown(table),
    ]


def order_table(one: Comparison) -> pd.DataFrame:
    """Returns for each pair of settings whether it has the published order."""
    ours, theirs = {}, {}
    for label, runs in one.groups.items():
        mean, spread = curves.mean_and_spread(figures.top_k(runs, 1))
        found = _comparable(one.run, label, 1, len(mean))
        if found is not None and found[0] <= len(mean):
            ours[label] = (float(mean[-1]), float(spread[-1]))
            theirs[label] = (found[1].mean, found[1].spread)
    rows = []
    for first, second in itertools.combinations(ours, 2):
        here, there = _apart(ours, first, second), _apart(theirs, first, second)
        if abs(here[0]) <= here[1] or abs(there[0]) <= there[1]:
            verdict = WITHIN
        else:
            verdict = AGREES if here[0] * there[0] > 0.0 else DIFFERS
        rows.append(
            [
                f"{first} less {second}",
                *(
                    f"{mean:+.4g} ± {spread:.3g}"
                    for mean, spread in (here, there)
                ),
                verdict,
            ]
        )
    return tables.table(["pair", "here", "published", "order"], rows)


def _apart(
    values: Mapping[str, tuple[float, float]], first: str, second: str
) -> tuple[float, float]:
    """Returns a difference of means and its standard deviation."""
    (mean, spread), (other, other_spread) = values[first], values[second]
    return mean - other, float(np.hypot(spread, other_spread))
