# SPDX-License-Identifier: Apache-2.0
"""Loads a task from a Python file, and records which file a run used."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import logging
import os
import pathlib
import sys
import zlib
from collections.abc import Callable
from typing import NamedTuple

import gin

from tfvae.lso.tasks.base import ScoredData, Task
from tfvae.runs import config
from tfvae.runs.run_directory import RunDirectory

PATH = "own_task.path"
"""The parameter that has the file."""
RECORD = "task.json"
"""The file of a run folder that says which task file a run began with."""

_logger = logging.getLogger(__name__)


class TaskFile(NamedTuple):
    """A task, and the file that it is from."""

    task: Task
    path: pathlib.Path
    """Absolute."""
    crc32: int
    """Of the file when it was loaded."""


@gin.register
def own_task(path: str | os.PathLike[str]) -> Task:
    """Returns the `task` of a Python file, the same in a whole configuration.

    Args:
      path: See `load_task`.
    """
    return _configured(path).task


def _configured(path: str | os.PathLike[str]) -> TaskFile:
    """Loads a file once, whatever the current folder is later."""
    return config.once(("task file", os.fspath(path)), lambda: load_task(path))


def load_task(path: str | os.PathLike[str]) -> TaskFile:
    """Loads the `task` of a Python file.

    Modules beside the file can be imported by it. Data of the task are made
    once for each seed.

    Args:
      path: The file; it has a `Task` of that name, or a function that makes
        one.

    Raises:
      FileNotFoundError: If there is no such file.
      TypeError: If it has no `task`.
      ValueError: If it is no Python file, or fails.
    """
    resolved = pathlib.Path(path).resolve()
    if not resolved.is_file():
        what = "is no file" if resolved.exists() else "does not exist"
        raise FileNotFoundError(
            f"`task` must be a Python file, got {resolved}, which {what}."
        )
    if resolved.suffix != ".py":
        raise ValueError(
            "`task` must be a Python file, whose name ends in .py, got "
            f"{resolved}."
        )
    checksum = zlib.crc32(resolved.read_bytes())
    return TaskFile(_executed(resolved), resolved, checksum)


def _executed(path: pathlib.Path) -> Task:
    """Returns the task of a file."""
    name = f"{path.stem}_task"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Objectives are found there by processes that evaluate them.
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
        task = getattr(module, "task", None)
        if callable(task):
            task = task()
    except (Exception, SystemExit) as err:
        del sys.modules[name]
        raise ValueError(f"{path} fails: {type(err).__name__}: {err}") from err
    if not isinstance(task, Task):
        raise TypeError(
            f"{path} must have a `task` that is a tfvae.lso.Task, got {task!r}."
        )
    # The model and the optimiser ask for the same data.
    data = functools.cache(_checked(path, task.data))
    return dataclasses.replace(task, data=data)


def _checked(
    path: pathlib.Path, data: Callable[[int], ScoredData]
) -> Callable[[int], ScoredData]:
    """Returns the `data` of a task, with errors that name its file."""

    def checked(seed: int) -> ScoredData:
        try:
            found = data(seed)
        except (Exception, SystemExit) as err:
            raise ValueError(
                f"{path} fails: task.data({seed!r}): {type(err).__name__}: "
                f"{err}"
            ) from err
        if not isinstance(found, ScoredData):
            raise TypeError(
                f"`data` of the task of {path} must return a "
                "tfvae.lso.ScoredData, such as ScoredData(points, scores), "
                f"from task.data({seed!r}), got a {type(found).__name__}."
            )
        return found

    return checked


def configured() -> TaskFile | None:
    """Returns the file of the configured task; None if it has none."""
    path = config.value(PATH)
    if path is None or "@own_task" not in config.text():
        return None
    return _configured(path)


def is_of(run: RunDirectory) -> bool:
    """Returns whether a run began with the file that is configured now."""
    record, file = _read(run), configured()
    return file is not None and record.get("path") == str(file.path)


def note(run: RunDirectory, num_done: int) -> None:
    """Records the file of the task, or warns if it has changed since then.

    Args:
      run: The folder.
      num_done: Queries that have been evaluated.
    """
    file = configured()
    if file is None:
        return
    record = _read(run)
    if not num_done or not record:
        run.write_json(RECORD, {"path": str(file.path), "crc32": file.crc32})
    elif record["crc32"] != file.crc32:
        _logger.warning(
            "%s has changed since this run began; scores of old and new "
            "objectives will be mixed",
            file.path.name,
        )


def _read(run: RunDirectory) -> dict[str, str | int]:
    """Returns what `note` has written, nothing where it has not."""
    try:
        return json.loads((run.path / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
