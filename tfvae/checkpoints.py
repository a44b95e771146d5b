# SPDX-License-Identifier: Apache-2.0
"""Atomic, checksummed checkpoints of a training run.

One checkpoint is one `.npz` file. It holds every variable of the model and of
its optimizer (weights, states of the data points, step counters, random number
counters) and a JSON member that describes them. What has a row for each data
point, in memory or on disk, is read and written in parts, and is restored
wherever the model has it. It is written under a temporary
name, flushed to the disk and then renamed, so that a file of the final name is
complete; later damage is detected by the checksums of the archive.

A checkpoint of a model that several ranks train (`tfvae.ranks`) is one such
file, without the variables that have a row for each data point, and one file
for each rank with its rows, `rows-<epoch>-<rank>-of-<ranks>.npz`. The former is
written once all of the latter are complete. Any number of ranks can restore it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfvae import files
from tfvae import ranks as ranks_lib
from tfvae.arguments import check_counts
from tfvae.resources import check_disk_space

_FORMAT = 1
_MEMBER = "checkpoint.json"
_PREFIX, _ROWS_PREFIX = "checkpoint-", "rows-"
# Keys of what only checkpoints of several ranks describe: the arrays that a
# file holds, and how many data points each rank had.
_HELD, _ROWS_OF_RANKS = "arrays", "rows_of_ranks"
# What versions up to 0.2 stored with states, and what is left of it: whether
# there had been a visit, before which it was -inf.
_LOG_JOINTS, _VISITED = "joints", "visited"
# Group of the arrays of a model that are on disk, and how many bytes of rows
# are copied at a time.
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

    Of a model that several ranks train, all have to call it; what is not of
    their rows is that of rank 0.

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
    check_counts(keep=keep)
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    extra = {} if extra is None else extra
    ranks = _ranks(model)
    if ranks.size > 1 and _rows(model):
        return _save_of_ranks(directory, model, epoch, extra, keep, ranks)
    content = _content(model, epoch, extra)
    path = directory / f"{_PREFIX}{epoch:06d}.npz"
    if ranks.rank == 0:
        _save_all(path, model, content, keep)
    ranks.barrier()
    return Checkpoint(path, int(epoch), extra)


def _save_all(
    path: pathlib.Path, model: keras.Model, content: dict[str, Any], keep: int
) -> None:
    """As `save`, of a model without rows that other ranks have."""
    directory = path.parent
    values = [variable.numpy() for variable in _variables(model)]
    values += _disk_arrays(model).values()
    arrays = {_member(index): array for index, array in enumerate(values)}
    _check_room(directory, _size(arrays))
    _write_archive(path, arrays, content)
    for old in _files(directory)[:-keep]:
        old.unlink()


def _save_of_ranks(
    directory: pathlib.Path,
    model: keras.Model,
    epoch: int,
    extra: dict[str, Any],
    keep: int,
    ranks: ranks_lib.Ranks,
) -> Checkpoint:
    """As `save`, on each of several ranks."""
    content = _content(model, epoch, extra)
    rows = _rows(model)
    # Those of rank 0, as others may have their rows elsewhere.
    members = ranks.broadcast(_members(content["variables"], rows))
    own = {members[name]: np.asarray(array) for name, array in rows.items()}
    shared: dict[str, np.ndarray] = {}
    if ranks.rank == 0:
        shared = {
            _member(index): variable.numpy()
            for index, variable in enumerate(_variables(model))
            if _member(index) not in own
        }
    path = directory / f"{_PREFIX}{epoch:06d}.npz"
    _check_room(directory, sum(ranks.gather(_size({**shared, **own}))))
    _write_archive(
        _rows_file(path, ranks.rank, ranks.size), own, {_HELD: [*own]}
    )
    # Once all have written theirs.
    content[_ROWS_OF_RANKS] = ranks.gather(_num_rows(model))
    if ranks.rank == 0:
        _write_archive(path, shared, {**content, _HELD: [*shared]})
        for old in _files(directory)[:-keep]:
            old.unlink()
        kept = {_epoch_text(one) for one in _files(directory)}
        for old in directory.glob(f"{_ROWS_PREFIX}*"):
            if _epoch_text(old) not in kept or old.suffix == ".partial":
                old.unlink()
    ranks.barrier()
    return Checkpoint(path, int(epoch), extra)


def _content(
    model: keras.Model, epoch: int, extra: dict[str, Any]
) -> dict[str, Any]:
    """Returns what describes a checkpoint, for its JSON member."""
    return {
        "format": _FORMAT,
        "epoch": int(epoch),
        "extra": extra,
        "variables": _descriptions(model),
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
    }


def _size(arrays: Mapping[str, np.ndarray]) -> int:
    """Returns the bytes of arrays."""
    return sum(array.nbytes for array in arrays.values())


def _check_room(directory: pathlib.Path, num_bytes: int) -> None:
    """Raises an OSError if so many bytes do not fit on the disk."""
    check_disk_space(directory, num_bytes, f"writing to {directory}")


def _ranks(model: keras.Model) -> ranks_lib.Ranks:
    return getattr(model, "ranks", ranks_lib.ONE_PROCESS)


def _rows(model: keras.Model) -> dict[str, keras.Variable | np.ndarray]:
    """Returns what has a row for each data point, in memory or on disk."""
    row_variables = getattr(model, "row_variables", list)
    in_memory = {_name(variable): variable for variable in row_variables()}
    return {**in_memory, **_disk_arrays(model)}


def _num_rows(model: keras.Model) -> int:
    """Returns the data points of this process; 0 if it stores none."""
    return max((one.shape[0] for one in _rows(model).values()), default=0)


def _name(variable: keras.Variable) -> str:
    """Returns the end of a variable's path, `kernel` or `velocity`.

    What comes before depends on the layers that the process has made so far.
    """
    return re.split(r"[/_]", variable.path)[-1]


def _member(index: int) -> str:
    """Returns the name in an archive of the array that is described there."""
    return f"{index:04d}"


def _members(
    described: list[dict[str, Any]], names: Collection[str]
) -> dict[str, str]:
    """Returns the names in an archive of what has rows, by their own names.

    Args:
      described: The descriptions of all that is saved.
      names: The names of what has rows.
    """
    return {
        one["name"]: _member(index)
        for index, one in enumerate(described)
        if one["name"] in names and one["group"] != "optimizer"
    }


def _rows_file(path: pathlib.Path, rank: int, size: int) -> pathlib.Path:
    """Returns the file of a rank's rows that belongs to a checkpoint."""
    name = f"{_ROWS_PREFIX}{_epoch_text(path)}-{rank}-of-{size}.npz"
    return path.with_name(name)


def _epoch_text(path: pathlib.Path) -> str:
    """Returns the epoch in the name of a file, with its leading zeros."""
    return path.name.split("-")[1].split(".")[0]


def restore_latest(
    directory: str | os.PathLike[str],
    model: keras.Model,
    *,
    grows: Collection[str] = (),
) -> Checkpoint | None:
    """Restores a model from the newest undamaged checkpoint.

    A damaged checkpoint is reported in the log, and the one before it is used.
    All values are verified before the first one is assigned, so the model is
    never left partly restored.

    Of a model that several ranks train, all have to call it. They agree on the
    newest checkpoint that is undamaged for all, and each takes its rows, which
    are those of `Ranks.rows`.

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
    ranks = _ranks(model)
    rows = _rows(model)
    paths = ranks.broadcast(_files(pathlib.Path(directory)))
    for path in reversed(paths):
        content, arrays, damage = _read_undamaged(path, ranks, rows)
        found = next(filter(None, ranks.gather(damage)), None)
        if found is not None:
            if ranks.rank == 0:
                _logger.warning(
                    "Skipping the damaged checkpoint %s: %s", path, found
                )
            continue
        saved = [_of_visits(one) for one in content["variables"]]
        members = _members(saved, rows)
        if optimizer is None:
            saved = [one for one in saved if one["group"] != "optimizer"]
        saved = _rows_last(saved, rows)
        current = _rows_last(_descriptions(model), rows)
        pairs = zip(saved, current, strict=False)
        grown = [_grown(*pair, grows) for pair in pairs]
        _check_fit(path, [*grown, *saved[len(current) :]], current)
        # The optimizer's arrays come last; without one they are ignored.
        in_memory = {id(one) for one in rows.values()}
        others = [v for v in _variables(model) if id(v) not in in_memory]
        for variable, array in zip(others, arrays, strict=False):
            if len(variable.shape) and len(array) < variable.shape[0]:
                array = np.concatenate([array, variable[len(array) :]])
            variable.assign(array)
        sources = _sources(path, content, ranks)
        for name, target in rows.items():
            if isinstance(target, np.ndarray):
                _copy_rows(sources, members[name], target)
                continue
            values = np.array(target)
            _copy_rows(sources, members[name], values)
            target.assign(values)
        return Checkpoint(path, content["epoch"], content["extra"])
    return None


def _rows_last(
    described: list[dict[str, Any]], names: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Returns descriptions in an order that is the same wherever rows are."""
    places = list(names)
    others: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for one in described:
        is_row = one["name"] in names and one["group"] != "optimizer"
        (rows if is_row else others).append(one)
    rows.sort(key=lambda one: places.index(one["name"]))
    return others + [{**one, "group": "rows"} for one in rows]


def _of_visits(saved: dict[str, Any]) -> dict[str, Any]:
    """Returns the description of visits in the place of stored log-joints."""
    if saved["name"] != _LOG_JOINTS:
        return saved
    shape = saved["shape"][:1]
    return {**saved, "name": _VISITED, "shape": shape, "dtype": "bool"}


def _visited(log_joints: np.ndarray) -> np.ndarray:
    """Returns the visits, bool `[N]`, that log-joints `[N, S]` tell of."""
    return log_joints[:, 0] > -np.inf


def checkpoint_bytes(model: keras.Model) -> int:
    """Returns the size of one checkpoint of a built model.

    Of a model that several ranks train, it is that of all of their files.
    """
    rows = sum(_num_bytes(one) for one in _rows(model).values())
    own = _num_rows(model)
    every = sum(_num_bytes(one) for one in _variables(model)) + sum(
        array.nbytes for array in _disk_arrays(model).values()
    )
    if not own:
        return every
    num_data = getattr(model, "num_data_of_all", own)
    return every - rows + rows * num_data // own


def _num_bytes(array: keras.Variable | np.ndarray) -> int:
    itemsize = np.dtype(str(array.dtype)).itemsize
    return int(np.prod(array.shape)) * itemsize


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
    # Rows are those of all ranks.
    num_rows = sum(_ranks(model).gather(_num_rows(model)))
    of_rows = {id(one) for one in _rows(model).values()}
    on_disk = [
        {
            "group": _DISK,
            "name": name,
            "shape": [num_rows, *array.shape[1:]],
            "dtype": str(array.dtype),
        }
        for name, array in _disk_arrays(model).items()
    ]
    return [
        {
            "group": group,
            "name": _name(variable),
            "shape": (
                [num_rows, *variable.shape[1:]]
                if id(variable) in of_rows
                else list(variable.shape)
            ),
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
    if path.name.startswith(_PREFIX):  # Others may be writing their rows.
        for leftover in path.parent.glob(f"{_PREFIX}*.partial"):
            leftover.unlink()
    with files.replacing(path, "wb", is_synced=True) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(_MEMBER, json.dumps(content))
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                    np.lib.format.write_array(out, array, allow_pickle=False)
    files.sync_folder(path.parent)


class _Source(NamedTuple):
    """A file with rows of a checkpoint.

    Attributes:
      path: The file.
      first: The data point of its first row.
      step: Data points from one of its rows to the next.
      own_first: The data point of this process's first row.
      own_step: Data points from one of this process's rows to the next.
    """

    path: pathlib.Path
    first: int = 0
    step: int = 1
    own_first: int = 0
    own_step: int = 1


def _sources(
    path: pathlib.Path, content: dict[str, Any], ranks: ranks_lib.Ranks
) -> list[_Source]:
    """Returns the files that have the rows of a rank.

    Args:
      path: The checkpoint.
      content: Its JSON member.
      ranks: The ranks that restore.

    Raises:
      ValueError: If the rows have to be dealt to another number of ranks, but
        were not those of `Ranks.rows`.
    """
    own = ranks.rank, ranks.size
    if _ROWS_OF_RANKS not in content:
        return [_Source(path, 0, 1, *own)]
    rows_of_ranks = content[_ROWS_OF_RANKS]
    size = len(rows_of_ranks)
    if size == ranks.size:
        return [_Source(_rows_file(path, ranks.rank, size))]
    num_data = sum(rows_of_ranks)
    dealt = [len(range(rank, num_data, size)) for rank in range(size)]
    if rows_of_ranks != dealt:
        raise ValueError(
            f"checkpoint {path} must be restored by the {size} ranks that "
            f"saved it, as they had {rows_of_ranks} data points instead of "
            f"{dealt}, got {ranks.size}"
        )
    return [
        _Source(_rows_file(path, rank, size), rank, size, *own)
        for rank in range(size)
    ]


def _read_undamaged(
    path: pathlib.Path, ranks: ranks_lib.Ranks, rows: Collection[str]
) -> tuple[dict[str, Any], list[np.ndarray], str]:
    """Reads a checkpoint but for its rows, and verifies those of a rank.

    Args:
      path: The checkpoint.
      ranks: The ranks that restore.
      rows: The names of what has rows.

    Returns:
      The JSON member, the arrays, and what is damaged, an empty text if nothing
      is.
    """
    try:
        with _undamaged(path) as archive:
            content = json.loads(archive.read(_MEMBER))
            saved = [_of_visits(one) for one in content["variables"]]
            of_rows = set(_members(saved, rows).values())
            others = [
                _member(index)
                for index, one in enumerate(saved)
                if one["group"] != _DISK
            ]
            arrays = []
            for name in content.get(_HELD, others):
                if name in of_rows:
                    continue
                with archive.open(f"{name}.npy") as file:
                    arrays.append(
                        np.lib.format.read_array(file, allow_pickle=False)
                    )
        for source in _sources(path, content, ranks):
            with _undamaged(source.path) as archive:
                for name in of_rows:
                    with archive.open(f"{name}.npy") as file:
                        _read_header(file)
    except DamagedCheckpointError as err:
        return {}, [], str(err) or "unknown damage"
    return content, arrays, ""


@contextlib.contextmanager
def _undamaged(path: pathlib.Path) -> Iterator[zipfile.ZipFile]:
    """Opens a complete archive and verifies every checksum.

    What the block then finds to be wrong with it is damage, too.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            if broken is not None:
                raise DamagedCheckpointError(f"wrong checksum of {broken}")
            yield archive
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


def _read_header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Reads the header of an array; returns its shape and dtype."""
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return shape, dtype


def _copy_rows(sources: list[_Source], member: str, target: np.ndarray) -> None:
    """Copies rows from verified archives, in parts.

    Args:
      sources: The archives.
      member: The name of the array in them.
      target: `[n, ...]`, the rows of this process; of more than were saved, the
        last are not changed.
    """
    for source in sources:
        with zipfile.ZipFile(source.path) as archive:
            with archive.open(f"{member}.npy") as file:
                shape, dtype = _read_header(file)
                row_bytes = dtype.itemsize * int(np.prod(shape[1:]))
                count = max(1, _COPIED_BYTES // max(1, row_bytes))
                for start in range(0, shape[0], count):
                    stop = min(start + count, shape[0])
                    content = file.read((stop - start) * row_bytes)
                    part = np.frombuffer(content, dtype)
                    part = part.reshape(stop - start, *shape[1:])
                    if target.dtype == bool and part.ndim == 2:
                        part = _visited(part)
                    points = source.first + source.step * np.arange(start, stop)
                    points -= source.own_first
                    is_own = points % source.own_step == 0
                    target[points[is_own] // source.own_step] = part[is_own]


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
        check_counts(every=every, keep=keep)
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
