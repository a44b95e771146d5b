# SPDX-License-Identifier: Apache-2.0
"""Export of the model of a run as a SavedModel."""

from __future__ import annotations

import os
import pathlib

from tfvae import serving, typed_gin
from tfvae.runs import config, summaries
from tfvae.runs.experiment import experiment
from tfvae.runs.run_directory import RunDirectory


@typed_gin.configurable
@typed_gin.uses(experiment)
def export(
    run_dir: str | os.PathLike[str],
    *,
    output: str | None = None,
    limits: serving.Limits | None = None,
) -> pathlib.Path:
    """Writes the model of a run as a SavedModel.

    Args:
      run_dir: Folder of a run that has a checkpoint.
      output: Folder of the SavedModel; None for saved_model/ in the run folder.
      limits: The largest requests that are answered; None for the default.

    Returns:
      The folder of the SavedModel.

    Raises:
      FileNotFoundError: If the run has no checkpoint.
      ValueError: If the limits refuse every request to the default signature.
    """
    config.check("export")
    run = RunDirectory(run_dir)
    with run.locked():
        parts = experiment(draws_states=False)
        checkpoint = run.restore(parts.model)
        path = run.saved_model if output is None else pathlib.Path(output)
        serving.check_limits(parts.model, limits)
        print(f"writing {path}", flush=True)
        with run.our_errors():
            serving.export_saved_model(
                parts.model,
                path,
                event_shape=parts.observations.event_shape,
                limits=limits,
            )
    print(f"wrote {path}, the model after {checkpoint.epoch} epochs")
    summaries.print_unused(config.unused("export"))
    return path
