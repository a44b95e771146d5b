# SPDX-License-Identifier: Apache-2.0
"""Benchmark: what evaluators make of bad objectives, and their throughput.

Usage:
  PYTHONPATH=. python -m benchmarks.evaluators

Prints Markdown. First, eight inputs on two workers, of which one hangs with two
children, one of them in a session of its own, one raises and one is killed:
what is recorded, when, and which processes are alive afterwards. `InProcess`
only gets the inputs that it can survive. Then evaluations per second of
objectives that sleep, with two workers, and the efficiency: the ideal time, of
two workers that do nothing but sleep, as a fraction of that taken.
"""

from __future__ import annotations

import os
import pathlib
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil

from tfvae.lso import InProcess, ProcessPool, RayPool
from tfvae.lso.evaluation import Evaluator, Result

_LIMIT_SECONDS = 5.0
_HANGS, _RAISES, _KILLED = 2, 4, 6
# Seconds of an evaluation -> the number of evaluations.
_THROUGHPUT = {0.1: 100, 1.0: 20, 10.0: 4}


class Bad:
    """Objective of the numbers 0 to 7, three of which go wrong."""

    def __init__(self, path: pathlib.Path) -> None:
        """Takes the file that processes of the one that hangs are noted in."""
        self._path = path

    def __call__(self, number: int) -> float:
        if number == _HANGS:
            found = [os.getpid(), *map(_start_child, (False, True))]
            self._path.write_text(" ".join(map(str, found)), encoding="utf-8")
            time.sleep(1000)
        if number == _RAISES:
            raise ValueError("no such molecule")
        if number == _KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2)
        return float(number**2)


def _start_child(has_own_session: bool) -> int:
    return os.posix_spawnp(
        "sleep", ["sleep", "1000"], os.environ, setsid=has_own_session
    )


def sleep(seconds: float) -> float:
    """Objective that takes a time."""
    time.sleep(seconds)
    return seconds


def bad_row(name: str, evaluator: Evaluator, inputs: Sequence[int]) -> str:
    """Returns the row of an evaluator of the table of bad objectives."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "processes")
        started = time.perf_counter()
        found: dict[int, tuple[float, Result]] = {}

        def done(i: int, result: Result) -> None:
            found[inputs[i]] = time.perf_counter() - started, result

        evaluator(Bad(path), inputs, done)
        cells = [name]
        for number in (_RAISES, _KILLED, _HANGS):
            if number not in found:
                cells.append("(left out)")
                continue
            seconds, result = found[number]
            cells.append(f"{result.failure}; {seconds:.1f} s")
        alive = [one for one in _noted(path) if _is_alive(one)]
        others = [i for i in inputs if i not in (_HANGS, _RAISES, _KILLED)]
        good = [i for i in others if found[i][1].score == i**2]
        cells += [str(len(alive)), f"{len(good)} of {len(others)}"]
    return _row(cells)


def _noted(path: pathlib.Path) -> list[int]:
    return [*map(int, path.read_text().split())] if path.exists() else []


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def throughput_row(name: str, evaluator: Evaluator, workers: int) -> str:
    """Returns the row of an evaluator of the table of throughput."""
    cells = [name]
    for seconds, number in _THROUGHPUT.items():
        started = time.perf_counter()
        evaluator(sleep, _repeated(seconds, number), lambda i, result: None)
        taken = time.perf_counter() - started
        ideal = seconds * number / workers
        cells.append(f"{number / taken:.2f} ({ideal / taken:.1%})")
    return _row(cells)


def _repeated(value: Any, number: int) -> Iterator[Any]:
    return iter([value] * number)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _print_table(head: Sequence[str], rows: Iterator[str]) -> None:
    print(_row(head), _row(["---"] * len(head)), sep="\n")
    for row in rows:
        print(row, flush=True)
    print()


def _start(make: Callable[[], Any]) -> tuple[Any, float]:
    """Returns an evaluator and the seconds until it gave its first results."""
    started = time.perf_counter()
    evaluator = make()
    evaluator(sleep, [0.0, 0.0], lambda i, result: None)
    return evaluator, time.perf_counter() - started


def main() -> None:
    """Prints the tables."""
    process_pool, pool_seconds = _start(lambda: ProcessPool(2, _LIMIT_SECONDS))
    ray_pool, ray_seconds = _start(lambda: RayPool(2, _LIMIT_SECONDS))
    print(
        f"Until the first two results: ProcessPool {pool_seconds:.1f} s, "
        f"RayPool {ray_seconds:.1f} s.\n"
    )
    every = range(8)
    survived = [one for one in every if one not in (_HANGS, _KILLED)]
    with process_pool, ray_pool:
        _print_table(
            ["", "raises", "is killed", "hangs", "alive", "others recorded"],
            (
                bad_row(name, evaluator, inputs)
                for name, evaluator, inputs in (
                    ("`InProcess`", InProcess(), survived),
                    ("`ProcessPool`", process_pool, every),
                    ("`RayPool`", ray_pool, every),
                )
            ),
        )
        process_pool.timeout_seconds = ray_pool.timeout_seconds = None
        _start(lambda: ray_pool)  # Processes with the new time limit.
        _print_table(
            ["evaluations per second", *(f"{s:g} s" for s in _THROUGHPUT)],
            (
                throughput_row(name, evaluator, 2)
                for name, evaluator in (
                    ("`ProcessPool(2)`", process_pool),
                    ("`RayPool(2)`", ray_pool),
                )
            ),
        )


if __name__ == "__main__":
    main()
