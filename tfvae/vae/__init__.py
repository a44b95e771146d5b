# SPDX-License-Identifier: Apache-2.0
"""Amortised VAEs, composed of encoder, prior, decoder and likelihood."""

from tfvae.vae.encoders import (
    Encoder,
    frozen_features,
    learnable,
    non_learnable,
    partially_non_learnable,
    random_kitchen_sinks,
)
from tfvae.vae.estimators import VIMCO, DisARM, StraightThrough
from tfvae.vae.model import VAE
from tfvae.vae.objectives import (
    Elbo,
    GeometricBeta,
    Objective,
    Terms,
    Thesis,
)
from tfvae.vae.posteriors import (
    BernoulliPosterior,
    GaussianPosterior,
    RelaxedBernoulliPosterior,
    RelaxedCategoricalPosterior,
)
from tfvae.vae.quantization import VectorQuantizedPosterior

__all__ = [
    "VAE",
    "VIMCO",
    "BernoulliPosterior",
    "DisARM",
    "Elbo",
    "Encoder",
    "GaussianPosterior",
    "GeometricBeta",
    "Objective",
    "RelaxedBernoulliPosterior",
    "RelaxedCategoricalPosterior",
    "StraightThrough",
    "Terms",
    "Thesis",
    "VectorQuantizedPosterior",
    "frozen_features",
    "learnable",
    "non_learnable",
    "partially_non_learnable",
    "random_kitchen_sinks",
]
