# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import pathlib
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
    """Opens a file that takes the place of another once it is whole.

    Until then it has the same name with `.partial` behind it. An error leaves
    the other as it was, and nothing beside it; a kill leaves the partial one.

    Args:
      path: The other, which need not exist; its folder must.
      mode: "w" for text, as UTF-8, or "wb".
      newline: As of `open`.
      is_synced: Whether its content is on the disk before it gets its name,
        so that it is whole after a power failure, too.
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


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Returns once the names in a folder are on the disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
