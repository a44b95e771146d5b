# SPDX-License-Identifier: Apache-2.0
"""Evaluations of a run in this process: progress, failures, interrupts."""

from __future__ import annotations

import collections
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from tfvae.lso import evaluation
from tfvae.lso.loop import LatentSpaceOptimizer
from tfvae.lso.reading import refusals
from tfvae.lso.stopping import Stopping
from tfvae.runs import optimization_inputs, optimization_state
from tfvae.runs.errors import StoppedError
from tfvae.runs.optimization_readout import ReadOut
from tfvae.runs.optimization_status import duration, number

_SECONDS_BETWEEN_LINES = 5.0
_INTERRUPTED = "interrupted"


def run(
    optimizer: LatentSpaceOptimizer,
    evaluator: evaluation.Evaluator | None,
    stopping: Stopping,
    read_out: ReadOut,
) -> dict[str, Any]:
    """Evaluates the objective until the budget is spent, or before.

    Args:
      optimizer: The optimizer.
      evaluator: See `LatentSpaceOptimizer.steps`.
      stopping: What ends it before.
      read_out: Is refreshed after each step, and written at the end.

    Returns:
      The summary of the run.

    Raises:
      StoppedError: If an interrupt or failures in a row have ended it.
    """
    _announce(optimizer)
    progress = _Progress(optimizer)
    failures = _Failures(optimizer)
    try:
        with _interrupts(optimizer):
            for _ in optimizer.steps(evaluator, stopping):
                failures.print()
                progress.print()
                read_out.refresh()
    except BaseException:
        with contextlib.suppress(Exception):  # Of the results so far.
            read_out.write()
        raise
    failures.print()
    result = read_out.write()
    _print_result(result, str(read_out.run_dir))
    why = optimizer.stopped
    if why is None:
        return result
    if why == _INTERRUPTED:
        raise StoppedError(f"{why}; the same command resumes", 130)
    if optimizer.has_failed:
        raise StoppedError(f"stopped: {why}", 1)
    print(f"stopped: {why}", flush=True)
    return result


@contextlib.contextmanager
def _interrupts(optimizer: LatentSpaceOptimizer) -> Iterator[None]:
    """Lets the first Ctrl-C wait for evaluations, and the second abort."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        # A shell may have started this process with interrupts ignored.
        second = before if callable(before) else signal.default_int_handler
        signal.signal(signal.SIGINT, second)
        optimizer.request_stop(_INTERRUPTED)
        print(
            "stopping after what is under way; Ctrl-C again aborts it",
            file=sys.stderr,
            flush=True,
        )

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Failures:
    """Prints the first failure of a run in full, and counts the others."""

    def __init__(self, optimizer: LatentSpaceOptimizer) -> None:
        self._optimizer = optimizer
        self._num_printed = 0

    def print(self) -> None:
        """Prints what has failed since the last call."""
        seen = self._optimizer.failures
        new = len(seen) - self._num_printed
        if not new:
            return
        if not self._num_printed:
            first = seen[0]
            _say(f"query {first.number} has failed: {first.reason}")
            if first.details:
                _say(first.details.rstrip())
            new -= 1
        if new:
            last = seen[-1]
            _say(
                f"{len(seen)} evaluations have failed, the last of query "
                f"{last.number}: {last.reason}"
            )
        self._num_printed = len(seen)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _announce(optimizer: LatentSpaceOptimizer) -> None:
    plan, task = optimizer.plan, optimizer.task
    done = optimizer.num_done
    action = f"resuming after {done} of" if done else "budget of"
    best = optimizer.ledger.header["best_in_data"]
    print(
        f"{task.name}: {optimizer.collection.num_kept:,} data points, the best "
        f"{number(best)}; {action} {plan.budget} queries, "
        f"{plan.round_size} a round",
        flush=True,
    )
    if task.refuse is None:
        return
    found = collections.Counter(filter(None, task.data(plan.seed).refusals))
    if found:
        print(
            f"{found.total():,} of the data would be refused as queries "
            f"({refusals(found)}): the model and the surrogate know them, the "
            "best is one of the others",
            flush=True,
        )


class _Progress:
    """Prints the number of evaluated queries and the remaining time."""

    def __init__(self, optimizer: LatentSpaceOptimizer) -> None:
        self._optimizer = optimizer
        self._recent = [(time.perf_counter(), optimizer.num_done)]
        self._printed = 0.0

    def print(self) -> None:
        """Prints a line, but at most one every few seconds."""
        plan, done = self._optimizer.plan, self._optimizer.num_done
        now = time.perf_counter()
        is_last = done >= plan.budget
        self._recent = [*self._recent[-optimization_state.NUM_RECENT :]]
        self._recent.append((now, done))
        if now - self._printed < _SECONDS_BETWEEN_LINES and not is_last:
            return
        self._printed = now
        started, first = self._recent[0]
        each = (now - started) / max(done - first, 1)
        width = len(str(plan.budget))
        _say(
            f"round {plan.round_of(done - 1) + 1}/{plan.num_rounds}  "
            f"query {done:{width}d}/{plan.budget}  "
            f"best {number(self._optimizer.best())}  "
            f"{each:.2f} s a query, {duration(each * (plan.budget - done))} "
            "left"
        )


def _print_result(result: dict[str, Any], folder: str) -> None:
    """Prints the result of a run."""
    top = ", ".join(f"top-{k} {number(v)}" for k, v in result["top"].items())
    by = f" by {result['ranked_by']}" if result["ranked_by"] != "score" else ""
    print(
        f"{result['num_queries']} queries ({result['num_failures']} without a "
        f"score, {result['num_distinct']} distinct inputs, "
        f"{result['num_near_repeats']} near-repeats): "
        f"{top + by if top else 'no query has a score yet'}; best in the data "
        f"{number(result['best_in_data'])}"
    )
    for name, figures in result.get("inputs", {}).items():
        if said := optimization_inputs.in_words(figures):
            print(f"{name} {figures['num']} distinct inputs: {said}")
    decodes = result.get("decodes")
    if decodes is not None:
        print(_decoded(decodes))
    print(
        f"ledger, tables, figures and report.html are in {folder}",
        flush=True,
    )


def _decoded(decodes: dict[str, Any]) -> str:
    """Says what the candidates of a run have been decoded to."""
    said = (
        f"{decodes['num']:,} candidates decoded, "
        f"{100.0 * decodes['validity']:.1f} % to an input"
    )
    if decodes["refused"]:
        said += f"; refused before a query: {refusals(decodes['refused'])}"
    return said
