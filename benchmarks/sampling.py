# SPDX-License-Identifier: Apache-2.0
"""Benchmark: throughput of weighted sampling, compared with PyTorch.

tfvae (`sampling_worker`) and PyTorch (`torch_sampler`) run in separate
processes on the same processors, with one thread per processor. They measure
alternately, so that fluctuations of the load of the machine affect both.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.pinned import PinnedProcess
from benchmarks.tables import print_table
from tfvae import typed_gin
from tfvae.runs import config
from tfvae.runs.run_directory import RunDirectory, versions

_TORCH = pathlib.Path(__file__).with_name("torch_sampler.py")
_OURS, _THEIRS = "tfvae", "PyTorch"
# The measurements of each, by the names of its process.
_MEASURES = {
    _OURS: ("graph", "python", "draws", "replace", "ready"),
    _THEIRS: ("default", "batched", "single", "draws", "replace", "ready"),
}
_POINTS_A_SECOND = {
    "graph": "tfvae, taken in a graph",
    "python": "tfvae, taken in Python",
    "batched": "PyTorch, whole batches",
    "single": "PyTorch, whole batches, one thread",
    "default": "PyTorch, DataLoader",
}


@typed_gin.configurable
def sampling(
    run_dir: str | os.PathLike[str],
    *,
    num_points: Sequence[int] = (10_000, 1_000_000, 10_000_000),
    num_observed: int = 64,
    batch_size: int = 256,
    k: float = 1e-3,
    rounds: int = 5,
    limit_seconds: float = 2.0,
    num_threads: int = 2,
    torch_python: str | None = None,
) -> dict[str, Any]:
    """Measures weighted sampling with replacement, with rank-based weights.

    PyTorch draws all indices of an epoch of N draws at its start, which counts
    for its data points per second; the rest of a long epoch is extrapolated
    from its first seconds. tfvae draws continuously, without epochs.

    Args:
      run_dir: Folder for benchmark_sampling.json.
      num_points: Numbers of data points, N.
      num_observed: D. The largest data set takes 4 N D bytes, in each of two
        processes.
      batch_size: B.
      k: Parameter of the weights 1 / (k N + rank), which are in random order.
      rounds: Measurements of each kind, after a warm-up round.
      limit_seconds: Duration of a measurement of batches.
      num_threads: Threads of each process, one per processor.
      torch_python: A Python interpreter with PyTorch; None for this one.

    Returns:
      The settings and the measurements, as in the JSON file.

    Raises:
      ValueError: If a value is out of range.
      RuntimeError: If the process of tfvae fails. PyTorch is left out if its
        process fails.
    """
    counts = (*num_points, num_observed, batch_size, rounds, num_threads)
    if not num_points or min(counts) < 1 or not min(k, limit_seconds) > 0.0:
        raise ValueError(
            "`num_points`, `num_observed`, `batch_size`, `rounds` and "
            "`num_threads` must be at least 1, `k` and `limit_seconds` "
            f"positive, got {counts!r}, {k!r} and {limit_seconds!r}."
        )
    cores = sorted(os.sched_getaffinity(0))[:num_threads]
    arguments = {
        "num_observed": num_observed,
        "batch_size": batch_size,
        "k": k,
        "seed": 0,
        "limit": limit_seconds,
        "threads": len(cores),
    }
    run = RunDirectory(run_dir)
    with run.locked():
        tables = [
            _measured(
                {**arguments, "num_points": number},
                torch_python or sys.executable,
                cores,
                rounds,
            )
            for number in num_points
        ]
        result = {
            "tables": tables,
            **arguments,
            "rounds": rounds,
            "machine": platform.machine(),
            "config": config.text(),
            "versions": versions(),
        }
        path = run.write_json("benchmark_sampling.json", result)
    print(f"wrote {path}")
    return result


def ours(arguments: Mapping[str, Any]) -> list[str]:
    """Returns the command that starts the process of tfvae."""
    module = "benchmarks.sampling_worker"
    return [sys.executable, "-m", module, json.dumps(arguments)]


def theirs(arguments: Mapping[str, Any], torch_python: str) -> list[str]:
    """Returns the command that starts the process of PyTorch."""
    return [torch_python, str(_TORCH), json.dumps(arguments)]


def _measured(
    arguments: Mapping[str, Any],
    torch_python: str,
    cores: Sequence[int],
    rounds: int,
) -> dict[str, Any]:
    """Runs and prints all measurements for a number of data points."""
    seconds: dict[str, dict[str, list[float]]] = {}
    others = []
    commands = {
        _OURS: ours(arguments),
        _THEIRS: theirs(arguments, torch_python),
    }
    with _started(commands, cores) as (processes, left_out):
        for number in range(rounds + 1):
            for name, process in processes.items():
                for measure in _MEASURES[name]:
                    one = process.epoch(measure)
                    if number:
                        every = seconds.setdefault(name, {})
                        every.setdefault(measure, []).append(one.seconds)
                        others.append(one.others)
            done = f"{number}/{rounds}" if number else "0, warming up"
            print(f"N = {arguments['num_points']:,}: round {done}", flush=True)
    medians = {
        name: {key: statistics.median(each) for key, each in every.items()}
        for name, every in seconds.items()
    }
    table = {
        "num_points": arguments["num_points"],
        "medians": medians,
        "rounds": seconds,
        "others": statistics.median(others),
        "left_out": left_out,
    }
    _print(table)
    return table


@contextlib.contextmanager
def _started(
    commands: Mapping[str, Sequence[str]], cores: Sequence[int]
) -> Iterator[tuple[dict[str, PinnedProcess], dict[str, str]]]:
    """Starts the processes, and ends them on exit.

    Yields:
      The processes, and the error of PyTorch's if it is left out.
    """
    processes: dict[str, PinnedProcess] = {}
    left_out = {}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for name, argv in commands.items():
            log = pathlib.Path(folder) / f"log_{name}.txt"
            process = stack.enter_context(PinnedProcess(argv, cores, log))
            try:
                process.read("facts")
            except RuntimeError as err:
                if name == _OURS:
                    raise
                left_out[name] = str(err)
                continue
            processes[name] = process
        yield processes, left_out


def _print(table: Mapping[str, Any]) -> None:
    """Prints the medians of a number of data points."""
    medians = table["medians"]
    print(f"\nN = {table['num_points']:,}; others: {table['others']:.0%}")
    print_table(
        ["data points per second", ""],
        [
            [title, f"{1.0 / every[measure]:,.0f}"]
            for measure, title in _POINTS_A_SECOND.items()
            for every in medians.values()
            if measure in every
        ],
    )
    print()
    forms = {
        "draws": ("indices per second", lambda value: f"{1 / value:,.0f}"),
        "replace": ("ms to replace weights", lambda v: f"{1e3 * v:,.2f}"),
        "ready": ("ms until the first batch", lambda v: f"{1e3 * v:,.2f}"),
    }
    rows = [
        [title, *(form(every[measure]) for every in medians.values())]
        for measure, (title, form) in forms.items()
    ]
    print_table(["", *medians], rows)
    for name, reason in table["left_out"].items():
        print(f"left out: {name} ({reason})")
    print()
