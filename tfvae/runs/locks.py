# SPDX-License-Identifier: Apache-2.0
"""Lock of a run folder."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import filelock


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Locks an existing folder, so that no other process writes to it.

    Raises:
      RuntimeError: If another process has locked it.
    """
    lock = filelock.FileLock(path / "lock", blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout as err:
        raise RuntimeError(
            f"`run_dir` {path} is in use by another process; "
            "wait for it or choose another folder."
        ) from err
    try:
        yield
    finally:
        lock.release()
