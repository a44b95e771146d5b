# SPDX-License-Identifier: Apache-2.0
"""Study: runs every cell of a grid of configurations, then writes a report."""

from __future__ import annotations

import contextlib
import importlib
import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin

import tfvae.runs.optimize
import tfvae.sweeps.training_cell  # noqa: F401 (gin files name these)
from tfvae.runs import config, identity
from tfvae.runs.run_directory import RunDirectory, UnexpectedError
from tfvae.sweeps import folders, pool
from tfvae.sweeps.grid import (
    Cell,
    Factors,
    Layout,
    cells,
    files_and_bindings,
)

# Runs cells; see `worker`.
_WORKER = [sys.executable, "-m", "tfvae.sweeps.worker"]
_REPORT = "tfvae.sweeps.report:write"
_ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "TF_NUM_INTEROP_THREADS",
        "TF_NUM_INTRAOP_THREADS",
    )
}
_SHOWN_FAILURES = 5


@gin.configurable
def study(
    run_dir: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    factors: Factors = gin.REQUIRED,
    repetitions: int = 5,
    seed: int = 0,
    seed_bindings: Sequence[str] = ("experiment.seed = {seed}",),
    exclude: Sequence[Mapping[str, str]] = (),
    once: Sequence[Mapping[str, str]] = (),
    columns: str | None = None,
    separate: Sequence[str] = (),
    smoke: bool = False,
    smoke_bindings: Sequence[str] = ("fit.epochs = 1",),
    workers: int | None = None,
    cell: str = "tfvae.sweeps.training_cell:run_cell",
    report: str = _REPORT,
) -> None:
    """Runs the cells of a study that are not yet finished, then reports.

    The configuration of a cell is gin's present one without that of the
    study, then the files of its levels, their bindings, those of its seed,
    and `overrides`. What fails is written to error.txt of the cell, and does
    not keep the others from being trained; the next call tries it again.

    Args:
      run_dir: Folder of the study, see `folders`.
      overrides: Bindings for all cells that override all others.
      factors: What is varied: factor -> level -> gin files and bindings.
      repetitions: How often each combination of levels is trained.
      seed: Of the first repetition; the others count on from it.
      seed_bindings: Bindings with `{seed}` where the seed of a cell goes.
      exclude: Combinations of levels to leave out.
      once: Combinations of levels that have the first repetition alone.
      columns: The factor whose levels are the columns of the tables; the
        last one by default.
      separate: Factors whose levels have tables and tests of their own.
      smoke: Whether to see only that everything runs: one repetition, with
        `smoke_bindings`.
      smoke_bindings: Bindings that make a cell as small as can be.
      workers: Processes at a time, of one thread each; as many as there are
        processors by default.
      cell: What runs a cell, `module:function`; see `worker`.
      report: What writes the report, `module:function` of the folder of the
        study.

    Raises:
      TypeError: If `factors` is not of that form.
      ValueError: If a value is out of range, two combinations of levels are
        the same, or `run_dir` has cells of another configuration.
      ImportError: If what runs cells or reports needs what is not installed.
      OSError: If a gin file does not exist.
      RuntimeError: If another process is at `run_dir`.
      UnexpectedError: If cells failed, after all others were trained.
    """
    num_workers = _checked_workers(workers)
    _function("cell", cell)
    _function("report", report)
    layout = Layout.of(factors, columns, separate)
    grid = cells(
        factors,
        1 if smoke else repetitions,
        seed=seed,
        exclude=exclude,
        once=once,
    )
    last = [*overrides, *(smoke_bindings if smoke else ())]
    run = RunDirectory(run_dir)
    with run.locked():
        base = run.path / folders.BASE
        folders.write_text(base, _without_study(config.text()))
        texts = _texts(base, grid, factors, seed_bindings, last)
        _check_distinct(grid, texts)
        _check_same(run.path, texts)
        _write_study(run.path, grid, layout, texts, report)
        failed = _run(run.path, grid, num_workers, cell)
        write_report(run.path)
    if failed:
        raise UnexpectedError(_failures(run.path, failed, len(grid)))


def write_report(run_dir: str | os.PathLike[str]) -> None:
    """Writes the report of what is finished of a study.

    Args:
      run_dir: Folder of the study.

    Raises:
      FileNotFoundError: If there is no study.
      ImportError: If the report needs what is not installed.
      ValueError: If an earlier version wrote study.json, so that it names no
        report of this one.
    """
    path = pathlib.Path(run_dir)
    name = folders.read_study(path).get("report", _REPORT)
    try:
        report = _function("report", name)
    except ValueError as err:
        why = f"its report is {name!r} ({err.__cause__})"
        raise ValueError(folders.outdated(path, why)) from err
    report(path)


def _function(argument: str, name: str) -> Callable[..., Any]:
    """Returns the function that `module:function` is the name of."""
    module, _, function = name.partition(":")
    try:
        with config.explaining_imports():
            return getattr(importlib.import_module(module), function)
    except (AttributeError, ModuleNotFoundError, ValueError) as err:
        raise ValueError(
            f"`study.{argument}` must be the name of a function, such as "
            f"{_REPORT!r}, got {name!r} ({err})."
        ) from err


def _checked_workers(workers: int | None) -> int:
    if workers is None:
        return len(os.sched_getaffinity(0))
    if not isinstance(workers, int) or workers < 1:
        raise ValueError(
            f"`study.workers` must be a positive integer, got {workers!r}."
        )
    return workers


def _without_study(text: str) -> str:
    """Returns a configuration without what is bound to `study`."""
    kept, is_ours = [], False
    for line in text.splitlines():
        if line and not line[0].isspace():
            is_ours = line.startswith("study.")
        if not is_ours:
            kept.append(line)
    return "\n".join(kept) + "\n"


def _texts(
    base: pathlib.Path,
    grid: Sequence[Cell],
    factors: Factors,
    seed_bindings: Sequence[str],
    overrides: Sequence[str],
) -> dict[str, str]:
    """Returns the whole configuration of each cell by its name."""
    found = {}
    for cell in grid:
        files, bindings = files_and_bindings(factors, cell.levels)
        seeds = [one.replace("{seed}", str(cell.seed)) for one in seed_bindings]
        config.load([base, *files], [*bindings, *seeds, *overrides])
        found[cell.name] = config.text()
    return found


def _check_distinct(grid: Sequence[Cell], texts: Mapping[str, str]) -> None:
    """Raises a ValueError if two cells would be the same training."""
    owners: dict[str, str] = {}
    for cell in grid:
        other = owners.setdefault(texts[cell.name], cell.name)
        if other != cell.name:
            raise ValueError(
                "`study.factors` and `study.seed_bindings` must give every "
                f"cell another configuration, got the same for {other} and "
                f"{cell.name}."
            )


def _check_same(run_dir: pathlib.Path, texts: Mapping[str, str]) -> None:
    """Raises a ValueError if there are cells of another configuration."""
    for name, text in texts.items():
        path = run_dir / folders.CELLS / name / folders.CONFIG
        if not path.exists():
            continue
        saved = path.read_text(encoding="utf-8")
        identity.check(run_dir, saved, text, identity.CELL, f"cell {name}")


def _write_study(
    run_dir: pathlib.Path,
    grid: Sequence[Cell],
    layout: Layout,
    texts: Mapping[str, str],
    report: str,
) -> None:
    for name, text in texts.items():
        folder = run_dir / folders.CELLS / name
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / folders.CONFIG).exists():
            folders.write_text(folder / folders.CONFIG, text)
    content: dict[str, Any] = {
        "report": report,
        "layout": layout._asdict(),
        "cells": [{"name": cell.name, **cell._asdict()} for cell in grid],
    }
    folders.write_json(run_dir / folders.STUDY, content)


def _run(
    run_dir: pathlib.Path, grid: Sequence[Cell], num_workers: int, cell: str
) -> dict[str, str]:
    """Runs the cells that are left; returns what failed, and why."""
    progress = _Progress(run_dir, grid, num_workers)
    jobs = [
        pool.Job(one.name, run_dir / folders.CELLS / one.name)
        for one in grid
        if one.name in progress.left
    ]
    progress.announce()
    if not jobs:
        return {}
    failed: dict[str, str] = {}
    outcomes = pool.run(
        jobs,
        [*_WORKER, cell],
        num_workers,
        run_dir / "workers.log",
        {**_ONE_THREAD, "PYTHONPATH": _python_path()},
    )
    with contextlib.closing(outcomes):  # type: ignore[type-var]
        for outcome in outcomes:
            result = outcome.job.path / folders.RESULT
            if outcome.is_lost and folders.read_json(result) is not None:
                # Its process died between the result and the answer.
                outcome = outcome._replace(error=None)
            if outcome.error is not None:
                failed[outcome.job.name] = outcome.error
                if outcome.is_lost:
                    folders.write_text(
                        outcome.job.path / folders.ERROR, outcome.error + "\n"
                    )
            progress.tell(outcome)
    return failed


def _python_path() -> str:
    """Returns where this process imports from, for processes it starts."""
    return os.pathsep.join(map(os.path.abspath, sys.path))


class _Progress:
    """What is done, and how long the rest will take."""

    def __init__(
        self, run_dir: pathlib.Path, grid: Sequence[Cell], num_workers: int
    ) -> None:
        self._run_dir = run_dir
        self._num_workers = num_workers
        self._levels = {cell.name: (*cell.levels.values(),) for cell in grid}
        self._seconds: dict[tuple[str, ...], list[float]] = {}
        self._started = time.perf_counter()
        self.left = set(self._levels)
        for name in [*self.left]:
            result = folders.read_json(
                run_dir / folders.CELLS / name / folders.RESULT
            )
            if result is not None:
                self._count(name, result.get("cell_seconds"))

    def _count(self, name: str, seconds: float | None) -> None:
        self.left.discard(name)
        if seconds is not None:
            self._seconds.setdefault(self._levels[name], []).append(seconds)

    def announce(self) -> None:
        """Prints what is about to be run."""
        total = len(self._levels)
        print(
            f"{total} cells, {total - len(self.left)} of them finished before, "
            f"{min(self._num_workers, len(self.left))} at a time",
            flush=True,
        )

    def tell(self, outcome: pool.Outcome) -> None:
        """Prints what became of a cell, and the time that is left."""
        name, error = outcome.job.name, outcome.error
        self._count(name, outcome.seconds if error is None else None)
        done = len(self._levels) - len(self.left)
        what = f"{outcome.seconds:.1f} s" if error is None else "FAILED"
        line = f"{done}/{len(self._levels)}  {name}  {what}"
        if self.left:
            line += f"; {self._time_left()} left"
        print(line if error is None else f"{line}: {error}", flush=True)

    def _time_left(self) -> str:
        known = [one for times in self._seconds.values() for one in times]
        if not known:
            return "unknown time"
        mean = sum(known) / len(known)
        needed = 0.0
        for name in self.left:
            times = self._seconds.get(self._levels[name])
            needed += sum(times) / len(times) if times else mean
        seconds = round(needed / self._num_workers)
        if seconds < 90:
            return f"{seconds} s"
        if seconds < 5400:
            return f"{seconds / 60:.0f} min"
        return f"{seconds / 3600:.1f} h"


def _failures(
    run_dir: pathlib.Path, failed: Mapping[str, str], total: int
) -> str:
    shown = [f"{name} ({why})" for name, why in failed.items()]
    more = len(shown) - _SHOWN_FAILURES
    if more > 0:
        shown[_SHOWN_FAILURES:] = [f"and {more} more"]
    return (
        f"{len(failed)} of {total} cells failed: {'; '.join(shown)}; see "
        f"{folders.ERROR} in {run_dir / folders.CELLS}; the same command tries "
        "them again"
    )
