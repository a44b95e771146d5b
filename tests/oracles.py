# SPDX-License-Identifier: Apache-2.0
"""Slow and obvious float64 transcriptions that tests hold the library to.

Nothing here uses TensorFlow or the library's own code: loops, enumeration of
all states, and scipy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import scipy.special
import scipy.stats

# A chi-square test at a fixed seed is no lottery: it passes or fails for ever.
# A right sampler fails this level for one seed in a thousand, a wrong one, at
# the sample sizes of these tests, for all.
CHI_SQUARE_LEVEL = 1e-3


def enumerate_states(num_latents: int) -> np.ndarray:
    """Returns all states, `[2**H, H]`, in the order of binary counting."""
    rows = [row[::-1] for row in itertools.product((0, 1), repeat=num_latents)]
    return np.array(rows, np.float64)


def unpack(packed: np.ndarray, num_latents: int) -> np.ndarray:
    """Returns states `[..., H]` of packed ones, bit by bit."""
    packed = np.asarray(packed)
    states = np.zeros((*packed.shape[:-1], num_latents))
    for h in range(num_latents):
        states[..., h] = (packed[..., h // 8] >> (h % 8)) & 1
    return states


def splitmix64(value: int) -> int:
    """The finaliser of splitmix64, in Python's unbounded integers."""
    mask = 2**64 - 1
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


def count_distinct(states: np.ndarray) -> int:
    """How many different rows there are in `[S, ...]`."""
    return len({row.tobytes() for row in np.ascontiguousarray(states)})


def best_distinct(
    packed: np.ndarray, log_joints: np.ndarray, num_states: int
) -> list[float]:
    """Returns log-joints of the best distinct states, falling.

    Of equal states the first counts; missing states are -inf, states of -inf
    the lowest finite number.
    """
    seen = {}
    for row, value in zip(packed, log_joints, strict=True):
        lowest = np.finfo(np.float32).min
        seen.setdefault(row.tobytes(), max(float(value), lowest))
    best = sorted(seen.values(), reverse=True)[:num_states]
    return best + [-np.inf] * (num_states - len(best))


def distinct(keys: np.ndarray) -> tuple[list[int], list[int], list[int]]:
    """Returns keys once each, where each is first, and which each one is."""
    once, first, index = [], [], []
    for place, key in enumerate(keys.tolist()):
        if key not in once:
            once.append(key)
            first.append(place)
        index.append(once.index(key))
    return once, first, index


def num_kept(log_joints: np.ndarray, max_dropped_mass: float) -> int:
    """Returns the least M whose mean posterior mass behind it is allowed."""
    q = np.array([posterior(row) for row in log_joints])
    for count in range(1, q.shape[1]):
        if q[:, count:].sum(1).mean() <= max_dropped_mass:
            return count
    return q.shape[1]


# Densities, one data point `x` [D] and one mean [D]; NaN in x is skipped.


def log_prior(state: np.ndarray, prior_probs: np.ndarray) -> float:
    """Returns log p(s), one latent after the other."""
    total = 0.0
    for bit, prob in zip(state, np.float64(prior_probs), strict=True):
        total += np.log(prob) if bit else np.log(1.0 - prob)
    return total


def gaussian_log_prob(
    x: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> float:
    """Returns log N(x; mean, diag(variance)) over observed entries."""
    seen = ~np.isnan(x)
    variance = np.broadcast_to(variance, x.shape)[seen]
    error = (x[seen] - mean[seen]) ** 2
    return -0.5 * (np.log(2.0 * np.pi * variance) + error / variance).sum()


def bernoulli_log_prob(x: np.ndarray, logits: np.ndarray) -> float:
    """Returns x log m + (1 - x) log(1 - m) over observed entries."""
    seen = ~np.isnan(x)
    log_on = -np.logaddexp(0.0, -logits[seen])
    log_off = -np.logaddexp(0.0, logits[seen])
    return (x[seen] * log_on + (1.0 - x[seen]) * log_off).sum()


# `(x [D], outputs [O]) -> log p(x | s)` of each likelihood.
LogLikelihood = Callable[[np.ndarray, np.ndarray], float]


def gaussian(
    variance: float, offset: float = 0.0, scale: float = 1.0
) -> LogLikelihood:
    """One variance for all; means are offset + scale * outputs."""
    return lambda x, outputs: gaussian_log_prob(
        x, offset + scale * outputs, variance
    )


def diagonal_gaussian(offset: float = 0.0, scale: float = 1.0) -> LogLikelihood:
    """Outputs are means, then log-variances, in units of `scale`."""

    def log_prob(x: np.ndarray, outputs: np.ndarray) -> float:
        mean, ratio = np.split(outputs, 2)
        variance = scale**2 * np.exp(15.0 * np.tanh(ratio / 15.0))
        return gaussian_log_prob(x, offset + scale * mean, variance)

    return log_prob


def bernoulli() -> LogLikelihood:
    """Outputs are logits."""
    return bernoulli_log_prob


def poisson(shift: float = 0.0, scale: float = 1.0) -> LogLikelihood:
    """Rates are scale * softplus(shift + outputs)."""

    def log_prob(x: np.ndarray, outputs: np.ndarray) -> float:
        seen = ~np.isnan(x)
        log_rate = np.log(scale * np.logaddexp(0.0, shift + outputs[seen]))
        log_factorial = scipy.special.gammaln(x[seen] + 1.0)
        return (x[seen] * log_rate - np.exp(log_rate) - log_factorial).sum()

    return log_prob


# A decoder and what follows from it.


def perceptron(weights: Sequence[np.ndarray], states: np.ndarray) -> np.ndarray:
    """Returns tanh layers and a linear last one, `[..., O]`.

    Args:
      weights: Kernel and bias of each layer, in turn.
      states: `[..., H]`.
    """
    values = np.asarray(states, np.float64)
    layers = [np.asarray(weight, np.float64) for weight in weights]
    for i in range(0, len(layers), 2):
        values = values @ layers[i] + layers[i + 1]
        if i + 2 < len(layers):
            values = np.tanh(values)
    return values


def log_joints(
    x: np.ndarray,
    states: np.ndarray,
    outputs: np.ndarray,
    prior_probs: np.ndarray,
    log_likelihood: LogLikelihood,
) -> np.ndarray:
    """Returns log p(x, s), `[K]`, of one data point and states `[K, H]`."""
    x = np.asarray(x, np.float64)
    return np.array(
        [
            log_likelihood(x, output) + log_prior(state, prior_probs)
            for state, output in zip(states, outputs, strict=True)
        ]
    )


def posterior(values: np.ndarray) -> np.ndarray:
    """Returns q, `[K]`, of log-joints `[K]`."""
    return scipy.special.softmax(np.asarray(values, np.float64))


def free_energy(values: np.ndarray) -> float:
    """Returns logsumexp of log-joints `[K]`."""
    return float(scipy.special.logsumexp(np.asarray(values, np.float64)))


def sparse_flip_probs(
    num_ones: int, num_bits: int, flip_rate: float, expected_ones: float
) -> tuple[float, float]:
    """Returns p_0 and p_1 by the published formula with alpha, 0 < s < H."""
    flips = num_bits * flip_rate
    change = expected_ones - num_ones
    alpha = (num_bits - num_ones) * (flips - change)
    alpha /= (change + flips) * num_ones
    prob_zero = flips / (num_bits + (alpha - 1.0) * num_ones)
    return prob_zero, alpha * prob_zero


def chi_square_p(counts: np.ndarray, probs: np.ndarray) -> float:
    """Returns the p-value of counts; the impossible gives 0.

    Args:
      counts: `[K]`.
      probs: `[K]`, not necessarily normalised.
    """
    counts, probs = np.asarray(counts), np.asarray(probs, np.float64)
    possible = probs > 0.0
    if counts[~possible].any():
        return 0.0
    if possible.sum() == 1:
        return 1.0
    expected = probs[possible] / probs.sum() * counts.sum()
    return float(scipy.stats.chisquare(counts[possible], expected).pvalue)


def numeric_gradient(
    function: Callable[[np.ndarray], float], point: np.ndarray
) -> np.ndarray:
    """Returns central differences of a float64 function, entry by entry."""
    step = 1e-5
    gradient = np.zeros(point.size)
    for i in range(point.size):
        shift = np.zeros(point.size)
        shift[i] = step
        shift = shift.reshape(point.shape)
        gradient[i] = function(point + shift) - function(point - shift)
    return gradient.reshape(point.shape) / (2.0 * step)
