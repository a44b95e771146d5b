# SPDX-License-Identifier: Apache-2.0
"""Observation models p(x | s): what a decoder's outputs mean.

A likelihood is a Keras layer that owns the noise parameters and turns decoder
outputs into log-probabilities, means and samples; the densities themselves are
in `tfvae.ops.densities`. Every model of the library takes one as an argument.
A new one is a class with these methods; the conformance tests pick it up.
"""

from tfvae.likelihoods.base import MIN_VARIANCE, Likelihood
from tfvae.likelihoods.bernoulli import BernoulliLikelihood
from tfvae.likelihoods.gaussian import (
    MAX_LOG_VARIANCE_RATIO,
    DiagonalGaussianLikelihood,
    GaussianLikelihood,
)
from tfvae.likelihoods.sequence import SequenceLikelihood

__all__ = [
    "MAX_LOG_VARIANCE_RATIO",
    "MIN_VARIANCE",
    "BernoulliLikelihood",
    "DiagonalGaussianLikelihood",
    "GaussianLikelihood",
    "Likelihood",
    "SequenceLikelihood",
]
