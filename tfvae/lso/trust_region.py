# SPDX-License-Identifier: Apache-2.0
"""Trust region: another strategy, kept to a box around the best point (TuRBO).

Reference: Eriksson, Pearce, Gardner, Turner and Poloczek, 2019, "Scalable
global optimization via local Bayesian optimization", algorithm TuRBO-1.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.lso.candidates import best_points
from tfvae.lso.search import Box
from tfvae.lso.strategies import Context, Strategy, fitted


class State(NamedTuple):
    """State of a trust region.

    Attributes:
      length: Edge of the region, as a fraction of the whole box.
      begin: Index in the history of the first query of the region; 0 for the
        first region, which the initial data belong to.
      num_initial_left: How many of its queries, random ones that a region
        begins with after a restart, are still to be made.
    """

    length: float
    begin: int
    num_initial_left: int


class Rules(NamedTuple):
    """Rules by which a trust region changes; see `TrustRegion`.

    Attributes:
      batch_size: Queries that count as one success or failure.
      length: First length.
      min_length: A region ends below this.
      max_length: Largest length.
      success_tolerance: Successes in a row after which the length doubles.
      failure_tolerance: Failures in a row after which it is halved.
      num_initial: Random queries after a restart.
    """

    batch_size: int
    length: float
    min_length: float
    max_length: float
    success_tolerance: int
    failure_tolerance: int
    num_initial: int


def replay(history: np.ndarray, start: float, rules: Rules) -> State:
    """Returns the state of a trust region, a function of all that happened.

    Args:
      history: `[h]`, scores of all queries so far, larger is better, -inf for
        failures.
      start: Best score of the initial data.
      rules: How the region changes.
    """
    length, begin, best = rules.length, 0, start
    num_successes = num_failures = i = 0
    while i + rules.batch_size <= len(history):
        reached = float(np.max(history[i : i + rules.batch_size]))
        i += rules.batch_size
        margin = 1e-3 * abs(best) if math.isfinite(best) else 0.0
        is_success = reached > best + margin
        num_successes = num_successes + 1 if is_success else 0
        num_failures = 0 if is_success else num_failures + 1
        best = max(best, reached)
        if num_successes == rules.success_tolerance:
            length = min(2.0 * length, rules.max_length)
            num_successes = 0
        elif num_failures == rules.failure_tolerance:
            length, num_failures = 0.5 * length, 0
        if length >= rules.min_length:
            continue
        # A new region begins with random queries.
        length, begin = rules.length, i
        num_successes = num_failures = 0
        initial = history[i : i + rules.num_initial]
        if len(initial) < rules.num_initial:
            return State(length, begin, rules.num_initial - len(initial))
        best = float(np.max(initial, initial=-math.inf))
        i += rules.num_initial
    return State(length, begin, 0)


def region_of(
    centre: np.ndarray,
    length: float,
    box: Box,
    lengthscales: np.ndarray | None,
) -> Box:
    """Returns the trust region around a point.

    Args:
      centre: `[M]`.
      length: Geometric mean of its edges, as a fraction of those of the box.
      box: The whole box, which the region is cut off at.
      lengthscales: `[M]`, of the surrogate's kernel, which the edges are in
        proportion to; None for edges as those of the box.
    """
    size = np.asarray(box.high, np.float64) - box.low
    edges = length * size
    if lengthscales is not None:
        shares = np.log(np.asarray(lengthscales) / size)
        edges = edges * np.exp(shares - shares.mean())
    return Box(box.clip(centre - 0.5 * edges), box.clip(centre + 0.5 * edges))


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class TrustRegion:
    """Keeps the queries of a strategy to a trust region.

    The region is a box around the best point, in proportion to the lengthscales
    of the surrogate. Its length doubles after some successes in a row, is
    halved after some failures in a row, and below the smallest length a new
    region begins, with random queries of the whole box. A success is a score
    that is better than all those of the region by 0.1 %. All of this follows
    from the scores so far, so that a run that is resumed goes on as it was.

    The surrogate remains one of all points. Where `Context.query_of` is given,
    a new region does not know the points of the ones before.

    Attributes:
      strategy: The strategy, such as `ThompsonSampling` as published, or one
        that maximises an acquisition function.
      length: First length, as a fraction of the whole box: of the context's, or
        `Box.of` the latents.
      min_length: A region ends below this.
      max_length: Largest length.
      success_tolerance: Successes in a row after which the length doubles.
      failure_tolerance: Queries in a row without success after which it is
        halved; None for the number of latents, or 4 if that is less.
      num_initial: Random queries after a restart; None for twice the number of
        latents.
    """

    strategy: Strategy
    length: float = 0.8
    min_length: float = 0.5**7
    max_length: float = 1.6
    success_tolerance: int = 3
    failure_tolerance: int | None = None
    num_initial: int | None = None
    uses_data = True
    uses_surrogate = True

    def __post_init__(self) -> None:
        """Checks the settings."""
        if isinstance(self.strategy, type) or not hasattr(
            self.strategy, "propose"
        ):
            raise TypeError(
                "`strategy` must be a strategy, such as ThompsonSampling() "
                f"with parentheses, got {self.strategy!r}"
            )
        if not 0.0 < self.min_length <= self.length <= self.max_length:
            raise ValueError(
                "`min_length`, `length` and `max_length` must be positive and "
                f"ascending, got {self.min_length!r}, {self.length!r} and "
                f"{self.max_length!r}"
            )
        for name in ("success_tolerance", "failure_tolerance", "num_initial"):
            if getattr(self, name) is not None:
                check_counts(**{name: getattr(self, name)})

    def num_at_a_time(self, num_left: int) -> int:
        return self.strategy.num_at_a_time(num_left)

    def rules(self, num_latents: int) -> Rules:
        """Returns the rules for a number of latents."""
        batch_size = self.strategy.num_at_a_time(2**31)
        failures = self.failure_tolerance or max(4, num_latents)
        return Rules(
            batch_size,
            self.length,
            self.min_length,
            self.max_length,
            self.success_tolerance,
            math.ceil(failures / batch_size),
            self.num_initial or 2 * num_latents,
        )

    def propose(
        self, context: Context, num_queries: int, seed: int
    ) -> np.ndarray:
        surrogate = fitted(context)
        if context.space.is_binary:
            raise ValueError(
                "`TrustRegion` must have a model with continuous latents, got "
                "binary ones; use EvolutionaryExpectedImprovement"
            )
        rules = self.rules(context.space.num_latents)
        state = replay(context.history, context.start, rules)
        box = context.box or Box.of(context.latents)
        if state.num_initial_left:
            return box.sample(np.random.default_rng(seed), num_queries)
        context = _since(context, state.begin)
        region = region_of(
            best_points(context, 0.0)[0],
            state.length,
            box,
            surrogate.lengthscales(),
        )
        return self.strategy.propose(
            context._replace(box=region), num_queries, seed
        )


def _since(context: Context, begin: int) -> Context:
    """Returns the context without the points of regions before."""
    if not begin or context.query_of is None:
        return context
    rows = np.asarray(context.query_of) >= begin
    if not rows.any():
        return context
    feasible = context.is_feasible
    return context._replace(
        latents=context.latents[rows],
        scores=context.scores[rows],
        is_feasible=None if feasible is None else feasible[rows],
        query_of=context.query_of[rows],
    )
