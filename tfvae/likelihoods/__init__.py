# SPDX-License-Identifier: Apache-2.0
"""Likelihoods (observation models) p(x | s) on top of decoder outputs.

A likelihood is a Keras layer that owns the noise parameters and turns decoder
outputs into log-probabilities, means and samples; the densities themselves are
in `tfvae.ops.densities`. Every model of the library takes one as an argument.
A new one is a subclass of `Likelihood`; the conformance tests pick it up.
"""

from tfvae.likelihoods.base import MAX_DISTANCE, MIN_VARIANCE, Likelihood
from tfvae.likelihoods.bernoulli import BernoulliLikelihood
from tfvae.likelihoods.gaussian import (
    MAX_LOG_VARIANCE_RATIO,
    DiagonalGaussianLikelihood,
    GaussianLikelihood,
)
from tfvae.likelihoods.poisson import PoissonLikelihood
from tfvae.likelihoods.sequence import SequenceLikelihood

__all__ = [
    "MAX_LOG_VARIANCE_RATIO",
    "MAX_DISTANCE",
    "MIN_VARIANCE",
    "BernoulliLikelihood",
    "DiagonalGaussianLikelihood",
    "GaussianLikelihood",
    "Likelihood",
    "PoissonLikelihood",
    "SequenceLikelihood",
]
