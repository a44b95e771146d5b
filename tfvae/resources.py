# SPDX-License-Identifier: Apache-2.0
"""Memory and disk space: whether data fit, before they are created."""

from __future__ import annotations

import os
import resource
import shutil
import sys

import psutil

# Reserve of disk space beside the content: headers, names, other files.
_SPARE_BYTES = 2**20


def check_memory(num_bytes: int, what: str, remedy: str) -> None:
    """Raises a ValueError if `num_bytes` exceed the available memory.

    Args:
      num_bytes: Memory about to be allocated.
      what: What it is for, the subject of the error message.
      remedy: What the user can do, in the imperative, without full stop.

    Raises:
      ValueError: If it does not fit, with both sizes and the remedy.
    """
    available = psutil.virtual_memory().available
    if num_bytes > available:
        raise ValueError(
            f"{what} would take {num_bytes / 1e9:.1f} GB of memory, but only "
            f"{available / 1e9:.1f} GB are free; {remedy}"
        )


def check_disk_space(
    path: str | os.PathLike[str], num_bytes: int, what: str
) -> None:
    """Raises an OSError if `num_bytes` do not fit on the disk of `path`.

    Args:
      path: An existing folder.
      num_bytes: Number of bytes about to be written there.
      what: The action, such as "writing to x", the subject of the message.

    Raises:
      OSError: With the bytes needed and the bytes free.
    """
    free = shutil.disk_usage(path).free
    needed = num_bytes + _SPARE_BYTES
    if free < needed:
        raise OSError(
            f"not enough disk space: {what} needs {needed:,} bytes, but only "
            f"{free:,} are free"
        )


def peak_memory() -> int:
    """Returns the largest resident set of this process so far, in bytes."""
    # macOS counts bytes, all others kilobytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
