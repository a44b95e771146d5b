# SPDX-License-Identifier: Apache-2.0
"""Variational autoencoders in TensorFlow.

The names here are what most programs need; the subpackages have the rest.
"""

from tfvae.data import Observations, indexed_batches
from tfvae.likelihoods import (
    BernoulliLikelihood,
    DiagonalGaussianLikelihood,
    GaussianLikelihood,
)
from tfvae.networks import ConvDecoder, FullyConnectedDecoder
from tfvae.restoration import Restoration, corrupted_image
from tfvae.schedules import TriangularCyclical
from tfvae.serving import export_saved_model
from tfvae.tvae import (
    TVAE,
    Crossover,
    Elite,
    Evolution,
    Exploration,
    Explore,
    Fitness,
    RandFlip,
    Softmax,
    SparseFlip,
    Uniform,
)

__version__ = "0.1.0"

__all__ = [
    "TVAE",
    "BernoulliLikelihood",
    "ConvDecoder",
    "Crossover",
    "DiagonalGaussianLikelihood",
    "Elite",
    "Evolution",
    "Exploration",
    "Explore",
    "Fitness",
    "FullyConnectedDecoder",
    "GaussianLikelihood",
    "Observations",
    "RandFlip",
    "Restoration",
    "Softmax",
    "SparseFlip",
    "TriangularCyclical",
    "Uniform",
    "__version__",
    "corrupted_image",
    "export_saved_model",
    "indexed_batches",
]
