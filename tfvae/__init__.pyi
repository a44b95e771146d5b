# SPDX-License-Identifier: Apache-2.0

from . import (
    callbacks as callbacks,
)
from . import (
    checkpoints as checkpoints,
)
from . import (
    data as data,
)
from . import (
    inputs as inputs,
)
from . import (
    joint_restoration as joint_restoration,
)
from . import (
    latent_model as latent_model,
)
from . import (
    likelihoods as likelihoods,
)
from . import (
    local_subspaces as local_subspaces,
)
from . import (
    lso as lso,
)
from . import (
    metrics as metrics,
)
from . import (
    networks as networks,
)
from . import (
    noise as noise,
)
from . import (
    ops as ops,
)
from . import (
    optimizers as optimizers,
)
from . import (
    plots as plots,
)
from . import (
    priors as priors,
)
from . import (
    resources as resources,
)
from . import (
    restoration as restoration,
)
from . import (
    schedules as schedules,
)
from . import (
    serving as serving,
)
from . import (
    settings as settings,
)
from . import (
    tvae as tvae,
)
from . import (
    typed_gin as typed_gin,
)
from . import (
    vae as vae,
)
from .data import Observations, indexed_batches
from .joint_restoration import JointRestoration, corrupted_images
from .likelihoods import (
    BernoulliLikelihood,
    DiagonalGaussianLikelihood,
    GaussianLikelihood,
    PoissonLikelihood,
)
from .local_subspaces import LocalSubspaces
from .networks import (
    ConvDecoder,
    FullyConnectedDecoder,
    conv_encoder,
    fully_connected_encoder,
    random_conv_features,
    random_features,
    upsampling_decoder,
)
from .noise import GaussianNoise, PoissonGaussianNoise
from .optimizers import FusedAdam
from .priors import (
    GaussianMixturePrior,
    IndependentBernoulliPrior,
    RealNVPPrior,
    StandardNormalPrior,
    VampPrior,
    fit_prior,
)
from .restoration import Restoration, corrupted_image
from .schedules import TriangularCyclical
from .serving import export_saved_model
from .tvae import (
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
    UpdateArchive,
)
from .vae import (
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

__version__: str

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
    "GaussianNoise",
    "GaussianMixturePrior",
    "GaussianPosterior",
    "IndependentBernoulliPrior",
    "JointRestoration",
    "LocalSubspaces",
    "Observations",
    "PoissonGaussianNoise",
    "PoissonLikelihood",
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
    "UpdateArchive",
    "VAE",
    "VampPrior",
    "__version__",
    "conv_encoder",
    "corrupted_image",
    "corrupted_images",
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
