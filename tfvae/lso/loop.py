# SPDX-License-Identifier: Apache-2.0
"""Latent space optimisation with weighted retraining: the loop.

Algorithm 1 of Tripp, Daxberger and Hernandez-Lobato, 2020, "Sample-efficient
optimization in the latent space of deep generative models via weighted
retraining". Everything random depends on the seed and on what is asked for, and
everything that is known is on the disk before the next evaluation: a run that
is killed goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfvae import checkpoints
from tfvae.lso import evaluation, pending, snapshots
from tfvae.lso.collection import Collection
from tfvae.lso.evaluation import one_line
from tfvae.lso.header import header
from tfvae.lso.latent_space import latent_space
from tfvae.lso.ledger import LEDGER, Entry, Ledger
from tfvae.lso.pending import Query
from tfvae.lso.plan import Plan
from tfvae.lso.reading import NO_INPUT, Reading, from_json, read
from tfvae.lso.retraining import Retrainer, Retraining
from tfvae.lso.round_table import STAGES, RoundTable
from tfvae.lso.strategies import Context, Strategy, select_points
from tfvae.lso.surrogates import Surrogate
from tfvae.lso.tasks.base import Task
from tfvae.lso.weighting import Unweighted, Weighting
from tfvae.tvae import STATE_NAMES

# What seeds are for.
_RETRAINING, _POINTS, _FITTING, _PROPOSING, _READING, _SAMPLING = range(6)


def _check_model(model: Any, points: np.ndarray, budget: int) -> None:
    """Raises a ValueError if a model is not one of data that may grow."""
    if points.shape[1] != model.num_observed:
        raise ValueError(
            f"`model` must observe the {points.shape[1]} dimensions of the "
            f"task, got {model.num_observed}"
        )
    most = len(points) + budget
    if model.capacity is not None and model.capacity < most:
        raise ValueError(
            f"`model` must have room for {most} data points, all there may "
            f"ever be, got {model.capacity}; use model.with_capacity({most})"
        )


class LatentSpaceOptimizer:
    """Optimises the objective of a task in the latent space of a model.

    With the objective at hand, `run` does it all:

        optimizer = LatentSpaceOptimizer(
            "runs/one", task, model, Plan(budget=500, queries_per_round=50),
            strategy=ExpectedImprovement(),
            surrogate=SparseGaussianProcess(),
            weighting=Rank(1e-3),
        )
        optimizer.run()

    Where evaluations take place elsewhere, ask for queries and tell their
    scores, in any order, today or next week:

        for query in optimizer.ask():
            print(query.number, task.from_json(query.input))
        optimizer.tell(0, 3.7)
        optimizer.tell(1, failure="the synthesis failed")

    A folder that has a run already goes on with it; it has to be made with the
    same arguments, but `budget` may have grown.

    Attributes:
      task: What is optimised.
      plan: How.
      ledger: All evaluations.
      collection: The data, with what has been found until this round.
      rounds: What each round took.
      seconds: What this process has spent its time on, by `STAGES`.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str],
        task: Task,
        model: Any,
        plan: Plan,
        *,
        strategy: Strategy,
        surrogate: Surrogate | None = None,
        weighting: Weighting | None = None,
        retraining: Retraining | None = None,
        extra_header: dict[str, Any] | None = None,
    ):
        """Opens a run, and makes it where there is none.

        Args:
          run_dir: Folder of the run.
          task: What is optimised.
          model: A built and trained `VAE` or `TVAE`; it is trained further.
          plan: How many queries, in which rounds.
          strategy: Chooses the queries.
          surrogate: What the strategy goes by; None where it needs none.
          weighting: The weights of data; None for `Unweighted()`.
          retraining: How the model is trained; None for `Retraining()`.
          extra_header: What else has to be the same when the run goes on.

        Raises:
          ValueError: If values do not fit each other, or the folder has a run
            of other ones.
          RuntimeError: If another process is at it.
        """
        if strategy.uses_surrogate and surrogate is None:
            raise ValueError(
                f"`surrogate` must be given for {type(strategy).__name__}, "
                "such as SparseGaussianProcess(), got None"
            )
        self.task = task
        self.plan = plan
        self._model = model
        self._strategy = strategy
        self._surrogate = surrogate
        self._weighting = weighting or Unweighted()
        self._folder = pathlib.Path(run_dir)
        self._folder.mkdir(parents=True, exist_ok=True)
        self.collection = Collection(task, task.data(plan.seed))
        _check_model(model, self.collection.points, plan.budget)
        retraining = retraining or Retraining()
        self._retrainer = Retrainer(
            model, retraining, self._seed(_RETRAINING, 0)
        )
        self._space = latent_space(model)
        self._round = -1
        self._pending: list[Query] = []
        self._is_warm = False
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.rounds = RoundTable(self._folder / "rounds.csv")
        parts = {
            "model": type(model).__name__,
            "strategy": strategy,
            "surrogate": surrogate,
            "weighting": self._weighting,
            "retraining": retraining,
        }
        self.ledger = Ledger(
            self._folder / LEDGER,
            {
                **header(task, self.collection, plan, **parts),
                **(extra_header or {}),
            },
            in_order=False,
        )
        try:
            self._restore()
        except BaseException:
            self.ledger.close()
            raise

    def _seed(self, *path: int) -> int:
        """Returns the seed of one use; see the constants above."""
        sequence = np.random.SeedSequence([self.plan.seed, *path])
        return int(sequence.generate_state(1)[0] >> 1)

    # The round.

    @property
    def num_done(self) -> int:
        """The number of queries that have a score or have failed."""
        return len(self.ledger.entries)

    def _entries_of(self, now: int) -> list[Entry]:
        return [one for one in self.ledger.entries if one.round == now]

    def _restore(self) -> None:
        """Takes up what the folder has."""
        now = min(self.plan.round_of(self.num_done), self.plan.num_rounds - 1)
        # States of data that a TVAE had no room for yet are fresh ones.
        found = checkpoints.restore_latest(
            self._checkpoints, self._model, grows=STATE_NAMES
        )
        trained = -1 if found is None else found.epoch
        if trained > now:
            raise ValueError(
                f"{self.ledger.path} must have the evaluations of all rounds "
                f"before {trained}, for which there is a checkpoint, got "
                f"{self.num_done}; has it been shortened?"
            )
        if trained < now - 1:
            raise ValueError(
                f"{self._checkpoints} must have the model of round {now - 1} "
                f"or {now}, got "
                f"{'none' if found is None else f'that of round {trained}'}"
            )
        # What round `trained` has found is added when the next one begins.
        for done in range(trained):
            self.collection.add(self._entries_of(done), self._weighting)
        if trained == now:
            self._enter(now)
        self._round = trained
        last = pending.load(self._pending_path)
        if last is None:
            return
        # They were proposed once all before them had been told.
        first = min(query.number for query in last.queries)
        recorded = {entry.query for entry in self.ledger.entries}
        if not recorded.issuperset(range(first)):
            raise ValueError(
                f"{self.ledger.path} must have the evaluations of all queries "
                f"before {first}, got {self.num_done}; has it been shortened?"
            )
        if last.queries[0].round != self._round:
            return
        self._pending = last.queries
        if self._strategy.uses_surrogate and self._surrogate is not None:
            self._surrogate.restore(last.surrogate)
            self._is_warm = True

    @property
    def _checkpoints(self) -> pathlib.Path:
        return self._folder / "rounds"

    @property
    def _pending_path(self) -> pathlib.Path:
        return self._folder / "pending.npz"

    def _begin(self, now: int) -> None:
        """Trains the model for a round."""
        weights = self.collection.weights(self._weighting)
        if now == 0:
            snapshots.save_weights(
                self._folder,
                self.task.sign * self.collection.scores,
                weights,
            )
        before = dict(self.seconds)
        with self._timed("retrain"):
            loss = self._retrainer.retrain(
                self.collection.points,
                weights,
                self.collection.num_kept,
                now == 0,
            )
            checkpoints.save(self._checkpoints, self._model, now)
        self.rounds.begin(
            now, self.collection.num_kept, loss, before, self.seconds
        )
        self._enter(now)

    def _enter(self, now: int) -> None:
        """Takes up a round whose model is trained."""
        self._round = now
        self._is_warm = False
        self._pending = []
        self._take_snapshots()
        if not self._strategy.uses_data:
            self._latents = np.zeros((0, self._space.num_latents), np.float32)
            self._scores = np.zeros(0)
            return
        with self._timed("encode"):
            kept = np.flatnonzero(self.collection.is_kept)
            chosen = select_points(
                self.collection.scores[kept],
                self.plan.num_best,
                self.plan.num_random,
                self._seed(_POINTS, now),
            )
            rows = kept[chosen]
            self._latents = self._space.encode(
                self.collection.points[rows], rows
            )
            # No point counts for less than an invalid one, lest outliers be
            # what the surrogate is fitted to.
            self._scores = np.maximum(
                self.collection.scores[rows], self.collection.invalid_score
            )

    def _take_snapshots(self) -> None:
        now, seed = self._round, self._seed(_SAMPLING, self._round)
        if now not in snapshots.rounds_to_see(self.plan.num_rounds):
            return
        if not self.plan.num_samples:
            return
        snapshots.save_samples(
            self._folder,
            self._space,
            self._score_means,
            now,
            self.plan.num_samples,
            seed,
        )
        snapshots.save_manifold(
            self._folder, self._space, self._score_means, now
        )

    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns latents and scores of this round's points and queries."""
        entries = self._entries_of(self._round)
        if not entries:
            return self._latents, self._scores
        latents = np.array([one.latent for one in entries], np.float32)
        scores = [self.collection.score_of(one) for one in entries]
        counted = np.maximum(scores, self.collection.invalid_score)
        return (
            np.concatenate([self._latents, latents]),
            np.concatenate([self._scores, counted]),
        )

    # Queries.

    def ask(self) -> list[Query]:
        """Returns the queries that want a score.

        The same ones until all of them have been told; none where the budget
        is spent. Invalid decodes are recorded here, without being asked.
        """
        while True:
            waiting = self._waiting()
            if waiting or self.num_done >= self.plan.budget:
                return waiting
            now = self.plan.round_of(self.num_done)
            if now != self._round:
                self._end()
                self._begin(now)
            self._propose()

    def _waiting(self) -> list[Query]:
        """Records queries without input, and returns those without score."""
        done = {entry.query for entry in self._entries_of(self._round)}
        waiting = [one for one in self._pending if one.number not in done]
        for query in waiting:
            if query.input is None:
                self._fail(query, query.failure or NO_INPUT)
        return [query for query in waiting if query.input is not None]

    def _end(self) -> None:
        """Adds what a round has found to the data."""
        if self._round >= 0:
            self.collection.add(self._entries_of(self._round), self._weighting)
            self.rounds.end(self._round, self.best(), self.seconds)

    def _propose(self) -> None:
        """Chooses the next queries, and puts them on the disk."""
        done = {entry.query for entry in self._entries_of(self._round)}
        start = self._round * self.plan.round_size
        numbers = [
            number
            for number in range(start, self.plan.end_of(self._round))
            if number not in done
        ]
        first = numbers[0]
        count = min(self._strategy.num_at_a_time(len(numbers)), len(numbers))
        latents, scores = self._known()
        if self._strategy.uses_surrogate and self._surrogate is not None:
            with self._timed("fit"):
                self._surrogate.fit(
                    latents,
                    scores,
                    self._seed(_FITTING, first),
                    self._is_warm,
                )
            self._is_warm = True
        context = Context(
            self._space, latents, scores, self._surrogate, self._score_latents
        )
        with self._timed("acquisition"):
            proposed = self._strategy.propose(
                context,
                count * self.plan.num_proposals,
                self._seed(_PROPOSING, first),
            )
        seed = self._seed(_READING, first)
        with self._timed("decode"):
            found = read(self.task, self._space.decode(proposed), seed)
        inputs = [one.content for one in found]
        self._pending = [
            Query(
                number,
                self._round,
                proposed[place],
                inputs[place],
                seed,
                found[place].failure,
            )
            for number, place in zip(
                numbers[:count], self._worthwhile(inputs)[:count], strict=False
            )
        ]
        state = {}
        if self._surrogate is not None:
            state = self._surrogate.state()
        pending.save(self._pending_path, pending.Pending(self._pending, state))
        self.rounds.update(self._round, self.seconds)

    def _worthwhile(self, inputs: Sequence[Any]) -> list[int]:
        """Returns the places of JSON inputs, those of unknown score first."""
        if self.plan.num_proposals == 1:
            return list(range(len(inputs)))
        known = self.collection.keys.union(
            self.collection.key(entry.input) for entry in self.ledger.entries
        )
        rank = []
        for one in inputs:
            key = self.collection.key(one)
            rank.append(2 if one is None else int(key in known))
            known.add(key)
        return sorted(range(len(inputs)), key=rank.__getitem__)

    def _score_latents(
        self, latents: np.ndarray
    ) -> tuple[np.ndarray, list[Any]]:
        """Scores latents by the objective itself, for oracles."""
        found = read(self.task, self._space.decode(latents), 0)
        keys = [
            None if one.input is None else self.collection.key(one.content)
            for one in found
        ]
        return self.task.sign * self._scores_of(found), keys

    def _score_means(
        self, means: np.ndarray, seed: int
    ) -> tuple[np.ndarray, list[Any]]:
        """Returns scores of decoder means, and the inputs they stand for."""
        found = read(self.task, means, seed)
        return self._scores_of(found), [one.input for one in found]

    def _scores_of(self, found: Sequence[Reading]) -> np.ndarray:
        """Returns the scores of readings, in the task's direction."""
        invalid = self.task.sign * self.collection.invalid_score
        scores = np.full(len(found), invalid)
        for i, one in enumerate(found):
            if one.input is None:
                continue
            result = evaluation.evaluate_one(self.task.objective, one.input)
            if result.score is not None:
                scores[i] = result.score
        return scores

    def tell(
        self,
        number: int,
        score: float | None = None,
        *,
        failure: str | None = None,
        seconds: float = 0.0,
    ) -> Entry:
        """Records what became of a query; it is on the disk on return.

        Args:
          number: Of the query.
          score: In the direction of the task. A number that is not finite is
            recorded as a failure.
          failure: Why there is no score, in one line.
          seconds: How long it took.

        Returns:
          The entry of the ledger.

        Raises:
          ValueError: If nobody asked, it was told before, or neither or both
            of `score` and `failure` are given.
          TypeError: If `score` is no number. Nothing is recorded then.
        """
        if (score is None) == (failure is None):
            raise ValueError(
                "`score` or `failure` must be given, and not both, got "
                f"{score!r} and {failure!r}"
            )
        waiting = {query.number: query for query in self._waiting()}
        if number not in waiting:
            raise ValueError(
                "`number` must be that of a query which waits for its score "
                f"({', '.join(map(str, waiting)) or 'none does'}), got "
                f"{number!r}"
            )
        result = evaluation.Result(None, failure, seconds)
        if failure is None:
            try:
                checked = evaluation.checked_score(score, "`score` must be")
                result = result._replace(score=checked)
            except ValueError as error:
                result = result._replace(failure=one_line(error))
        entry = self._record(waiting[number], result)
        if self.num_done >= self.plan.budget:
            self.rounds.end(self._round, self.best(), self.seconds)
        return entry

    def _record(self, query: Query, result: evaluation.Result) -> Entry:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        entry = Entry(
            round=query.round,
            query=query.number,
            latent=[float(value) for value in query.latent],
            input=query.input,
            score=result.score,
            failure=result.failure,
            seconds=result.seconds,
            seed=query.seed,
            time=now,
        )
        try:
            return self.ledger.append(entry)
        except OSError as error:
            outcome = result.failure if result.score is None else result.score
            raise OSError(
                error.errno,
                f"{error.strerror}; query {query.number} has been evaluated, "
                f"and can be told: {outcome}",
                str(self.ledger.path),
            ) from error

    def _fail(self, query: Query, failure: str) -> None:
        self._record(query, evaluation.Result(None, failure, 0.0))

    # The whole.

    def run(self, evaluator: evaluation.Evaluator | None = None) -> None:
        """Goes on until the budget is spent.

        Args:
          evaluator: Evaluates the objective; None for in this process.
        """
        for _ in self.steps(evaluator):
            pass

    def steps(
        self, evaluator: evaluation.Evaluator | None = None
    ) -> Iterator[None]:
        """Goes on as `run` does, and yields after each proposal's queries."""
        evaluator = evaluator or evaluation.InProcess()
        while queries := self.ask():
            given, inputs = self._inputs(queries)
            self.ledger.reserve(self._num_bytes(given))
            with self._timed("evaluate"):
                evaluator(self.task.objective, inputs, self._recorder(given))
            self.rounds.update(self._round, self.seconds)
            yield
        self.rounds.end(self._round, self.best(), self.seconds)

    def _inputs(
        self, queries: Sequence[Query]
    ) -> tuple[list[Query], list[Any]]:
        """Returns the queries whose inputs can be made of JSON, and these."""
        given, inputs = [], []
        for query in queries:
            try:
                inputs.append(from_json(self.task, query.input))
            except Exception as error:
                self._fail(query, f"`from_json` fails: {one_line(error)}")
            else:
                given.append(query)
        return given, inputs

    def _num_bytes(self, queries: Sequence[Query]) -> int:
        """Returns more than what the entries of queries will take."""
        latents = 32 * self._space.num_latents
        return sum(
            len(json.dumps(query.input)) + latents + 4096 for query in queries
        )

    def _recorder(self, queries: Sequence[Query]) -> evaluation.Done:
        def done(i: int, result: evaluation.Result) -> None:
            self._record(queries[i], result)

        return done

    def best(self) -> float | None:
        """Returns the best score of all queries, in the task's direction."""
        scores = [
            self.task.sign * entry.score
            for entry in self.ledger.entries
            if entry.score is not None
        ]
        return self.task.sign * max(scores) if scores else None

    def close(self) -> None:
        """Lets other processes open the run."""
        self.ledger.close()

    def __enter__(self) -> LatentSpaceOptimizer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start
