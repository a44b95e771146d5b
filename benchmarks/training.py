# SPDX-License-Identifier: Apache-2.0
"""Benchmark: speed, bound, memory, scaling and profile of TVAE training.

tfvae runs in a separate process (`training_worker`), alternately with the
programs that it is compared with: the reference implementation of the tests,
which is slow and simple, and any other program (see `programs`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tfvae.runs.experiment  # noqa: F401 (registers with gin)
from benchmarks import programs, quality, scaling
from benchmarks.programs import Output, Program
from benchmarks.tables import cell, print_table
from tfvae import typed_gin
from tfvae.ops import bits
from tfvae.runs import config
from tfvae.runs.run_directory import RunDirectory, versions

OURS, PLAIN = "tfvae", "plain"
_PROFILED_STEPS = 50
_SHOWN_OPERATIONS = 15


class Settings(NamedTuple):
    """Settings that the modes share; see `benchmark`."""

    run: RunDirectory
    num_points: int | None
    epochs: int
    repeats: int
    others: list[Program]
    with_plain: bool
    latents: Sequence[int]
    states: Sequence[int]


@typed_gin.configurable
def benchmark(
    run_dir: str | os.PathLike[str],
    *,
    mode: str = "speed",
    num_points: int | None = 4000,
    epochs: int = 3,
    repeats: int = 3,
    compare: Sequence[str] | None = None,
    plain: bool = True,
    latents: Sequence[int] = (16, 64, 256, 1024),
    states: Sequence[int] = (16, 64, 256),
) -> dict[str, Any]:
    """Measures the training of the configured experiment.

    Modes: "speed" (data points per second of whole EM epochs, bound after each
    epoch, memory), "quality" (seconds to reach a bound and, if the data are all
    patches of an image whose clean version is known, a PSNR), "scaling" (cost
    over the numbers of latents and of states), and "profile" (time of a
    training step by operation). An epoch is an E-step and an M-step for every
    data point, in the same loop as in training.

    Args:
      run_dir: Folder for benchmark_<mode>.json and the figures.
      mode: The mode.
      num_points: Number of data points, evenly spaced; None for all.
      epochs: Epochs in each repeat, after a first one, which compiles and only
        counts for "quality".
      repeats: Number of runs of each program, alternating between programs.
      compare: Programs to compare with in "speed" and "quality", each as
        `name=command`; see `programs` for their output.
      plain: Whether to also measure the reference implementation.
      latents: Numbers of latents for "scaling".
      states: Numbers of states for "scaling".

    Returns:
      The settings and the measurements, as in the JSON file.

    Raises:
      ValueError: If a value is out of range.
      RuntimeError: If a program fails, or its output lacks epochs.
    """
    if mode not in MODES:
        raise ValueError(f"`mode` must be one of {[*MODES]!r}, got {mode!r}.")
    sizes = [epochs, repeats, *latents, *states]
    if num_points is not None:
        sizes.append(num_points)
    if min(sizes) < 1 or not latents or not states:
        raise ValueError(
            "`num_points`, `epochs`, `repeats`, `latents` and `states` must "
            f"be at least 1, got {num_points!r}, {epochs!r}, {repeats!r}, "
            f"{latents!r} and {states!r}."
        )
    others = programs.parse(compare or ())
    names = [OURS, PLAIN, *(one.name for one in others)]
    if len(set(names)) < len(names):
        raise ValueError(
            f"`compare` must have distinct names other than {OURS!r} and "
            f"{PLAIN!r}, got {names[2:]!r}."
        )
    settings = Settings(
        RunDirectory(run_dir),
        num_points,
        epochs,
        repeats,
        others,
        plain,
        latents,
        states,
    )
    with settings.run.locked():
        result = {
            "mode": mode,
            **MODES[mode](settings),
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "config": config.text(),
            "versions": versions(),
        }
        path = settings.run.write_json(f"benchmark_{mode}.json", result)
    print(f"wrote {path}")
    return result


# Speed and memory.


def _speed(settings: Settings) -> dict[str, Any]:
    outputs, left_out = _measure(settings, {"epochs": settings.epochs + 1})
    facts = outputs[OURS][0].facts
    rows = {name: _summary(each) for name, each in outputs.items()}
    for row in rows.values():
        row["ratio"] = rows[OURS]["per_second"] / row["per_second"]
    result = {
        "facts": facts,
        "state_store_formula_bytes": _formula_bytes(facts),
        "programs": rows,
        "left_out": left_out,
    }
    _print_speed(result)
    return result


def _summary(outputs: Sequence[Output]) -> dict[str, Any]:
    """Returns the cost of a program over several runs; see `benchmark`."""
    rounds = [
        [row["per_second"] for row in output.epochs[1:]] for output in outputs
    ]
    every = [speed for one in rounds for speed in one]
    startups = [
        output.seconds - sum(row["seconds"] for row in output.epochs)
        for output in outputs
        if all("seconds" in row for row in output.epochs)
    ]
    return {
        "per_second": statistics.median(every),
        "slowest": min(every),
        "fastest": max(every),
        "rounds": rounds,
        "bounds": [row.get("bound") for row in outputs[0].epochs],
        "peak_memory_mb": max(output.peak_memory_mb for output in outputs),
        "startup_seconds": statistics.median(startups) if startups else None,
    }


def _formula_bytes(facts: Mapping[str, Any]) -> int:
    """Returns N S (W + 4), the bytes of packed states and log-joints."""
    if facts["num_states"] == 2 ** facts["num_latents"]:
        return 0  # All states are used, and none are stored.
    packed_size = bits.packed_size(facts["num_latents"])
    return facts["num_data"] * facts["num_states"] * (packed_size + 4)


def _print_speed(result: Mapping[str, Any]) -> None:
    facts, rows = result["facts"], result["programs"]
    _print_facts(facts)
    print(
        f"state store: {facts['state_store_bytes']:,} bytes, "
        f"N S ceil(H/8) + 4 N S = {result['state_store_formula_bytes']:,}; "
        f"checkpoint: {facts['checkpoint_bytes']:,} bytes"
    )
    print()
    print_table(
        ["program", "points/s", "slowest", "fastest", "tfvae is", "peak MB"],
        [
            [
                name,
                f"{row['per_second']:,.0f}",
                f"{row['slowest']:,.0f}",
                f"{row['fastest']:,.0f}",
                f"{row['ratio']:.2f} x",
                f"{row['peak_memory_mb']:,.0f}",
            ]
            for name, row in rows.items()
        ],
    )
    print("\nbound after each epoch, nats per data point")
    bounds = itertools.zip_longest(*(row["bounds"] for row in rows.values()))
    print_table(
        ["epoch", *rows],
        [
            [str(number), *(cell(bound, ".3f") for bound in each)]
            for number, each in enumerate(bounds, 1)
        ],
    )
    _print_left_out(result["left_out"])


# Time to quality.


def _quality(settings: Settings) -> dict[str, Any]:
    outputs, left_out = _measure(
        settings, {"epochs": settings.epochs + 1, "observe": True}
    )
    facts = outputs[OURS][0].facts
    curves = {
        name: quality.curve(each, facts["num_data"])
        for name, each in outputs.items()
    }
    _print_facts(facts)
    figure = settings.run.path / "quality.png"
    found = quality.report(curves, OURS, figure, facts["data"])
    _print_left_out(left_out)
    return {"facts": facts, "curves": curves, **found, "left_out": left_out}


# Scaling.


def _scaling(settings: Settings) -> dict[str, Any]:
    cells = {
        f"H={num_latents} S={num_states}": (num_latents, num_states)
        for num_states in settings.states
        for num_latents in settings.latents
    }
    with _worker_config() as path:
        outputs, _ = programs.alternate(
            [
                _worker(
                    name,
                    path,
                    epochs=settings.epochs + 1,
                    num_points=settings.num_points,
                    bindings=[
                        f"TVAE.num_latents = {num_latents}",
                        f"TVAE.num_states = {num_states}",
                    ],
                )
                for name, (num_latents, num_states) in cells.items()
            ],
            settings.repeats,
        )
    grid = []
    for each in outputs.values():
        found = _summary(each)
        facts = each[0].facts
        grid.append(
            {
                "latents": facts["num_latents"],
                "states": facts["num_states"],
                "per_second": found["per_second"],
                "seconds": 1.0 / found["per_second"],
                "state_store_bytes": facts["state_store_bytes"],
                "state_store_formula_bytes": _formula_bytes(facts),
                "peak_memory_mb": found["peak_memory_mb"],
                "bound": found["bounds"][-1],
            }
        )
    facts = {**facts, "num_latents": None, "num_states": None}
    return {
        "facts": facts,
        "grid": grid,
        **scaling.report(
            grid, settings.run.path / "scaling.png", facts["data"]
        ),
    }


# Profile.


def _profile(settings: Settings) -> dict[str, Any]:
    with _worker_config() as path:
        output = programs.run(
            _worker(
                OURS,
                path,
                profile={
                    "num_points": settings.num_points,
                    "epochs": settings.epochs + 1,
                    "steps": _PROFILED_STEPS,
                },
            ),
            min_epochs=0,
        )
    found = output.facts.pop("profile")
    _print_facts(output.facts)
    _print_profile(found)
    return {"facts": output.facts, **found}


def _print_profile(found: Mapping[str, Any]) -> None:
    step, e_step = found["step_ms"], found["e_step_ms"]
    decoded = found["decoded"]
    print(
        f"a step of the training loop: {found['loop_ms']:.2f} ms, of which "
        f"{step:.2f} ms in TensorFlow: E-step {e_step:.2f} ms, M-step "
        f"{step - e_step:.2f} ms"
    )
    print(
        f"states decoded per step: {decoded['e_states']:,.0f} by the E-step, "
        f"{decoded['m_states']:,.0f} by the M-step, {decoded['ones']:.1f} ones "
        "each\n"
    )
    operations = found["operations"]
    total = sum(row["ms"] for row in operations) or 1.0
    print_table(
        ["operation", "ms", "share", "calls"],
        [
            [
                row["type"],
                f"{row['ms']:.3f}",
                f"{row['ms'] / total:.1%}",
                f"{row['calls']:.1f}",
            ]
            for row in operations[:_SHOWN_OPERATIONS]
        ],
    )
    print(f"all operations: {total:.2f} ms, summed over threads\n")
    if found["flops"] is None:
        print("no FLOP count: the decoder has other layers than dense ones")
        return
    print_table(
        ["arithmetic of a step", "MFLOP"],
        [
            [name, f"{flops / 1e6:,.2f}"]
            for name, flops in found["flops"].items()
        ],
    )
    print(
        f"matrix products reach {found['matmul_gflops']:,.0f} GFLOP/s here, at "
        f"which a step would take {found['ideal_ms']:.3f} ms: it reaches "
        f"{found['roofline_share']:.1%} of the roofline"
    )


# Parts that the modes share.


def _measure(
    settings: Settings, train: dict[str, Any]
) -> tuple[dict[str, list[Output]], dict[str, str]]:
    """Runs tfvae, the reference implementation and others alternately."""
    with _worker_config() as path:
        train = {"num_points": settings.num_points, **train}
        found = [_worker(OURS, path, **train)]
        if settings.with_plain:
            plain = _worker(PLAIN, path, **train, plain=True)
            found.append(plain._replace(is_optional=True))
        return programs.alternate([*found, *settings.others], settings.repeats)


@contextlib.contextmanager
def _worker_config() -> Iterator[pathlib.Path]:
    """Writes gin's configuration to a temporary file for workers."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "config.gin"
        path.write_text(config.text(), encoding="utf-8")
        yield path


def _worker(name: str, path: pathlib.Path, **settings: Any) -> Program:
    """Returns the program that trains with tfvae, from this clone."""
    root = pathlib.Path(__file__).parents[1]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    return Program(
        name,
        [
            "/usr/bin/env",
            f"PYTHONPATH={os.pathsep.join(paths)}",
            *(sys.executable, "-m", "benchmarks.training_worker"),
            *(str(path), json.dumps(settings)),
        ],
    )


def _print_facts(facts: Mapping[str, Any]) -> None:
    print(
        f"\n{facts['data']}: N = {facts['num_data']:,} points of D = "
        f"{facts['num_observed']:,}, H = {facts['num_latents']} latents, S = "
        f"{facts['num_states']} states, batches of {facts['batch_size']}"
    )


def _print_left_out(left_out: Mapping[str, str]) -> None:
    for name, reason in left_out.items():
        print(f"left out: {name} ({reason})")


MODES: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "speed": _speed,
    "quality": _quality,
    "scaling": _scaling,
    "profile": _profile,
}
