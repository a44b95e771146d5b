# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a single input, and the worker process of `ProcessPool`.

`ProcessPool` runs this file by its path. It only imports the standard library,
so that a worker loads TensorFlow only if unpickling the objective imports it.
"""

from __future__ import annotations

import base64
import decimal
import importlib.abc
import importlib.machinery
import importlib.util
import math
import numbers
import pathlib
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

_MAX_CHARACTERS = 500
_MAX_SIZE = 1e100


class Result(NamedTuple):
    """The result of an evaluation."""

    score: float | None
    """The score, in the direction of the task; None for a failure."""
    failure: str | None
    """Reason for a missing score, in one line; None if there is a score."""
    seconds: float
    """Duration of the evaluation."""


def evaluate_one(objective: Callable[[Any], Any], one_input: Any) -> Result:
    """Calls `objective`; any error in it is returned as a failure.

    KeyboardInterrupt is not caught.
    """
    start = time.perf_counter()
    try:
        score = checked_score(objective(one_input), "the objective must return")
    except (Exception, SystemExit) as error:
        return Result(None, one_line(error), time.perf_counter() - start)
    return Result(score, None, time.perf_counter() - start)


def one_line(error: BaseException) -> str:
    """Returns the type of an error and the first line of its message."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:
        lines = ["no message"]
    text = ": ".join([type(error).__name__, *lines[:1]])
    return text[:_MAX_CHARACTERS]


def checked_score(result: Any, who: str) -> float:
    """Returns a score as a float.

    Args:
      result: A number, or an array or tensor of one element.
      who: Start of error messages, such as "the objective must return".

    Raises:
      TypeError: If `result` is not a number.
      ValueError: If it is not finite, or of more than 1e100 in size.
    """
    value = result
    if callable(getattr(value, "filled", None)):
        value = value.filled(math.nan)  # Else `item` ignores the mask.
    if not hasattr(value, "item") and callable(getattr(value, "numpy", None)):
        value = value.numpy()
    if callable(getattr(value, "item", None)) and _size(value) == 1:
        value = value.item()
    is_number = isinstance(value, (numbers.Real, decimal.Decimal))
    if isinstance(value, bool) or not is_number:
        raise TypeError(f"{who} a number, got {_shown(result)}")
    try:
        score = float(value)
    except OverflowError:
        score = math.inf
    if not math.isfinite(score):
        raise ValueError(f"{who} a finite number, got {score}")
    if abs(score) > _MAX_SIZE:
        raise ValueError(
            f"{who} a number of at most {_MAX_SIZE:g} in size, got {score}"
        )
    return score


def _size(value: Any) -> int:
    return math.prod(getattr(value, "shape", ()))


def _shown(value: Any) -> str:
    shape = getattr(value, "shape", ())
    if shape:
        return f"a {type(value).__name__} of shape {tuple(shape)}"
    return " ".join(repr(value).split())[:100]


class _Files(importlib.abc.MetaPathFinder):
    """Finds modules that the parent loaded from files by their paths.

    Attributes:
      paths: Files by module name.
    """

    def __init__(self) -> None:
        self.paths: Mapping[str, str] = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.paths:
            return None
        return importlib.util.spec_from_file_location(
            fullname, self.paths[fullname]
        )


def _unpickled(text: str) -> Any:
    return pickle.loads(base64.b64decode(text))


def _evaluate(objective: Callable[[Any], Any], pickled: str) -> Result:
    try:
        one_input = _unpickled(pickled)
    except Exception as error:
        return Result(None, one_line(error), 0.0)
    return evaluate_one(objective, one_input)


def _answers(
    requests: Iterator[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Yields the answer to each request.

    A request with an "objective", such as the first one, loads it; the answer
    has the "error" message if that failed, or None. A request with an "input"
    evaluates it; the answer has the fields of its `Result`. Both have
    "modules", the files of modules that an import would not find, by name.
    """
    objective: Any = None
    files = _Files()
    # At the front, as a module may have the name of an installed one.
    sys.meta_path.insert(0, files)
    for request in requests:
        files.paths = request["modules"]
        if "objective" in request:
            error = None
            try:
                sys.path[:] = request["path"]
                objective = _unpickled(request["objective"])
            except (Exception, SystemExit) as raised:
                error = one_line(raised)
            yield {"error": error}
        else:
            yield _evaluate(objective, request["input"])._asdict()


def _main() -> None:
    # Loaded by its path, as importing it would import the whole package.
    path = pathlib.Path(__file__).parents[1] / "processes.py"
    specification = importlib.util.spec_from_file_location("processes", path)
    assert specification is not None and specification.loader is not None
    processes = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(processes)
    requests = processes.Requests()
    for answer in _answers(iter(requests)):
        requests.answer(answer)


if __name__ == "__main__":
    _main()
