# SPDX-License-Identifier: Apache-2.0
"""Evaluators of objectives: in this process, or in a pool of processes.

An evaluator is called with an objective, an iterator of inputs and a callback
`done`, which it calls with the index of each input and its `Result` as soon as
that is known. It takes the next input when it can evaluate it, not before: who
ends the iteration starts no further evaluation, while those under way are
finished and recorded.
"""

from __future__ import annotations

import base64
import contextlib
import math
import os
import pathlib
import sys
import sysconfig
import time
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import cloudpickle

from tfvae import processes, typed_gin
from tfvae.arguments import check_counts
from tfvae.lso import evaluation_worker
from tfvae.lso.evaluation_worker import (
    Result,
    Score,
    checked_score,
    evaluate_one,
    one_line,
)

__all__ = [
    "Evaluator",
    "InProcess",
    "ProcessPool",
    "Result",
    "Score",
    "checked_score",
    "evaluate_one",
    "one_line",
]

Objective = Callable[[Any], Any]
Done = Callable[[int, Result], None]

# Seconds that idle processes have to end, and that finished evaluations have
# to be reported when the others are aborted.
_GRACE_SECONDS = 3.0
_LAST_SECONDS = 1.0
# Folders of the standard library and of installed packages.
INSTALLED = tuple(
    os.path.join(sysconfig.get_path(name), "")
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


class Evaluator(Protocol):
    """Protocol of evaluators; any failure of an objective is a `Result`."""

    def __call__(
        self, objective: Objective, inputs: Iterable[Any], done: Done
    ) -> None:
        """Evaluates inputs until there are no more.

        Args:
          objective: Evaluates an input.
          inputs: The inputs. The next one is taken as soon as it can be
            evaluated: while others are, if evaluations run in parallel.
          done: Called with the position of an input in the iteration and its
            result, from the thread of the caller.

        Raises:
          Exception: What `inputs` or `done` raises, after `done` has been
            called with the results that are known by then. Evaluations under
            way are aborted, as by a keyboard interrupt.
        """


@typed_gin.register
class InProcess:
    """Evaluates inputs one after the other, in this process."""

    def __call__(
        self, objective: Objective, inputs: Iterable[Any], done: Done
    ) -> None:
        for i, one_input in enumerate(inputs):
            result = evaluate_one(objective, one_input)
            # So that a finished evaluation is recorded despite an interrupt.
            with processes.interrupts_held():
                done(i, result)


class Pickled(NamedTuple):
    """An objective, and the imports that a process needs to load it."""

    objective: str
    """Of `pickled`."""
    path: list[str]
    """The import path."""
    modules: dict[str, str]
    """Files of modules that an import would not find, by module name."""
    sources: dict[str, str]
    """Contents in base 64 of those of them that are not read again."""

    @classmethod
    def of(cls, objective: Objective) -> Pickled:
        """Returns the objective with the imports of this process.

        Raises:
          TypeError: If it can not be pickled.
        """
        return cls(
            pickled("objective", objective),
            [os.path.abspath(folder) for folder in sys.path],
            _modules_not_found(),
            {},
        )

    def with_sources(self) -> Pickled:
        """Returns the same for processes that may not see the files."""
        sources = {}
        for name, path in self.modules.items():
            # It may be one that the objective does not need.
            with contextlib.suppress(OSError):
                if path.endswith(".py"):
                    content = pathlib.Path(path).read_bytes()
                    sources[name] = base64.b64encode(content).decode()
        return self._replace(sources=sources)


def pickled_inputs(inputs: Iterable[Any]) -> Iterator[tuple[int, str]]:
    """Yields the numbers of inputs and their pickles, see `pickled`.

    Raises:
      TypeError: If one can not be pickled.
    """
    for i, one_input in enumerate(inputs):
        yield i, pickled(f"inputs[{i}]", one_input)


def pickled(what: str, value: Any) -> str:
    """Returns a pickle in base 64; `what` is its name in error messages."""
    try:
        data = cloudpickle.dumps(value)
    except Exception as error:
        raise TypeError(
            f"`{what}` must be an object that cloudpickle can pickle, got "
            f"{value!r}: {error}"
        ) from error
    return base64.b64encode(data).decode()


def _modules_not_found() -> dict[str, str]:
    """Returns files of modules that imports in new processes do not find."""
    files = {}
    for name, module in [*sys.modules.items()]:
        if name == "__main__" or not isinstance(module, types.ModuleType):
            continue
        # Not `getattr`, which would load lazily imported modules.
        content = object.__getattribute__(module, "__dict__")
        path = content.get("__file__")
        # Libraries register modules by several names, and import these.
        is_alias = content.get("__name__") != name
        if is_alias or not path or path.startswith(INSTALLED):
            continue
        path = os.path.abspath(path)
        if not _is_found(name, path):
            files[name] = path
    return files


def _is_found(name: str, path: str) -> bool:
    """Returns whether a new process would import `name` from `path`."""
    # Most are where their names imply, which is faster to check.
    stem = path.removesuffix(".py").removesuffix(os.sep + "__init__")
    end = os.sep + name.replace(".", os.sep)
    if stem.endswith(end) and stem.removesuffix(end) in sys.path:
        return True
    parts = name.split(".")
    locations = None
    for end_of_parent in range(1, len(parts) + 1):
        specification = _specification(
            ".".join(parts[:end_of_parent]), locations
        )
        if specification is None:
            return False
        locations = specification.submodule_search_locations
    origin = specification and specification.origin
    return origin is not None and os.path.realpath(origin) == os.path.realpath(
        path
    )


def _specification(name: str, locations: Any) -> Any:
    """Returns the module spec of an import, ignoring `sys.modules`."""
    for finder in sys.meta_path:
        # A package without a file may need its parent, which is not imported.
        with contextlib.suppress(KeyError):
            found = finder.find_spec(name, locations)
            if found is not None:
                return found
    return None


class _Worker:
    """A worker process, and the input that it evaluates."""

    def __init__(self) -> None:
        self.process = processes.Process(
            [
                *(sys.executable, "-u", "-P", "-X", "faulthandler"),
                evaluation_worker.__file__,
            ]
        )
        self.index: int | None = None
        """Index of its current input; None if it is idle."""
        self.started = math.inf
        """When it began to evaluate it; infinite while the objective loads."""
        self._request = ""
        self._objective: str | None = None

    def give(self, index: int, one_input: str, objective: Pickled) -> None:
        """Sends it an input, with the objective if that has changed."""
        content: dict[str, Any] = objective._asdict()
        self.index, self.started = index, time.perf_counter()
        if self._objective != objective.objective:
            self._objective, self.started = objective.objective, math.inf
        else:
            del content["objective"], content["path"]
        content["input"] = one_input
        self._request = self.process.request(content)

    def look(self, limit: float = math.inf) -> Result | None:
        """Returns the result of its input, or None if it is not known yet.

        Args:
          limit: Seconds that an evaluation may take.

        Raises:
          RuntimeError: If it can not load the objective.
        """
        try:
            result = self.answered()
        except processes.EndedError:
            return self._lost()
        seconds = time.perf_counter() - self.started
        if result is None and seconds >= limit:
            return self._lost(f"no answer after {limit:g} seconds")
        return result

    def answered(self) -> Result | None:
        """Returns the result if there is one, as `look` does.

        Raises:
          processes.EndedError: If it has ended without a result.
          RuntimeError: If it can not load the objective.
        """
        while (message := self.process.receive(0.0, self._request)) is not None:
            if "error" in message:
                raise _not_loaded(message["error"])
            if "result" in message:
                self.index = None
                return Result(**message["result"])
            self.started = time.perf_counter()  # The objective is loaded.
        return None

    def _lost(self, failure: str | None = None) -> Result:
        """Ends it, and returns the failure of its current input."""
        seconds = time.perf_counter() - self.started
        how = f"process {self.process.end().how}"
        if math.isinf(self.started):
            raise _not_loaded(how)
        self.index = None
        return Result(None, failure or how, seconds)


def _not_loaded(why: str) -> RuntimeError:
    return RuntimeError(
        f"`objective` must be one that a new process can load, got: {why}"
    )


def check_timeout(seconds: float | None) -> None:
    """Raises a ValueError if this can not be a time limit."""
    if seconds is not None and not seconds > 0:
        raise ValueError(
            f"`timeout_seconds` must be positive or None, got {seconds!r}"
        )


@typed_gin.register
class ProcessPool:
    """Evaluates inputs in parallel, in a pool of worker processes.

    If an objective crashes its process, the input is recorded as failed, and a
    new process evaluates the remaining ones. The processes persist between
    calls, and end with this process, even if it is killed.

    Objectives and inputs are pickled by `cloudpickle`, which supports functions
    of modules as well as lambdas, nested functions and those of the main
    script. Processes import modules anew; a module that was loaded from a file
    by its path is loaded from this file again.
    """

    def __init__(
        self, workers: int = 1, timeout_seconds: float | None = None
    ) -> None:
        """Creates the pool; processes are started when needed.

        Args:
          workers: The maximum number of processes.
          timeout_seconds: Time limit of an evaluation; None for no limit. The
            process of one that takes longer is killed, and the input fails.
        """
        check_counts(workers=workers)
        check_timeout(timeout_seconds)
        self.workers = workers
        self.timeout_seconds = timeout_seconds
        self._workers: list[_Worker] = []
        self._finalizer = weakref.finalize(self, _end_all, self._workers)

    def __call__(
        self, objective: Objective, inputs: Iterable[Any], done: Done
    ) -> None:
        self.evaluate(Pickled.of(objective), pickled_inputs(inputs), done)

    def evaluate(
        self,
        objective: Pickled,
        inputs: Iterator[tuple[int, str]],
        done: Done,
    ) -> None:
        """Same as a call, of what is pickled already."""
        try:
            while self._hand_out(objective, inputs):
                self._wait()
                # So that an interrupt does not lose a result.
                with processes.interrupts_held():
                    for index, result in self._collect():
                        done(index, result)
        except BaseException:
            with processes.interrupts_held():
                # Record what has been evaluated in the meantime.
                with contextlib.suppress(Exception):
                    for index, result in self._collect_last():
                        done(index, result)
                self.close()
            raise

    def close(self) -> None:
        """Ends the processes; a later call starts new ones."""
        _end_all(self._workers)

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _busy(self) -> list[_Worker]:
        return [one for one in self._workers if one.index is not None]

    def _hand_out(
        self, objective: Pickled, inputs: Iterator[tuple[int, str]]
    ) -> bool:
        """Sends an input to each process that is idle or may be started.

        Returns:
          Whether any process is busy; if not, there are no more inputs.
        """
        while len(self._busy()) < self.workers:
            found = next(inputs, None)
            if found is None:
                break
            # Afterwards, as some may end while the iteration takes its time.
            self._idle_worker().give(*found, objective)
        return bool(self._busy())

    def _idle_worker(self) -> _Worker:
        """Returns a process that is idle, a new one if there is none."""
        self._remove_ended()
        for worker in self._workers:
            if worker.index is None:
                return worker
        self._workers.append(_Worker())
        return self._workers[-1]

    def _remove_ended(self) -> None:
        """Removes processes that have ended while idle."""
        for worker in [*self._workers]:
            if worker.index is None and worker.process.has_ended:
                worker.process.end()
                self._workers.remove(worker)

    def _wait(self) -> None:
        """Waits for output of any process, or the next timeout."""
        busy = self._busy()
        if self.timeout_seconds is None:
            left = None
        else:
            end = min(one.started for one in busy) + self.timeout_seconds
            left = max(end - time.perf_counter(), 0.0)
            left = None if math.isinf(left) else left
        processes.wait([one.process for one in busy], left)

    def _collect(self) -> Iterator[tuple[int, Result]]:
        """Yields the indices and results of finished inputs."""
        limit = self.timeout_seconds or math.inf
        for worker in self._busy():
            index, result = worker.index, worker.look(limit)
            if result is not None and index is not None:
                yield index, result
        self._remove_ended()

    def _collect_last(self) -> Iterator[tuple[int, Result]]:
        """Yields results that are already known, and aborts the others."""
        end = time.monotonic() + _LAST_SECONDS
        busy = self._busy()
        for worker in busy:
            # A process exits now, or after sending a finished result.
            worker.process.close_input()
        while busy and (left := end - time.monotonic()) > 0.0:
            processes.wait([one.process for one in busy], left)
            for worker in [*busy]:
                index = worker.index
                try:
                    result = worker.answered()
                except (processes.EndedError, RuntimeError):
                    busy.remove(worker)
                    continue
                if result is not None and index is not None:
                    busy.remove(worker)
                    yield index, result


def _end_all(workers: list[_Worker]) -> None:
    # Idle processes may exit by themselves, all at the same time.
    for worker in workers:
        if worker.index is None:
            worker.process.close_input()
    end = time.monotonic() + _GRACE_SECONDS
    while workers:
        worker = workers.pop()
        left = end - time.monotonic() if worker.index is None else 0.0
        worker.process.end(max(left, 0.0))
