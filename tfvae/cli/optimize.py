# SPDX-License-Identifier: Apache-2.0
r"""Optimises a black-box objective in the latent space of a model.

Usage:
  tfvae optimize --task=my_task.py --run_dir=runs/mine --budget=30
  tfvae optimize --run_dir=runs/mine --budget=50
  tfvae optimize --run_dir=runs/mine --status

With evaluations that are made elsewhere:
  tfvae optimize --task=my_task.py --run_dir=runs/lab --ask
  tfvae optimize --run_dir=runs/lab --tell=0=1.7 --tell=1=failed --ask=2
  tfvae optimize --run_dir=runs/lab --amend=0=1.8

A published run:
  tfvae optimize --run_dir=runs/shapes \
      --gin_file=papers/neurips2020_weighted_retraining/shapes.gin

Several processes that train the model (needs tfvae[mpi]; docs/scaling.md):
  mpiexec -n 4 tfvae optimize --task=my_task.py --run_dir=runs/mine

Writes ledger.jsonl (each evaluation, flushed to disk before the next one
starts), evaluations.csv, best.csv, report.html, result.json, rounds.csv and
figures/ to the run folder. Repeat the command to resume an interrupted run, or
give the folder alone; no evaluation is repeated. All settings of a folder hold
until others are given.

To optimise an objective of your own, write a Python file that defines `task`;
see the README.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import re
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from absl import flags

from tfvae import ranks as ranks_lib
from tfvae.cli import console
from tfvae.runs.told_results import Requests

_ALL = "all"
_PARAMETERS = {
    "budget": "optimize.budget",
    "repeat": "optimize.repeats",
}
_PATHS = {"task": "own_task.path", "warm_start": "optimize.warm_start"}
# Of `--evaluator`: the class, and its parameters that flags set.
_EVALUATORS = {"pool": "ProcessPool", "ray": "RayPool", "in_process": None}
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_OF_RESULTS = ("tell", "amend", "withdraw")
_OF_EVALUATIONS = (
    "target",
    "patience",
    "time_limit",
    "max_failures",
    "evaluator",
    "workers",
    "timeout",
)
_SETTINGS = ("task", "warm_start", "budget", "repeat")
# Those that several processes have no use for, as they train nothing.
_OF_ONE_PROCESS = ("status", *_OF_RESULTS, "add")
# Those that change nothing where results are recorded alone.
_IDLE = ("warm_start", "budget", "repeat", "gin_param")

GROUPS = {
    "What to optimise": _SETTINGS,
    "Evaluations here": _OF_EVALUATIONS,
    "Evaluations elsewhere": ("ask", *_OF_RESULTS),
    "A run so far": ("status", "add", "retry_failed"),
}
"""Flags by the titles of their groups, for `--help`."""


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this subcommand."""
    for name, text in {
        "task": "Python file that defines `task`.",
        "warm_start": "Folder of a run of `tfvae train` whose model is used at"
        " the start.",
        "time_limit": "Begin no evaluation after this time: seconds, or as in"
        " 90m, 2h.",
        "timeout": "Time limit of an evaluation, as --time_limit, with"
        " --evaluator=pool or ray.",
        "ask": "Print pending queries as JSON lines, and nothing else, to"
        " standard output: all of them, of which there are new ones if none"
        " are pending; with --ask=2, two new ones.",
    }.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    for name, text, least in (
        ("budget", "Total number of queries of the run.", 1),
        ("repeat", "Number of evaluations of each query, averaged.", 1),
        ("patience", "Stop after so many queries without a better one.", 1),
        (
            "max_failures",
            "Stop after so many failures in a row (5 unless set).",
            1,
        ),
        ("workers", "Processes of --evaluator=pool or ray.", 1),
    ):
        console.define_integer(name, text, values, least)
    console.define_float("target", "Stop at this score.", values)
    flags.DEFINE_enum(
        "evaluator",
        None,
        [*_EVALUATORS],
        "Where the objective is evaluated: in this process, in a pool of"
        " processes, or on Ray.",
        flag_values=values,
    )
    for name, text in {
        "tell": "Record the result of a query: NUMBER=SCORE;"
        " NUMBER=SCORE,NAME=VALUE with a constraint, which holds up to 0;"
        " NUMBER=failed or NUMBER=failed:REASON. Repeatable; all are checked"
        " before any is recorded.",
        "amend": "Replace the results of a query, as --tell. Repeatable.",
        "withdraw": "Remove the results of the query of this number, which is"
        " pending again. Repeatable.",
        "add": "Add measurements from a CSV or Parquet file with columns score"
        " and input, or score and x0, x1 and so on; columns constraint:NAME;"
        " or those of evaluations.csv. Rows that the run has are left out."
        " Evaluates nothing. Repeatable.",
    }.items():
        flags.DEFINE_multi_string(name, [], text, flag_values=values)
    for name, text in {
        "status": "Print how far the run is, its best inputs, pending queries"
        " and failures; also while another process runs it.",
        "retry_failed": "Evaluate the queries that have failed once more.",
    }.items():
        flags.DEFINE_boolean(name, False, text, flag_values=values)


def rewritten(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with `--ask` as `--ask=all`.

    Raises:
      ValueError: If `--ask` is followed by a number as an argument of its own.
    """
    for one, following in zip(argv, [*argv[1:], ""], strict=True):
        if one in ("--ask", "-ask") and re.match("[^-]", following):
            raise ValueError(
                "`--ask` must have its number after =, as in --ask=2, got "
                f"--ask {following}"
            )
    bare = ("--ask", "-ask")
    return [f"--ask={_ALL}" if one in bare else one for one in argv]


def check(values: flags.FlagValues) -> None:
    """Raises a ValueError if flags are wrong, or there is nothing to do."""
    _check_alone(values)
    _check_ranks(values)
    _requests(values).parsed()
    if values.ask is not None:
        _count(values)
    for name in ("time_limit", "timeout"):
        _seconds(name, values)
    if values.target is not None and not math.isfinite(values.target):
        raise ValueError(
            f"`--target` must be a finite number, got {values.target}"
        )
    if values.evaluator == "ray" and importlib.util.find_spec("ray") is None:
        raise ValueError(
            "`ray` must be installed for --evaluator=ray: "
            "pip install 'tfvae[ray]'"
        )
    if values.evaluator not in ("pool", "ray"):
        for name in ("workers", "timeout"):
            if values[name].value is not None:
                raise ValueError(
                    f"`--{name}` must come with --evaluator=pool or ray, got "
                    f"--evaluator={values.evaluator or 'in_process'}"
                )
    for path in values.add:
        if not os.path.isfile(path):
            raise ValueError(f"`--add` must be an existing file, got {path!r}")
    is_new = not os.path.isfile(os.path.join(values.run_dir, "config.gin"))
    if is_new and _needs_model(values):
        if not values.task and not values.gin_file:
            raise ValueError(
                "`--task` must be given for a new run, such as "
                "--task=my_task.py, or --gin_file for a published one; there "
                f"is no config.gin in {values.run_dir}"
            )


def _check_alone(values: flags.FlagValues) -> None:
    """Raises a ValueError for flags that do not go together."""
    given = [
        name
        for names in (*GROUPS.values(), ("gin_file", "gin_param", "seed"))
        for name in names
        if values[name].present
    ]
    if values.status:
        others = [name for name in given if name != "status"]
        if others:
            raise ValueError(
                f"`--status` must be alone, got --{others[0]}, too"
            )
    idle = [name for name in given if name in _OF_EVALUATIONS]
    if idle and values.ask is not None:
        raise ValueError(
            f"`--{idle[0]}` must come without --ask, with which the objective "
            "is evaluated elsewhere"
        )
    if idle and not _evaluates(values):
        raise ValueError(
            f"`--{idle[0]}` must come without --tell, --amend, --withdraw and "
            "--add, which only record results"
        )
    if not _needs_model(values):
        ignored = [name for name in given if name in _IDLE]
        if ignored:
            raise ValueError(
                f"`--{ignored[0]}` must come with --ask, or without --tell, "
                "--amend and --withdraw, which only record results"
            )


def _check_ranks(values: flags.FlagValues) -> None:
    """Raises a ValueError for flags that several processes do not take."""
    size, _ = ranks_lib.launched()
    given = [name for name in _OF_ONE_PROCESS if values[name].value]
    if size > 1 and given:
        raise ValueError(
            f"`--{given[0]}` must be given to one process, as it trains "
            f"nothing, got {size} of MPI; start it without mpiexec"
        )


def _needs_model(values: flags.FlagValues) -> bool:
    """Whether there is more to do than to print, or to record results."""
    if values.status:
        return False
    more = values.ask is not None or values.add or values.retry_failed
    return bool(more) or not any(values[name].value for name in _OF_RESULTS)


def _evaluates(values: flags.FlagValues) -> bool:
    """Whether the objective is evaluated here."""
    if values.ask is not None or not _needs_model(values):
        return False
    return values.retry_failed or not values.add


def _count(values: flags.FlagValues) -> int | None:
    """Returns how many new queries `--ask` wants, None for the pending ones."""
    if values.ask == _ALL:
        return None
    if not re.fullmatch("[1-9][0-9]*", values.ask):
        raise ValueError(
            "`--ask` must be a positive integer, as in --ask=2, or without a "
            f"value, got {values.ask!r}"
        )
    return int(values.ask)


def _seconds(name: str, values: flags.FlagValues) -> float | None:
    """Returns the value of a flag in seconds, None unless it is given."""
    given = values[name].value
    if given is None:
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", given)
    if found is None or not float(found[1]):
        raise ValueError(
            f"`--{name}` must be seconds, or as in 90m or 2h, got {given!r}"
        )
    return float(found[1]) * _SECONDS[found[2]]


def first(values: flags.FlagValues) -> int | console.Main:
    """Does what needs no model: prints the status, and records results.

    Returns:
      0 if that was all, or what there is to do once TensorFlow is imported.
    """
    if values.status:
        from tfvae.runs import optimization_status

        width = shutil.get_terminal_size((80, 24)).columns
        print(optimization_status.text(values.run_dir, width))
        return 0
    answers = None if values.ask is None else console.only_answers()
    wanted = _requests(values).parsed()
    if wanted:
        from tfvae.runs import told_results

        for line in told_results.record(values.run_dir, wanted):
            print(line, file=sys.stderr)
    if _needs_model(values):
        return functools.partial(main, answers=answers)
    from tfvae.runs import optimization_readout

    optimization_readout.write(values.run_dir)
    return 0


def _requests(values: flags.FlagValues) -> Requests:
    return Requests(values.withdraw, values.amend, values.tell)


def main(values: flags.FlagValues, answers: TextIO | None = None) -> None:
    """Runs the subcommand.

    Args:
      values: Its flags.
      answers: Where `--ask` prints queries to.
    """
    from tfvae.lso.stopping import Stopping
    from tfvae.runs import optimize

    with console.joined_job() as ranks:
        optimize.load(
            values.gin_file,
            _bindings(values),
            values.task,
            values["seed"].value,
            run_dir=values.run_dir,
        )
        ranks.barrier()  # Before the first one writes what all have read.
        requests = optimize.Requests(
            answers,
            None if values.ask is None else _count(values),
            _evaluates(values),
            tuple(os.path.abspath(path) for path in values.add),
            values.retry_failed,
            Stopping(
                values.target,
                values.patience,
                _seconds("time_limit", values),
                values.max_failures or 5,
            ),
        )
        optimize.optimize(os.path.abspath(values.run_dir), requests, ranks)


# The other ranks would wait for this one for ever.
failed = ranks_lib.end_job


def _bindings(values: flags.FlagValues) -> list[str]:
    """Returns the gin bindings of the flags."""
    bound = console.bindings(values, _PARAMETERS)
    # The folder is used from other folders, too.
    for name, parameter in _PATHS.items():
        path = values[name].value
        if path:
            bound.append(f"{parameter} = {os.path.abspath(path)!r}")
    if values.evaluator is None:
        return bound
    kind = _EVALUATORS[values.evaluator]
    if kind is None:
        return [*bound, "optimize.evaluator = None"]
    bound.append(f"optimize.evaluator = @{kind}()")
    if values.workers is not None:
        bound.append(f"{kind}.workers = {values.workers}")
    timeout = _seconds("timeout", values)
    if timeout is not None:
        bound.append(f"{kind}.timeout_seconds = {timeout}")
    return bound
