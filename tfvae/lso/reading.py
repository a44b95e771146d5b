# SPDX-License-Identifier: Apache-2.0
"""Conversion of decoder means to inputs, and of inputs to JSON and pictures.

An exception in a task's functions either becomes the failure of one input or an
error that names the function; functions get inputs of their own to modify.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfvae.lso.evaluation_worker import one_line
from tfvae.lso.records import Addition
from tfvae.lso.tasks.base import Input, ScoredData, Task

_logger = logging.getLogger(__name__)

NO_INPUT = "the latents decode to no valid input"
"""The failure of a query whose latents decode to no input."""


class Reading(NamedTuple):
    """The objective input that the decoder means of one latent decode to."""

    input: Any
    """Input of the objective; None for an invalid decode."""
    content: Any
    """The input in JSON form."""
    failure: str | None
    """Why there is no input, in one line."""
    is_refused: bool = False
    """Whether the task has refused it as a query, which is the failure."""


def read(task: Task, means: np.ndarray, seed: int) -> list[Reading]:
    """Decodes decoder means to inputs by the `read` of a task.

    What the task refuses is no input. All is counted in `task.decodes`.

    Args:
      task: The task. If its `read` raises for a batch, rows are read one by
        one, and those for which it raises again have failed.
      means: `[n, D]`.
      seed: Seed for `read`.

    Returns:
      n readings.

    Raises:
      TypeError: If `read` returns no sequence, or `to_json` no JSON value.
      ValueError: If `read` returns too many or too few inputs.
    """
    readings = _read(task, means, seed)
    count = task.decodes
    count.num += len(readings)
    for one in readings:
        if one.is_refused:
            count.refused[one.failure or ""] += 1
        elif one.input is None:
            count.num_invalid += 1
    return readings


def _read(task: Task, means: np.ndarray, seed: int) -> list[Reading]:
    try:
        found = task.read(means, seed)
        inputs = list(found) if isinstance(found, Iterable) else None
    except Exception:
        return [_read_one(task, means[[i]], seed) for i in range(len(means))]
    if inputs is None:
        raise TypeError(
            f"`read` of task {task.name} must return an input or None for "
            f"each row, got {type(found).__name__}"
        )
    if len(inputs) != len(means):
        raise ValueError(
            f"`read` of task {task.name} must return an input or None for "
            f"each of {len(means)} rows, got {len(inputs)}"
        )
    return [_reading(task, one) for one in inputs]


def _read_one(task: Task, means: np.ndarray, seed: int) -> Reading:
    try:
        (one_input,) = task.read(means, seed)
    except Exception as error:
        return Reading(None, None, f"reading fails: {one_line(error)}")
    return _reading(task, one_input)


def _reading(task: Task, one_input: Any) -> Reading:
    if one_input is None:
        return Reading(None, None, NO_INPUT)
    if task.refuse is not None:
        try:
            reason = task.refuse(one_input)
        except Exception as error:
            reason = f"refusing fails: {one_line(error)}"
        if reason is not None:
            return Reading(None, None, reason, True)
    return Reading(one_input, as_json(task, one_input), None)


def as_json(task: Task, one_input: Any) -> Any:
    """Returns a copy of an input in JSON form, with lists for tuples.

    Raises:
      TypeError: If `to_json` of the task returns no JSON-serialisable value, or
        it has none and the input is of another type than JSON has.
    """
    content = (task.to_json or _to_json)(one_input)
    try:
        return json.loads(json.dumps(content))
    except (TypeError, ValueError) as error:
        if task.to_json in (None, _to_json):
            raise TypeError(
                f"`to_json` and `from_json` of task {task.name} must be given "
                f"for inputs of type {type(one_input).__name__}: {error}"
            ) from error
        raise TypeError(
            f"`to_json` of task {task.name} must return what JSON can hold, "
            f"got {type(content).__name__}: {error}"
        ) from error


def _to_json(value: Any) -> Any:
    """Returns arrays, scalars of NumPy and tuples as JSON has them."""
    if not isinstance(value, np.ndarray | np.generic) and callable(
        getattr(value, "numpy", None)
    ):
        value = value.numpy()
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise TypeError(
                "`to_json` and `from_json` must be given for dicts whose keys "
                f"are not texts, got the key {wrong[0]!r}"
            )
        return {key: _to_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(one) for one in value]
    return value


def as_picture(task: Task, one_input: Any) -> np.ndarray:
    """Returns an input as a picture, 0 black and 1 white.

    Returns:
      `[height, width]`, or `[height, width, 3]` of a drawing.

    Raises:
      ValueError: If `to_picture` of the task, which must have one, returns
        something else.
    """
    assert task.to_picture is not None
    picture = np.asarray(task.to_picture(one_input))
    has_shape = picture.ndim == 2 or picture.shape[2:] == (3,)
    if picture.dtype.kind not in "biuf" or not has_shape:
        raise ValueError(
            f"`to_picture` of task {task.name} must return an array [height, "
            "width, 3] or [height, width] of numbers, got "
            f"{picture.dtype} {picture.shape!r}"
        )
    if picture.size and not 0.0 <= picture.min() <= picture.max() <= 1.0:
        raise ValueError(
            f"`to_picture` of task {task.name} must return values from 0 to "
            f"1, got some from {picture.min()} to {picture.max()}"
        )
    return picture


def from_json(task: Task, content: Any) -> Any:
    """Returns a new input from JSON, which objectives may modify.

    Args:
      task: A task that `resolved` has returned, or one with `from_json`.
      content: The input in JSON form.
    """
    assert task.from_json is not None
    return task.from_json(json.loads(json.dumps(content)))


def own_form(task: Task, content: Any) -> Any:
    """Returns an input in JSON form as the task itself writes it.

    It may be 1 for 1.0, or a molecule in another spelling.

    Args:
      task: As `from_json` has it.
      content: The input in JSON form.
    """
    return as_json(task, from_json(task, content))


# The functions of a task, tried before anything is paid for.


def resolved(task: Task, data: ScoredData) -> Task:
    """Tries a task's functions on the first datum; returns it with all of them.

    Args:
      task: The task. Where it has no `to_json`, what the first input is decides
        what `from_json` returns: arrays of its dtype, or what JSON has.
      data: Its data.

    Returns:
      The task with `to_json` and `from_json`.

    Raises:
      TypeError: If a function returns something of a wrong type.
      ValueError: If a function raises, or returns something wrong. The message
        names the function and the datum.
    """
    if not isinstance(data, ScoredData):
        raise TypeError(
            f"`data` of task {task.name} must return ScoredData, got "
            f"{type(data).__name__}"
        )
    if task.refuse is not None and data.inputs is None:
        raise ValueError(
            f"`inputs` must be given with the data of task {task.name}, so "
            "that its `refuse` can be asked about them, got None"
        )
    one_input, decoded = _first_inputs(task, data)
    example = one_input
    if _kind(one_input) in "iu" and _kind(decoded) == "f":
        example = decoded  # Numbers of queries are not to be rounded down.
    task = dataclasses.replace(
        task,
        to_json=task.to_json or _to_json,
        from_json=task.from_json or _back(example),
    )
    if one_input is None:
        return task
    content = as_json(task, one_input)
    again = _tried(task, "from_json", lambda: from_json(task, content))
    if as_json(task, again) != content:
        raise ValueError(
            f"`from_json` of task {task.name} must return the input that "
            f"`to_json` was given, got {_short(as_json(task, again))} for "
            f"{_short(content)}"
        )
    as_points(task, [one_input], data.points.shape[1])
    if task.to_picture is not None:
        _try_picture(task, one_input)
    if data.is_refused.all():
        reasons = collections.Counter(map(str, data.refusals))
        raise ValueError(
            f"`refuse` of task {task.name} must allow at least one of its "
            f"data, from which the search begins, got {len(data.points):,} "
            f"that are all refused ({refusals(reasons)})"
        )
    return task


def refusals(reasons: Mapping[str, int], most: int = 5) -> str:
    """Returns counts of reasons in one line, the most frequent ones first."""
    ranked = sorted(reasons.items(), key=lambda item: -item[1])
    shown = [
        f"{count:,} x {' '.join(why.split())}" for why, count in ranked[:most]
    ]
    if len(ranked) > most:
        shown.append(f"{len(ranked) - most} more reasons")
    return "; ".join(shown)


def _kind(one_input: Input | None) -> str:
    """Returns the kind of the dtype of an array, "-" for other inputs."""
    return one_input.dtype.kind if isinstance(one_input, np.ndarray) else "-"


def _first_inputs(
    task: Task, data: ScoredData
) -> tuple[Input | None, Input | None]:
    """Returns the first datum's input, and what its point is decoded to.

    They are None where there is none.
    """
    means = np.nan_to_num(data.points[:1].astype(np.float32))
    found = _tried(task, "read", lambda: task.read(means, 0))
    if not isinstance(found, Iterable) or isinstance(found, str | Mapping):
        raise TypeError(
            f"`read` of task {task.name} must return an input or None for "
            f"each row, got {type(found).__name__}"
        )
    inputs = list(found)
    if len(inputs) != 1:
        raise ValueError(
            f"`read` of task {task.name} must return an input or None for "
            f"each of 1 rows, got {len(inputs)}"
        )
    first = inputs[0] if data.inputs is None else data.inputs[0]
    return first, inputs[0]


def _tried(task: Task, name: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        raise ValueError(
            f"`{name}` of task {task.name} fails for the first of its data: "
            f"{one_line(error)}"
        ) from error


def _try_picture(task: Task, one_input: Input) -> None:
    """Warns if there is no picture; raises an error if it is a wrong one."""
    assert task.to_picture is not None
    try:
        task.to_picture(one_input)
    except Exception as error:
        message = "`to_picture` of task %s fails for the first of its data: %s"
        _logger.warning(message, task.name, one_line(error))
    else:
        _tried(task, "to_picture", lambda: as_picture(task, one_input))


def _back(one_input: Input | None) -> Callable[[Any], Input]:
    """Returns `from_json` for inputs like this one."""
    if callable(getattr(one_input, "numpy", None)):
        one_input = one_input.numpy()  # type: ignore[union-attr]
    if one_input is None:
        return lambda content: np.asarray(content, np.float32)
    if isinstance(one_input, np.ndarray):
        dtype = one_input.dtype
        return lambda content: np.asarray(content, dtype)
    if isinstance(one_input, tuple):  # JSON has lists for them.
        return getattr(one_input, "_make", tuple)
    return lambda content: content


def as_points(
    task: Task, inputs: Iterable[Input], num_observed: int
) -> np.ndarray:
    """Returns inputs as data points by the `write` of a task.

    Returns:
      float32 `[n, num_observed]`.

    Raises:
      ValueError: If `write` raises, or returns another shape, or numbers that
        are infinite.
    """
    inputs = list(inputs)
    try:
        points = np.asarray(task.write(inputs), np.float32)
    except Exception as error:
        raise ValueError(
            f"`write` of task {task.name} fails: {one_line(error)}"
        ) from error
    if points.shape != (len(inputs), num_observed):
        raise ValueError(
            f"`write` of task {task.name} must return shape "
            f"{(len(inputs), num_observed)}, got {points.shape}"
        )
    if np.isinf(points).any():
        raise ValueError(
            f"`write` of task {task.name} must return numbers that are finite "
            "in float32, or NaN where they are missing, got an infinite one"
        )
    return points


def checked_additions(
    task: Task, additions: Sequence[Addition], num_observed: int
) -> list[Addition]:
    """Returns additions that can become data points.

    Args:
      task: The task, as `resolved` returns it.
      additions: The measurements.
      num_observed: D.

    Returns:
      Them, with inputs in their own form, so that an input is the same
      wherever it comes from.

    Raises:
      ValueError: If one of them cannot.
    """
    checked = []
    for one in additions:
        if one.point is not None:
            if len(one.point) != num_observed:
                raise ValueError(
                    f"`point` must have {num_observed} numbers, got "
                    f"{len(one.point)} in {one.source}"
                )
            with np.errstate(over="ignore"):
                point = np.array(one.point, np.float32)
            if np.isinf(point).any():
                raise ValueError(
                    "`point` must be finite in float32, or NaN where it is "
                    f"missing, got {one.point} in {one.source}"
                )
            checked.append(one)
            continue
        try:
            content = own_form(task, one.input)
            as_points(task, [from_json(task, content)], num_observed)
        except Exception as error:
            raise ValueError(
                f"`input` must be one that the task can encode, got "
                f"{one.source}: {one_line(error)}"
            ) from error
        if task.refuse is not None:
            try:
                task.refuse(from_json(task, content))
            except Exception as error:
                raise ValueError(
                    f"`refuse` of task {task.name} fails for {one.source}: "
                    f"{one_line(error)}"
                ) from error
        checked.append(one._replace(input=content))
    return checked


def _short(content: Any) -> str:
    text = json.dumps(content)
    return text if len(text) <= 100 else text[:100] + "..."
