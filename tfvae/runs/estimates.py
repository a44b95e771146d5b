# SPDX-License-Identifier: Apache-2.0
"""Estimates of the time and memory of a restoration, as printed lines."""

from __future__ import annotations

from tfvae.joint_restoration import JointRestoration
from tfvae.restoration import Restoration

# Patches whose first states take seconds to draw.
_MANY_PATCHES = 2**17
# Seconds of training from which larger strides are suggested.
_LONG = 300.0


def announce_work(restoration: Restoration | JointRestoration) -> None:
    """Prints what is done before training, where that takes a while."""
    count = restoration.count_patches()
    if count >= _MANY_PATCHES:
        print(
            f"{count:,} patches at a stride of {restoration.stride}: drawing "
            "the first states of each",
            flush=True,
        )


def line(
    restoration: Restoration | JointRestoration,
    epochs: int,
    seconds_left: float,
    seconds: float,
    num_bytes: float,
) -> str:
    """Says how long a run takes, and how long it would at larger strides.

    The time of a step does not depend on the number of patches, so that of a
    run is in proportion to it.

    Args:
      restoration: The restoration.
      epochs: Epochs of the run.
      seconds_left: Seconds of training that are left.
      seconds: Seconds of training of the whole run.
      num_bytes: Memory that the run takes.

    Returns:
      One line, without a line break. It names the strides up to a patch, each
      twice as large as the one before, until training is short.
    """
    count = restoration.count_patches()
    parts = [
        f"{count:,} patches, {epochs} epochs: about {duration(seconds_left)} "
        f"and {num_bytes / 1e9:.1f} GB"
    ]
    stride, needed = 2 * restoration.stride, seconds
    while needed > _LONG and stride <= min(restoration.patch):
        needed = seconds * restoration.count_patches(stride) / count
        parts.append(f"--stride={stride}: about {duration(needed)}")
        stride *= 2
    return "; ".join(parts)


def duration(seconds: float) -> str:
    """Returns a rounded time, such as `50 s`, `41 min` or `2.5 h`."""
    if seconds < 90.0:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400.0:
        return f"{round(seconds / 60.0)} min"
    return f"{seconds / 3600.0:.1f} h"
