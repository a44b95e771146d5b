# SPDX-License-Identifier: Apache-2.0
"""Test functions of Bayesian optimisation; needs NumPy alone.

All are to be maximised over the unit cube, see
https://www.sfu.ca/~ssurjano/optimization.html for their formulas.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable

import numpy as np

_ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
_A = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def branin(x: np.ndarray) -> float:
    """Returns minus Branin's function of two variables."""
    a, b = 15.0 * x[0] - 5.0, 15.0 * x[1]
    bowl = b - 5.1 / (4.0 * np.pi**2) * a**2 + 5.0 / np.pi * a - 6.0
    wave = 10.0 * (1.0 - 1.0 / (8.0 * np.pi)) * np.cos(a)
    return -float(bowl**2 + wave + 10.0)


def hartmann(x: np.ndarray) -> float:
    """Returns minus Hartmann's function of six variables."""
    distances = np.sum(_A * (np.asarray(x, np.float64) - _P) ** 2, 1)
    return float(_ALPHA @ np.exp(-distances))


@dataclasses.dataclass(frozen=True)
class Problem:
    """A function to maximise over the unit cube, and the noise of its values.

    Attributes:
      function: From `[num_dimensions]` to its value.
      num_dimensions: Number of variables.
      optimum: The largest value.
      noise_std: Standard deviation of the noise of an evaluation.
    """

    function: Callable[[np.ndarray], float]
    num_dimensions: int
    optimum: float
    noise_std: float = 0.0

    def initial(self, seed: int, count: int) -> np.ndarray:
        """Draws points that all methods begin with, `[count, d]`."""
        rng = np.random.default_rng([seed, 7])
        return rng.random((count, self.num_dimensions)).astype(np.float32)

    def evaluate(self, x: np.ndarray, seed: int) -> float:
        """Returns the value at a point with noise, which the seed determines.

        The same point has the same noise, as if it were looked up.
        """
        x = np.clip(np.asarray(x, np.float32), 0.0, 1.0)
        rng = np.random.default_rng([seed, zlib.crc32(x.tobytes())])
        return self.function(x) + self.noise_std * float(rng.normal())

    def regret(self, x: np.ndarray) -> float:
        """Returns how far the value without noise is below the optimum."""
        x = np.clip(np.asarray(x, np.float32), 0.0, 1.0)
        return max(self.optimum - self.function(x), 0.0)


PROBLEMS = {
    "Branin": Problem(branin, 2, -0.39788735772973816),
    "Hartmann-6": Problem(hartmann, 6, 3.3223680114155156),
    "noisy Hartmann-6": Problem(hartmann, 6, 3.3223680114155156, 0.2),
}
