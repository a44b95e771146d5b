# SPDX-License-Identifier: Apache-2.0
"""Warping of scores before a surrogate is fitted, against outliers.

A Gaussian process expects scores that are about normal. A few that are far
off, or a long tail, take all of its variance, and the differences that matter
disappear in the noise. A warping is strictly increasing, so that what is best
stays best, and is estimated anew before each fit.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats

from tfvae import typed_gin

# Exponents of larger ones overflow at outliers.
_EXPONENTS = (-2.0, 4.0)
# Of scaled scores; its fourth power squared is still finite.
_LARGEST = 1e30
# Between distinct warped scores, whose standard deviation is 1.
_SMALLEST_STEP = 1e-9


class Warping(Protocol):
    """Protocol of warpings, which are pure functions of the scores."""

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Returns warped scores.

        Args:
          scores: `[n]`, finite, larger is better.

        Returns:
          float64 `[n]`, finite. Larger scores have larger values, equal scores
          have equal ones.

        Raises:
          ValueError: If there is no score, or one is not finite.
        """


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class RankGaussian:
    """Replaces scores by the normal quantiles of their ranks.

    The value of rank r of n is the (r - 3/8) / (n + 1/4) quantile of the
    standard normal distribution (Blom, 1958, "Statistical estimates and
    transformed beta-variables"); equal scores share their mean rank. Only the
    order of the scores matters, not their distances.
    """

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        ranks = scipy.stats.rankdata(_checked(scores))
        return scipy.special.ndtri((ranks - 0.375) / (len(ranks) + 0.25))


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class YeoJohnson:
    """Makes scores as normal as a power transformation can.

    Scores are centred and scaled by medians, transformed with the exponent of
    the largest likelihood in [-2, 4], and standardised (Yeo and Johnson, 2000,
    "A new family of power transformations to improve normality or symmetry").
    Distances between scores matter, other than in `RankGaussian`.
    """

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        scores = _checked(scores)
        distinct, place = np.unique(scores, return_inverse=True)
        if len(distinct) == 1:
            return np.zeros(len(scores))
        scaled = _scaled(scores, distinct)
        exponent = scipy.optimize.minimize_scalar(
            lambda one: -scipy.stats.yeojohnson_llf(one, scaled[place]),
            bounds=_EXPONENTS,
            method="bounded",
        ).x
        warped = scipy.stats.yeojohnson(scaled, exponent)
        all_warped = warped[place]
        warped = (warped - all_warped.mean()) / all_warped.std()
        # Rounding may have made distinct scores equal.
        steps = _SMALLEST_STEP * np.arange(len(warped))
        return (np.maximum.accumulate(warped - steps) + steps)[place]


def _scaled(scores: np.ndarray, distinct: np.ndarray) -> np.ndarray:
    """Returns distinct scores, centred and scaled by medians, and clipped.

    The scale is the median distance from the centre of those scores that are
    not there: a mean would be an outlier's, and drown the others.
    """
    # So that the differences of the largest numbers do not overflow.
    unit = 1024.0 if np.abs(distinct).max() > 1e300 else 1.0
    centre = np.median(scores / unit)
    distances = np.abs(scores / unit - centre)
    scale = np.median(distances[distances > 0.0])
    with np.errstate(over="ignore"):
        scaled = (distinct / unit - centre) / scale
    return np.clip(scaled, -_LARGEST, _LARGEST)


def _checked(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or not len(scores):
        raise ValueError(
            f"`scores` must have shape [n], n > 0, got {scores.shape!r}"
        )
    if not np.all(np.isfinite(scores)):
        wrong = scores[~np.isfinite(scores)]
        raise ValueError(f"`scores` must be finite, got {wrong[0]}")
    return scores
