# SPDX-License-Identifier: Apache-2.0
"""Estimates of the time and memory of a run, as printed lines."""

from __future__ import annotations

from tfvae.joint_restoration import JointRestoration
from tfvae.latent_model import Costs
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


def training_line(
    data_bytes: float,
    costs: Costs,
    checkpoint_bytes: float,
    num_checkpoints: int,
    num_data: int,
) -> str:
    """Says what a training run takes, before it starts.

    Args:
      data_bytes: Bytes of the data points that a process holds in memory.
      costs: Those of the model.
      checkpoint_bytes: Bytes of a checkpoint of all processes.
      num_checkpoints: Checkpoints that are on the disk at a time, at most.
      num_data: N of the process.

    Returns:
      One line, without a line break.
    """
    line = (
        f"a process takes {_size(data_bytes)} of memory for data and "
        f"{_size(costs.memory)} for states, {_size(costs.disk)} of disk for "
        f"states; {num_checkpoints} checkpoints take "
        f"{_size(num_checkpoints * checkpoint_bytes)}"
    )
    speed = costs.points_per_second
    if speed is None:
        return line
    return (
        f"{line}; roughly {float(f'{speed:.2g}'):,.0f} points/s, "
        f"{duration(num_data / speed)} an epoch"
    )


def _size(num_bytes: float) -> str:
    """Returns a rounded number of bytes, such as `33 GB`."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB")):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.3g} {unit}"
    return f"{num_bytes / 1e3:.3g} kB"


def duration(seconds: float) -> str:
    """Returns a rounded time, such as `50 s`, `41 min` or `2.5 h`."""
    if seconds < 90.0:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400.0:
        return f"{round(seconds / 60.0)} min"
    return f"{seconds / 3600.0:.1f} h"
