# SPDX-License-Identifier: Apache-2.0
r"""Optimises an expensive function in the latent space of a model.

Usage:
  python tools/optimize.py --run_dir=runs/shapes \
      --gin_file=gin/papers/neurips2020_weighted_retraining/shapes.gin
  python tools/optimize.py --run_dir=runs/mine --task=my_task.py
  python tools/optimize.py --run_dir=runs/mine --task=my_task.py --ask
  python tools/optimize.py --run_dir=runs/mine --task=my_task.py --tell=3=0.71

The run folder gets ledger.jsonl, a line for each evaluation that is on the
disk before the next one starts, result.json, rounds.csv and figures/. The same
command again goes on where it stopped, and repeats no evaluation.

A task of your own is a Python file with a `task`; see the README. --ask prints
the queries that want a score and --tell records one, for evaluations that are
made elsewhere.
"""

from __future__ import annotations

import os
import sys

import console
from absl import flags

_DEFAULT = "runs/optimize.gin"
_PARAMETERS = {
    "budget": "optimize.budget",
    "warm_start": "optimize.warm_start",
    "task": "own_task.path",
}


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this tool."""
    flags.DEFINE_string(
        "task", None, "Python file that has a `task`.", flag_values=values
    )
    flags.DEFINE_string(
        "warm_start",
        None,
        "Folder of a run of tools/train.py with the model to begin with.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "budget", None, "Queries of the whole run.", flag_values=values
    )
    flags.DEFINE_boolean(
        "ask",
        False,
        "Print the queries that want a score, as JSON lines, and stop.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "tell",
        [],
        "NUMBER=SCORE of a query, or NUMBER=failed. Repeatable.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Runs the tool."""
    from tfvae.runs import optimize

    is_default = bool(values.task) and not values.gin_file
    files = [_DEFAULT] if is_default else console.gin_files(values)
    bound = console.bindings(values, _PARAMETERS)
    optimize.load(files, bound, values.task, values["seed"].value)
    asked = None
    if values.ask or values.tell:
        asked = optimize.Asked(values.ask, values.tell)
    optimize.optimize(os.path.abspath(console.run_dir(values)), asked)


if __name__ == "__main__":
    sys.exit(console.run(main, __doc__, define))
