# SPDX-License-Identifier: Apache-2.0
"""Data of an optimisation: points, scores and weights, extended each round."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfvae.lso.ledger import Entry
from tfvae.lso.reading import as_json, from_json
from tfvae.lso.tasks.base import ScoredData, Task

if TYPE_CHECKING:
    from tfvae.lso.weighting import Weighting


class Collection:
    """Data points and their scores, larger is better.

    Rows are never moved or removed, as models may store values for each of
    them: points that a weighting drops remain, with a weight of 0.

    Attributes:
      points: `[N, D]` float32.
      scores: `[N]` float64, larger is better.
      is_kept: `[N]` bool, False for dropped points.
      invalid_score: The score that an input without a score counts as, larger
        is better.
      keys: Keys of the inputs of the initial data, if the task has them, and,
        if the task does not keep duplicates, of the added points.
    """

    def __init__(self, task: Task, data: ScoredData) -> None:
        """Starts with the initial data of a task.

        Args:
          task: The task.
          data: Its initial data.

        Raises:
          TypeError: If `data` is not `ScoredData`.
          ValueError: If `data` lack the inputs that are needed to detect
            duplicates, or an invalid decode would score better than the best
            of them.
        """
        if not isinstance(data, ScoredData):
            raise TypeError(
                f"`data` of task {task.name} must return ScoredData, got "
                f"{type(data).__name__}"
            )
        self._task = task
        self.points = data.points
        self.scores = task.sign * data.scores
        self.is_kept = np.ones(len(data.points), bool)
        self.invalid_score = float(self.scores.min())
        if task.invalid_score is not None:
            self.invalid_score = task.sign * task.invalid_score
        if self.invalid_score > self.scores.max():
            raise ValueError(
                "`invalid_score` must not be better than the best of the "
                f"data, {task.sign * self.scores.max():g}, got "
                f"{task.invalid_score!r}"
            )
        inputs = data.inputs
        if inputs is None and not task.keep_duplicates:
            raise ValueError(
                "`inputs` must be given with data whose duplicates are not "
                "kept, got None"
            )
        self.keys = {self.key(as_json(task, one)) for one in inputs or ()}

    @staticmethod
    def key(one_input: Any) -> str:
        """Returns the text by which inputs in JSON form are compared."""
        return json.dumps(one_input, sort_keys=True)

    @property
    def num_kept(self) -> int:
        """The number of points that have not been dropped."""
        return int(self.is_kept.sum())

    def score_of(self, entry: Entry) -> float:
        """Returns the score of an entry of the ledger, larger is better."""
        if entry.score is None:
            return self.invalid_score
        return self._task.sign * entry.score

    def weights(self, weighting: Weighting) -> np.ndarray:
        """Returns the weights of all rows, `[N]`, sum 1."""
        weights = np.zeros(len(self.scores))
        weights[self.is_kept] = weighting(self.scores[self.is_kept])
        return weights

    def add(self, entries: Sequence[Entry], weighting: Weighting) -> None:
        """Adds the queries of a round that have scores.

        Args:
          entries: Entries of one round, in the order of their numbers.
          weighting: Decides which are added, and how many of the oldest points
            are dropped.
        """
        found = [entry for entry in entries if entry.score is not None]
        if not self._task.keep_duplicates:
            found = [entry for entry in found if self._is_new(entry)]
        if not found:
            return
        scores = np.array([self.score_of(entry) for entry in found])
        kept, num_dropped = weighting.retain(self.num_kept, scores)
        oldest = np.flatnonzero(self.is_kept)[:num_dropped]
        self.is_kept[oldest] = False
        if not len(kept):
            return
        inputs = [from_json(self._task, found[i].input) for i in kept]
        rows = np.asarray(self._task.write(inputs), np.float32)
        if rows.shape != (len(inputs), self.points.shape[1]):
            raise ValueError(
                f"`write` of task {self._task.name} must return shape "
                f"{(len(inputs), self.points.shape[1])}, got {rows.shape}"
            )
        self.points = np.concatenate([self.points, rows])
        self.scores = np.concatenate([self.scores, scores[kept]])
        self.is_kept = np.concatenate([self.is_kept, np.ones(len(kept), bool)])

    def _is_new(self, entry: Entry) -> bool:
        key = self.key(entry.input)
        if key in self.keys:
            return False
        self.keys.add(key)
        return True
