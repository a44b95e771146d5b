# SPDX-License-Identifier: Apache-2.0
"""Protocol of query strategies, and those that need no surrogate.

A strategy proposes latents to query, given a `Context`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from tfvae import typed_gin
from tfvae.arguments import check_counts, check_positive
from tfvae.lso.search import Box

if TYPE_CHECKING:
    from tfvae.lso.surrogates import Surrogate


class LatentSpace(Protocol):
    """Protocol of a model's latent space, as used by strategies.

    Attributes:
      num_latents: M.
      is_binary: Whether latents are zeros and ones.
    """

    num_latents: int
    is_binary: bool

    def sample_prior(self, seed: int, count: int) -> np.ndarray:
        """Draws latents from the prior, float32 `[count, M]`."""


ScoreLatents = Callable[
    [np.ndarray], tuple[np.ndarray, Sequence[Hashable | None]]
]
"""`latents [n, M] -> scores [n], n keys of the inputs they decode to`. Equal
inputs have equal keys; None is the key of latents that decode to no input."""

LogFeasibility = Callable[[Any], Any]
"""`latents [q, M] -> log probability that all constraints hold [q]`, float64.
"""

Reread = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""Latents `[n, M]` and a seed to the latents that the distinct inputs they
decode to are encoded to, float32 `[k, M]`, and rows of the given latents that
decode to these, int `[k]`; k <= n.
"""


class Context(NamedTuple):
    """Information that a strategy may use to choose queries.

    Attributes:
      space: The model's latent space.
      latents: float32 `[n, M]`, the surrogate's training points; empty for
        strategies that use no data.
      scores: float64 `[n]`, larger is better.
      surrogate: Surrogate fitted to latents and scores; None for strategies
        that use none.
      score_latents: The objective as a function of latents, for oracles; None
        where it is not available.
      is_feasible: bool `[n]`, which of the points satisfy all constraints; None
        for all.
      log_feasibility: Log probability that all constraints hold; None without
        constraints. A differentiable function of tensors if the surrogate has
        gradients, of arrays otherwise. It should be the same object in all
        contexts of a run, as each new one is traced.
      is_noisy: Whether scores are noisy. Points then count by the posterior
        mean of the surrogate, rather than by their score.
      history: float64 `[h]`, scores of all finished queries of the run in the
        order in which they were recorded; -inf for failures and infeasible
        ones.
      start: The best score of the initial data; -inf if there is none.
      query_of: int `[n]`, the index in the history of each point, -1 for
        initial data; None if that is not known.
      box: Box constraints of queries, such as a trust region; None for the
        strategy's own.
      pending: float32 `[p, M]`, latents of queries without a result. With a
        surrogate they are the last of `latents` as well, and have believed
        scores.
      reread: Decodes latents, and encodes the inputs; None where the task is
        not known.
    """

    space: LatentSpace
    latents: np.ndarray
    scores: np.ndarray
    surrogate: Surrogate | None = None
    score_latents: ScoreLatents | None = None
    is_feasible: np.ndarray | None = None
    log_feasibility: LogFeasibility | None = None
    is_noisy: bool = False
    history: np.ndarray = np.zeros(0)
    start: float = -math.inf
    query_of: np.ndarray | None = None
    box: Box | None = None
    pending: np.ndarray = np.zeros((0, 0), np.float32)
    reread: Reread | None = None


class Strategy(Protocol):
    """Protocol of query strategies."""

    @property
    def uses_data(self) -> bool:
        """Whether the context must have latents and scores of data."""

    @property
    def uses_surrogate(self) -> bool:
        """Whether the context must have a fitted surrogate."""

    def num_at_a_time(self, num_left: int) -> int:
        """Returns how many queries to propose next, if `num_left` are left."""

    def propose(
        self, context: Context, num_queries: int, seed: int
    ) -> np.ndarray:
        """Returns latents to query, float32 `[q, M]`, q <= `num_queries`."""


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class PriorSampling:
    """Queries draws from the prior, as the published baselines do."""

    uses_data = False
    uses_surrogate = False

    def num_at_a_time(self, num_left: int) -> int:
        return num_left

    def propose(
        self, context: Context, num_queries: int, seed: int
    ) -> np.ndarray:
        draws = context.space.sample_prior(seed, num_queries)
        return np.asarray(draws, np.float32)


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class AggregateSampling:
    """Queries draws from a diagonal Gaussian fitted to the data's latents.

    It approximates the aggregate posterior, which is much narrower than the
    prior where a model's KL term is only a few nats. Queries stay in the
    bounding box of the data.
    """

    uses_data = True
    uses_surrogate = False

    def num_at_a_time(self, num_left: int) -> int:
        return num_left

    def propose(
        self, context: Context, num_queries: int, seed: int
    ) -> np.ndarray:
        if context.space.is_binary:
            raise ValueError(
                "`AggregateSampling` must have a model with continuous "
                "latents, got binary ones; use PriorSampling"
            )
        latents = np.asarray(context.latents, np.float64)
        rng = np.random.default_rng(seed)
        shape = (num_queries, latents.shape[1])
        draws = rng.normal(latents.mean(0), latents.std(0), shape)
        return Box.of(latents).clip(draws)


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class Mixture:
    """Mixture of strategies: one of them is drawn for each proposal.

    A surrogate may be overconfident in regions where it is wrong, which its
    acquisition function then never explores; random queries do (De Ath et al.,
    2021, "Greed is good: exploration and exploitation trade-offs in Bayesian
    optimisation").

    Attributes:
      strategies: The strategies.
      shares: Their probabilities, not necessarily normalised.
    """

    strategies: Sequence[Strategy]
    shares: Sequence[float]

    def __post_init__(self) -> None:
        """Checks the settings."""
        _check_strategies(self.strategies)
        shares = np.asarray(self.shares)
        if shares.dtype.kind not in "biuf":
            raise TypeError(
                "`shares` must be numbers, one for each strategy, such as "
                f"(0.5, 0.5), got {self.shares!r}"
            )
        if shares.shape != (len(self.strategies),) or not len(shares):
            raise ValueError(
                "`shares` must have a number for each of the "
                f"{len(self.strategies)} strategies, got {self.shares!r}"
            )
        is_share = np.isfinite(shares) & (shares >= 0.0)
        if not is_share.all() or not shares.sum() > 0.0:
            raise ValueError(
                "`shares` must be finite and not negative, and one of them "
                f"positive, got {self.shares!r}"
            )

    @property
    def uses_data(self) -> bool:
        return any(one.uses_data for one in self.strategies)

    @property
    def uses_surrogate(self) -> bool:
        return any(one.uses_surrogate for one in self.strategies)

    def num_at_a_time(self, num_left: int) -> int:
        return min(one.num_at_a_time(num_left) for one in self.strategies)

    def propose(
        self, context: Context, num_queries: int, seed: int
    ) -> np.ndarray:
        rng = np.random.default_rng(seed)
        shares = np.asarray(self.shares, np.float64)
        chosen = rng.choice(len(shares), p=shares / shares.sum())
        return self.strategies[chosen].propose(
            context, num_queries, int(rng.integers(2**31))
        )


def _check_strategies(strategies: Any) -> None:
    """Raises a TypeError unless it is a sequence of strategies."""
    is_sequence = isinstance(strategies, Sequence)
    for one in strategies if is_sequence else [strategies]:
        is_class = isinstance(one, type)
        if is_class or not is_sequence or not hasattr(one, "propose"):
            got = f"the class {one.__name__}" if is_class else repr(one)
            raise TypeError(
                "`strategies` must be a sequence of strategies, such as "
                "(PriorSampling(), AggregateSampling()) with all parentheses, "
                f"got {got}"
            )


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class OracleGrid:
    """Oracle: queries the best points of a grid, by the true objective.

    It evaluates the objective on the whole grid, outside the budget, so it is
    not a practical optimizer, but shows what the latent space has to offer.
    Among points that decode to the same input only the first counts. Fewer
    queries than requested are returned if the grid has fewer distinct inputs.

    Attributes:
      side: Grid points along each of the two latents.
      bound: The grid covers [-bound, bound]^2.
    """

    side: int = 50
    bound: float = 3.0
    uses_data = False
    uses_surrogate = False

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_counts(side=self.side)
        check_positive(bound=self.bound)

    def num_at_a_time(self, num_left: int) -> int:
        return num_left

    def points(self) -> np.ndarray:
        """Returns the grid, float32 `[side**2, 2]`."""
        ticks = np.linspace(-self.bound, self.bound, self.side)
        grid = np.meshgrid(ticks, ticks, indexing="ij")
        return np.stack(grid, -1).reshape(-1, 2).astype(np.float32)

    def propose(
        self, context: Context, num_queries: int, seed: int
    ) -> np.ndarray:
        del seed  # Nothing here is random.
        if context.space.num_latents != 2:
            raise ValueError(
                "`OracleGrid` must have a model of 2 latents, got "
                f"{context.space.num_latents}"
            )
        if context.score_latents is None:
            raise ValueError(
                "`context.score_latents` must be a function for `OracleGrid`, "
                "got None"
            )
        latents = self.points()
        scores, keys = context.score_latents(latents)
        first = _first_of_each(keys)
        order = np.argsort(-np.asarray(scores)[first], kind="stable")
        return latents[first[order[:num_queries]]]


def _first_of_each(keys: Sequence[Hashable | None]) -> np.ndarray:
    """Returns the index of the first of each distinct key, ascending."""
    places: dict[Hashable | None, int] = {}
    for i, key in enumerate(keys):
        places.setdefault(key, i)
    return np.array(list(places.values()), np.int64)


def select_points(
    scores: np.ndarray, num_best: int, num_random: int, seed: int
) -> np.ndarray:
    """Chooses the points that a surrogate is fitted to.

    Args:
      scores: `[N]`, larger is better.
      num_best: Number of the best points; ties are broken by order.
      num_random: Number of other points, drawn uniformly without replacement.
      seed: Seed of the draw.

    Returns:
      int64 index of the points, first the best ones in descending order; all
      points if there are no more than `num_best + num_random`.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    best, rest = order[:num_best], order[num_best:]
    if len(rest) <= num_random:
        return order
    rng = np.random.default_rng(seed)
    chosen = rng.choice(rest, num_random, replace=False)
    return np.concatenate([best, chosen])


def feasible_of(context: Context) -> np.ndarray:
    """Returns which points satisfy all constraints, bool `[n]`."""
    if context.is_feasible is None:
        return np.ones(len(context.scores), bool)
    return np.asarray(context.is_feasible, bool)


def merits_of(context: Context) -> np.ndarray:
    """Returns what the points count by, larger is better, float64 `[n]`.

    That is the score, or the posterior mean if scores are noisy, so that the
    luckiest score is not taken for the best point.

    Raises:
      ValueError: If scores are noisy and there is no surrogate.
    """
    if not context.is_noisy:
        return np.asarray(context.scores, np.float64)
    return np.asarray(fitted(context).predict(context.latents)[0])


def incumbent_of(context: Context, quantile: float | None) -> float | None:
    """Returns the incumbent, the score to improve on.

    Args:
      context: Points and their scores.
      quantile: The quantile of the merits of feasible points; None for the
        best.

    Returns:
      The incumbent; None if there are constraints and no point satisfies them.
      An acquisition function is then the log feasibility alone.
    """
    merits, feasible = merits_of(context), feasible_of(context)
    if not feasible.any():
        if context.log_feasibility is not None:
            return None
        feasible = ~feasible  # Nothing is known of where they hold.
    level = 1.0 if quantile is None else quantile
    return float(np.quantile(merits[feasible], level))


def check_quantile(quantile: float | None) -> None:
    """Raises ValueError unless `quantile` is None or in [0, 1]."""
    if quantile is not None and not 0.0 <= quantile <= 1.0:
        raise ValueError(
            f"`incumbent_quantile` must be in [0, 1] or None, got {quantile!r}"
        )


def fitted(context: Context) -> Surrogate:
    """Returns the context's surrogate."""
    if context.surrogate is None:
        raise ValueError("`context.surrogate` must be fitted, got None")
    return context.surrogate


def seeds_of(seed: int, count: int) -> list[int]:
    """Derives `count` independent seeds from one."""
    rng = np.random.default_rng(seed)
    return [int(one) for one in rng.integers(2**31, size=count)]
