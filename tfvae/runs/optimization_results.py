# SPDX-License-Identifier: Apache-2.0
"""Results of an optimisation, read from its run folder.

ledger.jsonl has the queries, result.json a summary of the run. Optional are
weights.npz (`scores` and `weights` of the data of the first round),
samples.npz (`scores` of prior samples, a row for each of `rounds`),
manifold.npz (`images` of a grid of two latents from -`bound` to `bound`, at
each of `rounds`, and their `scores`) and pictures.npz (`pictures` of the best
inputs, and their `keys`). All scores are in the direction of the task.

Folders of earlier versions have no pictures.npz, and no `score_label` in
result.json: their inputs are shown as text, their scores are labelled "score".
Running `tfvae optimize` again on a finished run adds both, and so does the
report of a study for its cells.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np

from tfvae import files
from tfvae.lso import curves, snapshots
from tfvae.lso.ledger import LEDGER, Entry, read_ledger
from tfvae.lso.reading import as_picture, from_json
from tfvae.lso.snapshots import WEIGHTS
from tfvae.lso.tasks.base import Task
from tfvae.runs import optimization_state
from tfvae.runs.optimization_state import (
    NUM_BEST,
    RESULT,
    State,
    key,
    read_json,
)

PICTURES = "pictures.npz"


class Run(NamedTuple):
    """The results of an optimisation, finished or not."""

    path: pathlib.Path
    task: str
    score_label: str
    """Label of the scores, with their unit."""
    setting: str
    maximise: bool
    budget: int
    optimum: float | None
    best_in_data: float | None
    scores: np.ndarray
    """`[n]` of the queries; one without a score counts as an invalid decode."""
    inputs: list[Any]
    """The n inputs in their JSON form, None for an invalid decode."""
    keys: list[Hashable]
    """Keys of the n inputs; equal inputs have equal keys."""
    num_invalid: int
    """Queries without an input."""
    num_failed: int
    """Queries that have an input but no score."""
    result: dict[str, Any]

    @property
    def sign(self) -> float:
        """Factor of the scores, 1 or -1, that makes larger ones better."""
        return 1.0 if self.maximise else -1.0

    def top_k(self, k: int) -> np.ndarray:
        """Returns the K-th best score after each query, `[budget]`."""
        budget = max(self.budget, len(self.scores))
        larger = curves.top_k(self.sign * self.scores, self.keys, k, budget)
        return self.sign * larger

    def best(self, count: int) -> list[tuple[float, Any]]:
        """Returns (score, input) of the best distinct inputs."""
        found: dict[Hashable, tuple[float, Any]] = {}
        for score, name, one in zip(
            self.scores.tolist(), self.keys, self.inputs, strict=True
        ):
            if one is not None:
                found.setdefault(name, (score, one))
        ranked = sorted(found.values(), key=lambda pair: -self.sign * pair[0])
        return ranked[:count]

    def pictures(self) -> dict[Hashable, np.ndarray]:
        """Returns pictures of the best inputs, see `Task`, by key."""
        return pictures(self.path)

    def arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """Returns the arrays of a file, None if it is missing or damaged."""
        return arrays(self.path / name)


def read(run_dir: str | os.PathLike[str]) -> Run:
    """Reads the results of an optimisation, which may still be running.

    Args:
      run_dir: Folder of the optimisation.

    Raises:
      FileNotFoundError: If there is no optimisation in the folder.
      ValueError: If its ledger is damaged, or has no queries.
    """
    path = pathlib.Path(run_dir)
    optimization_state.check_folder(path)
    header, entries, _, _ = read_ledger(path / LEDGER)
    if not entries:
        raise ValueError(f"{path / LEDGER} must have queries, got none")
    result = read_json(path / RESULT)
    given = {name: one for name, one in result.items() if one is not None}
    known = {**header, **given}
    maximise = bool(known.get("maximise", True))
    data = arrays(path / WEIGHTS) or {}
    data_scores = data.get("scores", np.empty(0))
    best = known.get("best_in_data")
    if best is None and data_scores.size:
        best = float(data_scores.max() if maximise else data_scores.min())
    invalid = known.get("invalid_score")
    if invalid is None:
        invalid = _worst(entries, data_scores, maximise)
    return Run(
        path,
        str(known.get("task", path.name)),
        str(known.get("score_label", "score")),
        str(known.get("setting", path.name)),
        maximise,
        int(known.get("budget", len(entries))),
        known.get("optimum"),
        best,
        np.array(
            [invalid if one.score is None else one.score for one in entries],
            np.float64,
        ),
        [one.input for one in entries],
        [key(one.input) for one in entries],
        sum(one.input is None for one in entries),
        sum(one.score is None and one.input is not None for one in entries),
        result,
    )


def _worst(
    entries: list[Entry], data_scores: np.ndarray, maximise: bool
) -> float:
    """Returns the worst score of the data, or of the queries without data."""
    scores = data_scores
    if not scores.size:
        known = [one.score for one in entries if one.score is not None]
        scores = np.array(known or [0.0], np.float64)
    return float(scores.min() if maximise else scores.max())


def write_pictures(run_dir: str | os.PathLike[str], task: Task) -> None:
    """Writes images of the best inputs, if the task has any.

    Args:
      run_dir: Folder of the optimisation.
      task: Task of the optimisation; its `to_picture` returns the images. It
        must have a `from_json`, see `reading.resolved`.
    """
    if task.to_picture is not None:
        state = optimization_state.read(run_dir)
        _write_pictures(
            state, task, [one for _, one in read(run_dir).best(NUM_BEST)]
        )


def update_pictures(state: State, task: Task) -> None:
    """Writes images of the best and the pending inputs, if the task has any.

    Those that exist already are not made again.
    """
    if task.to_picture is None:
        return
    inputs = [one.entry.input for one in state.ranked[:NUM_BEST]]
    inputs += [query.input for query in state.pending]
    _write_pictures(state, task, inputs)


def _write_pictures(state: State, task: Task, inputs: list[Any]) -> None:
    wanted = {key(one): one for one in inputs}
    known = pictures(state.path)
    if not wanted or known.keys() == wanted.keys():
        return
    shown = [
        known[name] if name in known else as_picture(task, from_json(task, one))
        for name, one in wanted.items()
    ]
    with files.replacing(state.path / PICTURES, "wb", is_synced=True) as file:
        np.savez_compressed(
            file, keys=np.array([*wanted]), pictures=np.stack(shown)
        )


def pictures(path: pathlib.Path) -> dict[Hashable, np.ndarray]:
    """Returns pictures of inputs, as `as_picture` returns them, by key."""
    found = snapshots.read_arrays(path / PICTURES, "keys", "pictures")
    if found is None:
        return {}
    return dict(zip(found["keys"].tolist(), found["pictures"], strict=False))


def arrays(path: pathlib.Path) -> dict[str, np.ndarray] | None:
    """Returns the arrays of a file, None if it is missing or damaged."""
    return snapshots.read_arrays(path)
