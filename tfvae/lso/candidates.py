# SPDX-License-Identifier: Apache-2.0
"""Candidate points of acquisition strategies, continuous and binary."""

from __future__ import annotations

import numpy as np
import scipy.stats

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
      context: Its latent space gives the prior; where it has a box, all draws
        of the prior are uniform points of the box instead.
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
    spread = np.asarray(context.latents).std(0)
    if context.box is None:
        prior = context.space.sample_prior(int(rng.integers(2**31)), num_prior)
    else:
        prior = box.sample(rng, num_prior)
        spread = np.minimum(spread, 0.5 * (box.high - box.low))
    base, mate = near[rng.integers(len(near), size=(2, num_local))]
    way = np.maximum(rng.uniform(-1.0, 1.0, (num_local, 1)), 0.0)
    steps = rng.standard_normal(base.shape) * spread
    # Steps of different sizes.
    steps *= 10.0 ** rng.uniform(-2.0, 0.0, (num_local, 1))
    moved = base + way * (mate - base) + steps
    return box.clip(np.concatenate([prior, box.sample(rng, num_box), moved]))


def region_candidates(
    box: Box, centre: np.ndarray, count: int, seed: int
) -> np.ndarray:
    """Draws candidates of a trust region: its centre, some coordinates moved.

    The others are those of a scrambled Sobol sequence in the box. In more than
    20 dimensions only about 20 coordinates differ from the centre (Regis and
    Shoemaker, 2013, "Combining radial basis function surrogates and dynamic
    coordinate search in high-dimensional expensive black-box optimization").

    Args:
      box: The trust region.
      centre: `[M]`.
      count: Number of candidates.
      seed: Seed of the draws.

    Returns:
      float32 `[count, M]`.
    """
    rng = np.random.default_rng(seed)
    num_latents = len(centre)
    sobol = scipy.stats.qmc.Sobol(num_latents, seed=rng)
    shares = sobol.random_base2(int(np.ceil(np.log2(max(count, 2)))))[:count]
    moved = box.low + shares * (box.high - box.low)
    is_moved = rng.random(shares.shape) < min(1.0, 20.0 / num_latents)
    one = rng.integers(num_latents, size=count)
    is_moved[np.arange(count), one] = True
    return box.clip(np.where(is_moved, moved, centre))


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
    num_first: int,
    count: int,
    num_draws: int,
    seed: int,
) -> np.ndarray:
    """Chooses a batch of candidates by joint expected improvement.

    Args:
      context: Its surrogate is drawn from; improvements count by the
        probability that constraints hold.
      candidates: `[C, M]`.
      incumbent: The score to improve on; None to choose by the probability
        that constraints hold alone.
      num_first: Number of the candidates that the batch begins with.
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
        order = np.argsort(-log_probs[num_first:], kind="stable")
        order = np.concatenate([np.arange(num_first), num_first + order])
        return candidates[order[:count]]
    draws = fitted(context).sample(candidates, num_draws, seed)
    chosen = search.greedy_batch(
        draws, incumbent, count, range(num_first), np.exp(log_probs)
    )
    return candidates[chosen]
