# SPDX-License-Identifier: Apache-2.0
"""Report of a study of random encoders, compared with the thesis.

`mnist` and `svhn` are values of `study.report`. They extend the report of
`tfvae.sweeps.report` by published values, verdicts on the findings of the
thesis, analyses of variance, and the number of models in which each objective
is best.
"""

from __future__ import annotations

import functools
import os
import pathlib

import pandas as pd

from papers.random_encoders import findings, published, verdicts
from tfvae.sweeps import report, tables
from tfvae.sweeps.anova import MAIN_EFFECTS, Design
from tfvae.sweeps.results import Part, Results

# Regularization terms of different priors have different scales, so the prior
# is a covariate in their analyses.
_COVARIATE = Design(covariates=("prior",))
DESIGNS = {
    "test_loss": _COVARIATE,
    "test_regularization": _COVARIATE,
    "seconds_per_epoch": MAIN_EFFECTS,
    "gap_loss": MAIN_EFFECTS,
    "gap_regularization": MAIN_EFFECTS,
    "gap_squared_error": MAIN_EFFECTS,
}
"""The designs of analyses of variance by metric; others have the full one."""

_VERDICTS = ["finding", "verdict", "test", "numbers"]
_TESTS = f"All tests are at level {findings.ALPHA}."
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
        *report.anovas(found, part, folder, DESIGNS),
        *report.sheets(found, part, folder),
    ]


def _appendix(
    judged: list[pd.DataFrame], found: Results, folder: pathlib.Path
) -> list[str]:
    """Writes a table of all verdicts; returns the text of `report.duels`."""
    head = [*found.layout.separate, *_VERDICTS]
    every = pd.concat([tables.table(head, []), *judged])
    tables.write_csv(folder / "verdicts.csv", every[head])
    frame, qualifier = found.frame, ""
    if "prior" in frame:  # Without flows, objectives differ by a scale only.
        flows = frame[frame["prior"].str.startswith("flow")]
        frame, qualifier = flows if len(flows) else frame, " with a flow"
    return report.duels(found, folder, frame=frame, qualifier=qualifier)
