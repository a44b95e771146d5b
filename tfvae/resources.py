# SPDX-License-Identifier: Apache-2.0
"""Tells that something is too large before it is made."""

from __future__ import annotations

import os
import shutil

import psutil

# What a file system needs beside the content: headers, names, other files.
_SPARE_BYTES = 2**20


def check_memory(num_bytes: int, what: str, remedy: str) -> None:
    """Raises a ValueError if `num_bytes` exceed the memory that is free.

    Args:
      num_bytes: What is about to be taken.
      what: Names it, as the subject of a sentence.
      remedy: What to do about it, as a sentence without its full stop.

    Raises:
      ValueError: With both sizes and the remedy.
    """
    available = psutil.virtual_memory().available
    if num_bytes > available:
        raise ValueError(
            f"{what} would take {num_bytes / 1e9:.1f} GB of memory, only "
            f"{available / 1e9:.1f} GB are free; {remedy}"
        )


def check_disk_space(
    path: str | os.PathLike[str], num_bytes: int, what: str
) -> None:
    """Raises an OSError if `num_bytes` do not fit on the disk of `path`.

    Args:
      path: An existing folder.
      num_bytes: What is about to be written there.
      what: Names the writing, as the subject of a sentence.

    Raises:
      OSError: With the bytes needed and the bytes free.
    """
    free = shutil.disk_usage(path).free
    needed = num_bytes + _SPARE_BYTES
    if free < needed:
        raise OSError(
            f"no disk space: {what} needs {needed:,} bytes, only {free:,} are "
            "free."
        )
