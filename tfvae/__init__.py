# SPDX-License-Identifier: Apache-2.0
"""Variational autoencoders in TensorFlow.

The most common names are exported here, the others by the subpackages.
"""

from tfvae.data import Observations, indexed_batches
from tfvae.likelihoods import (
    BernoulliLikelihood,
    DiagonalGaussianLikelihood,
    GaussianLikelihood,
)
from tfvae.networks import (
    ConvDecoder,
    FullyConnectedDecoder,
    conv_encoder,
    fully_connected_encoder,
    random_conv_features,
    random_features,
    upsampling_decoder,
)
from tfvae.optimizers import FusedAdam
from tfvae.priors import (
    GaussianMixturePrior,
    IndependentBernoulliPrior,
    RealNVPPrior,
    StandardNormalPrior,
    VampPrior,
    fit_prior,
)
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
from tfvae.vae import (
    VAE,
    Elbo,
    Encoder,
    GaussianPosterior,
    RelaxedBernoulliPosterior,
    Thesis,
    frozen_features,
    learnable,
    non_learnable,
    partially_non_learnable,
    random_kitchen_sinks,
)

__version__ = "0.1.0"

__all__ = [
    "BernoulliLikelihood",
    "ConvDecoder",
    "Crossover",
    "DiagonalGaussianLikelihood",
    "Elbo",
    "Elite",
    "Encoder",
    "Evolution",
    "Exploration",
    "Explore",
    "Fitness",
    "FullyConnectedDecoder",
    "FusedAdam",
    "GaussianLikelihood",
    "GaussianMixturePrior",
    "GaussianPosterior",
    "IndependentBernoulliPrior",
    "Observations",
    "RandFlip",
    "RealNVPPrior",
    "RelaxedBernoulliPosterior",
    "Restoration",
    "Softmax",
    "SparseFlip",
    "StandardNormalPrior",
    "TVAE",
    "Thesis",
    "TriangularCyclical",
    "Uniform",
    "VAE",
    "VampPrior",
    "__version__",
    "conv_encoder",
    "corrupted_image",
    "export_saved_model",
    "fit_prior",
    "frozen_features",
    "fully_connected_encoder",
    "indexed_batches",
    "learnable",
    "non_learnable",
    "partially_non_learnable",
    "random_conv_features",
    "random_features",
    "random_kitchen_sinks",
    "upsampling_decoder",
]
