# SPDX-License-Identifier: Apache-2.0
"""Proposal of queries: fits the surrogate, asks the strategy, decodes.

Implements lines 5 and 6 of the algorithm in `tfvae.lso.loop`.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfvae.lso import surrogate_state
from tfvae.lso.candidates import best_points, binary_candidates, box_candidates
from tfvae.lso.choosing import Choice, Chooser
from tfvae.lso.collection import Collection
from tfvae.lso.feasibility import Feasibility, fresh
from tfvae.lso.input_surrogate import DecodedFeatures, InputSurrogate
from tfvae.lso.known_points import Known, KnownPoints
from tfvae.lso.plan import Plan, Use
from tfvae.lso.reading import Reading, as_points, read, refusals
from tfvae.lso.records import Query, Records, Withdrawal
from tfvae.lso.round_table import RoundTable
from tfvae.lso.scoring import Scorer
from tfvae.lso.search import Box, distinct_rows
from tfvae.lso.strategies import Context, Strategy, select_points
from tfvae.lso.surrogate_state import STATE, Change, State
from tfvae.lso.tasks.base import Decodes, Task
from tfvae.lso.warping import Warping

if TYPE_CHECKING:
    from tfvae.lso.latent_space import LatentSpace
    from tfvae.lso.surrogates import Surrogate

# How often a strategy is asked, and then candidates are drawn, for something
# that is new; and how many of these.
_ATTEMPTS, _EXPLORATIONS, _NUM_CANDIDATES = 3, 2, 1000


class Proposer:
    """A strategy, its surrogate, and what they know in the current round."""

    def __init__(
        self,
        folder: pathlib.Path,
        task: Task,
        space: LatentSpace,
        plan: Plan,
        strategy: Strategy,
        surrogate: Surrogate | None,
        warping: Warping | None,
        collection: Collection,
        records: Records,
        rounds: RoundTable,
    ) -> None:
        """Stores the parts of a run; call `enter` before `propose`."""
        self._path = folder / STATE
        self._task = task
        self._space = space
        self._plan = plan
        self._strategy = strategy
        self._surrogate = surrogate if strategy.uses_surrogate else None
        self._features: DecodedFeatures | None = None
        if (
            isinstance(self._surrogate, InputSurrogate)
            and self._surrogate.features is None
        ):
            # No candidates, so that the task does not count what it refuses.
            reader = dataclasses.replace(task, refuse=None, decodes=Decodes())
            self._features = DecodedFeatures(
                task, functools.partial(self._inputs_of, reader)
            )
            self._surrogate = dataclasses.replace(
                self._surrogate, features=self._features
            )
        self._warping = warping
        self._collection = collection
        self._records = records
        self._rounds = rounds
        self._scorer = Scorer(task, space, collection)
        self._is_noisy = task.is_noisy or plan.repeats > 1
        self._points = KnownPoints(
            task, space, collection, records, self._is_noisy
        )
        self._chooser = Chooser(plan, collection, self._points)
        self._feasibility: Feasibility | None = None
        feasible = collection.scores[collection.is_feasible]
        self._start = float(feasible.max(initial=-np.inf))
        self._state = self._no_state()
        self._noted: dict[int, float] = {}
        # How many records these scores are of.
        self._num_noted = 0

    def _no_state(self) -> State:
        empty = np.zeros((0, self._space.num_latents), np.float32)
        return State({}, empty, [])

    # The data of a round.

    def rows_of(self, now: int) -> np.ndarray:
        """Chooses the data that a round knows, such as to fit a surrogate to.

        Args:
          now: The round, which is about to begin.

        Returns:
          Their rows, int64.
        """
        # Without data, a strategy may still have to keep a distance to them.
        if not self._strategy.uses_data and not self._plan.min_distance:
            return np.zeros(0, np.int64)
        collection, plan = self._collection, self._plan
        kept = np.flatnonzero(collection.is_kept)
        # All that are best are feasible, where a search has to begin.
        scores = np.where(collection.is_refused, -np.inf, collection.scores)
        chosen = select_points(
            scores[kept],
            plan.num_best,
            plan.num_random,
            plan.seed_of(Use.POINTS, now),
        )
        return kept[chosen]

    def enter(self, now: int, rows: np.ndarray) -> None:
        """Encodes the data that a round knows.

        Args:
          now: The round; its model must have been trained.
          rows: What `rows_of` returned at its beginning.
        """
        if self._features is not None:
            self._features.forget()
        with self._rounds.timed("encode"):
            self._points.enter(now, rows)
        self._state = self._no_state()
        change = surrogate_state.load(self._path)
        if change is not None and change.round == now:
            is_recorded = change.first < self._records.next_number
            self._state = change.after if is_recorded else change.before

    # Proposals.

    def propose(self, numbers: Sequence[int]) -> list[Query]:
        """Proposes the next queries of the round that was entered.

        Args:
          numbers: Their numbers.

        Returns:
          Queries with the first of `numbers`, as many as the strategy proposes
          at a time, or fewer; none if nothing new is to be had, which leaves no
          trace. The surrogate's state after it is on disk.
        """
        plan, first, before = self._plan, numbers[0], self._state
        self._chooser.rejected.clear()
        count = min(self._strategy.num_at_a_time(len(numbers)), len(numbers))
        is_choosy = (
            plan.skips_known
            or plan.min_distance > 0.0
            or self._task.refuse is not None
        )
        state, chosen = before, list[Choice]()
        for attempt in range(_ATTEMPTS if is_choosy else 1):
            context, state = self._fitted(first, attempt, state, chosen)
            wanted = count - len(chosen)
            with self._rounds.timed("acquisition"):
                latents = self._strategy.propose(
                    context,
                    wanted * plan.num_proposals,
                    plan.seed_of(Use.PROPOSING, first, attempt),
                )
            found = self._read(latents, first)
            chosen += self._chosen(context, latents, found, wanted, chosen)
            state = self._with_free(state, latents, found)
            if len(chosen) == count:
                break
        else:
            if is_choosy:
                chosen += self._explored(context, first, count, chosen)
        if not chosen:
            return []
        self._state = state
        surrogate_state.save(
            self._path, Change(self._points.round, first, before, state)
        )
        return [
            Query(
                number,
                self._points.round,
                [float(value) for value in one.latent],
                one.reading.content,
                plan.seed_of(Use.READING, first),
                one.reading.failure,
                self._records.num_results,
                one.distance,
            )
            # A strategy may return fewer latents than requested.
            for number, one in zip(numbers, chosen, strict=False)
        ]

    def why_nothing(self) -> str:
        """Returns why the last proposal found nothing new, in one line."""
        found, least = self._chooser.rejected, self._plan.min_distance
        why = (
            f"nothing new is to be had: of {found.total():,} latents that were "
            f"tried, {found['known']:,} decode to known inputs and "
            f"{found['invalid']:,} to none"
        )
        if found["refused"]:
            why += (
                f", and {found['refused']:,} to inputs that the task refuses "
                f"({refusals(self._task.decodes.refused)})"
            )
        if found["near"]:
            why += (
                f", and {found['near']:,} are nearer than `min_distance` = "
                f"{least:g} to others; a smaller one, or a model that is "
                "trained for longer, may find more"
            )
        return why

    def _read(self, latents: np.ndarray, first: int) -> list[Reading]:
        if not len(latents):
            return []
        seed = self._plan.seed_of(Use.READING, first)
        with self._rounds.timed("decode"):
            return read(self._task, self._space.decode(latents), seed)

    def _chosen(
        self,
        context: Context,
        latents: np.ndarray,
        found: Sequence[Reading],
        count: int,
        before: Sequence[Choice],
    ) -> list[Choice]:
        if not len(latents):
            return []
        known = context.latents
        if not self._strategy.uses_data:  # The context has none then.
            results = self._points.known(self._state).latents
            pending = self._points.pending_latents()
            known = np.concatenate([results, pending])
        return self._chooser.choose(latents, found, count, known, before)

    def _with_free(
        self, state: State, latents: np.ndarray, found: Sequence[Reading]
    ) -> State:
        """Adds latents whose inputs have a known result to a state."""
        if not self._plan.skips_known or not self._strategy.uses_data:
            return state
        keys = [self._collection.key(one.content) for one in found]
        free = [
            i
            for i, key in enumerate(keys)
            if self._collection.known_result(key) is not None
        ]
        return state._replace(
            latents=np.concatenate([state.latents, latents[free]]),
            inputs=[*state.inputs, *(keys[i] for i in free)],
        )

    def _explored(
        self,
        context: Context,
        first: int,
        count: int,
        chosen: Sequence[Choice],
    ) -> list[Choice]:
        """Chooses among many candidates where the strategy found too few.

        They are ranked by the upper confidence bound, mean and one standard
        deviation, where there is a surrogate.
        """
        found: list[Choice] = []
        for attempt in range(_ATTEMPTS, _ATTEMPTS + _EXPLORATIONS):
            wanted = count - len(chosen) - len(found)
            if not wanted:
                break
            seed = self._plan.seed_of(Use.PROPOSING, first, attempt)
            latents = self._candidates(context, seed)
            readings = self._read(latents, first)
            valid = [i for i, r in enumerate(readings) if r.content is not None]
            found += self._chosen(
                context,
                latents[valid],
                [readings[i] for i in valid],
                wanted,
                [*chosen, *found],
            )
        return found

    def _candidates(self, context: Context, seed: int) -> np.ndarray:
        """Draws candidates, the most promising first, float32 `[n, M]`."""
        if not self._strategy.uses_data:
            draws = context.space.sample_prior(seed, _NUM_CANDIDATES)
            return np.asarray(draws, np.float32)
        best = best_points(context, 0.2)
        if context.space.is_binary:
            latents = binary_candidates(
                context, best, _NUM_CANDIDATES, seed, 0.5
            )
        else:
            box = Box.of(context.latents)
            latents = box_candidates(
                context, box, best, _NUM_CANDIDATES, seed, 0.5
            )
        if context.surrogate is None:
            return latents
        mean, std = context.surrogate.predict(latents)
        bound = np.asarray(mean) + np.asarray(std)
        if context.log_feasibility is not None:
            log_probs = np.asarray(context.log_feasibility(latents))
            # Those that are more likely feasible than not come first.
            order = np.lexsort([-bound, log_probs < np.log(0.5)])
            return latents[order]
        return latents[np.argsort(-bound, kind="stable")]

    def _reread(
        self, latents: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decodes latents, and encodes the inputs; see `Context.reread`."""
        means = self._space.decode(latents)
        found = read(self._task, means, seed)
        rows = [i for i, one in enumerate(found) if one.input is not None]
        if not rows:
            return latents[:0], np.zeros(0, np.int64)
        inputs = [found[i].input for i in rows]
        points = as_points(self._task, inputs, means.shape[1])
        first = distinct_rows(points)
        return self._space.encode(points[first]), np.array(rows)[first]

    def _inputs_of(self, task: Task, latents: np.ndarray) -> list[Any]:
        """Returns what latents decode to, None where that is no input."""
        seed = self._plan.seed_of(Use.FEATURES, 0)
        found = read(task, self._space.decode(latents), seed)
        return [one.input for one in found]

    # The surrogate.

    def _fitted(
        self, first: int, attempt: int, state: State, chosen: Sequence[Choice]
    ) -> tuple[Context, State]:
        """Fits the surrogate; returns the strategy's context, and its state.

        Pending queries, and those chosen before, count as observed with the
        surrogate's mean as their score (the kriging believer of Ginsbourger et
        al., 2010, "Kriging is well-suited to parallelize optimization"), in the
        context but not in the state.
        """
        context = Context(
            self._space,
            np.zeros((0, self._space.num_latents), np.float32),
            np.zeros(0),
            score_latents=self._scorer.of_latents,
            is_noisy=self._is_noisy and self._surrogate is not None,
            history=self.history(),
            start=self._start,
            pending=self._waiting(chosen),
            reread=self._reread,
        )
        if not self._strategy.uses_data:
            return context, state
        known = self._points.known(state)
        latents, scores = self._training(known)
        feasible = known.is_feasible[known.has_score]
        query_of = self._places(known.queries[known.has_score])
        surrogate, log_feasibility = self._surrogate, None
        if surrogate is not None:
            seed = self._plan.seed_of(Use.FITTING, first)
            with self._rounds.timed("fit"):
                if state.surrogate:  # It may be fitted to what was believed.
                    surrogate.restore(state.surrogate)
                surrogate.fit(latents, scores, seed, bool(state.surrogate))
                state = state._replace(surrogate=surrogate.state())
                waiting = context.pending
                if len(waiting):
                    believed = np.asarray(surrogate.predict(waiting)[0])
                    latents = np.concatenate([latents, waiting])
                    scores = np.concatenate([scores, believed])
                    later = np.full(len(waiting), len(context.history))
                    query_of = np.concatenate([query_of, later])
                    # So that none of them is the score to improve on.
                    feasible = np.append(feasible, np.zeros(len(waiting), bool))
                    surrogate.fit(latents, scores, seed, True)
                seed = self._plan.seed_of(Use.CONSTRAINTS, first, attempt)
                log_feasibility = self._fitted_feasibility(known, seed)
        return (
            context._replace(
                latents=latents,
                scores=scores,
                surrogate=surrogate,
                is_feasible=None if feasible.all() else feasible,
                log_feasibility=log_feasibility,
                query_of=query_of,
            ),
            state,
        )

    def _places(self, queries: np.ndarray) -> np.ndarray:
        """Returns the places in the history of queries, -1 for none."""
        entries = self._records.entries
        order = np.fromiter(entries, np.int64, len(entries))
        # The last is that of the number -1.
        places = np.full(self._records.next_number + 1, -1)
        places[order] = np.arange(len(order))
        return places[queries]

    def _training(self, known: Known) -> tuple[np.ndarray, np.ndarray]:
        """Returns latents and warped scores for the fit of the surrogate."""
        scores = known.scores[known.has_score]
        if self._warping is not None:
            scores = self._warping(scores)
        return known.latents[known.has_score], scores

    def _waiting(self, chosen: Sequence[Choice]) -> np.ndarray:
        """Returns the latents of pending queries and of those chosen before."""
        latents = [one.latent[None] for one in chosen]
        return np.concatenate([self._points.pending_latents(), *latents])

    def _fitted_feasibility(
        self, known: Known, seed: int
    ) -> Feasibility | None:
        """Fits the surrogates of constraints; None if no value is known."""
        names = sorted(
            name
            for name, values in known.constraints.items()
            if not np.isnan(values).all()
        )
        if not names or self._surrogate is None:
            return None
        # The same object while it can be, as strategies trace it.
        if self._feasibility is None or self._feasibility.names != names:
            self._feasibility = Feasibility(self._surrogate, names)
        self._feasibility.fit(known.latents, known.constraints, seed)
        return self._feasibility

    def history(self, is_whole: bool = False) -> np.ndarray:
        """Returns the scores of all queries, in the order of their results.

        Args:
          is_whole: Whether to leave out queries that lack some of their
            results, whose mean may be that of a lucky one.

        Returns:
          float64, larger is better, -inf for failures and infeasible ones.
        """
        sequence = self._records.sequence
        for record, entry in sequence[self._num_noted :]:
            if isinstance(record, Withdrawal):
                del self._noted[record.query]
            elif entry is not None:
                score = -np.inf
                if entry.score is not None and entry.is_feasible:
                    score = self._task.sign * entry.score
                self._noted[entry.query] = score
        self._num_noted = len(sequence)
        scores = [
            score
            for number, score in self._noted.items()
            if not is_whole or number not in self._records.waiting
        ]
        return np.array(scores, np.float64)

    def predicted(self) -> dict[int, tuple[float, float]]:
        """Returns the surrogate's mean and deviation of all scored queries.

        Returns:
          By the number of the query, mean and standard deviation in the
          direction of the task; empty without a surrogate, and if scores are
          warped.
        """
        entries = [
            one
            for one in self._records.entries.values()
            if one.score is not None and one.input is not None
        ]
        if self._surrogate is None or not entries or self._warping is not None:
            return {}
        # Another one, so that this makes no difference to later queries.
        surrogate = fresh(self._surrogate)
        seed = self._plan.seed_of(Use.FITTING, self._records.next_number)
        known = self._points.known(self._state)
        surrogate.fit(*self._training(known), seed, False)
        latents = self._points.approximate_latents_of(entries)
        mean, std = (np.asarray(one) for one in surrogate.predict(latents))
        return {
            one.query: (self._task.sign * float(mean[i]), float(std[i]))
            for i, one in enumerate(entries)
        }
