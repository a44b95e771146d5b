# SPDX-License-Identifier: Apache-2.0
r"""Optimises an objective whose evaluations take long, on many processors.

  tfvae optimize --task=examples/cluster_task.py --run_dir=runs/cluster \
      --budget=16 --evaluator=ray --workers=2 --timeout=60 \
      --gin_param=ExpectedImprovement.batch_size=8

Eight queries at a time are evaluated by two processes of Ray, on this machine
or, with the environment variable RAY_ADDRESS, on a cluster. Without Ray,
--evaluator=pool has processes of this machine. An evaluation that takes more
than a minute, raises or crashes is a recorded failure.

The objective is sent to the processes. What only they need, it imports.
"""

import numpy as np

from tfvae.lso import ScoredData, Task

STEPS, SECONDS_A_STEP = 2000, 0.01


def control_error(gains: np.ndarray) -> float:
    """Error and effort of a mass on a spring under PID control."""
    proportional, integral, derivative = np.asarray(gains, np.float64)
    place = speed = total = cost = 0.0
    for _ in range(STEPS):
        error = 1.0 - place
        total += SECONDS_A_STEP * error
        force = proportional * error + integral * total - derivative * speed
        speed += SECONDS_A_STEP * (force - 2.0 * place - 0.2 * speed)
        place += SECONDS_A_STEP * speed
        cost += (abs(error) + 0.01 * force**2) / STEPS
    if cost > 1e3:
        raise ArithmeticError(f"unstable with the gains {gains}")
    return cost


def objective(gains: np.ndarray) -> float:
    """What a process of the cluster is sent; yours takes hours."""
    import time

    time.sleep(0.2)
    return control_error(gains)


def read(means: np.ndarray, seed: int) -> list[np.ndarray]:
    """Decodes points [n, 3] to gains, which are not negative."""
    return list(np.maximum(means, 0.0))


def data(seed: int) -> ScoredData:
    """Returns 50 controllers, most of them weak, and their errors."""
    rng = np.random.default_rng(seed)
    strength = rng.uniform(0.1, 1.0, (50, 1)) ** 2
    points = strength * [4.0, 2.0, 3.0] * rng.uniform(0.6, 1.0, (50, 3))
    return ScoredData(points, np.array([control_error(one) for one in points]))


task = Task("control", data, objective, read, maximise=False)
