# SPDX-License-Identifier: Apache-2.0
"""Candidate latents: near good points, from the prior, from a box."""

from __future__ import annotations

import numpy as np

from tfvae.lso.search import Box
from tfvae.lso.strategies import Context


def best_points(context: Context, share: float) -> np.ndarray:
    """Returns the latents of the best points, the best first."""
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
    """Draws candidates close to given points, from the prior and the box.

    Args:
      context: Has the prior.
      box: Where candidates are.
      near: `[k, M]`. Local candidates are so many steps of all sizes away from
        one of these, or from a point on the way from one to another, half of
        them each.
      count: How many.
      seed: Of the draws.
      local_share: The share of local ones; the others are half draws of the
        prior, half points of the box.

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
    # Some near, some further away.
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
    """Draws states close to given ones, and others from the prior."""
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
