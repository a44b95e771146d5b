# SPDX-License-Identifier: Apache-2.0
"""Data points in shards: a folder of `.npy` files, read a block at a time.

The folder has files `shard-000000.npy`, ... of `[rows, D]` each, and
`manifest.json`, which describes them. A row's number is its place in all files
one after the other, so that it is the same in every process and in every run.

Why `.npy`: a row is found by its number without reading what comes before, as
training needs (states belong to row numbers), which TFRecord does not offer;
files are written and read by NumPy alone; what is read needs no decoding.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
import zlib
from typing import Any

import numpy as np

from tfvae import files, typed_gin
from tfvae.arguments import check_counts, check_positive
from tfvae.data.source import Observations
from tfvae.ops.rows import LazyRows

MANIFEST = "manifest.json"
DTYPES = ("float32", "float16", "uint8")
"""The types that shards may have."""

_FORMAT = 1
# Bytes of the rows of a block, as float32.
_BLOCK_BYTES = 2**19
# Rows of a shard are read together if they are no further apart, and at most
# so many bytes at a time.
_GAP_BYTES, _READ_BYTES = 2**14, 2**23
# Rows of a sample that are next to each other.
_RUN = 64


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of data points.

    Attributes:
      file: Its name.
      rows: Number of data points.
      crc32: CRC-32 of the file.
      low: Smallest observed value.
      high: Largest observed value.
      missing: Number of missing entries.
    """

    file: str
    rows: int
    crc32: int
    low: float
    high: float
    missing: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Description of the shards of a folder.

    Attributes:
      name: Name of the data.
      event_shape: Shape of one data point; its product is D.
      dtype: One of `DTYPES`.
      shards: The files, in the order of their rows.
    """

    name: str
    event_shape: tuple[int, ...]
    dtype: str
    shards: tuple[Shard, ...]

    @property
    def num_rows(self) -> int:
        """N."""
        return sum(shard.rows for shard in self.shards)

    @property
    def num_columns(self) -> int:
        """D."""
        return int(np.prod(self.event_shape))

    @property
    def value_range(self) -> tuple[float, float]:
        """Smallest and largest observed value."""
        lows, highs = zip(*((s.low, s.high) for s in self.shards), strict=True)
        return min(lows), max(highs)

    @property
    def crc32(self) -> int:
        """CRC-32 of those of the shards, by which data are told apart."""
        sums = [shard.crc32 for shard in self.shards]
        return zlib.crc32(np.array(sums, "<u4").tobytes())

    def to_json(self) -> dict[str, Any]:
        """Returns what `manifest.json` holds."""
        return {
            "format": _FORMAT,
            "num_rows": self.num_rows,
            "num_columns": self.num_columns,
            "value_range": list(self.value_range),
            **dataclasses.asdict(self),
        }

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Manifest:
        """Reads the manifest of a folder.

        Args:
          folder: The folder.

        Raises:
          FileNotFoundError: If there is none.
          ValueError: If it is not one of this format.
        """
        path = pathlib.Path(folder) / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(
                f"`path` must be a folder with {MANIFEST}, which `tfvae shard` "
                f"writes once all shards are complete, got {str(folder)!r}"
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError(f"format {content['format']!r}")
            found = cls(
                content["name"],
                tuple(content["event_shape"]),
                content["dtype"],
                tuple(Shard(**one) for one in content["shards"]),
            )
            counts = found.num_rows, found.num_columns
            if counts != (content["num_rows"], content["num_columns"]):
                raise ValueError(f"{counts!r} rows and columns")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"`path` must have a {MANIFEST} of format {_FORMAT}, got "
                f"{path}: {error}"
            ) from error
        return found

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Writes it to a folder, atomically."""
        path = pathlib.Path(folder) / MANIFEST
        with files.replacing(path, is_synced=True) as file:
            json.dump(self.to_json(), file, indent=1)
        files.sync_folder(folder)


class ShardedRows(LazyRows):
    """The data points of a folder of shards, `[N, D]` float32.

    Rows are read from the files when they are asked for; none are kept.

    Attributes:
      manifest: Describes the shards.
      scale: Factor from the stored values to the data points'.
      crc32: CRC-32 by which data are told apart.
    """

    def __init__(
        self, folder: str | os.PathLike[str], scale: float = 1.0
    ) -> None:
        """Opens the folder; no values are read.

        Args:
          folder: The folder.
          scale: Factor from the stored values to the data points'.

        Raises:
          FileNotFoundError: If the manifest or a shard is missing.
          ValueError: If they do not fit each other.
        """
        self.manifest = Manifest.read(folder)
        self.scale = scale
        self.crc32 = zlib.crc32(repr(scale).encode(), self.manifest.crc32)
        self._dtype = np.dtype(self.manifest.dtype)
        self._row_bytes = self._dtype.itemsize * self.manifest.num_columns
        self._files = [
            pathlib.Path(folder) / one.file for one in self.manifest.shards
        ]
        self._offsets = [
            self._checked_offset(*pair)
            for pair in zip(self._files, self.manifest.shards, strict=True)
        ]
        self._ends = np.cumsum([one.rows for one in self.manifest.shards])
        super().__init__(self.manifest.num_rows, self.manifest.num_columns)
        self.block_rows = max(1, _BLOCK_BYTES // (4 * self.shape[1]))
        low, high = (scale * one for one in self.manifest.value_range)
        self.limits = (low, high)

    @property
    def rows_of_shards(self) -> list[int]:
        """The number of rows of each shard."""
        return [one.rows for one in self.manifest.shards]

    def _checked_offset(self, path: pathlib.Path, shard: Shard) -> int:
        """Returns where in a shard's file the values begin."""
        if not path.is_file():
            raise FileNotFoundError(
                f"`path` must have all shards that {MANIFEST} lists, got none "
                f"at {path}"
            )
        shape = (shard.rows, self.manifest.num_columns)
        with path.open("rb") as file:
            try:
                version = np.lib.format.read_magic(file)
                if version != (1, 0):
                    raise ValueError(f"version {version}")
                found = np.lib.format.read_array_header_1_0(file)
            except ValueError as error:
                raise ValueError(
                    f"`path` must have shards that are .npy files, got {path}: "
                    f"{error}"
                ) from error
            offset = file.tell()
        expected = offset + shard.rows * self._row_bytes
        if found != (shape, False, self._dtype) or (
            path.stat().st_size != expected
        ):
            raise ValueError(
                f"`path` must have shards as {MANIFEST} describes them, "
                f"{self._dtype} {shape!r} of {expected:,} bytes, got "
                f"{found[2]} {found[0]!r} of {path.stat().st_size:,} bytes in "
                f"{path}"
            )
        return offset

    def take(self, index: np.ndarray) -> np.ndarray:
        index = np.asarray(index, np.int64)
        rows = np.empty((len(index), self.shape[1]), np.float32)
        # Files are read in ascending order.
        order: np.ndarray | None = None
        if np.any(index[1:] < index[:-1]):
            order = np.argsort(index, kind="stable")
            index = index[order]
        edges = np.searchsorted(index, [0, *self._ends])
        for number in np.flatnonzero(np.diff(edges)):
            places = slice(*edges[number : number + 2])
            first = self._ends[number] - self.manifest.shards[number].rows
            found = rows[places] if order is None else None
            if found is None:
                found = np.empty_like(rows[places])
            self._read(int(number), index[places] - first, found)
            if order is not None:
                rows[order[places]] = found
        if self.scale != 1.0:
            rows *= np.float32(self.scale)
        return rows

    def _read(self, number: int, index: np.ndarray, out: np.ndarray) -> None:
        """Reads rows of a shard.

        Args:
          number: The shard.
          index: int64 `[n]`, ascending rows of it.
          out: float32 `[n, D]`, is set to them.
        """
        gap = max(1, _GAP_BYTES // self._row_bytes)
        piece = max(1, _READ_BYTES // self._row_bytes)
        steps = np.diff(index)
        is_apart = (steps > gap) | (np.diff(index // piece) > 0)
        bounds = [0, *(np.flatnonzero(is_apart) + 1), len(index)]
        path = self._files[number]
        file = os.open(path, os.O_RDONLY)
        try:
            for start, stop in itertools.pairwise(bounds):
                first = int(index[start])
                count = int(index[stop - 1] - first + 1) * self._row_bytes
                offset = self._offsets[number] + first * self._row_bytes
                content = os.pread(file, count, offset)
                if len(content) != count:
                    raise OSError(f"{path} has been cut short")
                values = np.frombuffer(content, self._dtype)
                values = values.reshape(-1, self.shape[1])
                if np.any(steps[start : stop - 1] != 1):
                    values = values[index[start:stop] - first]
                out[start:stop] = values
        finally:
            os.close(file)

    def verify(self) -> None:
        """Reads all files and compares their checksums.

        Raises:
          ValueError: If one differs, with its name.
        """
        for path, shard in zip(self._files, self.manifest.shards, strict=True):
            found = crc32_of_file(path)
            if found != shard.crc32:
                raise ValueError(
                    f"`path` must have undamaged shards, got {path} with the "
                    f"checksum {found} instead of {shard.crc32}"
                )


def crc32_of_file(path: pathlib.Path) -> int:
    """Returns the CRC-32 of a file."""
    checksum = 0
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            checksum = zlib.crc32(part, checksum)
    return checksum


def sample_rows(rows: LazyRows, count: int, seed: int = 0) -> np.ndarray:
    """Returns a random sample of rows, without replacement.

    What is read together is sampled together: the sample consists of short runs
    of consecutive rows, at random places.

    Args:
      rows: The table, `[N, D]`.
      count: Rows of the sample; all if there are no more.
      seed: Seed of the draw.

    Returns:
      float32 `[n, D]`.
    """
    if count + _RUN >= len(rows):
        return rows[:count]
    runs = np.random.default_rng(seed).choice(
        -(-len(rows) // _RUN), -(-count // _RUN) + 1, replace=False
    )
    index = (runs[:, None] * _RUN + np.arange(_RUN)).reshape(-1)
    return rows[np.sort(index[index < len(rows)][:count])]


@typed_gin.register
def shard_files(
    path: str,
    *,
    test_path: str | None = None,
    num_test: int = 10_000,
    weights_path: str | None = None,
    value_range: tuple[float, float] | None = None,
    scale: float = 1.0,
    verify: bool = False,
) -> Observations:
    """Data points from a folder of shards, which may exceed the memory.

    Args:
      path: Folder that `tfvae shard` has written.
      test_path: Folder of shards with held-out points, or None.
      num_test: The maximum number of held-out points, which are held in
        memory; of more, a random sample.
      weights_path: `.npy` file of weights `[N]`, by which data points are drawn
        with replacement; None to visit each once an epoch.
      value_range: See `Observations`; the smallest and largest value that
        occurs if None.
      scale: Factor from the stored values to the model's.
      verify: Whether to compare all checksums first, which reads all files.

    Returns:
      The data points, which are read when they are needed.

    Raises:
      FileNotFoundError: If there are no shards.
      ValueError: If shards are damaged or incomplete, or an argument is out of
        range.
    """
    check_positive(scale=scale)
    check_counts(num_test=num_test)
    train: Any = ShardedRows(path, scale)
    test = None
    if test_path is not None:
        held_out = ShardedRows(test_path, scale)
        if verify:
            held_out.verify()
        test = sample_rows(held_out, num_test)
    if verify:
        train.verify()
    weights = None
    if weights_path is not None:
        if not os.path.isfile(weights_path):
            raise FileNotFoundError(
                "`weights_path` must be a .npy file of a weight for each data "
                f"point, got {weights_path!r}"
            )
        weights = np.load(weights_path, mmap_mode="r", allow_pickle=False)
    low, high = train.limits or (0.0, 1.0)
    if low == high:
        low, high = 0.0, 1.0
    return Observations(
        name=train.manifest.name,
        train=train,
        test=test,
        event_shape=train.manifest.event_shape,
        value_range=(low, high) if value_range is None else value_range,
        weights=weights,
    )
