# SPDX-License-Identifier: Apache-2.0
"""TVAE: a VAE with binary latents and evolved posteriors, without encoder."""

from tfvae.tvae.evolution import Evolution
from tfvae.tvae.exploration import Exploration, Explore
from tfvae.tvae.inference import Inference, UpdateArchive
from tfvae.tvae.model import TVAE
from tfvae.tvae.operators import (
    Crossover,
    Elite,
    Fitness,
    RandFlip,
    Softmax,
    SparseFlip,
    Uniform,
)
from tfvae.tvae.states import (
    STATE_NAMES,
    DiskStateStore,
    StateStore,
    undrawn_states,
)

__all__ = [
    "STATE_NAMES",
    "DiskStateStore",
    "TVAE",
    "Crossover",
    "Elite",
    "Evolution",
    "Exploration",
    "Explore",
    "Fitness",
    "Inference",
    "RandFlip",
    "Softmax",
    "SparseFlip",
    "StateStore",
    "Uniform",
    "UpdateArchive",
    "undrawn_states",
]
