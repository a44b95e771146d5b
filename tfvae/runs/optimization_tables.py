# SPDX-License-Identifier: Apache-2.0
"""Tables of an optimisation: evaluations.csv, best.csv and left_out.csv.

All are UTF-8 with a head. A text that starts with one of = + - @ ', a tab or a
carriage return has one more ' before it, so that no spreadsheet takes it for a
formula; `unescaped` removes it:

    table = pandas.read_csv(
        "evaluations.csv",
        keep_default_na=False,  # Else a text such as NA is missing.
        na_values=[""],
        converters={"input": unescaped},
    )
"""

from __future__ import annotations

import csv
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfvae import files
from tfvae.lso.records import Entry
from tfvae.lso.tables import CONSTRAINT
from tfvae.lso.tasks.base import LeftOut
from tfvae.runs.optimization_state import Ranked, State

EVALUATIONS, BEST = "evaluations.csv", "best.csv"
LEFT_OUT = "left_out.csv"
_LONGEST_VECTOR = 64
_ESCAPED = ("=", "+", "-", "@", "'", "\t", "\r")


def write(state: State) -> None:
    """Writes both tables into the folder of the run."""
    evaluations = [*_evaluations(state)]
    _write(state.path / EVALUATIONS, evaluation_columns(state), evaluations)
    form = _Inputs([one.input for one in state.entries])
    columns = ["rank", "score", "std", "num_scores", "query", "round"]
    columns += [f"{CONSTRAINT}{name}" for name in state.constraints]
    columns += form.columns
    best = [_best(rank, one, form) for rank, one in enumerate(state.ranked, 1)]
    _write(state.path / BEST, columns, best)


def write_left_out(path: pathlib.Path, left_out: Sequence[LeftOut]) -> bool:
    """Writes what was read and became no data into a run folder.

    Args:
      path: The folder.
      left_out: The lines; without any there is no file.

    Returns:
      Whether they are others than before.
    """
    file = path / LEFT_OUT
    before = file.read_bytes() if file.exists() else b""
    if not left_out:
        file.unlink(missing_ok=True)
        return bool(before)
    rows = [
        {
            "line": one.line,
            "text": escaped(one.text),
            "reason": escaped(one.reason),
        }
        for one in left_out
    ]
    _write(file, ["line", "text", "reason"], rows)
    return file.read_bytes() != before


def evaluation_columns(state: State) -> list[str]:
    """Returns the columns of evaluations.csv."""
    return [
        "query",
        "round",
        "score",
        "spread",
        "num_results",
        "failure",
        *(f"{CONSTRAINT}{name}" for name in state.constraints),
        "is_feasible",
        "is_best_so_far",
        "seconds",
        "time",
        "distance",
        *_Inputs([one.input for one in state.entries]).columns,
    ]


class _Inputs:
    """Columns of inputs: of texts, of numbers, or of JSON."""

    def __init__(self, inputs: Sequence[Any]) -> None:
        known = [one for one in inputs if one is not None]
        self._are_texts = all(isinstance(one, str) for one in known)
        lengths = {_length(one) for one in known}
        length = max(lengths) if len(lengths) == 1 else 0
        self.columns = ["input"]
        if 0 < length <= _LONGEST_VECTOR:
            self.columns = [f"x{i}" for i in range(length)]

    def cells(self, one: Any) -> dict[str, Any]:
        """Returns the cells of an input, in its JSON form."""
        if one is None:
            return {}
        if self.columns != ["input"]:
            return dict(zip(self.columns, one, strict=True))
        if self._are_texts:
            return {"input": escaped(one)}
        return {"input": escaped(json.dumps(one))}


def _length(one: Any) -> int:
    """Returns the length of a vector of numbers, 0 for anything else."""
    if not isinstance(one, list):
        return 0
    are_numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool)
        for value in one
    )
    return len(one) if are_numbers else 0


def escaped(text: str) -> str:
    """Returns a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_ESCAPED) else text


def unescaped(text: str) -> str:
    """Returns the text of which `escaped` has made this one."""
    is_escaped = text.startswith("'") and text[1:].startswith(_ESCAPED)
    return text[1:] if is_escaped else text


def _evaluations(state: State) -> Iterable[Mapping[str, Any]]:
    form = _Inputs([one.input for one in state.entries])
    best: float | None = None
    for one in state.entries:
        is_best = False
        if one.score is not None and one.is_feasible:
            value = state.sign * one.score
            is_best = best is None or value > best
            best = value if is_best else best
        yield {
            **_cells(one),
            "spread": one.spread,
            "num_results": one.num_results,
            "failure": escaped(one.failure or ""),
            "is_feasible": one.score is not None and one.is_feasible,
            "is_best_so_far": is_best,
            "seconds": one.seconds,
            "time": one.time,
            "distance": one.distance,
            **form.cells(one.input),
        }


def _cells(one: Entry) -> dict[str, Any]:
    """Returns the cells that both tables have."""
    return {
        "query": one.query,
        "round": one.round,
        "score": one.score,
        **{
            f"{CONSTRAINT}{name}": value
            for name, value in (one.constraints or {}).items()
        },
    }


def _best(rank: int, one: Ranked, form: _Inputs) -> Mapping[str, Any]:
    return {
        **_cells(one.entry),
        "rank": rank,
        "score": one.value,
        "std": one.std,
        "num_scores": one.num_scores,
        **form.cells(one.entry.input),
    }


def _write(
    path: pathlib.Path,
    columns: Sequence[str],
    rows: Iterable[Mapping[str, Any]],
) -> None:
    with files.replacing(path, newline="") as file:
        # Its line ends also have texts with a carriage return quoted.
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow([_text(name) for name in columns])
        for row in rows:
            writer.writerow([_text(row.get(name)) for name in columns])


def _text(value: Any) -> Any:
    """Returns a cell; a lone surrogate, which no file can hold, as its code."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
