# SPDX-License-Identifier: Apache-2.0
"""Table of the results of the finished cells of a study."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from tfvae.sweeps import folders
from tfvae.sweeps.grid import Layout

REPETITION = "repetition"
NAME = "name"


class Metric(NamedTuple):
    """A column of the results."""

    name: str
    title: str
    form: str = ".2f"
    """Format specification of its numbers."""
    is_fixed: bool = False
    """Whether all repetitions of a model have the same value."""


METRICS = (
    Metric("test_loss", "Negative ELBO"),
    Metric("test_regularization", "Regularization term"),
    Metric("test_squared_error", "Reconstruction error"),
    Metric("frechet_distance", "Fréchet distance"),
    Metric("seconds_per_epoch", "Seconds per epoch", ".3f"),
    Metric(
        "published_count",
        "Sum of the dimensions of all trainable tensors",
        ".0f",
        is_fixed=True,
    ),
    Metric(
        "trainable_parameters", "Trainable parameters", ",.0f", is_fixed=True
    ),
    Metric("kernel_distance", "Kernel distance", ".4f"),
    Metric("test_bound", "Bound on log p(x), nats"),
    Metric("test_tight_bound", "Tighter bound on log p(x), nats"),
    Metric("test_exact_log_likelihood", "Log p(x) by enumeration, nats"),
    Metric("test_active", "Active binary latents"),
    Metric("training_seconds", "Seconds of training"),
    Metric("gap_loss", "Negative ELBO, test less training"),
    Metric("gap_regularization", "Regularization term, test less training"),
    Metric("gap_squared_error", "Reconstruction error, test less training"),
)
"""The metrics that are reported first, before other numbers of the results."""

_NOT_REPORTED = frozenset({"cell_seconds", "epochs", "num_generated", "seed"})


class Part(NamedTuple):
    """The results of one combination of levels of the separate factors."""

    levels: dict[str, str]
    """The levels, by factor; empty if there are no separate factors."""
    frame: pd.DataFrame
    """Its rows of `Results.frame`."""

    @property
    def name(self) -> str:
        """The levels, for use in file names."""
        return "-".join(self.levels.values())


class Results(NamedTuple):
    """The finished cells of a study, and the failed ones."""

    path: pathlib.Path
    """Folder of the study."""
    layout: Layout
    frame: pd.DataFrame
    """A row for each finished cell: name, levels, repetition, metrics."""
    cells: list[dict[str, Any]]
    """All cells, as in study.json."""
    errors: dict[str, str]
    """Last line of the error of each cell that failed, by name."""

    @property
    def num_repetitions(self) -> int:
        """The number of planned repetitions."""
        return 1 + max(cell["repetition"] for cell in self.cells)

    @property
    def metrics(self) -> list[Metric]:
        """The metrics that have values, in the order of the report."""
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

    def parts(self) -> list[Part]:
        """Splits the results by the levels of the separate factors."""
        found = [Part({}, self.frame)]
        for factor in self.layout.separate:
            found = [
                Part({**levels, factor: level}, frame[frame[factor] == level])
                for levels, frame in found
                for level in self.layout.factors[factor]
            ]
        return [part for part in found if len(part.frame)]


def read(run_dir: str | os.PathLike[str]) -> Results:
    """Reads the results of the finished cells of a study.

    Args:
      run_dir: Folder of the study.

    Raises:
      FileNotFoundError: If there is no study.
      ValueError: If an earlier version wrote study.json in an older format.
    """
    path = pathlib.Path(run_dir)
    content = folders.read_study(path)
    layout = Layout(**content["layout"])
    rows = []
    for cell in content["cells"]:
        folder = path / folders.CELLS / cell["name"]
        result = folders.read_json(folder / folders.RESULT)
        if result is not None:
            ids = {NAME: cell["name"], REPETITION: cell["repetition"]}
            rows.append({**result, **_gaps(result), **ids, **cell["levels"]})
    columns = [NAME, *layout.factors, REPETITION]
    frame = pd.DataFrame(rows, columns=None if rows else columns)
    others = [name for name in frame.columns if name not in columns]
    return Results(
        path,
        layout,
        frame[[*columns, *others]],
        content["cells"],
        folders.read_errors(path, content["cells"]),
    )


def where(frame: pd.DataFrame, levels: Mapping[str, str]) -> pd.DataFrame:
    """Returns the rows of given levels."""
    for factor, level in levels.items():
        frame = frame[frame[factor] == level]
    return frame


def _gaps(result: dict[str, Any]) -> dict[str, float]:
    """Returns the differences of the losses on test and on training data."""
    gaps = {}
    for name in ("loss", "regularization", "squared_error"):
        test, train = result.get(f"test_{name}"), result.get(f"train_{name}")
        if test is not None and train is not None:
            gaps[f"gap_{name}"] = test - train
    return gaps
