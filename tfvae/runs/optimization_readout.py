# SPDX-License-Identifier: Apache-2.0
"""Read-out of an optimisation: result.json, tables, figures and report.html.

All of it is made from the files of the run, so that it can be made anew at any
time. It needs no TensorFlow, and the task for new pictures only.
"""

from __future__ import annotations

import collections
import json
import logging
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from tfvae import files
from tfvae.lso.evaluation_worker import one_line
from tfvae.lso.tasks.base import Decodes, Task
from tfvae.runs import (
    optimization_figures,
    optimization_inputs,
    optimization_page,
    optimization_results,
    optimization_state,
    optimization_tables,
)
from tfvae.runs.optimization_state import RESULT

_SHARE = 0.05
"""Largest part of the time of a run that read-outs may take."""

_logger = logging.getLogger(__name__)


def write(
    run_dir: str | os.PathLike[str],
    task: Task | None = None,
    decodes: Decodes | None = None,
) -> dict[str, Any]:
    """Writes the read-out of a run so far, and returns its summary.

    Args:
      run_dir: Folder of the optimisation, which has a ledger.
      task: Makes pictures of inputs; None to show those that there are.
      decodes: Counts of the whole run; None for those of the last read-out.
    """
    # The page has a command, which is to work in any folder.
    state = optimization_state.read(pathlib.Path(run_dir).absolute())
    result = optimization_state.summary(state)
    if decodes is None:
        decodes = _decodes_of(state.path)
    inputs = _inputs(state, task)
    if inputs:
        result["inputs"] = inputs
    if decodes.num:
        result["decodes"] = {
            "num": decodes.num,
            "num_invalid": decodes.num_invalid,
            "validity": decodes.validity,
            "refused": dict(decodes.refused.most_common()),
        }
    text = json.dumps(result, indent=2, default=float) + "\n"
    with files.replacing(state.path / RESULT, is_synced=True) as file:
        file.write(text)
    optimization_tables.write(state)
    if task is not None:
        _update_pictures(state, task)
    if state.entries:
        optimization_figures.write_run_figures(state.path)
    optimization_page.write(state)
    return result


def _inputs(
    state: optimization_state.State, task: Task | None
) -> dict[str, Any]:
    """Returns figures of what was found; without a task, if they are of now."""
    if task is not None:
        return optimization_inputs.described(state, task)
    before = optimization_state.read_json(state.path / RESULT)
    is_of_now = before.get("best") == json.loads(
        json.dumps(optimization_state.summary(state)["best"], default=float)
    )
    is_of_now &= before.get("num_queries") == len(state.entries)
    return before.get("inputs", {}) if is_of_now else {}


def _decodes_of(path: pathlib.Path) -> Decodes:
    """Returns the counts of the last read-out, zeros if there are none."""
    found = optimization_state.read_json(path / RESULT).get("decodes") or {}
    try:
        return Decodes(
            int(found.get("num", 0)),
            int(found.get("num_invalid", 0)),
            collections.Counter(
                {str(why): int(n) for why, n in found["refused"].items()}
            ),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return Decodes()


def _update_pictures(state: optimization_state.State, task: Task) -> None:
    """Writes pictures; what the task does wrong does not end the run."""
    try:
        optimization_results.update_pictures(state, task)
    except OSError:
        raise
    except Exception as error:
        _logger.warning("there are no new pictures: %s", one_line(error))


class ReadOut:
    """Writes the read-out of a run again and again, in a share of its time."""

    def __init__(
        self,
        run_dir: pathlib.Path,
        task: Task,
        predicted: Callable[[], Mapping[int, tuple[float, float]]] | None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Starts without a read-out.

        Args:
          run_dir: Folder of the optimisation.
          task: Its task.
          predicted: Returns mean and standard deviation of each query, as the
            surrogate predicts them, for noisy tasks; None for others.
          clock: Returns the time in seconds.
        """
        self.run_dir = run_dir
        self._task = task
        self._predicted = predicted
        self._clock = clock
        self._took = 0.0
        self._written = -float("inf")
        # Of earlier processes, as far as they were written; and what the task
        # has counted before, for another run.
        self._decodes_before = _decodes_of(run_dir)
        self._counted_before = task.decodes.copy()

    def write(self) -> dict[str, Any]:
        """Writes the read-out and returns its summary."""
        started = self._clock()
        if self._predicted is not None:
            optimization_state.write_predicted(self.run_dir, self._predicted())
        new = self._task.decodes.since(self._counted_before)
        result = write(self.run_dir, self._task, self._decodes_before.plus(new))
        self._written = self._clock()
        self._took = self._written - started
        return result

    def refresh(self) -> None:
        """Writes it if the last one took little of the time since then."""
        if self._took <= _SHARE * (self._clock() - self._written):
            self.write()
