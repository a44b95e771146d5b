# SPDX-License-Identifier: Apache-2.0
"""What an optimisation has found, as sets: how new they are, how different.

Novelty is known of every task that says which inputs its data have; the rest is
what the `summarize` of a task returns.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from tfvae.lso.evaluation_worker import one_line
from tfvae.lso.reading import as_json, from_json
from tfvae.lso.tasks.base import Task
from tfvae.runs.optimization_state import NUM_BEST, State, key

NOVELTY = "novelty"
"""Share of the distinct inputs of a set that the initial data do not have."""

_logger = logging.getLogger(__name__)


def described(state: State, task: Task) -> dict[str, dict[str, float]]:
    """Returns figures of the best distinct inputs and of all of them.

    Args:
      state: The run so far.
      task: Its task, as `reading.resolved` returns it.

    Returns:
      For "best", up to `NUM_BEST` inputs, and for "all" queried ones: "num",
      the number of inputs, and figures by name. Sets without any input are
      left out. What `summarize` does wrong is a warning.
    """
    every: dict[str | None, Any] = {}
    for one in state.entries:
        if one.input is not None:
            every.setdefault(state.keys[one.query], one.input)
    best = [one.entry.input for one in state.ranked[:NUM_BEST]]
    known = _data_keys(state, task)
    sets = {"best": best, "all": [*every.values()]}
    return {
        name: _figures(task, inputs, known)
        for name, inputs in sets.items()
        if inputs
    }


def _data_keys(state: State, task: Task) -> set[str | None] | None:
    """Returns the keys of the initial data, None if they are unknown."""
    inputs = task.data(int(state.header.get("seed") or 0)).inputs
    if inputs is None:
        return None
    return {key(as_json(task, one)) for one in inputs}


def _figures(
    task: Task, inputs: Sequence[Any], known: set[str | None] | None
) -> dict[str, float]:
    found: dict[str, float] = {"num": len(inputs)}
    if known is not None:
        new = sum(key(one) not in known for one in inputs)
        found[NOVELTY] = new / len(inputs)
    if task.summarize is None:
        return found
    try:
        more = task.summarize([from_json(task, one) for one in inputs])
        return found | {str(name): float(one) for name, one in more.items()}
    except Exception as error:
        message = "`summarize` of task %s fails: %s"
        _logger.warning(message, task.name, one_line(error))
        return found


def in_words(figures: Mapping[str, float]) -> str:
    """Returns the figures of a set in one line, without their number."""
    return ", ".join(
        f"{name} {value:.3g}"
        for name, value in figures.items()
        if name != "num"
    )
