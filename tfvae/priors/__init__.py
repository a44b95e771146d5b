# SPDX-License-Identifier: Apache-2.0
"""Priors p(z) of latents; any subclass of `Prior` can be used."""

from tfvae.priors.base import Prior, PriorParts
from tfvae.priors.bernoulli import IndependentBernoulliPrior
from tfvae.priors.categorical import (
    AutoregressiveCategoricalPrior,
    IndependentCategoricalPrior,
)
from tfvae.priors.ex_post import FitHistory, fit_prior
from tfvae.priors.mixture import GaussianMixturePrior
from tfvae.priors.quantized import QuantizedPrior
from tfvae.priors.realnvp import RealNVPPrior
from tfvae.priors.standard_normal import StandardNormalPrior
from tfvae.priors.vampprior import VampPrior

__all__ = [
    "AutoregressiveCategoricalPrior",
    "FitHistory",
    "GaussianMixturePrior",
    "IndependentBernoulliPrior",
    "IndependentCategoricalPrior",
    "Prior",
    "PriorParts",
    "QuantizedPrior",
    "RealNVPPrior",
    "StandardNormalPrior",
    "VampPrior",
    "fit_prior",
]
