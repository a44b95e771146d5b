# SPDX-License-Identifier: Apache-2.0
"""Measures how fast a configuration trains, and in how much memory."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import tempfile
from typing import Any, NamedTuple

import gin

import tfvae.checkpoints
from tfvae.callbacks import Observation
from tfvae.runners import config
from tfvae.runners.experiment import Experiment, experiment, fit
from tfvae.runners.run_directory import RunDirectory, versions


class Measurement(NamedTuple):
    """A few epochs, one after the other."""

    per_second: list[float]
    """Data points per second of each epoch."""
    peak_memory_mb: float
    """The most memory that the process has ever had, MB."""


@gin.configurable
def benchmark(
    run_dir: str | os.PathLike[str],
    *,
    num_points: int = 4000,
    epochs: int = 3,
    repeats: int = 3,
    compare: str | None = None,
) -> dict[str, Any]:
    """Times whole EM epochs of the configured experiment.

    An epoch is E-step and M-step for every data point, through the same loop
    as training. The first one of each repeat compiles, and does not count.
    With `compare`, both are run in turn, so that whatever else the machine
    does falls on both alike.

    Args:
      run_dir: Folder for benchmark.json.
      num_points: Train on so many data points, evenly spaced.
      epochs: Epochs that count in each repeat.
      repeats: How often to begin anew.
      compare: A shell command that prints a JSON line with "per_second" for
        each epoch. Its first line does not count either.

    Returns:
      The settings and the measurements, medians over all epochs that count.

    Raises:
      ValueError: If a number is less than 1.
      RuntimeError: If the command fails, or prints no second JSON line.
    """
    if min(num_points, epochs, repeats) < 1:
        raise ValueError(
            "`num_points`, `epochs` and `repeats` must be at least 1, got "
            f"{num_points!r}, {epochs!r} and {repeats!r}."
        )
    run = RunDirectory(run_dir)
    with run.locked():
        ours, theirs = [], []
        for _ in range(repeats):
            parts = experiment(max_points=num_points)
            ours.append(_train(parts, epochs + 1))
            if compare is not None:
                theirs.append(_run_command(compare))
        result = {**_describe(parts), "tfvae": _summarise(ours)}
        if compare is not None:
            result["compared"] = {"command": compare, **_summarise(theirs)}
            result["ratio"] = (
                result["tfvae"]["per_second"] / result["compared"]["per_second"]
            )
        path = run.write_json("benchmark.json", result)
    _print_table(result)
    print(f"wrote {path}")
    return result


def _train(parts: Experiment, epochs: int) -> Measurement:
    """Trains in a folder that goes away; the first epoch does not count."""
    with tempfile.TemporaryDirectory() as folder:
        rows = fit(
            RunDirectory(folder),
            parts,
            lambda epoch: Observation({}, {}),
            epochs=epochs,
            observe_every=epochs,
            checkpoint_every=epochs,
        )
    num_data = parts.observations.num_data
    return Measurement(
        [num_data / row["seconds"] for row in rows[1:]],
        _peak_memory_mb(resource.RUSAGE_SELF),
    )


def _run_command(command: str) -> Measurement:
    """Runs an outside command and reads the speed of its epochs."""
    ended = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise RuntimeError(
            f"`compare` must be a command that succeeds, got exit code "
            f"{ended.returncode} from {command!r}: {ended.stderr[-500:]}"
        )
    found = []
    for line in ended.stdout.splitlines():
        try:
            found.append(float(json.loads(line)["per_second"]))
        except (ValueError, TypeError, KeyError):
            continue
    if len(found) < 2:
        raise RuntimeError(
            '`compare` must print a JSON line with "per_second" for each of '
            f"at least two epochs, got {len(found)} from {command!r}."
        )
    return Measurement(found[1:], _peak_memory_mb(resource.RUSAGE_CHILDREN))


def _peak_memory_mb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1024.0


def _summarise(rounds: list[Measurement]) -> dict[str, Any]:
    every = [speed for one in rounds for speed in one.per_second]
    return {
        "per_second": statistics.median(every),
        "slowest": min(every),
        "fastest": max(every),
        "rounds": [one.per_second for one in rounds],
        "peak_memory_mb": max(one.peak_memory_mb for one in rounds),
    }


def _describe(parts: Experiment) -> dict[str, Any]:
    """Returns what was measured on what."""
    model, data = parts.model, parts.observations
    states = model.states
    return {
        "data": data.name,
        "num_data": data.num_data,
        "num_observed": data.num_observed,
        "num_latents": model.num_latents,
        "num_states": model.num_states,
        "batch_size": config.value("fit.batch_size"),
        "state_store_mb": 0.0
        if states is None
        else sum(v.value.numpy().nbytes for v in states.weights) / 2**20,
        "checkpoint_mb": tfvae.checkpoints.checkpoint_bytes(model) / 2**20,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "config": config.text(),
        "versions": versions(),
    }


def _print_table(result: dict[str, Any]) -> None:
    print(
        f"{result['data']}: {result['num_data']:,} points of "
        f"{result['num_observed']:,} dimensions, {result['num_latents']} "
        f"latents, {result['num_states']} states; states take "
        f"{result['state_store_mb']:.1f} MB, a checkpoint "
        f"{result['checkpoint_mb']:.1f} MB"
    )
    print(f"{'':10}{'points/s':>10}{'slowest':>10}{'fastest':>10}{'MB':>8}")
    for name in ("tfvae", "compared"):
        if name in result:
            row = result[name]
            print(
                f"{name:10}{row['per_second']:10.0f}{row['slowest']:10.0f}"
                f"{row['fastest']:10.0f}{row['peak_memory_mb']:8.0f}"
            )
    if "ratio" in result:
        print(f"tfvae is {result['ratio']:.2f} times as fast")
