# SPDX-License-Identifier: Apache-2.0
"""Tasks from Python files, with a record of the file that a run uses."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import logging
import os
import pathlib
import sys
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from tfvae import typed_gin
from tfvae.lso.tasks.base import ScoredData, Task
from tfvae.runs import config
from tfvae.runs.optimization_state import read_json
from tfvae.runs.run_directory import RunDirectory

PATH = "own_task.path"
"""The gin parameter of the path."""
RECORD = "task.json"
"""File of a run folder that records the task file the run started with."""

_logger = logging.getLogger(__name__)


class TaskFile(NamedTuple):
    """A task, and the file that it was loaded from."""

    task: Task
    path: pathlib.Path
    """Absolute path of the file."""
    crc32: int
    """CRC-32 of the file when it was loaded."""


@typed_gin.register
def own_task(path: str | os.PathLike[str]) -> Task:
    """Returns the `task` of a Python file, one object per configuration.

    Args:
      path: See `load_task`.
    """
    return _configured(path).task


def _configured(path: str | os.PathLike[str]) -> TaskFile:
    """Loads a file once, so that the current folder may change later."""
    return config.once(("task file", os.fspath(path)), lambda: load_task(path))


def load_task(path: str | os.PathLike[str]) -> TaskFile:
    """Loads the `task` of a Python file.

    The file can import modules in its own folder. The data of the task are
    cached by seed.

    Args:
      path: The file; it must define `task`, a `Task` or a function that
        returns one.

    Raises:
      FileNotFoundError: If there is no such file.
      TypeError: If it does not define a `Task`.
      ValueError: If it is not a Python file, or running it fails.
    """
    resolved = pathlib.Path(path).resolve()
    if not resolved.is_file():
        what = "is not a file" if resolved.exists() else "does not exist"
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
    # So that processes which evaluate objectives can unpickle them.
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
    # The training of the model and the optimisation use the same data.
    data = functools.cache(_checked(path, task.data))
    return dataclasses.replace(task, data=data)


def _checked(
    path: pathlib.Path, data: Callable[[int], ScoredData]
) -> Callable[[int], ScoredData]:
    """Wraps the `data` of a task so that errors name its file."""

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
    """Returns the configured task file, or None if the task has none."""
    path = config.value(PATH)
    if path is None or "@own_task" not in config.text():
        return None
    return _configured(path)


def is_of(run: RunDirectory) -> bool:
    """Returns whether a run started with the task file configured now.

    That is the file of the same path, or one of the same content elsewhere, as
    where a run and its task are copied to another machine.
    """
    record, file = _read(run), configured()
    return file is not None and (
        record.get("path") == str(file.path)
        or record.get("crc32") == file.crc32
    )


def note(run: RunDirectory, num_done: int) -> None:
    """Records the task file, or warns if it has changed since the run started.

    Args:
      run: The run folder.
      num_done: Number of queries evaluated so far.
    """
    file = configured()
    if file is None:
        return
    record = _read(run)
    is_moved = record.get("crc32") == file.crc32
    if not num_done or not record or is_moved:
        run.write_json(RECORD, {"path": str(file.path), "crc32": file.crc32})
    elif record["crc32"] != file.crc32:
        _logger.warning(
            "%s has changed since this run began; scores of old and new "
            "objectives will be mixed",
            file.path.name,
        )


def _read(run: RunDirectory) -> dict[str, Any]:
    """Returns the record that `note` has written, empty if there is none."""
    record = read_json(run.path / RECORD)
    return record if record.keys() >= {"path", "crc32"} else {}
