# SPDX-License-Identifier: Apache-2.0
r"""Trains a model on data points, or resumes an interrupted run.

Usage:
  tfvae train --gin_file=runs/bars.gin --run_dir=runs/bars
  tfvae train --gin_file=runs/array_file.gin \
      --gin_param="DATA='digits.npy'" --gin_param=fit.epochs=40 \
      --run_dir=runs/digits

Writes config.gin, metrics.csv, summary.json, checkpoints/, figures/,
tensorboard/ and saved_model/ to the run folder. Repeat the command to resume an
interrupted run, or with more epochs to extend a finished one. On several
processes (needs tfvae[mpi]; see docs/scaling.md):
  mpiexec -n 4 tfvae train --gin_file=... --run_dir=...
"""

from __future__ import annotations

from absl import flags

from tfvae import ranks as ranks_lib
from tfvae.cli import console

check = console.check_gin_file


def main(values: flags.FlagValues) -> None:
    """Runs the subcommand."""
    from tfvae.runs import config
    from tfvae.runs.train import train

    with console.joined_job() as ranks:
        config.load(values.gin_file, console.bindings(values), function="train")
        train(values.run_dir, ranks=ranks)


# The other ranks would wait for this one for ever.
failed = ranks_lib.end_job
