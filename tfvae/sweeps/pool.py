# SPDX-License-Identifier: Apache-2.0
"""Pool of worker processes that run one job at a time each.

A worker sends `{"ready": true}` when it has started. Then it receives jobs, of
"name" and "path", and answers each with an "error" of one line, or null, and
the number of the request. It exits when its standard input is closed, after
writing any result that it is writing at this moment.
"""

from __future__ import annotations

import collections
import pathlib
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tfvae import processes

# Seconds that a worker has to finish writing a result and to exit.
_GRACE_SECONDS = 10.0


class Job(NamedTuple):
    """A job of the pool."""

    name: str
    path: pathlib.Path
    """Its folder, used by no other job."""


class Outcome(NamedTuple):
    """The outcome of a job."""

    job: Job
    seconds: float
    error: str | None
    """Error message of one line; None if the job succeeded."""
    is_lost: bool = False
    """Whether its worker ended without an answer."""


class _Worker:
    """A worker process, and its current job."""

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
        self._request: str | None = None

    def give(self, job: Job) -> None:
        """Sends it a job."""
        self.job, self.started = job, time.perf_counter()
        self._request = self.process.request(
            {"name": job.name, "path": str(job.path)}
        )

    def answer(self) -> dict[str, Any] | None:
        """Returns the message that it owes, or None if it is not there yet.

        Raises:
          processes.EndedError: If it has ended.
        """
        return self.process.receive(0.0, self._request)

    def outcome(self, error: str | None, is_lost: bool = False) -> Outcome:
        """Returns the outcome of its job, and marks it as idle."""
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
    """Yields the outcome of each job, in the order in which they end.

    If a worker dies, its job has failed, and a new worker runs the remaining
    jobs. All workers end when the iterator is closed or raises.

    Args:
      jobs: The jobs, started in this order.
      command: Command of a worker.
      num_workers: The maximum number of workers at a time.
      log: File that the standard error of workers is appended to.
      environment: Environment variables to set in addition to those of this
        process.
      jobs_per_process: Number of jobs after which a worker is replaced, as
        TensorFlow keeps about 50 MB of each model that was trained.

    Raises:
      RuntimeError: If a worker ends before it has started to work.
    """
    waiting = collections.deque(jobs)
    workers: dict[processes.Process, _Worker] = {}

    def start() -> None:
        worker = _Worker(command, environment or {}, log)
        workers[worker.process] = worker

    def follow(worker: _Worker) -> Outcome | None:
        """Reads a message of a worker, and sends it the next job."""
        try:
            answer = worker.answer()
        except processes.EndedError as err:
            del workers[worker.process]
            how = f"its process {_how(worker.process.end(_GRACE_SECONDS))}"
            if worker.job is None:
                raise RuntimeError(
                    f"the study must be able to start workers, but {how}: "
                    f"{processes.last_line(log)}"
                ) from err
            if waiting:
                start()
            return worker.outcome(how, is_lost=True)
        if answer is None:
            return None
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
        return "was killed, probably because memory ran out"
    return ended.how if ended.code >= 0 else f"was {ended.how}"
