# SPDX-License-Identifier: Apache-2.0
"""What tests of child processes wait for, and look at."""

from __future__ import annotations

import pathlib
import time


def wait_for(condition, seconds=20.0):
    """Returns whether a condition holds within so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def is_alive(process_id):
    """Whether a process runs; a zombie that nobody waits for does not."""
    try:
        state = pathlib.Path(f"/proc/{process_id}/stat").read_text()
    except FileNotFoundError:
        return False
    return state.rpartition(")")[2].split()[0] not in ("Z", "X")
