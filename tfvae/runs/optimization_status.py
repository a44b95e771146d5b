# SPDX-License-Identifier: Apache-2.0
"""Status of an optimisation as text: what is done, best, pending, failed."""

from __future__ import annotations

import csv
import datetime
import json
import os
import pathlib
import shlex
import textwrap
from collections.abc import Iterable
from typing import Any

from tfvae.lso.ledger import LEDGER
from tfvae.runs import optimization_state
from tfvae.runs.optimization_state import NUM_BEST, State

MODEL = "model"
"""Folder, within a run folder, of the training run of the initial model."""

_MOST_LINES = 10
_LEAST_WIDTH = 40


def text(run_dir: str | os.PathLike[str], width: int = 80) -> str:
    """Returns the status of an optimisation, which may still be running.

    Args:
      run_dir: Folder of the optimisation.
      width: Longest line, in characters; at least 40.

    Raises:
      FileNotFoundError: If there is no optimisation in the folder.
      ValueError: If its ledger is damaged.
    """
    path = pathlib.Path(run_dir)
    ledger = path / LEDGER
    if not ledger.exists() or not ledger.stat().st_size:
        return _before_the_first(path)
    state = optimization_state.read(path)
    width = max(width, _LEAST_WIDTH)
    lines = [
        *_progress(state),
        *_best(state),
        *_pending(state),
        *_failures(state),
        *_time(state, width),
    ]
    return "\n".join(shortened(line, width) for line in lines)


def _wrapped(words: list[str], width: int) -> Iterable[str]:
    """Yields words, with commas, in lines of a width."""
    yield from textwrap.wrap(", ".join(words), width, subsequent_indent="  ")


def _before_the_first(path: pathlib.Path) -> str:
    """Returns the status of a folder without a ledger."""
    model = path / MODEL
    if not model.exists() and not (path / "lock").exists():
        optimization_state.check_folder(path)
    metrics = model / "metrics.csv"
    epochs = 0
    if metrics.exists():
        with metrics.open(newline="", errors="replace") as file:
            epochs = max(sum(1 for _ in csv.reader(file)) - 1, 0)
    if (model / "summary.json").exists():
        return f"{path}: no query yet; the initial model has been trained"
    return (
        f"{path}: no query yet; the initial model has been trained for "
        f"{epochs} epochs so far"
    )


def _progress(state: State) -> Iterable[str]:
    task = state.header.get("task", state.path.name)
    done, budget = state.num_done, state.budget
    yield (
        f"{printable(str(task))}: {done} of {budget} queries done, "
        f"{len(state.pending)} pending, {len(state.failed)} failed; "
        f"round {max(state.round, 0) + 1} of {state.num_rounds}"
    )
    changed = state.changed()
    ago = datetime.datetime.now(datetime.UTC) - changed
    passed = max(ago.total_seconds(), 0.0)
    yield f"last change {changed:%Y-%m-%d %H:%M:%S}, {duration(passed)} ago"
    inputs = {*state.keys.values()} - {None}
    near = state.num_near_repeats
    if state.entries:
        infeasible = sum(not one.is_feasible for one in state.entries)
        more = f", {infeasible} infeasible" if state.constraints else ""
        yield f"{len(inputs)} distinct inputs, {near} near-repeats{more}"
    if state.contents.additions:
        yield f"{len(state.contents.additions)} measurements added"
    best, label = state.header.get("best_in_data"), state.score_label
    direction = "larger" if state.maximise else "smaller"
    optimum = state.header.get("optimum")
    known = "" if optimum is None else f"; optimum {number(optimum)}"
    yield (
        f"{printable(label)}, {direction} is better; best in the data "
        f"{number(best)}{known}"
    )


def _best(state: State) -> Iterable[str]:
    ranked = state.ranked
    yield ""
    if not ranked:
        yield (
            "no query satisfies the constraints yet"
            if any(one.score is not None for one in state.entries)
            else "no query has a score yet"
        )
        return
    shown = ranked[:NUM_BEST]
    by = "" if not state.is_noisy else f", by {state.ranked_by}"
    yield f"best {len(shown)} of {len(ranked)} distinct inputs{by}"
    for one in shown:
        noise = "" if one.std is None else f" +- {one.std:.2g}"
        count = f" ({one.num_scores} scores)" if state.is_noisy else ""
        yield (
            f"  {number(one.value):>10}{noise}{count}  query "
            f"{one.entry.query}: {input_text(one.entry.input)}"
        )


def _pending(state: State) -> Iterable[str]:
    if not state.pending:
        return
    yield ""
    yield f"{len(state.pending)} pending"
    known = {one.query: one.num_results for one in state.entries}
    for query in state.pending[:_MOST_LINES]:
        done = known.get(query.number, 0)
        part = f" ({done} of {state.repeats} results)" if done else ""
        yield f"  query {query.number}{part}: {input_text(query.input)}"
    if len(state.pending) > _MOST_LINES:
        yield f"  and {len(state.pending) - _MOST_LINES} more"


def _failures(state: State) -> Iterable[str]:
    reasons = state.reasons()
    if not reasons:
        return
    yield ""
    yield f"{len(state.failed)} failed"
    for reason, queries in [*reasons.items()][:_MOST_LINES]:
        which = ", ".join(map(str, queries[:5]))
        more = ", ..." if len(queries) > 5 else ""
        word = "query" if len(queries) == 1 else "queries"
        yield f"  {len(queries)} x {printable(reason)} ({word} {which}{more})"
    if len(reasons) > _MOST_LINES:
        yield f"  and {len(reasons) - _MOST_LINES} more reasons"


def _time(state: State, width: int) -> Iterable[str]:
    yield ""
    spent = [
        f"{stage} {duration(seconds)}"
        for stage, seconds in state.seconds.items()
        if seconds >= 0.05
    ]
    if spent:
        total = duration(sum(state.seconds.values()))
        first, *others = spent
        yield from _wrapped([f"time {total}: {first}", *others], width)
    if state.num_done >= state.budget:
        yield "the budget is spent"
        yield f"continue with: {command(state)}"
        return
    each, left = state.seconds_a_query(), state.seconds_left()
    if each is not None and left is not None:
        yield f"{each:.3g} s a query lately, {duration(left)} left at that pace"
    yield f"continue with: {command(state)}"


def command(state: State) -> str:
    """Returns the command that continues a run.

    Where it may be that results are told, it evaluates nothing. Where the
    budget is spent, it has a larger one.
    """
    words = ["tfvae", "optimize", f"--run_dir={state.path}"]
    if state.num_done >= state.budget:
        words.append(f"--budget={2 * max(state.budget, state.num_done, 1)}")
    return shlex.join([*words, "--ask"] if is_told(state) else words)


def is_told(state: State) -> bool:
    """Whether it may be that results are told, not evaluated."""
    if not state.entries:
        return bool(state.pending)
    return any(one.seconds == 0.0 for one in state.entries[-3:])


def input_text(one: Any) -> str:
    """Returns an input, in its JSON form, in one line."""
    if isinstance(one, str):
        return printable(one)
    if one is None:
        return "no valid input"
    return printable(json.dumps(plainer(one), ensure_ascii=False))


def plainer(one: Any) -> Any:
    """Returns an input with its numbers in six digits."""
    if isinstance(one, float):
        return float(f"{one:.6g}")
    if isinstance(one, list):
        return [plainer(value) for value in one]
    if isinstance(one, dict):
        return {name: plainer(value) for name, value in one.items()}
    return one


def printable(line: str) -> str:
    """Returns a text in one line, without characters that control terminals."""
    if line.isprintable():
        return line
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in line
    )


def shortened(line: str, width: int) -> str:
    """Returns a line of at most `width` characters."""
    return line if len(line) <= width else f"{line[: width - 3]}..."


def number(value: float | None) -> str:
    """Returns a score in six digits."""
    return "none" if value is None else f"{value:.6g}"


def duration(seconds: float) -> str:
    """Returns seconds as, for example, "4 min" or "3 h 10 min"."""
    if seconds < 10.0:
        return f"{seconds:.2g} s"
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60.0)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
