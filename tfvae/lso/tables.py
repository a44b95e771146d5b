# SPDX-License-Identifier: Apache-2.0
"""Measurements from CSV and Parquet files, as the initial data of a task."""

from __future__ import annotations

import csv
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfvae.lso.tasks.base import Input, ScoredData

CONSTRAINT = "constraint:"
"""Columns whose names begin with this have the values of constraints."""


def rows_of(
    path: str | os.PathLike[str],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the rows of a file, each with a text that says where it is.

    Args:
      path: A CSV file with a header line (texts, UTF-8), or a Parquet file
        (`.parquet`, values of the types that it has).

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If it is neither, has no rows, two columns of one name, or a
        row of too few or too many values. Rows without any value are left out.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"`path` must be a CSV or Parquet file, got {path.absolute()}, "
            "which does not exist"
        )
    name = path.name
    rows = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    is_empty = True
    for number, row in rows:
        is_empty = False
        yield f"line {number} of {name}", row
    if is_empty:
        raise ValueError(f"`path` must be a file with rows, got {name} without")


def _csv(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        # With the mark that some programs write at the start.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            _check_names(reader.fieldnames or (), path.name)
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(
                        f"line {reader.line_num} of {path.name} must have "
                        f"{len(reader.fieldnames or ())} values, as its first "
                        "line has"
                    )
                # Spreadsheets write rows of empty cells.
                if any(row.values()):
                    yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"`path` must be a CSV file in UTF-8, got {path.name}: {error}"
        ) from error


def _check_names(names: Sequence[str], name: str) -> None:
    """Raises a ValueError unless these are columns, each with its own name."""
    for separator, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) == 1 and separator in names[0]:
            raise ValueError(
                "`path` must be a CSV file with commas between values, and "
                f"points in numbers, got {word} in line 1 of {name}"
            )
    twice = [one for one in names if one and [*names].count(one) > 1]
    if twice:
        raise ValueError(
            f"`path` must be a file whose columns have different names, got "
            f"{twice[0]!r} twice in line 1 of {name}"
        )


def _parquet(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(
            f"`path` must be a Parquet file, got {path.name}: {error}"
        ) from error
    yield from enumerate(rows, 1)


def number_of(value: Any, name: str, where: str) -> float:
    """Returns a finite number.

    Raises:
      ValueError: If it is none. `name` is that of its column, `where` says
        where it is.
    """
    is_text = isinstance(value, str)
    try:
        # `float` reads underscores, which no program writes.
        found = math.nan if is_text and "_" in value else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found):
        raise ValueError(
            f"`{name}` must be a finite number, got {value!r} in {where}"
        )
    return found


def column_of(row: Mapping[str, Any], name: str, where: str) -> Any:
    """Returns the value of a column; raises ValueError without it."""
    if name not in row:
        raise ValueError(
            f"`{name}` must be a column, got {', '.join(map(repr, row))} in "
            f"{where}"
        )
    return row[name]


def given_of(row: Mapping[str, Any], name: str, where: str) -> Any:
    """Returns the value of a column; raises ValueError if there is none."""
    value = column_of(row, name, where)
    if value is None or value == "":
        raise ValueError(f"`{name}` must be given, got none in {where}")
    return value


def read_table(
    path: str | os.PathLike[str],
    *,
    score: str = "score",
    input: str | None = None,
    points: Sequence[str] | None = None,
    write: Callable[[Sequence[Input]], np.ndarray] | None = None,
) -> Callable[[int], ScoredData]:
    """Returns the `data` of a task from a file of measurements.

        task = Task(
            "peptides",
            data=read_table("measured.csv", input="sequence", write=encode),
            ...
        )

    Columns whose names begin with "constraint:" have values of constraints,
    which may be missing (empty).

    Args:
      path: CSV file with a header line, or Parquet file.
      score: Name of the column of scores.
      input: Name of the column of inputs.
      points: Names of the columns of data points; None to encode inputs by
        `write`.
      write: From n inputs to points `[n, D]`, usually that of the task.

    Raises:
      TypeError: If neither `points` nor `input` with `write` are given.
    """
    if points is None and (input is None or write is None):
        raise TypeError(
            "`points`, or `input` and `write`, must be given, got "
            f"{points!r}, {input!r} and {write!r}"
        )

    def data(seed: int) -> ScoredData:
        del seed  # All rows, whatever the seed.
        scores: list[float] = []
        inputs: list[Any] = []
        rows: list[list[float]] = []
        constraints: dict[str, list[float]] = {}
        for where, row in rows_of(path):
            scores.append(number_of(column_of(row, score, where), score, where))
            if input is not None:
                inputs.append(given_of(row, input, where))
            if points is not None:
                rows.append(
                    [
                        number_of(column_of(row, name, where), name, where)
                        for name in points
                    ]
                )
            for name, value in constraints_of(row, where).items():
                constraints.setdefault(name, []).append(value)
        if points is None:
            assert write is not None
            rows = write(inputs)  # type: ignore[assignment]
        return ScoredData(
            np.asarray(rows),
            np.asarray(scores),
            inputs if input is not None else None,
            {name: np.asarray(one) for name, one in constraints.items()},
        )

    return data


def constraints_of(row: Mapping[str, Any], where: str) -> dict[str, float]:
    """Returns the values of constraints in a row, NaN for missing ones."""
    return {
        name.removeprefix(CONSTRAINT): math.nan
        if value is None or value == ""
        else number_of(value, name, where)
        for name, value in row.items()
        if name.startswith(CONSTRAINT)
    }
