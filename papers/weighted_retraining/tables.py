# SPDX-License-Identifier: Apache-2.0
"""Optimisations that differ in a setting, in tables beside published ones."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from papers.weighted_retraining import published
from papers.weighted_retraining.published import TITLES, setting_of
from tfvae.lso import curves
from tfvae.lso.round_table import STAGES
from tfvae.runs import optimization_figures as figures
from tfvae.runs.optimization_figures import TOP
from tfvae.runs.optimization_results import Run
from tfvae.sweeps.report import Table

AGREES, DIFFERS, WITHIN = "agrees", "differs", "within the spread"


class Comparison(NamedTuple):
    """Runs of one task that differ in their setting and seed only."""

    title: str
    groups: dict[str, list[Run]]
    """The runs by their setting."""

    @property
    def slug(self) -> str:
        """The title as a part of names of files."""
        return slug(self.title)

    @property
    def run(self) -> Run:
        """Any of the runs."""
        return next(iter(self.groups.values()))[0]


def slug(text: str) -> str:
    """Returns a text as a part of the name of a file."""
    return re.sub(r"\W+", "_", text)


def published_points(
    run: Run, label: str, k: int
) -> list[tuple[float, float, float]]:
    """Returns what was published as points of a curve."""
    found = published.find(run.task, label, k, run.maximise)
    return [(queries, *value) for queries, value in found.items()]


def final_table(one: Comparison) -> Table:
    """Returns top-1, 10 and 50 at the end, beside the published ones."""
    head = ["setting", "seeds", "queries"]
    for k in TOP:
        head += [f"top-{k}", "published"]
    rows = []
    for label, runs in one.groups.items():
        num_queries = max(len(run.scores) for run in runs)
        row = [label, str(len(runs)), str(num_queries)]
        for k in TOP:
            mean, spread = curves.mean_and_spread(figures.top_k(runs, k))
            row.append(f"{mean[-1]:.4g} ± {spread[-1]:.3g}")
            row.append(_published_cell(runs[0], label, k, len(mean)))
        rows.append(row)
    ours = {setting_of(label) for label in one.groups}
    if ours == {None}:
        return head, rows  # A comparison of other things.
    length = max(one.run.budget, len(one.run.scores))
    for label in [name for name in TITLES if name not in ours]:
        told = [_published_cell(one.run, label, k, length) for k in TOP]
        if told != ["-"] * len(TOP):
            rows.append([f"({label})", "0", "0"])
            rows[-1] += [text for value in told for text in ("-", value)]
    return head, rows


def _published_cell(run: Run, label: str, k: int, num_queries: int) -> str:
    """The published value, and after how many queries if not as many."""
    found = _comparable(run, label, k, num_queries)
    if found is None:
        return "-"
    queries, value = found
    text = f"{value.mean:.4g} ± {value.spread:.3g}"
    return text if queries == num_queries else f"{text} (q = {queries})"


def _comparable(
    run: Run, label: str, k: int, num_queries: int
) -> tuple[int, published.Value] | None:
    """Returns what was published after as many queries, or else after fewer.

    If there is nothing after fewer, what comes first.
    """
    found = published.find(run.task, label, k, run.maximise)
    if not found:
        return None
    fewer = [queries for queries in found if queries <= num_queries]
    queries = max(fewer) if fewer else min(found)
    return queries, found[queries]


def cost_table(one: Comparison) -> Table:
    """Returns what the queries were, and what the time was spent on."""
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
    return head, rows


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


def order_table(one: Comparison) -> Table:
    """Returns for each pair of settings whether its order is as published."""
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
    return ["pair", "here", "published", "order"], rows


def _apart(
    values: Mapping[str, tuple[float, float]], first: str, second: str
) -> tuple[float, float]:
    """Returns a difference of means, and the spread of the difference."""
    (mean, spread), (other, other_spread) = values[first], values[second]
    return mean - other, float(np.hypot(spread, other_spread))


def run_table(found: Sequence[Comparison]) -> Table:
    """Returns a line for each run."""
    head = ["comparison", "setting", "run", "seed", "queries"]
    head += [f"top_{k}" for k in TOP] + ["distinct", "invalid", "failed"]
    head += [f"seconds_{stage}" for stage in (*STAGES, "total")]
    rows = []
    for one in found:
        for label, run in _each(one):
            rows.append(
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
                    *(
                        str(_seconds(run, stage))
                        for stage in (*STAGES, "total")
                    ),
                ]
            )
    return head, rows


def _each(one: Comparison) -> list[tuple[str, Run]]:
    return [(label, run) for label, runs in one.groups.items() for run in runs]


def curve_table(found: Sequence[Comparison]) -> Table:
    """Returns a line for each point of a curve."""
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
    return ["comparison", "setting", "k", "query", "mean", "spread"], rows
