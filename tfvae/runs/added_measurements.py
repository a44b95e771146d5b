# SPDX-License-Identifier: Apache-2.0
"""Measurements of one's own, from CSV and Parquet files, to add to a run."""

from __future__ import annotations

import collections
import json
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tfvae.lso import telling
from tfvae.lso.ledger import Contents
from tfvae.lso.reading import as_json, checked_additions, own_form
from tfvae.lso.records import Addition, input_text
from tfvae.lso.tables import (
    column_of,
    constraints_of,
    given_of,
    number_of,
    rows_of,
)
from tfvae.lso.tasks.base import ScoredData, Task
from tfvae.runs.optimization_tables import unescaped

_COORDINATE = re.compile("x(0|[1-9][0-9]*)")


def read(
    path: str | os.PathLike[str],
    task: Task,
    data: ScoredData,
    known: Sequence[Any] = (),
) -> list[Addition]:
    """Reads measurements, and checks that all of them can be added.

    Args:
      path: CSV file with a header line, or Parquet file. It has a column
        `score`, and `input` (text, or JSON) or `x0`, `x1` and so on: the
        numbers of an input that is a vector, else those of a data point. The
        values of constraints are in columns `constraint:NAME`. A row without
        a score but with a `failure`, as evaluations.csv has them, is left out.
      task: The task of the run, as `reading.resolved` returns it.
      data: Its initial data.
      known: Inputs of the run so far, in JSON form.

    Returns:
      The measurements, in the order of their rows.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If a row is wrong; the message names its line.
    """
    num_observed = data.points.shape[1]
    inputs = [one for one in known if one is not None]
    if data.inputs is not None and len(data.inputs):
        inputs.append(as_json(task, data.inputs[0]))
    example = inputs[0] if inputs else None
    found = [
        addition
        for where, row in rows_of(path)
        if (addition := _addition(row, where, example, num_observed))
    ]
    if not found:
        raise ValueError(
            "`--add` must be a file with scores, got none in "
            f"{pathlib.Path(path).name}"
        )
    return checked_additions(task, found, num_observed)


def new(
    additions: Sequence[Addition], known: Contents, task: Task
) -> list[Addition]:
    """Returns those measurements that a run does not have yet.

    A file may grow and be added again, and a row may be there twice because it
    was measured twice: as many rows are new as there are more of them in the
    files than in the run.

    Args:
      additions: The measurements, as `read` returns them.
      known: What is in the ledger of the run: additions, and results of
        queries.
      task: See `read`.
    """

    def content(one: Addition) -> str:
        if one.input is not None:
            one = one._replace(input=own_form(task, one.input))
        return _content(one)

    had = collections.Counter(map(content, known.additions))
    for entry in known.entries:
        scores = {*entry.scores}
        if entry.score is not None:  # The tables of a run have the mean.
            scores.add(entry.score)
        for score in scores:
            one = Addition(score, entry.input, None, entry.constraints)
            had[content(one)] += 1
    found = []
    for one in additions:
        key = _content(one)
        if had[key]:
            had[key] -= 1
        else:
            found.append(one)
    return found


def _content(one: Addition) -> str:
    """Returns what was measured, without its source and time, as a text."""
    return input_text(
        [one.input, one.point, one.score, one.constraints or None]
    )


def _addition(
    row: Mapping[str, Any], where: str, example: Any, num_observed: int
) -> Addition | None:
    """Returns the measurement of a row, None for one that has failed."""
    given = column_of(row, "score", where)
    if given in (None, "") and row.get("failure") not in (None, ""):
        return None
    score = number_of(given, "score", where)
    constraints = {
        name: value
        for name, value in constraints_of(row, where).items()
        if not math.isnan(value)
    }
    coordinates = {
        int(match[1]): value
        for name, value in row.items()
        if (match := _COORDINATE.fullmatch(name))
    }
    one_input, point = None, None
    if "input" in row:
        value = given_of(row, "input", where)
        one_input = _input(value, where, example)
    elif coordinates:
        numbers = _numbers(coordinates, where)
        if _is_vector(example, len(numbers)):
            one_input = numbers
        elif len(numbers) == num_observed:
            point = numbers
        else:
            raise ValueError(
                f"`x0` to `x{num_observed - 1}` must be the columns of a data "
                f"point, got {len(numbers)} of them in {where}"
            )
    else:
        raise ValueError(
            "`input`, or `x0` and so on, must be columns, got "
            f"{', '.join(map(repr, row))} in {where}"
        )
    return Addition(
        score, one_input, point, constraints or None, where, telling.time()
    )


def _is_vector(example: Any, length: int) -> bool:
    """Whether inputs are vectors of numbers of a length."""
    return (
        isinstance(example, list)
        and len(example) == length
        and all(isinstance(one, int | float) for one in example)
    )


def _numbers(coordinates: Mapping[int, Any], where: str) -> list[float]:
    """Returns the values of x0, x1 and so on."""
    missing = set(range(len(coordinates))) - coordinates.keys()
    if missing:
        raise ValueError(
            f"`x{min(missing)}` must be a column, as a later one is, got none "
            f"in {where}"
        )
    return [
        number_of(coordinates[i], f"x{i}", where)
        for i in range(len(coordinates))
    ]


def _input(value: Any, where: str, example: Any) -> Any:
    """Returns an input in its JSON form."""
    if not isinstance(value, str):
        return value
    text = unescaped(value)
    if isinstance(example, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        if example is None:
            return text
        raise ValueError(
            f"`input` must be JSON, such as {json.dumps(example)[:80]}, got "
            f"{value[:80]!r} in {where}"
        ) from None
