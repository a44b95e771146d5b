# SPDX-License-Identifier: Apache-2.0
r"""Runs a sweep over a grid of configurations, and writes its report.

Usage:
  tfvae study --run_dir=runs/study \
      --gin_file=papers/thesis2021_random_encoders/digits.gin
  tfvae study --run_dir=runs/study --report_only

A cell of the grid is a combination of levels of the factors in
`study.factors`, and a repetition. The function that `study.cell` names runs
it, for example a training or an optimisation in a latent space, in a folder of
its own, run_dir/cells/<name>. --workers cells run at a time, in processes of
one thread each. Repeat the command to run what is not finished and to retry
cells that failed (exit code 1). The function that `study.report` names writes
the report, run_dir/report/report.md, with tables and figures, and for the
studies of published papers the published values beside them.

Bindings of --gin_param that do not begin with `study.` apply to all cells, and
override theirs: --gin_param=fit.epochs=15. With --gin_file=mixins/slurm.gin
cells are jobs of SLURM, see docs/cluster.md; bindings of SlurmExecutor are for
them. --smoke only checks that everything runs.
"""

from __future__ import annotations

from absl import flags

from tfvae.cli import console

IN_PARALLEL = "run cells in parallel by --workers=N, or mixins/slurm.gin"
"""What to use in place of several processes of MPI."""

_PARAMETERS = ("seed", "smoke", "workers")


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this subcommand."""
    console.define_integer(
        "workers",
        "Number of worker processes (one per processor unless set).",
        values,
        lower_bound=1,
    )
    flags.DEFINE_boolean(
        "smoke",
        None,
        "Run one epoch and one repetition, to check that everything runs.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "report_only",
        False,
        "Only write the report, of the finished cells.",
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
    flag_bindings = [
        f"study.{name} = {values[name].value!r}"
        for name in _PARAMETERS
        if values[name].value is not None
    ]
    config.read(values.gin_file, values.gin_param + flag_bindings)
    overrides = [*filter(study.is_of_cells, values.gin_param)]
    study.study(run_dir, overrides)
