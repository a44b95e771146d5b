# SPDX-License-Identifier: Apache-2.0
"""Acquisition functions over continuous latents, and Thompson sampling.

Larger scores are better throughout.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.lso import search
from tfvae.lso.candidates import (
    best_points,
    binary_candidates,
    box_candidates,
    region_candidates,
)
from tfvae.lso.entropy import log_entropy_gain
from tfvae.lso.evolutionary import (
    EvolutionaryExpectedImprovement as EvolutionaryExpectedImprovement,
)
from tfvae.lso.improvement import expected_improvement as expected_improvement
from tfvae.lso.improvement import log_expected_improvement
from tfvae.lso.maximisation import (
    Acquisition,
    AcquisitionStrategy,
    Given,
    conditional,
    improvement_over,
)
from tfvae.lso.search import Box
from tfvae.lso.strategies import AggregateSampling as AggregateSampling
from tfvae.lso.strategies import (
    Context,
    feasible_of,
    fitted,
    merits_of,
    seeds_of,
)
from tfvae.lso.strategies import LatentSpace as LatentSpace
from tfvae.lso.strategies import Mixture as Mixture
from tfvae.lso.strategies import OracleGrid as OracleGrid
from tfvae.lso.strategies import PriorSampling as PriorSampling
from tfvae.lso.strategies import Strategy as Strategy
from tfvae.lso.strategies import select_points as select_points
from tfvae.lso.surrogates import Surrogate


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class ExpectedImprovement(AcquisitionStrategy):
    """Queries the maximum of expected improvement.

    The maximum is the first point of a batch; the others are chosen among
    candidates, see `AcquisitionStrategy`.

    Attributes:
      incumbent_quantile: See `AcquisitionStrategy`.
    """

    incumbent_quantile: float | None = None

    def num_searches(self, num_queries: int) -> int:
        return 1

    def acquisition(
        self,
        context: Context,
        incumbent: float,
        chosen: np.ndarray,
        seed: int,
    ) -> Acquisition:
        return improvement_over(incumbent)


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class UpperConfidenceBound(AcquisitionStrategy):
    """Queries the maximum of an upper confidence bound.

    The bound is mean + sqrt(beta) std (Srinivas et al., 2010, "Gaussian process
    optimization in the bandit setting"). In a batch the standard deviation is
    the one that is left by evaluations of those chosen before, while the mean
    stays (Desautels et al., 2014, "Parallelizing exploration-exploitation
    tradeoffs in Gaussian process bandit optimization").

    Under constraints, which need a positive function, a softplus of the excess
    of the bound over the incumbent is multiplied by the probability that they
    hold; the excess is in units of the standard deviation of the scores.

    Attributes:
      beta: Square of the number of standard deviations.
    """

    beta: float = 4.0

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        if not 0.0 <= self.beta < math.inf:
            raise ValueError(
                f"`beta` must be finite and at least 0, got {self.beta!r}"
            )

    def acquisition(
        self,
        context: Context,
        incumbent: float,
        chosen: np.ndarray,
        seed: int,
    ) -> Acquisition:
        unit = float(np.std(merits_of(context))) or 1.0
        given = Given.of(fitted(context), chosen)
        factor = math.sqrt(self.beta)
        return Acquisition(_log_excess, (factor, incumbent, unit, given))


def _log_excess(
    surrogate: Surrogate,
    latents: Any,
    factor: Any,
    incumbent: Any,
    unit: Any,
    given: Given | None,
) -> tf.Tensor:
    """Returns log softplus of the excess of the bound over the incumbent."""
    mean, std, _ = conditional(surrogate, latents, given)
    excess = (mean + factor * std - incumbent) / unit
    # Where softplus underflows, its logarithm is the excess.
    above = tf.math.log(tf.math.softplus(tf.maximum(excess, -30.0)))
    return tf.where(excess < -30.0, excess, above)


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class MaxValueEntropySearch(AcquisitionStrategy):
    """Queries where most is learnt of the maximum of the scores.

    That is, where the entropy of f falls most, once its maximum becomes known
    (Wang and Jegelka, 2017, "Max-value entropy search for efficient Bayesian
    optimization"). Maxima are those of joint draws of the surrogate at
    candidates, and no less than the incumbent. In a batch the standard
    deviation is the one that is left by evaluations of those chosen before.

    Attributes:
      num_max_values: Number of draws of the maximum.
    """

    num_max_values: int = 32

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        check_counts(num_max_values=self.num_max_values)

    def acquisition(
        self,
        context: Context,
        incumbent: float,
        chosen: np.ndarray,
        seed: int,
    ) -> Acquisition:
        given = Given.of(fitted(context), chosen)
        values = self.max_values(context, incumbent, seed)
        return Acquisition(_log_gain, (values, given))

    def max_values(
        self, context: Context, incumbent: float, seed: int
    ) -> np.ndarray:
        """Draws the maximum of f, float64 `[num_max_values]`."""
        candidate_seed, draw_seed = seeds_of(seed, 2)
        best = best_points(context, self.best_share)
        box = context.box or self.box(context.latents)
        candidates = box_candidates(
            context, box, best, self.num_candidates, candidate_seed, 0.5
        )
        candidates = np.concatenate([best[:1], candidates])
        if context.log_feasibility is not None:
            log_probs = np.asarray(context.log_feasibility(candidates))
            # The first is feasible, so that there is one.
            holds = log_probs >= math.log(0.5)
            candidates = candidates[np.append(True, holds[1:])]
        candidates = candidates[search.distinct_rows(candidates)]
        draws = fitted(context).sample(
            candidates, self.num_max_values, draw_seed
        )
        return np.maximum(np.max(draws, 1), incumbent)


def _log_gain(
    surrogate: Surrogate, latents: Any, max_values: Any, given: Given | None
) -> tf.Tensor:
    mean, std, _ = conditional(surrogate, latents, given)
    return log_entropy_gain(mean, std, max_values)


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class QLogExpectedImprovement(AcquisitionStrategy):
    """Queries the batch of largest expected improvement, noisy or not.

    The batch is maximised point by point, which its submodularity justifies
    (Wilson et al., 2018, "Maximizing acquisition functions for Bayesian
    optimization"). What a point has to improve on are joint draws of f at those
    chosen before and, if scores are noisy, at the points that may be the best,
    in the place of the incumbent (Balandat et al., 2020, "BoTorch: a framework
    for efficient Monte-Carlo Bayesian optimization", qNEI). Draws are fixed by
    their base samples, a Sobol sequence. Improvement on each of them has a
    closed form, whose logarithm has gradients everywhere, so that nothing is to
    be smoothed (Ament et al., 2023, "Unexpected improvements to expected
    improvement for Bayesian optimization").

    For one query and scores without noise this is `ExpectedImprovement`.

    Attributes:
      num_baseline: The number of points, of the largest mean + std, that count
        as those that may be the best.
    """

    num_baseline: int = 16

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        check_counts(num_baseline=self.num_baseline)

    def acquisition(
        self,
        context: Context,
        incumbent: float,
        chosen: np.ndarray,
        seed: int,
    ) -> Acquisition:
        surrogate = fitted(context)
        baseline = np.zeros((0, chosen.shape[1]), np.float32)
        if context.is_noisy:
            baseline = self.baseline(context)
        points = np.concatenate([baseline, chosen])
        given = Given.of(surrogate, points)
        if given is None:
            return improvement_over(incumbent)
        num_all = len(baseline) + self.batch_size
        base = normal_draws(seed, self.num_draws, num_all)[:, : len(points)]
        mean = np.asarray(surrogate.predict(given.points)[0])
        draws = mean + base @ given.root.T
        reached = np.full(self.num_draws, incumbent)
        if len(baseline):
            reached = draws[:, : len(baseline)].max(1)
        probs = np.ones(len(points))
        if context.log_feasibility is not None:
            probs = np.exp(context.log_feasibility(points))
        for i in range(len(baseline), len(points)):
            improved = np.maximum(reached, draws[:, i])
            reached = (1.0 - probs[i]) * reached + probs[i] * improved
        return Acquisition(_log_joint_improvement, (base, reached, given))

    def baseline(self, context: Context) -> np.ndarray:
        """Returns points that may be the best, float32 `[k, M]`."""
        feasible = feasible_of(context)
        latents = np.asarray(context.latents, np.float32)[feasible]
        latents = latents[search.distinct_rows(latents)]
        mean, std = fitted(context).predict(latents)
        order = np.argsort(-np.asarray(mean + std), kind="stable")
        return latents[order[: self.num_baseline]]


def _log_joint_improvement(
    surrogate: Surrogate, latents: Any, base: Any, reached: Any, given: Given
) -> tf.Tensor:
    """Returns the log of the mean improvement on draws, `[q]`.

    Args:
      surrogate: A fitted surrogate.
      latents: `[q, M]`.
      base: Standard normal draws, `[S, k]`.
      reached: What is to be improved on, `[S]`.
      given: The k points where f = mean + root e with e of `base`.
    """
    mean, std, slopes = conditional(surrogate, latents, given)
    means = mean + tf.matmul(tf.cast(base, tf.float64), slopes)  # [S, q]
    reached = tf.cast(reached, tf.float64)[:, None]
    values = log_expected_improvement(means, std, reached)
    count = tf.cast(tf.shape(values)[0], tf.float64)
    return tf.reduce_logsumexp(values, 0) - tf.math.log(count)


def normal_draws(seed: int, count: int, num_dimensions: int) -> np.ndarray:
    """Draws standard normal numbers by a Sobol sequence, `[count, d]`."""
    sobol = scipy.stats.qmc.Sobol(
        num_dimensions, seed=np.random.default_rng(seed)
    )
    shares = sobol.random_base2(int(np.ceil(np.log2(max(count, 2)))))[:count]
    # None of them is 0 or 1, whose quantiles are infinite.
    return scipy.special.ndtri(np.clip(shares, 1e-12, 1.0 - 1e-12))


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class ThompsonSampling:
    """Queries the maxima of posterior draws of the surrogate, one draw each.

    Draws are maximised over a set of candidates. Local candidates are close to
    the best points, or between two of them; the others are draws from the prior
    and uniform points of the data's bounding box. For binary latents they are
    best states with some bits flipped, and draws from the prior. Candidates in
    a trust region are those of `region_candidates`. With local candidates
    alone it is a local search around the best points, for
    surrogates that do not extrapolate (as in Eriksson et al., 2019, "Scalable
    global optimization via local Bayesian optimization").

    Attributes:
      batch_size: Queries between two fits of the surrogate.
      num_candidates: Number of candidates.
      best_share: Fraction of the points that count as the best.
      local_share: Fraction of the candidates that are local.
    """

    batch_size: int = 1
    num_candidates: int = 1000
    best_share: float = 0.2
    local_share: float = 0.5
    uses_data = True
    uses_surrogate = True

    def __post_init__(self) -> None:
        """Checks the settings."""
        if not 1 <= self.batch_size <= self.num_candidates:
            raise ValueError(
                "`batch_size` must be in [1, num_candidates = "
                f"{self.num_candidates!r}], got {self.batch_size!r}"
            )
        for name in ("best_share", "local_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f"`{name}` must be in [0, 1], got {getattr(self, name)!r}"
                )

    def num_at_a_time(self, num_left: int) -> int:
        return min(self.batch_size, num_left)

    def propose(
        self, context: Context, num_queries: int, seed: int
    ) -> np.ndarray:
        surrogate = fitted(context)
        candidate_seed, draw_seed = seeds_of(seed, 2)
        best = best_points(context, self.best_share)
        if context.space.is_binary:
            candidates = binary_candidates(
                context,
                best,
                self.num_candidates,
                candidate_seed,
                self.local_share,
            )
        elif context.box is not None:
            candidates = region_candidates(
                context.box, best[0], self.num_candidates, candidate_seed
            )
        else:
            candidates = box_candidates(
                context,
                Box.of(context.latents),
                best,
                self.num_candidates,
                candidate_seed,
                self.local_share,
            )
        candidates = candidates[search.distinct_rows(candidates)]
        count = min(num_queries, len(candidates))
        draws = surrogate.sample(candidates, count, draw_seed)
        chosen = _maxima(context, candidates, draws, draw_seed)
        return candidates[chosen]


def _maxima(
    context: Context, candidates: np.ndarray, draws: np.ndarray, seed: int
) -> np.ndarray:
    """Returns the indices of the maxima of draws, distinct.

    The constraints of a draw hold where their probability exceeds a uniform
    number, one for each draw. Where they hold nowhere, or no point is feasible
    yet, the most probably feasible candidate is taken.
    """
    holds = np.ones(np.shape(draws), bool)
    log_probs = np.zeros(len(candidates))
    if context.log_feasibility is not None:
        log_probs = np.asarray(context.log_feasibility(candidates))
        levels = np.random.default_rng(seed).random((len(draws), 1))
        holds = (log_probs >= np.log(levels)) & feasible_of(context).any()
    chosen: list[int] = []
    is_taken = np.zeros(len(candidates), bool)
    for draw, hold in zip(draws, holds, strict=True):
        merits = np.where(hold, draw, log_probs)
        # The first of equal ones.
        best = int(np.lexsort([-merits, ~hold, is_taken])[0])
        chosen.append(best)
        is_taken[best] = True
    return np.array(chosen, np.int64)
