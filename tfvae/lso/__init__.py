# SPDX-License-Identifier: Apache-2.0
"""Latent space optimisation with weighted retraining."""

from tfvae.lso.acquisition import ExpectedImprovement, ThompsonSampling
from tfvae.lso.evaluation import InProcess, ProcessPool
from tfvae.lso.evolutionary import EvolutionaryExpectedImprovement
from tfvae.lso.ledger import Entry, Ledger, read_ledger
from tfvae.lso.loop import LatentSpaceOptimizer
from tfvae.lso.plan import Plan
from tfvae.lso.retraining import Retraining
from tfvae.lso.strategies import (
    AggregateSampling,
    Mixture,
    OracleGrid,
    PriorSampling,
)
from tfvae.lso.surrogates import EnsembleRegressor, SparseGaussianProcess
from tfvae.lso.tasks.base import ScoredData, Task
from tfvae.lso.tasks.expressions import expressions
from tfvae.lso.tasks.molecules import molecules
from tfvae.lso.tasks.shapes import shapes
from tfvae.lso.weighting import FB, RWR, CemPi, DbAS, Rank, Unweighted

__all__ = [
    "FB",
    "RWR",
    "AggregateSampling",
    "CemPi",
    "DbAS",
    "EnsembleRegressor",
    "Entry",
    "EvolutionaryExpectedImprovement",
    "ExpectedImprovement",
    "InProcess",
    "LatentSpaceOptimizer",
    "Ledger",
    "Mixture",
    "OracleGrid",
    "Plan",
    "PriorSampling",
    "ProcessPool",
    "Rank",
    "Retraining",
    "ScoredData",
    "SparseGaussianProcess",
    "Task",
    "ThompsonSampling",
    "Unweighted",
    "expressions",
    "molecules",
    "read_ledger",
    "shapes",
]
