# SPDX-License-Identifier: Apache-2.0
"""Worker processes pinned to processors, which measure on request."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import psutil

from tfvae import processes

_ROOT = pathlib.Path(__file__).parents[1]


class Epoch(NamedTuple):
    """The cost of an epoch."""

    seconds: float
    """Time that the process reports."""
    processor_seconds: float
    """CPU time of all threads, which depends least on other load."""
    others: float
    """Fraction of the processors that other programs used."""


class PinnedProcess:
    """A process that runs an epoch on each request; a context manager."""

    def __init__(
        self, argv: Sequence[str], cores: Sequence[int], log: pathlib.Path
    ) -> None:
        """Starts the process.

        Args:
          argv: Its command. It must print a JSON line with "facts" when it is
            ready, and one with "seconds" for each line of its standard input.
          cores: The processors that it is pinned to.
          log: File for its standard error.
        """
        self._log, self._cores = log, cores
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        log.unlink(missing_ok=True)
        self._process = processes.Process(
            argv,
            log=log,
            environment={"PYTHONPATH": os.pathsep.join(paths)},
            cores=cores,
        )

    def __enter__(self) -> PinnedProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.end()

    def read(self, key: str) -> dict[str, Any]:
        """Returns the next JSON line that has `key`.

        Raises:
          RuntimeError: If the process ends without such a line.
        """
        row: dict[str, Any] | None = {}
        try:
            while row is not None and key not in row:
                row = self._process.receive()
        except processes.EndedError as err:
            raise RuntimeError(processes.last_line(self._log)) from err
        assert row is not None  # As there is no timeout.
        return row

    def ask(self, message: Mapping[str, Any], key: str) -> dict[str, Any]:
        """Sends a JSON line and returns the next answer that has `key`.

        Raises:
          RuntimeError: If the process ends before it answers.
        """
        self._process.send(message)
        return self.read(key)

    def epoch(self, line: str) -> Epoch:
        """Requests an epoch and returns its cost.

        Args:
          line: The request.

        Raises:
          RuntimeError: If the process ends before it answers.
        """
        started, busy, own = time.perf_counter(), self._busy(), self._own()
        self._process.write_line(line)
        seconds = self.read("seconds")["seconds"]
        own = self._own() - own
        all_of_it = (time.perf_counter() - started) * len(self._cores)
        others = (self._busy() - busy - own) / all_of_it
        return Epoch(seconds, own, max(others, 0.0))

    def _busy(self) -> float:
        """Returns the busy time of the processors, seconds."""
        every = psutil.cpu_times(percpu=True)
        return sum(
            one.user + one.nice + one.system + one.irq + one.softirq + one.steal
            for one in (every[core] for core in self._cores)
        )

    def _own(self) -> float:
        """Returns the CPU time of the process, seconds."""
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return times.user + times.system
