# SPDX-License-Identifier: Apache-2.0
"""One evaluation of an objective, and the process that makes many.

`ProcessPool` runs this file by its path. It imports the standard library only:
a process has TensorFlow in it if the module of the objective imports it.
"""

from __future__ import annotations

import contextlib
import decimal
import fcntl
import importlib.util
import math
import numbers
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

_MAX_CHARACTERS = 500
_MAX_SIZE = 1e100


class Result(NamedTuple):
    """What became of an evaluation."""

    score: float | None
    """In the direction of the task; None for a failure."""
    failure: str | None
    """Why there is no score, in one line; None if there is one."""
    seconds: float


def evaluate_one(objective: Callable[[Any], Any], one_input: Any) -> Result:
    """Calls `objective`, and makes a failure of whatever goes wrong there.

    An interrupt from the keyboard is the user's, and passes through.
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
    """Returns a score as a number.

    Args:
      result: What should be one: a number, or an array or tensor of one.
      who: What an error begins with, such as "the objective must return".

    Raises:
      TypeError: If it is none.
      ValueError: If it is not finite, or so large that its square is not.
    """
    value = result
    if callable(getattr(value, "filled", None)):
        value = value.filled(math.nan)  # Masked arrays have a number below.
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


def _die_with(life: int) -> None:
    """Ends this process and all that it starts when `life`, a pipe, ends.

    An objective may hold the interpreter's lock, so that no thread of ours
    runs: where the kernel can send the signal itself, it shall.
    """
    group = os.getpgrp()
    if hasattr(fcntl, "F_SETSIG"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(life, fcntl.F_SETOWN, -group)
            fcntl.fcntl(life, fcntl.F_SETSIG, int(signal.SIGKILL))
            flags = fcntl.fcntl(life, fcntl.F_GETFL)
            fcntl.fcntl(life, fcntl.F_SETFL, flags | os.O_ASYNC)

    def wait() -> None:
        os.read(life, 1)
        os.killpg(group, signal.SIGKILL)

    # It also sees an end that came before, and is there on other systems.
    threading.Thread(target=wait, daemon=True).start()


def _load_module(name: str, path: str) -> None:
    """Imports a file as the module that the pickles call `name`."""
    if name in sys.modules:
        return
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _load(pickled: bytes, modules: dict[str, str]) -> Any:
    for name, path in modules.items():
        _load_module(name, path)
    return pickle.loads(pickled)


def _evaluate(objective: Callable[[Any], Any], pickled: Any) -> Result:
    try:
        one_input = _load(*pickled)
    except Exception as error:
        return Result(None, one_line(error), 0.0)
    return evaluate_one(objective, one_input)


def _main(pipe: int, life: int) -> None:
    for number in (pipe, life):
        os.set_inheritable(number, False)
    _die_with(life)
    connection = Connection(pipe)
    objective: Any = None
    while True:
        try:
            kind, payload = connection.recv()
        except EOFError:
            return
        if kind == "objective":
            error = None
            try:
                sys.path[:], *pickled = payload
                objective = _load(*pickled)
            except (Exception, SystemExit) as raised:
                error = one_line(raised)
            connection.send(error)
        else:
            connection.send(tuple(_evaluate(objective, payload)))


if __name__ == "__main__":
    _main(*map(int, sys.argv[1:]))
