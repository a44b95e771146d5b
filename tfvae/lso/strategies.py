# SPDX-License-Identifier: Apache-2.0
"""What a strategy is, and those that need no surrogate.

A strategy proposes latents to query, by what a `Context` knows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol

import gin
import numpy as np

from tfvae.lso.search import Box
from tfvae.lso.surrogates import Surrogate


class LatentSpace(Protocol):
    """What strategies see of a model.

    Attributes:
      num_latents: M.
      is_binary: Whether latents are zeros and ones.
    """

    num_latents: int
    is_binary: bool

    def sample_prior(self, seed: int, count: int) -> np.ndarray:
        """Draws latents, float32 `[count, M]`."""


ScoreLatents = Callable[
    [np.ndarray], tuple[np.ndarray, Sequence[Hashable | None]]
]
"""`latents [n, M] -> scores [n], n keys of the inputs they decode to`. Equal
inputs have equal keys; None is the key of latents that decode to no input."""


class Context(NamedTuple):
    """What a strategy chooses by.

    Attributes:
      space: The model's latent space.
      latents: float32 `[n, M]`, the surrogate's points.
      scores: float64 `[n]`, larger is better.
      surrogate: Fitted to these; None for strategies that use none.
      score_latents: The objective itself, for oracles; None where there is
        none to be had.
    """

    space: LatentSpace
    latents: np.ndarray
    scores: np.ndarray
    surrogate: Surrogate | None = None
    score_latents: ScoreLatents | None = None


class Strategy(Protocol):
    """How queries are chosen.

    Attributes:
      uses_surrogate: Whether the context must have a fitted surrogate.
    """

    uses_surrogate: bool

    def num_at_a_time(self, num_left: int) -> int:
        """Returns how many queries to ask for, of `num_left` of a round."""

    def propose(
        self, context: Context, num_queries: int, seed: int
    ) -> np.ndarray:
        """Returns latents to query, float32 `[q, M]`, q <= `num_queries`."""


@gin.register
@dataclasses.dataclass(frozen=True)
class PriorSampling:
    """Queries draws of the prior, as the published baselines do."""

    uses_surrogate = False

    def num_at_a_time(self, num_left: int) -> int:
        return num_left

    def propose(
        self, context: Context, num_queries: int, seed: int
    ) -> np.ndarray:
        draws = context.space.sample_prior(seed, num_queries)
        return np.asarray(draws, np.float32)


@gin.register
@dataclasses.dataclass(frozen=True)
class OracleGrid:
    """Queries the best of a grid, by the objective itself.

    It is no optimiser that one could use, as it evaluates the objective on all
    of the grid: it tells what the latent space has to offer. Of points that
    decode to the same input the first counts. Fewer queries than asked for are
    returned where the grid has fewer distinct inputs.

    Attributes:
      side: Points along each of the two latents.
      bound: The grid fills [-bound, bound]^2.
    """

    side: int = 50
    bound: float = 3.0
    uses_surrogate = False

    def __post_init__(self) -> None:
        """Checks the settings."""
        if self.side < 1:
            raise ValueError(f"`side` must be positive, got {self.side!r}")
        if not self.bound > 0.0:
            raise ValueError(f"`bound` must be positive, got {self.bound!r}")

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
    """Returns where each distinct key stands first, in rising order."""
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
      num_best: How many of the best; of equal ones the first.
      num_random: How many of the rest, all equally likely, none twice.
      seed: Of these.

    Returns:
      int64 index of the points, the best first, falling; all points where
      there are no more than asked for.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    best, rest = order[:num_best], order[num_best:]
    if len(rest) <= num_random:
        return order
    rng = np.random.default_rng(seed)
    chosen = rng.choice(rest, num_random, replace=False)
    return np.concatenate([best, chosen])


def best_points(context: Context, share: float) -> np.ndarray:
    """Returns the latents of the best points, the best first."""
    order = np.argsort(-np.asarray(context.scores), kind="stable")
    count = max(1, int(np.ceil(share * len(order))))
    return np.asarray(context.latents, np.float32)[order[:count]]


def box_candidates(
    context: Context, box: Box, near: np.ndarray, count: int, seed: int
) -> np.ndarray:
    """Draws candidates from the prior, the box, and close to given points.

    Args:
      context: Has the prior.
      box: Where candidates are.
      near: `[k, M]`, what a third of them are close to.
      count: How many.
      seed: Of the draws.

    Returns:
      float32 `[count, M]`.
    """
    rng = np.random.default_rng(seed)
    num_prior = num_box = count // 3
    num_near = count - num_prior - num_box
    prior = context.space.sample_prior(int(rng.integers(2**31)), num_prior)
    spread = np.asarray(context.latents).std(0)
    steps = rng.standard_normal((num_near, len(spread))) * spread
    # Some near, some further away.
    steps *= 10.0 ** rng.uniform(-2.0, 0.0, (num_near, 1))
    moved = near[rng.integers(len(near), size=num_near)] + steps
    return box.clip(np.concatenate([prior, box.sample(rng, num_box), moved]))


def binary_candidates(
    context: Context, near: np.ndarray, count: int, seed: int
) -> np.ndarray:
    """Draws states from the prior, and others close to given ones."""
    rng = np.random.default_rng(seed)
    prior = context.space.sample_prior(int(rng.integers(2**31)), count // 2)
    base = near[rng.integers(len(near), size=count - count // 2)]
    rate = rng.choice([1.0, 2.0, 4.0], (len(base), 1)) / base.shape[1]
    flips = rng.random(base.shape) < rate
    states = np.concatenate([prior, np.where(flips, 1.0 - base, base)])
    return states.astype(np.float32)


def incumbent_of(scores: np.ndarray, quantile: float | None) -> float:
    """Returns what to improve on, of scores `[n]`; None for the best."""
    return float(np.quantile(scores, 1.0 if quantile is None else quantile))


def check_quantile(quantile: float | None) -> None:
    """Raises ValueError unless it is None or a share."""
    if quantile is not None and not 0.0 <= quantile <= 1.0:
        raise ValueError(
            f"`incumbent_quantile` must be in [0, 1] or None, got {quantile!r}"
        )


def fitted(context: Context, strategy: Strategy) -> Surrogate:
    """Returns the context's surrogate."""
    if context.surrogate is None:
        raise ValueError(
            "`context.surrogate` must be fitted for "
            f"{type(strategy).__name__}, got None"
        )
    return context.surrogate


def seeds_of(seed: int, count: int) -> list[int]:
    """Returns seeds of different uses of one."""
    rng = np.random.default_rng(seed)
    return [int(one) for one in rng.integers(2**31, size=count)]
