# SPDX-License-Identifier: Apache-2.0
"""Lazy registration of the library's classes for Keras deserialisation.

`import tfvae` loads neither Keras nor the modules of its classes, but
`keras.models.load_model` has to find the classes by name. Therefore
lazy proxies are registered as soon as any module imports Keras; each becomes
its class, and loads the module of the class, at its first use.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

import wrapt

CLASSES = {
    "tfvae.likelihoods": (
        "BernoulliLikelihood",
        "DiagonalGaussianLikelihood",
        "GaussianLikelihood",
        "PoissonLikelihood",
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
    "tfvae.networks.autoregressive": ("AutoregressiveDecoder",),
    "tfvae.networks.binary": ("BinaryDense",),
    "tfvae.optimizers": ("FusedAdam",),
    "tfvae.priors": (
        "AutoregressiveCategoricalPrior",
        "GaussianMixturePrior",
        "IndependentBernoulliPrior",
        "IndependentCategoricalPrior",
        "QuantizedPrior",
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
        "VIMCO",
        "BernoulliPosterior",
        "DisARM",
        "Elbo",
        "Encoder",
        "GaussianPosterior",
        "GeometricBeta",
        "RelaxedBernoulliPosterior",
        "RelaxedCategoricalPosterior",
        "StraightThrough",
        "Thesis",
        "VectorQuantizedPosterior",
    ),
}
"""Registered classes, by the module that defines them."""


def register_stand_ins(keras: ModuleType) -> None:
    """Registers a proxy for each class, which the class replaces once loaded.

    What is already registered under the name of a class remains.

    Args:
      keras: The module, as soon as it has been imported.
    """
    registered = keras.saving.get_custom_objects()
    for module, names in CLASSES.items():
        for name in names:
            stand_in = _StandIn(functools.partial(_load, module, name))
            registered.setdefault(f"tfvae>{name}", stand_in)


def _load(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


class _StandIn(wrapt.LazyObjectProxy):
    """Proxy of a class: makes its objects, has its attributes, equals it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)
