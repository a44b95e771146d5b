# SPDX-License-Identifier: Apache-2.0
r"""Optimises numbers and categories together, under a constraint.

  tfvae optimize --task=examples/mixed_inputs.py --run_dir=runs/mixed \
      --budget=30 --gin_param=fit.epochs=1000 \
      --gin_param=optimize.min_distance=0.01

An input is a dict, which needs no functions to and from JSON. The yield is
simulated, and stands for an experiment. No solvent may boil, which a constraint
says: it holds where its value is at most 0. Sixty data are one batch an epoch,
so the model takes many epochs. Inputs that differ by a degree or two are worth
a query, hence the small distance.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfvae.lso import Score, ScoredData, Task

BOILING_POINTS = {"acetone": 56, "ethanol": 78, "water": 100, "toluene": 111}
RATES = {"acetone": 1.5, "ethanol": 1.0, "water": 0.2, "toluene": 0.6}
SOLVENTS = [*BOILING_POINTS]
LOW, HIGH = np.array([20.0, 1.0]), np.array([120.0, 24.0])  # degrees C, hours


def measure(x: dict[str, Any]) -> Score:
    """Returns the yield in percent, and the degrees above boiling."""
    heat = (x["temperature"] - 80.0) / 20.0
    made = 1.0 - np.exp(-0.2 * RATES[x["solvent"]] * np.exp(heat) * x["hours"])
    kept = np.exp(-0.01 * np.exp(2.0 * heat) * x["hours"])
    value = 100.0 * made * kept
    return Score(value, constraints={"boiling": degrees_above_boiling(x)})


def degrees_above_boiling(x: dict[str, Any]) -> float:
    """The constraint, known without an experiment here."""
    return x["temperature"] - BOILING_POINTS[x["solvent"]]


def write(inputs: Sequence[dict[str, Any]]) -> np.ndarray:
    """Encodes as points [n, 6]: numbers in [0, 1], a one for the solvent."""
    numbers = np.array([[x["temperature"], x["hours"]] for x in inputs])
    solvents = np.eye(4)[[SOLVENTS.index(x["solvent"]) for x in inputs]]
    return np.concatenate([(numbers - LOW) / (HIGH - LOW), solvents], 1)


def read(means: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """Decodes to inputs that can be set: whole degrees, quarters of hours."""
    heat, hours = (LOW + np.clip(means[:, :2], 0.0, 1.0) * (HIGH - LOW)).T
    solvents = [SOLVENTS[i] for i in means[:, 2:].argmax(1)]
    return [
        {"temperature": round(t), "hours": round(4 * h) / 4, "solvent": s}
        for t, h, s in zip(heat, hours, solvents, strict=True)
    ]


def data(seed: int) -> ScoredData:
    """Returns 60 experiments, warm and short; yours may be from a file."""
    inputs = read(0.5 * np.random.default_rng(seed).random((60, 6)), seed)
    scores = np.array([measure(x).value for x in inputs])
    above = np.array([degrees_above_boiling(x) for x in inputs])
    return ScoredData(write(inputs), scores, inputs, {"boiling": above})


task = Task("synthesis", data, measure, read, write, score_label="yield, %")
