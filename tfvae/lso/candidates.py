# SPDX-License-Identifier: Apache-2.0
"""Candidate points of acquisition strategies, continuous and binary."""

from __future__ import annotations

import numpy as np

from tfvae.lso.search import Box
from tfvae.lso.strategies import Context


def best_points(context: Context, share: float) -> np.ndarray:
    """Returns the latents of the best fraction of the points, best first."""
    order = np.argsort(-np.asarray(context.scores), kind="stable")
    count = max(1, int(np.ceil(share * len(order))))
    return np.asarray(context.latents, np.float32)[order[:count]]


def box_candidates(
    context: Context,
    box: Box,
    near: np.ndarray,
    count: int,
    seed: int,
    local_share: float,
) -> np.ndarray:
    """Draws local candidates, and others from the prior and the box.

    Args:
      context: Its latent space gives the prior.
      box: Box constraints.
      near: `[k, M]`. Half of the local candidates are random steps of all sizes
        away from one of these points, half from a random point between two of
        them.
      count: Number of candidates.
      seed: Seed of the draws.
      local_share: Fraction of local candidates; half of the others are draws
        from the prior, half uniform points of the box.

    Returns:
      float32 `[count, M]`.
    """
    rng = np.random.default_rng(seed)
    num_prior = num_box = int(count * (1.0 - local_share) / 2.0)
    num_local = count - num_prior - num_box
    prior = context.space.sample_prior(int(rng.integers(2**31)), num_prior)
    base, mate = near[rng.integers(len(near), size=(2, num_local))]
    way = np.maximum(rng.uniform(-1.0, 1.0, (num_local, 1)), 0.0)
    spread = np.asarray(context.latents).std(0)
    steps = rng.standard_normal(base.shape) * spread
    # Steps of different sizes.
    steps *= 10.0 ** rng.uniform(-2.0, 0.0, (num_local, 1))
    moved = base + way * (mate - base) + steps
    return box.clip(np.concatenate([prior, box.sample(rng, num_box), moved]))


def binary_candidates(
    context: Context,
    near: np.ndarray,
    count: int,
    seed: int,
    local_share: float,
) -> np.ndarray:
    """Draws states near given ones by bit flips, and others from the prior."""
    rng = np.random.default_rng(seed)
    num_local = int(count * local_share)
    prior = context.space.sample_prior(
        int(rng.integers(2**31)), count - num_local
    )
    base = near[rng.integers(len(near), size=num_local)]
    rate = rng.choice([1.0, 2.0, 4.0], (len(base), 1)) / base.shape[1]
    flips = rng.random(base.shape) < rate
    states = np.concatenate([prior, np.where(flips, 1.0 - base, base)])
    return states.astype(np.float32)
