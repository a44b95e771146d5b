# SPDX-License-Identifier: Apache-2.0
"""How figures show the scores and inputs of tasks, by the name of the task."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

_SCORE_LABELS = {
    "shapes": "area / pixels",
    "expressions": "score of the expression",
    "molecules": "penalised logP",
}


def score_label(task: str) -> str:
    """Returns what the scores of a task are, with their unit.

    Args:
      task: Its name; any other than those of this package has scores.
    """
    return _SCORE_LABELS.get(task, "score")


def plain_input(task: str, one: Any) -> Any:
    """Returns an input of a ledger as what it stands for.

    Args:
      task: The name of the task.
      one: The input, as JSON has it.
    """
    if task == "shapes" and isinstance(one, str):
        packed = np.frombuffer(base64.b64decode(one), np.uint8)
        return np.unpackbits(packed)  # The inverse of what `shapes` writes.
    return one
