# SPDX-License-Identifier: Apache-2.0
"""Atomic writing of files."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import IO, Any


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str],
    mode: str = "w",
    *,
    newline: str | None = None,
    is_synced: bool = False,
) -> Iterator[IO[Any]]:
    """Context manager that writes a file atomically.

    It yields a temporary file `<path>.partial`, which replaces `path` when the
    block ends. After an error `path` is unchanged and the temporary file is
    removed; a killed process leaves it behind.

    Args:
      path: The file to write, which need not exist; its folder must.
      mode: "w" for text, as UTF-8, or "wb".
      newline: As for `open`.
      is_synced: Whether to flush the content to the disk before renaming, so
        that the file is complete even after a power failure.
    """
    path = pathlib.Path(path)
    partial = path.with_name(path.name + ".partial")
    encoding = None if "b" in mode else "utf-8"
    try:
        with partial.open(mode, encoding=encoding, newline=newline) as file:
            yield file
            if is_synced:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replacing_path(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Context manager for libraries that write files by their names.

    It yields a temporary file of the same ending in the same folder, which
    replaces `path` when the block ends. After an error `path` is unchanged and
    the temporary file is removed.

    Args:
      path: The file to write, which need not exist; its folder must.
    """
    path = pathlib.Path(path)
    handle, name = tempfile.mkstemp(suffix=path.suffix, dir=path.parent)
    os.close(handle)
    try:
        yield pathlib.Path(name)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Flushes a folder's directory entries to the disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
