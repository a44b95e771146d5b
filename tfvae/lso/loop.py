# SPDX-License-Identifier: Apache-2.0
"""The loop of latent space optimisation with weighted retraining.

Algorithm 1 of Tripp, Daxberger and Hernandez-Lobato, 2020, "Sample-efficient
optimization in the latent space of deep generative models via weighted
retraining":

    1  for each of ceil(budget / r) rounds:
    2      weight all data by their scores              `Collection.weights`
    3      train the model further on weighted data     `RoundRetrainer.retrain`
    4      r times:
    5          fit the surrogate to latents and scores  `Proposer.propose`
    6          choose a latent, decode it               `Proposer.propose`
    7          evaluate it, record the score            `ask`, `tell`
    8      add the queries of the round to the data     `Collection.add`

Random numbers depend only on the seed, the round and the query, and all results
are on disk before the next evaluation. A run that is killed and resumed
therefore gives the same results as an uninterrupted one.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tfvae.lso import evaluation, pending, snapshots
from tfvae.lso.collection import Collection
from tfvae.lso.evaluation import one_line
from tfvae.lso.header import header
from tfvae.lso.ledger import LEDGER, Entry, Ledger
from tfvae.lso.pending import Query
from tfvae.lso.plan import Plan, Use
from tfvae.lso.proposing import Proposer, entries_of
from tfvae.lso.reading import NO_INPUT, from_json
from tfvae.lso.round_retrainer import RoundRetrainer, check_size
from tfvae.lso.round_table import RoundTable
from tfvae.lso.scoring import Scorer
from tfvae.lso.strategies import Strategy
from tfvae.lso.tasks.base import Task

if TYPE_CHECKING:  # These import TensorFlow, which the loop does not need.
    from tfvae.lso.latent_space import LatentSpace
    from tfvae.lso.retraining import Retraining
    from tfvae.lso.surrogates import Surrogate
    from tfvae.lso.weighting import Weighting


class LatentSpaceOptimizer:
    """Optimises the objective of a task in the latent space of a model.

    `run` evaluates the objective until the budget is spent:

        optimizer = LatentSpaceOptimizer.of_model(
            "runs/one", task, model, Plan(budget=500, queries_per_round=50),
            strategy=ExpectedImprovement(),
            surrogate=SparseGaussianProcess(),
            weighting=Rank(1e-3),
        )
        optimizer.run()

    If evaluations are made elsewhere, ask for queries and tell their scores, in
    any order and also in later processes:

        for query in optimizer.ask():
            print(query.number, task.from_json(query.input))
        optimizer.tell(0, 3.7)
        optimizer.tell(1, failure="the synthesis failed")

    If the folder already has a run, this run is resumed. The arguments must be
    the same, except that `budget` may be larger.

    Attributes:
      task: The task.
      plan: Query budget and rounds.
      ledger: Log of all evaluations.
      collection: The data, including the queries of previous rounds.
      rounds: Table of the rounds and the time of their stages.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str],
        task: Task,
        space: LatentSpace,
        retrainer: RoundRetrainer,
        plan: Plan,
        *,
        strategy: Strategy,
        weighting: Weighting,
        surrogate: Surrogate | None = None,
    ):
        """Creates or resumes a run; `of_model` is simpler for VAEs and TVAEs.

        Args:
          run_dir: Folder of the run.
          task: The task to optimise.
          space: Latent space of the model that `retrainer` trains.
          retrainer: Trains the model before each round.
          plan: Query budget and rounds.
          strategy: Chooses the queries.
          weighting: Weights of the data in retraining.
          surrogate: The surrogate of the strategy; None if it needs none.

        Raises:
          ValueError: If values are inconsistent, or the folder has a run with
            other values.
          RuntimeError: If another process has opened the run.
        """
        if strategy.uses_surrogate and surrogate is None:
            raise ValueError(
                f"`surrogate` must be given for {type(strategy).__name__}, "
                "such as SparseGaussianProcess(), got None"
            )
        self.task = task
        self.plan = plan
        self._space = space
        self._retrainer = retrainer
        self._weighting = weighting
        self._folder = pathlib.Path(run_dir)
        self._folder.mkdir(parents=True, exist_ok=True)
        self.collection = Collection(task, task.data(plan.seed))
        check_size(retrainer, self.collection.points, plan.budget)
        self._round = -1
        self._pending: list[Query] = []
        self.rounds = RoundTable(self._folder / "rounds.csv")
        parts = {
            "strategy": strategy,
            "surrogate": surrogate,
            "weighting": weighting,
            **retrainer.settings,
        }
        self.ledger = Ledger(
            self._folder / LEDGER,
            header(task, self.collection, plan, **parts),
            in_order=False,
        )
        self._proposer = Proposer(
            task,
            space,
            plan,
            strategy,
            surrogate,
            self.collection,
            self.ledger,
            self.rounds,
        )
        try:
            self._restore()
        except BaseException:
            self.ledger.close()
            raise

    @classmethod
    def of_model(
        cls,
        run_dir: str | os.PathLike[str],
        task: Task,
        model: Any,
        plan: Plan,
        *,
        strategy: Strategy,
        surrogate: Surrogate | None = None,
        weighting: Weighting | None = None,
        retraining: Retraining | None = None,
    ) -> LatentSpaceOptimizer:
        """Creates or resumes a run in the latent space of a VAE or TVAE.

        Args:
          run_dir: Folder of the run.
          task: The task to optimise.
          model: A built and trained `VAE` or `TVAE`; it is trained further.
          plan: Query budget and rounds.
          strategy: Chooses the queries.
          surrogate: The surrogate of the strategy; None if it needs none.
          weighting: Weights of the data in retraining; None for
            `Unweighted()`.
          retraining: Settings of retraining; None for `Retraining()`.

        Raises:
          TypeError: If the model is neither a VAE nor a TVAE.
          ValueError: If values are inconsistent, or the folder has a run with
            other values.
          RuntimeError: If another process has opened the run.
        """
        # These import TensorFlow.
        from tfvae.lso.latent_space import latent_space
        from tfvae.lso.retraining import ModelRetrainer, Retraining
        from tfvae.lso.weighting import Unweighted

        space = latent_space(model)
        retrainer = ModelRetrainer(
            model,
            retraining or Retraining(),
            plan.seed_of(Use.RETRAINING, 0),
        )
        return cls(
            run_dir,
            task,
            space,
            retrainer,
            plan,
            strategy=strategy,
            weighting=weighting or Unweighted(),
            surrogate=surrogate,
        )

    # State of the run.

    @property
    def num_done(self) -> int:
        """The number of queries that have a score or have failed."""
        return len(self.ledger.entries)

    def best(self) -> float | None:
        """Returns the best score of all queries, in the task's direction."""
        scores = [
            self.task.sign * entry.score
            for entry in self.ledger.entries
            if entry.score is not None
        ]
        return self.task.sign * max(scores) if scores else None

    @property
    def _models(self) -> pathlib.Path:
        return self._folder / "rounds"

    @property
    def _pending_path(self) -> pathlib.Path:
        return self._folder / "pending.npz"

    def _restore(self) -> None:
        """Restores the state of the run from its folder."""
        now = min(self.plan.round_of(self.num_done), self.plan.num_rounds - 1)
        self._round = self._restored_round(now)
        # The queries of this round are added when the next one begins.
        for done in range(self._round):
            self._add(done)
        if self._round == now:
            self._enter(now)
        last = pending.load(self._pending_path)
        if last is None:
            return
        # They were proposed after all earlier queries had been recorded.
        first = min(query.number for query in last.queries)
        recorded = {entry.query for entry in self.ledger.entries}
        if not recorded.issuperset(range(first)):
            raise ValueError(
                f"{self.ledger.path} must have the evaluations of all queries "
                f"before {first}, got {self.num_done}; has it been shortened?"
            )
        if last.queries[0].round == self._round:
            self._pending = last.queries
            self._proposer.resume(last.surrogate)

    def _restored_round(self, now: int) -> int:
        """Restores the model of round `now` or `now` - 1.

        Returns:
          The round of the model, -1 if there is none.
        """
        found = self._retrainer.restore(self._models)
        trained = -1 if found is None else found
        if trained > now:
            raise ValueError(
                f"{self.ledger.path} must have the evaluations of all rounds "
                f"before {trained}, for which there is a checkpoint, got "
                f"{self.num_done}; has it been shortened?"
            )
        if trained < now - 1:
            raise ValueError(
                f"{self._models} must have the model of round {now - 1} or "
                f"{now}, got "
                f"{'none' if found is None else f'that of round {trained}'}"
            )
        return trained

    # The rounds.

    def ask(self) -> list[Query]:
        """Returns the pending queries, the ones without a score.

        Proposes new queries only if none are pending, and returns an empty list
        once the budget is spent. Queries that decode to an invalid input are
        recorded as failures here, and not returned.
        """
        while True:
            waiting = self._waiting()
            if waiting or self.num_done >= self.plan.budget:
                return waiting
            now = self.plan.round_of(self.num_done)
            if now != self._round:
                self._leave()
                self._retrain(now)
                self._enter(now)
            self._propose()

    def _waiting(self) -> list[Query]:
        """Records invalid decodes as failures; returns the pending queries."""
        done = {entry.query for entry in entries_of(self.ledger, self._round)}
        waiting = [one for one in self._pending if one.number not in done]
        for query in waiting:
            if query.input is None:
                self._fail(query, query.failure or NO_INPUT)
        return [query for query in waiting if query.input is not None]

    def _leave(self) -> None:
        """Ends the current round: adds its queries to the data."""
        if self._round >= 0:
            self._add(self._round)
            self.rounds.end(self._round, self.best())

    def _add(self, done: int) -> None:
        found = entries_of(self.ledger, done)
        self.collection.add(found, self._weighting)

    def _retrain(self, now: int) -> None:
        """Trains the model for a round."""
        collection = self.collection
        weights = collection.weights(self._weighting)
        if now == 0:
            scores = self.task.sign * collection.scores
            snapshots.save_weights(self._folder, scores, weights)
        with self.rounds.timed("retrain"):
            loss = self._retrainer.retrain(
                collection.points, weights, collection.num_kept, now == 0
            )
            self._retrainer.save(self._models, now)
        self.rounds.begin(now, collection.num_kept, loss)

    def _enter(self, now: int) -> None:
        """Begins a round whose model has been trained."""
        self._round = now
        self._pending = []
        score = Scorer(self.task, self._space, self.collection).of_means
        snapshots.take(
            self._folder, self.task, self._space, score, self.plan, now
        )
        self._proposer.enter(now)

    def _propose(self) -> None:
        """Proposes the next queries and writes them to disk."""
        done = {entry.query for entry in entries_of(self.ledger, self._round)}
        left = [n for n in self.plan.queries_of(self._round) if n not in done]
        proposed = self._proposer.propose(self._round, left)
        pending.save(self._pending_path, proposed)
        self._pending = proposed.queries
        self.rounds.update(self._round)

    # Recording of scores.

    def tell(
        self,
        number: int,
        score: float | None = None,
        *,
        failure: str | None = None,
        seconds: float = 0.0,
    ) -> Entry:
        """Records the result of a query; it is on disk when this returns.

        Args:
          number: Number of the query.
          score: Its score, in the direction of the task. A number that is not
            finite is recorded as a failure.
          failure: The reason if there is no score, in one line.
          seconds: Duration of the evaluation.

        Returns:
          The entry of the ledger.

        Raises:
          ValueError: If the query is not pending, as it has not been asked for
            or already been told, or neither or both of `score` and `failure`
            are given. Nothing is recorded.
          TypeError: If `score` is not a number. Nothing is recorded.
        """
        if (score is None) == (failure is None):
            raise ValueError(
                "`score` or `failure` must be given, and not both, got "
                f"{score!r} and {failure!r}"
            )
        waiting = {query.number: query for query in self._waiting()}
        if number not in waiting:
            raise ValueError(
                "`number` must be that of a pending query "
                f"({', '.join(map(str, waiting)) or 'there are none'}), got "
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
            self.rounds.end(self._round, self.best())
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
                f"{error.strerror}; query {query.number} has been evaluated; "
                f"use `tell` to record its result: {outcome}",
                str(self.ledger.path),
            ) from error

    def _fail(self, query: Query, failure: str) -> None:
        self._record(query, evaluation.Result(None, failure, 0.0))

    # The whole loop.

    def run(self, evaluator: evaluation.Evaluator | None = None) -> None:
        """Proposes and evaluates queries until the budget is spent.

        Args:
          evaluator: Evaluates the objective; None to evaluate in this process.
        """
        for _ in self.steps(evaluator):
            pass

    def steps(
        self, evaluator: evaluation.Evaluator | None = None
    ) -> Iterator[None]:
        """Same as `run`, but yields after the queries of each proposal."""
        evaluator = evaluator or evaluation.InProcess()
        while queries := self.ask():
            given, inputs = self._inputs(queries)
            if given:
                self.ledger.reserve(self._num_bytes(given))
                done = self._recorder(given)
                with self.rounds.timed("evaluate"):
                    evaluator(self.task.objective, inputs, done)
            self.rounds.update(self._round)
            yield
        self.rounds.end(self._round, self.best())

    def _inputs(
        self, queries: Sequence[Query]
    ) -> tuple[list[Query], list[Any]]:
        """Returns the queries whose inputs `from_json` restores, and these.

        The other queries are recorded as failures.
        """
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
        """Returns an upper bound of the size of the entries of queries."""
        latents = 32 * self._space.num_latents
        return sum(
            len(json.dumps(query.input)) + latents + 4096 for query in queries
        )

    def _recorder(self, queries: Sequence[Query]) -> evaluation.Done:
        def done(i: int, result: evaluation.Result) -> None:
            self._record(queries[i], result)

        return done

    def close(self) -> None:
        """Closes the run, so that other processes can open it."""
        self.ledger.close()

    def __enter__(self) -> LatentSpaceOptimizer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
