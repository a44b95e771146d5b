# SPDX-License-Identifier: Apache-2.0
r"""Exports the model of a run as a SavedModel, for TensorFlow Serving.

Usage:
  tfvae export --run_dir=runs/bars
  tfvae export --run_dir=runs/bars --output=models/bars/1
  tfvae export --run_dir=runs/bars --limit=num_samples=500 --limit=rows=1000
  saved_model_cli show --all --dir models/bars/1

The SavedModel has the signatures serving_default, serving_observed, encode,
decode, reconstruct, sample and log_likelihood_bound, that of a VAE also mean,
and can be loaded without tfvae. Requests over a limit are refused: rows,
num_samples, max_steps of a TVAE, row_samples (rows times num_samples) of a VAE
and row_steps (rows times steps) of a TVAE; docs/serving.md has the defaults.
"""

from __future__ import annotations

import re

from absl import flags

from tfvae.cli import console

# The fields of `serving.Limits`, which takes seconds to import.
_LIMITS = ("rows", "num_samples", "max_steps", "row_samples", "row_steps")


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this subcommand."""
    flags.DEFINE_string(
        "output",
        None,
        "Folder of the SavedModel (saved_model/ in the run folder unless set).",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "limit",
        [],
        "Largest request that is answered, as name=number. Repeatable.",
        flag_values=values,
    )


def check(values: flags.FlagValues) -> None:
    """Raises a ValueError if a limit is not a positive number with a name."""
    for limit in values.limit:
        if not re.fullmatch(rf"({'|'.join(_LIMITS)})=[1-9][0-9]*", limit):
            raise ValueError(
                "`--limit` must be as in --limit=num_samples=500, of "
                f"{', '.join(_LIMITS)}, got {limit!r}"
            )


def main(values: flags.FlagValues) -> None:
    """Runs the subcommand."""
    from tfvae.runs import config
    from tfvae.runs.export import export

    run_dir = values.run_dir
    bindings = [
        "export.limits = @Limits()",
        *console.bindings(values, {"output": "export.output"}),
        *(f"Limits.{limit}" for limit in values.limit),
    ]
    config.load_run(run_dir, values.gin_file, bindings, function="export")
    export(run_dir)
