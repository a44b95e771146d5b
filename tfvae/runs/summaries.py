# SPDX-License-Identifier: Apache-2.0
"""Metrics, figures and SavedModel at the end of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm

from tfvae import plots, serving
from tfvae.data import images
from tfvae.latent_model import LatentModel
from tfvae.ops import bits, densities, truncated
from tfvae.ops.rows import LazyRows, part_of
from tfvae.priors import IndependentBernoulliPrior
from tfvae.runs.experiment import Experiment
from tfvae.runs.run_directory import RunDirectory
from tfvae.tvae.joint import Joint
from tfvae.tvae.model import MAX_ENUMERATED_LATENTS
from tfvae.tvae.prior import BernoulliPrior

_BATCH_SIZE = 256
_NUM_PAIRS = 12
# Maximum of points x states x dimensions; takes minutes on one core.
_MAX_ENUMERATED_ENTRIES = 2**34


def mean_bound(
    model: LatentModel, points: np.ndarray, **settings: Any
) -> float:
    """Returns the mean bound on log p of unseen points, nats.

    Args:
      model: The model.
      points: `[N, D]`, NaN where missing.
      **settings: Arguments of the model's `log_likelihood_bound`.
    """
    bounds = [
        model.log_likelihood_bound(
            points[i : i + _BATCH_SIZE], **settings
        ).numpy()
        for i in range(0, len(points), _BATCH_SIZE)
    ]
    return float(np.mean(np.concatenate(bounds), dtype=np.float64))


def reconstructions(model: LatentModel, points: np.ndarray) -> np.ndarray:
    """Returns the posterior means of unseen points, `[N, D]`."""
    return np.concatenate(
        [
            np.asarray(model.reconstruct(points[i : i + _BATCH_SIZE]))
            for i in range(0, len(points), _BATCH_SIZE)
        ]
    )


def stored_points(
    parts: Experiment, rows: slice | None = None
) -> tuple[np.ndarray | LazyRows, np.ndarray]:
    """Returns training points and their numbers; lazy ones stay so.

    Args:
      parts: A TVAE and its data.
      rows: The points, as a slice of all with both ends; None for all, on
        several ranks those of this one.
    """
    if rows is None:
        mine = parts.rows_of_rank()
        return mine, np.arange(len(mine))
    found = part_of(parts.observations.train, rows)
    return found, np.arange(rows.start, rows.stop)


def stored_estimates(
    parts: Experiment, rows: slice | None = None
) -> Iterator[np.ndarray]:
    """Returns the posterior means of training points, from their states.

    Args:
      parts: A trained TVAE and its data.
      rows: See `stored_points`.

    Returns:
      Consecutive parts, `[n, D]`.
    """
    return parts.model.stored_reconstructions(*stored_points(parts, rows))


def inferred(
    model: LatentModel, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Infers unseen points, with a progress bar on a terminal.

    Args:
      model: The model.
      points: `[N, D]`, NaN where missing.

    Returns:
      Their bounds on log p, nats, `[N]`, and posterior means, `[N, D]`.
    """
    print(f"inferring {len(points):,} data points", flush=True)
    bounds, means = [], []
    with tqdm.tqdm(
        total=len(points),
        desc="inference",
        disable=None,  # tqdm: disable unless on a terminal.
        leave=False,
        unit="point",
    ) as bar:
        for i in range(0, len(points), _BATCH_SIZE):
            batch = points[i : i + _BATCH_SIZE]
            bound, mean = model.infer_points(batch)
            bounds.append(bound.numpy())
            means.append(mean.numpy())
            bar.update(len(batch))
    return np.concatenate(bounds), np.concatenate(means)


def can_enumerate(model: LatentModel, points: np.ndarray) -> bool:
    """Whether all binary states can be enumerated, within minutes."""
    if not isinstance(model.prior, BernoulliPrior | IndependentBernoulliPrior):
        return False
    return (
        model.num_latents <= MAX_ENUMERATED_LATENTS
        and points.size * 2**model.num_latents <= _MAX_ENUMERATED_ENTRIES
    )


def log_likelihood(model: LatentModel, points: np.ndarray) -> np.ndarray:
    """Returns log p(x), nats, by enumeration of all binary states.

    Args:
      model: The model; its latents are binary.
      points: `[N, D]`, NaN where missing.

    Returns:
      `[N]`.
    """
    joint = Joint(model.prior, model.decoder, model.likelihood)
    enumerate_batch = tf.function(joint.enumerate)
    return np.concatenate(
        [
            enumerate_batch(
                *densities.split_missing(points[i : i + _BATCH_SIZE])
            )
            for i in range(0, len(points), _BATCH_SIZE)
        ]
    )


def mean_active(model: LatentModel, points: np.ndarray) -> float:
    """Returns the exact posterior mean of the number of active latents.

    Args:
      model: The model; its latents are binary, and few.
      points: `[N, D]`, NaN where missing.
    """
    joint = Joint(model.prior, model.decoder, model.likelihood)
    states = tf.constant(bits.all_states(model.num_latents))
    weigh = tf.function(
        lambda x, observed: truncated.posterior_weights(
            joint.log_prob_pairs(x, observed, states)
        )
    )
    num_ones = tf.reduce_sum(states, -1)
    means = [
        tf.linalg.matvec(
            weigh(*densities.split_missing(points[i : i + _BATCH_SIZE])),
            num_ones,
        )
        for i in range(0, len(points), _BATCH_SIZE)
    ]
    return float(np.mean(np.concatenate(means)))


def draw(
    run: RunDirectory, parts: Experiment, rows: list[dict[str, float]]
) -> None:
    """Draws the figures of a finished run: curves and those of the model."""
    data = parts.observations
    draw_model(run, parts)
    references = None
    if data.log_likelihood is not None:
        references = {"generating parameters": data.log_likelihood}
    plots.curves(
        rows,
        ["bound", "test_bound", "validation_bound"],
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


def draw_model(run: RunDirectory, parts: Experiment) -> list[str]:
    """Draws the figures of a model; returns the names of its tiled images."""
    model, shape = parts.model, parts.observations.event_shape
    run.figures.mkdir(exist_ok=True)
    found = model.figures(parts.seed)
    for name, figure in found.items():
        plots.image_grid(
            figure.points,
            shape,
            run.figures / f"{name}.png",
            title=figure.title,
            per_row=figure.per_row,
        )
    if model.prior_probs is not None:
        usage = model.prior_probs.numpy()
        plots.latent_usage(usage, run.figures / "latent_usage.png")
    return sorted(found)


def read_figures(run: RunDirectory, *names: str) -> dict[str, np.ndarray]:
    """Returns drawn figures for TensorBoard, `[h, w, c]` from 0 to 1."""
    return {
        name: images.read_image(run.figures / f"{name}.png").pixels
        / images.WHITE
        for name in names
    }


def announce_end(export: bool) -> None:
    """Prints what is written after the last epoch, as it takes a while."""
    what = "figures and SavedModel" if export else "figures"
    print(f"writing {what}", flush=True)


def export(run: RunDirectory, parts: Experiment) -> None:
    """Writes the SavedModel of the run."""
    serving.export_saved_model(
        parts.model,
        run.saved_model,
        event_shape=parts.observations.event_shape,
    )


def report(run: RunDirectory, summary: Mapping[str, Any]) -> None:
    """Prints the metrics of a run that has just finished."""
    print_figures(summary)
    what = "the figures, the metrics and the model"
    if "rounds" in summary:  # There is no model.
        what = "the figures and the metrics"
    print(f"done: {run.path} holds {what}")


def report_finished(
    run: RunDirectory, epochs: str = "fit.epochs"
) -> dict[str, Any]:
    """Prints that the run is already finished, and returns its summary.

    Args:
      run: The run.
      epochs: What sets the number of epochs.
    """
    summary = run.read_summary() or {}
    print_figures(summary)
    ended = f"already finished: {run.path}"
    if "epochs" in summary:
        ended += f" has all {summary['epochs']} epochs; raise {epochs} to "
        ended += "continue"
    print(ended)
    return summary


def print_unused(names: Sequence[str]) -> None:
    """Prints a line that names the bindings which a run has not used."""
    if names:
        print(f"not used by this run: {', '.join(names)}", flush=True)


def print_figures(figures: Mapping[str, Any]) -> None:
    """Prints the numbers and texts of a summary as a table."""
    shown = {
        name: value
        for name, value in figures.items()
        if isinstance(value, int | float | str) and name != "command"
    }
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        text = f"{value:.6g}" if isinstance(value, float) else f"{value}"
        print(f"  {name:{width}}  {text}")


def print_scores(results: Mapping[str, Mapping[str, float]]) -> None:
    """Prints PSNR of each picture that has one, and the mean.

    Args:
      results: Scores by the name of the picture.
    """
    scored = {name: one for name, one in results.items() if "psnr" in one}
    for name, one in scored.items():
        before = ""
        if "corrupted_psnr" in one:
            before = f"{one['corrupted_psnr']:.2f} -> "
        print(f"  {name}: PSNR {before}{one['psnr']:.2f} dB")
    if len(scored) > 1:
        mean = np.mean([one["psnr"] for one in scored.values()])
        print(f"  mean of {len(scored)}: PSNR {mean:.2f} dB", flush=True)
