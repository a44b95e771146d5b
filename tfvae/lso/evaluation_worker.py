# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a single input, and the worker process of `ProcessPool`.

`ProcessPool` runs this file by its path. It only imports the standard library,
so that a worker loads TensorFlow only if unpickling the objective imports it.
"""

from __future__ import annotations

import base64
import contextlib
import decimal
import importlib.abc
import importlib.machinery
import importlib.util
import math
import numbers
import os
import pathlib
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

_MAX_CHARACTERS = 500
_MAX_DETAILS = 20_000
_MAX_SIZE = 1e100


class Score(NamedTuple):
    """What an objective with constraints returns.

    Example:
      `Score(yield_percent, constraints={"pressure": pressure_bar - 5.0})`
    """

    value: Any
    """The number to optimise; None where a violated constraint is the reason
    that there is none."""
    constraints: Mapping[str, Any] | None = None
    """Numbers by the names of the constraints, each satisfied if at most 0."""


class Result(NamedTuple):
    """The result of an evaluation."""

    score: float | None
    """The score, in the direction of the task; None for a failure."""
    failure: str | None
    """Reason for a missing score, in one line; None if there is a score."""
    seconds: float
    """Duration of the evaluation."""
    constraints: dict[str, float] | None = None
    """Of the `Score`, each satisfied if at most 0; None if there are none."""
    details: str | None = None
    """Traceback of the error that an objective raised, if it did."""


def evaluate_one(objective: Callable[[Any], Any], one_input: Any) -> Result:
    """Calls `objective`; any error in it is returned as a failure.

    KeyboardInterrupt is not caught. Afterwards the current folder, standard
    input and output are those of before, and no new alarm is set.
    """
    start = time.perf_counter()
    try:
        with _surroundings_kept():
            returned = objective(one_input)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        result = _failed(error)
    else:
        try:
            result = _checked(returned)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            result = Result(None, one_line(error), 0.0)
    return result._replace(seconds=time.perf_counter() - start)


def _failed(error: BaseException) -> Result:
    """Returns the failure of what has raised an error, after 0 seconds."""
    trace = error.__traceback__
    try:
        # Without the frame of the caller, which is no news.
        lines = traceback.format_exception(
            type(error), error, trace and trace.tb_next
        )
        details = _shortened("".join(lines))
    except BaseException as another:
        details = f"no traceback: {one_line(another)}"
    return Result(None, one_line(error), 0.0, None, details)


def _shortened(text: str) -> str:
    """Returns the start and the end of a text, where it is long."""
    if len(text) > _MAX_DETAILS:
        half = _MAX_DETAILS // 2
        left_out = f"\n... {len(text) - 2 * half} characters left out ...\n"
        text = text[:half] + left_out + text[-half:]
    return _printable(text, "\n\t")


@contextlib.contextmanager
def _surroundings_kept() -> Iterator[None]:
    """Restores the current folder and standard streams; ends new alarms."""
    with contextlib.ExitStack() as stack:
        if not signal.getitimer(signal.ITIMER_REAL)[0]:
            stack.callback(signal.setitimer, signal.ITIMER_REAL, 0.0)
        stack.callback(_open_streams)
        for number in (0, 1, 2):
            with contextlib.suppress(OSError):  # It may be closed.
                copy = os.dup(number)
                stack.callback(os.close, copy)
                stack.callback(os.dup2, copy, number)
        with contextlib.suppress(OSError):  # It may be forbidden.
            folder = os.open(".", os.O_RDONLY)
            stack.callback(os.close, folder)
            stack.callback(os.fchdir, folder)
        yield


def _open_streams() -> None:
    """Opens the streams to print to again, if they have been closed."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(getattr(sys, name), "closed", False):
            with contextlib.suppress(OSError):
                stream = open(number, "w", buffering=1, closefd=False)
                setattr(sys, name, stream)


def _checked(returned: Any) -> Result:
    """Returns the result of what an objective has returned, after 0 seconds.

    Raises:
      TypeError: If it is neither a number nor a `Score` of numbers.
      ValueError: If a number is not finite, or of more than 1e100 in size, or
        the value is missing although no constraint is violated.
    """
    who = "the objective must return"
    if not isinstance(returned, Score):
        return Result(checked_score(returned, who), None, 0.0)
    constraints = _checked_constraints(returned.constraints)
    if returned.value is not None:
        value = checked_score(returned.value, f"{who} a `Score` whose value is")
        return Result(value, None, 0.0, constraints or None)
    violated = [name for name, value in constraints.items() if value > 0.0]
    if not violated:
        raise ValueError(
            f"{who} a `Score` with a value, or with a constraint above 0, got "
            f"{_shown(returned)}"
        )
    failure = f"no value, as it violates {', '.join(violated)}"
    return Result(None, failure[:_MAX_CHARACTERS], 0.0, constraints)


def _checked_constraints(constraints: Any) -> dict[str, float]:
    """Returns the constraints of a `Score` as floats."""
    who = "the objective must return a `Score` whose"
    if constraints is None:
        return {}
    if not isinstance(constraints, Mapping):
        raise TypeError(
            f"{who} constraints are a dictionary of numbers, got "
            f"{_shown(constraints)}"
        )
    for name in constraints:
        if not isinstance(name, str):
            raise TypeError(
                f"{who} constraints have texts as names, got {_shown(name)}"
            )
    return {
        str(name): checked_score(value, f"{who} constraint {name!r} is")
        for name, value in constraints.items()
    }


def one_line(error: BaseException) -> str:
    """Returns the type of an error and the first line of its message."""
    try:
        lines = str(error).strip().splitlines()
    except KeyboardInterrupt:
        raise
    except BaseException:
        lines = ["no message"]
    text = ": ".join([type(error).__name__, *lines[:1]])[:_MAX_CHARACTERS]
    return _printable(text)


def _printable(text: str, also: str = "") -> str:
    """Escapes what is not to be printed, such as control sequences."""
    return "".join(
        one if one.isprintable() or one in also else ascii(one)[1:-1]
        for one in text
    )


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
      sources: Contents in base 64 of those that are not to be read.
    """

    def __init__(self) -> None:
        self.paths: Mapping[str, str] = {}
        self.sources: Mapping[str, str] = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.paths:
            return None
        file, loader = self.paths[fullname], None
        if fullname in self.sources:
            content = base64.b64decode(self.sources[fullname])
            loader = _SentFile(fullname, file, content)
        return importlib.util.spec_from_file_location(
            fullname, file, loader=loader
        )


class _SentFile(importlib.machinery.SourceFileLoader):
    """Loads a module from the content of a file that may be elsewhere."""

    def __init__(self, fullname: str, path: str, content: bytes) -> None:
        super().__init__(fullname, path)
        self._content = content

    def get_data(self, path: str) -> bytes:
        return self._content

    def path_stats(self, path: str) -> Mapping[str, Any]:
        raise OSError("no file, so that its bytecode is not cached")


def _unpickled(text: str) -> Any:
    return pickle.loads(base64.b64decode(text))


def _evaluate(objective: Callable[[Any], Any], pickled: str) -> Result:
    try:
        one_input = _unpickled(pickled)
    except BaseException as error:
        return _failed(error)
    try:
        return evaluate_one(objective, one_input)
    except KeyboardInterrupt as error:  # Not from a keyboard: none is here.
        return _failed(error)


def _answer_all(requests: Any) -> None:
    """Answers requests until there are no more.

    A request has a pickled "input", the "modules" that an import would not
    find, as files by name, the "sources" of some of them, and, if another one
    than before is needed, the pickled "objective" and the "path" of imports.
    The parent is told when that is "loaded"; the answer has the fields of a
    "result", or an "error" message if it can not be loaded.

    Args:
      requests: The `processes.Requests` of this process.
    """
    objective: Any = None
    files = _Files()
    # At the front, as a module may have the name of an installed one.
    sys.meta_path.insert(0, files)
    for request in requests:
        files.paths, files.sources = request["modules"], request["sources"]
        if "objective" in request:
            try:
                sys.path[:] = request["path"]
                objective = _unpickled(request["objective"])
            except BaseException as error:
                requests.answer({"error": one_line(error)}, request)
                continue
            requests.send({"loaded": True}, request)
        with requests.leftovers_ended():
            result = _evaluate(objective, request["input"])
        requests.answer({"result": result._asdict()}, request)


def _loaded(name: str, path: pathlib.Path) -> Any:
    """Returns a module loaded by its path, without the packages around it."""
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def main() -> None:
    """Answers the requests of the parent until there are no more."""
    path = pathlib.Path(__file__).parents[1] / "processes.py"
    _answer_all(_loaded("processes", path).Requests())


if __name__ == "__main__":
    # By the name that objectives import `Score` from.
    _NAME = "tfvae.lso.evaluation_worker"
    sys.modules[_NAME] = _loaded(_NAME, pathlib.Path(__file__))
    sys.modules[_NAME].main()
