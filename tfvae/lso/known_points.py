# SPDX-License-Identifier: Apache-2.0
"""All that is known at latents of the current model, in one round."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import numpy as np

from tfvae.lso.collection import Collection
from tfvae.lso.reading import as_points, from_json
from tfvae.lso.records import Addition, Entry, Query, Records, is_feasible
from tfvae.lso.surrogate_state import State
from tfvae.lso.tasks.base import Task

if TYPE_CHECKING:
    from tfvae.lso.latent_space import LatentSpace

Item = Entry | Query | Addition


class Known(NamedTuple):
    """What a surrogate is fitted to."""

    latents: np.ndarray
    """float32 `[n, M]`."""
    scores: np.ndarray
    """`[n]`, larger is better; NaN where constraints are known alone."""
    is_feasible: np.ndarray
    """`[n]` bool."""
    constraints: dict[str, np.ndarray]
    """`[n]` by name, NaN where unknown."""
    queries: np.ndarray
    """int64 `[n]`, numbers of queries, -1 for points that are none."""

    @property
    def has_score(self) -> np.ndarray:
        """Which have a score, bool `[n]`."""
        return ~np.isnan(self.scores)


class _Result(NamedTuple):
    latent: np.ndarray | list[float]
    score: float
    constraints: dict[str, float] | None
    is_feasible: bool


class _Rows:
    """An array that grows by rows, in amortised constant time for each."""

    def __init__(self, shape: tuple[int, ...], dtype: type) -> None:
        self._room: np.ndarray = np.zeros((0, *shape), dtype)
        self._count = 0

    def add(self, rows: Any) -> None:
        """Adds n rows."""
        first, self._count = self._count, self._count + len(rows)
        if self._count > len(self._room):
            shape = (2 * self._count, *self._room.shape[1:])
            room = np.empty(shape, self._room.dtype)
            room[:first] = self._room[:first]
            self._room = room
        self._room[first : self._count] = rows

    @property
    def array(self) -> np.ndarray:
        """All rows so far."""
        return self._room[: self._count]


class _Fresh:
    """The fresh results of a collection, as far as they have been looked at."""

    def __init__(self, num_latents: int, num_observed: int) -> None:
        self.num_seen = 0
        # Those that have latents in the model of the round.
        self.entries: list[Entry] = []
        self.latents = _Rows((num_latents,), np.float32)
        self.scores = _Rows((), np.float64)
        self.queries = _Rows((), np.int64)
        self.is_feasible = _Rows((), np.bool_)
        self.constraints: list[tuple[int, dict[str, float]]] = []
        # Of the first entries, those without an input left out.
        self.num_with_points = 0
        self.points = _Rows((num_observed,), np.float32)


class KnownPoints:
    """Data, results, additions and pending queries, as latents and as points.

    What was not proposed in this round is encoded by the model of this round.

    Attributes:
      round: The round, -1 before the first.
      latents: float32 `[n, M]`, of the data.
    """

    def __init__(
        self,
        task: Task,
        space: LatentSpace,
        collection: Collection,
        records: Records,
        is_noisy: bool,
    ) -> None:
        """Stores the parts of a run; call `enter` first.

        Args:
          task: The task.
          space: The model's latent space.
          collection: The data.
          records: The results and the pending queries.
          is_noisy: Whether the scores of one input are averaged.
        """
        self.round = -1
        self.latents = np.zeros((0, space.num_latents), np.float32)
        self._task = task
        self._space = space
        self._collection = collection
        self._records = records
        self._is_noisy = is_noisy
        self._num_initial = len(collection.points)
        self._rows = np.zeros(0, np.int64)
        # Of data points that queries are compared with.
        self._compared = self._rows
        self._encoded: dict[Hashable, np.ndarray] = {}
        self._points: dict[Hashable, np.ndarray] = {}
        self._version: tuple[int, ...] | None = None
        self._fresh = self._none_fresh()

    def _none_fresh(self) -> _Fresh:
        num_observed = self._collection.points.shape[1]
        return _Fresh(self._space.num_latents, num_observed)

    def enter(self, now: int, rows: np.ndarray) -> None:
        """Encodes rows of the data, int64 `[n]`, by the model of a round."""
        self.round = now
        self._rows = rows
        found = np.arange(self._num_initial, len(self._collection.points))
        self._compared = np.union1d(rows, found)
        self._encoded, self._points = {}, {}
        points = self._collection.points[rows]
        self.latents = (
            self._space.encode(points, rows)
            if len(rows)
            else np.zeros((0, self._space.num_latents), np.float32)
        )

    def known(self, state: State) -> Known:
        """Returns all that is known; `state` has further latents."""
        collection = self._collection
        is_kept = collection.is_kept[self._rows]
        rows = self._rows[is_kept]
        fresh = self._seen()
        after = [*self._additions(), *self._free(state)]
        latents = [one.latent for one in after]
        scores = [one.score for one in after]
        feasible = [one.is_feasible for one in after]
        num_latents = self._space.num_latents
        return Known(
            np.concatenate(
                [
                    self.latents[is_kept],
                    fresh.latents.array,
                    np.array(latents, np.float32).reshape(-1, num_latents),
                ]
            ),
            # Clip at the score of invalid inputs, so that outliers do not
            # dominate the fit of the surrogate.
            np.maximum(
                np.concatenate(
                    [collection.scores[rows], fresh.scores.array, scores]
                ),
                collection.invalid_score,
            ),
            np.concatenate(
                [
                    collection.is_feasible[rows],
                    fresh.is_feasible.array,
                    np.array(feasible, bool),
                ]
            ),
            self._constraints(rows, fresh, after),
            np.concatenate(
                [
                    collection.queries[rows],
                    fresh.queries.array,
                    np.full(len(after), -1),
                ]
            ),
        )

    def _seen(self) -> _Fresh:
        """Returns the results that are no data yet, the newest ones included.

        Those that failed count as invalid ones, unless a violated constraint is
        why they have no score: that of these is NaN. Only those that are new
        since the last call are looked at, as a round may have thousands.
        """
        collection = self._collection
        # In noisy tasks the result of a known input changes that of others.
        num_repeats = collection.num_repeats if self._is_noisy else 0
        version = (self.round, collection.num_changes, num_repeats)
        if version != self._version:
            self._version, self._fresh = version, self._none_fresh()
        fresh = self._fresh
        values = collection.fresh.values()
        new = [*itertools.islice(values, fresh.num_seen, None)]
        fresh.num_seen += len(new)
        # Without an input it has no latents in another round's model.
        new = [o for o in new if o.input is not None or o.round == self.round]
        if not new:
            return fresh
        first = len(fresh.entries)
        fresh.entries += new
        fresh.latents.add(self.latents_of(new))
        fresh.scores.add([self._score_of(one) for one in new])
        fresh.queries.add([one.query for one in new])
        fresh.is_feasible.add([one.is_feasible for one in new])
        fresh.constraints += [
            (place, one.constraints)
            for place, one in enumerate(new, first)
            if one.constraints
        ]
        return fresh

    def _additions(self) -> list[_Result]:
        """Returns the additions that are no data yet."""
        additions = self._collection.fresh_additions
        return [
            _Result(
                latent,
                self._task.sign * one.score,
                one.constraints,
                is_feasible(one.constraints)
                and not self._collection.refuses(one),
            )
            for latent, one in zip(
                self.latents_of(additions), additions, strict=True
            )
        ]

    def _score_of(self, entry: Entry) -> float:
        collection = self._collection
        if entry.score is None and not entry.has_failed:
            return np.nan
        if entry.score is not None and self._is_noisy:
            known = collection.known_result(collection.key(entry.input))
            if known is not None and known.score is not None:
                return known.score
        return collection.score_of(entry)

    def _free(self, state: State) -> list[_Result]:
        """Returns latents whose inputs had a known result when proposed."""
        found = []
        for latent, key in zip(state.latents, state.inputs, strict=True):
            known = self._collection.known_result(key)
            if known is not None:
                score = np.nan if known.score is None else known.score
                feasible = is_feasible(known.constraints)
                found.append(
                    _Result(latent, score, known.constraints, feasible)
                )
        return found

    def _constraints(
        self, rows: np.ndarray, fresh: _Fresh, after: Sequence[_Result]
    ) -> dict[str, np.ndarray]:
        """Returns values of all constraints, at rows of the data and after."""
        data, first = self._collection.constraints, len(rows)
        values = [(first + place, one) for place, one in fresh.constraints]
        first += len(fresh.entries)
        values += [
            (place, one.constraints)
            for place, one in enumerate(after, first)
            if one.constraints
        ]
        names = {*data, *(name for _, one in values for name in one)}
        count = first + len(after)
        found = {name: np.full(count, np.nan) for name in names}
        for name, known in data.items():
            found[name][: len(rows)] = known[rows]
        for place, one in values:
            for name, value in one.items():
                found[name][place] = value
        return found

    # Pending queries.

    def pending(self) -> list[Query]:
        """Returns the queries without any result, invalid decodes left out."""
        records = self._records
        return [
            one
            for number, one in records.waiting.items()
            if one.input is not None and number not in records.entries
        ]

    def pending_latents(self) -> np.ndarray:
        """Returns the latents of pending queries, float32 `[p, M]`."""
        latents = np.array(self.latents_of(self.pending()), np.float32)
        return latents.reshape(-1, self._space.num_latents)

    # Latents and points.

    def latents_of(
        self, items: Sequence[Item]
    ) -> list[np.ndarray | list[float]]:
        """Returns the latents of each item in the model of this round."""
        for one in items:
            if not self._is_of_round(one) and _id(one) not in self._encoded:
                # By itself: in a batch, rounding errors depend on the others,
                # and a resumed run has more of them at a time.
                (latent,) = self._space.encode(self.points_of([one]))
                self._encoded[_id(one)] = latent
        return [
            one.latent if self._is_of_round(one) else self._encoded[_id(one)]
            for one in items
        ]

    def approximate_latents_of(self, items: Sequence[Item]) -> np.ndarray:
        """Returns the same with other rounding errors, float32 `[n, M]`.

        It is faster for many items, and no proposal may depend on it.
        """
        others = [one for one in items if not self._is_of_round(one)]
        encoded = iter(
            self._space.encode(self.points_of(others)) if others else ()
        )
        latents = [
            one.latent if self._is_of_round(one) else next(encoded)
            for one in items
        ]
        return np.array(latents, np.float32).reshape(
            -1, self._space.num_latents
        )

    def _is_of_round(self, one: Item) -> TypeGuard[Entry | Query]:
        return not isinstance(one, Addition) and one.round == self.round

    def points_of(self, items: Sequence[Item]) -> np.ndarray:
        """Returns the data points of items, float32 `[n, D]`."""
        for one in items:
            if _id(one) not in self._points:
                self._points[_id(one)] = self._point_of(one)
        points = [self._points[_id(one)] for one in items]
        return np.array(points).reshape(-1, self._collection.points.shape[1])

    def _point_of(self, one: Item) -> np.ndarray:
        if isinstance(one, Addition) and one.point is not None:
            return np.array(one.point, np.float32)
        return self.written([one.input])[0]

    def written(self, contents: Sequence[object]) -> np.ndarray:
        """Returns inputs in JSON form as data points, float32 `[n, D]`."""
        inputs = [from_json(self._task, one) for one in contents]
        return as_points(self._task, inputs, self._collection.points.shape[1])

    def points(self) -> np.ndarray:
        """Returns the points that queries keep a distance to, `[n, D]`.

        Those are the data that the surrogate is fitted to, all results and
        additions, and pending queries.
        """
        collection, fresh = self._collection, self._seen()
        new = fresh.entries[fresh.num_with_points :]
        fresh.num_with_points += len(new)
        fresh.points.add(
            self.points_of([one for one in new if one.input is not None])
        )
        others: list[Item] = [*collection.fresh_additions, *self.pending()]
        return np.concatenate(
            [
                collection.points[self._compared],
                fresh.points.array,
                self.points_of(others),
            ]
        )


def _id(one: Item) -> Hashable:
    """Returns what identifies a result, a query or an addition."""
    if isinstance(one, Addition):
        return ("added", id(one))  # The records keep all of them.
    return one.query if isinstance(one, Entry) else one.number
