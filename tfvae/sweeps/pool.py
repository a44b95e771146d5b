# SPDX-License-Identifier: Apache-2.0
"""Pool of worker processes, which do one job at a time each.

A process sends `{"ready": true}` when it can work. Then it receives the "name"
and the "path" of a job, and answers each with an "error" of one line, or null.
When its standard input ends it exits; a result that it is writing just then
is finished first.
"""

from __future__ import annotations

import collections
import contextlib
import pathlib
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tfvae import processes

# How long a process may take to finish writing a result and to exit.
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
    """Why it failed, in one line; None if it did not."""
    is_lost: bool = False
    """Whether its process ended without an answer."""


class _Worker:
    """A process of the pool, and the job that it has."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: pathlib.Path,
    ) -> None:
        self.process = processes.Process(
            command,
            log=log,
            environment=environment,
            grace_seconds=_GRACE_SECONDS,
        )
        self.job: Job | None = None
        self.num_done = 0
        self.started = 0.0

    def give(self, job: Job) -> None:
        """Hands a job over."""
        self.job, self.started = job, time.perf_counter()
        self.process.send({"name": job.name, "path": str(job.path)})

    def answer(self) -> dict[str, Any] | None:
        """Returns the next answer, None if it has ended instead."""
        with contextlib.suppress(processes.EndedError):
            return self.process.receive()
        return None

    def outcome(self, error: str | None, is_lost: bool = False) -> Outcome:
        """Takes the job back."""
        assert self.job is not None
        job, self.job = self.job, None
        self.num_done += 1
        return Outcome(job, time.perf_counter() - self.started, error, is_lost)


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
      environment: Variables that they have in addition to ours.
      jobs_per_process: After so many jobs another process takes the place of
        one: TensorFlow keeps some 50 MB of each model that was trained.

    Raises:
      RuntimeError: If a process ends before it can work.
    """
    waiting = collections.deque(jobs)
    workers: dict[processes.Process, _Worker] = {}

    def start() -> None:
        worker = _Worker(command, environment or {}, log)
        workers[worker.process] = worker

    def follow(worker: _Worker) -> Outcome | None:
        """Takes what a process says, and hands it the next job."""
        answer = worker.answer()
        if answer is None:
            del workers[worker.process]
            how = f"its process {_how(worker.process.end(_GRACE_SECONDS))}"
            if worker.job is None:
                raise RuntimeError(
                    f"the study must be able to start processes, but {how}: "
                    f"{processes.last_line(log)}"
                )
            if waiting:
                start()
            return worker.outcome(how, is_lost=True)
        outcome = None
        if worker.job is not None:
            outcome = worker.outcome(answer["error"])
        if waiting and worker.num_done < jobs_per_process:
            worker.give(waiting.popleft())
            return outcome
        del workers[worker.process]
        worker.process.end()
        if waiting:
            start()
        return outcome

    try:
        for _ in range(min(num_workers, len(jobs))):
            start()
        while workers:
            for process in processes.wait(workers):
                outcome = follow(workers[process])
                if outcome is not None:
                    yield outcome
    finally:
        for process in workers:
            process.close_input()
        end = time.monotonic() + _GRACE_SECONDS
        for process in workers:
            process.end(max(end - time.monotonic(), 0.0))


def _how(ended: processes.Ended) -> str:
    if ended.code == -signal.SIGKILL:
        return "was killed, as the system does when memory runs out"
    return ended.how if ended.code >= 0 else f"was {ended.how}"
