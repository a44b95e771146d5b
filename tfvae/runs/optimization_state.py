# SPDX-License-Identifier: Apache-2.0
"""State of an optimisation, read from its folder: how far, the best, failures.

It comes from ledger.jsonl and rounds.csv alone, and needs neither TensorFlow
nor the task, so that it can be read while another process runs.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import functools
import json
import logging
import math
import os
import pathlib
import statistics
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tfvae import files
from tfvae.lso.ledger import LEDGER, Contents, read_ledger
from tfvae.lso.records import Entry, Query, input_text
from tfvae.lso.round_table import RoundTable

RESULT, ROUNDS, PREDICTED = "result.json", "rounds.csv", "predicted.json"
TOP = (1, 10, 50)
"""The K of top-K scores."""
NUM_BEST = 10
"""Number of best inputs that are shown."""

NEAR = 0.1
"""Distance below which a query is a near-repeat where the run has no
`min_distance`, in standard deviations of the data's latents."""
NUM_RECENT = 20
"""Number of queries of which the pace is the mean."""
# A pause between two queries is no evaluation if it is this many times longer
# than most.
_PAUSE = 10.0

_logger = logging.getLogger(__name__)


class Ranked(NamedTuple):
    """An input and what is known of it."""

    value: float
    """What it is ranked by: its score, or the mean of several."""
    std: float | None
    """Standard deviation of `value` as the surrogate predicts it, or that of
    the scores; None for a single score."""
    entry: Entry
    """The first query of the input."""
    num_scores: int
    """Number of its scores, of all its queries."""


@dataclasses.dataclass(frozen=True)
class State:
    """The state of an optimisation."""

    path: pathlib.Path
    contents: Contents
    seconds: dict[str, float]
    """Seconds of each stage so far."""
    predicted: dict[int, tuple[float, float]] | None
    """Mean and standard deviation of each query with a score, as the surrogate
    of the last round predicts them; None if there are none for all of them."""

    @property
    def header(self) -> dict[str, Any]:
        """The header of the ledger."""
        return self.contents.header

    @property
    def entries(self) -> list[Entry]:
        """The queries with results, sorted by number."""
        return self.contents.entries

    @functools.cached_property
    def pending(self) -> list[Query]:
        """The queries that wait for results."""
        waiting = self.contents.waiting
        return [query for query in waiting if query.input is not None]

    @property
    def num_done(self) -> int:
        """Number of queries that have all their results."""
        pending = {query.number for query in self.contents.waiting}
        return sum(one.query not in pending for one in self.entries)

    @property
    def budget(self) -> int:
        """Total number of queries."""
        return int(self.header.get("budget") or self.num_done)

    @property
    def repeats(self) -> int:
        """Number of evaluations of each query."""
        return int(self.header.get("repeats") or 1)

    @property
    def maximise(self) -> bool:
        """Whether larger scores are better."""
        return bool(self.header.get("maximise", True))

    @property
    def sign(self) -> float:
        """Factor of the scores, 1 or -1, that makes larger ones better."""
        return 1.0 if self.maximise else -1.0

    @property
    def is_noisy(self) -> bool:
        """Whether scores of the same input differ."""
        return bool(self.header.get("is_noisy")) or self.repeats > 1

    @property
    def score_label(self) -> str:
        """Label of the scores, with their unit."""
        return str(self.header.get("score_label") or "score")

    @property
    def num_rounds(self) -> int:
        """The number of rounds of the whole run."""
        size = self.header.get("queries_per_round") or self.budget
        return math.ceil(self.budget / size) if size else 1

    @property
    def round(self) -> int:
        """The current round, from 0; -1 before the first query."""
        last = [one.round for one in self.entries]
        last += [query.round for query in self.contents.waiting]
        return max(last, default=-1)

    @functools.cached_property
    def failed(self) -> list[Entry]:
        """The queries without a score, those without an input included.

        One that violates a constraint is none of them: it is infeasible.
        """
        return [one for one in self.entries if one.has_failed]

    @functools.cached_property
    def constraints(self) -> list[str]:
        """Names of the constraints, in the order of their first values."""
        names = dict.fromkeys(
            name for one in self.entries for name in one.constraints or {}
        )
        return [*names]

    @property
    def num_near_repeats(self) -> int:
        """Queries whose latents were near others, known or pending."""
        near = self.header.get("min_distance") or NEAR
        distances = [one.distance for one in self.entries]
        return sum(one is not None and one < near for one in distances)

    @property
    def ranked_by(self) -> str:
        """What the best inputs are ranked by, in words."""
        if not self.is_noisy:
            return "score"
        if self.predicted is not None:
            return "surrogate's mean"
        return "mean of its scores"

    def reasons(self) -> dict[str, list[int]]:
        """Returns the queries that failed for each reason, most first."""
        found = collections.defaultdict[str, list[int]](list)
        for one in self.failed:
            found[one.failure or "no score"].append(one.query)
        ranked = sorted(found.items(), key=lambda item: -len(item[1]))
        return dict(ranked)

    @functools.cached_property
    def keys(self) -> dict[int, str | None]:
        """Texts by which inputs are compared, by the number of the query."""
        return {one.query: key(one.input) for one in self.entries}

    @functools.cached_property
    def ranked(self) -> list[Ranked]:
        """All distinct inputs with a score, best first.

        Those that violate a constraint are left out.
        """
        found = collections.defaultdict[str | None, list[Entry]](list)
        for one in self.entries:
            if one.score is not None and one.input is not None:
                found[self.keys[one.query]].append(one)
        every = [self._ranked(same) for same in found.values()]
        # Of the same value, the first that was found.
        return sorted(
            filter(None, every), key=lambda one: -self.sign * one.value
        )

    def _ranked(self, same: Sequence[Entry]) -> Ranked | None:
        """Returns what is known of an input, from all its queries."""
        feasible = [one for one in same if one.is_feasible]
        if not feasible:
            return None
        scores = [score for one in feasible for score in one.scores]
        spread = statistics.stdev(scores) if len(scores) > 1 else None
        first = feasible[0]
        if not self.is_noisy:
            best = max(feasible, key=lambda one: self.sign * (one.score or 0.0))
            return Ranked(best.score or 0.0, None, best, len(scores))
        if self.predicted is not None:
            known = [self.predicted[one.query] for one in feasible]
            mean = statistics.fmean(mean for mean, _ in known)
            return Ranked(mean, known[0][1], first, len(scores))
        return Ranked(statistics.fmean(scores), spread, first, len(scores))

    def top(self) -> dict[str, float]:
        """Returns top-K scores, of those K for which there are K inputs."""
        ranked = self.ranked
        return {str(k): ranked[k - 1].value for k in TOP if k <= len(ranked)}

    def seconds_a_query(self) -> float | None:
        """Returns the mean time between the last queries, without pauses."""
        times = sorted(
            time for one in self.entries if (time := _time(one.time))
        )[-NUM_RECENT - 1 :]
        gaps = [
            (after - before).total_seconds()
            for before, after in zip(times, times[1:], strict=False)
        ]
        if not gaps:
            return None
        longest = _PAUSE * max(statistics.median(gaps), 1.0)
        # Times are in whole seconds, so that a few may be the same.
        return statistics.fmean(g for g in gaps if g <= longest) or None

    def seconds_left(self) -> float | None:
        """Returns the time of the queries that are left, at that pace."""
        each = self.seconds_a_query()
        left = max(self.budget - self.num_done, 0)
        return 0.0 if not left else None if each is None else each * left

    def changed(self) -> datetime.datetime:
        """Returns when the ledger was written to for the last time."""
        seconds = (self.path / LEDGER).stat().st_mtime
        return datetime.datetime.fromtimestamp(seconds).astimezone()


def read(run_dir: str | os.PathLike[str]) -> State:
    """Reads the state of an optimisation, which may still be running.

    Args:
      run_dir: Folder of the optimisation.

    Raises:
      FileNotFoundError: If there is no optimisation in the folder.
      ValueError: If its ledger is damaged.
    """
    path = pathlib.Path(run_dir)
    check_folder(path)
    return from_contents(path, read_ledger(path / LEDGER))


def from_contents(path: pathlib.Path, contents: Contents) -> State:
    """Returns the state of an optimisation whose ledger has been read."""
    rounds = RoundTable(path / ROUNDS)
    predicted = _predicted(path / PREDICTED, contents.entries)
    return State(path, contents, rounds.seconds(), predicted)


def check_folder(path: pathlib.Path) -> None:
    """Raises a FileNotFoundError if there is no optimisation in a folder."""
    if not (path / LEDGER).exists():
        raise FileNotFoundError(
            f"`run_dir` must be the folder of an optimisation, got {path} "
            f"without {LEDGER}."
        )


def summary(state: State) -> dict[str, Any]:
    """Returns a summary of a run so far, the content of result.json."""
    ranked, header = state.ranked, state.header
    best = ranked[0] if ranked else None
    inputs = {*state.keys.values()} - {None}
    return {
        "task": header.get("task", state.path.name),
        "seed": header.get("seed"),
        "score_label": state.score_label,
        "maximise": state.maximise,
        "budget": state.budget,
        "num_queries": len(state.entries),
        "num_pending": len(state.pending),
        "num_failures": len(state.failed),
        "num_infeasible": sum(not one.is_feasible for one in state.entries),
        "num_distinct": len(inputs),
        "num_near_repeats": state.num_near_repeats,
        "num_added": len(state.contents.additions),
        "rounds": len({one.round for one in state.entries}),
        "ranked_by": state.ranked_by,
        "top": state.top(),
        "best": None if best is None else best.entry._asdict(),
        "best_in_data": header.get("best_in_data"),
        "optimum": header.get("optimum"),
        "seconds": {**state.seconds, "total": sum(state.seconds.values())},
    }


def key(one: Any) -> str | None:
    """Returns the text by which inputs, in their JSON form, are compared."""
    return None if one is None else input_text(one)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Returns the object in a JSON file, with a warning if it is damaged.

    Returns:
      The object; empty if the file does not exist, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it must hold an object, got {found!r:.100}")
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        _logger.warning("ignoring %s, which is damaged: %s", path, error)
        return {}
    return found


def write_predicted(
    path: pathlib.Path, predicted: Mapping[int, tuple[float, float]]
) -> None:
    """Writes what the surrogate predicts for the queries with a score."""
    state = from_contents(path, read_ledger(path / LEDGER))
    content = {
        "of": _digest(state.entries),
        "means": {str(query): mean for query, (mean, _) in predicted.items()},
        "stds": {str(query): std for query, (_, std) in predicted.items()},
    }
    with files.replacing(path / PREDICTED) as file:
        json.dump(content, file)


def _predicted(
    path: pathlib.Path, entries: Sequence[Entry]
) -> dict[int, tuple[float, float]] | None:
    """Returns what the surrogate predicts, if that is of all these results."""
    content = read_json(path)
    if content.get("of") != _digest(entries):
        return None
    try:
        found = {
            one.query: (
                float(content["means"][str(one.query)]),
                float(content["stds"][str(one.query)]),
            )
            for one in entries
            if one.score is not None
        }
    except (KeyError, TypeError, ValueError):
        return None
    return found or None


def _digest(entries: Sequence[Entry]) -> int:
    """Returns a number that changes with any score."""
    scores = [(one.query, one.scores) for one in entries]
    return zlib.crc32(repr(scores).encode())


def _time(text: str) -> datetime.datetime | None:
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
