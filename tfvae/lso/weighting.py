# SPDX-License-Identifier: Apache-2.0
"""Rank-based and reward-based weightings of training data.

A weighting is a frozen object with a call `weighting(scores [N]) -> [N]`:
larger scores are better, weights are float64 and sum to 1. It is evaluated in
every round, for all data of that round.

Reference: Tripp, Daxberger and Hernandez-Lobato, 2020, "Sample-efficient
optimization in the latent space of deep generative models via weighted
retraining".
"""

from __future__ import annotations

import math

import numpy as np
import scipy.special

from tfvae.data.source import check_weights
from tfvae.settings import Settings, saved_settings

# An excess of a weight over an integer below this is a rounding error, and
# gives no further copy.
_ROUNDING = 1e-9


class Weighting(Settings):
    """Base class of weightings: weights of data points, and which to retain.

    A subclass is a `@saved_settings` class that implements `_weights`.
    """

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Returns the weights of all data points.

        Args:
          scores: `[N]`, larger is better.

        Returns:
          `[N]` float64, not negative; their sum is 1.

        Raises:
          ValueError: If there is no score, or one is not finite.
        """
        return normalize(self._weights(check_scores(scores)))

    def _weights(self, scores: np.ndarray) -> np.ndarray:
        """Returns unnormalised weights `[N]` of validated scores `[N]`."""
        raise NotImplementedError

    def retain(
        self, num_data: int, new_scores: np.ndarray
    ) -> tuple[np.ndarray, int]:
        """Chooses which new data points to append and how many old to drop.

        Args:
          num_data: Number of data points without the new ones.
          new_scores: `[n]`, larger is better.

        Returns:
          The indices `[m]` int64 of the new data points to append, ascending,
          and the number of the oldest data points to drop.

        Raises:
          ValueError: If a score is not finite.
        """
        return np.arange(np.size(new_scores)), 0


@saved_settings
class Unweighted(Weighting):
    """Equal weights for all data points."""

    def _weights(self, scores: np.ndarray) -> np.ndarray:
        return np.ones_like(scores)


@saved_settings
class Rank(Weighting):
    """Rank weights, proportional to 1 / (k N + rank); the best has rank 0.

    Attributes:
      k: Small values favour the best data points: 0 gives weight to rank 0
        only, infinity the same weight to all data points.
      breaks_ties: Whether equal scores get different ranks, by the order of
        the data, as in the published code. In equation 1 they share a rank:
        if many data points tie for the best, each has the weight of the best.
    """

    k: float = 1e-3
    breaks_ties: bool = False

    def __post_init__(self) -> None:
        """Checks the value."""
        if not self.k >= 0.0:
            raise ValueError(f"`k` must be at least 0, got {self.k!r}")

    def _weights(self, scores: np.ndarray) -> np.ndarray:
        return rank_weights(scores, self.k, self.breaks_ties)


@saved_settings
class CemPi(Weighting):
    """CEM-PI: equal weights at or above a quantile of the scores, 0 below.

    The cross-entropy method with the probability of improvement.

    Attributes:
      quantile: Between 0 and 1.
    """

    quantile: float = 0.95

    def __post_init__(self) -> None:
        """Checks the value."""
        _check_quantile(self.quantile)

    def _weights(self, scores: np.ndarray) -> np.ndarray:
        return improvement_weights(scores, self.quantile, 0.0)


@saved_settings
class DbAS(Weighting):
    """DbAS: weights are the probability that a noisy score exceeds a quantile.

    Reference: Brookes and Listgarten, 2018, "Design by adaptive sampling".

    Attributes:
      quantile: Between 0 and 1.
      noise: Standard deviation of the noise; 0 makes this `CemPi`.
    """

    quantile: float = 0.95
    noise: float = 0.1

    def __post_init__(self) -> None:
        """Checks the values."""
        _check_quantile(self.quantile)
        if not 0.0 <= self.noise < math.inf:
            raise ValueError(
                f"`noise` must be at least 0 and finite, got {self.noise!r}"
            )

    def _weights(self, scores: np.ndarray) -> np.ndarray:
        return improvement_weights(scores, self.quantile, self.noise)


@saved_settings
class RWR(Weighting):
    """Reward-weighted regression: weights proportional to exp(alpha score).

    Attributes:
      alpha: Inverse temperature, in inverse units of the scores; 0 weights
        all data points the same.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Checks the value."""
        if not 0.0 <= self.alpha < math.inf:
            raise ValueError(
                f"`alpha` must be at least 0 and finite, got {self.alpha!r}"
            )

    def _weights(self, scores: np.ndarray) -> np.ndarray:
        return exponential_weights(scores, self.alpha)


@saved_settings
class FB(Weighting):
    """Feedback: equal weights; the best new points replace the oldest ones.

    Reference: Gupta and Zou, 2019, "Feedback GAN for DNA optimizes protein
    functions", here with a VAE.

    Attributes:
      quantile: Quantile of the new scores at or above which data points are
        appended.
    """

    quantile: float = 0.95

    def __post_init__(self) -> None:
        """Checks the value."""
        _check_quantile(self.quantile)

    def _weights(self, scores: np.ndarray) -> np.ndarray:
        return np.ones_like(scores)

    def retain(
        self, num_data: int, new_scores: np.ndarray
    ) -> tuple[np.ndarray, int]:
        if np.size(new_scores) == 0:
            return np.arange(0), 0
        scores = check_scores(new_scores, "new_scores")
        kept = np.flatnonzero(scores >= _quantile(scores, self.quantile))
        return kept, max(min(len(kept), num_data - 1), 0)


# Unnormalised weights of validated scores.


def ranks(scores: np.ndarray) -> np.ndarray:
    """Returns ranks, the number of greater scores for each, `[N]` int64."""
    order = np.argsort(-scores)
    falling = scores[order]
    is_first = np.concatenate([[True], falling[1:] != falling[:-1]])
    # Ties share the rank of the first of them.
    places = np.where(is_first, np.arange(len(scores)), 0)
    result = np.empty(len(scores), np.int64)
    result[order] = np.maximum.accumulate(places)
    return result


def rank_weights(
    scores: np.ndarray, k: float, breaks_ties: bool = False
) -> np.ndarray:
    """Returns k N / (k N + rank), 1 for the best; see `Rank`."""
    offset = k * len(scores)
    if offset == math.inf:
        return np.ones(len(scores))
    rank = ranks(scores)
    if breaks_ties:
        rank = np.argsort(np.argsort(-scores, kind="stable"))
    if offset == 0.0:
        return np.where(rank == 0, 1.0, 0.0)
    return offset / (offset + rank)


def improvement_weights(
    scores: np.ndarray, quantile: float, noise: float
) -> np.ndarray:
    """Returns P(score + noise >= the quantile); see `DbAS` and `CemPi`."""
    threshold = _quantile(scores, quantile)
    if noise == 0.0:
        return np.where(scores >= threshold, 1.0, 0.0)
    with np.errstate(over="ignore"):
        return scipy.special.ndtr((scores - threshold) / noise)


def exponential_weights(scores: np.ndarray, alpha: float) -> np.ndarray:
    """Returns exp(alpha (score - the largest)), 1 for the best; see `RWR`."""
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(alpha * (scores - scores.max()))


def _quantile(scores: np.ndarray, quantile: float) -> float:
    # Interpolation may round beyond the largest, and would leave nothing.
    return min(float(np.quantile(scores, quantile)), float(scores.max()))


# Normalisation, effective sample size, replication.


def normalize(weights: np.ndarray) -> np.ndarray:
    """Validates weights and normalises them to sum 1, `[N]` float64.

    Args:
      weights: `[N]`, not negative.

    Raises:
      ValueError: See `check_weights`.
    """
    weights = check_weights(weights, np.size(weights))
    # Divide by the largest first, so that the sum does not overflow.
    weights = weights / weights.max()
    return weights / weights.sum()


def effective_sample_size(weights: np.ndarray) -> float:
    """Returns the effective sample size (sum w)^2 / sum w^2, in [1, N].

    Args:
      weights: `[N]`, not negative, not necessarily normalised.

    Raises:
      ValueError: See `check_weights`.
    """
    weights = normalize(weights)
    return float(1.0 / np.square(weights).sum())


def replicate(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replicates data points so that no copy has a weight above 1.

    With weights scaled to a mean of 1, a data point of weight w gets ceil(w)
    copies, all of weight 1 but the last, which has the remainder. This lowers
    the variance of stochastic gradients.

    Args:
      weights: `[N]`, not negative, not necessarily normalised.

    Returns:
      The index `[R]` int64 of the data point of each copy, ascending, and the
      weights `[R]` float64 of the copies. Data points of weight 0 get none.

    Raises:
      ValueError: See `check_weights`.
    """
    weights = normalize(weights) * np.size(weights)
    positive = np.where(weights > 0.0, 1.0, 0.0)
    copies = np.maximum(np.ceil(weights - _ROUNDING), positive).astype(np.int64)
    index = np.repeat(np.arange(len(weights)), copies)
    result = np.ones(len(index))
    has_copies = copies > 0
    last = np.cumsum(copies[has_copies]) - 1
    result[last] = weights[has_copies] - (copies[has_copies] - 1)
    return index, result


# Checks.


def check_scores(scores: np.ndarray, name: str = "scores") -> np.ndarray:
    """Returns scores as `[N]` float64.

    Args:
      scores: `[N]` numbers, N at least 1.
      name: Name of the argument in error messages.

    Raises:
      ValueError: If they are of another shape, or one is not finite.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(
            f"`{name}` must have shape [N], N at least 1, got shape "
            f"{scores.shape!r}"
        )
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        raise ValueError(
            f"`{name}` must be finite, got {float(scores[wrong[0]])!r} for "
            f"data point {wrong[0]} ({wrong.size} not finite in all)"
        )
    return scores


def _check_quantile(quantile: float) -> None:
    if not 0.0 <= quantile <= 1.0:
        raise ValueError(
            f"`quantile` must be between 0 and 1, got {quantile!r}"
        )
