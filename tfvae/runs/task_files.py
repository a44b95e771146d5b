# SPDX-License-Identifier: Apache-2.0
"""Tasks that are Python files of their own."""

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

import gin

from tfvae.lso.tasks.base import ScoredData, Task
from tfvae.runs import config
from tfvae.runs.run_directory import RunDirectory

PATH = "own_task.path"
"""The parameter that has the file."""
RECORD = "task.json"
"""Of a run folder, what says which file a run began with."""

_logger = logging.getLogger(__name__)
# Files that were found, by the paths that they were asked for with: an
# objective may change the folder that relative ones start from.
_FOUND: dict[pathlib.Path, pathlib.Path] = {}


@gin.register
def own_task(path: str | os.PathLike[str]) -> Task:
    """Returns the `task` of a Python file.

    Modules beside the file can be imported by it.

    Args:
      path: The file; it has a `Task` of that name, or a function that makes
        one.

    Raises:
      FileNotFoundError: If there is no such file.
      TypeError: If it has no `task`.
      ValueError: If it is no Python file, or fails.
    """
    resolved = _resolved(path)
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
    return _task_of(resolved, resolved.stat().st_mtime_ns)


def _resolved(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the whole path of a file."""
    path = pathlib.Path(path)
    resolved = path.resolve()
    if resolved.is_file():
        _FOUND[path] = resolved
    return _FOUND.get(path, resolved)


@functools.lru_cache(maxsize=8)
def _task_of(path: pathlib.Path, changed: int) -> Task:
    """Returns the task of a file as of when it was changed last."""
    del changed
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
    # What it takes to make the data is not for us to do several times.
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


def configured_file() -> pathlib.Path | None:
    """Returns the file of the configured task; None if it has none."""
    path = config.value(PATH)
    if path is None or "@own_task" not in config.text():
        return None
    return _resolved(path)


def is_of(run: RunDirectory) -> bool:
    """Returns whether a run began with the file that is configured now."""
    record, file = _read(run), configured_file()
    return file is not None and record.get("path") == str(file)


def note(run: RunDirectory, num_done: int) -> None:
    """Notes the file of the task, or warns if it has changed since it was.

    Args:
      run: The folder.
      num_done: Queries that have been evaluated.
    """
    file = configured_file()
    if file is None:
        return
    checksum = zlib.crc32(file.read_bytes())
    record = _read(run)
    if not num_done or not record:
        run.write_json(RECORD, {"path": str(file), "crc32": checksum})
    elif record["crc32"] != checksum:
        _logger.warning(
            "%s has changed since this run began; scores of old and new "
            "objectives will be mixed",
            file.name,
        )


def _read(run: RunDirectory) -> dict[str, str | int]:
    """Returns what `note` has written, nothing where it has not."""
    try:
        return json.loads((run.path / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
