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
        the reason: "known", "near" or "invalid".
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
        plan = self._plan
        distances = self._distances(latents, known, before)
        is_near = self._is_near(found, distances, before)
        kinds = self._ranks(found, before)
        is_known = [plan.skips_known and kind == 1 for kind in kinds]
        self.rejected["known"] += sum(is_known)
        self.rejected["near"] += sum(is_near) - sum(
            near and known
            for near, known in zip(is_near, is_known, strict=True)
        )
        self.rejected["invalid"] += kinds.count(2)
        ranks = [
            np.inf if near or known else kind
            for kind, near, known in zip(kinds, is_near, is_known, strict=True)
        ]
        order = [*range(len(found))]
        if plan.num_proposals > 1 or plan.skips_known:
            order.sort(key=ranks.__getitem__)
        kept: list[Choice] = []
        for i in order:
            one = Choice(latents[i], found[i], distances[i])
            if np.isfinite(ranks[i]) and self._is_apart(one, kept):
                kept.append(one)
                if len(kept) == count:
                    break
        return kept

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

    def _distances(
        self, latents: np.ndarray, known: np.ndarray, before: Sequence[Choice]
    ) -> list[float | None]:
        """Returns distances to the nearest known, None if nothing is."""
        others = [known, *(one.latent[None] for one in before)]
        found = nearest(latents, np.concatenate(others), self._spread())
        return [float(one) if np.isfinite(one) else None for one in found]

    def _spread(self) -> np.ndarray:
        """Returns the standard deviations of the data's latents, `[M]`."""
        latents = self._points.latents.astype(np.float64)
        if len(latents) < 2:
            return np.ones(latents.shape[1])
        spread = latents.std(0)
        return np.maximum(spread, max(_LEAST_SPREAD * spread.max(), 1e-12))

    def _is_near(
        self,
        found: Sequence[Reading],
        distances: Sequence[float | None],
        before: Sequence[Choice],
    ) -> list[bool]:
        """Returns which are near in latents, or as data points."""
        least = self._plan.min_distance
        near = [one is not None and one < least for one in distances]
        kept = [
            i
            for i, one in enumerate(found)
            if one.content is not None and not near[i]
        ]
        if not least or not kept:
            return near
        points = self._points.written([found[i].content for i in kept])
        chosen = [one.reading.content for one in before]
        others = [self._points.points()]
        if chosen := [one for one in chosen if one is not None]:
            others.append(self._points.written(chosen))
        all_others = np.concatenate(others)
        found_distances = nearest(points, all_others, self._spread_of_points())
        for i, distance in zip(kept, found_distances, strict=True):
            near[i] = bool(distance < least)
        return near

    def _spread_of_points(self) -> np.ndarray:
        """Returns the spread of the data points, `[D]`."""
        points = self._collection.points
        # Rows are added, never changed.
        if self._point_spread[0] != len(points):
            self._point_spread = (len(points), _root_mean_square_spread(points))
        return self._point_spread[1]

    def _is_apart(self, one: Choice, kept: Sequence[Choice]) -> bool:
        """Whether latents are far enough from those chosen with them."""
        if not kept or not self._plan.min_distance:
            return True
        others = np.array([other.latent for other in kept])
        (distance,) = nearest(one.latent[None], others, self._spread())
        return bool(distance >= self._plan.min_distance)


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
    a = np.nan_to_num((points - centre) / spread)
    b = np.nan_to_num((others - centre) / spread)
    squares = np.sum(a**2, -1)[:, None] + np.sum(b**2, -1) - 2.0 * a @ b.T
    return np.sqrt(np.maximum(squares.min(1), 0.0) / points.shape[1])
