# SPDX-License-Identifier: Apache-2.0
"""Proposal of queries: fits the surrogate, asks the strategy, decodes.

Implements lines 5 and 6 of the algorithm in `tfvae.lso.loop`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfvae.lso.collection import Collection
from tfvae.lso.ledger import Entry, Ledger
from tfvae.lso.pending import Pending, Query
from tfvae.lso.plan import Plan, Use
from tfvae.lso.reading import Reading, read
from tfvae.lso.round_table import RoundTable
from tfvae.lso.scoring import Scorer
from tfvae.lso.strategies import Context, Strategy, select_points
from tfvae.lso.tasks.base import Task

if TYPE_CHECKING:
    from tfvae.lso.latent_space import LatentSpace
    from tfvae.lso.surrogates import Surrogate


class Proposer:
    """A strategy, its surrogate, and their data in the current round."""

    def __init__(
        self,
        task: Task,
        space: LatentSpace,
        plan: Plan,
        strategy: Strategy,
        surrogate: Surrogate | None,
        collection: Collection,
        ledger: Ledger,
        rounds: RoundTable,
    ) -> None:
        """Stores the parts of a run; call `enter` before `propose`."""
        self._task = task
        self._space = space
        self._plan = plan
        self._strategy = strategy
        self._surrogate = surrogate
        self._collection = collection
        self._ledger = ledger
        self._rounds = rounds
        self._scorer = Scorer(task, space, collection)
        self._is_warm = False
        self._latents = np.zeros((0, space.num_latents), np.float32)
        self._scores = np.zeros(0)

    def enter(self, now: int) -> None:
        """Encodes the data that the surrogate is fitted to in a round.

        Args:
          now: The round; its model must have been trained.
        """
        self._is_warm = False
        if not self._strategy.uses_data:
            return
        collection = self._collection
        with self._rounds.timed("encode"):
            kept = np.flatnonzero(collection.is_kept)
            chosen = select_points(
                collection.scores[kept],
                self._plan.num_best,
                self._plan.num_random,
                self._plan.seed_of(Use.POINTS, now),
            )
            rows = kept[chosen]
            self._latents = self._space.encode(collection.points[rows], rows)
            # Clip at the score of invalid inputs, so that outliers do not
            # dominate the fit of the surrogate.
            self._scores = np.maximum(
                collection.scores[rows], collection.invalid_score
            )

    def resume(self, state: dict[str, np.ndarray]) -> None:
        """Restores the surrogate of the last proposal in this round."""
        if self._strategy.uses_surrogate and self._surrogate is not None:
            self._surrogate.restore(state)
            self._is_warm = True

    def propose(self, now: int, numbers: Sequence[int]) -> Pending:
        """Proposes the next queries of a round.

        Args:
          now: The round.
          numbers: Numbers of its queries that have not been proposed yet.

        Returns:
          Queries with the first of `numbers`, as many as the strategy proposes
          at a time, and the state of the surrogate that they are based on.
        """
        first, plan = numbers[0], self._plan
        count = min(self._strategy.num_at_a_time(len(numbers)), len(numbers))
        context = self._fitted(now, first)
        with self._rounds.timed("acquisition"):
            latents = self._strategy.propose(
                context,
                count * plan.num_proposals,
                plan.seed_of(Use.PROPOSING, first),
            )
        seed = plan.seed_of(Use.READING, first)
        with self._rounds.timed("decode"):
            found = read(self._task, self._space.decode(latents), seed)
        places = self._new_ones_first(found)[:count]
        queries = [
            Query(
                number,
                now,
                latents[place],
                found[place].content,
                seed,
                found[place].failure,
            )
            # A strategy may return fewer latents than requested.
            for number, place in zip(numbers, places, strict=False)
        ]
        surrogate = self._surrogate
        return Pending(queries, {} if surrogate is None else surrogate.state())

    def _fitted(self, now: int, first: int) -> Context:
        """Fits the surrogate; returns the context of the strategy."""
        latents, scores = self._known(now)
        if self._strategy.uses_surrogate and self._surrogate is not None:
            seed = self._plan.seed_of(Use.FITTING, first)
            with self._rounds.timed("fit"):
                self._surrogate.fit(latents, scores, seed, self._is_warm)
            self._is_warm = True
        return Context(
            self._space,
            latents,
            scores,
            self._surrogate,
            self._scorer.of_latents,
        )

    def _known(self, now: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns latents and scores of this round's points and queries."""
        entries = entries_of(self._ledger, now)
        if not entries:
            return self._latents, self._scores
        latents = np.array([one.latent for one in entries], np.float32)
        scores = [self._collection.score_of(one) for one in entries]
        counted = np.maximum(scores, self._collection.invalid_score)
        return (
            np.concatenate([self._latents, latents]),
            np.concatenate([self._scores, counted]),
        )

    def _new_ones_first(self, found: Sequence[Reading]) -> list[int]:
        """Returns the indices of readings, those without known score first.

        Readings with a known score follow, then invalid ones.
        """
        if self._plan.num_proposals == 1:
            return list(range(len(found)))
        key = self._collection.key
        known = self._collection.keys.union(
            key(entry.input) for entry in self._ledger.entries
        )
        rank = []
        for one in found:
            text = key(one.content)
            rank.append(2 if one.content is None else int(text in known))
            known.add(text)
        return sorted(range(len(found)), key=rank.__getitem__)


def entries_of(ledger: Ledger, now: int) -> list[Entry]:
    """Returns the entries of a ledger that belong to a round."""
    return [one for one in ledger.entries if one.round == now]
