# SPDX-License-Identifier: Apache-2.0
"""Probability that constraints hold, from a surrogate of each constraint.

Multiplied into expected improvement it makes constrained Bayesian optimisation
(Gardner et al., 2014, "Bayesian optimization with inequality constraints";
Gelbart et al., 2014, "Bayesian optimization with unknown constraints").
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.special

if TYPE_CHECKING:
    from tfvae.lso.surrogates import Surrogate


_MIN_STD = 1e-100


class Feasibility:
    """Log probability that all constraints hold: are at most 0.

    Constraints count as independent given the latents.

    Attributes:
      has_gradients: Whether it is a differentiable TensorFlow function, which
        it is if its surrogates are; otherwise it returns NumPy arrays.
    """

    def __init__(self, surrogate: Surrogate, names: Iterable[str]) -> None:
        """Makes a surrogate for each constraint.

        Args:
          surrogate: Each constraint has a new one with the settings of this.
          names: Names of the constraints.
        """
        self.has_gradients = surrogate.has_gradients
        self._surrogates = {name: fresh(surrogate) for name in sorted(names)}

    @property
    def names(self) -> list[str]:
        """The names of the constraints, in order."""
        return [*self._surrogates]

    def fit(
        self,
        latents: np.ndarray,
        constraints: Mapping[str, np.ndarray],
        seed: int,
    ) -> None:
        """Fits the surrogates afresh to the known values of constraints.

        Args:
          latents: `[n, M]`.
          constraints: `[n]` each, by name; NaN where unknown.
          seed: Seed of the fits.
        """
        for name, one in self._surrogates.items():
            values = constraints[name]
            known = ~np.isnan(values)
            one.fit(latents[known], values[known], seed, False)

    def __call__(self, latents: Any) -> Any:
        """Returns the log probability at latents `[q, M]`, float64 `[q]`."""
        found = [one.predict(latents) for one in self._surrogates.values()]
        if not self.has_gradients:
            return sum(
                scipy.special.log_ndtr(
                    -np.asarray(mean) / np.maximum(np.asarray(std), _MIN_STD)
                )
                for mean, std in found
            )
        import tensorflow as tf

        from tfvae.lso.improvement import log_normal_cdf

        ratios = [-mean / tf.maximum(std, _MIN_STD) for mean, std in found]
        return tf.add_n([log_normal_cdf(ratio) for ratio in ratios])


def fresh(surrogate: Surrogate) -> Surrogate:
    """Returns an unfitted surrogate of the same settings."""
    if dataclasses.is_dataclass(surrogate):
        return dataclasses.replace(surrogate)
    return copy.deepcopy(surrogate)
