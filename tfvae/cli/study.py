# SPDX-License-Identifier: Apache-2.0
r"""Runs a sweep over a grid of configurations, and writes its report.

Usage:
  tfvae study --run_dir=runs/study \
      --gin_file=papers/thesis2021_random_encoders/digits.gin
  tfvae study --run_dir=runs/study --report_only

What is done with a model is what `study.cell` names, such as its training or
an optimisation in its latent space. Each cell of the grid (a level of each
factor of `study.factors`, and a repetition) is run in a folder of its own,
run_dir/cells/<name>, so many at a time as --workers says, one thread each.
The same command goes on with what is not finished, and tries again what
failed (exit code 1). The report, run_dir/report/report.md, is written by what
`study.report` names; it has tables beside the published ones, tests of what
was found there, and figures.

Bindings of --gin_param that do not begin with `study.` override those of all
cells: --gin_param=fit.epochs=15. --smoke only tries whether all of it runs.
"""

from __future__ import annotations

from absl import flags

from tfvae.cli import console

_PARAMETERS = ("seed", "smoke", "workers")


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this subcommand."""
    flags.DEFINE_integer(
        "workers",
        None,
        "Processes at a time; one for each processor.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "smoke",
        None,
        "One epoch and one repetition, to see that all runs; false.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "report_only",
        False,
        "Only write the report of what is finished.",
        flag_values=values,
    )


def check(values: flags.FlagValues) -> None:
    """Raises a ValueError if there is nothing to run."""
    if not values.report_only:
        console.check_gin_file(values)


def main(values: flags.FlagValues) -> None:
    """Runs the subcommand."""
    from tfvae.runs import config
    from tfvae.sweeps import study

    run_dir = values.run_dir
    if values.report_only:
        study.write_report(run_dir)
        return
    ours = [
        f"study.{name} = {values[name].value!r}"
        for name in _PARAMETERS
        if values[name].value is not None
    ]
    config.load(values.gin_file, values.gin_param + ours)
    overrides = [
        one for one in values.gin_param if not one.lstrip().startswith("study.")
    ]
    study.study(run_dir, overrides)
