# SPDX-License-Identifier: Apache-2.0
"""What the cells of a study measured, and how its tables are laid out."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from papers.random_encoders import published
from tfvae.sweeps import folders
from tfvae.sweeps.grid import Factors

REPETITION = "repetition"
NAME = "name"


class Metric(NamedTuple):
    """A column of the results."""

    name: str
    title: str
    form: str = ".2f"
    """How a number of it is written."""
    table: str | None = None
    """The published table that has it."""
    design: str = "full"
    """Its analysis of variance; see `anova.Design`."""


METRICS = (
    Metric("test_loss", "Negative ELBO", table="5.1", design="covariate"),
    Metric(
        "test_regularization",
        "Regularization term",
        table="5.2",
        design="covariate",
    ),
    Metric("test_squared_error", "Reconstruction error", table="5.3"),
    Metric("frechet_distance", "Fréchet distance", table="5.4"),
    Metric(
        "seconds_per_epoch",
        "Seconds per epoch",
        ".3f",
        table="5.5",
        design="main",
    ),
    Metric(
        "published_count",
        "Sum of the dimensions of all trainable tensors",
        ".0f",
        table="5.6",
        design="none",
    ),
    Metric(
        "trainable_parameters", "Trainable parameters", ",.0f", design="none"
    ),
    Metric("kernel_distance", "Kernel distance", ".4f"),
    Metric("test_bound", "Bound on log p(x), nats"),
    Metric("test_tight_bound", "Tighter bound on log p(x), nats"),
    Metric("test_exact_log_likelihood", "Log p(x) by enumeration, nats"),
    Metric("test_active", "Active binary latents"),
    Metric("training_seconds", "Seconds of training"),
    Metric("gap_loss", "Negative ELBO, test less training", design="main"),
    Metric(
        "gap_regularization",
        "Regularization term, test less training",
        design="main",
    ),
    Metric(
        "gap_squared_error",
        "Reconstruction error, test less training",
        design="main",
    ),
)
"""What is reported first; other numbers of the results follow."""

_NOT_REPORTED = frozenset({"cell_seconds", "epochs", "num_generated", "seed"})


class Layout(NamedTuple):
    """How the levels of a study become rows, columns and tables."""

    factors: dict[str, list[str]]
    """The levels of each factor."""
    columns: str
    separate: list[str]
    published: str | None

    @classmethod
    def of(
        cls,
        factors: Factors,
        columns: str | None,
        separate: Sequence[str],
        published_name: str | None,
    ) -> Layout:
        """Checks the settings of a study; see `study`.

        Raises:
          ValueError: If one of them is not there.
        """
        names = list(factors)
        for name in [*separate, *([columns] if columns is not None else [])]:
            if name not in names:
                raise ValueError(
                    "`study.columns` and `study.separate` must be of "
                    f"{', '.join(names)}, got {name!r}."
                )
        rest = [name for name in names if name not in separate]
        if not rest or (columns is not None and columns not in rest):
            raise ValueError(
                "`study.separate` must leave a factor for the columns, got "
                f"{list(separate)!r}."
            )
        if published_name not in (None, *published.NAMES):
            raise ValueError(
                "`study.published` must be None or one of "
                f"{', '.join(published.NAMES)}, got {published_name!r}."
            )
        return cls(
            {name: list(levels) for name, levels in factors.items()},
            rest[-1] if columns is None else columns,
            list(separate),
            published_name,
        )

    @property
    def rows(self) -> list[str]:
        """The factors whose levels are the rows of a table."""
        return [
            name
            for name in self.factors
            if name != self.columns and name not in self.separate
        ]

    @property
    def within(self) -> list[str]:
        """The factors that vary in a table."""
        return [name for name in self.factors if name not in self.separate]


class Results(NamedTuple):
    """What is known of a study."""

    layout: Layout
    frame: pd.DataFrame
    """A row for each finished cell: name, levels, repetition, metrics."""
    cells: list[dict[str, Any]]
    """All cells, as in study.json."""
    errors: dict[str, str]
    """What the cells that failed say last."""

    @property
    def metrics(self) -> list[Metric]:
        """The metrics that there are, in the order to report them."""
        known = {metric.name for metric in METRICS}
        ids = {NAME, REPETITION, *self.layout.factors}
        others = [
            Metric(name, name.replace("_", " ").capitalize(), ".4g")
            for name in self.frame.columns
            if name not in known | ids | _NOT_REPORTED
            and not name.startswith("train_")
            and pd.api.types.is_numeric_dtype(self.frame[name])
        ]
        return [
            metric
            for metric in [*METRICS, *others]
            if metric.name in self.frame
            and self.frame[metric.name].notna().any()
        ]

    def parts(self) -> list[tuple[dict[str, str], pd.DataFrame]]:
        """Splits the results at the factors that are kept separate."""
        found: list[tuple[dict[str, str], pd.DataFrame]] = [({}, self.frame)]
        for factor in self.layout.separate:
            found = [
                ({**levels, factor: level}, part[part[factor] == level])
                for levels, part in found
                for level in self.layout.factors[factor]
            ]
        return [(levels, part) for levels, part in found if len(part)]


def read(run_dir: str | os.PathLike[str]) -> Results:
    """Reads what is finished of a study.

    Args:
      run_dir: Folder of the study.

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
    layout = Layout(**content["layout"])
    rows, errors = [], {}
    for cell in content["cells"]:
        folder = path / folders.CELLS / cell["name"]
        result = folders.read_json(folder / folders.RESULT)
        if result is not None:
            ids = {NAME: cell["name"], REPETITION: cell["repetition"]}
            rows.append({**result, **_gaps(result), **ids, **cell["levels"]})
        elif (folder / folders.ERROR).exists():
            text = (folder / folders.ERROR).read_text(encoding="utf-8")
            errors[cell["name"]] = text.strip().rpartition("\n")[2]
    columns = [NAME, *layout.factors, REPETITION]
    frame = pd.DataFrame(rows, columns=None if rows else columns)
    others = [name for name in frame.columns if name not in columns]
    return Results(layout, frame[[*columns, *others]], content["cells"], errors)


def _gaps(result: dict[str, Any]) -> dict[str, float]:
    """Returns how much larger the errors are on test than on training data."""
    gaps = {}
    for name in ("loss", "regularization", "squared_error"):
        test, train = result.get(f"test_{name}"), result.get(f"train_{name}")
        if test is not None and train is not None:
            gaps[f"gap_{name}"] = test - train
    return gaps
