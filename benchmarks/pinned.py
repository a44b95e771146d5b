# SPDX-License-Identifier: Apache-2.0
"""Processes that train an epoch when told to, on processors of their own."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import psutil

_ROOT = pathlib.Path(__file__).parents[1]
# Starts a program on some processors only, before it counts them.
_PINNED = """
import os, sys
os.sched_setaffinity(0, map(int, sys.argv[1].split(",")))
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Epoch(NamedTuple):
    """What an epoch took."""

    seconds: float
    processor_seconds: float
    """Seconds of all threads, which other programs change the least."""
    others: float
    """Share of the processors that other programs had meanwhile."""


class PinnedProcess:
    """A process that trains an epoch for each line that it is given."""

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
        pinned = [sys.executable, "-I", "-c", _PINNED]
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with log.open("w") as stderr:
            self._popen = subprocess.Popen(
                [*pinned, ",".join(map(str, cores)), *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,
            )

    def __enter__(self) -> PinnedProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        # Ended by us, so that nothing of it outlives an interrupt.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def read(self, key: str) -> dict[str, Any]:
        """Returns the next JSON line with a key.

        Raises:
          RuntimeError: If the process ends without one.
        """
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict) and key in row:
                    return row
        lines = self._log.read_text(errors="replace").split("\n")
        told = [line.strip() for line in lines if line.strip()]
        reason = told[-1].removeprefix("error: ") if told else "no message"
        raise RuntimeError(reason)

    def epoch(self, line: str) -> Epoch:
        """Has it train an epoch.

        Args:
          line: What it is told.

        Raises:
          RuntimeError: If it ends instead.
        """
        assert self._popen.stdin is not None
        started, busy, own = time.perf_counter(), self._busy(), self._own()
        with contextlib.suppress(BrokenPipeError):
            self._popen.stdin.write(line + "\n")
            self._popen.stdin.flush()
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
            times = psutil.Process(self._popen.pid).cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return times.user + times.system
