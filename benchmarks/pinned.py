# SPDX-License-Identifier: Apache-2.0
"""Worker processes pinned to cores, which train one epoch on request."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import psutil

from tfvae import processes

_ROOT = pathlib.Path(__file__).parents[1]


class Epoch(NamedTuple):
    """What an epoch took."""

    seconds: float
    processor_seconds: float
    """Seconds of all threads, which other programs change the least."""
    others: float
    """Share of the processors that other programs had meanwhile."""


class PinnedProcess:
    """A process that trains an epoch for each request; a context manager."""

    def __init__(
        self, argv: Sequence[str], cores: Sequence[int], log: pathlib.Path
    ) -> None:
        """Starts the process.

        Args:
          argv: Its command. When it can work it prints a JSON line with
            "facts", and then for each line that it reads one with "seconds".
          cores: The processors that it may use.
          log: File that its standard error goes to.
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
        """Returns the next JSON line with a key.

        Raises:
          RuntimeError: If the process ends without one.
        """
        row: dict[str, Any] | None = {}
        try:
            while row is not None and key not in row:
                row = self._process.receive()
        except processes.EndedError as err:
            raise RuntimeError(processes.last_line(self._log)) from err
        assert row is not None  # There is no time limit.
        return row

    def epoch(self, line: str) -> Epoch:
        """Has it train an epoch.

        Args:
          line: The request.

        Raises:
          RuntimeError: If it ends instead.
        """
        started, busy, own = time.perf_counter(), self._busy(), self._own()
        self._process.write_line(line)
        seconds = self.read("seconds")["seconds"]
        own = self._own() - own
        all_of_it = (time.perf_counter() - started) * len(self._cores)
        others = (self._busy() - busy - own) / all_of_it
        return Epoch(seconds, own, max(others, 0.0))

    def _busy(self) -> float:
        """Returns the seconds that the processors have worked."""
        every = psutil.cpu_times(percpu=True)
        return sum(
            one.user + one.nice + one.system + one.irq + one.softirq + one.steal
            for one in (every[core] for core in self._cores)
        )

    def _own(self) -> float:
        """Returns the seconds of them that were for this process."""
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return times.user + times.system
