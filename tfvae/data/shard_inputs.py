# SPDX-License-Identifier: Apache-2.0
"""What shards are written from: files of arrays, tables and images."""

from __future__ import annotations

import csv as text_csv
import glob
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfvae.data.images import (
    IMAGE_SUFFIXES,
    convert_channels,
    read_image,
    resize_image,
)
from tfvae.data.shard_writing import Part
from tfvae.ops.patches import ImagePatches

ARRAY_SUFFIXES = (".npy", ".npz")
TABLE_SUFFIXES = (".csv", ".parquet")
RECORDS = ".tfrecord"
"""What the names of TFRecord files contain."""

INPUT_BYTES = 2**24
"""Bytes, about, of the values that an input yields at a time."""

# Rows of a Parquet file at a time.
_ROWS = 2**14


class Files:
    """Files as an input, see `shard_writing.Input`.

    Attributes:
      name: Name of the data.
      num_rows: None, as files are read to count their rows.
    """

    num_rows: int | None = None

    def __init__(self, paths: Sequence[str], **settings: Any) -> None:
        """Sets the files and what else decides about the data."""
        self._paths = [pathlib.Path(path) for path in paths]
        self._settings = settings
        first = self._paths[0]
        self.name = first.stem if len(self._paths) == 1 else first.parent.name
        self.name = self.name or "shards"

    def identity(self) -> Any:
        found = [(path.resolve(), path.stat()) for path in self._paths]
        return {
            **self._settings,
            "files": [
                [str(path), one.st_size, one.st_mtime_ns] for path, one in found
            ],
        }

    def where(self, item: int) -> str:
        return str(self._paths[item])

    def parts(self, item: int, offset: int) -> Iterator[Part]:
        for number in range(item, len(self._paths)):
            start = offset if number == item else 0
            for values in self._values(self._paths[number], start):
                yield Part(number, start, values)
                start += len(values)

    def _values(self, path: pathlib.Path, start: int) -> Iterator[np.ndarray]:
        """Yields the data points of a file, from a number on."""
        raise NotImplementedError


class ArrayFiles(Files):
    """`.npy` and `.npz` files of data points `[n, ...]`."""

    def __init__(self, paths: Sequence[str], key: str | None = None) -> None:
        """Sets the files.

        Args:
          paths: The files, at least one.
          key: Name of the array in `.npz` files; may be left out if they hold
            only one.
        """
        super().__init__(paths, key=key)
        self._key = key

    def _values(self, path: pathlib.Path, start: int) -> Iterator[np.ndarray]:
        array = self._open(path)
        if array.ndim < 1:
            raise ValueError(
                f"`inputs` must hold arrays [points, ...], got a number in "
                f"{path}"
            )
        row_bytes = max(1, array.nbytes // max(1, len(array)))
        count = max(1, INPUT_BYTES // row_bytes)
        for first in range(start, len(array), count):
            yield np.asarray(array[first : first + count])

    def _open(self, path: pathlib.Path) -> np.ndarray:
        try:
            if path.suffix == ".npy":
                return np.load(path, mmap_mode="r", allow_pickle=False)
            with np.load(path, allow_pickle=False) as archive:
                names = sorted(archive.files)
                key = self._key
                if key is None and len(names) == 1:
                    key = names[0]
                if key in names:
                    return archive[key]
        except (EOFError, OSError, ValueError) as error:
            raise ValueError(
                "`inputs` must be readable .npy or .npz files, got "
                f"{path}: {error}"
            ) from error
        raise ValueError(
            f"`key` must name one of the arrays {names!r} in {path}, got "
            f"{self._key!r}"
        )


class TableFiles(Files):
    """CSV and Parquet files, a data point in each row.

    All columns must be numbers; empty fields are missing entries. The first
    line of a CSV file has the names of the columns, unless all of its fields
    are numbers.
    """

    def _values(self, path: pathlib.Path, start: int) -> Iterator[np.ndarray]:
        import pyarrow

        num_seen = 0
        try:
            for batch in self._batches(path):
                num_seen += batch.num_rows
                skipped = max(0, start - (num_seen - batch.num_rows))
                if skipped < batch.num_rows:
                    yield _numbers(batch.slice(skipped), path)
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(
                "`inputs` must be tables of numbers with the same number of "
                f"columns in each row, got {path}: {error}"
            ) from error

    def _batches(self, path: pathlib.Path) -> Iterator[Any]:
        """Yields the rows of a file as batches of Arrow."""
        import pyarrow
        from pyarrow import csv, parquet

        if path.suffix == ".parquet":
            with parquet.ParquetFile(path) as file:
                yield from file.iter_batches(_ROWS)
            return
        # Arrow, too, ignores a byte order mark and empty lines.
        with path.open(
            encoding="utf-8-sig", errors="replace", newline=""
        ) as file:
            names = next(filter(None, text_csv.reader(file)), [])
        is_headless = all(map(_is_number, names))
        if is_headless:
            names = [f"f{column}" for column in range(len(names))]
        with csv.open_csv(
            path,
            csv.ReadOptions(block_size=INPUT_BYTES, column_names=names)
            if is_headless
            else csv.ReadOptions(block_size=INPUT_BYTES),
            # Not those of the first rows, which may be integers or empty.
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pyarrow.float64())
            ),
        ) as reader:
            yield from reader


def _is_number(field: str) -> bool:
    try:
        float(field or "nan")
    except ValueError:
        return False
    return True


def _numbers(batch: Any, path: pathlib.Path) -> np.ndarray:
    """Returns a batch of Arrow as an array `[n, D]`."""
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        kind = str(column.type)
        if not kind.startswith(("int", "uint", "float", "double", "halffloat")):
            raise ValueError(
                f"`inputs` must have numbers in all columns, got the column "
                f"{name!r} of type {kind} in {path}"
            )
        columns.append(column.to_numpy(zero_copy_only=False))
    return np.stack(columns, axis=1)


class ImageFiles(Files):
    """Image files as an input: whole images, or all of their patches.

    Values are on 0..255; those of images of 8 bits that are taken as they are
    are uint8.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        patch: tuple[int, int] | None = None,
        stride: int = 1,
        size: tuple[int, int] | None = None,
        channels: int | None = None,
    ) -> None:
        """Sets the files.

        Args:
          paths: The files, at least one.
          patch: Height and width of patches; None for whole images.
          stride: Distance of neighbouring patches, in pixels.
          size: Height and width that images are resized to.
          channels: 1 to convert all to grey, 3 to RGB; None if they agree.
        """
        super().__init__(
            paths, patch=patch, stride=stride, size=size, channels=channels
        )
        self._patch = patch
        self._stride = stride
        self._size = size
        self._channels = channels

    def _values(self, path: pathlib.Path, start: int) -> Iterator[np.ndarray]:
        pixels = self._pixels(path)
        if self._patch is None:
            yield pixels[None][start:]
            return
        try:
            patches = ImagePatches(pixels, self._patch, self._stride)
        except ValueError as error:
            raise ValueError(f"{error}, in {path}") from error
        shape = (*self._patch, pixels.shape[2])
        count = max(1, INPUT_BYTES // (4 * patches.shape[1]))
        for first in range(start, len(patches), count):
            yield patches[first : first + count].reshape(-1, *shape)

    def _pixels(self, path: pathlib.Path) -> np.ndarray:
        """Returns an image, `[height, width, channels]` on 0..255."""
        try:
            image = read_image(path)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"`inputs` must be readable image files, got {path}: {error}"
            ) from error
        is_as_read = self._size is None and image.alpha is None
        if is_as_read and image.values.dtype == np.uint8:
            if self._channels in (None, image.values.shape[2]):
                return image.values
        pixels = image.pixels
        if self._channels is not None:
            pixels = convert_channels(pixels, self._channels)
        return (
            pixels if self._size is None else resize_image(pixels, self._size)
        )


def matching_files(inputs: Sequence[str]) -> list[str]:
    """Returns the files of paths, folders and patterns, each sorted.

    Args:
      inputs: Each a file, a folder with files of known kinds directly inside,
        or a pattern such as "parts/*.npy".

    Raises:
      FileNotFoundError: If one of them matches no file.
    """
    kinds = (*ARRAY_SUFFIXES, *TABLE_SUFFIXES, *IMAGE_SUFFIXES)
    known = tuple(dict.fromkeys(kinds))

    def is_known(name: str) -> bool:
        return name.lower().endswith(known) or is_record_file(name)

    found: list[str] = []
    for path in inputs:
        if os.path.isdir(path):
            files = [
                os.path.join(path, name)
                for name in os.listdir(path)
                if is_known(name) and name[0] != "."
            ]
        else:
            files = [one for one in glob.glob(path) if os.path.isfile(one)]
            if os.path.isfile(path):
                files = [path]
        if not files:
            raise FileNotFoundError(
                "`inputs` must be files, folders with files or patterns that "
                f"match some, of the kinds {', '.join((*known, RECORDS))}, "
                f"got {path!r}"
            )
        found += sorted(files)
    return found


def is_record_file(path: str) -> bool:
    """Returns whether a file is of TFRecord, by its name.

    It may go on, as in x.tfrecord-00000-of-00010 or x.tfrecord.gz.
    """
    return RECORDS in os.path.basename(path).lower()
