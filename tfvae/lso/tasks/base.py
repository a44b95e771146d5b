# SPDX-License-Identifier: Apache-2.0
"""Optimisation tasks: scored initial data and an objective."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Input = Any
"""Input of an objective, such as an image or a text; never None."""


@dataclasses.dataclass(frozen=True)
class ScoredData:
    """Validated data points and their scores.

    Attributes:
      points: `[N, D]` float32, as the model takes them; NaN where an entry is
        missing.
      scores: `[N]` float64, in the task's own direction.
      inputs: The N objective inputs that the points encode, or None.
    """

    points: np.ndarray
    scores: np.ndarray
    inputs: Sequence[Input] | None = None

    def __post_init__(self) -> None:
        """Checks the shapes and values."""
        points = _real("points", self.points, np.float32)
        scores = _real("scores", self.scores, np.float64)
        if points.ndim != 2 or 0 in points.shape:
            raise ValueError(
                "`points` must have shape [points, dimensions], neither of "
                f"them zero, got shape {points.shape!r}"
            )
        if scores.shape != (len(points),):
            raise ValueError(
                f"`scores` must have shape ({len(points)},), one for each of "
                f"`points`, got shape {scores.shape!r}"
            )
        wrong = np.flatnonzero(~np.isfinite(scores))
        if wrong.size:
            raise ValueError(
                f"`scores` must be finite, got {scores[wrong[0]]} at "
                f"{wrong[0]} and {wrong.size} such values in all"
            )
        infinite = np.argwhere(np.isinf(points))
        if infinite.size:
            place = tuple(infinite[0].tolist())
            raise ValueError(
                "`points` must be finite in float32, or NaN where they are "
                f"missing, got {points[place]} at {place} and "
                f"{len(infinite)} such values in all"
            )
        if self.inputs is not None and len(self.inputs) != len(points):
            raise ValueError(
                f"`inputs` must have the length {len(points)} of `points`, "
                f"got {len(self.inputs)}"
            )
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "scores", scores)


def _real(name: str, values: Any, dtype: type[np.floating]) -> np.ndarray:
    """Returns values as a contiguous array of floating-point numbers."""
    array = np.asarray(values)
    if array.dtype.kind in "cSU":
        raise TypeError(
            f"`{name}` must be real numbers, got values of {array.dtype}"
        )
    with np.errstate(over="ignore"):  # What becomes infinite is refused.
        return np.ascontiguousarray(array, dtype)


def _rows(outputs: np.ndarray, seed: int) -> list[np.ndarray]:
    """Returns the decoder means themselves as inputs."""
    del seed
    return list(outputs)


def _to_lists(one: Input) -> Any:
    return np.asarray(one).tolist()


def _from_lists(one: Any) -> Input:
    return np.asarray(one, np.float32)


@dataclasses.dataclass(frozen=True)
class Task:
    """An expensive objective to optimise, and the initial data.

    A task whose inputs are vectors needs only the first three arguments:

        task = Task("peaks", data=load, objective=score)

    Attributes:
      name: Short name, for titles and files.
      data: Called with the seed of a run; returns the initial data. Their
        scores are assumed known, and should not be expensive to compute.
      objective: From one input to its score, a finite number. It may be slow,
        and it may raise: exceptions are recorded as failures. To run in other
        processes it must be picklable.
      read: Decodes: from decoder means `[n, D]` and a seed to n inputs; None
        for means that decode to no valid input.
      write: Encodes: from n inputs to the points `[n, D]` that a model trains
        on.
      maximise: Whether larger scores are better.
      invalid_score: Score assigned to inputs without one, and the worst score
        that a surrogate is given for any; None for the worst score of the
        data.
      optimum: The best possible score, or None if unknown.
      keep_duplicates: Whether inputs that are among the data already are
        added to them once more.
      to_json: From an input to what JSON can hold.
      from_json: Back.
      score_label: What a score is, with its unit, for the axes of figures.
      to_picture: From an input to a picture `[height, width]`, 0 black and 1
        white, all of one shape; None where inputs are no pictures.
    """

    name: str
    data: Callable[[int], ScoredData]
    objective: Callable[[Input], float]
    read: Callable[[np.ndarray, int], Sequence[Input | None]] = _rows
    write: Callable[[Sequence[Input]], np.ndarray] = np.stack
    maximise: bool = True
    invalid_score: float | None = None
    optimum: float | None = None
    keep_duplicates: bool = True
    to_json: Callable[[Input], Any] = _to_lists
    from_json: Callable[[Any], Input] = _from_lists
    score_label: str = "score"
    to_picture: Callable[[Input], np.ndarray] | None = None

    def __post_init__(self) -> None:
        """Validates what can be checked before anything is run."""
        for field in (
            "data",
            "objective",
            "read",
            "write",
            "to_json",
            "from_json",
            "to_picture",
        ):
            value = getattr(self, field)
            if field == "to_picture" and value is None:
                continue
            if not callable(value):
                raise TypeError(f"`{field}` must be a function, got {value!r}")
        if self.invalid_score is not None and not math.isfinite(
            self.invalid_score
        ):
            raise ValueError(
                f"`invalid_score` must be finite, got {self.invalid_score!r}"
            )

    @property
    def sign(self) -> float:
        """Factor of the scores that makes larger ones better, 1 or -1."""
        return 1.0 if self.maximise else -1.0
