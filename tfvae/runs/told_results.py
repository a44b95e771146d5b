# SPDX-License-Identifier: Apache-2.0
"""Results from the command line: --tell, --amend and --withdraw.

All are checked before any is recorded. Needs neither the task nor TensorFlow.
"""

from __future__ import annotations

import math
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tfvae.lso import telling
from tfvae.lso.ledger import LEDGER, Ledger
from tfvae.lso.records import Entry
from tfvae.lso.telling import Told, Withdrawn
from tfvae.runs import locks
from tfvae.runs.optimization_status import input_text, printable, shortened

_QUERY = re.compile(r"(0|[1-9][0-9]*)=(.*)", re.DOTALL)
_FAILED = re.compile(r"failed(?::(.*))?", re.DOTALL)
_NO_SCORE = "failed"
_NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|nan|inf)",
    re.IGNORECASE,
)
_FORMS = (
    "NUMBER=SCORE, NUMBER=SCORE,CONSTRAINT=VALUE, NUMBER=failed or "
    "NUMBER=failed:REASON"
)
_UNTOLD_REASON = "told to have failed"


class Requests(NamedTuple):
    """What a command line wants to have recorded."""

    withdrawn: Sequence[str] = ()
    """Numbers of the queries whose results are withdrawn."""
    amended: Sequence[str] = ()
    """Results that replace others, in the form of those that are told."""
    told: Sequence[str] = ()
    """Results, as NUMBER=SCORE, with ,NAME=VALUE for each constraint, or as
    NUMBER=failed or NUMBER=failed:REASON."""

    def parsed(self) -> list[Told | Withdrawn]:
        """Returns them in the order in which they are recorded.

        Withdrawals come first, so that a query can be told again.

        Raises:
          ValueError: If one has none of the forms.
        """
        return [
            *(Withdrawn(_integer("withdraw", one)) for one in self.withdrawn),
            *(_told("amend", one) for one in self.amended),
            *(_told("tell", one) for one in self.told),
        ]


def record(
    run_dir: str | os.PathLike[str], wanted: Sequence[Told | Withdrawn]
) -> list[str]:
    """Records results of queries, all of them or none.

    Args:
      run_dir: Folder of the run.
      wanted: What to record, in this order.

    Returns:
      A line about each, for the person who told them.

    Raises:
      FileNotFoundError: If there is no run in the folder.
      RuntimeError: If another process has opened the run.
      ValueError: If a query is not pending, or has no result to amend or to
        withdraw. Nothing is recorded.
    """
    path = pathlib.Path(run_dir)
    if not (path / LEDGER).exists():
        raise FileNotFoundError(
            "`--tell` must refer to a query that --ask has printed, got query "
            f"{wanted[0].number} but no run in {path}; use --ask first."
        )
    with locks.locked(path), Ledger(path / LEDGER) as ledger:
        before = dict(ledger.records.entries)
        unlike = _unlike(before.values(), wanted)
        inputs = {query.number: query.input for query in ledger.waiting} | {
            number: one.input for number, one in before.items()
        }
        found = telling.record(ledger, wanted)
        repeats = ledger.records.repeats
    lines = []
    for one, entry in zip(wanted, found, strict=True):
        old = before.get(one.number)
        said = _said(one, entry, old, repeats)
        shown = shortened(input_text(inputs.get(one.number)), 60)
        lines.append(f"query {one.number}: {said}  {shown}")
        if entry is None:
            before.pop(one.number, None)
        else:
            before[one.number] = entry
    return [*lines, *unlike]


def _unlike(
    entries: Iterable[Entry], wanted: Sequence[Told | Withdrawn]
) -> list[str]:
    """Returns a line for each constraint that no earlier result has.

    It may be misspelt. The first one can not be compared.
    """
    known = {name for one in entries for name in one.constraints or {}}
    lines = []
    for one in wanted:
        names = {} if isinstance(one, Withdrawn) else one.constraints or {}
        which = ", ".join(map(repr, sorted(known)))
        lines += [
            f"warning: no earlier result has the constraint {name!r}, but "
            f"{which}"
            for name in names
            if known and name not in known
        ]
        known |= {*names}
    return lines


def _said(
    one: Told | Withdrawn, entry: Entry | None, old: Entry | None, repeats: int
) -> str:
    """Returns what has become of a query, and what it was before."""
    was = "" if old is None else f" (was {_outcome(old)})"
    if entry is None:
        return f"withdrawn{was}, pending again"
    if isinstance(one, Told) and not one.is_amendment and repeats > 1:
        told = "failed" if one.score is None else _digits(float(one.score))
        mean = "no score" if entry.score is None else f"mean {entry.score:.6g}"
        return f"{told} ({entry.num_results} of {repeats} results, {mean})"
    return f"{_outcome(entry)}{was}"


def _outcome(entry: Entry) -> str:
    """Returns the score of a query, or why there is none, in words."""
    constraints = "".join(
        f", {printable(name)}={_digits(value)}"
        for name, value in (entry.constraints or {}).items()
    )
    if entry.score is not None:
        return f"{_digits(entry.score)}{constraints}"
    failure = printable(entry.failure or "")
    why = "" if failure == _UNTOLD_REASON else f": {failure}"
    return f"failed{constraints}{why}"


def _digits(value: float) -> str:
    """Returns all digits of a number, a whole one without its point."""
    return repr(value).removesuffix(".0")


def _told(flag: str, text: str) -> Told:
    """Parses a result."""
    found = _QUERY.fullmatch(text)
    if found is None:
        raise _wrong(flag, text)
    number, outcome = int(found[1]), found[2]
    is_amendment = flag == "amend"
    failed = _FAILED.fullmatch(outcome)
    if failed is not None:
        reason = " ".join((failed[1] or "").split()) or _UNTOLD_REASON
        return Told(number, None, reason, is_amendment=is_amendment)
    score, *others = outcome.split(",")
    if score != _NO_SCORE and not _NUMBER.fullmatch(score):
        raise _wrong(flag, text)
    constraints: dict[str, float] = {}
    for one in others:
        name, _, value = one.partition("=")
        if not name.strip() or not _NUMBER.fullmatch(value):
            raise _wrong(flag, text)
        constraints[name.strip()] = _finite(flag, name, value)
    if len(constraints) != len(others):
        raise _wrong(flag, text, "; a constraint is named twice")
    has_score = score != _NO_SCORE
    return Told(
        number,
        float(score) if has_score else None,
        None if has_score else _UNTOLD_REASON,
        constraints or None,
        is_amendment=is_amendment,
    )


def _finite(flag: str, name: str, value: str) -> float:
    if not math.isfinite(float(value)):
        raise ValueError(
            f"`--{flag}` must have a finite value of the constraint "
            f"{name.strip()!r}, got {value}"
        )
    return float(value)


def _integer(flag: str, text: str) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]*", text):
        raise ValueError(
            f"`--{flag}` must be the number of a query, such as --{flag}=3, "
            f"got {text!r}"
        )
    return int(text)


def _wrong(flag: str, text: str, why: str = "") -> ValueError:
    return ValueError(
        f"`--{flag}` must be {_FORMS}, as in --{flag}=3=0.71, got {text!r}{why}"
    )
