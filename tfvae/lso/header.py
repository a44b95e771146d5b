# SPDX-License-Identifier: Apache-2.0
"""Ledger header: the settings that must match to resume an optimisation."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import zlib
from typing import Any

import numpy as np

from tfvae.lso.collection import Collection
from tfvae.lso.ledger import read_header
from tfvae.lso.plan import Plan
from tfvae.lso.tasks.base import Task

# The memory address of a function does not identify it.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

# Rows that are checked at a time.
_ROWS = 1024

_OF_DATA = {
    *("data_crc32", "num_data", "best_in_data", "invalid_score"),
    *("budget", "min_distance"),  # Which may change.
}


def header(
    task: Task, collection: Collection, plan: Plan, **parts: Any
) -> dict[str, Any]:
    """Returns the header of a ledger.

    Args:
      task: What is optimised.
      collection: Its data, before anything has been found.
      plan: How.
      **parts: Other parts of the run, which are compared by their `repr`.
    """
    return {
        "task": task.name,
        "maximise": task.maximise,
        "is_noisy": task.is_noisy or plan.repeats > 1,
        "score_label": task.score_label,
        "optimum": task.optimum,
        "invalid_score": task.sign * collection.invalid_score,
        "best_in_data": task.sign * _best(collection),
        "num_data": len(collection.points),
        "data_crc32": _checksum(collection),
        **{name: _ADDRESS.sub("", repr(one)) for name, one in parts.items()},
        **{
            name: value
            for name, value in dataclasses.asdict(plan).items()
            # Samples are diagnostics that do not affect the run.
            if name != "num_samples"
        },
    }


def _best(collection: Collection) -> float:
    """Returns the best score of the data, of the feasible ones if there are."""
    feasible = collection.is_feasible
    scores = collection.scores
    return float((scores[feasible] if feasible.any() else scores).max())


def _checksum(collection: Collection) -> int:
    checksum = 0
    for start in range(0, len(collection.points), _ROWS):
        part = collection.points[start : start + _ROWS]
        part = part.astype(np.float32, copy=False)  # The same for uint8.
        checksum = zlib.crc32(part.data, checksum)
    checksum = zlib.crc32(collection.scores.data, checksum)
    for name in sorted(collection.constraints):
        checksum = zlib.crc32(name.encode(), checksum)
        checksum = zlib.crc32(collection.constraints[name].data, checksum)
    if collection.is_refused.any():
        checksum = zlib.crc32(collection.is_refused.data, checksum)
    return checksum


def check_data(path: pathlib.Path, new: dict[str, Any]) -> None:
    """Raises a ValueError if the data have changed since a run began.

    Args:
      path: The ledger of the run, if there is one.
      new: The header of now.
    """
    old = read_header(path) if path.exists() else None
    if old is None:
        return
    differing = {key for key in new if old.get(key) != new[key]}
    if "data_crc32" not in differing or not differing <= _OF_DATA:
        return  # The ledger compares the rest.
    raise ValueError(
        f"`data` of task {new['task']} must be those that the run in "
        f"{path.parent} began with, {_shown(old)}, got {_shown(new)}: they "
        "have changed since. Restore them, and add new measurements to the "
        "run, or begin a new run"
    )


def _shown(content: dict[str, Any]) -> str:
    return (
        f"{content['num_data']:,} points whose best score is "
        f"{content['best_in_data']:g}"
    )
