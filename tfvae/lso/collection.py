# SPDX-License-Identifier: Apache-2.0
"""Data of an optimisation: points, scores and weights, extended each round."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfvae.lso.reading import as_json, as_points, from_json
from tfvae.lso.records import (
    Addition,
    Amendment,
    Entry,
    Measurement,
    Record,
    Round,
    Withdrawal,
    input_text,
    mean,
    mean_constraints,
)
from tfvae.lso.tasks.base import ScoredData, Task

if TYPE_CHECKING:
    from tfvae.lso.weighting import Weighting


class InputResult(NamedTuple):
    """What is known of an input."""

    score: float | None
    """Larger is better; None where constraints are known alone."""
    constraints: dict[str, float] | None
    """Values of constraints, which hold where they are at most 0."""


class _Item(NamedTuple):
    """A result that becomes a data point."""

    source: Hashable
    score: float
    """Larger is better."""
    entry: Entry | Addition


class Collection:
    """Data points and their scores, larger is better.

    It follows the records of a ledger: results are `fresh` until a round
    begins, and data points from then on, whose scores amendments change. Those
    of which only a violated constraint is known stay fresh. Rows are never
    moved or removed, as models may store values for each of them: points that a
    weighting drops, or whose results are withdrawn, remain with a weight of 0,
    and a query that is evaluated again has the same row as before.

    Attributes:
      points: `[N, D]` float32, or uint8 as long as all are such integers.
      scores: `[N]` float64, larger is better.
      is_kept: `[N]` bool, False for dropped points.
      queries: int64 `[N]`, the number of the query of each point, -1 for
        those of the initial data and of additions.
      constraints: Constraint values `[N]` by name, NaN where unknown.
      is_refused: `[N]` bool, points that the task refuses as queries.
      invalid_score: The score that an input without a score counts as, larger
        is better.
      fresh: Results that are no data points yet, by the number of the query.
      num_changes: How often `fresh` has changed other than by a further result.
      num_repeats: How often an input has been evaluated that was known.
      fresh_additions: Additions that are no data points yet.
    """

    def __init__(self, task: Task, data: ScoredData) -> None:
        """Starts with the initial data of a task.

        Args:
          task: The task, as `resolved` returns it.
          data: Its initial data.

        Raises:
          ValueError: If `data` lack the inputs that are needed to detect
            duplicates, or an invalid decode would score better than the best
            of them.
        """
        self._task = task
        self.points = data.points
        # Room for further rows, of which `points` are the first ones.
        self._room = data.points
        self.scores = task.sign * data.scores
        self.is_kept = np.ones(len(data.points), bool)
        self.queries = np.full(len(data.points), -1)
        self.constraints = {
            name: np.array(values) for name, values in data.constraints.items()
        }
        self.is_refused = data.is_refused
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
        self.fresh: dict[int, Entry] = {}
        self.num_changes = 0
        self.num_repeats = 0
        self.fresh_additions: list[Addition] = []
        self._num_added = 0
        # Which inputs of additions the task refuses, by their key.
        self._refused: dict[str, bool] = {}
        self._rows: dict[Hashable, int] = {}
        # Rows of results that have been withdrawn.
        self._left: dict[Hashable, int] = {}
        # By the key of the input and the source of the result.
        self._known: dict[str, dict[Hashable, InputResult]] = {}
        # Which source is the data point of an input, by its key.
        self._sources: dict[str, Hashable] = {}
        for i, one in enumerate(() if inputs is None else inputs):
            key, source = self.key(as_json(task, one)), ("data", i)
            self._sources.setdefault(key, source)
            known = {
                name: float(values[i])
                for name, values in self.constraints.items()
                if not np.isnan(values[i])
            }
            result = InputResult(float(self.scores[i]), known or None)
            self._known.setdefault(key, {})[source] = result

    @staticmethod
    def key(one_input: Any) -> str:
        """Returns a checksum by which inputs in JSON form are compared.

        It is that of `input_text`, as inputs may be pictures.
        """
        content = input_text(one_input).encode()
        return hashlib.blake2b(content, digest_size=16).hexdigest()

    @property
    def num_kept(self) -> int:
        """The number of points that have not been dropped."""
        return int(self.is_kept.sum())

    @property
    def is_feasible(self) -> np.ndarray:
        """Which points satisfy all constraints that are known, `[N]` bool."""
        feasible = ~self.is_refused
        for values in self.constraints.values():
            feasible &= ~(values > 0.0)
        return feasible

    def score_of(self, entry: Entry) -> float:
        """Returns the score of an entry of the ledger, larger is better."""
        if entry.score is None:
            return self.invalid_score
        return self._task.sign * entry.score

    def weights(self, weighting: Weighting) -> np.ndarray:
        """Returns the weights of all rows, `[N]`, sum 1.

        Points that violate a constraint, or that the task refuses, count as no
        better than the median.
        """
        scores, feasible = self.scores, self.is_feasible
        if not feasible.all():
            median = np.median(scores[self.is_kept])
            scores = np.where(feasible, scores, np.minimum(scores, median))
        weights = np.zeros(len(scores))
        weights[self.is_kept] = weighting(scores[self.is_kept])
        return weights

    def refuses(self, entry: Entry | Addition) -> bool:
        """Whether the task refuses an input, which no query has."""
        refuse = self._task.refuse
        if refuse is None or not isinstance(entry, Addition):
            return False
        if entry.input is None:  # It has a point alone.
            return False
        key = self.key(entry.input)
        if key not in self._refused:  # Each proposal asks again.
            one_input = from_json(self._task, entry.input)
            self._refused[key] = refuse(one_input) is not None
        return self._refused[key]

    # Known inputs.

    def is_known(self, key: str) -> bool:
        """Whether the input of a key has been evaluated, or is among data."""
        return key in self._known

    def known_result(self, key: str) -> InputResult | None:
        """Returns means over the evaluations of an input.

        Args:
          key: The key of the input.

        Returns:
          None if neither a score nor a constraint is known.
        """
        found = [*self._known.get(key, {}).values()]
        scores = [one.score for one in found if one.score is not None]
        constraints = mean_constraints(one.constraints for one in found)
        if not scores and constraints is None:
            return None
        return InputResult(mean(scores) if scores else None, constraints)

    def _note(
        self,
        source: Hashable,
        one_input: Any,
        score: float | None,
        constraints: dict[str, float] | None,
    ) -> None:
        if one_input is not None:
            # The score is in the direction of the task.
            value = None if score is None else self._task.sign * score
            known = self._known.setdefault(self.key(one_input), {})
            known[source] = InputResult(value, constraints)
            self.num_repeats += len(known) > 1

    def _forget(self, source: Hashable, one_input: Any) -> None:
        key = self.key(one_input)
        self._known.get(key, {}).pop(source, None)
        if not self._known.get(key, True):
            del self._known[key]

    # Records.

    def follow(
        self, record: Record, entry: Entry | None, weighting: Weighting
    ) -> None:
        """Does what a record of the ledger says.

        Args:
          record: The next record.
          entry: The entry of its query, see `Records.sequence`.
          weighting: Decides which results become data points at the beginning
            of a round, and how many of the oldest points are dropped.
        """
        match record:
            case Measurement(number) | Amendment(number):
                assert entry is not None
                self._note(number, entry.input, entry.score, entry.constraints)
                self._set(entry)
            case Withdrawal(number):
                assert entry is not None
                self._forget(number, entry.input)
                self.fresh.pop(number, None)
                self.num_changes += 1
                self._drop(number)
            case Addition(score, one_input):
                self._num_added += 1
                source = ("added", self._num_added)
                self._note(source, one_input, score, record.constraints)
                self.fresh_additions.append(record)
            case Round():
                self._begin(weighting)

    def _set(self, entry: Entry) -> None:
        row = self._rows.get(entry.query)
        self.num_changes += entry.query in self.fresh
        if row is None:
            self.fresh[entry.query] = entry
        elif entry.score is None:
            self._drop(entry.query)
            self.fresh[entry.query] = entry
        else:
            self.scores[row] = self.score_of(entry)
            self._set_constraints(row, entry.constraints)

    def _drop(self, source: Hashable) -> None:
        row = self._rows.pop(source, None)
        if row is not None:
            self.is_kept[row] = False
            self._left[source] = row

    def _set_constraints(
        self, row: int, constraints: dict[str, float] | None
    ) -> None:
        for values in self.constraints.values():
            values[row] = np.nan
        for name, value in (constraints or {}).items():
            if name not in self.constraints:
                self.constraints[name] = np.full(len(self.scores), np.nan)
            self.constraints[name][row] = value

    def _begin(self, weighting: Weighting) -> None:
        """Makes data points of the fresh results that have scores."""
        task = self._task
        entries = [self.fresh[number] for number in sorted(self.fresh)]
        items = [
            _Item(one.query, self.score_of(one), one)
            for one in entries
            if one.score is not None
        ]
        items += [
            _Item(("row", len(self.scores), i), task.sign * one.score, one)
            for i, one in enumerate(self.fresh_additions)
        ]
        # What failed stays known, and may be amended.
        self.fresh = {
            one.query: one
            for one in entries
            if one.score is None and not one.is_feasible
        }
        self.fresh_additions = []
        self.num_changes += 1
        if not task.keep_duplicates:
            items = [one for one in items if self._is_new(one)]
        if not items:
            return
        scores = np.array([one.score for one in items])
        kept, num_dropped = weighting.retain(self.num_kept, scores)
        oldest = np.flatnonzero(self.is_kept)[:num_dropped]
        self.is_kept[oldest] = False
        if not len(kept):
            return
        chosen = [items[i] for i in kept]
        again = {one.source for one in chosen} & self._left.keys()
        for one in chosen:
            if one.source not in again:
                continue
            row = self._left.pop(one.source)
            self.is_kept[row], self.scores[row] = True, one.score
            self._rows[one.source] = row
            self._set_constraints(row, one.entry.constraints)
        if others := [one for one in chosen if one.source not in again]:
            self._append(others)

    def _append(self, items: Sequence[_Item]) -> None:
        first, count = len(self.scores), len(items)
        rows = np.empty((count, self.points.shape[1]), np.float32)
        written = []
        for i, one in enumerate(items):
            if getattr(one.entry, "point", None) is None:
                written.append(i)
            else:
                assert isinstance(one.entry, Addition)
                rows[i] = np.array(one.entry.point, np.float32)
        inputs = [from_json(self._task, items[i].entry.input) for i in written]
        if inputs:
            rows[written] = as_points(self._task, inputs, rows.shape[1])
        self._make_room(rows)
        self._room[first : first + count] = rows
        self.points = self._room[: first + count]
        scores = [one.score for one in items]
        self.scores = np.concatenate([self.scores, scores])
        self.is_kept = np.concatenate([self.is_kept, np.ones(count, bool)])
        numbers = [getattr(one.entry, "query", -1) for one in items]
        self.queries = np.concatenate([self.queries, numbers])
        refused = [self.refuses(one.entry) for one in items]
        self.is_refused = np.concatenate([self.is_refused, refused])
        for name, values in self.constraints.items():
            unknown = np.full(count, np.nan)
            self.constraints[name] = np.concatenate([values, unknown])
        for row, one in enumerate(items, first):
            self._rows[one.source] = row
            self._set_constraints(row, one.entry.constraints)

    def _make_room(self, rows: np.ndarray) -> None:
        """Makes room for rows after those of `points`, `[count, D]`.

        Not all points are copied each time, as a run may have 1,000 rounds.
        """
        first, dtype = len(self.points), self._room.dtype
        with np.errstate(invalid="ignore"):  # NaN are no integers.
            if not np.array_equal(rows.astype(dtype), rows):
                dtype = rows.dtype
        needed, size = first + len(rows), len(self._room)
        if needed > size or dtype != self._room.dtype:
            if needed > size:
                size = max(needed, first + first // 4)
            self._room = np.empty((size, rows.shape[1]), dtype)
            self._room[:first] = self.points

    def _is_new(self, one: _Item) -> bool:
        """Whether the data have no point of this input from another source."""
        if one.entry.input is None:  # An addition that has a point alone.
            return True
        key = self.key(one.entry.input)
        return self._sources.setdefault(key, one.source) == one.source
