# SPDX-License-Identifier: Apache-2.0
r"""Trains a model on data points, or goes on with an interrupted run.

Usage:
  python tools/train.py --gin_file=gin/runs/bars.gin --run_dir=runs/bars
  python tools/train.py --gin_file=gin/runs/array_file.gin \
      --gin_param="DATA='digits.npy'" --gin_param=fit.epochs=40 \
      --run_dir=runs/digits

The run folder gets config.gin, metrics.csv, summary.json, checkpoints/,
figures/, tensorboard/ and saved_model/. The same command again resumes a run
that was interrupted; more epochs extend one that is finished.
"""

from __future__ import annotations

import sys

import console
from absl import flags


def main(values: flags.FlagValues) -> None:
    """Runs the tool."""
    from tfvae.runs import config
    from tfvae.runs.train import train

    config.load(console.gin_files(values), console.bindings(values))
    train(console.run_dir(values))


if __name__ == "__main__":
    sys.exit(console.run(main, __doc__))
