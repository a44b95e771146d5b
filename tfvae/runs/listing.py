# SPDX-License-Identifier: Apache-2.0
"""The runs of a folder: kind, state, progress and result of each.

All of it is read from files, while other processes write them, and nothing is
written or locked. No TensorFlow is imported, and what has not changed since the
last call is not read again.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pathlib
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tfvae.lso.ledger import LEDGER
from tfvae.runs.kinds import (
    CONFIG,
    ERRORS,
    METRICS,
    PICTURES,
    STUDY,
    SUMMARY,
)
from tfvae.runs.pages import NAME

TRAINING, RESTORATION, OPTIMIZATION, STUDIES, FOLDERS = (
    "training",
    "restoration",
    "optimisation",
    "study",
    "restorations",
)
RUNNING, FINISHED, WAITING, INTERRUPTED, FAILED = (
    "running",
    "finished",
    "waiting",
    "interrupted",
    "failed",
)
"""States of a run; an optimisation waits for results that are told to it."""

MOST_RUNS = 20_000
"""Runs that are listed of a folder."""
FRESH_SECONDS = 30.0
"""Time after its last change for which a run may be under way elsewhere."""

_DEPTH = 8
_MOST_FIGURES = 24
_TAIL_BYTES = 2**14
_MOST_LEDGER_BYTES = 2**26
_MOST_JSON_BYTES = 2**26
_LOCK, _RESULT, _CELLS, _MODEL = "lock", "result.json", "cells", "model"
_LOCKS = pathlib.Path("/proc/locks")
# Files whose changes are changes of a run.
_CONTENT = (
    STUDY,
    LEDGER,
    PICTURES,
    METRICS,
    SUMMARY,
    CONFIG,
    ERRORS,
    _RESULT,
    "rounds.csv",
    "error.txt",
)
_SHOWN = frozenset((*_CONTENT, _LOCK, NAME, "figures"))
_MARKERS = frozenset((STUDY, LEDGER, PICTURES, METRICS, SUMMARY))
_BINDING = re.compile(r"^(?:\w+[./])*?fit\.epochs *= *(\S+)", re.MULTILINE)


class Run(NamedTuple):
    """What is known of a run."""

    path: str
    """Path below the folder, with slashes; "." for the folder itself."""
    kind: str
    state: str
    done: int
    total: int | None
    """How many there are to do; None if that is not known."""
    unit: str
    """What is counted, such as "epochs"."""
    result: str
    """Its main figure, such as "bound -12.3"."""
    value: float | None
    """The same as a number."""
    changed: float
    """When its files changed, seconds since 1970."""
    seconds: float | None
    """How long it has taken."""
    report: str | None
    """Path of its page, below the run."""
    figures: tuple[str, ...]
    """Paths of its pictures, below the run."""
    note: str
    """What went wrong, or is inside; one line."""
    has_inside: bool
    """Whether there are runs inside."""


class _Found(NamedTuple):
    """What the files of a run say, of which the state is a part."""

    kind: str
    done: int = 0
    total: int | None = None
    unit: str = "epochs"
    result: str = ""
    value: float | None = None
    seconds: float | None = None
    note: str = ""
    is_done: bool = False
    is_waiting: bool = False
    epoch_seconds: float = 0.0
    report: str | None = None
    changed: float = 0.0


class Listing:
    """Lists the runs of a folder, again and again."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Sets the folder; nothing is read.

        Args:
          root: The folder.
        """
        self.root = pathlib.Path(root)
        self._known: dict[str, tuple[Any, _Found]] = {}

    def runs(self, inside: pathlib.Path, now: float | None = None) -> list[Run]:
        """Returns the runs in a folder, the last changed ones first.

        Args:
          inside: The folder, which is the root or below it.
          now: Seconds since 1970; None for those of the clock.
        """
        now = time.time() if now is None else now
        locked = held_locks()
        found = []
        for path, names in run_folders(inside):
            try:
                found.append(self._run(path, names, inside, now, locked))
            except OSError:  # It is being removed.
                continue
            if len(found) == MOST_RUNS:
                break
        return sorted(found, key=lambda run: -run.changed)

    def _run(
        self,
        path: str,
        names: set[str],
        inside: pathlib.Path,
        now: float,
        locked: frozenset[tuple[int, int]] | None,
    ) -> Run:
        files = _stats(path, names)
        content = {n: s for n, s in files.items() if n in _CONTENT}
        signature = tuple(
            (name, one.st_mtime_ns, one.st_size)
            for name, one in sorted(content.items())
        )
        known = self._known.get(path)
        # Cells are files of other folders.
        if known is None or known[0] != signature or STUDY in files:
            found = _read(pathlib.Path(path), content)
            self._known[path] = (signature, found)
        else:
            found = known[1]
        changed = max(
            (one.st_mtime for one in content.values()),
            default=os.stat(path).st_mtime,
        )
        changed = max(changed, found.changed)
        lock = files.get(_LOCK)
        is_locked = None
        if locked is not None and lock is not None:
            is_locked = (lock.st_dev, lock.st_ino) in locked
        state = state_of(
            found.is_done,
            is_locked,
            _has_failed(content),
            now - changed,
            found.epoch_seconds,
        )
        if state == INTERRUPTED and found.is_waiting:
            state = WAITING
        note = found.note
        if state == FAILED:
            note = _last_line(pathlib.Path(path)) or note
        report = found.report
        if report is None and NAME in files:
            report = NAME
        relative = os.path.relpath(path, inside).replace(os.sep, "/")
        return Run(
            relative,
            found.kind,
            state,
            found.done,
            found.total,
            found.unit,
            found.result,
            found.value,
            changed,
            found.seconds,
            report,
            _figures(path) if "figures" in files else (),
            note,
            found.kind in (STUDIES, FOLDERS) and relative != ".",
        )


def run_folders(
    root: str | os.PathLike[str],
) -> Iterator[tuple[str, set[str]]]:
    """Yields the folders that hold a run, and the names in them.

    The given folder is one of them. Links are not followed, and of what is
    inside a run only that of the given folder is looked at.
    """
    stack = [(os.fspath(root), 0)]
    while stack:
        path, depth = stack.pop()
        names, folders = set(), []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    names.add(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
        except OSError:
            continue
        if is_run(names):
            yield path, names
            if depth:
                continue
        if depth < _DEPTH:
            stack += [
                (os.path.join(path, name), depth + 1)
                for name in sorted(folders, reverse=True)
                if not name.startswith(".")
            ]


def is_run(names: set[str]) -> bool:
    """Whether files and folders of these names are a run."""
    is_started = CONFIG in names and bool(
        names & {_LOCK, "checkpoints", ERRORS, "error.txt"}
    )
    return bool(names & _MARKERS) or is_started


def state_of(
    is_done: bool,
    is_locked: bool | None,
    has_failed: bool,
    age: float,
    epoch_seconds: float = 0.0,
) -> str:
    """Returns the state of a run.

    Args:
      is_done: Whether it has done all that was asked for.
      is_locked: Whether a process holds its lock; None if that is not known.
      has_failed: Whether an error is the last that was written.
      age: Seconds since its last change.
      epoch_seconds: Seconds from one change to the next.
    """
    if is_done:
        return FINISHED
    if is_locked:
        return RUNNING
    if has_failed:
        return FAILED
    # It may be under way on another machine.
    slowest = 3.0 * epoch_seconds if is_locked is None else 0.0
    return RUNNING if age < max(FRESH_SECONDS, slowest) else INTERRUPTED


def held_locks() -> frozenset[tuple[int, int]] | None:
    """Returns device and inode of the files that are locked on this machine.

    To try a lock would keep a run from starting, so it is read from Linux;
    None elsewhere.
    """
    try:
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    found = set()
    for line in lines:
        for word in line.split():
            parts = word.split(":")
            if len(parts) == 3 and all(parts):
                major, minor, inode = parts
                device = os.makedev(int(major, 16), int(minor, 16))
                found.add((device, int(inode)))
    return frozenset(found)


def _stats(path: str, names: set[str]) -> dict[str, os.stat_result]:
    """Returns the status of the files of a run, and of its figures."""
    found = {}
    for name in names & _SHOWN:
        try:
            one = os.lstat(os.path.join(path, name))
        except OSError:
            continue
        if stat.S_ISREG(one.st_mode) or stat.S_ISDIR(one.st_mode):
            found[name] = one
    return found


def _has_failed(content: Mapping[str, os.stat_result]) -> bool:
    """Whether an error is younger than all else."""
    errors = [
        content[name].st_mtime
        for name in (ERRORS, "error.txt")
        if name in content
    ]
    others = [
        one.st_mtime
        for name, one in content.items()
        if name not in (ERRORS, "error.txt")
    ]
    return bool(errors) and max(errors) >= max(others, default=0.0) - 1.0


def _last_line(path: pathlib.Path) -> str:
    """Returns the last line of the error of a run."""
    for name in (ERRORS, "error.txt"):
        text = _tail(path / name)
        if text.strip():
            return text.strip().rpartition("\n")[2][:300]
    return ""


def _tail(path: pathlib.Path) -> str:
    """Returns the end of a text file, "" if it can not be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _read(path: pathlib.Path, content: Mapping[str, os.stat_result]) -> _Found:
    """Reads what a run is and how far; what is damaged is said in its note."""
    if STUDY in content:
        return _study(path)
    if LEDGER in content:
        return _optimization(path, content)
    if PICTURES in content:
        return _pictures(path)
    if METRICS not in content and (path / _MODEL).is_dir():
        return _optimization(path, content)
    return _training(path)


def _json(path: pathlib.Path) -> dict[str, Any] | None:
    """Returns the object of a JSON file, None if missing or damaged."""
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _study(path: pathlib.Path) -> _Found:
    content = _json(path / STUDY) or {}
    cells = content.get("cells")
    if not isinstance(cells, list):
        return _Found(STUDIES, unit="cells", note=f"{STUDY} is damaged")
    folders = [
        path / _CELLS / str(one.get("name"))
        for one in cells
        if isinstance(one, dict)
    ]
    results = [_modified(one / _RESULT) for one in folders]
    done = [one for one in results if one is not None]
    failed = sum(
        (one / "error.txt").exists()
        for one, result in zip(folders, results, strict=True)
        if result is None
    )
    report = next(
        (
            f"report/{name}"
            for name in (NAME, "report.md")
            if (path / "report" / name).exists()
        ),
        None,
    )
    return _Found(
        STUDIES,
        len(done),
        len(folders),
        "cells",
        is_done=len(done) == len(folders),
        note=_failures(failed, "cell", "cells"),
        report=report,
        changed=max(done, default=0.0),
    )


def _modified(path: pathlib.Path) -> float | None:
    """Returns when a file changed, None if there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _failures(count: int, one: str, several: str) -> str:
    """Says how many have failed, "" for none."""
    return f"{count} {one if count == 1 else several} failed" if count else ""


def _pictures(path: pathlib.Path) -> _Found:
    content = _json(path / PICTURES) or {}
    done, failed = content.get("pictures"), content.get("failed")
    if not isinstance(done, dict):
        return _Found(FOLDERS, unit="pictures", note=f"{PICTURES} is damaged")
    number = len(failed) if isinstance(failed, dict) else 0
    note = _failures(number, "picture", "pictures")
    scores = [
        float(one["psnr"])
        for one in done.values()
        if isinstance(one, dict) and isinstance(one.get("psnr"), float)
    ]
    value = sum(scores) / len(scores) if scores else None
    return _Found(
        FOLDERS,
        len(done),
        None,
        "pictures",
        "" if value is None else f"mean PSNR {value:.2f} dB",
        value,
        note=note,
        is_done=bool(done) and not number,
    )


def _optimization(
    path: pathlib.Path, content: Mapping[str, os.stat_result]
) -> _Found:
    # They take a while to import, and not all folders need them.
    from tfvae.runs import optimization_state, optimization_status

    size = content[LEDGER].st_size if LEDGER in content else 0
    if not size:
        model = _training(path / _MODEL)
        return model._replace(
            kind=OPTIMIZATION, is_done=False, note="its model is trained first"
        )
    if size > _MOST_LEDGER_BYTES:
        result = _json(path / _RESULT) or {}
        done, total = result.get("num_queries"), result.get("budget")
        if not isinstance(done, int) or not isinstance(total, int):
            done, total = 0, None
        return _Found(
            OPTIMIZATION,
            done,
            total,
            "queries",
            is_done=total is not None and done >= total,
            note="its ledger is too large to be read here",
        )
    try:
        state = optimization_state.read(path)
        best = state.top().get("1")
        label = optimization_status.printable(state.score_label)
        return _Found(
            OPTIMIZATION,
            state.num_done,
            state.budget,
            "queries",
            "" if best is None else f"best {best:.6g} ({label})",
            best,
            sum(state.seconds.values()) or None,
            _failures(len(state.failed), "query", "queries"),
            state.num_done >= state.budget,
            bool(state.pending) and optimization_status.is_told(state),
        )
    except (ValueError, TypeError, KeyError, OSError) as err:
        why = str(err).strip().partition("\n")[0][:200]
        return _Found(OPTIMIZATION, unit="queries", note=f"damaged: {why}")


def _training(path: pathlib.Path) -> _Found:
    try:
        text = (path / CONFIG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    kind = RESTORATION if "corrupted_image" in text else TRAINING
    summary = _json(path / SUMMARY)
    row = last_row(path / METRICS)
    has_rounds = "round" in row or "rounds" in (summary or {})
    unit = "rounds" if has_rounds else "epochs"
    total = epochs_of(text)
    done = int(_number(row.get(unit[:-1])) or 0)
    finished = _number((summary or {}).get(unit))
    is_done = finished is not None
    if finished is not None:
        is_done = done <= finished and (total is None or finished >= total)
        done = max(done, int(finished))
        total = total if total is not None else int(finished)
    shown: Mapping[str, Any] = summary if summary and is_done else row
    result, value = main_figure(shown, kind == RESTORATION)
    seconds = _number((summary or {}).get("training_seconds"))
    if (path / _RESULT).exists():  # A cell of a study, which has no summary.
        is_done = True
    damaged = (path / SUMMARY).exists() and summary is None
    return _Found(
        kind,
        done,
        total,
        unit,
        result,
        value,
        seconds if is_done else None,
        f"{SUMMARY} is damaged" if damaged else "",
        is_done,
        epoch_seconds=_number(row.get("seconds")) or 0.0,
    )


def epochs_of(text: str) -> int | None:
    """Returns the epochs that a configuration binds, if it has a number."""
    found = _BINDING.findall(text)
    if not found:
        return None
    value = found[-1]
    if value.startswith("%"):
        name = re.escape(value[1:])
        macro = re.search(rf"^{name} *= *(\S+)", text, re.MULTILINE)
        value = macro[1] if macro else ""
    return int(value) if value.isascii() and value.isdigit() else None


def last_row(path: pathlib.Path) -> dict[str, str]:
    """Returns the last row of a CSV file, empty if there is none."""
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            head = file.readline(_TAIL_BYTES)
    except OSError:
        return {}
    lines = _tail(path).splitlines()
    try:
        names = next(csv.reader([head]), [])
        last = next(csv.reader(lines[-1:]), [])
    except csv.Error:
        return {}
    if len(last) != len(names) or last == names:
        return {}
    return dict(zip(names, last, strict=True))


def main_figure(
    metrics: Mapping[str, Any], is_restored: bool
) -> tuple[str, float | None]:
    """Returns the main figure of a run as text and as a number."""
    found = [
        ("validation_bound", "validation bound {:.5g}"),
        ("test_bound", "test bound {:.5g}"),
        ("bound", "bound {:.5g}"),
    ]
    if is_restored:
        found = [("psnr", "PSNR {:.2f} dB"), ("noise_std", "noise {:.4g}")]
    for name, form in found:
        value = _number(metrics.get(name))
        if value is not None:
            return form.format(value), value
    return "", None


def _number(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _figures(path: str) -> tuple[str, ...]:
    """Returns paths of the pictures of a run, below it."""
    try:
        with os.scandir(os.path.join(path, "figures")) as entries:
            names: Sequence[str] = sorted(
                one.name
                for one in entries
                if one.name.endswith(".png")
                and one.is_file(follow_symlinks=False)
            )
    except OSError:
        return ()
    return tuple(f"figures/{name}" for name in names[:_MOST_FIGURES])
