# SPDX-License-Identifier: Apache-2.0
"""Run that optimises a task in the latent space of a model."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gin
import numpy as np

import tfvae.checkpoints
import tfvae.lso.ray_pool  # noqa: F401 (registers with gin)
from tfvae import typed_gin
from tfvae.data import Observations
from tfvae.lso import evaluation
from tfvae.lso.curves import top_k
from tfvae.lso.ledger import LEDGER
from tfvae.lso.loop import LatentSpaceOptimizer
from tfvae.lso.plan import Plan
from tfvae.lso.retraining import Retraining
from tfvae.lso.strategies import Strategy
from tfvae.lso.surrogates import Surrogate
from tfvae.lso.tasks.base import Task
from tfvae.lso.weighting import Weighting
from tfvae.optimizers import FusedAdam
from tfvae.runs import (
    config,
    identity,
    optimization_results,
    summaries,
    task_files,
)
from tfvae.runs.experiment import Experiment, experiment
from tfvae.runs.optimization_figures import TOP, write_run_figures
from tfvae.runs.optimization_results import RESULT
from tfvae.runs.run_directory import Kind, RunDirectory
from tfvae.runs.train import train

MODEL = "model"
"""Folder, within a run folder, of the training run of the initial model."""

_SECONDS_BETWEEN_LINES = 5.0
# Parts of `optimize`: a check of their kind, and an example for messages.
_PARTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "task": (lambda part: isinstance(part, Task), "@own_task()"),
    "strategy": (lambda part: hasattr(part, "propose"), "@ThompsonSampling()"),
    "surrogate": (
        lambda part: hasattr(part, "predict"),
        "@SparseGaussianProcess()",
    ),
    "weighting": (lambda part: isinstance(part, Weighting), "@Rank()"),
    "retraining": (lambda part: isinstance(part, Retraining), "@Retraining()"),
    "evaluator": (callable, "@ProcessPool()"),
}
_OPTIONAL = ("surrogate", "weighting", "retraining", "evaluator")


class Asked(NamedTuple):
    """The ask/tell requests of a user who evaluates the objective elsewhere."""

    wants_queries: bool
    """Whether to print the pending queries, as JSON lines."""
    told: Sequence[str]
    """NUMBER=SCORE or NUMBER=failed of queries that were printed before."""


@typed_gin.register
def scored_data(
    task: Task, seed: int = 0, weighting: Weighting | None = None
) -> Observations:
    """Returns the data of a task, as a value of `experiment.data`.

    Args:
      task: The task.
      seed: Seed of the data, as `optimize.seed`.
      weighting: Weights by which points are drawn, from their scores; None to
        draw each point once per epoch.
    """
    data = task.data(seed)
    weights = None
    if weighting is not None:
        weights = weighting(task.sign * data.scores)
    return Observations(name=task.name, train=data.points, weights=weights)


@typed_gin.register
def num_dimensions(task: Task) -> int:
    """Returns D, the size of a data point of a task."""
    # The same for all seeds, so use the data that `scored_data` needs anyway.
    seed = config.value("scored_data.seed") or 0
    return task.data(seed).points.shape[1]


def load(
    gin_files: Sequence[str],
    gin_params: Sequence[str],
    task: str | None = None,
    seed: int | None = None,
) -> None:
    """Loads the configuration of an optimisation.

    Args:
      gin_files: See `config.load`.
      gin_params: See `config.load`.
      task: File of the task, which the gin files must refer to by
        `@own_task()`; None for the task of the gin files.
      seed: Seed of the run and its data; None for those of the gin files.

    Raises:
      ValueError: If the gin files do not use the task of the file.
    """
    seeds = [f"{name}.seed = {seed}" for name in ("optimize", "scored_data")]
    config.load(
        gin_files,
        [*gin_params, *(seeds if seed is not None else ())],
        function="optimize",
        may_be_idle=("own_task.path", "scored_data.seed"),
    )
    if task and "@own_task" not in config.text():
        raise ValueError(
            "`--task` must come with gin files that use @own_task(), such as "
            f"runs/optimize.gin, got {', '.join(map(str, gin_files))}"
        )
    is_trained = config.value("optimize.warm_start") is not None
    config.check("optimize", optional=("fit",) if is_trained else ())


@typed_gin.configurable
@typed_gin.uses(
    experiment,
    train,
    builds={
        FusedAdam: typed_gin.arguments(
            "`Retraining.learning_rate`", epsilon="`Retraining.epsilon`"
        )
    },
    defaults={"retraining": Retraining},
)
def optimize(
    run_dir: str | os.PathLike[str],
    asked: Asked | None = None,
    *,
    task: Task = gin.REQUIRED,
    strategy: Strategy = gin.REQUIRED,
    surrogate: Surrogate | None = None,
    weighting: Weighting | None = None,
    retraining: Retraining | None = None,
    evaluator: evaluation.Evaluator | None = None,
    budget: int = 500,
    queries_per_round: int | None = None,
    num_best: int = 1000,
    num_random: int = 4000,
    num_proposals: int = 1,
    num_samples: int = 0,
    seed: int = 0,
    warm_start: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Runs or resumes an optimisation, and writes its results.

    Args:
      run_dir: Folder of the run: ledger.jsonl (all evaluations), result.json,
        rounds.csv, rounds/ (models of the last rounds), model/ (training run of
        the initial model) and figures/.
      asked: Requests of the ask/tell interface, for evaluations that are made
        elsewhere; None to evaluate the objective here until the budget is
        spent.
      task: The task to optimise.
      strategy: Chooses the queries.
      surrogate: The surrogate of the strategy; None if it needs none.
      weighting: Weights of the data in retraining; None for equal weights.
      retraining: Settings of retraining; None for `Retraining()`.
      evaluator: Evaluates the objective; None to evaluate in this process.
      budget: Total number of queries; it may be raised later.
      queries_per_round: Queries between two retrainings; None for a single
        round.
      num_best: Number of best data points that the surrogate is fitted to.
      num_random: Number of random other points that it is fitted to.
      num_proposals: Latents proposed for each query, of which the first that
        decodes to an input without a known score is queried; 1 as in the
        published method.
      num_samples: Number of prior samples that are scored in addition to the
        budget (and, with two latents, a grid of latents); for objectives that
        are cheap to evaluate.
      seed: Seed of the run.
      warm_start: Folder of a run of `tfvae train` whose model is used at the
        start; None to train a model as configured by `experiment` and `fit`.

    Returns:
      The content of result.json.

    Raises:
      TypeError: If a part has a wrong type.
      ValueError: If values are inconsistent, or the folder has a run of
        another kind or configuration.
      RuntimeError: If another process is using the folder.
    """
    config.check("optimize", optional=("experiment", "fit", "optimize"))
    plan = Plan(
        budget=budget,
        queries_per_round=queries_per_round,
        num_best=num_best,
        num_random=num_random,
        num_proposals=num_proposals,
        num_samples=num_samples,
        seed=seed,
    )
    parts = {
        "strategy": strategy,
        "surrogate": surrogate,
        "weighting": weighting,
        "retraining": retraining,
    }
    _check_parts({"task": task, "evaluator": evaluator, **parts})
    # An objective may change the current folder.
    run = RunDirectory(os.path.abspath(run_dir))
    told = _told(asked, run)
    is_new = RunDirectory(run.path / MODEL).read_summary() is None
    with run.locked(Kind.OPTIMIZATION):
        # With ask/tell, only the queries go to standard output.
        aside = sys.stdout if asked is None else sys.stderr
        with contextlib.redirect_stdout(aside):
            optimizer = opened(run, task, plan, warm_start, parts)
        with optimizer:
            if asked is None:
                _run(optimizer, evaluator)
            else:
                _record(optimizer, told)
                if asked.wants_queries:
                    _print_queries(optimizer)
            result = summary(optimizer)
        run.write_json(RESULT, result)
        if result["num_queries"] >= budget:
            optimization_results.write_pictures(run.path, task)
            write_run_figures(run.path)
        if asked is None:
            _print_result(run, result)
            is_whole = is_new or warm_start is not None
            unused = config.unused("optimize", is_whole=is_whole)
            summaries.print_unused(unused)
    return result


def complete(run_dir: str | os.PathLike[str]) -> None:
    """Adds what a finished run of an earlier version lacks.

    These are the label of the scores, in result.json, and the pictures of the
    best inputs. Nothing is evaluated or drawn. Replaces gin's configuration by
    that of the run.

    Args:
      run_dir: Folder of the run.

    Raises:
      FileNotFoundError: If there is no run in the folder.
      ValueError: If its configuration names what does not exist any more.
    """
    run = RunDirectory(run_dir)
    config.load_run(run.path)
    task = config.evaluated("optimize.task")
    with run.locked():
        optimization_results.write_pictures(run.path, task)
        result = optimization_results.read(run.path).result
        run.write_json(RESULT, {**result, "score_label": task.score_label})


def _run(
    optimizer: LatentSpaceOptimizer, evaluator: evaluation.Evaluator | None
) -> None:
    """Evaluates the objective until the budget is spent."""
    _announce(optimizer)
    progress = _Progress(optimizer)
    for _ in optimizer.steps(evaluator):
        progress.print()


def _check_parts(parts: dict[str, Any]) -> None:
    """Raises an error if a part of `optimize` has a wrong type."""
    for name, part in parts.items():
        is_kind, example = _PARTS[name]
        if part is None and name in _OPTIONAL:
            continue
        if isinstance(part, type) or not is_kind(part):
            raise TypeError(
                f"`optimize.{name}` must be an object, such as {example} with "
                f"parentheses, got {_shown(part)}"
            )
    strategy = parts["strategy"]
    if strategy.uses_surrogate and parts["surrogate"] is None:
        raise ValueError(
            f"`optimize.surrogate` must be given for {type(strategy).__name__},"
            " such as @SparseGaussianProcess(), got None"
        )


def _shown(part: Any) -> str:
    """Returns a readable form of a value for error messages."""
    if isinstance(part, type):
        return f"the class {part.__name__}"
    if inspect.isfunction(part):
        return f"the function {part.__name__}"
    return repr(part)


def _told(
    asked: Asked | None, run: RunDirectory
) -> list[tuple[int, float | None]]:
    """Parses --tell: returns numbers and scores, None for failures."""
    told = []
    for one in () if asked is None else asked.told:
        number, _, score = one.partition("=")
        try:
            value = None if score == "failed" else float(score)
            told.append((int(number), value))
        except ValueError as err:
            raise ValueError(
                f"`--tell` must be NUMBER=SCORE or NUMBER=failed, got {one!r}."
            ) from err
    if told and not (run.path / LEDGER).exists():
        raise ValueError(
            "`--tell` must refer to a query that --ask has printed, got query "
            f"{told[0][0]} but no run in {run.path}; use --ask first."
        )
    return told


def _record(
    optimizer: LatentSpaceOptimizer, told: Sequence[tuple[int, float | None]]
) -> None:
    """Records the results that the user has told."""
    for number, score in told:
        failure = "told to have failed" if score is None else None
        optimizer.tell(number, score, failure=failure)


def _print_queries(optimizer: LatentSpaceOptimizer) -> None:
    """Prints the pending queries."""
    for query in optimizer.ask():
        print(json.dumps({"query": query.number, "input": query.input}))


def opened(
    run: RunDirectory,
    task: Task,
    plan: Plan,
    warm_start: str | os.PathLike[str] | None,
    parts: dict[str, Any],
) -> LatentSpaceOptimizer:
    """Returns the optimiser of a locked run folder; see `optimize`."""
    if (run.path / LEDGER).exists():
        _check_config(run)
    started = _trained(run, warm_start)
    model = started.model
    retraining = parts["retraining"] or Retraining()
    if model.capacity is not None:
        points = task.data(plan.seed).points
        if not np.array_equal(started.observations.train, points):
            raise ValueError(
                "`experiment.data` must be the data of `optimize.task` for a "
                "TVAE, which stores latent states of each data point, got "
                "other data."
            )
        model = model.with_capacity(len(points) + plan.budget)
    # A new optimizer in any case, whether just trained or loaded.
    model.compile(
        FusedAdam(retraining.learning_rate, epsilon=retraining.epsilon)
    )
    optimizer = LatentSpaceOptimizer.of_model(
        run.path, task, model, plan, **parts
    )
    run.write_config()
    task_files.note(run, optimizer.num_done)
    return optimizer


def _check_config(run: RunDirectory) -> None:
    """Raises a ValueError if the folder has a run of another configuration."""
    rules = identity.OPTIMIZATION
    if task_files.is_of(run):  # The same file, by its absolute path.
        rules = rules._replace(free=(*rules.free, task_files.PATH))
    run.refuse_others(rules)


def _trained(
    run: RunDirectory, warm_start: str | os.PathLike[str] | None
) -> Experiment:
    """Returns the initial model, trained first if necessary, and its data."""
    folder = RunDirectory(warm_start or run.path / MODEL)
    parts = experiment()
    if warm_start is None and folder.read_summary() is None:
        print(f"training the model first, in {folder.path}", flush=True)
        train(folder.path, parts)
    # Even if just trained, as drawing figures may change its random state.
    found = tfvae.checkpoints.restore_latest(folder.checkpoints, parts.model)
    if found is None:
        raise FileNotFoundError(
            "`optimize.warm_start` must be the folder of a trained model, got "
            f"{folder.path} without checkpoints."
        )
    return parts


def summary(optimizer: LatentSpaceOptimizer) -> dict[str, Any]:
    """Returns a summary of a run so far, the content of result.json."""
    task, entries = optimizer.task, optimizer.ledger.entries
    header, seconds = optimizer.ledger.header, optimizer.rounds.seconds()
    scores = np.array([optimizer.collection.score_of(one) for one in entries])
    keys = [optimizer.collection.key(one.input) for one in entries]
    best = max(
        (one for one in entries if one.score is not None),
        key=optimizer.collection.score_of,
        default=None,
    )
    # Left out without any score, when they would be that of invalid inputs.
    top = {
        str(k): task.sign * float(top_k(scores, keys, k)[-1])
        for k in TOP
        if best is not None
    }
    return {
        "task": task.name,
        "seed": optimizer.plan.seed,
        "score_label": task.score_label,
        "maximise": task.maximise,
        "budget": optimizer.plan.budget,
        "num_queries": len(entries),
        "num_failures": sum(one.score is None for one in entries),
        "num_distinct": len({k for k in keys if k != "null"}),
        "rounds": len({one.round for one in entries}),
        "top": top,
        "best": None if best is None else best._asdict(),
        "best_in_data": header["best_in_data"],
        "optimum": header["optimum"],
        "seconds": {**seconds, "total": sum(seconds.values())},
    }


def _announce(optimizer: LatentSpaceOptimizer) -> None:
    plan, task = optimizer.plan, optimizer.task
    done = optimizer.num_done
    action = f"resuming after {done} of" if done else "budget of"
    best = optimizer.ledger.header["best_in_data"]
    print(
        f"{task.name}: {optimizer.collection.num_kept:,} data points, the best "
        f"{_number(best)}; {action} {plan.budget} queries, "
        f"{plan.round_size} a round",
        flush=True,
    )


class _Progress:
    """Prints the number of evaluated queries and the remaining time."""

    def __init__(self, optimizer: LatentSpaceOptimizer) -> None:
        self._optimizer = optimizer
        self._first = optimizer.num_done
        self._started = time.perf_counter()
        self._printed = 0.0

    def print(self) -> None:
        """Prints a line, but at most one every few seconds."""
        plan, done = self._optimizer.plan, self._optimizer.num_done
        now = time.perf_counter()
        is_last = done >= plan.budget
        if now - self._printed < _SECONDS_BETWEEN_LINES and not is_last:
            return
        self._printed = now
        each = (now - self._started) / max(done - self._first, 1)
        width = len(str(plan.budget))
        print(
            f"round {plan.round_of(done - 1) + 1}/{plan.num_rounds}  "
            f"query {done:{width}d}/{plan.budget}  "
            f"best {_number(self._optimizer.best())}  "
            f"{each:.2f} s a query, {_left(each * (plan.budget - done))} left",
            file=sys.stderr,
            flush=True,
        )


def _left(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def _print_result(run: RunDirectory, result: dict[str, Any]) -> None:
    """Prints the result of a run."""
    top = ", ".join(f"top-{k} {_number(v)}" for k, v in result["top"].items())
    print(
        f"{result['num_queries']} queries ({result['num_failures']} without a "
        f"score, {result['num_distinct']} distinct inputs): "
        f"{top or 'no query has a score yet'}; best in the data "
        f"{_number(result['best_in_data'])}\n"
        f"ledger, figures and result.json are in {run.path}",
        flush=True,
    )
