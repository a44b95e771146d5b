# SPDX-License-Identifier: Apache-2.0
"""Synthetic data: the bars test, independent or correlated."""

from __future__ import annotations

import math

import numpy as np

from tfvae import typed_gin
from tfvae.arguments import check_positive
from tfvae.data.source import Observations

MAX_ENUMERABLE_LATENTS = 16
"""Above this number of latents the exact log-likelihood is left out."""

_STATES_PER_CHUNK = 1024


def bar_features(num_latents: int) -> np.ndarray:
    """The R horizontal and then R vertical bars of an R x R grid.

    Args:
      num_latents: Number of bars H = 2 R, an even number.

    Returns:
      `[H, R * R]` float32 of zeros and ones.

    Raises:
      ValueError: If `num_latents` is odd or below 4.
    """
    if num_latents < 4 or num_latents % 2:
        raise ValueError(
            f"`num_latents` must be even and at least 4, got {num_latents!r}"
        )
    side = num_latents // 2
    features = np.zeros((num_latents, side, side), dtype=np.float32)
    for position in range(side):
        features[position, position, :] = 1.0
        features[side + position, :, position] = 1.0
    return features.reshape(num_latents, side * side)


@typed_gin.register
def bars(
    num_data: int = 500,
    num_latents: int = 8,
    *,
    correlated: bool = False,
    noise_variance: float = 0.01,
    prior_prob: float | None = None,
    num_test: int = 0,
    seed: int = 0,
) -> Observations:
    """Draws superpositions of bars from a two-layer ReLU network.

    The generator is itself a VAE with binary latents,

        s ~ Bernoulli(pi),   x ~ N(relu(s W0) W1, sigma2 I),

    where the rows of W1 are the bars. W0 is the identity, so active latents
    add their bars. With `correlated`, W0[0, 1] = W0[H-1, 0] = -2: an active
    latent 0 suppresses bar 1, and an active latent H-1 suppresses bar 0.

    Args:
      num_data: Number of training points, N.
      num_latents: Number of bars H, even; the grid is H/2 x H/2.
      correlated: Whether two of the bars are suppressed by other latents.
      noise_variance: Variance sigma2 of the added Gaussian noise.
      prior_prob: Probability pi of each latent; 2 / H (two bars per image
        on average) if None.
      num_test: Number of further points for testing.
      seed: Seed of the draws.

    Returns:
      The data, with the bars as `features`. `log_likelihood` is exact: the
      sum over all 2^H states, if H <= 16.

    Raises:
      ValueError: If an argument is out of range.
    """
    if num_data < 1 or num_test < 0:
        raise ValueError(
            "`num_data` must be at least 1 and `num_test` at least 0, got "
            f"{num_data!r} and {num_test!r}"
        )
    features = bar_features(num_latents)
    prior_prob = 2.0 / num_latents if prior_prob is None else prior_prob
    _check_generator(prior_prob, noise_variance)
    interaction = np.eye(num_latents, dtype=np.float32)
    if correlated:
        interaction[0, 1] = interaction[-1, 0] = -2.0

    generator = np.random.default_rng(seed)

    def draw(count: int) -> np.ndarray:
        states = generator.random((count, num_latents)) < prior_prob
        means = _bar_means(states, interaction, features)
        noise = generator.standard_normal(means.shape)
        return (means + math.sqrt(noise_variance) * noise).astype(np.float32)

    train = draw(num_data)
    log_likelihood = None
    if num_latents <= MAX_ENUMERABLE_LATENTS:
        log_likelihood = float(
            _log_likelihoods(
                train, interaction, features, prior_prob, noise_variance
            ).mean()
        )
    side = num_latents // 2
    return Observations(
        name="correlated_bars" if correlated else "bars",
        train=train,
        test=draw(num_test) if num_test else None,
        event_shape=(side, side),
        value_range=(0.0, 2.0),
        features=features,
        log_likelihood=log_likelihood,
    )


def _check_generator(prior_prob: float, noise_variance: float) -> None:
    check_positive(noise_variance=noise_variance)
    if not 0.0 < prior_prob < 1.0:
        raise ValueError(f"`prior_prob` must be in (0, 1), got {prior_prob!r}")


def _bar_means(
    states: np.ndarray, interaction: np.ndarray, features: np.ndarray
) -> np.ndarray:
    """relu(s W0) W1 for states `[..., H]`; returns `[..., D]` float64."""
    hidden = np.maximum(states.astype(np.float64) @ interaction, 0.0)
    return hidden @ features


def _log_likelihoods(
    points: np.ndarray,  # [N, D]
    interaction: np.ndarray,  # [H, H]
    features: np.ndarray,  # [H, D]
    prior_prob: float,
    noise_variance: float,
) -> np.ndarray:
    """Sums p(s) p(x | s) over all 2^H states; returns log p(x), `[N]`.

    The states are visited in chunks, with a running log-sum-exp, so that
    memory does not grow with 2^H.
    """
    num_latents, num_observed = features.shape
    points = points.astype(np.float64)
    log_normaliser = 0.5 * num_observed * math.log(2 * math.pi * noise_variance)
    total = np.full(len(points), -np.inf)  # [N]
    for start in range(0, 2**num_latents, _STATES_PER_CHUNK):
        stop = min(start + _STATES_PER_CHUNK, 2**num_latents)
        codes = np.arange(start, stop)[:, None]
        states = (codes >> np.arange(num_latents)) & 1  # [chunk, H]
        num_active = states.sum(axis=1)
        log_prior = num_active * math.log(prior_prob) + (
            num_latents - num_active
        ) * math.log1p(-prior_prob)
        means = _bar_means(states, interaction, features)  # [chunk, D]
        # ||x - mu||^2 = ||x||^2 - 2 x . mu + ||mu||^2; float64 loses nothing
        # that matters here, since all three are of the order of D.
        squared = (
            (points**2).sum(axis=1)[:, None]
            - 2.0 * points @ means.T
            + (means**2).sum(axis=1)
        )  # [N, chunk]
        log_joint = log_prior - log_normaliser - squared / (2 * noise_variance)
        largest = log_joint.max(axis=1)
        scaled = np.exp(log_joint - largest[:, None]).sum(axis=1)
        total = np.logaddexp(total, largest + np.log(scaled))
    return total
