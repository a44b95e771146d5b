# SPDX-License-Identifier: Apache-2.0
"""Cell of a study that trains and evaluates a model and draws its figures."""

from __future__ import annotations

import os
import pathlib
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tfvae import plots, typed_gin
from tfvae.callbacks import Observation
from tfvae.data import Observations, images
from tfvae.latent_model import LatentModel
from tfvae.metrics import (
    ClassifierFeatures,
    FeatureExtractor,
    Reference,
    sample_distances,
)
from tfvae.networks.counting import num_parameters, sum_of_dimensions
from tfvae.priors import Prior, fit_prior
from tfvae.runs import config, summaries
from tfvae.runs.experiment import Experiment, experiment, fit
from tfvae.runs.run_directory import RunDirectory

_BATCH_SIZE = 256
_NUM_RECONSTRUCTIONS = 8
# The figures of a model that the sheets of a study show.
_FIGURES = ("samples", "interpolations")
_GENERATED_AT_ONCE = 1000
_NUM_KERNEL_SUBSETS = 20
# Cached in this process, by images and settings of the feature extractor.
_references: dict[tuple[object, ...], Reference] = {}


@typed_gin.configurable("cell")
@typed_gin.uses(
    experiment,
    fit,
    passes={
        "fitted_prior": typed_gin.arguments("the latents of the model"),
        "reference": typed_gin.arguments(),
        "features": typed_gin.arguments(
            "the data of `cell.reference`", "a folder of the study"
        ),
    },
    builds={fit_prior: typed_gin.arguments("`cell.fitted_prior`")},
)
def run_cell(
    path: str | os.PathLike[str],
    *,
    fitted_prior: Callable[[int], Prior] | None = None,
    reference: Callable[[], Observations] | None = None,
    features: Callable[..., FeatureExtractor] = ClassifierFeatures,
    num_generated: int = 10_000,
    num_bound_points: int = 250,
    num_importance_samples: int = 32,
) -> dict[str, Any]:
    """Trains the configured experiment, or resumes it, and evaluates it.

    Args:
      path: Folder of the cell. Files that cells share, such as the features of
        the reference images, are written to its parent's parent.
      fitted_prior: Returns a prior that replaces the trained one, and is fitted
        after training; called with the number of latents. None to keep the
        trained prior.
      reference: Returns the data whose training images are compared with
        generated images, the same for all cells; None for no comparison.
      features: Returns the feature extractor of the comparison; called with
        the data of `reference` and a folder for its cache.
      num_generated: The maximum number of images to compare, of generated
        ones and of real ones (the first training images of the reference).
      num_bound_points: Number of test points for the importance-weighted
        bound, and for the enumerated log-likelihood of binary latents.
      num_importance_samples: Importance samples for each point.

    Returns:
      Metrics by name: train_ and test_ with each term of the bound,
      test_tight_bound (importance-weighted; of a TVAE, with evolved
      posteriors), frechet_distance and kernel_distance, seconds_per_epoch,
      numbers of parameters, epochs.
    """
    run = RunDirectory(path)
    with run.locked():
        parts = experiment(draws_states=False)
        rows = fit(run, parts, lambda epoch: Observation({}, {}))
        model = _finished(parts.model, parts.observations, fitted_prior)
        parts = parts._replace(model=model)
        figures = {
            "epochs": len(rows),
            "training_seconds": sum(row["seconds"] for row in rows),
            "seconds_per_epoch": _typical_seconds(rows),
            "trainable_parameters": num_parameters(model.trainable_variables),
            "published_count": sum_of_dimensions(model.trainable_variables),
            **_train_figures(rows),
            **_test_figures(parts, num_bound_points, num_importance_samples),
        }
        if reference is not None:
            shared = run.path.absolute().parents[1] / "reference"
            figures |= _generative_figures(
                model,
                _reference(reference, features, shared, num_generated),
                parts.observations.value_range,
                parts.seed,
            )
        _draw(run, parts)
    return figures


def _finished(
    model: LatentModel,
    data: Observations,
    fitted_prior: Callable[[int], Prior] | None,
) -> LatentModel:
    """Returns the calibrated model, with `fitted_prior` if there is one."""
    model.calibrate(data.train)
    if fitted_prior is None:
        return model
    prior = fitted_prior(model.num_latents)
    fitted = model.with_fitted_prior(prior, data.train)
    fitted.compile()
    return fitted


def _typical_seconds(rows: list[dict[str, float]]) -> float:
    """Returns the median duration of epochs, in seconds, without the first."""
    return float(np.median([row["seconds"] for row in rows[1:] or rows]))


def _train_figures(rows: list[dict[str, float]]) -> dict[str, float]:
    """Returns the metrics of the last epoch."""
    others = ("epoch", "seconds", "learning_rate")
    return {
        f"train_{name}": value
        for name, value in rows[-1].items()
        if name not in others
    }


def _test_figures(
    parts: Experiment, num_points: int, num_samples: int
) -> dict[str, float]:
    """Returns the terms of the bound on test data, and tighter bounds."""
    model, test = parts.model, parts.observations.test
    if test is None:
        return {}
    terms = model.bound_terms(test, _BATCH_SIZE)
    figures = {f"test_{name}": value for name, value in terms.items()}
    points = test[:num_points]
    figures["test_tight_bound"] = summaries.mean_bound(
        model, points, num_samples=num_samples
    )
    if summaries.can_enumerate(model, points):
        exact = summaries.log_likelihood(model, points)
        figures["test_exact_log_likelihood"] = float(np.mean(exact))
        figures["test_active"] = summaries.mean_active(model, points)
    return figures


def _generative_figures(
    model: LatentModel,
    reference: Reference,
    value_range: tuple[float, float],
    seed: int,
) -> dict[str, float]:
    """Compares the reference with as many generated images."""
    samples = np.concatenate(
        [
            model.sample(_GENERATED_AT_ONCE, _first_seed(seed) + i, mean=True)
            for i in range(0, len(reference.features), _GENERATED_AT_ONCE)
        ]
    )[: len(reference.features)]
    found = sample_distances(
        samples,
        reference,
        value_range=value_range,
        num_subsets=_NUM_KERNEL_SUBSETS,
    )
    return {
        "frechet_distance": found.frechet_distance,
        "kernel_distance": found.kernel_distance,
        "num_generated": found.num_samples,
    }


def _first_seed(seed: int) -> int:
    """Returns the first of 2**20 consecutive seeds that are used only here."""
    return seed << 20


def _reference(
    make: Callable[[], Observations],
    features: Callable[..., FeatureExtractor],
    folder: pathlib.Path,
    num_images: int,
) -> Reference:
    """Returns the features of real images, computed once per process."""
    data = make()
    images = data.train[:num_images]
    settings = [
        f"{name} = {value}"
        for name, value in config.bindings(config.text()).items()
        if "Features." in name or name == "cell.features"
    ]
    key = (zlib.crc32(images.data), *settings)
    if key not in _references:
        _references[key] = Reference.of(features(data, folder), images)
    return _references[key]


def _draw(run: RunDirectory, parts: Experiment) -> None:
    """Draws plain tiles, which the report of a study combines to sheets."""
    model, data = parts.model, parts.observations
    run.figures.mkdir(exist_ok=True)
    pictures = {
        name: figure.points
        for name, figure in model.figures(parts.seed).items()
        if name in _FIGURES
    }
    if data.test is not None:
        points = data.test[:_NUM_RECONSTRUCTIONS]
        pictures["reconstructions"] = np.concatenate(
            [points, summaries.reconstructions(model, points)]
        )
    for name, points in pictures.items():
        tiles = plots.tiles(
            points, data.event_shape, _NUM_RECONSTRUCTIONS, data.value_range
        )
        path = run.figures / f"{name}.png"
        images.write_image(path, images.WHITE * tiles)
