# SPDX-License-Identifier: Apache-2.0
r"""Optimises an objective that differs from one evaluation to the next.

  tfvae optimize --task=examples/noisy_task.py --run_dir=runs/noisy \
      --budget=20 --repeat=3

Three evaluations of each query are averaged. With `is_noisy` the best query is
the one with the best mean of the surrogate, not the one with the luckiest
score. The reading is simulated, and stands for an instrument.
"""

import numpy as np

from tfvae.lso import ScoredData, Task

NOISE = 0.5  # Standard deviation of a reading.
_TIMES = np.linspace(0.0, 1.0, 12)
_WAVES = np.array([np.sin(k * np.pi * _TIMES) for k in (1, 2, 3)])
_BEST = np.array([1.5, -0.8, 0.5]) @ _WAVES
_instrument = np.random.default_rng()  # No seed: each reading is another one.


def signal(profile: np.ndarray) -> float:
    """Returns what nobody sees: the reading without its noise."""
    return 10.0 - float(np.sum((np.asarray(profile) - _BEST) ** 2))


def reading(profile: np.ndarray) -> float:
    """The objective, of a temperature at each of 12 times."""
    return signal(profile) + NOISE * float(_instrument.standard_normal())


def read(means: np.ndarray, seed: int) -> list[np.ndarray]:
    """Decodes points [n, 12] to profiles."""
    return list(means)


def data(seed: int) -> ScoredData:
    """Returns 200 smooth profiles far from the best, and their readings."""
    rng = np.random.default_rng(seed)
    points = rng.normal(0.0, 0.3, (200, 3)) @ _WAVES
    noise = NOISE * rng.standard_normal(200)  # As it was: the same in each run.
    return ScoredData(points, np.array([signal(one) for one in points]) + noise)


task = Task("instrument", data, reading, read, is_noisy=True)
