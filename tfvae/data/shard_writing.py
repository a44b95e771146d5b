# SPDX-License-Identifier: Apache-2.0
"""Writing of shards: validated, atomic, and resumable after a kill."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tqdm

from tfvae import files
from tfvae.arguments import check_counts
from tfvae.data.shards import DTYPES, MANIFEST, Manifest, Shard, crc32_of_file
from tfvae.resources import check_disk_space

PROGRESS = "progress.json"
"""File of the shards that are complete so far."""

SHARD_BYTES = 2**28
"""Bytes of a shard, about."""


class Part(NamedTuple):
    """Data points of an input, in order."""

    item: int
    """The number of the file, or whatever the input consists of."""
    offset: int
    """The number of the first data point within it."""
    values: np.ndarray
    """`[n, *event_shape]`, numbers, NaN where missing."""


class Input(Protocol):
    """Protocol of what shards are made of.

    Attributes:
      name: Name of the data.
      num_rows: N, None where it is not known before all is read.
    """

    name: str
    num_rows: int | None

    def identity(self) -> Any:
        """Returns what tells it from other inputs, as JSON."""

    def where(self, item: int) -> str:
        """Returns the name of an item, for messages."""

    def parts(self, item: int, offset: int) -> Iterator[Part]:
        """Yields all data points from a data point of an item on."""


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Arrays in memory, or memory maps, as an input.

    Attributes:
      arrays: `[n, *event_shape]` each, numbers, NaN where missing.
      name: Name of the data.
    """

    arrays: Sequence[np.ndarray]
    name: str = "arrays"

    @property
    def num_rows(self) -> int:
        """N."""
        return sum(map(len, self.arrays))

    def identity(self) -> Any:
        # Without reading all of them.
        return [
            [
                str(one.dtype),
                list(one.shape),
                zlib.crc32(one[:1].tobytes()),
                zlib.crc32(one[-1:].tobytes()),
            ]
            for one in self.arrays
        ]

    def where(self, item: int) -> str:
        return f"array {item}"

    def parts(self, item: int, offset: int) -> Iterator[Part]:
        for number in range(item, len(self.arrays)):
            start = offset if number == item else 0
            yield Part(number, start, self.arrays[number][start:])


def write_shards(
    folder: str | os.PathLike[str],
    source: Input,
    *,
    dtype: str | None = None,
    allow_missing: bool = True,
    rows_per_shard: int | None = None,
) -> Manifest:
    """Writes data points as shards, or continues where a call has ended.

    Each shard is complete when it has its name, and the manifest is written
    when all are. A call that was interrupted or killed is continued by another
    of the same input and settings, which reads on where the last complete shard
    ends. If nothing is left to do, nothing is done.

    Args:
      folder: The folder; created if it does not exist.
      source: What to write.
      dtype: One of `DTYPES`; None for uint8 where the first values are of that
        type or boolean, and else float32.
      allow_missing: Whether entries may be missing (NaN).
      rows_per_shard: Data points of a shard; None for 256 MB.

    Returns:
      The manifest.

    Raises:
      TypeError: If values are no numbers.
      ValueError: If values do not fit the dtype or each other, are infinite or
        missing where they must not be, or if the folder has other shards.
      OSError: If the shards do not fit on the disk.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {DTYPES}, got {dtype!r}")
    if rows_per_shard is not None:
        check_counts(rows_per_shard=rows_per_shard)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    asked = json.loads(
        json.dumps(
            {
                "input": source.identity(),
                "dtype": dtype,
                "allow_missing": allow_missing,
                "rows_per_shard": rows_per_shard,
            }
        )
    )
    progress = _Progress.read(folder, asked)
    if progress.is_complete:
        return Manifest.read(folder)
    _Writer(folder, source, progress).write()
    found = Manifest(
        source.name,
        tuple(progress.event_shape or ()),
        progress.dtype or "",
        tuple(progress.shards),
    )
    found.write(folder)
    return found


@dataclasses.dataclass
class _Progress:
    """What is complete of the shards of a folder."""

    asked: dict[str, Any]
    """Input and settings."""
    shards: list[Shard] = dataclasses.field(default_factory=list)
    position: tuple[int, int] = (0, 0)
    """Item and offset of the first data point that is not in a shard."""
    dtype: str | None = None
    event_shape: list[int] | None = None
    rows_per_shard: int | None = None
    is_complete: bool = False

    @classmethod
    def read(cls, folder: pathlib.Path, asked: dict[str, Any]) -> _Progress:
        """Reads the progress of a folder, or begins.

        Raises:
          ValueError: If the folder has shards of something else.
        """
        path = folder / PROGRESS
        if not path.exists():
            if any(folder.glob("*.npy")) or (folder / MANIFEST).exists():
                raise ValueError(
                    "the folder for the shards must be empty, or have those of "
                    f"an interrupted `tfvae shard`, got other files in {folder}"
                )
            found = cls(asked)
            found.write(folder)  # What comes after is ours.
            return found
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["asked"] != asked and not content["shards"]:
            return cls(asked)  # Nothing has been written.
        if content["asked"] != asked:
            different = [
                f"`{name}` {value!r} instead of {content['asked'][name]!r}"
                for name, value in asked.items()
                if value != content["asked"][name]
            ]
            raise ValueError(
                f"the folder {folder} must be empty, or the input and the "
                "settings those that its shards are of, got "
                f"{'; '.join(different)}"
            )
        content["shards"] = [Shard(**one) for one in content["shards"]]
        content["position"] = tuple(content["position"])
        is_complete = (folder / MANIFEST).exists()
        return cls(**{**content, "is_complete": is_complete})

    def write(self, folder: pathlib.Path) -> None:
        """Writes it to the folder, atomically."""
        content = dataclasses.asdict(self)
        with files.replacing(folder / PROGRESS, is_synced=True) as file:
            json.dump(content, file, indent=1)
        files.sync_folder(folder)


class _Writer:
    """Writes what is left of an input."""

    def __init__(
        self, folder: pathlib.Path, source: Input, progress: _Progress
    ) -> None:
        self._folder = folder
        self._source = source
        self._progress = progress
        self._num_done = sum(one.rows for one in progress.shards)
        # Of the shard that is being filled.
        self._values: np.ndarray | None = None
        self._num_filled = 0
        self._next = progress.position

    def write(self) -> None:
        """Writes all shards that are left; see `write_shards`."""
        for leftover in self._folder.glob("*.partial"):
            leftover.unlink()
        with tqdm.tqdm(
            total=self._source.num_rows,
            initial=self._num_done,
            desc="shards",
            disable=None,  # tqdm: disable unless on a terminal.
            unit="point",
            unit_scale=True,
        ) as bar:
            for part in self._source.parts(*self._progress.position):
                for start, values in self._pieces(part):
                    self._fill(part, start, values)
                    bar.update(len(values))
        if self._num_filled:
            self._finish()
        if not self._progress.shards:
            raise ValueError("the input must have a data point, got none")

    def _pieces(self, part: Part) -> Iterator[tuple[int, np.ndarray]]:
        """Yields a part in pieces that fit into the shard, with their start."""
        values = part.values
        if values.dtype.kind not in "buif":
            raise TypeError(
                f"the input must be numbers, got dtype {values.dtype} in "
                f"{self._source.where(part.item)}"
            )
        if values.ndim == 1:
            values = values[:, None]
        if self._values is None and len(values):
            self._begin(values)
        shape = tuple(self._progress.event_shape or ())
        if len(values) and values.shape[1:] != shape:
            raise ValueError(
                f"all data points must have the shape {shape!r} of the first "
                f"ones, got {values.shape[1:]!r} in "
                f"{self._source.where(part.item)}"
            )
        start = 0
        while start < len(values):
            room = len(self._buffer()) - self._num_filled
            stop = min(start + room, len(values))
            yield start, values[start:stop]
            start = stop

    def _begin(self, values: np.ndarray) -> None:
        """Chooses type and size of the shards, by the first values."""
        progress = self._progress
        if progress.event_shape is None:
            if 0 in values.shape[1:]:
                raise ValueError(
                    "data points must have at least one entry, got shape "
                    f"{values.shape!r}"
                )
            progress.event_shape = list(values.shape[1:])
            is_bytes = values.dtype in (np.uint8, np.bool_)
            progress.dtype = progress.asked["dtype"] or (
                "uint8" if is_bytes else "float32"
            )
            row_bytes = np.dtype(progress.dtype).itemsize * math.prod(
                progress.event_shape
            )
            progress.rows_per_shard = progress.asked["rows_per_shard"] or max(
                1, SHARD_BYTES // row_bytes
            )
            if self._source.num_rows is not None:
                check_disk_space(
                    self._folder,
                    self._source.num_rows * row_bytes,
                    f"writing shards to {self._folder}",
                )
        rows = progress.rows_per_shard or 1
        if self._source.num_rows is not None:
            rows = min(rows, max(1, self._source.num_rows))
        columns = math.prod(progress.event_shape)
        self._values = np.empty((rows, columns), progress.dtype)

    def _buffer(self) -> np.ndarray:
        assert self._values is not None
        return self._values

    def _fill(self, part: Part, start: int, values: np.ndarray) -> None:
        """Adds data points to the shard, and writes it once it is full."""
        first = part.offset + start
        where = self._source.where(part.item)
        flat = values.reshape(len(values), -1)
        buffer = self._buffer()
        target = buffer[self._num_filled : self._num_filled + len(flat)]
        _check(flat, first, where, self._progress.asked["allow_missing"])
        with np.errstate(over="ignore", invalid="ignore"):
            target[:] = flat
        _check_converted(flat, target, first, where)
        self._num_filled += len(flat)
        self._next = (part.item, first + len(flat))
        if self._num_filled == len(buffer):
            self._finish()

    def _finish(self) -> None:
        """Writes the shard, and that it is complete."""
        values = self._buffer()[: self._num_filled]
        name = f"shard-{len(self._progress.shards):06d}.npy"
        path = self._folder / name
        with files.replacing(path, "wb", is_synced=True) as file:
            np.lib.format.write_array(
                file, values, version=(1, 0), allow_pickle=False
            )
        is_missing = np.isnan(values) if values.dtype.kind == "f" else None
        missing = 0 if is_missing is None else int(is_missing.sum())
        self._progress.shards.append(
            Shard(
                name,
                len(values),
                crc32_of_file(path),
                float(np.fmin.reduce(values, None)),
                float(np.fmax.reduce(values, None)),
                missing,
            )
        )
        self._progress.position = self._next
        self._progress.write(self._folder)
        self._num_filled = 0


def _check(
    values: np.ndarray, first: int, where: str, allow_missing: bool
) -> None:
    """Raises a ValueError if data points `[n, D]` are not what they must be."""
    if values.dtype.kind != "f":
        return
    missing = np.isnan(values)
    for wrong, problem in (
        (np.isinf(values).any(1), "be finite, got an infinite value"),
        (missing.all(1), "have an observed entry, got only missing ones (NaN)"),
        (
            missing.any(1) & (not allow_missing),
            "have no missing entries (NaN) unless they are allowed, got one",
        ),
    ):
        if wrong.any():
            row = first + int(np.flatnonzero(wrong)[0])
            raise ValueError(
                f"data points must {problem} in row {row} of {where}"
            )


def _check_converted(
    values: np.ndarray, stored: np.ndarray, first: int, where: str
) -> None:
    """Raises a ValueError if a type can not hold the values it is given."""
    if stored.dtype == values.dtype or values.dtype == np.bool_:
        return
    if stored.dtype.kind == "f" and values.dtype.kind == "f":
        wrong = np.isinf(stored)  # Others are rounded.
    else:
        with np.errstate(invalid="ignore"):
            wrong = stored.astype(np.float64) != values
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"`dtype` must be one that holds all values, got {stored.dtype} "
            f"for {values[row, column]} in row {first + int(row)} of {where}"
        )
