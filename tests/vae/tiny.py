# SPDX-License-Identifier: Apache-2.0
"""Small VAEs for tests."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfvae import likelihoods, priors, vae

NUM_DATA, NUM_OBSERVED, NUM_LATENTS = 13, 6, 2

# Every policy, with the variance that frozen means have where tests need one.
POLICIES = {
    "learnable": vae.learnable,
    "partially_non_learnable": vae.partially_non_learnable,
    "non_learnable": vae.non_learnable,
    "random_kitchen_sinks": vae.random_kitchen_sinks,
}


def data(seed: int = 0, num_data: int = NUM_DATA) -> np.ndarray:
    """Data `[N, D]` on [0, 1)."""
    rng = np.random.default_rng(seed)
    return rng.random((num_data, NUM_OBSERVED)).astype(np.float32)


def network(
    num_outputs: int, hidden: tuple[int, ...] = (5, 4), dropout: float = 0.2
) -> keras.Model:
    """A network with batch normalisation and dropout, which freezing stops."""
    layers: list[Any] = [keras.Input((NUM_OBSERVED,))]
    for size in hidden:
        layers += [
            keras.layers.Dense(size, "tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(dropout),
        ]
    return keras.Sequential([*layers, keras.layers.Dense(num_outputs)])


def sinks(num_outputs: int) -> keras.Model:
    """A network of a single layer."""
    return network(num_outputs, ())


def decoder(num_outputs: int = NUM_OBSERVED) -> keras.Model:
    """A decoder of a hidden layer."""
    return keras.Sequential(
        [keras.layers.Dense(8, "tanh"), keras.layers.Dense(num_outputs)]
    )


def make(policy: str = "learnable", **kwargs: Any) -> vae.VAE:
    """A VAE whose parts are not the default ones."""
    keras.utils.set_random_seed(3)
    is_single = policy == "random_kitchen_sinks"
    encoder = POLICIES[policy](sinks if is_single else network, NUM_LATENTS)
    settings: dict[str, Any] = {
        "prior": priors.StandardNormalPrior(NUM_LATENTS),
        "likelihood": likelihoods.GaussianLikelihood(initial_variance=0.1),
        **kwargs,
    }
    model = vae.VAE(settings.pop("encoder", encoder), decoder(), **settings)
    model.adapt(data())
    return model
