# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training run that survive kills and tell of damage.

One checkpoint is one `.npz` file. It holds every variable of the model and of
its optimizer (weights, states of the data points, step counters, random number
counters) and a JSON member that says what should be in it. It is written under
another name, flushed to the disk and then renamed, so that a file of the final
name is complete; should it be damaged later, the checksums of the archive tell.
"""

from __future__ import annotations

import json
import logging
import os
import pathlib
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfvae import files
from tfvae.resources import check_disk_space

_FORMAT = 1
_MEMBER = "checkpoint.json"
_PREFIX = "checkpoint-"

_logger = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """What a restored or saved checkpoint tells about itself."""

    path: pathlib.Path
    """The file."""
    epoch: int
    """The number of epochs that were complete."""
    extra: dict[str, Any]
    """What the caller of `save` asked to keep beside the variables."""


class DamagedCheckpointError(RuntimeError):
    """The file is not what `save` once wrote."""


def save(
    directory: str | os.PathLike[str],
    model: keras.Model,
    epoch: int,
    extra: dict[str, Any] | None = None,
    *,
    keep: int = 2,
) -> Checkpoint:
    """Writes a checkpoint and removes all but the last ones.

    Args:
      directory: Folder of the checkpoints; made where it does not exist.
      model: A built model. Its optimizer is saved with it when it has one.
      epoch: Number of epochs that are complete.
      extra: Anything that JSON can hold, given back by `restore_latest`.
      keep: Number of checkpoints that remain, this one included.

    Returns:
      The checkpoint.

    Raises:
      ValueError: If `keep` is less than 1.
      OSError: If the disk has no room for it; nothing is written then.
    """
    if keep < 1:
        raise ValueError(f"`keep` must be at least 1, got {keep!r}.")
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"{index:04d}": variable.numpy()
        for index, variable in enumerate(_variables(model))
    }
    check_disk_space(
        directory,
        sum(array.nbytes for array in arrays.values()),
        f"writing to {directory}",
    )
    content: dict[str, Any] = {
        "format": _FORMAT,
        "epoch": int(epoch),
        "extra": {} if extra is None else extra,
        "variables": _descriptions(model),
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
    }
    path = directory / f"{_PREFIX}{epoch:06d}.npz"
    _write_archive(path, arrays, content)
    for old in _files(directory)[:-keep]:
        old.unlink()
    return Checkpoint(path, int(epoch), content["extra"])


def restore_latest(
    directory: str | os.PathLike[str],
    model: keras.Model,
    *,
    grows: Collection[str] = (),
) -> Checkpoint | None:
    """Gives a model the values of the newest checkpoint that is whole.

    A damaged checkpoint is reported in the log and the one before it is taken.
    All values are read and checked before the first one is assigned, so the
    model is never left half restored.

    Args:
      directory: Folder that `save` wrote to; it need not exist.
      model: A built model like the saved one. Its optimizer is built here if
        it was not yet; without one, the saved optimizer is left out.
      grows: Last parts of the names of variables that may have more rows
        than the saved ones; the rest of their rows stay as they are.

    Returns:
      The checkpoint, or None when there is no whole one.

    Raises:
      ValueError: If a whole checkpoint belongs to another model.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)
    for path in reversed(_files(pathlib.Path(directory))):
        try:
            content, arrays = _read_archive(path)
        except DamagedCheckpointError as err:
            _logger.warning("Skipping the damaged checkpoint %s: %s", path, err)
            continue
        saved = content["variables"]
        if optimizer is None:
            saved = [one for one in saved if one["group"] == "model"]
        current = _descriptions(model)
        pairs = zip(saved, current, strict=False)
        grown = [_grown(*pair, grows) for pair in pairs]
        _check_fit(path, [*grown, *saved[len(current) :]], current)
        # The optimizer's arrays come last, and have no variable without one.
        for variable, array in zip(_variables(model), arrays, strict=False):
            if len(variable.shape) and len(array) < variable.shape[0]:
                array = np.concatenate([array, variable[len(array) :]])
            variable.assign(array)
        return Checkpoint(path, content["epoch"], content["extra"])
    return None


def checkpoint_bytes(model: keras.Model) -> int:
    """Returns the size of one checkpoint of a built model."""
    return sum(
        int(np.prod(variable.shape)) * np.dtype(str(variable.dtype)).itemsize
        for variable in _variables(model)
    )


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Returns all state that outlasts an epoch, the optimizer's last."""
    return [*_model_variables(model), *_optimizer_variables(model)]


def _model_variables(model: keras.Model) -> list[keras.Variable]:
    # Metrics start anew with each epoch, and some exist only once compiled.
    metrics = {id(variable) for variable in model.metrics_variables}
    return [v for v in model.variables if id(v) not in metrics]


def _optimizer_variables(model: keras.Model) -> list[keras.Variable]:
    optimizer = getattr(model, "optimizer", None)
    return [] if optimizer is None else list(optimizer.variables)


def _descriptions(model: keras.Model) -> list[dict[str, Any]]:
    """Returns what identifies each variable, apart from its value."""
    groups = {
        "model": _model_variables(model),
        "optimizer": _optimizer_variables(model),
    }
    return [
        {
            "group": group,
            # Only its end, `kernel` or `velocity`: what comes before depends
            # on the layers that the process has made so far.
            "name": re.split(r"[/_]", variable.path)[-1],
            "shape": list(variable.shape),
            "dtype": str(variable.dtype),
        }
        for group, variables in groups.items()
        for variable in variables
    ]


def _files(directory: pathlib.Path) -> list[pathlib.Path]:
    """Returns the checkpoints of a folder, oldest first."""
    return sorted(directory.glob(f"{_PREFIX}*.npz"))


def _write_archive(
    path: pathlib.Path, arrays: dict[str, np.ndarray], content: dict[str, Any]
) -> None:
    """Writes an archive that exists under its name only when complete."""
    for leftover in path.parent.glob(f"{_PREFIX}*.partial"):
        leftover.unlink()
    with files.replacing(path, "wb", is_synced=True) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(_MEMBER, json.dumps(content))
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                    np.lib.format.write_array(out, array, allow_pickle=False)
    files.sync_folder(path.parent)


def _read_archive(
    path: pathlib.Path,
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Reads an archive whole, every checksum verified."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            if broken is not None:
                raise DamagedCheckpointError(f"wrong checksum of {broken}.")
            content = json.loads(archive.read(_MEMBER))
            arrays = []
            for index in range(len(content["variables"])):
                with archive.open(f"{index:04d}.npy") as file:
                    arrays.append(
                        np.lib.format.read_array(file, allow_pickle=False)
                    )
    except (
        EOFError,
        KeyError,
        NotImplementedError,
        OSError,
        RuntimeError,
        ValueError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as err:
        raise DamagedCheckpointError(str(err).strip("'\"")) from err
    return content, arrays


def _grown(
    saved: dict[str, Any], current: dict[str, Any], grows: Collection[str]
) -> dict[str, Any]:
    """Describes a saved variable as if it had the rows it may lack."""
    rows, more = saved["shape"][:1], current["shape"][:1]
    if saved["name"] in grows and rows < more:
        return {**saved, "shape": [*more, *saved["shape"][1:]]}
    return saved


def _check_fit(
    path: pathlib.Path,
    saved: list[dict[str, Any]],
    current: list[dict[str, Any]],
) -> None:
    """Raises a ValueError where a checkpoint is not one of this model."""
    if len(saved) != len(current):
        raise ValueError(
            f"checkpoint {path} must hold the {len(current)} variables of the "
            f"model, got {len(saved)}."
        )
    for one, other in zip(saved, current, strict=True):
        if one != other:
            raise ValueError(
                f"checkpoint {path} must fit the model: variable "
                f"{other['name']} is {other['dtype']} {other['shape']}, got "
                f"{one['name']} {one['dtype']} {one['shape']}."
            )


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves a checkpoint after epochs, the last one in any case."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        every: int = 1,
        *,
        keep: int = 2,
        extra: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """Creates the callback; it belongs behind all that change the run.

        Args:
          directory: Folder of the checkpoints.
          every: Number of epochs from one checkpoint to the next.
          keep: Number of checkpoints that remain.
          extra: Called at each checkpoint for what to keep beside it.

        Raises:
          ValueError: If `every` or `keep` is less than 1.
        """
        super().__init__()
        if every < 1 or keep < 1:
            raise ValueError(
                "`every` and `keep` must be at least 1, got "
                f"{every!r} and {keep!r}."
            )
        self._directory = directory
        self._every = every
        self._keep = keep
        self._extra = extra

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves where it is time to."""
        done = epoch + 1
        if done % self._every == 0 or done == self.params["epochs"]:
            save(
                self._directory,
                self.model,
                done,
                self._extra(),
                keep=self._keep,
            )
