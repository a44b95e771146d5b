# SPDX-License-Identifier: Apache-2.0
"""Tells that something is too large before it is made."""

from __future__ import annotations

import psutil


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
