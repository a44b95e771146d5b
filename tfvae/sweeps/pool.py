# SPDX-License-Identifier: Apache-2.0
"""Jobs for processes that stay for many of them, one at a time each.

A process says `{"ready": true}` when it can work. Then it reads one JSON line
a job, with its "name" and "path", and answers each with a JSON line that has
an "error" of one line, or null. When its standard input ends it goes away,
whatever it is doing: so none outlives us, not even when we are killed.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import pathlib
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_GRACE_SECONDS = 10.0


class Job(NamedTuple):
    """Something to do."""

    name: str
    path: pathlib.Path
    """A folder of its own."""


class Outcome(NamedTuple):
    """What became of a job."""

    job: Job
    seconds: float
    error: str | None
    """A line that tells why it failed, None if it did not."""
    is_lost: bool = False
    """Whether its process ended without an answer."""


class _Process:
    """A process of the pool, and the job that it has."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: pathlib.Path,
    ) -> None:
        with log.open("a") as stderr:
            self.popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **environment},
                # An interrupt is for us alone; we end it then.
                start_new_session=True,
            )
        self.job: Job | None = None
        self.num_done = 0
        self.started = 0.0

    @property
    def out(self) -> Any:
        return self.popen.stdout

    def give(self, job: Job) -> None:
        """Hands a job over; if that fails, its output has ended, too."""
        self.job, self.started = job, time.perf_counter()
        line = json.dumps({"name": job.name, "path": os.fspath(job.path)})
        assert self.popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.popen.stdin.write(line + "\n")
            self.popen.stdin.flush()

    def answer(self) -> dict[str, Any] | None:
        """Returns the next answer, None if it has ended instead."""
        try:
            return json.loads(self.out.readline())
        except ValueError:
            return None

    def outcome(self, error: str | None, is_lost: bool = False) -> Outcome:
        """Takes the job back."""
        assert self.job is not None
        job, self.job = self.job, None
        self.num_done += 1
        return Outcome(job, time.perf_counter() - self.started, error, is_lost)

    def end(self, grace_seconds: float = 0.0) -> str:
        """Ends it, if it has not, and says how it ended.

        Args:
          grace_seconds: How long it may take to end by itself.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(grace_seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        code = self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if code == -signal.SIGKILL:
            return "was killed, as the system does when memory runs out"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


def run(
    jobs: Sequence[Job],
    command: Sequence[str],
    num_workers: int,
    log: pathlib.Path,
    environment: Mapping[str, str] | None = None,
    *,
    jobs_per_process: int = 16,
) -> Iterator[Outcome]:
    """Yields what becomes of each job, in the order that they end.

    A process that dies takes its job with it; another one does the rest.
    Close the iterator, or let an exception end it, and all processes end.

    Args:
      jobs: What to do, begun in this order.
      command: Starts a process.
      num_workers: The most processes at a time.
      log: File that gets what processes write to standard error.
      environment: Variables that they have beside ours.
      jobs_per_process: After so many jobs another process takes the place of
        one: TensorFlow keeps some 50 MB of each model that was trained.

    Raises:
      RuntimeError: If a process ends before it can work.
    """
    waiting = collections.deque(jobs)
    processes: list[_Process] = []
    selector = selectors.DefaultSelector()

    def start() -> None:
        process = _Process(command, environment or {}, log)
        processes.append(process)
        selector.register(process.out, selectors.EVENT_READ, process)

    def stop(process: _Process, grace_seconds: float = 0.0) -> str:
        selector.unregister(process.out)
        processes.remove(process)
        return process.end(grace_seconds)

    def follow(process: _Process) -> Outcome | None:
        """Takes what a process says, and hands it the next job."""
        said = process.answer()
        if said is None:
            how = f"its process {stop(process, _GRACE_SECONDS)}"
            if process.job is None:
                raise RuntimeError(
                    f"the study must be able to start processes, but {how}: "
                    f"{_last_line(log)}"
                )
            if waiting:
                start()
            return process.outcome(how, is_lost=True)
        outcome = None
        if process.job is not None:
            outcome = process.outcome(said["error"])
        if waiting and process.num_done < jobs_per_process:
            process.give(waiting.popleft())
            return outcome
        stop(process)
        if waiting:
            start()
        return outcome

    try:
        for _ in range(min(num_workers, len(jobs))):
            start()
        while processes:
            for key, _ in selector.select():
                outcome = follow(key.data)
                if outcome is not None:
                    yield outcome
    finally:
        for process in [*processes]:
            stop(process)
        selector.close()


def _last_line(log: pathlib.Path) -> str:
    lines = [
        line.strip()
        for line in log.read_text(errors="replace").splitlines()
        if line.strip()
    ]
    return lines[-1] if lines else "no message"
