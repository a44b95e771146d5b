# SPDX-License-Identifier: Apache-2.0

from . import (
    acquisition,
    candidates,
    choosing,
    collapsed_bound,
    collection,
    convolutional_process,
    curves,
    evaluation,
    evaluation_worker,
    evolutionary,
    feasibility,
    gaussian_fit,
    header,
    improvement,
    known_points,
    latent_space,
    ledger,
    loop,
    plan,
    proposing,
    reading,
    records,
    retraining,
    round_retrainer,
    round_table,
    scoring,
    search,
    snapshots,
    stopping,
    strategies,
    surrogate_state,
    surrogates,
    tables,
    tasks,
    telling,
    warping,
    weighting,
    window_evolution,
)
from .acquisition import ExpectedImprovement, ThompsonSampling
from .convolutional_process import ConvolutionalProcess
from .evaluation import InProcess, ProcessPool
from .evaluation_worker import Score
from .evolutionary import EvolutionaryExpectedImprovement
from .ledger import Ledger, read_ledger
from .loop import LatentSpaceOptimizer
from .plan import Plan
from .records import Addition, Entry, Query
from .retraining import Retraining
from .stopping import Stopping
from .strategies import (
    AggregateSampling,
    Mixture,
    OracleGrid,
    PriorSampling,
)
from .surrogates import EnsembleRegressor, SparseGaussianProcess
from .tables import read_table
from .tasks.base import ScoredData, Task
from .tasks.expressions import expressions
from .tasks.molecules import molecules
from .tasks.shapes import shapes
from .warping import RankGaussian, YeoJohnson
from .weighting import FB, RWR, CemPi, DbAS, Rank, Unweighted
from .window_evolution import WindowEvolution

__all__ = [
    "acquisition",
    "candidates",
    "choosing",
    "collapsed_bound",
    "collection",
    "convolutional_process",
    "curves",
    "evaluation",
    "evaluation_worker",
    "evolutionary",
    "feasibility",
    "gaussian_fit",
    "header",
    "improvement",
    "known_points",
    "latent_space",
    "ledger",
    "loop",
    "plan",
    "proposing",
    "reading",
    "records",
    "retraining",
    "round_retrainer",
    "round_table",
    "scoring",
    "search",
    "snapshots",
    "stopping",
    "strategies",
    "surrogate_state",
    "surrogates",
    "tables",
    "tasks",
    "telling",
    "warping",
    "weighting",
    "window_evolution",
    "FB",
    "RWR",
    "Addition",
    "AggregateSampling",
    "CemPi",
    "ConvolutionalProcess",
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
    "Query",
    "Rank",
    "RankGaussian",
    "Retraining",
    "Score",
    "ScoredData",
    "SparseGaussianProcess",
    "Stopping",
    "Task",
    "ThompsonSampling",
    "Unweighted",
    "WindowEvolution",
    "YeoJohnson",
    "expressions",
    "molecules",
    "read_ledger",
    "read_table",
    "shapes",
]
