# SPDX-License-Identifier: Apache-2.0
"""Expected improvement for binary latents, maximised by evolution."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import special

from tfvae import typed_gin
from tfvae.lso import search
from tfvae.lso.candidates import batch_of, best_points
from tfvae.lso.maximisation import (
    constrained_values,
    improvement_over,
)
from tfvae.lso.strategies import (
    Context,
    LogFeasibility,
    check_quantile,
    fitted,
    incumbent_of,
    seeds_of,
)
from tfvae.lso.surrogates import Surrogate
from tfvae.ops import bits, random, truncated
from tfvae.tvae import evolution as evolutions
from tfvae.tvae import operators


@typed_gin.register
@typed_gin.uses(defaults={"evolution": evolutions.Evolution})
@dataclasses.dataclass(frozen=True)
class EvolutionaryExpectedImprovement:
    """Queries the maximum of expected improvement over binary latents.

    The acquisition function is maximised by the evolutionary algorithm of a
    TVAE's E-step. The initial population consists of the best states of the
    data and of draws from the prior. States of the data are proposed only if
    the last population has no others.

    Attributes:
      incumbent_quantile: See `ExpectedImprovement`.
      batch_size: Queries between two fits of the surrogate.
      num_states: Population size.
      num_steps: Largest number of steps of the evolution.
      tolerance: The evolution ends once a step gains less, in nats of log
        expected improvement.
      evolution: Operators and budget of a step; None for the default with
        the best states as parents.
      prior_weight: Factor of the log prior probability of a state that is
        added to its log expected improvement. The prior is approximated by
        independent bits.
      num_draws: Joint draws of the surrogate for choosing a batch.
    """

    incumbent_quantile: float | None = None
    batch_size: int = 1
    num_states: int = 64
    num_steps: int = 300
    tolerance: float = 1e-8
    evolution: evolutions.Evolution | None = None
    prior_weight: float = 0.0
    num_draws: int = 256
    uses_data = True
    uses_surrogate = True

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_quantile(self.incumbent_quantile)
        if not 1 <= self.batch_size <= self.num_states:
            raise ValueError(
                f"`batch_size` must be in [1, num_states = {self.num_states!r}"
                f"], got {self.batch_size!r}"
            )

    def num_at_a_time(self, num_left: int) -> int:
        return min(self.batch_size, num_left)

    def propose(
        self, context: Context, num_queries: int, seed: int
    ) -> np.ndarray:
        surrogate = fitted(context)
        if not context.space.is_binary:
            raise ValueError(
                "`EvolutionaryExpectedImprovement` must have a model with "
                "binary latents, got continuous ones; use ExpectedImprovement"
            )
        incumbent = incumbent_of(context, self.incumbent_quantile)
        start_seed, search_seed, draw_seed = seeds_of(seed, 3)
        found = self._search(
            surrogate,
            context,
            incumbent,
            num_queries,
            start_seed,
            search_seed,
        )
        count = min(num_queries, len(found.points))
        if count == 1:
            return found.points[:1]
        # The first states are the best ones, and new ones come first.
        return batch_of(
            context,
            found.points,
            incumbent,
            1,
            count,
            self.num_draws,
            draw_seed,
        )

    def _search(
        self,
        surrogate: Surrogate,
        context: Context,
        incumbent: float | None,
        num_queries: int,
        start_seed: int,
        search_seed: int,
    ) -> search.Maxima:
        """Returns the new states of the last population.

        Where there are fewer than `num_queries`, known states fill up.
        """
        prior = context.space.sample_prior(start_seed, 4096)
        starts = self._starts(context, prior, start_seed)
        num_states, num_latents = starts.shape
        evolution = self.evolution or _default_evolution(
            num_states, num_latents
        )
        probs = (prior.sum(0) + 0.5) / (len(prior) + 1.0)
        packed, values = _evolve(
            surrogate,
            evolution,
            num_latents,
            random.make_seed(search_seed),
            bits.pack(tf.constant(starts))[None],
            context.log_feasibility,
            incumbent
            if incumbent is None
            else tf.constant(incumbent, tf.float64),
            tf.constant(self.prior_weight * special.logit(probs), tf.float64),
            tf.constant(prior.sum(-1).mean(), tf.float32),
            tf.constant(self.num_steps),
            tf.constant(self.tolerance, tf.float32),
        )
        states = bits.unpack(packed[0], num_latents).numpy()
        known = {row.tobytes() for row in np.asarray(context.latents, "f4")}
        is_new = [row.tobytes() not in known for row in states]
        # Stable: within either kind the best stay first.
        order = np.argsort(np.logical_not(is_new), kind="stable")
        order = order[: max(num_queries, np.sum(is_new))]
        return search.Maxima(states[order], values[0].numpy()[order])

    def _starts(
        self, context: Context, prior: np.ndarray, seed: int
    ) -> np.ndarray:
        """Returns distinct states, at most half of them from the data."""
        num_latents = context.space.num_latents
        num_states = min(self.num_states, 2 ** min(num_latents, 30))
        best = best_points(context, 1.0)
        best = best[search.distinct_rows(best)][: (num_states + 1) // 2]
        others = truncated.initial_states(
            random.make_seed(seed), 1, num_states, num_latents
        )
        others = bits.unpack(others[0], num_latents).numpy()
        states = np.concatenate([best, prior[:num_states], others])
        states = states[search.distinct_rows(states)]
        return states[:num_states].astype(np.float32)


@functools.cache
def _default_evolution(
    num_states: int, num_latents: int
) -> evolutions.Evolution:
    # Cached, as traces are found by the identity of their settings.
    return dataclasses.replace(
        evolutions.default_evolution(num_states, num_latents),
        # Differences of log improvement are too small to sample parents by.
        parents=operators.Elite(),
    )


@tf.function(reduce_retracing=True)
def _evolve(
    surrogate: Surrogate,
    evolution: evolutions.Evolution,
    num_latents: int,
    seed: tf.Tensor,
    packed: tf.Tensor,
    log_feasibility: LogFeasibility | None,
    incumbent: tf.Tensor | None,
    prior_logits: tf.Tensor,
    expected_ones: tf.Tensor,
    num_steps: tf.Tensor,
    tolerance: tf.Tensor,
) -> truncated.StateSet:
    """Runs the E-step of one data point with log improvements as log-joints."""

    def log_joint(packed: tf.Tensor) -> tf.Tensor:
        states = bits.unpack(packed[0], num_latents)
        improvement = _log_improvement(
            surrogate, states, incumbent, log_feasibility
        )
        # Log-probabilities up to a constant.
        prior = tf.linalg.matvec(tf.cast(states, tf.float64), prior_logits)
        # Far below any other value, and still finite in float32.
        values = tf.maximum(improvement + prior, -1e30)
        values = tf.cast(values, tf.float32)[None]
        return tf.ensure_shape(values, packed.shape[:-1])

    states, _ = evolutions.infer(
        seed,
        truncated.StateSet(packed, log_joint(packed)),
        log_joint,
        evolution,
        expected_ones,
        num_latents,
        num_steps,
        tolerance,
    )
    return states


def _log_improvement(
    surrogate: Surrogate,
    states: tf.Tensor,
    incumbent: tf.Tensor | None,
    log_feasibility: LogFeasibility | None,
) -> tf.Tensor:
    def improvement(states: Any, incumbent: Any) -> tf.Tensor:
        return constrained_values(
            improvement_over(incumbent), surrogate, log_feasibility, states
        )

    if surrogate.has_gradients:
        return improvement(states, incumbent)
    given = [states] if incumbent is None else [states, incumbent]
    return tf.numpy_function(
        lambda states, level=None: improvement(states, level).numpy(),
        given,
        tf.float64,
    )
