# SPDX-License-Identifier: Apache-2.0
"""Report of a study of random encoders, compared with the thesis.

`mnist` and `svhn` are values of `study.report`. They extend the report of
`tfvae.sweeps.report` by published values, verdicts on the findings of the
thesis, analyses of variance, and the number of models in which each objective
is best.
"""

from __future__ import annotations

import functools
import itertools
import os
import pathlib

import pandas as pd

from papers.random_encoders import anova, comparisons, published, verdicts
from tfvae.sweeps import folders, report, tables
from tfvae.sweeps.results import Part, Results

_DISTANCES = ("frechet_distance", "kernel_distance")
_VERDICTS = ["finding", "verdict", "test", "numbers"]
_TESTS = f"All tests are at level {comparisons.ALPHA}."
_CAVEATS = (
    'Columns "published" have the values of the thesis ({name}, 5 repetitions '
    "with its own training, data splits and metrics). Its negative ELBO and "
    "regularization term are shown for its own objective only; its Fréchet "
    "distance uses another network. Seconds are those of epochs that read the "
    "features of frozen layers from a cache, unlike in the thesis, while other "
    "cells were training in parallel, with one thread each."
)


def mnist(run_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes the report on the 24 models of MNIST; see `report.write`."""
    return _write(run_dir, "mnist")


def svhn(run_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes the report on the 4 models of SVHN; see `report.write`."""
    return _write(run_dir, "svhn")


def _write(run_dir: str | os.PathLike[str], name: str) -> pathlib.Path:
    """Writes the report, compared with the published tables of a data set."""
    judged: list[pd.DataFrame] = []
    return report.write(
        run_dir,
        notes=[_TESTS, _CAVEATS.format(name=name)],
        section=functools.partial(_section, name, judged),
        appendix=functools.partial(_appendix, judged),
    )


def _section(
    name: str,
    judged: list[pd.DataFrame],
    found: Results,
    part: Part,
    folder: pathlib.Path,
) -> list[str]:
    """Returns the section of a part; its verdicts are appended to `judged`."""
    decided = verdicts.verdicts(name, part.frame, found.layout.within)
    table = tables.table(_VERDICTS, decided)
    judged.append(table.assign(**part.levels)[[*part.levels, *_VERDICTS]])
    shown = table.assign(verdict="**" + table["verdict"] + "**")
    return [
        "### Verdicts\n",
        tables.markdown(shown),
        *report.metric_tables(
            found,
            part,
            folder,
            published=functools.partial(published.find, name),
            captions=published.TABLES,
        ),
        *_anovas(found, part, folder),
        *report.sheets(found, part, folder),
    ]


def _anovas(found: Results, part: Part, folder: pathlib.Path) -> list[str]:
    head = ["metric", "design", "term", "F", "df", "p", "partial eta²"]
    rows: list[list[str]] = []
    for metric in found.metrics:
        if metric.is_fixed or not part.frame[metric.name].notna().any():
            continue
        design = anova.DESIGNS.get(metric.name, "full")
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


def _appendix(
    judged: list[pd.DataFrame], found: Results, folder: pathlib.Path
) -> list[str]:
    """Writes a table of all verdicts; returns the text of `_duels`."""
    head = [*found.layout.separate, *_VERDICTS]
    every = pd.concat([tables.table(head, []), *judged])
    tables.write_csv(folder / "verdicts.csv", every[head])
    return _duels(found, folder)


def _duels(found: Results, folder: pathlib.Path) -> list[str]:
    """Returns tables of the best level of each separate factor, by model."""
    text: list[str] = []
    frame, factors = found.frame, list(found.layout.factors)
    if "prior" in frame:  # Without flows, objectives differ by a scale only.
        flows = frame[frame["prior"].str.startswith("flow")]
        frame = flows if len(flows) else frame
    for factor, metric in itertools.product(found.layout.separate, _DISTANCES):
        one = verdicts.duel(frame, metric, factor, factors)
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
        flows_only = " with a flow" if "prior" in frame else ""
        text += [
            f"## Which {factor} has the smaller {title}\n",
            f"{count} models{flows_only}.\n",
            tables.markdown(table),
        ]
    return text
