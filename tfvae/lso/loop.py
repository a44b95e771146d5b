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
    8      add the queries of the round to the data     `Collection.follow`

The ledger has all that happens, in order: proposals, results, amendments,
beginnings of rounds. Random numbers depend only on the seed, the round and the
query, and a proposal on what was recorded before it. So a run that is killed
and resumed gives the same results as an uninterrupted one, and the same results
told in the same order give the same queries.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfvae.lso import evaluation, snapshots, telling
from tfvae.lso.collection import Collection
from tfvae.lso.header import check_data, header
from tfvae.lso.ledger import LEDGER, Ledger
from tfvae.lso.plan import Plan, Use
from tfvae.lso.proposing import Proposer
from tfvae.lso.reading import NO_INPUT, checked_additions, resolved
from tfvae.lso.records import (
    Addition,
    Entry,
    Measurement,
    Proposal,
    Query,
    Records,
    Round,
)
from tfvae.lso.round_retrainer import RoundRetrainer, check_size
from tfvae.lso.round_table import RoundTable
from tfvae.lso.running import Failure, Run
from tfvae.lso.scoring import Scorer
from tfvae.lso.stopping import Stopping
from tfvae.lso.strategies import Strategy
from tfvae.lso.tasks.base import Task
from tfvae.lso.warping import Warping

if TYPE_CHECKING:  # These import TensorFlow, which the loop does not need.
    from tfvae.lso.latent_space import LatentSpace
    from tfvae.lso.retraining import Retraining
    from tfvae.lso.surrogates import Surrogate
    from tfvae.lso.weighting import Weighting

_BYTES_OF_A_RESULT = 8192


class _Due(NamedTuple):
    """What a round that has begun is trained on."""

    round: int
    points: np.ndarray
    weights: np.ndarray
    num_kept: int
    scores: np.ndarray
    rows: np.ndarray


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
            print(query.number, query.input)
        optimizer.tell(0, 3.7)
        optimizer.tell(1, failure="the synthesis failed")

    A laboratory asks for two more while others are under way, corrects what was
    wrong, and adds what it has measured itself:

        optimizer.ask(2)
        optimizer.amend(0, 1.7)
        optimizer.withdraw(1)
        optimizer.add([Addition(2.5, point=[0.1, 0.2])])

    If the folder already has a run, this run is resumed. The arguments must be
    the same, except that `budget` may be any number that is not less than the
    queries that are done, and `min_distance` any distance.

    Attributes:
      task: The task, with all of its functions.
      plan: Query budget and rounds.
      ledger: Log of all that happens.
      stopped: Why the last `run` or `steps` ended before the budget was spent,
        in one line; None otherwise.
      is_exhausted: Whether the last proposal found nothing new to query;
        `why_exhausted` says why.
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
        warping: Warping | None = None,
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
          warping: Transforms scores before the surrogate is fitted to them;
            None for no transformation.

        Raises:
          TypeError: If a function of the task returns something of a wrong
            type.
          ValueError: If values are inconsistent, a function of the task fails
            for the first of the data, or the folder has a run with other
            values.
          RuntimeError: If another process has opened the run.
        """
        if strategy.uses_surrogate and surrogate is None:
            raise ValueError(
                f"`surrogate` must be given for {type(strategy).__name__}, "
                "such as SparseGaussianProcess(), got None"
            )
        data = task.data(plan.seed)
        self.task = task = resolved(task, data)
        self.plan = plan
        self.stopped: str | None = None
        self.is_exhausted = False
        self._space = space
        self._retrainer = retrainer
        self._weighting = weighting
        self._folder = pathlib.Path(run_dir)
        self._folder.mkdir(parents=True, exist_ok=True)
        self.collection = Collection(task, data)
        self.rounds = RoundTable(self._folder / "rounds.csv")
        path = self._folder / LEDGER
        parts = {
            "strategy": strategy,
            "surrogate": surrogate,
            "weighting": weighting,
            "warping": warping,
            **retrainer.settings,
        }
        identity = header(task, self.collection, plan, **parts)
        check_data(path, identity)
        self.ledger = Ledger(path, identity, check=self._check_budget)
        self._proposer = Proposer(
            self._folder,
            task,
            space,
            plan,
            strategy,
            surrogate,
            warping,
            self.collection,
            self.ledger.records,
            self.rounds,
        )
        # How many records have been followed.
        self._followed = 0
        self._due: _Due | None = None
        self._rows = np.zeros(0, np.int64)
        self._entered = -1
        self._run: Run | None = None
        try:
            most = plan.budget + len(self.ledger.records.additions)
            check_size(retrainer, self.collection.points, most)
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
        warping: Warping | None = None,
    ) -> LatentSpaceOptimizer:
        """Creates or resumes a run in the latent space of a VAE or TVAE.

        Where several ranks train the model (`set_ranks`), this is for rank 0,
        and the others call `follow`.

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
          warping: See `__init__`.

        Raises:
          TypeError: If the model is neither a VAE nor a TVAE.
          ValueError: If values are inconsistent, or the folder has a run with
            other values, or if several ranks train what one has to.
          RuntimeError: If another process has opened the run.
        """
        # These import TensorFlow.
        from tfvae.lso import joint_training
        from tfvae.lso.latent_space import latent_space
        from tfvae.lso.rank_retraining import LeadingRetrainer
        from tfvae.lso.retraining import ModelRetrainer, Retraining
        from tfvae.lso.weighting import Unweighted

        space = latent_space(model)
        retraining = retraining or Retraining()
        if retraining.surrogate_weight:
            joint_training.check_strategy(strategy, surrogate)
        retrainer: RoundRetrainer = ModelRetrainer(
            model,
            retraining,
            plan.seed_of(Use.RETRAINING, 0),
            surrogate,
            warping,
        )
        if model.ranks.size > 1:
            retrainer = LeadingRetrainer(retrainer, model.ranks)
        return cls(
            run_dir,
            task,
            space,
            retrainer,
            plan,
            strategy=strategy,
            weighting=weighting or Unweighted(),
            surrogate=surrogate,
            warping=warping,
        )

    # State of the run.

    @property
    def failures(self) -> list[Failure]:
        """The evaluations that failed in the last `run` or `steps`."""
        return [] if self._run is None else self._run.failures

    @property
    def has_failed(self) -> bool:
        """Whether the last `run` or `steps` ended because of failures."""
        return self._run is not None and self._run.has_failed

    @property
    def num_done(self) -> int:
        """The number of queries that have a score or have failed."""
        return self.ledger.records.num_done

    def best(self) -> float | None:
        """Returns the best score of all queries, in the task's direction.

        Queries that violate a constraint do not count.
        """
        scores = [
            self.task.sign * entry.score
            for entry in self.ledger.records.entries.values()
            if entry.score is not None and entry.is_feasible
        ]
        return self.task.sign * max(scores) if scores else None

    @property
    def _models(self) -> pathlib.Path:
        return self._folder / "rounds"

    def _check_budget(self, records: Records) -> None:
        num_done = records.num_done
        held = (records.header or {}).get("budget")
        # What was pending when it was lowered may have been told since.
        if self.plan.budget < num_done and self.plan.budget != held:
            raise ValueError(
                f"`budget` must be at least {num_done}, the queries that are "
                f"done, got {self.plan.budget}"
            )

    def _restore(self) -> None:
        """Restores the state of the run from its folder."""
        records = self.ledger.records
        found = self._retrainer.restore(self._models)
        trained = -1 if found is None else found
        if trained > records.round:
            raise ValueError(
                f"{self.ledger.path} must have the beginning of round "
                f"{trained}, for which there is a checkpoint, got rounds up to "
                f"{records.round}; has it been shortened?"
            )
        if trained < records.round - 1:
            raise ValueError(
                f"{self._models} must have the model of round "
                f"{records.round - 1} or {records.round}, got "
                f"{'none' if found is None else f'that of round {trained}'}"
            )
        self._follow()
        if trained == records.round:
            self._due = None

    def _follow(self) -> None:
        """Does what the records say that have not been followed yet."""
        records = self.ledger.records
        for record, entry in records.sequence[self._followed :]:
            self._followed += 1
            self.collection.follow(record, entry, self._weighting)
            if isinstance(record, Round) and record.round == records.round:
                self._rows = self._proposer.rows_of(record.round)
                # What is recorded while it is trained, or after a kill before
                # it is trained, makes no difference to it.
                self._due = _Due(
                    record.round,
                    self.collection.points,
                    self.collection.weights(self._weighting),
                    self.collection.num_kept,
                    self.collection.scores.copy(),
                    self._rows,
                )

    # The rounds.

    def ask(self, count: int | None = None) -> list[Query]:
        """Returns queries without a result.

        Queries that decode to an invalid input are recorded as failures here,
        and not returned.

        Args:
          count: Number of new queries to propose, whether or not others are
            pending, which count as observed with the surrogate's mean as their
            score. None to return all pending queries, and to propose new ones
            only if there are none.

        Returns:
          The new queries, or all pending ones; fewer at the end of the budget,
          and none once it is spent, or where nothing new is to be had
          (`is_exhausted`).
        """
        if count is None:
            while not (waiting := self._waiting()) and self._num_left() > 0:
                if not self._propose(self._num_left()):
                    break
            return waiting
        if type(count) is not int or count < 1:
            raise ValueError(
                f"`count` must be an integer of at least 1 or None, got "
                f"{count!r}"
            )
        known = {query.number for query in self._waiting()}
        while True:
            new = [one for one in self._waiting() if one.number not in known]
            wanted = min(count - len(new), self._num_left())
            if wanted <= 0 or not self._propose(wanted):
                return new

    def _num_left(self) -> int:
        """Returns how many further queries the budget allows."""
        return self.plan.budget - self.num_done - len(self._waiting())

    def _waiting(self) -> list[Query]:
        """Records invalid decodes as failures; returns the pending queries."""
        waiting = self.ledger.waiting
        for query in waiting:
            if query.input is None:
                failure = query.failure or NO_INPUT
                result = evaluation.Result(None, failure, 0.0)
                self._record(query.number, result)
        return [query for query in waiting if query.input is not None]

    def _propose(self, count: int) -> bool:
        """Proposes up to `count` queries; returns False if there are none."""
        self._prepare()
        first = self.ledger.records.next_number
        end = min(self.plan.end_of(self._entered), first + count)
        queries = self._proposer.propose(range(first, end))
        self.rounds.update(self._entered)
        self.is_exhausted = not queries
        if queries:
            self.ledger.append(Proposal(queries))
        return bool(queries)

    def _prepare(self) -> None:
        """Begins and trains the round of the next query, if necessary."""
        records = self.ledger.records
        now = self.plan.round_of(records.next_number)
        while records.round < now:
            if records.round >= 0:
                self.rounds.end(records.round, self.best())
            self.ledger.append(Round(records.round + 1, telling.time()))
            self._follow()
            self._train()
        self._train()
        if self._entered != now:
            self._enter(now)

    def _train(self) -> None:
        """Trains the model for the round that has begun, if necessary."""
        due = self._due
        if due is None:
            return
        if due.round == 0:
            scores = self.task.sign * due.scores
            snapshots.save_weights(self._folder, scores, due.weights)
        with self.rounds.timed("retrain"):
            loss = self._retrainer.retrain(
                due.points,
                due.weights,
                due.num_kept,
                due.round == 0,
                np.maximum(due.scores, self.collection.invalid_score),
                due.rows,
            )
            self._retrainer.save(self._models, due.round)
        self.rounds.begin(due.round, due.num_kept, loss)
        self._due = None

    def _enter(self, now: int) -> None:
        """Enters a round whose model has been trained."""
        score = Scorer(self.task, self._space, self.collection).of_means
        snapshots.take(
            self._folder, self.task, self._space, score, self.plan, now
        )
        self._proposer.enter(now, self._rows)
        self._entered = now

    # Recording of results.

    def tell(
        self,
        number: int,
        score: float | None = None,
        *,
        failure: str | None = None,
        constraints: Mapping[str, float] | None = None,
        seconds: float = 0.0,
    ) -> Entry:
        """Records the result of a query; it is on disk when this returns.

        Args:
          number: Number of the query.
          score: Its score, in the direction of the task. A number that is not
            finite is recorded as a failure.
          failure: The reason if there is no score, in one line.
          constraints: Values of constraints, which hold where they are at most
            0.
          seconds: Duration of the evaluation.

        Returns:
          The entry of the ledger.

        Raises:
          ValueError: If the query is not pending, as it has not been asked for
            or already been told, or neither or both of `score` and `failure`
            are given, or its latents decode to no input that could have a
            score, or a constraint is not finite. Nothing is recorded.
          TypeError: If `score` or a constraint is not a number. Nothing is
            recorded.
        """
        told = telling.Told(number, score, failure, constraints, seconds)
        self._waiting()
        entry = self._record_all([told])
        assert entry is not None
        return entry

    def amend(
        self,
        number: int,
        score: float | None = None,
        *,
        failure: str | None = None,
        constraints: Mapping[str, float] | None = None,
    ) -> Entry:
        """Replaces all results of a query; the ledger keeps the former ones.

        The surrogate of the next proposal, and the weights of the next
        retraining, have the new one.

        Args:
          number: Number of a query that has a result.
          score: See `tell`.
          failure: See `tell`.
          constraints: See `tell`.

        Returns:
          The new entry of the ledger.

        Raises:
          ValueError: If the query has no result, and as for `tell`. Nothing
            is recorded.
          TypeError: See `tell`.
        """
        told = telling.Told(
            number, score, failure, constraints, is_amendment=True
        )
        entry = self._record_all([told])
        assert entry is not None
        return entry

    def withdraw(self, number: int) -> None:
        """Withdraws all results of a query, which is pending again.

        Args:
          number: Number of a query that has a result.

        Raises:
          ValueError: If the query has no result.
        """
        self._record_all([telling.Withdrawn(number)])

    def retry_failed(self) -> list[int]:
        """Withdraws the failures of all queries that have an input.

        Returns:
          The numbers of these queries, which are pending again.
        """
        numbers = [
            entry.query
            for entry in self.ledger.entries
            if entry.has_failed and entry.input is not None
        ]
        for number in numbers:
            self.withdraw(number)
        return numbers

    def _record_all(
        self, requests: Sequence[telling.Told | telling.Withdrawn]
    ) -> Entry | None:
        entry = telling.record(self.ledger, requests)[-1]
        self._follow()
        if self.num_done >= self.plan.budget:
            self.rounds.end(self.ledger.records.round, self.best())
        return entry

    def add(self, additions: Sequence[Addition]) -> None:
        """Adds measurements that no query asked for.

        The surrogate knows them from the next proposal on; they are data from
        the next round on.

        Args:
          additions: The measurements. Those without a point are encoded by the
            `write` of the task.

        Raises:
          TypeError: If a score or a constraint is not a number.
          ValueError: If it is not finite, a point has a wrong length, an input
            can not be encoded, or the model has no capacity. Nothing is added.
        """
        checked = checked_additions(
            self.task,
            [telling.checked_addition(one) for one in additions],
            self.collection.points.shape[1],
        )
        points = self.task.data(self.plan.seed).points
        num_added = len(self.ledger.records.additions) + len(checked)
        check_size(self._retrainer, points, self.plan.budget + num_added)
        for one in checked:
            self.ledger.append(one)
        self._follow()

    def _record(self, number: int, result: evaluation.Result) -> None:
        record = Measurement(
            number,
            result.score,
            result.failure,
            result.constraints,
            result.seconds,
            telling.time(),
        )
        telling.append(self.ledger, record)
        self._follow()

    # The whole loop.

    def run(
        self,
        evaluator: evaluation.Evaluator | None = None,
        stopping: Stopping | None = None,
    ) -> None:
        """Proposes and evaluates queries until the budget is spent.

        Args:
          evaluator: Evaluates the objective; None to evaluate in this process.
          stopping: Conditions that end the run earlier; None for
            `Stopping()`. `stopped` says which one did.

        Raises:
          RuntimeError: If it ends because of failures, all of which are on
            record; the message has the first of them in full.
        """
        for _ in self.steps(evaluator, stopping):
            pass
        if self.has_failed:
            first = self.failures[0]
            raise RuntimeError(
                f"{self.stopped}; the first was query {first.number}: "
                f"{first.details or first.reason}"
            )

    def steps(
        self,
        evaluator: evaluation.Evaluator | None = None,
        stopping: Stopping | None = None,
    ) -> Iterator[None]:
        """Same as `run`, but yields after the queries of each proposal.

        Raises no error because of failures; see `has_failed`.
        """
        evaluator = evaluator or evaluation.InProcess()
        run = self._run = Run(
            self.task,
            self.ledger.records,
            stopping or Stopping(),
            lambda: self._proposer.history(is_whole=True),
            self._record,
        )
        while not (why := run.why()) and (queries := self._due_now()):
            jobs = run.jobs(queries)
            self.ledger.reserve(_BYTES_OF_A_RESULT * len(jobs))
            with self.rounds.timed("evaluate"):
                run.evaluate(evaluator, jobs)
            self.rounds.update(self._entered)
            yield
        if not why and self.is_exhausted and self.num_done < self.plan.budget:
            why = self.why_exhausted
        self.stopped = why
        self.rounds.end(self.ledger.records.round, self.best())

    def _due_now(self) -> list[Query]:
        """Returns the queries to evaluate next, within the budget.

        A budget that was lowered allows fewer than there may be pending.
        """
        return self.ask()[: max(self.plan.budget - self.num_done, 0)]

    @property
    def why_exhausted(self) -> str:
        """Why the last proposal found nothing new to query, in one line."""
        return self._proposer.why_nothing()

    def request_stop(self, reason: str) -> None:
        """Ends `run` or `steps` after the evaluations that are under way.

        May be called by a signal handler.

        Args:
          reason: What `stopped` will say, in one line.
        """
        if self._run is not None:
            self._run.request = reason

    def predicted(self) -> dict[int, tuple[float, float]]:
        """Returns the surrogate's mean and standard deviation of all queries.

        For noisy tasks, whose luckiest score is not the best input. In the
        direction of the task, by the number of the query; empty without a
        surrogate, or before the first proposal.
        """
        if self.ledger.records.round < 0 or self._due is not None:
            return {}
        if self._entered != self.ledger.records.round:
            self._enter(self.ledger.records.round)
        return self._proposer.predicted()

    def close(self) -> None:
        """Closes the run, so that other processes can open it."""
        self.ledger.close()

    def __enter__(self) -> LatentSpaceOptimizer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
