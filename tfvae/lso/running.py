# SPDX-License-Identifier: Apache-2.0
"""Evaluation of queries by an evaluator, until there is a reason to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfvae.lso.evaluation import Evaluator, Result, one_line
from tfvae.lso.reading import from_json
from tfvae.lso.records import Query, Records
from tfvae.lso.stopping import Stopping
from tfvae.lso.tasks.base import Task


class Failure(NamedTuple):
    """An evaluation that failed in this process."""

    number: int
    """Number of the query."""
    reason: str
    """In one line."""
    details: str | None
    """The traceback, where there is one."""


class Run:
    """The evaluations of one call of `LatentSpaceOptimizer.run`.

    Attributes:
      failures: The evaluations that failed.
      request: A reason to stop that has been given from outside, in one line;
        None for none.
      has_failed: Whether failures are the reason to stop.
    """

    def __init__(
        self,
        task: Task,
        records: Records,
        stopping: Stopping,
        history: Callable[[], np.ndarray],
        record: Callable[[int, Result], None],
    ) -> None:
        """Begins; wall-clock limits count from here.

        Args:
          task: The task, as `resolved` returns it.
          records: The results so far.
          stopping: Reasons to stop.
          history: Returns the scores that `Stopping.reason` takes.
          record: Records the result of a query, by its number.
        """
        self.failures: list[Failure] = []
        self.request: str | None = None
        self.has_failed = False
        self._task = task
        self._records = records
        self._stopping = stopping
        self._history = history
        self._record = record
        self._started = time.monotonic()
        # The failure of each evaluation, None where there is a score.
        self._outcomes: list[str | None] = []

    def why(self) -> str | None:
        """Returns the reason to stop now, in one line, or None."""
        if self.request is not None:
            return self.request
        failing = self._stopping.failing(self._outcomes)
        if failing is not None:
            self.has_failed = True
            return failing
        return self._stopping.reason(
            self._history, self._task.sign, time.monotonic() - self._started
        )

    def jobs(self, queries: Sequence[Query]) -> list[Query]:
        """Returns each query as often as it is to be evaluated."""
        entries = self._records.entries
        jobs = []
        for query in queries:
            entry = entries.get(query.number)
            num_done = 0 if entry is None else entry.num_results
            jobs += [query] * (self._records.repeats - num_done)
        return jobs

    def evaluate(self, evaluator: Evaluator, jobs: Sequence[Query]) -> None:
        """Evaluates and records jobs until there is a reason to stop."""
        given: list[Query] = []

        def done(i: int, result: Result) -> None:
            self._done(given[i].number, result)

        evaluator(self._task.objective, self._inputs(jobs, given), done)

    def _inputs(
        self, jobs: Sequence[Query], given: list[Query]
    ) -> Iterator[Any]:
        """Yields the inputs of jobs until there is a reason to stop.

        Those that `from_json` does not restore are recorded as failures.

        Args:
          jobs: Queries to evaluate.
          given: Is extended by the query of each input.
        """
        for query in jobs:
            if self.why():
                return
            try:
                one_input = from_json(self._task, query.input)
            except Exception as error:
                failure = f"`from_json` fails: {one_line(error)}"
                self._done(query.number, Result(None, failure, 0.0))
                continue
            given.append(query)
            yield one_input

    def _done(self, number: int, result: Result) -> None:
        self._record(number, result)
        failure = None if result.constraints else result.failure
        self._outcomes.append(failure)
        if failure is not None:
            self.failures.append(Failure(number, failure, result.details))
