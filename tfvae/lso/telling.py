# SPDX-License-Identifier: Apache-2.0
"""Results from elsewhere: told, amended, withdrawn; all checked, then written.

Needs the ledger alone, neither the model nor the task.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tfvae.lso.evaluation_worker import Result, checked_score, one_line
from tfvae.lso.ledger import Ledger
from tfvae.lso.records import (
    Addition,
    Amendment,
    Entry,
    Measurement,
    Record,
    Records,
    Withdrawal,
)


class Told(NamedTuple):
    """The result of a query, or the amendment of it."""

    number: int
    """Number of the query."""
    score: Any = None
    """Its score, in the direction of the task; None for a failure. A number
    that is not finite is recorded as a failure."""
    failure: str | None = None
    """The reason if there is no score, in one line."""
    constraints: Mapping[str, float] | None = None
    """Values of constraints, which hold where they are at most 0."""
    seconds: float = 0.0
    """Duration of the evaluation."""
    is_amendment: bool = False
    """Whether it replaces the results that the query has."""


class Withdrawn(NamedTuple):
    """The withdrawal of all results of a query."""

    number: int


def record(
    ledger: Ledger, requests: Sequence[Told | Withdrawn]
) -> list[Entry | None]:
    """Records results, amendments and withdrawals, all of them or none.

    Args:
      ledger: The ledger of the run.
      requests: What to record, in this order.

    Returns:
      The entry of each query after it, None of those that were withdrawn.

    Raises:
      TypeError: If a score or a constraint is not a number. Nothing is
        recorded.
      ValueError: If a query is not pending, has no result to amend or to
        withdraw, or no input that could have a score, or a constraint is not
        finite. Nothing is recorded.
      OSError: If the disk is full, see `Ledger.append`.
    """
    records = [_record(one) for one in requests]
    _check(ledger.records, records)
    found: list[Entry | None] = []
    for one in records:
        append(ledger, one)
        found.append(ledger.records.entries.get(one.query))
    return found


def append(ledger: Ledger, one: Record) -> None:
    """Appends a record; errors have the result that is not on disk."""
    try:
        ledger.append(one)
    except OSError as error:
        if not isinstance(one, Measurement | Amendment):
            raise
        outcome = one.failure if one.score is None else one.score
        raise OSError(
            error.errno,
            f"{error.strerror}; query {one.query} has been evaluated; use "
            f"`tell` to record its result: {outcome}",
            str(ledger.path),
        ) from error


def _check(records: Records, wanted: Sequence[Record]) -> None:
    """Raises a ValueError if not all of `wanted` can be the next records."""
    if len(wanted) == 1:
        records.check(wanted[0])
        return
    tried = records.copy()
    for one in wanted:
        tried.check(one)
        tried.add(one)


def _record(request: Told | Withdrawn) -> Measurement | Amendment | Withdrawal:
    now = time()
    if isinstance(request, Withdrawn):
        return Withdrawal(request.number, now)
    result = _result(request)
    given = (request.number, result.score, result.failure)
    constraints = _checked_constraints(request.constraints)
    if request.is_amendment:
        return Amendment(*given, constraints, now)
    return Measurement(*given, constraints, request.seconds, now)


def _result(request: Told) -> Result:
    score, failure = request.score, request.failure
    if (score is None) == (failure is None):
        raise ValueError(
            "`score` or `failure` must be given, and not both, got "
            f"{score!r} and {failure!r}"
        )
    if failure is not None:
        return Result(None, failure, request.seconds)
    try:
        checked = checked_score(score, "`score` must be")
    except ValueError as error:
        return Result(None, one_line(error), request.seconds)
    return Result(checked, None, request.seconds)


def checked_addition(one: Addition) -> Addition:
    """Returns an addition whose numbers are floats, with a time.

    Raises:
      TypeError: If its score, or a constraint, is not a number.
      ValueError: If that is not finite.
    """
    return one._replace(
        score=checked_score(one.score, "`score` must be"),
        constraints=_checked_constraints(one.constraints),
        time=one.time or time(),
    )


def _checked_constraints(constraints: Any) -> dict[str, float] | None:
    if constraints is not None and not isinstance(constraints, Mapping):
        raise TypeError(
            "`constraints` must be a dictionary of numbers, got "
            f"{constraints!r}"
        )
    return {
        str(name): checked_score(value, f"`constraints[{name!r}]` must be")
        for name, value in (constraints or {}).items()
    } or None


def time() -> str:
    """Returns the time of a record: ISO 8601, UTC, in seconds."""
    now = datetime.datetime.now(datetime.UTC)
    return now.isoformat(timespec="seconds")
