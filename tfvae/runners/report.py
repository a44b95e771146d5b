# SPDX-License-Identifier: Apache-2.0
"""What a run tells at its end: figures, numbers, and a SavedModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm

from tfvae import plots, serving
from tfvae.data import images
from tfvae.runners.experiment import Experiment
from tfvae.runners.run_directory import RunDirectory
from tfvae.tvae import TVAE

_BATCH_SIZE = 256
_NUM_SAMPLES = 64
_NUM_PAIRS = 12


def mean_bound(model: TVAE, points: np.ndarray) -> float:
    """Returns the mean bound on log p of unseen points, nats.

    Args:
      model: The model.
      points: `[N, D]`, NaN where missing.
    """
    bounds = [
        model.log_likelihood_bound(points[i : i + _BATCH_SIZE]).numpy()
        for i in range(0, len(points), _BATCH_SIZE)
    ]
    return float(np.mean(np.concatenate(bounds), dtype=np.float64))


def reconstructions(model: TVAE, points: np.ndarray) -> np.ndarray:
    """Returns the posterior means of unseen points, `[N, D]`."""
    return np.concatenate(
        [
            np.asarray(model.reconstruct(points[i : i + _BATCH_SIZE]))
            for i in range(0, len(points), _BATCH_SIZE)
        ]
    )


def inferred(model: TVAE, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Infers unseen points once, with a progress bar on a terminal.

    Args:
      model: The model.
      points: `[N, D]`, NaN where missing.

    Returns:
      Their bounds on log p, nats, `[N]`, and posterior means, `[N, D]`.
    """
    print(f"inferring {len(points):,} data points", flush=True)
    mean = tf.function(model.posterior_mean)
    bounds, means = [], []
    with tqdm.tqdm(
        total=len(points),
        desc="inference",
        disable=None,  # Unless on a terminal.
        leave=False,
        unit="point",
    ) as bar:
        for i in range(0, len(points), _BATCH_SIZE):
            batch = points[i : i + _BATCH_SIZE]
            inference = model.infer(batch)
            bounds.append(inference.bound.numpy())
            means.append(mean(inference).numpy())
            bar.update(len(batch))
    return np.concatenate(bounds), np.concatenate(means)


def draw(
    run: RunDirectory, parts: Experiment, rows: list[dict[str, float]]
) -> None:
    """Draws what every finished run has: curves, and what the model learnt."""
    data = parts.observations
    draw_model(run, parts)
    references = None
    if data.log_likelihood is not None:
        references = {"generating parameters": data.log_likelihood}
    plots.curves(
        rows,
        ["bound", "test_bound"],
        run.figures / "bound.png",
        references=references,
    )
    if any("psnr" in row for row in rows):
        plots.curves(rows, ["psnr"], run.figures / "psnr.png")
    if data.test is not None:
        points = data.test[:_NUM_PAIRS]
        plots.reconstructions(
            points,
            reconstructions(parts.model, points),
            data.event_shape,
            run.figures / "reconstructions.png",
        )


def draw_model(run: RunDirectory, parts: Experiment) -> None:
    """Draws features, most used first, latent usage, and samples."""
    model, shape = parts.model, parts.observations.event_shape
    run.figures.mkdir(exist_ok=True)
    usage = model.prior_probs.numpy()
    features = model.singleton_means().numpy()[np.argsort(-usage)]
    plots.feature_sheet(features, shape, run.figures / "features.png")
    plots.latent_usage(usage, run.figures / "latent_usage.png")
    samples = model.sample(_NUM_SAMPLES, seed=parts.seed, mean=True).numpy()
    plots.image_grid(samples, shape, run.figures / "samples.png")


def read_figures(run: RunDirectory, *names: str) -> dict[str, np.ndarray]:
    """Returns drawn figures as TensorBoard takes them, `[h, w, c]` on 0..1."""
    return {
        name: images.read_image(run.figures / f"{name}.png") / images.WHITE
        for name in names
    }


def announce_end(export: bool) -> None:
    """Prints what comes after the last epoch, and takes a while."""
    what = "figures and SavedModel" if export else "figures"
    print(f"writing {what}", flush=True)


def export(run: RunDirectory, parts: Experiment) -> None:
    """Writes the SavedModel of the run."""
    serving.export_saved_model(
        parts.model,
        run.saved_model,
        event_shape=parts.observations.event_shape,
    )


def tell(run: RunDirectory, summary: Mapping[str, Any]) -> None:
    """Prints the figures of a run that has just ended."""
    print_figures(summary)
    print(f"done: {run.path} holds the figures, the metrics and the model")


def tell_finished(run: RunDirectory) -> dict[str, Any]:
    """Prints that there is nothing to do, and returns the summary."""
    summary = run.read_summary() or {}
    print_figures(summary)
    print(
        f"finished before: {run.path} has all {summary['epochs']} epochs; "
        "raise fit.epochs to go on"
    )
    return summary


def print_figures(figures: Mapping[str, Any]) -> None:
    """Prints the numbers of a summary as a table."""
    shown = {
        name: value
        for name, value in figures.items()
        if isinstance(value, int | float | str) and name != "command"
    }
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        text = f"{value:.6g}" if isinstance(value, float) else f"{value}"
        print(f"  {name:{width}}  {text}")
