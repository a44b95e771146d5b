# SPDX-License-Identifier: Apache-2.0
"""A task whose objective takes a while, and notes when it is called."""

from __future__ import annotations

import os
import time

import numpy as np

from tfvae.lso import ScoredData, Task

SECONDS = 0.25
CALLS = "TFVAE_TEST_CALLS"
"""The variable with the file that the calls are noted in."""


def data(seed: int) -> ScoredData:
    """Points around the origin; the best is far from them."""
    points = np.random.default_rng(seed).normal(size=(120, 6))
    return ScoredData(points, [_score(point) for point in points])


def _score(point: np.ndarray) -> float:
    return -float(np.sum((np.asarray(point, np.float64) - 2.0) ** 2))


def objective(point: np.ndarray) -> float:
    """Returns the score, after a while."""
    with open(os.environ[CALLS], "a", encoding="utf-8") as file:
        file.write(repr(np.asarray(point).tolist()) + "\n")
    time.sleep(SECONDS)
    return _score(point)


task = Task("slow", data=data, objective=objective)
