# SPDX-License-Identifier: Apache-2.0
"""Run that trains a model on data points."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import scipy.optimize

from tfvae import typed_gin
from tfvae.callbacks import Observation
from tfvae.ranks import ONE_PROCESS, Ranks
from tfvae.runs import config, summaries
from tfvae.runs.experiment import (
    Experiment,
    experiment,
    fit,
    page_writer,
)
from tfvae.runs.run_directory import RunDirectory

# Maximum deviation of a singleton mean from a generating feature in any entry
# to count as found, as a fraction of the range of the features.
_FEATURE_TOLERANCE = 0.25


@typed_gin.configurable
@typed_gin.uses(experiment, fit)
def train(
    run_dir: str | os.PathLike[str],
    parts: Experiment | None = None,
    ranks: Ranks = ONE_PROCESS,
    *,
    num_test_points: int = 256,
    export: bool = True,
) -> dict[str, Any]:
    """Trains the configured experiment and writes metrics, figures and model.

    report.html shows the run on a page, so far while it trains.

    Call it again with the same configuration to resume an interrupted run; a
    finished run is not changed.

    Args:
      run_dir: Folder of the run, see `RunDirectory`.
      parts: The model and its data; None for the configured `experiment`.
      ranks: The processes that train the model together, each of which calls
        this function. The first one does all but training.
      num_test_points: Number of held-out points for the bound in the column
        "test_bound" of the metrics ("validation_bound" if the data have
        validation points). Inference is slow; `tfvae evaluate` uses more
        points.
      export: Whether to write a SavedModel at the end.

    Returns:
      The summary of the run; empty on all ranks but the first.

    Raises:
      ValueError: If a value of the configuration is out of range, or
        `run_dir` has a run of another configuration.
      RuntimeError: If another process is using `run_dir`.
    """
    is_own = parts is None
    if is_own:
        config.check("train")
    run = RunDirectory(run_dir)
    with run.locked_for_training(ranks) as is_finished:
        if is_finished:
            return {} if ranks.rank else summaries.report_finished(run)
        if parts is None:
            parts = experiment(ranks=ranks, draws_states=False)
        if parts.restoration is not None:
            raise ValueError(
                "`experiment.data` must be data points, got an image to "
                "restore; use `tfvae denoise` for it."
            )
        rows = fit(run, parts, _Observer(run, parts, num_test_points))
        if ranks.rank:
            return {}
        summaries.announce_end(export)
        with run.our_errors():
            final = _final_figures(parts)
            summaries.draw(run, parts, rows)
            if export:
                summaries.export(run, parts)
        summary = run.write_summary(rows, final, parts.seed)
        with run.our_errors():
            page_writer(run, parts, len(rows)).write(rows)
        summaries.report(run, summary)
        if is_own:
            summaries.print_unused(config.unused("train"))
    return summary


class _Observer:
    """Computes the bound of held-out points and draws figures in training."""

    def __init__(
        self, run: RunDirectory, parts: Experiment, num_test_points: int
    ) -> None:
        self._run = run
        self._parts = parts
        data = parts.observations
        watched = "test" if data.validation is None else "validation"
        points = getattr(data, watched)
        self._column = f"{watched}_bound"
        self._points = None if points is None else points[:num_test_points]

    def __call__(self, epoch: int) -> Observation:
        scalars = {}
        if self._points is not None and len(self._points):
            scalars[self._column] = summaries.mean_bound(
                self._parts.model, self._points
            )
        drawn = summaries.draw_model(self._run, self._parts)
        images = summaries.read_figures(self._run, *drawn)
        return Observation(scalars, images)


def _final_figures(parts: Experiment) -> dict[str, Any]:
    """Returns the metrics that are computed only at the end of a run."""
    model, data = parts.model, parts.observations
    final: dict[str, Any] = {"data": data.name}
    if data.log_likelihood is not None:
        final["generator_log_likelihood"] = data.log_likelihood
    means = model.singleton_means()
    if data.features is not None and means is not None:
        final["features_found"] = features_found(means.numpy(), data.features)
        final["features"] = len(data.features)
    return final


def features_found(means: np.ndarray, features: np.ndarray) -> int:
    """Counts the generating features that a model has recovered.

    Args:
      means: Singleton means, `[H, D]`.
      features: Generating features, `[K, D]`.

    Returns:
      The maximum number of features in a one-to-one matching with latents,
      where the mean of the latent differs from the feature in no entry by more
      than a quarter of the features' range.
    """
    distances = np.abs(features[:, None] - means[None]).max(-1)  # [K, H]
    is_close = distances <= _FEATURE_TOLERANCE * np.ptp(features)
    rows, columns = scipy.optimize.linear_sum_assignment(
        is_close, maximize=True
    )
    return int(is_close[rows, columns].sum())
