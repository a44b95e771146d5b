# SPDX-License-Identifier: Apache-2.0
"""Optimisation tasks: scored initial data and an objective."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfvae.lso.evaluation_worker import Score, one_line

_NEEDED = ("data", "objective", "read", "write")
_OPTIONAL = (
    "to_json",
    "from_json",
    "to_picture",
    "refuse",
    "summarize",
    "features",
)

Input = Any
"""Input of an objective, such as an image or a text; never None."""


class LeftOut(NamedTuple):
    """A line of a file that became no data, and why."""

    line: int
    """Its number, from 1."""
    text: str
    """What was to be an input."""
    reason: str
    """In a few words, which other lines may share."""


@dataclasses.dataclass(frozen=True)
class ScoredData:
    """Validated data points and their scores.

    Attributes:
      points: `[N, D]` float32, as the model takes them; NaN where an entry is
        missing. uint8 stays uint8, a quarter of the memory, such as of
        one-hot points.
      scores: `[N]` float64, in the task's own direction.
      inputs: The N objective inputs that the points encode, or None.
      constraints: Values of constraints, `[N]` float64 each, by name, NaN where
        unknown. A constraint holds where its value is at most 0.
      refusals: Why each of the inputs could be no query, None where it could;
        empty for none that could not. A task with a `refuse` sets them.
      left_out: What was read beside the data and could not be used, for
        left_out.csv of a run.
    """

    points: np.ndarray
    scores: np.ndarray
    inputs: Sequence[Input] | None = None
    constraints: Mapping[str, np.ndarray] = dataclasses.field(
        default_factory=dict
    )
    refusals: Sequence[str | None] = ()
    left_out: Sequence[LeftOut] = ()

    def __post_init__(self) -> None:
        """Checks the shapes and values."""
        is_byte = getattr(self.points, "dtype", None) == np.uint8
        dtype = np.uint8 if is_byte else np.float32
        points = _real("points", self.points, dtype)
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
        if len(self.refusals) not in (0, len(points)):
            raise ValueError(
                f"`refusals` must be empty or have the length {len(points)} "
                f"of `points`, got {len(self.refusals)}"
            )
        constraints = {
            name: _real(f"constraints[{name!r}]", values, np.float64)
            for name, values in self.constraints.items()
        }
        for name, values in constraints.items():
            if values.shape != scores.shape or np.isinf(values).any():
                raise ValueError(
                    f"`constraints[{name!r}]` must have shape {scores.shape!r} "
                    "and finite values, or NaN where they are unknown, got "
                    f"shape {values.shape!r}"
                )
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "constraints", constraints)

    @property
    def is_refused(self) -> np.ndarray:
        """Which of the points could be no query, `[N]` bool."""
        if not self.refusals:
            return np.zeros(len(self.points), bool)
        return np.array([one is not None for one in self.refusals])


def _real(name: str, values: Any, dtype: type[np.number]) -> np.ndarray:
    """Returns values as a contiguous array of numbers."""
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


class _Once:
    """Data of a task that are made once for each seed, and never pickled."""

    def __init__(
        self,
        data: Callable[[int], ScoredData],
        refuse: Callable[[Input], str | None] | None,
    ) -> None:
        self.made_by = data
        self.refuse = refuse
        self._made: dict[int, ScoredData] = {}

    def __call__(self, seed: int) -> ScoredData:
        if seed not in self._made:
            self._made[seed] = self._with_refusals(self.made_by(seed))
        return self._made[seed]

    def _with_refusals(self, data: ScoredData) -> ScoredData:
        if self.refuse is None or getattr(data, "inputs", None) is None:
            return data
        found: list[str | None] = []
        for one in data.inputs or ():
            try:
                found.append(self.refuse(one))
            except Exception as error:
                raise ValueError(
                    f"`refuse` fails for datum {len(found)}: {one_line(error)}"
                ) from error
        return dataclasses.replace(data, refusals=found)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Once, (self.made_by, self.refuse))


@dataclasses.dataclass
class Decodes:
    """What latents have been decoded to in this process, by candidates.

    Attributes:
      num: Number of decodes.
      num_invalid: Those without an input.
      refused: Those whose input the task refuses, by the reason.
    """

    num: int = 0
    num_invalid: int = 0
    refused: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )

    @property
    def validity(self) -> float:
        """The share of decodes that are inputs, refused ones included."""
        return 1.0 - self.num_invalid / max(self.num, 1)

    def copy(self) -> Decodes:
        """Returns the counts of now."""
        return Decodes(self.num, self.num_invalid, self.refused.copy())

    def plus(self, other: Decodes) -> Decodes:
        """Returns the sums."""
        return Decodes(
            self.num + other.num,
            self.num_invalid + other.num_invalid,
            self.refused + other.refused,
        )

    def since(self, before: Decodes) -> Decodes:
        """Returns what has been counted since a copy was made."""
        return Decodes(
            self.num - before.num,
            self.num_invalid - before.num_invalid,
            self.refused - before.refused,
        )


@dataclasses.dataclass(frozen=True)
class Task:
    """An expensive objective to optimise, and the initial data.

    A task whose inputs are vectors needs only the first three arguments:

        task = Task("peaks", data=load, objective=score)

    Attributes:
      name: Short name, for titles and files.
      data: Called with the seed of a run, once in a process; returns the
        initial data, whose scores are known. `tfvae.lso.read_table` makes one
        of a CSV or Parquet file.
      objective: From one input to its score, a finite number, or to a `Score`
        with constraints. It may be slow, and it may raise: exceptions are
        recorded as failures. To run in other processes it must be picklable.
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
      to_json: From an input to what JSON can hold. None for inputs that are
        arrays or consist of texts, numbers, lists and dicts.
      from_json: Back. None to make arrays like those that `read` returns, or
        to take what JSON has.
      score_label: What a score is, with its unit, for the axes of figures.
      to_picture: From an input to a picture, 0 black and 1 white, all of one
        shape: `[height, width]` of an input that is a picture, or `[height,
        width, 3]`, a drawing in colour, which is shown beside the text of the
        input; None for no pictures.
      is_noisy: Whether evaluations of one input have different scores. The best
        input is then the one with the best mean of the surrogate, not the one
        with the luckiest score.
      refuse: From an input to why it may be no query, in a few words that other
        inputs share, or None where it may: for rules that are known and cheap,
        where `Score` has constraints that only an evaluation reveals. Refused
        inputs cost nothing. Data that are refused stay data: the model and the
        surrogate know them, but none of them is the best.
      summarize: From distinct inputs, at least one, to figures of the set by
        name, such as its diversity, for the results; None for none.
      features: From n inputs to their features `[n, F]`, numbers that a score
        depends on more plainly than on latents, for an `InputSurrogate`; None
        for none.
      decodes: Counts of what has been decoded, shared by copies of the task.
    """

    name: str
    data: Callable[[int], ScoredData]
    objective: Callable[[Input], float | Score]
    read: Callable[[np.ndarray, int], Sequence[Input | None]] = _rows
    write: Callable[[Sequence[Input]], np.ndarray] = np.stack
    maximise: bool = True
    invalid_score: float | None = None
    optimum: float | None = None
    keep_duplicates: bool = True
    to_json: Callable[[Input], Any] | None = None
    from_json: Callable[[Any], Input] | None = None
    score_label: str = "score"
    to_picture: Callable[[Input], np.ndarray] | None = None
    is_noisy: bool = False
    refuse: Callable[[Input], str | None] | None = None
    summarize: Callable[[Sequence[Input]], Mapping[str, float]] | None = None
    features: Callable[[Sequence[Input]], np.ndarray] | None = None
    decodes: Decodes = dataclasses.field(
        default_factory=Decodes, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Validates what can be checked before anything is run."""
        for field in (*_NEEDED, *_OPTIONAL):
            value = getattr(self, field)
            if value is None and field in _OPTIONAL:
                continue
            if not callable(value):
                raise TypeError(f"`{field}` must be a function, got {value!r}")
        if self.invalid_score is not None and not math.isfinite(
            self.invalid_score
        ):
            raise ValueError(
                f"`invalid_score` must be finite, got {self.invalid_score!r}"
            )
        # Training and optimisation use the same data, which may be expensive.
        made_by = getattr(self.data, "made_by", self.data)
        refuse = getattr(self.data, "refuse", None)
        if not isinstance(self.data, _Once) or refuse is not self.refuse:
            object.__setattr__(self, "data", _Once(made_by, self.refuse))

    @property
    def sign(self) -> float:
        """Factor of the scores that makes larger ones better, 1 or -1."""
        return 1.0 if self.maximise else -1.0
