# SPDX-License-Identifier: Apache-2.0
"""Study: runs all cells of a grid of configurations and writes a report."""

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
import tfvae.sweeps.training_cell  # noqa: F401 (registers with gin)
from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.runs import config, identity, summaries
from tfvae.runs.kinds import Kind
from tfvae.runs.run_directory import RunDirectory, UnexpectedError
from tfvae.sweeps import folders, pool
from tfvae.sweeps.grid import (
    Cell,
    Factors,
    Layout,
    cells,
    files_and_bindings,
)
from tfvae.sweeps.slurm import SlurmExecutor
from tfvae.sweeps.worker import variables

# Command of the processes that run cells; see `worker`.
_WORKER = [sys.executable, "-m", "tfvae.sweeps.worker"]
_CELL = "tfvae.sweeps.training_cell:run_cell"
_REPORT = "tfvae.sweeps.report:write"
# By argument of `study`: the functions of this package that it may name.
_FUNCTIONS = {
    "cell": (_CELL, "tfvae.runs.optimize:optimize"),
    "report": (_REPORT, "tfvae.sweeps.optimization_report:write"),
}
# Modules of 0.1.0 -> the functions that have replaced theirs.
_MOVED = {
    "tfvae.runners.cell": _CELL,
    "tfvae.runners.optimization_cell": "tfvae.runs.optimize:optimize",
    "tfvae.runners.studies.report": _REPORT,
    "tfvae.runners.studies.optimization_report": (
        "tfvae.sweeps.optimization_report:write"
    ),
}
_SHOWN_FAILURES = 5


@typed_gin.configurable
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
    executor: SlurmExecutor | None = None,
    cell: str = _CELL,
    report: str = _REPORT,
) -> None:
    """Runs the unfinished cells of a study, and writes its report.

    The configuration of a cell consists of gin's current configuration without
    the bindings of `study`, then the gin files of its levels, the bindings of
    its levels, those of its seed, and `overrides`. The error of a cell that
    fails is written to its error.txt; the other cells are run nevertheless, and
    the next call retries the failed ones.

    Args:
      run_dir: Folder of the study, see `folders`.
      overrides: Bindings for all cells that override all others.
      factors: The factors to vary: factor -> level -> gin files and bindings.
      repetitions: Number of runs of each combination of levels.
      seed: Seed of the first repetition, increased by one in each further one.
      seed_bindings: Bindings in which `{seed}` stands for the seed of a cell.
      exclude: Combinations of levels to leave out.
      once: Combinations of levels that are run in the first repetition only.
      columns: The factor whose levels are the columns of the tables; by default
        the last one that is not separate.
      separate: Factors that have separate tables and tests for each level.
      smoke: Whether to only check that everything runs: one repetition, with
        `smoke_bindings`.
      smoke_bindings: Bindings that make a cell as small as possible.
      workers: Number of processes, of one thread each; by default the number
        of processors.
      executor: Runs cells as jobs of a cluster; None to run them here.
      cell: Name of the function that runs a cell, as `module:function`; see
        `worker`.
      report: Name of the function that writes the report, as
        `module:function`; it takes the folder of the study.

    Raises:
      TypeError: If `factors` is not of that form.
      ValueError: If a value is out of range, two cells have the same
        configuration, or `run_dir` has cells of another configuration, or
        a run that is no study.
      ImportError: If `cell` or `report` need a package that is not installed.
      OSError: If a gin file does not exist.
      RuntimeError: If another process is using `run_dir`.
      UnexpectedError: If cells failed, after all others have been run.
    """
    num_workers = _checked_workers(workers)
    if executor is not None:
        _check_executor(executor, workers)
    run_cell = _function("cell", cell)
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
    with run.locked(Kind.STUDY):
        base = run.path / folders.BASE
        folders.write_text(base, _without_study(config.text()))
        texts, unused = _texts(
            base, grid, factors, seed_bindings, last, overrides, run_cell
        )
        _check_distinct(grid, texts)
        _check_same(run.path, texts)
        _write_study(run.path, grid, layout, texts, report)
        failed = _run(run.path, grid, num_workers, cell, executor)
        write_report(run.path)
    if not smoke:  # Smaller cells use less.
        summaries.print_unused(unused)
    if failed:
        raise UnexpectedError(_failures(run.path, failed, len(grid)))


def write_report(run_dir: str | os.PathLike[str]) -> None:
    """Writes the report of the finished cells of a study.

    Args:
      run_dir: Folder of the study.

    Raises:
      FileNotFoundError: If there is no study.
      ImportError: If the report needs a package that is not installed.
      ValueError: If study.json names a report that does not exist, as one of
        an earlier version may.
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
    """Returns the function of a name in the form `module:function`."""
    module, _, function = name.partition(":")
    try:
        with config.explaining_imports():
            return getattr(importlib.import_module(module), function)
    except (AttributeError, ModuleNotFoundError, ValueError) as err:
        examples = " or ".join(map(repr, _FUNCTIONS[argument]))
        raise ValueError(
            f"`study.{argument}` must be the name of a function, such as "
            f"{examples}, got {name!r} ({err}).{_moved(module)}"
        ) from err


def _moved(module: str) -> str:
    """Returns a hint for the name of a module that 0.2.0 has moved."""
    if module.split(".")[:2] != ["tfvae", "runners"]:
        return ""
    hint = " The modules of tfvae.runners moved in 0.2.0"
    if module in _MOVED:
        hint += f": it is now {_MOVED[module]!r}"
    if module.startswith("tfvae.runners.studies."):
        hint += "; gin/papers/ names the reports with published values"
    return f"{hint}."


def _checked_workers(workers: int | None) -> int:
    if workers is None:
        return len(os.sched_getaffinity(0))
    check_counts(**{"study.workers": workers})
    return workers


def _check_executor(executor: object, workers: int | None) -> None:
    if not isinstance(executor, SlurmExecutor):
        raise TypeError(
            "`study.executor` must be an object, such as @SlurmExecutor() with "
            f"parentheses, got {executor!r}"
        )
    if workers is not None:
        raise ValueError(
            "`study.workers` must be None with `study.executor`, whose "
            f"`jobs_at_once` says how many cells run at a time, got {workers!r}"
        )


def is_of_cells(binding: str) -> bool:
    """Returns whether a binding is for cells rather than the study itself."""
    return not binding.lstrip().startswith(("study.", "SlurmExecutor."))


def _without_study(text: str) -> str:
    """Returns a configuration without the bindings of the study itself."""
    kept, is_kept = [], True
    for line in text.splitlines():
        if line and not line[0].isspace():
            is_kept = is_of_cells(line)
        if is_kept:
            kept.append(line)
    return "\n".join(kept) + "\n"


def _texts(
    base: pathlib.Path,
    grid: Sequence[Cell],
    factors: Factors,
    seed_bindings: Sequence[str],
    last: Sequence[str],
    overrides: Sequence[str],
    run_cell: Callable[..., Any],
) -> tuple[dict[str, str], list[str]]:
    """Returns the configurations of the cells, checked.

    Args:
      base: File that the cells share.
      grid: The cells.
      factors: See `study`.
      seed_bindings: See `study`.
      last: Bindings that override those of the cells.
      overrides: Those of them that the user has given.
      run_cell: Runs a cell.

    Returns:
      The whole configuration of each cell, by its name, and the names of the
      bindings that no cell can use.

    Raises:
      ValueError: If such a binding is among `overrides`, or could not act in
        any other study either.
    """
    found = {}
    idle: list[set[str]] = []
    mistakes: list[set[str]] = []
    given: set[str] = set()
    name = config.registered_name(run_cell)
    for cell in grid:
        files, bindings = files_and_bindings(factors, cell.levels)
        seeds = [one.replace("{seed}", str(cell.seed)) for one in seed_bindings]
        config.read([base, *files], [*bindings, *seeds, *last])
        found[cell.name] = config.text_of_run()
        given |= config.names(overrides)
        reached = config.reached(name)
        idle.append(set(reached.idle))
        mistakes.append({one for one in idle[-1] if reached.is_mistake(one)})
    unused = sorted(set.intersection(*idle))
    problems = [
        f"`{one}` has no effect in any cell: {reached.why_idle(one)}"
        for one in unused
        if one in given or all(one in each for each in mistakes)
    ]
    if problems:
        raise ValueError("; ".join(problems))
    return found, [one for one in unused if not reached.is_used_macro(one)]


def _check_distinct(grid: Sequence[Cell], texts: Mapping[str, str]) -> None:
    """Raises a ValueError if two cells have the same configuration."""
    owners: dict[str, str] = {}
    for cell in grid:
        other = owners.setdefault(texts[cell.name], cell.name)
        if other != cell.name:
            raise ValueError(
                "`study.factors` and `study.seed_bindings` must give each "
                "cell a different configuration, got the same for "
                f"{other} and {cell.name}."
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
    run_dir: pathlib.Path,
    grid: Sequence[Cell],
    num_workers: int,
    cell: str,
    executor: SlurmExecutor | None,
) -> dict[str, str]:
    """Runs the unfinished cells; returns the errors of failed ones, by name."""
    if executor is not None:
        num_workers = executor.jobs_at_once
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
    if executor is not None:
        outcomes = executor(jobs, cell, run_dir)
    else:
        outcomes = pool.run(
            jobs,
            [*_WORKER, cell],
            num_workers,
            run_dir / "workers.log",
            variables(num_threads=1),
        )
    with contextlib.closing(outcomes):  # type: ignore[type-var]
        for outcome in outcomes:
            result = outcome.job.path / folders.RESULT
            if outcome.is_lost and folders.read_json(result) is not None:
                # Its process died after writing the result.
                outcome = outcome._replace(error=None)
            if outcome.error is not None:
                failed[outcome.job.name] = outcome.error
                if outcome.is_lost:
                    folders.write_text(
                        outcome.job.path / folders.ERROR, outcome.error + "\n"
                    )
            progress.update(outcome)
    return failed


class _Progress:
    """Prints finished cells and the estimated remaining time."""

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
        """Prints the numbers of cells and of workers."""
        total = len(self._levels)
        print(
            f"{total} cells, {total - len(self.left)} of them already "
            f"finished, {min(self._num_workers, len(self.left))} at a time",
            flush=True,
        )

    def update(self, outcome: pool.Outcome) -> None:
        """Counts a cell, and prints its outcome and the remaining time."""
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
        f"{folders.ERROR} in {run_dir / folders.CELLS}; repeat the command to "
        "retry them"
    )
