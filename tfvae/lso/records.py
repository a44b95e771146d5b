# SPDX-License-Identifier: Apache-2.0
"""Records of a ledger: proposals, results, amendments, additions, rounds.

The file is a sequence of records, of which `Records` has the current state:
the queries with their results so far (an `Entry` each), the queries that wait
for results, and the measurements that were added. The order of the records says
what was known when a query was proposed: all records before it.
"""

from __future__ import annotations

import copy
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple


class Query(NamedTuple):
    """A proposed query."""

    number: int
    """Number in the whole run, from 0."""
    round: int
    """The round, from 0."""
    latent: list[float]
    """The proposed latents, M numbers."""
    input: Any
    """The input in its JSON form; None for an invalid decode."""
    seed: int
    """Seed of the conversion of decoder means to the input."""
    failure: str | None = None
    """Why there is no input, in one line."""
    saw: int = 0
    """Results that were known when it was proposed, amendments included."""
    distance: float | None = None
    """Distance of its latents to the nearest ones known or pending, in standard
    deviations of the data's latents (root mean square over latents)."""


class Measurement(NamedTuple):
    """The result of one evaluation of a query."""

    query: int
    score: float | None
    """The score, in the direction of the task; None for a failure."""
    failure: str | None = None
    """Reason for a missing score, in one line; None if there is a score."""
    constraints: dict[str, float] | None = None
    """Values of the constraints, which hold where they are at most 0."""
    seconds: float = 0.0
    """Duration of the evaluation."""
    time: str = ""
    """Time of recording: ISO 8601, UTC."""


class Amendment(NamedTuple):
    """A result that replaces all those of a query."""

    query: int
    score: float | None
    failure: str | None = None
    constraints: dict[str, float] | None = None
    time: str = ""


class Withdrawal(NamedTuple):
    """Removes all results of a query, which waits for others then."""

    query: int
    time: str = ""


class Addition(NamedTuple):
    """A measurement that no query asked for."""

    score: float
    input: Any = None
    """The input in its JSON form; None if there is a point only."""
    point: list[float] | None = None
    """The data point, D numbers, None for those missing; None to encode the
    input by the `write` of the task."""
    constraints: dict[str, float] | None = None
    source: str = ""
    """Where it is from, such as a file and its line."""
    time: str = ""


class Round(NamedTuple):
    """The beginning of a round: all results before it become data."""

    round: int
    time: str = ""


class Proposal(NamedTuple):
    """Queries that were proposed together."""

    queries: list[Query]


class Entry(NamedTuple):
    """A query and its results so far."""

    round: int
    query: int
    """Number of the query."""
    latent: list[float]
    input: Any
    score: float | None
    """The mean of its scores; None for a failure."""
    failure: str | None
    """Reason for a missing score, in one line; None if there is a score."""
    seconds: float
    """Duration of all its evaluations."""
    seed: int
    time: str
    """Time of recording of the last result: ISO 8601, UTC."""
    constraints: dict[str, float] | None = None
    """Means of the constraints, which hold where they are at most 0."""
    scores: tuple[float, ...] = ()
    """The scores of all its evaluations."""
    num_results: int = 1
    """Number of its evaluations, failed ones included."""
    is_amended: bool = False
    """Whether its result has been replaced."""
    saw: int = 0
    """See `Query`."""
    distance: float | None = None
    """See `Query`."""

    @property
    def spread(self) -> float | None:
        """Standard deviation of the scores, None for fewer than two."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    @property
    def is_feasible(self) -> bool:
        """Whether it satisfies all constraints."""
        return is_feasible(self.constraints)

    @property
    def has_failed(self) -> bool:
        """Whether it has no score, for another reason than a constraint."""
        return self.score is None and self.is_feasible


Record = Proposal | Measurement | Amendment | Withdrawal | Addition | Round
KINDS: dict[str, type] = {
    "proposed": Proposal,
    "result": Measurement,
    "amended": Amendment,
    "withdrawn": Withdrawal,
    "added": Addition,
    "round": Round,
}
"""The kinds of records, by the key of their line in the file."""


def is_feasible(constraints: Mapping[str, float] | None) -> bool:
    """Returns whether all of `constraints` hold: are at most 0."""
    return all(value <= 0.0 for value in (constraints or {}).values())


class Records:
    """The state of a ledger after its records so far.

    Attributes:
      header: The header; None before it has been read.
      entries: Entries of all queries with a result, by number.
      waiting: Queries that lack results, by number.
      additions: The measurements that were added.
      sequence: All records but proposals, in order, as `(record, entry)`: the
        entry of the query after it, that before a withdrawal, and None for a
        record without a query.
      round: The last round that has begun, -1 before the first.
      next_number: The number of the next query.
      num_results: How many results have been recorded, amended, withdrawn or
        added; what `Query.saw` counts.
      is_legacy: Whether there are entries of an earlier format, which can be
        read and not continued.
    """

    def __init__(self) -> None:
        """Starts without records."""
        self.header: dict[str, Any] | None = None
        self.entries: dict[int, Entry] = {}
        self.waiting: dict[int, Query] = {}
        self.additions: list[Addition] = []
        self.sequence: list[tuple[Record, Entry | None]] = []
        self.round = -1
        self.next_number = 0
        self.num_results = 0
        self.is_legacy = False
        self._queries: dict[int, Query] = {}
        self._results: dict[int, list[Measurement]] = {}
        self._amended: set[int] = set()

    @property
    def repeats(self) -> int:
        """The number of evaluations of each query."""
        return int((self.header or {}).get("repeats", 1))

    @property
    def num_done(self) -> int:
        """The number of queries that have all their results."""
        lacking = sum(number in self.entries for number in self.waiting)
        return len(self.entries) - lacking

    def copy(self) -> Records:
        """Returns a copy, to try records on."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, (dict, list, set)):
                setattr(other, name, value.copy())
        other._results = {key: [*one] for key, one in self._results.items()}
        return other

    def add_content(self, content: dict[str, Any]) -> None:
        """Adds the content of a line of the file.

        Raises:
          TypeError: If it is no record.
          ValueError: If it can not be the next one.
        """
        if "header" in content:
            self.header = content["header"]
            return
        if self.header is None:
            raise ValueError("the first line must be a header")
        if "latent" in content:
            self._add_legacy(content)
            return
        record = from_content(content)
        self.check(record)
        self.add(record)

    def check(self, record: Record) -> None:
        """Raises ValueError if `record` can not be the next one."""
        match record:
            case Proposal(queries):
                for i, query in enumerate(queries):
                    _check_integers(query, "number", "round", "seed", "saw")
                    expected = self.next_number + i
                    if query.number != expected:
                        raise ValueError(
                            f"`number` must be {expected}, the next one, got "
                            f"{query.number}"
                        )
            case Measurement(query):
                _check_integers(record, "query")
                if query not in self.waiting:
                    raise ValueError(
                        f"`query` must be one that waits ({self._shown()}), "
                        f"got {query}{self._why_not(query)}"
                    )
                self._check_result(record)
            case Amendment(query) | Withdrawal(query):
                _check_integers(record, "query")
                if query not in self.entries:
                    raise ValueError(
                        "`query` must be one that has a result, got "
                        f"{query}{self._why_not(query)}"
                    )
                if isinstance(record, Amendment):
                    self._check_result(record)
            case Round(number):
                _check_integers(record, "round")
                if number != self.round + 1:
                    raise ValueError(
                        f"`round` must be {self.round + 1}, the next one, got "
                        f"{number}"
                    )
            case Addition(score):
                if score is None:
                    raise ValueError("`score` must be a finite number")
                _check_constraints(record.constraints)

    def _check_result(self, record: Measurement | Amendment) -> None:
        if (
            record.score is not None
            and self._queries[record.query].input is None
        ):
            raise ValueError(
                "`query` must be one with an input to have a score, got "
                f"{record.query}, whose latents decode to none"
            )
        _check_constraints(record.constraints)

    def _shown(self) -> str:
        return ", ".join(map(str, self.waiting)) or "there are none"

    def _why_not(self, query: int) -> str:
        if query in self.waiting:
            return ", which waits for one"
        if query in self.entries:
            return ", which has its result already; amend it, or withdraw it"
        return ", which has not been proposed"

    def add(self, record: Record) -> None:
        """Adds a record that has been checked."""
        entry = None
        match record:
            case Proposal(queries):
                for query in queries:
                    self._queries[query.number] = query
                    self.waiting[query.number] = query
                    self.next_number = query.number + 1
                return
            case Measurement(query):
                found = self._results.setdefault(query, [])
                found.append(record)
                self.num_results += 1
                is_whole = len(found) >= self.repeats
                if is_whole or self._queries[query].input is None:
                    del self.waiting[query]
                entry = self._update(query)
            case Amendment(query):
                # As if it were the only result.
                seconds = sum(one.seconds for one in self._results[query])
                only = Measurement(
                    query,
                    record.score,
                    record.failure,
                    record.constraints,
                    seconds,
                    record.time,
                )
                self._results[query] = [only]
                self._amended.add(query)
                self.num_results += 1
                self.waiting.pop(query, None)
                entry = self._update(query)
            case Withdrawal(query):
                del self._results[query]
                self._amended.discard(query)
                entry = self.entries.pop(query)
                self.num_results += 1
                # In the order of numbers, as they are printed.
                self.waiting[query] = self._queries[query]
                self.waiting = dict(sorted(self.waiting.items()))
            case Addition():
                self.additions.append(record)
                self.num_results += 1
            case Round(number):
                self.round = number
        self.sequence.append((record, entry))

    def _update(self, number: int) -> Entry:
        entry = _entry(
            self._queries[number],
            self._results[number],
            number in self._amended,
        )
        self.entries[number] = entry
        return entry

    def _add_legacy(self, content: dict[str, Any]) -> None:
        entry = Entry(**content)
        entry = entry._replace(
            latent=_floats(entry.latent),
            seconds=math.nan if entry.seconds is None else entry.seconds,
            scores=() if entry.score is None else (entry.score,),
        )
        if entry.query in self.entries:
            raise ValueError(
                f"`query` must be a new number, got {entry.query} again"
            )
        self.entries[entry.query] = entry
        self.next_number = max(self.next_number, entry.query + 1)
        self.round = entry.round
        self.is_legacy = True


def _entry(
    query: Query, results: Sequence[Measurement], is_amended: bool
) -> Entry:
    scores = tuple(one.score for one in results if one.score is not None)
    failures = [one.failure for one in results if one.failure is not None]
    return Entry(
        query.round,
        query.number,
        query.latent,
        query.input,
        mean(scores) if scores else None,
        None if scores else next(iter(failures), "no score"),
        sum(one.seconds for one in results),
        query.seed,
        results[-1].time,
        mean_constraints(one.constraints for one in results),
        scores,
        len(results),
        is_amended,
        query.saw,
        query.distance,
    )


def mean(values: Sequence[float]) -> float:
    """Returns the mean, which is exact where all values are the same."""
    return values[0] if len({*values}) == 1 else statistics.fmean(values)


def mean_constraints(
    results: Iterable[Mapping[str, float] | None],
) -> dict[str, float] | None:
    """Returns the mean of each constraint, None if there are none."""
    found: dict[str, list[float]] = {}
    for one in results:
        for name, value in (one or {}).items():
            found.setdefault(name, []).append(value)
    return {name: mean(values) for name, values in found.items()} or None


def _check_integers(record: Any, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        if type(value) is not int or value < 0:
            raise ValueError(
                f"`{name}` must be an integer of at least 0, got {value!r}"
            )


def _check_constraints(constraints: Mapping[str, Any] | None) -> None:
    for name, value in (constraints or {}).items():
        is_number = isinstance(value, int | float)
        if not is_number or not math.isfinite(value):
            raise ValueError(
                f"`constraints[{name!r}]` must be a finite number, got "
                f"{value!r}"
            )


def to_content(record: Record) -> dict[str, Any]:
    """Returns the content of a line of the file.

    Numbers that are not finite become null, and a score that is not finite a
    failure.
    """
    (key,) = (key for key, kind in KINDS.items() if type(record) is kind)
    if isinstance(record, Proposal):
        return {key: [_fields(query) for query in record.queries]}
    fields = _fields(record)
    score = getattr(record, "score", None)
    has_failure = isinstance(record, Measurement | Amendment)
    if has_failure and score is not None and fields.get("score") is None:
        given = getattr(record, "failure", None)
        fields["failure"] = given or f"the score must be finite, got {score}"
    return {key: fields}


def from_content(content: Mapping[str, Any]) -> Record:
    """Returns the record of a line of the file."""
    key = next((key for key in content if key in KINDS), None)
    if key is None:
        raise TypeError(
            f"a line must have one of the keys {', '.join(KINDS)}, got "
            f"{', '.join(content)}"
        )
    if key == "proposed":
        return Proposal([_query(one) for one in content[key]])
    record = KINDS[key](**content[key])
    if key == "result" and record.seconds is None:
        record = record._replace(seconds=math.nan)
    return record


def _query(fields: Mapping[str, Any]) -> Query:
    query = Query(**fields)
    return query._replace(latent=_floats(query.latent))


def _floats(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _fields(record: Any) -> dict[str, Any]:
    """Returns the fields, in JSON form, without those left at a default."""
    defaults = type(record)._field_defaults
    return {
        name: plain(value)
        for name, value in record._asdict().items()
        if name not in defaults or value != defaults[name]
    }


def input_text(one_input: Any) -> str:
    """Returns the text by which inputs in JSON form are compared.

    Equal numbers are the same: 0.0 and -0.0, to which means are rounded, or 1
    and 1.0.
    """
    return json.dumps(_canonical(one_input), sort_keys=True)


def _canonical(value: Any) -> Any:
    """Returns a JSON value with integers for the floats that equal them."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_canonical(one) for one in value]
    if isinstance(value, dict):
        return {name: _canonical(one) for name, one in value.items()}
    return value


def plain(value: Any, other: Callable[[float], Any] | None = None) -> Any:
    """Returns `value` with lists for arrays, and without NaN and infinity.

    Args:
      value: Any nested structure of values.
      other: Replaces numbers that are not finite; None to replace them by
        None.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        is_kept = math.isfinite(value)
        return value if is_kept else other(value) if other else None
    if isinstance(value, Mapping):
        return {str(key): plain(one, other) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one, other) for one in value]
    return value
