# SPDX-License-Identifier: Apache-2.0
"""Benchmark: seconds per epoch of amortised VAEs, compared with PyTorch.

All models train alternately, one epoch at a time, so that fluctuations of the
load of the machine affect all of them: those of tfvae in one process
(`epoch_worker`), those of PyTorch in one each, which wait while others run. The
processes are pinned to the same processors and have one thread per processor.
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
from typing import Any, NamedTuple

import numpy as np

import tfvae.sweeps.study  # noqa: F401 (`GIN_FILE` configures it)
from benchmarks.pinned import Epoch, PinnedProcess
from benchmarks.tables import cell, print_table
from papers.random_encoders import published
from tfvae import typed_gin
from tfvae.runs import config
from tfvae.runs.run_directory import RunDirectory, versions
from tfvae.sweeps.grid import files_and_bindings

GIN_FILE = "papers/thesis2021_random_encoders/base.gin"
BINDINGS = ("IMAGE_SHAPE = (32, 32, 1)", "NUM_OBSERVED = 1024")
"""Bindings before the ones of the user."""

_TORCH = pathlib.Path(__file__).with_name("torch_vae.py")
_TORCH_FLAGS = {
    "PyTorch": [],
    "PyTorch, channels last": ["--channels_last"],
    "PyTorch, compiled": ["--compile"],
    "PyTorch, compiled, channels last": ["--compile", "--channels_last"],
}
_LEARNABLE, _LIMIT = "L", "no encoder"
_HEAD = (
    "program",
    "seconds",
    "fastest",
    "processor",
    "of L",
    "published",
    "others",
)


class Settings(NamedTuple):
    """Settings that all programs share; see `epoch_times`."""

    overrides: Sequence[str]
    encoders: Sequence[str]
    rounds: int
    batch_size: int
    steps_per_execution: int
    cores: list[int]
    torch_python: str


@typed_gin.configurable
def epoch_times(
    run_dir: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    layers: Sequence[str] = ("fc", "conv"),
    priors: Sequence[str] = ("normal",),
    encoders: Sequence[str] = published.ENCODERS,
    rounds: int = 7,
    num_points: int = 25_000,
    data: str | None = None,
    batch_size: int = 256,
    steps_per_execution: int = 14,
    num_threads: int = 2,
    torch_python: str | None = None,
) -> dict[str, Any]:
    """Measures the four encoders, the lower limit of the time, and PyTorch.

    For each kind of layers and each prior: learnable (L), partially
    non-learnable (PNL) and non-learnable (NL) encoders and random kitchen
    sinks (RKS), without and with cached features of frozen layers; decoder and
    prior trained on given latents, which is the lower limit of any encoder; and
    L in PyTorch. The levels are those of `study.factors` in gin's
    configuration.

    Args:
      run_dir: Folder for benchmark_epochs.json and benchmark_epochs.md.
      overrides: Bindings that override all others.
      layers: Levels of the factor "layer".
      priors: Levels of the factor "prior".
      encoders: Levels of the factor "encoder".
      rounds: Epochs of each program, after a first one, which compiles.
      num_points: N, random data points of uniform pixels in [0, 1].
      data: File with an array `[N, D]` to train on instead.
      batch_size: B.
      steps_per_execution: The greatest common divisor of this number and the
        steps of an epoch is used as `steps_per_execution` of Keras.
      num_threads: Threads of each program, one per processor.
      torch_python: A Python interpreter with PyTorch; None for this one.

    Returns:
      The settings and the measurements, as in the JSON file.

    Raises:
      ValueError: If a value is out of range, or a level does not exist.
      RuntimeError: If the process of tfvae fails. PyTorch programs that fail
        are left out.
    """
    _check(rounds, num_points, batch_size, steps_per_execution, num_threads)
    _check_levels(layer=layers, prior=priors, encoder=encoders)
    settings = Settings(
        overrides,
        encoders,
        rounds,
        batch_size,
        steps_per_execution,
        sorted(os.sched_getaffinity(0))[:num_threads],
        torch_python or sys.executable,
    )
    run = RunDirectory(run_dir)
    with run.locked(), tempfile.TemporaryDirectory() as folder:
        points = _points(data, num_points)
        tables = [
            _measured(settings, points, layer, prior, pathlib.Path(folder))
            for layer in layers
            for prior in priors
        ]
        result = {
            "tables": tables,
            "num_data": len(points),
            "batch_size": batch_size,
            "rounds": rounds,
            "threads": len(settings.cores),
            "machine": platform.machine(),
            "config": config.text(),
            "versions": versions(),
        }
        path = run.write_json("benchmark_epochs.json", result)
        text = path.with_suffix(".md")
        text.write_text(_markdown(result), encoding="utf-8")
    print(f"wrote {path} and {text.name}")
    return result


def _check(*counts: int) -> None:
    if min(counts) < 1:
        raise ValueError(
            "`rounds`, `num_points`, `batch_size`, `steps_per_execution` and "
            f"`num_threads` must be at least 1, got {counts!r}."
        )


def _check_levels(**asked: Sequence[str]) -> None:
    factors = config.value("study.factors")
    for name, levels in asked.items():
        if not levels or not set(levels) <= set(factors[name]):
            raise ValueError(
                f"`{name}s` must be some of {[*factors[name]]!r}, got "
                f"{levels!r}."
            )


def _points(data: str | None, num_points: int) -> np.ndarray:
    """Returns the data, `[N, D]` float32."""
    if data is not None:
        return np.load(data).astype(np.float32)
    (num_observed,) = (
        int(one.partition("=")[2]) for one in BINDINGS if "NUM_OBS" in one
    )
    return np.random.default_rng(0).random(
        (num_points, num_observed), np.float32
    )


# Measurements of one kind of layers and one prior.


def _measured(
    settings: Settings,
    points: np.ndarray,
    layer: str,
    prior: str,
    folder: pathlib.Path,
) -> dict[str, Any]:
    """Measures all programs of a layer and a prior, and prints a table."""
    np.save(folder / "points.npy", points)
    (folder / "config.gin").write_text(config.text(), encoding="utf-8")
    times: dict[str, list[Epoch]] = {}
    with _started(settings, layer, prior, folder) as (programs, left_out):
        for number in range(settings.rounds + 1):
            for name, (process, line) in programs.items():
                times.setdefault(name, []).append(process.epoch(line))
            done = f"{number}/{settings.rounds}" if number else "0, compiling"
            print(f"{layer} {prior}: round {done}", flush=True)
    rows = _rows({name: each[1:] for name, each in times.items()}, layer, prior)
    print(f"\n{layer} layers, {prior} prior; N = {len(points):,}")
    print_table(_HEAD, [_cells(row) for row in rows])
    for name, reason in left_out.items():
        print(f"left out: {name} ({reason})")
    print()
    return {"layer": layer, "prior": prior, "rows": rows, "left_out": left_out}


@contextlib.contextmanager
def _started(
    settings: Settings, layer: str, prior: str, folder: pathlib.Path
) -> Iterator[tuple[dict[str, tuple[PinnedProcess, str]], dict[str, str]]]:
    """Starts all processes, and ends them on exit.

    Yields:
      By program, its process and the request to train an epoch; and the errors
      of PyTorch programs that are left out.
    """
    programs: dict[str, tuple[PinnedProcess, str]] = {}
    left_out = {}
    with contextlib.ExitStack() as stack:

        def start(argv: Sequence[str]) -> PinnedProcess:
            log = folder / f"log{len(programs)}.txt"
            process = PinnedProcess(argv, settings.cores, log)
            stack.enter_context(process).read("facts")
            return process

        process = start(ours(settings, layer, prior, folder))
        for name in _forms(settings.encoders):
            programs[name] = process, name
        for name, flags in _TORCH_FLAGS.items():
            if layer == "fc" and "--channels_last" in flags:
                continue
            argv = [*theirs(settings, layer, prior, folder), *flags]
            try:
                programs[name] = start(argv), "epoch"
            except RuntimeError as err:
                left_out[name] = str(err)
        yield programs, left_out


def _forms(encoders: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Returns encoder and form (see `epoch_worker`) of tfvae's programs."""
    forms = {}
    for encoder in encoders:
        forms[encoder] = encoder, "plain"
        if encoder != _LEARNABLE:
            forms[f"{encoder}, cached"] = encoder, "cached"
    forms[_LIMIT] = encoders[-1], "given"
    return forms


def ours(
    settings: Settings, layer: str, prior: str, folder: pathlib.Path
) -> list[str]:
    """Returns the command that starts the process of tfvae."""
    factors = config.value("study.factors")
    programs = []
    for name, (encoder, form) in _forms(settings.encoders).items():
        levels = {"layer": layer, "prior": prior, "encoder": encoder}
        chosen = {factor: factors[factor] for factor in levels}
        files, bindings = files_and_bindings(chosen, levels)
        bindings += [
            "experiment.data = @array_file()",
            f"array_file.path = {str(folder / 'points.npy')!r}",
            *settings.overrides,
        ]
        programs.append(
            {"name": name, "form": form, "files": files, "bindings": bindings}
        )
    arguments = {
        "config": str(folder / "config.gin"),
        "batch_size": settings.batch_size,
        "steps_per_execution": settings.steps_per_execution,
        "programs": programs,
    }
    module = "benchmarks.epoch_worker"
    return [sys.executable, "-m", module, json.dumps(arguments)]


def theirs(
    settings: Settings, layer: str, prior: str, folder: pathlib.Path
) -> list[str]:
    """Returns the command that starts a process of PyTorch, without options."""
    return [
        settings.torch_python,
        str(_TORCH),
        f"--layer={layer}",
        f"--prior={prior}",
        f"--data={folder / 'points.npy'}",
        f"--batch_size={settings.batch_size}",
        f"--threads={len(settings.cores)}",
        "--epochs=0",
    ]


# Tables.


def _rows(
    times: Mapping[str, Sequence[Epoch]], layer: str, prior: str
) -> list[dict[str, Any]]:
    """Returns a row for each program, from its epochs."""
    rows = []
    for name, epochs in times.items():
        seconds = [one.seconds for one in epochs]
        # By round, as a slow round is slow for all programs.
        pairs = zip(epochs, times.get(_LEARNABLE, ()), strict=False)
        ratios = [one.seconds / learnable.seconds for one, learnable in pairs]
        rows.append(
            {
                "program": name,
                "seconds": statistics.median(seconds),
                "fastest": min(seconds),
                "processor_seconds": statistics.median(
                    one.processor_seconds for one in epochs
                ),
                "ratio": statistics.median(ratios) if ratios else None,
                "published_ratio": published_ratio(layer, prior, name),
                "others": statistics.median(one.others for one in epochs),
                "rounds": seconds,
            }
        )
    return rows


def published_ratio(layer: str, prior: str, encoder: str) -> float | None:
    """Returns the published seconds of an encoder over those of L."""
    pair = [
        published.find(
            "mnist",
            "seconds_per_epoch",
            {"layer": layer, "prior": prior, "encoder": one},
        )
        for one in (encoder, _LEARNABLE)
    ]
    if pair[0] is None or pair[1] is None:
        return None
    return pair[0].mean / pair[1].mean


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["program"],
        f"{row['seconds']:.3f}",
        f"{row['fastest']:.3f}",
        f"{row['processor_seconds']:.2f}",
        cell(row["ratio"], ".2f"),
        cell(row["published_ratio"], ".2f"),
        f"{row['others']:.0%}",
    ]


def _markdown(result: Mapping[str, Any]) -> str:
    """Returns all tables as Markdown."""
    lines = [
        f"Seconds per epoch of {result['num_data']:,} data points in batches "
        f"of {result['batch_size']}, {result['threads']} threads: median and "
        f"minimum of {result['rounds']} epochs, alternating between programs.",
        "",
        "Processor: median CPU time of all threads in seconds, which depends "
        "least on other load. Of L: median ratio of seconds to those of L in "
        "the same round. Others: fraction of the processors that other "
        "programs used.",
    ]
    for table in result["tables"]:
        lines += ["", f"## {table['layer']} layers, {table['prior']} prior", ""]
        lines.append(f"| {' | '.join(_HEAD)} |")
        lines.append(f"|{'---|' * len(_HEAD)}")
        lines += [f"| {' | '.join(_cells(row))} |" for row in table["rows"]]
        for name, reason in table["left_out"].items():
            lines += ["", f"Left out: {name} ({reason})."]
    return "\n".join(lines) + "\n"
