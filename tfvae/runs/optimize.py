# SPDX-License-Identifier: Apache-2.0
"""Run that optimises a task in the latent space of a model."""

from __future__ import annotations

import collections
import contextlib
import inspect
import json
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TextIO

import gin
import numpy as np

import tfvae.checkpoints
import tfvae.lso.ray_pool  # noqa: F401 (registers with gin)
from tfvae import typed_gin
from tfvae.data import Observations
from tfvae.latent_model import LatentModel
from tfvae.lso import evaluation, joint_training, rank_retraining
from tfvae.lso.ledger import LEDGER, read_ledger
from tfvae.lso.loop import LatentSpaceOptimizer
from tfvae.lso.plan import Plan
from tfvae.lso.reading import refusals, resolved
from tfvae.lso.records import Addition
from tfvae.lso.retraining import Retraining
from tfvae.lso.snapshots import WEIGHTS, read_arrays, save_weights
from tfvae.lso.stopping import Stopping
from tfvae.lso.strategies import Strategy
from tfvae.lso.surrogates import Surrogate
from tfvae.lso.tasks.base import LeftOut, Task
from tfvae.lso.warping import Warping
from tfvae.lso.weighting import Unweighted, Weighting
from tfvae.optimizers import FusedAdam
from tfvae.ranks import ONE_PROCESS, Ranks
from tfvae.runs import (
    added_measurements,
    config,
    evaluations,
    identity,
    optimization_results,
    optimization_tables,
    summaries,
    task_files,
)
from tfvae.runs.experiment import Experiment, experiment
from tfvae.runs.kinds import Kind
from tfvae.runs.optimization_readout import ReadOut
from tfvae.runs.optimization_state import RESULT, read_json
from tfvae.runs.optimization_status import MODEL
from tfvae.runs.run_directory import RunDirectory
from tfvae.runs.train import train

GIVEN = "given.json"
"""File of a run folder with the names of bindings of its command lines."""
DEFAULT = "runs/optimize.gin"
"""Configuration of a task of one's own."""

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
    "warping": (callable, "@RankGaussian()"),
    "evaluator": (callable, "@ProcessPool()"),
}
_OPTIONAL = ("surrogate", "weighting", "retraining", "warping", "evaluator")

_logger = logging.getLogger(__name__)


class Requests(NamedTuple):
    """What a command line wants of a run, apart from its configuration."""

    answers: TextIO | None = None
    """Where pending queries are printed, as JSON lines, for evaluations that
    are made elsewhere; None to evaluate the objective here."""
    num_new: int | None = None
    """How many new queries are wanted; None for the pending ones, of which
    there are new ones if none are pending."""
    evaluates: bool = True
    """Whether the objective is evaluated here, where there are no answers."""
    added: Sequence[str] = ()
    """Files with measurements to add, see `added_measurements`."""
    retries_failed: bool = False
    """Whether queries that have failed are evaluated once more."""
    stopping: Stopping = Stopping()
    """What ends the evaluations here before the budget is spent."""


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
    return Observations(
        name=task.name,
        train=data.points.astype(np.float32, copy=False),
        weights=weights,
    )


@typed_gin.register
def num_dimensions(task: Task) -> int:
    """Returns D, the size of a data point of a task."""
    # The same for all seeds, so use the data that `scored_data` needs anyway.
    seed = config.value("scored_data.seed") or 0
    return task.data(seed).points.shape[1]


@typed_gin.register
def num_epochs(
    task: Task,
    batch_size: int,
    min_epochs: int = 50,
    min_steps: int = 800,
) -> int:
    """Returns the epochs of the first model, more of them for few data.

    Args:
      task: The task.
      batch_size: Data points of a batch.
      min_epochs: The least number of epochs.
      min_steps: The least number of training steps.
    """
    seed = config.value("scored_data.seed") or 0
    num_batches = math.ceil(len(task.data(seed).points) / batch_size)
    return max(min_epochs, math.ceil(min_steps / num_batches))


def load(
    gin_files: Sequence[str],
    gin_params: Sequence[str],
    task: str | None = None,
    seed: int | None = None,
    *,
    run_dir: str | os.PathLike[str] | None = None,
) -> None:
    """Loads the configuration of an optimisation.

    What a folder has been given once holds until it is given anew: without
    files, its configuration is the base; with files, its budget and what was
    bound by `gin_params` are.

    Args:
      gin_files: See `config.load`; none for those of the folder, or of a task
        of one's own.
      gin_params: See `config.load`.
      task: File of the task, which the gin files must refer to by
        `@own_task()`; None for the task of the gin files.
      seed: Seed of the run and its data; None for those of the gin files.
      run_dir: Folder of the run; None for a new one.

    Raises:
      ValueError: If the gin files do not use the task of the file.
    """
    seeds = [f"{name}.seed = {seed}" for name in ("optimize", "scored_data")]
    params = [*gin_params, *(seeds if seed is not None else ())]
    may_be_idle = ("own_task.path", "scored_data.seed")
    held = [] if run_dir is None else _held(RunDirectory(run_dir), gin_files)
    if run_dir is not None and not gin_files and _is_configured(run_dir):
        config.load_run(
            run_dir,
            (),
            [*held, *params],
            function="optimize",
            may_be_idle=may_be_idle,
        )
    else:
        config.load(
            gin_files or [DEFAULT],
            [*held, *params],
            function="optimize",
            may_be_idle=may_be_idle,
        )
    if task and "@own_task" not in config.text():
        raise ValueError(
            "`--task` must come with gin files that use @own_task(), such as "
            f"runs/optimize.gin, got {', '.join(map(str, gin_files))}"
        )
    is_trained = config.value("optimize.warm_start") is not None
    config.check("optimize", optional=("fit",) if is_trained else ())


def _is_configured(run_dir: str | os.PathLike[str]) -> bool:
    """Whether a folder has a configuration, of a run that may not have begun.

    A run that has not is configured anew where there is anything to do so.
    """
    return RunDirectory(run_dir).read_config() is not None


def _held(run: RunDirectory, gin_files: Sequence[str]) -> list[str]:
    """Returns the bindings of a run that hold over gin files."""
    ledger = run.path / LEDGER
    if not ledger.exists() or not ledger.stat().st_size:
        return []
    header = read_ledger(ledger).header
    held = {}
    saved = run.read_config()
    if saved is not None and gin_files:
        names = read_json(run.path / GIVEN).get("bindings", [])
        values = config.bindings(saved)
        held = {name: values[name] for name in names if name in values}
    # A killed process may have recorded another one than in its configuration.
    for name in ("budget", "min_distance"):
        if header.get(name):
            held[f"optimize.{name}"] = repr(header[name])
    return [f"{name} = {value}" for name, value in held.items()]


def _note_given(run: RunDirectory) -> None:
    """Records the bindings that the command line has given so far."""
    before = read_json(run.path / GIVEN).get("bindings", [])
    given = sorted({*before, *config.given()})
    run.write_json(GIVEN, {"bindings": given})


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
    requests: Requests | None = None,
    ranks: Ranks = ONE_PROCESS,
    *,
    task: Task = gin.REQUIRED,
    strategy: Strategy = gin.REQUIRED,
    surrogate: Surrogate | None = None,
    weighting: Weighting | None = None,
    retraining: Retraining | None = None,
    warping: Warping | None = None,
    evaluator: evaluation.Evaluator | None = None,
    budget: int = 500,
    queries_per_round: int | None = None,
    num_best: int = 1000,
    num_random: int = 4000,
    num_proposals: int = 1,
    num_samples: int = 0,
    repeats: int = 1,
    skips_known: bool = False,
    min_distance: float = 0.0,
    seed: int = 0,
    warm_start: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Runs or resumes an optimisation, and writes its results.

    Args:
      run_dir: Folder of the run: ledger.jsonl (all evaluations), rounds.csv,
        rounds/ (models of the last rounds), model/ (training run of the initial
        model), and the read-out: evaluations.csv, best.csv, result.json,
        report.html and figures/; left_out.csv, if some of what was read became
        no data.
      requests: What is wanted; None to evaluate the objective here until the
        budget is spent.
      ranks: The processes that train the model together, each of which calls
        this function. The first one does all but training.
      task: The task to optimise.
      strategy: Chooses the queries.
      surrogate: The surrogate of the strategy; None if it needs none.
      weighting: Weights of the data in retraining; None for equal weights.
      retraining: Settings of retraining; None for `Retraining()`.
      warping: Transforms scores before the surrogate is fitted to them; None
        for no transformation.
      evaluator: Evaluates the objective; None to evaluate in this process.
      budget: Total number of queries; it may be changed later.
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
      repeats: Number of evaluations of each query, whose mean is its score.
      skips_known: Whether an input with a known score takes it, and is no
        query.
      min_distance: Least distance of a query to any known or pending one, in
        standard deviations of the data's latents.
      seed: Seed of the run.
      warm_start: Folder of a run of `tfvae train` whose model is used at the
        start; None to train a model as configured by `experiment` and `fit`.

    Returns:
      The content of result.json; empty on all ranks but the first.

    Raises:
      TypeError: If a part has a wrong type.
      ValueError: If values are inconsistent, or the folder has a run of
        another kind or configuration; or if several ranks are to train a TVAE.
      RuntimeError: If another process is using the folder.
      StoppedError: If an interrupt or failures ended it before its time.
    """
    config.check("optimize", optional=("experiment", "fit", "optimize"))
    plan = Plan(
        budget=budget,
        queries_per_round=queries_per_round,
        num_best=num_best,
        num_random=num_random,
        num_proposals=num_proposals,
        num_samples=num_samples,
        repeats=repeats,
        skips_known=skips_known,
        min_distance=min_distance,
        seed=seed,
    )
    parts = {
        "strategy": strategy,
        "surrogate": surrogate,
        "weighting": weighting,
        "retraining": retraining,
        "warping": warping,
    }
    _check_parts({"task": task, "evaluator": evaluator, **parts})
    # An objective may change the current folder.
    run = RunDirectory(os.path.abspath(run_dir))
    if ranks.rank:
        _follow(run, plan, warm_start, parts, ranks)
        return {}
    requests = requests or Requests()
    is_new = RunDirectory(run.path / MODEL).read_summary() is None
    # With ask/tell, only the queries go to standard output.
    aside = sys.stdout if requests.answers is None else sys.stderr
    with run.locked(Kind.OPTIMIZATION), contextlib.redirect_stdout(aside):
        if requests.answers is None and requests.evaluates:
            _warn_of_idle_workers(evaluator, strategy, plan)
        # Before anything is trained. The optimizer tries them again.
        whole = resolved(task, task.data(seed))
        _note_left_out(run, task.data(seed).left_out)
        added = _added(run, whole, seed, requests.added)
        with opened(
            run, task, plan, warm_start, parts, len(added), ranks
        ) as optimizer:
            result = _done(run, optimizer, evaluator, requests, added)
        rank_retraining.release(ranks)
        if requests.answers is None:
            is_whole = is_new or warm_start is not None
            unused = config.unused("optimize", is_whole=is_whole)
            summaries.print_unused(unused)
    return result


def _note_left_out(run: RunDirectory, left_out: Sequence[LeftOut]) -> None:
    """Writes what became no data, and counts it unless that was done."""
    is_new = optimization_tables.write_left_out(run.path, left_out)
    if not is_new or not left_out:
        return
    reasons = collections.Counter(one.reason for one in left_out)
    print(
        f"{len(left_out):,} lines left out of the data, listed in "
        f"{optimization_tables.LEFT_OUT}: {refusals(reasons)}",
        flush=True,
    )


def _done(
    run: RunDirectory,
    optimizer: LatentSpaceOptimizer,
    evaluator: evaluation.Evaluator | None,
    requests: Requests,
    added: Sequence[Addition],
) -> dict[str, Any]:
    """Does what is wanted of an opened run; returns its summary."""
    for name, (old, new) in optimizer.ledger.changed.items():
        _say(f"{name} {old} -> {new}")
    is_noisy = optimizer.task.is_noisy or optimizer.plan.repeats > 1
    predicted = optimizer.predicted if is_noisy else None
    read_out = ReadOut(run.path, optimizer.task, predicted)
    if requests.added:
        optimizer.add(added)
        _say(f"{len(added)} measurements added")
    if requests.retries_failed:
        _say(_retried(optimizer.retry_failed()))
    if requests.answers is not None:
        print_queries(optimizer, requests.answers, requests.num_new)
        return read_out.write()
    if not requests.evaluates:
        return read_out.write()
    return evaluations.run(optimizer, evaluator, requests.stopping, read_out)


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
    if task.to_picture is not None and task.from_json is None:
        task = resolved(task, task.data(config.value("optimize.seed") or 0))
    with run.locked():
        optimization_results.write_pictures(run.path, task)
        result = optimization_results.read(run.path).result
        run.write_json(RESULT, {**result, "score_label": task.score_label})


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
    retraining = parts["retraining"]
    if retraining is not None and retraining.surrogate_weight:
        joint_training.check_strategy(strategy, parts["surrogate"])


def _warn_of_idle_workers(
    evaluator: evaluation.Evaluator | None, strategy: Strategy, plan: Plan
) -> None:
    """Warns if a strategy proposes fewer queries than there are workers."""
    workers = getattr(evaluator, "workers", None) or 1
    num_queries = strategy.num_at_a_time(plan.round_size)
    if num_queries * plan.repeats < workers:
        _logger.warning(
            "fewer evaluations at a time than %d workers: the strategy "
            "proposes %d; its `batch_size` can be set for a new run, as in "
            "--gin_param=ExpectedImprovement.batch_size=%d",
            workers,
            num_queries,
            math.ceil(workers / plan.repeats),
        )


def _shown(part: Any) -> str:
    """Returns a readable form of a value for error messages."""
    if isinstance(part, type):
        return f"the class {part.__name__}"
    if inspect.isfunction(part):
        return f"the function {part.__name__}"
    return repr(part)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _retried(numbers: Sequence[int]) -> str:
    if not numbers:
        return "no query has failed that could be evaluated again"
    which = ", ".join(map(str, numbers))
    return f"{len(numbers)} failed queries are pending again: {which}"


def _added(
    run: RunDirectory, task: Task, seed: int, paths: Sequence[str]
) -> list[Addition]:
    """Reads measurements to add, of all files or, if one is wrong, of none."""
    if not paths:
        return []
    data = task.data(seed)
    ledger = run.path / LEDGER
    has_run = ledger.exists() and ledger.stat().st_size
    known = read_ledger(ledger) if has_run else None
    inputs = [one.input for one in known.entries] if known else []
    found = [
        one
        for path in paths
        for one in added_measurements.read(path, task, data, inputs)
    ]
    if known is None:
        return found
    new = added_measurements.new(found, known, task)
    if len(new) < len(found):
        _say(f"{len(found) - len(new)} measurements were in the run already")
    return new


def print_queries(
    optimizer: LatentSpaceOptimizer, answers: TextIO, count: int | None
) -> None:
    """Prints queries as JSON lines, one for each evaluation that is missing.

    Args:
      optimizer: The optimizer.
      answers: Where to print.
      count: How many new queries to propose; None for the pending ones.
    """
    queries = optimizer.ask(count)
    repeats = optimizer.plan.repeats
    done = {one.query: one.num_results for one in optimizer.ledger.entries}
    for query in queries:
        line = {
            "query": query.number,
            "input": query.input,
            "round": query.round,
        }
        for repeat in range(done.get(query.number, 0), repeats):
            of_several = {"repeat": repeat + 1, "repeats": repeats}
            more = of_several if repeats > 1 else {}
            print(json.dumps({**line, **more}), file=answers, flush=True)
    if len(queries) < (count or 1):
        why = optimizer.why_exhausted
        if not optimizer.is_exhausted:
            why = f"the budget of {optimizer.plan.budget} is reached"
        _say(f"{len(queries)} queries: {why}")


def opened(
    run: RunDirectory,
    task: Task,
    plan: Plan,
    warm_start: str | os.PathLike[str] | None,
    parts: dict[str, Any],
    num_added: int = 0,
    ranks: Ranks = ONE_PROCESS,
) -> LatentSpaceOptimizer:
    """Returns the optimiser of a locked run folder; see `optimize`.

    Args:
      run: The folder.
      task: See `optimize`.
      plan: The plan.
      warm_start: See `optimize`.
      parts: Other parts of the optimiser, by name.
      num_added: Number of measurements that are to be added.
      ranks: The processes, of which this is the first.
    """
    ledger = run.path / LEDGER
    if ledger.exists() and ledger.stat().st_size:
        num_added += len(read_ledger(ledger).additions)
        _check_config(run)
    else:
        # So that the folder is enough to go on, once its model is trained.
        run.write_config()
    retraining = parts["retraining"] or Retraining()
    started = _trained(run, warm_start, retraining, ranks)
    model = started.model
    if model.capacity is not None:
        points = task.data(plan.seed).points
        if not np.array_equal(started.observations.train, points):
            raise ValueError(
                "`experiment.data` must be the data of `optimize.task` for a "
                "TVAE, which stores latent states of each data point, got "
                "other data."
            )
        most = len(points) + plan.budget + num_added
        model = model.with_capacity(most)
    _compile(model, retraining)
    optimizer = LatentSpaceOptimizer.of_model(
        run.path, task, model, plan, **parts
    )
    run.write_config()
    _note_given(run)
    _restore_weights(run, optimizer, parts["weighting"])
    task_files.note(run, optimizer.num_done)
    return optimizer


def _compile(model: LatentModel, retraining: Retraining) -> None:
    """Gives a model a new optimizer, whether just trained or loaded."""
    model.compile(
        FusedAdam(retraining.learning_rate, epsilon=retraining.epsilon)
    )


def _follow(
    run: RunDirectory,
    plan: Plan,
    warm_start: str | os.PathLike[str] | None,
    parts: dict[str, Any],
    ranks: Ranks,
) -> None:
    """Trains what another rank optimises; see `opened`."""
    retraining = parts["retraining"] or Retraining()
    model = _trained(run, warm_start, retraining, ranks).model
    _compile(model, retraining)
    # The first rank, which has it, too, decides what an interrupt ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rank_retraining.follow(
        model,
        plan,
        surrogate=parts["surrogate"],
        retraining=retraining,
        warping=parts["warping"],
    )


def _restore_weights(
    run: RunDirectory,
    optimizer: LatentSpaceOptimizer,
    weighting: Weighting | None,
) -> None:
    """Writes the weights of the first round again if their file is damaged."""
    path = run.path / WEIGHTS
    if not path.exists() or read_arrays(path) is not None:
        return
    scores = optimizer.task.data(optimizer.plan.seed).scores
    weights = (weighting or Unweighted())(optimizer.task.sign * scores)
    save_weights(run.path, scores, weights)


def _check_config(run: RunDirectory) -> None:
    """Raises a ValueError if the folder has a run of another configuration."""
    rules = identity.OPTIMIZATION
    if task_files.is_of(run):  # The same file, by its absolute path.
        rules = rules._replace(free=(*rules.free, task_files.PATH))
    run.refuse_others(rules)


def _trained(
    run: RunDirectory,
    warm_start: str | os.PathLike[str] | None,
    retraining: Retraining,
    ranks: Ranks = ONE_PROCESS,
) -> Experiment:
    """Returns the initial model, trained first if necessary, and its data."""
    folder = RunDirectory(warm_start or run.path / MODEL)
    parts = experiment(ranks=ranks, draws_states=False)
    if ranks.size > 1 and parts.model.capacity is not None:
        raise ValueError(
            "`experiment.model` must be @vae on several processes, got "
            f"{type(parts.model).__name__}, whose states of all data points "
            "the optimisation needs in one"
        )
    if retraining.surrogate_weight:
        joint_training.check_model(parts.model)
    is_trained = warm_start is not None or folder.read_summary() is not None
    if not ranks.broadcast(is_trained):
        if not ranks.rank:
            print(f"training the model first, in {folder.path}", flush=True)
        train(folder.path, parts, ranks)
    # Even if just trained, as drawing figures may change its random state.
    found = tfvae.checkpoints.restore_latest(folder.checkpoints, parts.model)
    if found is None:
        raise FileNotFoundError(
            "`optimize.warm_start` must be the folder of a trained model, got "
            f"{folder.path} without checkpoints."
        )
    return parts
