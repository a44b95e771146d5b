# SPDX-License-Identifier: Apache-2.0
"""Atomic, checksummed checkpoints of a training run.

One checkpoint is one `.npz` file. It holds every variable of the model and of
its optimizer (weights, states of the data points, step counters, random number
counters) and a JSON member that describes them. It is written under a temporary
name, flushed to the disk and then renamed, so that a file of the final name is
complete; later damage is detected by the checksums of the archive.
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
# Group of the arrays of a model that are on disk, and how they are copied.
_DISK, _COPIED_BYTES = "disk", 2**24

_logger = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """A saved or restored checkpoint."""

    path: pathlib.Path
    """The file."""
    epoch: int
    """The number of completed epochs."""
    extra: dict[str, Any]
    """The `extra` that the caller of `save` stored beside the variables."""


class DamagedCheckpointError(RuntimeError):
    """The file is not as `save` wrote it."""


def save(
    directory: str | os.PathLike[str],
    model: keras.Model,
    epoch: int,
    extra: dict[str, Any] | None = None,
    *,
    keep: int = 2,
) -> Checkpoint:
    """Writes a checkpoint and deletes all but the last `keep` ones.

    Args:
      directory: Folder of the checkpoints; created if it does not exist.
      model: A built model. Its optimizer, if any, is saved with it.
      epoch: Number of completed epochs.
      extra: JSON-serialisable data, returned by `restore_latest`.
      keep: Number of checkpoints to keep, including this one.

    Returns:
      The checkpoint.

    Raises:
      ValueError: If `keep` is less than 1.
      OSError: If it does not fit on the disk; nothing is written then.
    """
    if keep < 1:
        raise ValueError(f"`keep` must be at least 1, got {keep!r}")
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    values = [variable.numpy() for variable in _variables(model)]
    values += _disk_arrays(model).values()
    arrays = {f"{index:04d}": array for index, array in enumerate(values)}
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
    """Restores a model from the newest undamaged checkpoint.

    A damaged checkpoint is reported in the log, and the one before it is used.
    All values are read and checked before the first one is assigned, so the
    model is never left partly restored.

    Args:
      directory: Folder that `save` wrote to; it need not exist.
      model: A built model like the saved one. Its optimizer is built here if
        needed; if it has none, the saved optimizer is ignored.
      grows: Suffixes of the names of variables that may have more rows than
        the saved ones; their other rows are not changed.

    Returns:
      The checkpoint, or None if there is no undamaged one.

    Raises:
      ValueError: If an undamaged checkpoint belongs to another model.
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
            saved = [one for one in saved if one["group"] != "optimizer"]
        current = _descriptions(model)
        on_disk = list(_disk_arrays(model).values())
        pairs = zip(saved, current, strict=False)
        grown = [_grown(*pair, grows) for pair in pairs]
        _check_fit(path, [*grown, *saved[len(current) :]], current)
        # The optimizer's arrays come last; without one they are ignored.
        for variable, array in zip(_variables(model), arrays, strict=False):
            if len(variable.shape) and len(array) < variable.shape[0]:
                array = np.concatenate([array, variable[len(array) :]])
            variable.assign(array)
        if on_disk:
            _copy_from_archive(path, len(arrays), on_disk)
        return Checkpoint(path, content["epoch"], content["extra"])
    return None


def checkpoint_bytes(model: keras.Model) -> int:
    """Returns the size of one checkpoint of a built model."""
    on_disk = sum(array.nbytes for array in _disk_arrays(model).values())
    return on_disk + sum(
        int(np.prod(variable.shape)) * np.dtype(str(variable.dtype)).itemsize
        for variable in _variables(model)
    )


def _disk_arrays(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns what a model has on disk, which is copied in parts."""
    arrays_on_disk = getattr(model, "arrays_on_disk", dict)
    return arrays_on_disk()


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Returns all variables that persist across epochs, optimizer's last."""
    return [*_model_variables(model), *_optimizer_variables(model)]


def _model_variables(model: keras.Model) -> list[keras.Variable]:
    # Metrics are reset in each epoch, and some exist only once compiled.
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
    on_disk = [
        {
            "group": _DISK,
            "name": name,
            "shape": list(array.shape),
            "dtype": str(array.dtype),
        }
        for name, array in _disk_arrays(model).items()
    ]
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
    ] + on_disk


def _files(directory: pathlib.Path) -> list[pathlib.Path]:
    """Returns the checkpoints of a folder, oldest first."""
    return sorted(directory.glob(f"{_PREFIX}*.npz"))


def _write_archive(
    path: pathlib.Path, arrays: dict[str, np.ndarray], content: dict[str, Any]
) -> None:
    """Writes an archive atomically."""
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
    """Reads a complete archive and verifies every checksum.

    Arrays of what is on disk are not read; they are the last ones.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            if broken is not None:
                raise DamagedCheckpointError(f"wrong checksum of {broken}")
            content = json.loads(archive.read(_MEMBER))
            arrays = []
            in_memory = [
                index
                for index, one in enumerate(content["variables"])
                if one["group"] != _DISK
            ]
            for index in in_memory:
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


def _copy_from_archive(
    path: pathlib.Path, first: int, targets: list[np.ndarray]
) -> None:
    """Copies arrays of a verified archive to arrays on disk, in parts.

    Args:
      path: The archive.
      first: The index of the first of the arrays.
      targets: Where to.
    """
    with zipfile.ZipFile(path) as archive:
        for index, target in enumerate(targets, first):
            with archive.open(f"{index:04d}.npy") as file:
                np.lib.format.read_magic(file)
                np.lib.format.read_array_header_1_0(file)
                flat = target.reshape(-1).view(np.uint8)
                for start in range(0, flat.size, _COPIED_BYTES):
                    part = file.read(min(_COPIED_BYTES, flat.size - start))
                    flat[start : start + len(part)] = np.frombuffer(
                        part, np.uint8
                    )


def _grown(
    saved: dict[str, Any], current: dict[str, Any], grows: Collection[str]
) -> dict[str, Any]:
    """Returns a saved variable's description with the number of rows grown."""
    rows, more = saved["shape"][:1], current["shape"][:1]
    if saved["name"] in grows and rows < more:
        return {**saved, "shape": [*more, *saved["shape"][1:]]}
    return saved


def _check_fit(
    path: pathlib.Path,
    saved: list[dict[str, Any]],
    current: list[dict[str, Any]],
) -> None:
    """Raises a ValueError if a checkpoint does not fit the model."""
    if len(saved) != len(current):
        raise ValueError(
            f"checkpoint {path} must hold the {len(current)} variables of the "
            f"model, got {len(saved)}"
        )
    for one, other in zip(saved, current, strict=True):
        if one != other:
            raise ValueError(
                f"checkpoint {path} must fit the model: variable "
                f"{other['name']} is {other['dtype']} {other['shape']}, got "
                f"{one['name']} {one['dtype']} {one['shape']}"
            )


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves a checkpoint every few epochs, and after the last one."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        every: int = 1,
        *,
        keep: int = 2,
        extra: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """Creates the callback; put it after all that change the model.

        Args:
          directory: Folder of the checkpoints.
          every: Number of epochs from one checkpoint to the next.
          keep: Number of checkpoints to keep.
          extra: Called at each checkpoint; returns the `extra` of `save`.

        Raises:
          ValueError: If `every` or `keep` is less than 1.
        """
        super().__init__()
        if every < 1 or keep < 1:
            raise ValueError(
                "`every` and `keep` must be at least 1, got "
                f"{every!r} and {keep!r}"
            )
        self._directory = directory
        self._every = every
        self._keep = keep
        self._extra = extra

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves a checkpoint if one is due."""
        done = epoch + 1
        if done % self._every == 0 or done == self.params["epochs"]:
            save(
                self._directory,
                self.model,
                done,
                self._extra(),
                keep=self._keep,
            )
