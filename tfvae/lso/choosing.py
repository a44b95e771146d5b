# SPDX-License-Identifier: Apache-2.0
"""Choice of queries among decoded latents: neither known nor near to others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfvae.lso.collection import Collection
from tfvae.lso.known_points import KnownPoints
from tfvae.lso.plan import Plan
from tfvae.lso.reading import Reading

# Latents that vary less than this, relative to others, make no difference.
_LEAST_SPREAD = 1e-2


class Choice(NamedTuple):
    """Latents that become a query."""

    latent: np.ndarray
    """float32 `[M]`."""
    reading: Reading
    """What they decode to."""
    distance: float | None
    """See `Query`."""


class Chooser:
    """Chooses queries by the rules of a plan.

    Attributes:
      rejected: How many latents have not been chosen since it was cleared, by
        the reason: "known", "near", "invalid" or "refused" (by the task, which
        are never chosen); each counts once.
    """

    def __init__(
        self, plan: Plan, collection: Collection, points: KnownPoints
    ) -> None:
        """Stores the parts of a run."""
        self._plan = plan
        self._collection = collection
        self._points = points
        # Rows of the data, and the spread of their points.
        self._point_spread = (0, np.zeros(0))
        self.rejected: Counter[str] = Counter()

    def choose(
        self,
        latents: np.ndarray,
        found: Sequence[Reading],
        count: int,
        known: np.ndarray,
        before: Sequence[Choice],
    ) -> list[Choice]:
        """Returns up to `count` choices.

        Those without a known score come first, then, where the plan does not
        skip them, those with one, and then invalid ones.

        Args:
          latents: float32 `[n, M]`.
          found: What they decode to.
          count: The number of choices.
          known: float32 `[k, M]`, latents that are known or pending.
          before: Choices that were made before, for the same proposal.
        """
        plan, spread = self._plan, self._spread()
        others = [known, *(one.latent[None] for one in before)]
        distances = nearest(latents, np.concatenate(others), spread)
        is_open = ~(distances < plan.min_distance)
        ranks = np.array(self._ranks(found, before))
        is_known = (ranks == 1) & plan.skips_known
        is_refused = np.array([one.is_refused for one in found], bool)
        is_open &= ~is_known & ~is_refused
        points = None
        if plan.min_distance:
            points = self._points_of(found, is_open)
            is_open &= self._are_apart(points, before)
        is_invalid = (ranks == 2) & ~is_refused
        counted = is_known | is_invalid | is_refused
        self.rejected["refused"] += int(is_refused.sum())
        self.rejected["known"] += int(is_known.sum())
        self.rejected["invalid"] += int(is_invalid.sum())
        self.rejected["near"] += int(np.sum(~is_open & ~counted))
        order = np.arange(len(found))
        if plan.num_proposals > 1 or plan.skips_known:
            order = np.argsort(ranks, kind="stable")
        kept: list[int] = []
        for i in order[is_open[order]]:
            if points is None or self._is_apart(
                i, kept, (latents, spread), (points, self._spread_of_points())
            ):
                kept.append(i)
                if len(kept) == count:
                    break
        return [
            Choice(
                latents[i],
                found[i],
                float(distances[i]) if np.isfinite(distances[i]) else None,
            )
            for i in kept
        ]

    def _ranks(
        self, found: Sequence[Reading], before: Sequence[Choice]
    ) -> list[int]:
        """Returns 0 for new inputs, 1 for known ones, 2 for invalid decodes."""
        key = self._collection.key
        taken = {key(one.reading.content) for one in before}
        taken |= {key(one.input) for one in self._points.pending()}
        ranks = []
        for one in found:
            text = key(one.content)
            is_known = text in taken or self._collection.is_known(text)
            ranks.append(2 if one.content is None else int(is_known))
            taken.add(text)
        return ranks

    def _spread(self) -> np.ndarray:
        """Returns the standard deviations of the data's latents, `[M]`."""
        latents = self._points.latents.astype(np.float64)
        if len(latents) < 2:
            return np.ones(latents.shape[1])
        spread = latents.std(0)
        return np.maximum(spread, max(_LEAST_SPREAD * spread.max(), 1e-12))

    def _points_of(
        self, found: Sequence[Reading], is_open: np.ndarray
    ) -> np.ndarray:
        """Returns those that are open as data points, else NaN, `[n, D]`."""
        rows = is_open & [one.content is not None for one in found]
        num_observed = self._collection.points.shape[1]
        points = np.full((len(found), num_observed), np.nan)
        contents = [one.content for i, one in enumerate(found) if rows[i]]
        if contents:
            points[rows] = self._points.written(contents)
        return points

    def _are_apart(
        self, points: np.ndarray, before: Sequence[Choice]
    ) -> np.ndarray:
        """Whether points are far from what is known or chosen, `[n]` bool."""
        apart = np.ones(len(points), bool)
        rows = np.flatnonzero(~np.isnan(points).all(-1))
        if not len(rows):
            return apart
        chosen = [one.reading.content for one in before]
        others = [self._points.points()]
        if chosen := [one for one in chosen if one is not None]:
            others.append(self._points.written(chosen))
        distances = nearest(
            points[rows], np.concatenate(others), self._spread_of_points()
        )
        apart[rows] = ~(distances < self._plan.min_distance)
        return apart

    def _spread_of_points(self) -> np.ndarray:
        """Returns the spread of the data points, `[D]`."""
        points = self._collection.points
        # Rows are added, never changed.
        if self._point_spread[0] != len(points):
            self._point_spread = (len(points), _root_mean_square_spread(points))
        return self._point_spread[1]

    def _is_apart(
        self,
        i: int,
        kept: Sequence[int],
        *spaces: tuple[np.ndarray, np.ndarray],
    ) -> bool:
        """Whether one is far enough from those chosen with it.

        Args:
          i: Its index.
          kept: Indices of the others.
          *spaces: Points `[n, D]` of all, and the unit of each coordinate.
        """
        for points, spread in spaces:
            # Invalid decodes are no data points.
            others = [k for k in kept if not np.isnan(points[k]).all()]
            if np.isnan(points[i]).all() or not others:
                continue
            (distance,) = nearest(points[[i]], points[others], spread)
            if distance < self._plan.min_distance:
                return False
        return True


def _root_mean_square_spread(points: np.ndarray) -> np.ndarray:
    """Returns `[D]`, the root mean square of the standard deviations."""
    known = points[:, ~np.isnan(points).all(0)].astype(np.float64)
    size = float(np.sqrt(np.mean(np.nanvar(known, axis=0))))
    return np.full(points.shape[1], max(size, 1e-12))


def nearest(
    points: np.ndarray, others: np.ndarray, spread: np.ndarray
) -> np.ndarray:
    """Returns the distance of each point to the nearest other.

    Args:
      points: `[q, D]`; NaN where missing, which makes no distance.
      others: `[n, D]`.
      spread: `[D]`, the unit of each coordinate.

    Returns:
      float64 `[q]`, root mean squares over coordinates; infinite if there are
      no others.
    """
    if not len(others):
        return np.full(len(points), np.inf)
    # Centred, so that the difference of squares does not cancel.
    points = np.asarray(points, np.float64)
    centre = np.nan_to_num(points).mean(0)
    a, b = (points - centre) / spread, (others - centre) / spread
    has_a, has_b = ~np.isnan(a), ~np.isnan(b)
    if has_a.all() and has_b.all():
        squares = np.sum(a**2, -1)[:, None] + np.sum(b**2, -1)
    else:
        a, b = np.nan_to_num(a), np.nan_to_num(b)
        squares = a**2 @ has_b.T + has_a @ (b**2).T
    squares = (squares - 2.0 * a @ b.T).min(1)
    return np.sqrt(np.maximum(squares, 0.0) / points.shape[1])
