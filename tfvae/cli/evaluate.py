# SPDX-License-Identifier: Apache-2.0
r"""Evaluates the model of a run on held-out data.

Usage:
  tfvae evaluate --run_dir=runs/bars
  tfvae evaluate --run_dir=runs/bars \
      --gin_param=bars.num_test=1000

Reads config.gin of the run folder; --gin_file and --gin_param override it.
Prints the metrics and writes them to evaluation.json in the run folder.
"""

from __future__ import annotations

from absl import flags

from tfvae.cli import console


def main(values: flags.FlagValues) -> None:
    """Runs the subcommand."""
    from tfvae.runs import config
    from tfvae.runs.evaluate import evaluate

    run_dir = values.run_dir
    bindings = console.bindings(values)
    config.load_run(run_dir, values.gin_file, bindings, function="evaluate")
    evaluate(run_dir)
