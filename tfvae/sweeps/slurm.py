# SPDX-License-Identifier: Apache-2.0
"""Executor of the cells of a study as jobs of SLURM, by submitit.

Each cell is a job of its own, which loads its configuration from the folder of
the cell and writes the result there, so that machines need a common file
system. Jobs survive a study that is killed; the next one waits for them.
"""

from __future__ import annotations

import collections
import importlib
import pathlib
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tfvae import processes, typed_gin
from tfvae.arguments import check_counts
from tfvae.sweeps import folders, worker
from tfvae.sweeps.pool import Job, Outcome

FOLDER = "slurm"
"""Folder of submitit's files and the logs of jobs, within that of a study."""
_JOB = "job.json"  # Within the folder of a cell: its latest job.
_LOOK_SECONDS = 1.0
# Seconds that jobs have to end when they are cancelled.
_CANCEL_SECONDS = 30.0
_CLUSTERS = ("slurm", "local")


@typed_gin.register
class SlurmExecutor:
    """Runs the cells of a study as jobs of SLURM.

    Needs `pip install 'tfvae[slurm]'`.

    Attributes:
      jobs_at_once: The maximum number of jobs that wait or run.
    """

    def __init__(
        self,
        timeout_minutes: int,
        *,
        partition: str | None = None,
        jobs_at_once: int = 100,
        cpus: int = 1,
        gpus: int = 0,
        memory_gb: float | None = None,
        parameters: Mapping[str, Any] | None = None,
        cluster: str = "slurm",
    ) -> None:
        """Creates the executor; submitit is loaded when needed.

        Args:
          timeout_minutes: Time limit of a cell. One that takes longer has
            failed; repeat the study to go on from its latest checkpoint.
          partition: Partition of the jobs; None for the default one.
          jobs_at_once: The maximum number of jobs that wait or run.
          cpus: Processors of a cell, and threads of its TensorFlow.
          gpus: GPUs of a cell.
          memory_gb: Memory of a cell, GB; None for the default of SLURM.
          parameters: Others of submitit's `AutoExecutor.update_parameters`,
            such as {"slurm_account": "physics"}.
          cluster: "slurm", or "local" to try it out on this machine, where
            children of cells and jobs of a killed study live on.

        Raises:
          ValueError: If an argument is out of range.
        """
        check_counts(
            timeout_minutes=timeout_minutes,
            jobs_at_once=jobs_at_once,
            cpus=cpus,
        )
        if cluster not in _CLUSTERS:
            raise ValueError(
                f"`cluster` must be one of {_CLUSTERS}, got {cluster!r}"
            )
        self.jobs_at_once = jobs_at_once
        self._cluster = cluster
        given: dict[str, Any] = {
            "name": "tfvae",
            "timeout_min": timeout_minutes,
            "cpus_per_task": cpus,
            "gpus_per_node": gpus,
            "mem_gb": memory_gb,
            "slurm_partition": partition,
            f"{cluster}_setup": [
                f"export {name}={shlex.quote(value)}"
                for name, value in worker.variables(cpus).items()
            ],
        }
        self._parameters = {
            **{name: one for name, one in given.items() if one is not None},
            **(parameters or {}),
        }

    def __call__(
        self, jobs: Sequence[Job], cell: str, run_dir: pathlib.Path
    ) -> Iterator[Outcome]:
        """Yields the outcome of each cell, in the order in which they end.

        Jobs are cancelled when the iterator is closed or raises.

        Args:
          jobs: The cells, submitted in this order.
          cell: Name of the function that runs one, as `module:function`.
          run_dir: Folder of the study.

        Raises:
          ImportError: If submitit is not installed.
          RuntimeError: If there is no SLURM.
        """
        submitit = _submitit()
        executor = submitit.AutoExecutor(
            run_dir / FOLDER / "%j", cluster=self._cluster
        )
        executor.update_parameters(**self._parameters)
        job_class = {"slurm": submitit.SlurmJob, "local": submitit.LocalJob}
        waiting = collections.deque(jobs)
        running: list[_Running] = []
        try:
            for job in [*waiting]:
                found = _of_before(job_class[self._cluster], job)
                if found is not None:
                    running.append(found)
                    waiting.remove(job)
            while waiting or running:
                while waiting and len(running) < self.jobs_at_once:
                    running.append(
                        _submitted(executor, waiting.popleft(), cell)
                    )
                for one in [*running]:
                    if one.submitted.done():
                        running.remove(one)
                        yield one.outcome()
                if running:
                    time.sleep(_LOOK_SECONDS)
        finally:
            _cancel(running)


class _Running(NamedTuple):
    """A cell, and its job that waits or runs."""

    job: Job
    submitted: Any
    """The job of submitit."""
    since: float

    def outcome(self) -> Outcome:
        """Returns the outcome, once the job has ended."""
        if self.submitted.exception() is None:
            error, seconds = self.submitted.result()
            return Outcome(self.job, seconds, error)
        seconds = time.perf_counter() - self.since
        paths = self.submitted.paths
        log = paths.stderr if paths.stderr.exists() else paths.stdout
        last = processes.last_line(log) if log.exists() else "no log"
        error = (
            f"job {self.submitted.job_id} ended without a result "
            f"({self.submitted.state}): {last}; see {log}"
        )
        return Outcome(self.job, seconds, error, is_lost=True)


def _submitit() -> Any:
    """Returns the module of submitit."""
    try:
        import submitit
    except ImportError as error:
        raise ImportError(
            "`SlurmExecutor` must have submitit, got none: "
            "pip install 'tfvae[slurm]'"
        ) from error
    return submitit


def _submitted(executor: Any, job: Job, cell: str) -> _Running:
    """Submits a cell, and notes the job in its folder."""
    submitted = executor.submit(_run_cell, cell, str(job.path))
    content = {
        "job_id": submitted.job_id,
        "folder": str(submitted.paths.folder),
    }
    folders.write_json(job.path / _JOB, content)
    return _Running(job, submitted, time.perf_counter())


def _of_before(job_class: Any, job: Job) -> _Running | None:
    """Returns the job of a cell that an earlier study has left running."""
    noted = folders.read_json(job.path / _JOB)
    if noted is None:
        return None
    submitted = job_class(noted["folder"], noted["job_id"])
    if submitted.done(force_check=True):
        return None
    return _Running(job, submitted, time.perf_counter())


def _cancel(running: Sequence[_Running]) -> None:
    """Cancels jobs and waits for their end."""
    for one in running:
        one.submitted.cancel(check=False)
    end = time.monotonic() + _CANCEL_SECONDS
    left = [*running]
    while left and time.monotonic() < end:
        left = [one for one in left if not one.submitted.done(force_check=True)]
        time.sleep(_LOOK_SECONDS if left else 0.0)


def _run_cell(cell: str, folder: str) -> tuple[str | None, float]:
    """Runs a cell in a job; returns its error, if any, and the seconds."""
    module, _, function = cell.partition(":")
    run_cell = getattr(importlib.import_module(module), function)
    started = time.perf_counter()
    error = worker.answer(run_cell, pathlib.Path(folder))
    return error, time.perf_counter() - started
