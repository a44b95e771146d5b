# SPDX-License-Identifier: Apache-2.0
"""Acquisition strategies: expected improvement and Thompson sampling.

Larger scores are better throughout.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from tfvae import typed_gin
from tfvae.lso import search
from tfvae.lso.candidates import (
    batch_of,
    best_points,
    binary_candidates,
    box_candidates,
)
from tfvae.lso.evolutionary import (
    EvolutionaryExpectedImprovement as EvolutionaryExpectedImprovement,
)
from tfvae.lso.improvement import (
    constrained_log_improvement,
)
from tfvae.lso.improvement import expected_improvement as expected_improvement
from tfvae.lso.improvement import (
    log_expected_improvement as log_expected_improvement,
)
from tfvae.lso.search import Box
from tfvae.lso.strategies import AggregateSampling as AggregateSampling
from tfvae.lso.strategies import (
    Context,
    LogFeasibility,
    check_quantile,
    feasible_of,
    fitted,
    incumbent_of,
    seeds_of,
)
from tfvae.lso.strategies import LatentSpace as LatentSpace
from tfvae.lso.strategies import Mixture as Mixture
from tfvae.lso.strategies import OracleGrid as OracleGrid
from tfvae.lso.strategies import PriorSampling as PriorSampling
from tfvae.lso.strategies import Strategy as Strategy
from tfvae.lso.strategies import select_points as select_points
from tfvae.lso.surrogates import Surrogate


@tf.function(reduce_retracing=True)
def _values_and_gradients(
    surrogate: Surrogate,
    log_feasibility: LogFeasibility | None,
    latents: tf.Tensor,
    incumbent: tf.Tensor | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(latents)
        values = constrained_log_improvement(
            surrogate, latents, incumbent, log_feasibility
        )
    return values, tape.gradient(values, latents)


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class ExpectedImprovement:
    """Queries the maximum of expected improvement.

    The acquisition function is maximised by multi-start L-BFGS-B in the
    bounding box of the data, or by differential evolution for surrogates
    without gradients. Half of the starts are draws from the prior, half are
    among the best points. The first point of a batch is the maximum of expected
    improvement; the others are chosen greedily among many candidates by the
    joint expected improvement of the batch, estimated from joint draws of the
    surrogate (Wilson et al., 2018, "Maximizing acquisition functions for
    Bayesian optimization").

    Attributes:
      incumbent_quantile: Quantile of the scores that serves as the incumbent;
        None for the best score. The published value is 0.9, as higher ones left
        no gradients, which the logarithm does not need; its improvement does
        not vanish where a good score is known already, so that queries repeat
        it.
      num_starts: Number of starts of the search.
      batch_size: Queries between two fits of the surrogate.
      best_share: Fraction of the points that count as the best.
      box_quantile: See `Box.of`.
      box_margin: See `Box.of`.
      shares_bound: See `Box.of`.
      stops_early: Whether to search from one start after another, in random
        order, and to stop once a search has converged. This is the published
        way; it makes a start from the prior, and so exploration, as likely as
        one from the best points.
      max_iterations: Iterations of each L-BFGS-B search, or generations of
        differential evolution.
      num_draws: Joint draws of the surrogate for choosing a batch.
      num_candidates: Candidates for a batch besides the maxima found.
    """

    incumbent_quantile: float | None = None
    num_starts: int = 20
    batch_size: int = 1
    best_share: float = 0.2
    box_quantile: float = 0.999
    box_margin: float = 1.1
    shares_bound: bool = True
    stops_early: bool = False
    max_iterations: int = 100
    num_draws: int = 256
    num_candidates: int = 500
    uses_data = True
    uses_surrogate = True

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_quantile(self.incumbent_quantile)
        for name in ("num_starts", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"`{name}` must be positive, got {getattr(self, name)!r}"
                )

    def num_at_a_time(self, num_left: int) -> int:
        return min(self.batch_size, num_left)

    def box(self, latents: np.ndarray) -> Box:
        """Returns the bounding box of queries."""
        return Box.of(
            latents, self.box_quantile, self.box_margin, self.shares_bound
        )

    def starts(self, context: Context, count: int, seed: int) -> np.ndarray:
        """Returns starts of the search in the box, float32 `[count, M]`."""
        best = best_points(context, self.best_share)
        rng = np.random.default_rng(seed)
        num_best = min(count // 2, len(best))
        chosen = rng.choice(len(best), num_best, replace=False)
        drawn = context.space.sample_prior(
            int(rng.integers(2**31)), count - num_best
        )
        starts = np.concatenate([drawn, best[chosen]])
        return self.box(context.latents).clip(starts)

    def propose(
        self, context: Context, num_queries: int, seed: int
    ) -> np.ndarray:
        surrogate = fitted(context)
        if context.space.is_binary:
            raise ValueError(
                "`ExpectedImprovement` must have a model with continuous "
                "latents, got binary ones; use EvolutionaryExpectedImprovement"
            )
        start_seed, search_seed, batch_seed = seeds_of(seed, 3)
        incumbent = incumbent_of(context, self.incumbent_quantile)
        found = self._search(
            surrogate, context, incumbent, start_seed, search_seed
        )
        if num_queries == 1:
            return found.best
        return self._batch(
            surrogate, context, incumbent, found, num_queries, batch_seed
        )

    def _search(
        self,
        surrogate: Surrogate,
        context: Context,
        incumbent: float | None,
        start_seed: int,
        search_seed: int,
    ) -> search.Maxima:
        box = self.box(context.latents)
        if not surrogate.has_gradients:
            # Differential evolution needs a population of at least five.
            starts = self.starts(context, max(self.num_starts, 5), start_seed)
            return search.differential_evolution(
                lambda points: constrained_log_improvement(
                    surrogate, points, incumbent, context.log_feasibility
                ).numpy(),
                starts,
                box,
                search_seed,
                self.max_iterations,
            )

        def function(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            values, gradients = _values_and_gradients(
                surrogate,
                context.log_feasibility,
                tf.constant(points),
                level,
            )
            return values.numpy(), gradients.numpy()

        level = None
        if incumbent is not None:
            level = tf.constant(incumbent, tf.float64)
        starts = self.starts(context, self.num_starts, start_seed)
        if self.stops_early:
            order = np.random.default_rng(search_seed).permutation(len(starts))
            return search.sequential_lbfgs(
                function, starts[order], box, self.max_iterations
            )
        return search.multi_start_lbfgs(
            function, starts, box, self.max_iterations
        )

    def _batch(
        self,
        surrogate: Surrogate,
        context: Context,
        incumbent: float | None,
        found: search.Maxima,
        num_queries: int,
        seed: int,
    ) -> np.ndarray:
        candidate_seed, draw_seed = seeds_of(seed, 2)
        box = self.box(context.latents)
        count = max(self.num_candidates, 2 * num_queries)
        candidates = np.concatenate(
            [
                found.best,
                found.points,
                box_candidates(
                    context, box, found.points, count, candidate_seed, 1 / 3
                ),
            ]
        )
        candidates = candidates[search.distinct_rows(candidates)]
        # The maximum comes first, here and among the distinct candidates.
        return batch_of(
            context,
            candidates,
            incumbent,
            num_queries,
            self.num_draws,
            draw_seed,
        )


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class ThompsonSampling:
    """Queries the maxima of posterior draws of the surrogate, one draw each.

    Draws are maximised over a set of candidates. Local candidates are close to
    the best points, or between two of them; the others are draws from the prior
    and uniform points of the data's bounding box. For binary latents they are
    best states with some bits flipped, and draws from the prior. With local
    candidates alone it is a local search around the best points, for
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
