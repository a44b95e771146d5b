# SPDX-License-Identifier: Apache-2.0
"""Candidate points of acquisition strategies, continuous and binary."""

from __future__ import annotations

import numpy as np

from tfvae.lso import search
from tfvae.lso.search import Box
from tfvae.lso.strategies import Context, feasible_of, fitted, merits_of


def best_points(context: Context, share: float) -> np.ndarray:
    """Returns the latents of the best fraction of the points, best first.

    They are feasible. Where no point is, the best ones are those whose
    constraints most probably hold.
    """
    latents = np.asarray(context.latents, np.float32)
    feasible = feasible_of(context)
    if feasible.any():
        merits = np.where(feasible, merits_of(context), -np.inf)
    elif context.log_feasibility is not None:
        merits = np.asarray(context.log_feasibility(latents))
        feasible = ~feasible
    else:
        merits, feasible = merits_of(context), ~feasible
    order = np.argsort(-merits, kind="stable")
    count = max(1, int(np.ceil(share * feasible.sum())))
    return latents[order[:count]]


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


def batch_of(
    context: Context,
    candidates: np.ndarray,
    incumbent: float | None,
    count: int,
    num_draws: int,
    seed: int,
) -> np.ndarray:
    """Chooses a batch of candidates by joint expected improvement.

    Args:
      context: Its surrogate is drawn from; improvements count by the
        probability that constraints hold.
      candidates: `[C, M]`, the first of which is the first of the batch.
      incumbent: The score to improve on; None to choose by the probability
        that constraints hold alone.
      count: Size of the batch, at most C.
      num_draws: Joint draws of the surrogate.
      seed: Seed of the draws.

    Returns:
      `[count, M]`, distinct rows of `candidates`.
    """
    log_probs = np.zeros(len(candidates))
    if context.log_feasibility is not None:
        log_probs = np.asarray(context.log_feasibility(candidates))
    if incumbent is None:
        order = 1 + np.argsort(-log_probs[1:], kind="stable")
        return candidates[[0, *order[: count - 1]]]
    draws = fitted(context).sample(candidates, num_draws, seed)
    chosen = search.greedy_batch(draws, incumbent, count, 0, np.exp(log_probs))
    return candidates[chosen]
