# SPDX-License-Identifier: Apache-2.0
"""Conversion of decoder means to inputs, and of inputs to JSON and pictures.

An exception in a task's functions either becomes the failure of one input or an
error that names the function; functions get inputs of their own to modify.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from tfvae.lso.evaluation_worker import one_line
from tfvae.lso.tasks.base import Task

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


def read(task: Task, means: np.ndarray, seed: int) -> list[Reading]:
    """Decodes decoder means to inputs by the `read` of a task.

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
    return Reading(one_input, as_json(task, one_input), None)


def as_json(task: Task, one_input: Any) -> Any:
    """Returns a copy of an input in JSON form, with lists for tuples.

    Raises:
      TypeError: If `to_json` of the task returns no JSON-serialisable value.
    """
    content = task.to_json(one_input)
    try:
        return json.loads(json.dumps(content))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`to_json` of task {task.name} must return what JSON can hold, "
            f"got {type(content).__name__}: {error}"
        ) from error


def as_picture(task: Task, one_input: Any) -> np.ndarray:
    """Returns an input as a picture `[height, width]`, 0 black and 1 white.

    Raises:
      ValueError: If `to_picture` of the task, which must have one, returns
        something else.
    """
    assert task.to_picture is not None
    picture = np.asarray(task.to_picture(one_input))
    if picture.dtype.kind not in "biuf" or picture.ndim != 2:
        raise ValueError(
            f"`to_picture` of task {task.name} must return an array [height, "
            f"width] of numbers, got {picture.dtype} {picture.shape!r}"
        )
    if picture.size and not 0.0 <= picture.min() <= picture.max() <= 1.0:
        raise ValueError(
            f"`to_picture` of task {task.name} must return values from 0 to "
            f"1, got some from {picture.min()} to {picture.max()}"
        )
    return picture


def from_json(task: Task, content: Any) -> Any:
    """Returns a new input from JSON, which objectives may modify."""
    return task.from_json(json.loads(json.dumps(content)))
