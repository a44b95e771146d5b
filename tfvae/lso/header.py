# SPDX-License-Identifier: Apache-2.0
"""Ledger header: the settings that must match to resume an optimisation."""

from __future__ import annotations

import dataclasses
import re
import zlib
from typing import Any

from tfvae.lso.collection import Collection
from tfvae.lso.plan import Plan
from tfvae.lso.tasks.base import Task

# The memory address of a function does not identify it.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def header(
    task: Task, collection: Collection, plan: Plan, **parts: Any
) -> dict[str, Any]:
    """Returns the header of a ledger.

    Args:
      task: What is optimised.
      collection: Its data, before anything has been found.
      plan: How.
      **parts: Other parts of the run, which are compared by their `repr`.
    """
    checksum = zlib.crc32(collection.points.data)
    checksum = zlib.crc32(collection.scores.data, checksum)
    return {
        "task": task.name,
        "maximise": task.maximise,
        "optimum": task.optimum,
        "invalid_score": task.sign * collection.invalid_score,
        "best_in_data": task.sign * float(collection.scores.max()),
        "num_data": len(collection.points),
        "data_crc32": checksum,
        **{name: _ADDRESS.sub("", repr(one)) for name, one in parts.items()},
        **{
            name: value
            for name, value in dataclasses.asdict(plan).items()
            # Samples are diagnostics that do not affect the run.
            if name != "num_samples"
        },
    }
