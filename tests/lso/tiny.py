# SPDX-License-Identifier: Apache-2.0
"""A task of vectors, and models of it, so small that a run takes a second."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tfvae.lso import ScoredData, Task

NUM_OBSERVED, NUM_LATENTS, NUM_DATA = 4, 2, 24


def data(seed: int = 0) -> ScoredData:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(NUM_DATA, NUM_OBSERVED)).astype(np.float32)
    return ScoredData(points, [objective(point) for point in points])


def objective(point: np.ndarray) -> float:
    return -float(np.sum((np.asarray(point, np.float64) - 1.0) ** 2))


def task(**kwargs) -> Task:
    return Task(
        **{"name": "tiny", "data": data, "objective": objective} | kwargs
    )


def model(seed: int = 0) -> Any:
    """Returns a small VAE."""
    import keras

    from tfvae import networks, priors, vae

    keras.utils.set_random_seed(seed)
    made = vae.VAE(
        vae.learnable(
            functools.partial(
                networks.fully_connected_encoder,
                num_observed=NUM_OBSERVED,
                hidden=(8,),
            ),
            NUM_LATENTS,
        ),
        networks.FullyConnectedDecoder(NUM_OBSERVED, (8,)),
        priors.StandardNormalPrior(NUM_LATENTS),
    )
    made.adapt(data().points)
    return made


def binary_model(num_data: int = NUM_DATA, seed: int = 0) -> Any:
    """Returns a small TVAE."""
    import keras

    from tfvae import likelihoods, networks, tvae

    keras.utils.set_random_seed(seed)
    made = tvae.TVAE(
        networks.FullyConnectedDecoder(NUM_OBSERVED, (8,)),
        num_latents=6,
        num_data=num_data,
        likelihood=likelihoods.GaussianLikelihood(),
        num_states=8,
        evolution=tvae.Evolution(num_parents=3, num_generations=1),
    )
    made.adapt(data().points)
    return made
