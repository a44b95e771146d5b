# SPDX-License-Identifier: Apache-2.0
"""How objectives are evaluated: here, or in processes that may die of it.

An evaluator is called with an objective, its inputs and a function `done`,
which it calls with the place of each input and its `Result` as soon as that is
known.
"""

from __future__ import annotations

import collections
import contextlib
import io
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection as connections
from typing import Any, NamedTuple, Protocol

import gin

from tfvae.lso import evaluation_worker
from tfvae.lso.evaluation_worker import (
    Result,
    checked_score,
    evaluate_one,
    one_line,
)

__all__ = [
    "Evaluator",
    "InProcess",
    "ProcessPool",
    "Result",
    "checked_score",
    "evaluate_one",
    "one_line",
]

Objective = Callable[[Any], Any]
Done = Callable[[int, Result], None]

# A process that ended while one of its children keeps its pipe open is found
# by looking after it so often.
_LOOK_SECONDS = 1.0
_GRACE_SECONDS = 3.0


class Evaluator(Protocol):
    """Evaluates inputs; whatever an objective does is a `Result`."""

    def __call__(
        self, objective: Objective, inputs: Sequence[Any], done: Done
    ) -> None:
        """Calls `done(i, result)` for each of `inputs` as soon as it can."""


@gin.register
class InProcess:
    """Evaluates inputs one after the other, in this process."""

    def __call__(
        self, objective: Objective, inputs: Sequence[Any], done: Done
    ) -> None:
        for i, one_input in enumerate(inputs):
            done(i, evaluate_one(objective, one_input))


class _Pickled(NamedTuple):
    """An object for other processes."""

    data: bytes
    modules: dict[str, str]
    """Files of modules that an import would not find, by their names."""


class _Pickler(pickle.Pickler):
    """Notes the modules of the functions and classes that it meets."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.modules: dict[str, str] = {}

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, (type, types.FunctionType)):
            self._note(thing.__module__)
        return NotImplemented

    def _note(self, name: str | None) -> None:
        if name == "__main__":
            raise pickle.PicklingError("it is part of the script that is run")
        path = getattr(sys.modules.get(name or ""), "__file__", None)
        if name and path and not _is_found(name, path):
            self.modules[name] = os.path.abspath(path)


def _is_found(name: str, path: str) -> bool:
    """Returns whether an import of `name` elsewhere will load `path`."""
    parts = name.split(".")
    locations = None
    for end in range(1, len(parts) + 1):
        specification = _specification(".".join(parts[:end]), locations)
        if specification is None:
            return False
        locations = specification.submodule_search_locations
    origin = specification and specification.origin
    return origin is not None and os.path.realpath(origin) == os.path.realpath(
        path
    )


def _specification(name: str, locations: Any) -> Any:
    """Asks what an import does, but for the modules that there are already."""
    for finder in sys.meta_path:
        # A package without a file may need its parent, which is not imported.
        with contextlib.suppress(KeyError):
            found = finder.find_spec(name, locations)
            if found is not None:
                return found
    return None


def _pickled(what: str, value: Any) -> _Pickled:
    file = io.BytesIO()
    pickler = _Pickler(file)
    try:
        pickler.dump(value)
    except Exception as error:
        raise TypeError(
            f"`{what}` must be something that pickle can hand to another "
            "process, such as a function of a module (no lambda, no function "
            f"inside another, nothing of the script that is run), got "
            f"{value!r}: {error}"
        ) from error
    return _Pickled(file.getvalue(), pickler.modules)


class _Worker:
    """A process that evaluates, and the input that it has."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        life, self._life = os.pipe()
        try:
            self._popen = subprocess.Popen(
                [
                    *(sys.executable, "-u", "-P", "-X", "faulthandler"),
                    evaluation_worker.__file__,
                    *(str(theirs.fileno()), str(life)),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), life),
                # What it starts ends with it, and an interrupt is not for it.
                start_new_session=True,
            )
        finally:
            theirs.close()
            os.close(life)
        self.connection = connections.Connection(ours.detach())
        self.index: int | None = None
        """Where the input that it has is among them."""
        self.started = math.inf
        self._input: _Pickled | None = None
        self._objective: _Pickled | None = None
        self._is_loading = False
        self._has_ended = False
        self.is_read = False
        """Whether an answer is being read; if interrupted, it stays so."""

    def give(
        self, index: int, one_input: _Pickled, objective: _Pickled
    ) -> None:
        """Hands an input over, after the objective if that is another."""
        self.index, self._input = index, one_input
        self._is_loading = objective != self._objective
        if self._is_loading:
            self.started = math.inf
            self._objective = objective
            path = [os.path.abspath(folder) for folder in sys.path]
            self._send("objective", (path, *objective))
        else:
            self._begin()

    def follow(self) -> Result | None:
        """Takes what the process says; None if the input is not done yet."""
        seconds = time.perf_counter() - self.started
        self.is_read = True
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            return self.lost(seconds)
        self.is_read = False
        if not self._is_loading:
            self.index = None
            return Result(*answer)
        if answer is not None:
            raise _not_loaded(answer)
        self._is_loading = False
        self._begin()
        return None

    def lost(self, seconds: float, failure: str | None = None) -> Result:
        """Ends it, and returns the failure of the input that it has."""
        how = self.end()
        if self._is_loading:
            raise _not_loaded(how)
        self.index = None
        return Result(None, failure or how, seconds)

    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    def end(self, grace_seconds: float = 0.0) -> str:
        """Ends it, with all it started, and says how it ended.

        Args:
          grace_seconds: How long it may take to end by itself, once it has
            been let go.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            if grace_seconds:
                self._popen.wait(grace_seconds)
        if not self._has_ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            self.connection.close()
            os.close(self._life)
            self._has_ended = True
        code = self._popen.wait()
        if code >= 0:
            return f"process ended with exit code {code}"
        names = {one.value: one.name for one in signal.Signals}
        return f"process ended by {names.get(-code, f'signal {-code}')}"

    def _begin(self) -> None:
        assert self._input is not None
        self.started = time.perf_counter()
        self._send("input", tuple(self._input))

    def _send(self, kind: str, payload: Any) -> None:
        # If it has ended, there will be no answer either.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send((kind, payload))


def _not_loaded(why: str) -> RuntimeError:
    return RuntimeError(
        f"`objective` must be one that a new process can load, but there: {why}"
    )


@gin.register
class ProcessPool:
    """Evaluates inputs in other processes, several at a time.

    An objective that crashes takes its process with it, no more: the input
    has failed, another process does the rest. The processes stay from call to
    call; they end with this one, however it ends.

    The objective must be what pickle calls by its name, as a function of a
    module. Modules are imported there anew; one that was loaded from a file
    by its path is loaded from there again.
    """

    def __init__(
        self, workers: int = 1, timeout_seconds: float | None = None
    ) -> None:
        """Initialises it; processes start when they are needed.

        Args:
          workers: The most processes at a time.
          timeout_seconds: How long an evaluation may take. The process of one
            that takes longer is killed, and the input has failed.
        """
        if type(workers) is not int or workers < 1:
            raise ValueError(
                f"`workers` must be an integer of at least 1, got {workers!r}"
            )
        if timeout_seconds is not None and not timeout_seconds > 0:
            raise ValueError(
                "`timeout_seconds` must be positive or None, got "
                f"{timeout_seconds!r}"
            )
        self.workers = workers
        self.timeout_seconds = timeout_seconds
        self._processes: list[_Worker] = []
        self._finalizer = weakref.finalize(self, _end_all, self._processes)

    def __call__(
        self, objective: Objective, inputs: Sequence[Any], done: Done
    ) -> None:
        loaded = _pickled("objective", objective)
        waiting = collections.deque(
            (i, _pickled(f"inputs[{i}]", one_input))
            for i, one_input in enumerate(inputs)
        )
        try:
            while waiting or any(self._busy()):
                self._hand_out(loaded, waiting)
                for index, result in self._collect():
                    done(index, result)
        except BaseException:
            # What has been evaluated meanwhile is not to be lost.
            with contextlib.suppress(Exception):
                for index, result in self._answers():
                    done(index, result)
            self.close()
            raise

    def close(self) -> None:
        """Ends the processes; a later call starts others."""
        _end_all(self._processes)

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _busy(self) -> list[_Worker]:
        return [one for one in self._processes if one.index is not None]

    def _hand_out(
        self,
        objective: _Pickled,
        waiting: collections.deque[tuple[int, _Pickled]],
    ) -> None:
        """Gives inputs to idle processes, and starts those there may be."""
        # One that ended while it had nothing to do says nothing of an input.
        for worker in [*self._processes]:
            if worker.index is None and worker.has_ended():
                worker.end()
                self._processes.remove(worker)
        idle = [one for one in self._processes if one.index is None]
        num_new = min(
            self.workers - len(self._processes), len(waiting) - len(idle)
        )
        for _ in range(num_new):
            self._processes.append(_Worker())
            idle.append(self._processes[-1])
        for worker in idle[: len(waiting)]:
            worker.give(*waiting.popleft(), objective)

    def _collect(self) -> Iterator[tuple[int, Result]]:
        """Waits until something may have happened, and yields what ended."""
        busy = self._busy()
        limit = self.timeout_seconds or math.inf
        left = min(one.started for one in busy) + limit - time.perf_counter()
        connections.wait(
            [one.connection for one in busy],
            min(max(left, 0.0), _LOOK_SECONDS),
        )
        for worker in busy:
            index, result = worker.index, self._look(worker, limit)
            if result is not None:
                assert index is not None
                yield index, result

    def _answers(self) -> Iterator[tuple[int, Result]]:
        """Yields the results that are here, without waiting."""
        for worker in self._busy():
            index = worker.index
            # The rest of an answer would be taken for one.
            if not worker.is_read and worker.connection.poll():
                result = worker.follow()
                if result is not None and index is not None:
                    yield index, result

    def _look(self, worker: _Worker, limit: float) -> Result | None:
        """Returns what became of its input, None if it has it still."""
        seconds = time.perf_counter() - worker.started
        if worker.connection.poll():
            result = worker.follow()
        elif worker.has_ended():
            result = worker.lost(seconds)
        elif seconds >= limit:
            failure = f"no answer after {limit:g} seconds"
            result = worker.lost(seconds, failure)
        else:
            return None
        if worker.connection.closed:
            self._processes.remove(worker)
        return result


def _end_all(processes: list[_Worker]) -> None:
    # Those with nothing to do may leave in order, all at a time.
    for worker in processes:
        if worker.index is None:
            worker.connection.close()
    end = time.monotonic() + _GRACE_SECONDS
    while processes:
        worker = processes.pop()
        is_idle = worker.index is None
        worker.end(max(end - time.monotonic(), 0.0) if is_idle else 0.0)
