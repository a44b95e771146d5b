# SPDX-License-Identifier: Apache-2.0
"""Evaluation of the model of a run on held-out data."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np

from tfvae import typed_gin
from tfvae.joint_restoration import JointRestoration
from tfvae.runs import config, summaries
from tfvae.runs.experiment import Experiment, experiment
from tfvae.runs.run_directory import RunDirectory


@typed_gin.configurable
@typed_gin.uses(experiment)
def evaluate(
    run_dir: str | os.PathLike[str], *, num_points: int | None = 1000
) -> dict[str, Any]:
    """Computes the metrics of a trained model on held-out data points.

    The bound of a `VAE` is the importance-weighted one of 128 draws.

    Args:
      run_dir: Folder of a run that has a checkpoint.
      num_points: The maximum number of points, evenly spaced, as a TVAE takes
        up to `TVAE.inference_steps` E-steps to infer them; None for all.

    Returns:
      The metrics, which are also written to evaluation.json: the mean bound
      on the log-likelihood of held-out points in nats (of the training
      points, inferred anew, if there are none), the exact log-likelihood if
      points x 2**latents x dimensions are at most 2**34, the RMSE of
      reconstructions, and PSNR and SSIM of the restored image if there is a
      clean one.

    Raises:
      FileNotFoundError: If the run has no checkpoint.
    """
    config.check("evaluate")
    run = RunDirectory(run_dir)
    with run.locked():
        parts = experiment(draws_states=False)
        checkpoint = run.restore(parts.model)
        model, data = parts.model, parts.observations
        split = "train" if data.test is None else "test"
        points = data.train if data.test is None else data.test
        points, num_all = _evenly(points, num_points), len(points)
        with run.our_errors():
            bounds, reconstructed = summaries.inferred(model, points)
            figures: dict[str, Any] = {
                "data": data.name,
                "epoch": checkpoint.epoch,
                "split": split,
                "points": len(points),
                "points_of_split": num_all,
                "bound": float(np.mean(bounds, dtype=np.float64)),
            }
            if summaries.can_enumerate(model, points):
                figures["log_likelihood"] = float(
                    np.mean(summaries.log_likelihood(model, points))
                )
            error = np.nanmean((reconstructed - points) ** 2)
            figures["reconstruction_rmse"] = float(np.sqrt(error))
            figures.update(_scores(parts))
        path = run.write_json("evaluation.json", figures)
    summaries.print_figures(figures)
    print(f"wrote {path}")
    summaries.print_unused(config.unused("evaluate"))
    return figures


def _scores(parts: Experiment) -> dict[str, float]:
    """Returns the scores of what is restored, if there is a clean image."""
    restoration = parts.restoration
    estimate = functools.partial(summaries.stored_estimates, parts)
    if isinstance(restoration, JointRestoration):
        return restoration.score(restoration.restore(estimate))
    if restoration is None or restoration.clean is None:
        return {}
    return restoration.score(restoration.restore(estimate()))


def _evenly(points: np.ndarray, count: int | None) -> np.ndarray:
    """Returns at most `count` rows, evenly spaced."""
    if count is None or count >= len(points):
        return points[:]  # An array, also of data that are read when needed.
    if count < 1:
        raise ValueError(
            f"`evaluate.num_points` must be at least 1 or None, got {count!r}."
        )
    return points[np.arange(count) * len(points) // count]
