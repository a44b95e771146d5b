# SPDX-License-Identifier: Apache-2.0
"""Expected improvement over latents with positions, maximised by evolution."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.lso.candidates import batch_of, best_points
from tfvae.lso.maximisation import (
    constrained_values,
    improvement_over,
)
from tfvae.lso.search import distinct_rows
from tfvae.lso.strategies import (
    Context,
    check_quantile,
    fitted,
    incumbent_of,
    seeds_of,
)

# Latents that differ by less are those of one input.
_RESOLUTION = 1e-2
# Candidates of a batch for each of its queries.
_CANDIDATES_PER_QUERY = 8


class _Population(NamedTuple):
    """Latents, the data points they come from, and what they are worth."""

    latents: np.ndarray
    """float32 `[p, M]`."""
    lineages: np.ndarray
    """int64 `[p]`."""
    values: np.ndarray
    """Log expected improvement, float64 `[p]`."""

    def at(self, rows: np.ndarray) -> _Population:
        return _Population(*(one[rows] for one in self))

    def first(self, count: int) -> _Population:
        return self.at(np.arange(min(count, len(self.values))))

    def with_(self, others: _Population) -> _Population:
        pairs = zip(self, others, strict=True)
        return _Population(*(np.concatenate(pair) for pair in pairs))


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class WindowEvolution:
    """Queries the best of an evolution of latents with positions.

    The population begins with the best data points. A child has one window of
    adjacent positions replaced by a window of a good point, from any position,
    or random steps added to its latents there. What it decodes to is encoded
    again, so that only latents of inputs are compared; inputs that are known
    are left out. The children of largest expected improvement survive. A batch
    is chosen among the best of all generations by joint expected improvement.
    Descendants of one data point are a lineage, of which only some survive and
    are queried, since a surrogate may be wrong about all of them at once.

    Attributes:
      num_positions: T. Latents are `[n, T * c]`, ordered by position.
      incumbent_quantile: See `ExpectedImprovement`.
      batch_size: Queries between two fits of the surrogate.
      num_parents: Points of the population, and good points that windows are
        copied from.
      num_children: Children of a generation.
      num_generations: Number of generations.
      copied_share: Fraction of the children that get a copied window.
      max_window: Largest number of positions of a window.
      max_step: Largest standard deviation of the random steps, in units of the
        standard deviation of a channel. Steps of a tenth of it are as probable.
      max_per_lineage: Largest number of queries, and of survivors, that descend
        from one data point.
      num_draws: Joint draws of the surrogate for choosing a batch.
    """

    num_positions: int
    incumbent_quantile: float | None = None
    batch_size: int = 25
    num_parents: int = 100
    num_children: int = 300
    num_generations: int = 12
    copied_share: float = 0.5
    max_window: int = 10
    max_step: float = 1.0
    max_per_lineage: int = 8
    num_draws: int = 256
    uses_data = True
    uses_surrogate = True

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_quantile(self.incumbent_quantile)
        check_counts(
            num_positions=self.num_positions,
            batch_size=self.batch_size,
            num_parents=self.num_parents,
            num_children=self.num_children,
            num_generations=self.num_generations,
            max_window=self.max_window,
            max_per_lineage=self.max_per_lineage,
        )
        if not 0.0 <= self.copied_share <= 1.0:
            raise ValueError(
                f"`copied_share` must be in [0, 1], got {self.copied_share!r}"
            )

    def num_at_a_time(self, num_left: int) -> int:
        return min(self.batch_size, num_left)

    def propose(
        self, context: Context, num_queries: int, seed: int
    ) -> np.ndarray:
        num_latents = context.space.num_latents
        if context.space.is_binary or num_latents % self.num_positions:
            raise ValueError(
                "`WindowEvolution` must have a model of continuous latents, a "
                f"multiple of `num_positions`, {self.num_positions}, got "
                f"{num_latents} {'binary' * context.space.is_binary} latents"
            )
        search_seed, draw_seed = seeds_of(seed, 2)
        incumbent = incumbent_of(context, self.incumbent_quantile)
        found = self._search(context, incumbent, search_seed)
        count = min(num_queries, len(found.latents))
        if count <= 1:
            return found.latents[:count]
        most = max(count, _CANDIDATES_PER_QUERY * count)
        # The first is the best one.
        return batch_of(
            context,
            found.latents[:most],
            incumbent,
            1,
            count,
            self.num_draws,
            draw_seed,
        )

    def _search(
        self, context: Context, incumbent: float | None, seed: int
    ) -> _Population:
        """Returns the new latents of all generations, the best first."""
        reread = context.reread
        if reread is None:
            raise ValueError("`context.reread` must be given, got None")
        rng = np.random.default_rng(seed)
        best = best_points(context, 1.0)
        # Enough of them, as some may be the same.
        best = best[: 4 * self.num_parents]
        best = best[distinct_rows(best)][: self.num_parents]
        parents = _Population(
            best,
            np.arange(len(best)),
            self._values(context, best, incumbent),
        )
        seen = {*_keys(np.asarray(context.latents))}
        found = parents.at(np.zeros(0, np.int64))
        for _ in range(self.num_generations):
            bases = rng.integers(len(parents.latents), size=self.num_children)
            children = self._children(
                context,
                parents.latents[bases],
                np.concatenate([best, parents.latents]),
                rng,
            )
            latents, rows = reread(children, int(rng.integers(2**31)))
            is_new = [key not in seen for key in _keys(latents)]
            seen.update(_keys(latents))
            latents, rows = latents[is_new], rows[is_new]
            if not len(latents):
                continue
            born = _Population(
                latents,
                parents.lineages[bases[rows]],
                self._values(context, latents, incumbent),
            )
            found = self._best(found.with_(born))
            parents = self._best(parents.with_(born)).first(self.num_parents)
        return found

    def _best(self, population: _Population) -> _Population:
        """Sorts by value, with at most `max_per_lineage` of each lineage."""
        order = np.argsort(-population.values, kind="stable")
        places = rank_within(population.lineages[order])
        return population.at(order[places < self.max_per_lineage])

    def _values(
        self, context: Context, latents: np.ndarray, incumbent: float | None
    ) -> np.ndarray:
        return np.asarray(
            constrained_values(
                improvement_over(incumbent),
                fitted(context),
                context.log_feasibility,
                latents,
            )
        )

    def _children(
        self,
        context: Context,
        bases: np.ndarray,
        donors: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Returns a child of each of `bases`, float32 `[k, M]`."""
        shape = (-1, self.num_positions, bases.shape[1] // self.num_positions)
        spread = np.reshape(context.latents, shape).std((0, 1))
        is_copied = rng.random(len(bases)) < self.copied_share
        moved = add_noise(
            bases.reshape(shape), self.max_window, self.max_step * spread, rng
        )
        copied = copy_windows(
            bases.reshape(shape), donors.reshape(shape), self.max_window, rng
        )
        children = np.where(is_copied[:, None, None], copied, moved)
        return children.reshape(bases.shape).astype(np.float32)


def _keys(latents: np.ndarray) -> list[bytes]:
    """Returns what identifies latents up to rounding errors."""
    rounded = np.round(np.asarray(latents, np.float64) / _RESOLUTION)
    return [row.tobytes() for row in rounded.astype(np.int64)]


def rank_within(groups: np.ndarray) -> np.ndarray:
    """Returns how many elements of the same group come before each, `[n]`."""
    counts: dict[int, int] = {}
    ranks = np.zeros(len(groups), np.int64)
    for i, group in enumerate(groups.tolist()):
        ranks[i] = counts.get(group, 0)
        counts[group] = ranks[i] + 1
    return ranks


def _windows(
    num_rows: int,
    num_positions: int,
    max_window: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a window of each row.

    Returns:
      The first position `[k]` and the number of positions `[k]`.
    """
    longest = min(max_window, num_positions)
    lengths = rng.integers(1, longest + 1, num_rows)
    return _below(num_positions - lengths + 1, rng), lengths


def _below(bounds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws an integer from 0 to below each of the bounds."""
    return rng.integers(0, bounds, len(bounds))


def add_noise(
    latents: np.ndarray,
    max_window: int,
    max_step: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Adds normal noise to a window of each row.

    Args:
      latents: `[k, T, c]`.
      max_window: Largest number of positions of a window.
      max_step: Largest standard deviation of the noise of each channel, `[c]`;
        its logarithm is uniform over a factor of ten.
      rng: Draws windows and noise.
    """
    starts, lengths = _windows(len(latents), latents.shape[1], max_window, rng)
    places = np.arange(latents.shape[1]) - starts[:, None]
    inside = (places >= 0) & (places < lengths[:, None])
    scale = 10.0 ** rng.uniform(-1.0, 0.0, (len(latents), 1, 1))
    noise = scale * max_step * rng.standard_normal(latents.shape)
    return latents + inside[..., None] * noise


def copy_windows(
    latents: np.ndarray,
    donors: np.ndarray,
    max_window: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Replaces a window of each row by one of a donor, from any position.

    Args:
      latents: `[k, T, c]`.
      donors: `[d, T, c]`.
      max_window: Largest number of positions of a window.
      rng: Draws windows and donors.
    """
    num_rows, num_positions, _ = latents.shape
    starts, lengths = _windows(num_rows, num_positions, max_window, rng)
    sources = _below(num_positions - lengths + 1, rng)
    chosen = rng.integers(len(donors), size=(num_rows, 1))
    places = np.arange(num_positions) - starts[:, None]
    inside = (places >= 0) & (places < lengths[:, None])
    taken = np.clip(places + sources[:, None], 0, num_positions - 1)
    return np.where(inside[..., None], donors[chosen, taken], latents)
