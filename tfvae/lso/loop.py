# SPDX-License-Identifier: Apache-2.0
"""The loop of latent space optimisation with weighted retraining.

Algorithm 1 of Tripp, Daxberger and Hernandez-Lobato, 2020, "Sample-efficient
optimization in the latent space of deep generative models via weighted
retraining":

    1  for each of ceil(budget / r) rounds:
    2      weights of all data by their scores          `Collection.weights`
    3      train the model on them, from where it was   `RoundRetrainer.retrain`
    4      r times:
    5          fit the surrogate to latents and scores  `Proposer.propose`
    6          choose a latent, decode it               `Proposer.propose`
    7          evaluate it, write it down               `ask`, `tell`
    8      add what was found to the data               `Collection.add`

Everything random depends on the seed and on what is asked for, and everything
that is known is on the disk before the next evaluation: a run that is killed
goes on as if it had not been.
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

if TYPE_CHECKING:  # The loop itself does without TensorFlow.
    from tfvae.lso.latent_space import LatentSpace
    from tfvae.lso.retraining import Retraining
    from tfvae.lso.surrogates import Surrogate
    from tfvae.lso.weighting import Weighting


class LatentSpaceOptimizer:
    """Optimises the objective of a task in the latent space of a model.

    With the objective at hand, `run` does it all:

        optimizer = LatentSpaceOptimizer.of_model(
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
        """Opens a run, and makes it where there is none; see `of_model`, too.

        Args:
          run_dir: Folder of the run.
          task: What is optimised.
          space: Latents of the model that `retrainer` trains.
          retrainer: Trains it before each round.
          plan: How many queries, in which rounds.
          strategy: Chooses the queries.
          weighting: The weights of data.
          surrogate: What the strategy goes by; None where it needs none.

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
        """Opens a run in the latent space of a VAE or TVAE.

        Args:
          run_dir: Folder of the run.
          task: What is optimised.
          model: A built and trained `VAE` or `TVAE`; it is trained further.
          plan: How many queries, in which rounds.
          strategy: Chooses the queries.
          surrogate: What the strategy goes by; None where it needs none.
          weighting: The weights of data; None for `Unweighted()`.
          retraining: How the model is trained; None for `Retraining()`.

        Raises:
          TypeError: If the model is neither.
          ValueError: If values do not fit each other, or the folder has a run
            of other ones.
          RuntimeError: If another process is at it.
        """
        # These import TensorFlow.
        from tfvae.lso.latent_space import latent_space
        from tfvae.lso.model_retrainer import ModelRetrainer
        from tfvae.lso.retraining import Retraining
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

    # Where the run is.

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
        """Takes up what the folder has."""
        now = min(self.plan.round_of(self.num_done), self.plan.num_rounds - 1)
        self._round = self._restored_round(now)
        # What this round has found is added when the next one begins.
        for done in range(self._round):
            self._add(done)
        if self._round == now:
            self._enter(now)
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
        if last.queries[0].round == self._round:
            self._pending = last.queries
            self._proposer.resume(last.surrogate)

    def _restored_round(self, now: int) -> int:
        """Restores the model of round `now` or the one before, -1 for none."""
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
                self._leave()
                self._retrain(now)
                self._enter(now)
            self._propose()

    def _waiting(self) -> list[Query]:
        """Records queries without input, and returns those without score."""
        done = {entry.query for entry in entries_of(self.ledger, self._round)}
        waiting = [one for one in self._pending if one.number not in done]
        for query in waiting:
            if query.input is None:
                self._fail(query, query.failure or NO_INPUT)
        return [query for query in waiting if query.input is not None]

    def _leave(self) -> None:
        """Adds what a round has found to the data."""
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
        """Takes up a round whose model is trained."""
        self._round = now
        self._pending = []
        score = Scorer(self.task, self._space, self.collection).of_means
        snapshots.take(
            self._folder, self.task, self._space, score, self.plan, now
        )
        self._proposer.enter(now)

    def _propose(self) -> None:
        """Chooses the next queries, and puts them on the disk."""
        done = {entry.query for entry in entries_of(self.ledger, self._round)}
        left = [n for n in self.plan.queries_of(self._round) if n not in done]
        proposed = self._proposer.propose(self._round, left)
        pending.save(self._pending_path, proposed)
        self._pending = proposed.queries
        self.rounds.update(self._round)

    # Their scores.

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

    def close(self) -> None:
        """Lets other processes open the run."""
        self.ledger.close()

    def __enter__(self) -> LatentSpaceOptimizer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
