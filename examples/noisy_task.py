# SPDX-License-Identifier: Apache-2.0
r"""Optimises an objective that differs from one evaluation to the next.

  tfvae optimize --task=examples/noisy_task.py --run_dir=runs/noisy \
      --budget=20 --repeat=3 --gin_param=fit.epochs=500

Three evaluations of each query are averaged. With `is_noisy` the best query is
the one with the best mean of the surrogate, not the one with the luckiest
score. The reading is simulated, and stands for an instrument.
"""

import numpy as np

from tfvae.lso import ScoredData, Task

NOISE = 0.5  # Standard deviation of a reading.
_instrument = np.random.default_rng()  # No seed: each reading is another one.


def signal(settings: np.ndarray) -> float:
    """Returns what nobody sees: the reading without its noise."""
    return 5.0 - float(np.sum((np.asarray(settings) - 0.7) ** 2))


def reading(settings: np.ndarray) -> float:
    """The objective, of six settings in [0, 1]."""
    return signal(settings) + NOISE * float(_instrument.standard_normal())


def read(means: np.ndarray, seed: int) -> list[np.ndarray]:
    """Decodes points [n, 6] to settings in their range."""
    return list(np.clip(means, 0.0, 1.0))


def data(seed: int) -> ScoredData:
    """Returns 100 settings that are far from the best, and their readings."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0.0, 0.5, (100, 6))
    noise = NOISE * rng.standard_normal(100)  # As it was: the same in each run.
    return ScoredData(points, np.array([signal(one) for one in points]) + noise)


task = Task("instrument", data, reading, read, is_noisy=True)
