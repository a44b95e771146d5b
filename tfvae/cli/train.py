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

import os
import platform
import time

from absl import flags

from tfvae.cli import console

check = console.check_gin_file
_SECONDS_FOR_FIRST_RANK = 1.0


def main(values: flags.FlagValues) -> None:
    """Runs the subcommand."""
    from tfvae import ranks as ranks_lib
    from tfvae.runs import config
    from tfvae.runs.train import train

    ranks = ranks_lib.of_job()
    ranks.share_devices()
    if ranks.size > 1:
        # By these, `mpiexec` says which one was killed.
        where = ranks.gather(f"process {os.getpid()} on {platform.node()}")
        if not ranks.rank:
            named = [f"rank {rank} is {one}" for rank, one in enumerate(where)]
            print("; ".join(named), flush=True)
    try:
        config.load(values.gin_file, console.bindings(values), function="train")
        train(values.run_dir, ranks=ranks)
    except Exception:
        if ranks.rank:
            # What fails on all ranks is for the first one to say.
            time.sleep(_SECONDS_FOR_FIRST_RANK)
        raise


def failed(code: int) -> None:
    """Ends the other ranks, which would wait for this one for ever."""
    from tfvae import ranks as ranks_lib

    ranks_lib.end_job(code)
