# SPDX-License-Identifier: Apache-2.0
"""Lazy registration of the library's classes for Keras deserialisation.

`import tfvae` loads neither Keras nor the modules of its classes, but
`keras.models.load_model` has to find the classes by name. Therefore
placeholders are registered as soon as any module imports Keras; each loads the
module of its class when Keras first deserialises an object of it.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

CLASSES = {
    "tfvae.likelihoods": (
        "BernoulliLikelihood",
        "DiagonalGaussianLikelihood",
        "GaussianLikelihood",
        "SequenceLikelihood",
    ),
    "tfvae.lso.retraining": ("Retraining",),
    "tfvae.lso.weighting": (
        "CemPi",
        "DbAS",
        "FB",
        "RWR",
        "Rank",
        "Unweighted",
    ),
    "tfvae.networks": (
        "ConvDecoder",
        "FullyConnectedDecoder",
        "RandomConvFeatures",
        "RandomFeatures",
        "UpsampledConv2D",
    ),
    "tfvae.networks.binary": ("BinaryDense",),
    "tfvae.optimizers": ("FusedAdam",),
    "tfvae.priors": (
        "GaussianMixturePrior",
        "IndependentBernoulliPrior",
        "RealNVPPrior",
        "StandardNormalPrior",
        "VampPrior",
    ),
    "tfvae.schedules": ("TriangularCyclical",),
    "tfvae.tvae": (
        "TVAE",
        "Crossover",
        "Elite",
        "Evolution",
        "Exploration",
        "Fitness",
        "RandFlip",
        "Softmax",
        "SparseFlip",
        "StateStore",
        "Uniform",
    ),
    "tfvae.tvae.prior": ("BernoulliPrior",),
    "tfvae.vae": (
        "VAE",
        "Elbo",
        "Encoder",
        "GaussianPosterior",
        "GeometricBeta",
        "RelaxedBernoulliPosterior",
        "Thesis",
    ),
}
"""Registered classes, by the module that defines them."""


def register_stand_ins(keras: ModuleType) -> None:
    """Registers a placeholder for each class, which the class replaces.

    Args:
      keras: The module, as soon as it has been imported.
    """
    registered = keras.saving.get_custom_objects()
    for module, names in CLASSES.items():
        for name in names:
            registered.setdefault(f"tfvae>{name}", _stand_in(module, name))


def _stand_in(module: str, name: str) -> type:
    """Returns a placeholder whose `from_config` is that of the named class."""

    def from_config(config: dict[str, Any]) -> Any:
        found = getattr(importlib.import_module(module), name)
        return found.from_config(config)

    return type(name, (), {"from_config": staticmethod(from_config)})
