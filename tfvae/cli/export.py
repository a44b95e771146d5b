# SPDX-License-Identifier: Apache-2.0
r"""Exports the model of a run as a SavedModel, for TensorFlow Serving.

Usage:
  tfvae export --run_dir=runs/bars
  tfvae export --run_dir=runs/bars --output=models/bars/1
  saved_model_cli show --all --dir models/bars/1

The SavedModel has the signatures encode, decode, reconstruct, sample and
log_likelihood_bound, and can be loaded without tfvae.
"""

from __future__ import annotations

from absl import flags

from tfvae.cli import console


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this subcommand."""
    flags.DEFINE_string(
        "output",
        None,
        "Folder of the SavedModel (saved_model/ in the run folder unless set).",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Runs the subcommand."""
    from tfvae.runs import config
    from tfvae.runs.export import export

    run_dir = values.run_dir
    bindings = console.bindings(values, {"output": "export.output"})
    config.load_run(run_dir, values.gin_file, bindings, function="export")
    export(run_dir)
