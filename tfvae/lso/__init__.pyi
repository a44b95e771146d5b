# SPDX-License-Identifier: Apache-2.0

from . import (
    acquisition,
    candidates,
    collapsed_bound,
    collection,
    curves,
    evaluation,
    evaluation_worker,
    evolutionary,
    gaussian_fit,
    header,
    improvement,
    latent_space,
    ledger,
    loop,
    pending,
    plan,
    proposing,
    ray_pool,
    reading,
    retraining,
    round_retrainer,
    round_table,
    scoring,
    search,
    snapshots,
    strategies,
    surrogates,
    tasks,
    weighting,
)
from .acquisition import ExpectedImprovement, ThompsonSampling
from .evaluation import InProcess, ProcessPool
from .evaluation_worker import Score
from .evolutionary import EvolutionaryExpectedImprovement
from .ledger import Entry, Ledger, read_ledger
from .loop import LatentSpaceOptimizer
from .plan import Plan
from .ray_pool import RayPool
from .retraining import Retraining
from .strategies import (
    AggregateSampling,
    Mixture,
    OracleGrid,
    PriorSampling,
)
from .surrogates import EnsembleRegressor, SparseGaussianProcess
from .tasks.base import ScoredData, Task
from .tasks.expressions import expressions
from .tasks.molecules import molecules
from .tasks.shapes import shapes
from .weighting import FB, RWR, CemPi, DbAS, Rank, Unweighted

__all__ = [
    "acquisition",
    "candidates",
    "collapsed_bound",
    "collection",
    "curves",
    "evaluation",
    "evaluation_worker",
    "evolutionary",
    "gaussian_fit",
    "header",
    "improvement",
    "latent_space",
    "ledger",
    "loop",
    "pending",
    "plan",
    "proposing",
    "ray_pool",
    "reading",
    "retraining",
    "round_retrainer",
    "round_table",
    "scoring",
    "search",
    "snapshots",
    "strategies",
    "surrogates",
    "tasks",
    "weighting",
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
    "RayPool",
    "Retraining",
    "Score",
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
