# SPDX-License-Identifier: Apache-2.0
r"""Optimises a black-box objective in the latent space of a model.

Usage:
  tfvae optimize --run_dir=runs/shapes \
      --gin_file=papers/neurips2020_weighted_retraining/shapes.gin
  tfvae optimize --run_dir=runs/mine --task=my_task.py
  tfvae optimize --run_dir=runs/mine --task=my_task.py --ask
  tfvae optimize --run_dir=runs/mine --task=my_task.py --tell=3=0.71

Writes ledger.jsonl (one line per evaluation, flushed to disk before the next
one starts), result.json, rounds.csv and figures/ to the run folder. Repeat the
command to resume an interrupted run; no evaluation is repeated.

To optimise an objective of your own, write a Python file that defines `task`;
see the README. To evaluate the objective outside of this command, use --ask,
which prints the pending queries, and --tell, which records a score.
"""

from __future__ import annotations

import os

from absl import flags

from tfvae.cli import console

_DEFAULT = "runs/optimize.gin"
_PARAMETERS = {
    "budget": "optimize.budget",
    "warm_start": "optimize.warm_start",
    "task": "own_task.path",
}


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this subcommand."""
    flags.DEFINE_string(
        "task", None, "Python file that defines `task`.", flag_values=values
    )
    flags.DEFINE_string(
        "warm_start",
        None,
        "Folder of a run of `tfvae train` whose model is used at the start.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "budget",
        None,
        "Total number of queries of the run.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "ask",
        False,
        "Print the pending queries as JSON lines, and exit.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "tell",
        [],
        "Record the score of a query, as NUMBER=SCORE or NUMBER=failed."
        " Repeatable.",
        flag_values=values,
    )


def check(values: flags.FlagValues) -> None:
    """Raises a ValueError if there is nothing to optimise."""
    if not values.task:
        console.check_gin_file(values)


def main(values: flags.FlagValues) -> None:
    """Runs the subcommand."""
    from tfvae.runs import optimize

    is_default = bool(values.task) and not values.gin_file
    files = [_DEFAULT] if is_default else values.gin_file
    bound = console.bindings(values, _PARAMETERS)
    optimize.load(files, bound, values.task, values["seed"].value)
    asked = None
    if values.ask or values.tell:
        asked = optimize.Asked(values.ask, values.tell)
    optimize.optimize(os.path.abspath(values.run_dir), asked)
