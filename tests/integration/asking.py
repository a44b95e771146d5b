# SPDX-License-Identifier: Apache-2.0
"""A step of a laboratory: asks, tells, amends or adds, in this process.

Usage: python asking.py KIND FOLDER STEP

KIND is "fakes", for parts that need no TensorFlow, or "model", for a VAE. STEP
is JSON, the name of a method and its arguments.
"""

from __future__ import annotations

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from tests.lso import fakes, tiny
from tfvae import lso

PLAN = lso.Plan(
    budget=24,
    queries_per_round=8,
    num_proposals=3,
    skips_known=True,
    min_distance=0.01,
    seed=5,
)


def opened(kind: str, folder: str) -> lso.LatentSpaceOptimizer:
    if kind == "fakes":
        return fakes.opened(folder, PLAN)
    return lso.LatentSpaceOptimizer.of_model(
        folder,
        tiny.task(),
        tiny.model(),
        PLAN,
        strategy=lso.ExpectedImprovement(num_starts=4),
        surrogate=lso.SparseGaussianProcess(num_inducing=20),
        weighting=lso.Rank(0.1),
    )


def take(optimizer: lso.LatentSpaceOptimizer, step: list) -> None:
    """Takes a step: ["ask", 2], ["tell", 0, 1.5], ["add", 1.5] and so on."""
    name, *values = step
    if name == "add":
        point = [values[0]] * tiny.NUM_OBSERVED
        optimizer.add([lso.Addition(values[0], point=point)])
    else:
        getattr(optimizer, name)(*values)


if __name__ == "__main__":
    with opened(*sys.argv[1:3]) as found:
        take(found, json.loads(sys.argv[3]))
