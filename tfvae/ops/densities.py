# SPDX-License-Identifier: Apache-2.0
"""Log-densities in nats, with all constants, summed over observed entries.

Everywhere: `x` is float32 `[..., D]` with missing entries set to any finite
value, `observed` is float32 `[..., D]`, 1 where an entry is observed and 0
where it is missing. Leading dimensions broadcast.

A function `..._features` writes a log-density as an inner product of features
of x and features of the parameters. It takes data `[B, D]` and returns their
features `[B, K]` and a function from parameters `[U, D]` to parameter features
`[U, K]`: the matrix product of the two is the log-density of every data point
under every parameter vector, without a `[B, U, D]` tensor in memory.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator

import tensorflow as tf

# Counts from which Stirling's series replaces log x!.
_STIRLING_FROM = 16.0

_IS_STATIC = contextvars.ContextVar("tfvae_is_static", default=False)


@contextlib.contextmanager
def fixed_shapes() -> Iterator[None]:
    """Makes features have D columns of sums even where nothing is missing.

    How many they have depends on the data otherwise. XLA compiles that without
    an error, and computes something else.
    """
    token = _IS_STATIC.set(True)
    try:
        yield
    finally:
        _IS_STATIC.reset(token)


def split_missing(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits data with NaN for missing entries into values and a mask.

    Args:
      x: float32 `[..., D]`, NaN where missing.

    Returns:
      The data with zeros in place of NaN, and float32 `observed`, both
      `[..., D]`.
    """
    missing = tf.math.is_nan(x)
    return tf.where(missing, 0.0, x), tf.cast(~missing, tf.float32)


def bernoulli_log_prior(states: tf.Tensor, prior_probs: tf.Tensor) -> tf.Tensor:
    """Returns log p(s) = sum_h s_h log pi_h + (1 - s_h) log(1 - pi_h).

    Args:
      states: float32 `[..., H]` of zeros and ones.
      prior_probs: float32 `[H]`, inside (0, 1).

    Returns:
      float32 `[...]`.
    """
    # One matrix-vector product: log-odds of the ones, plus the empty state.
    log_off = tf.math.log1p(-prior_probs)
    log_odds = tf.math.log(prior_probs) - log_off
    return tf.linalg.matvec(states, log_odds) + tf.reduce_sum(log_off)


def squared_error(
    x: tf.Tensor, observed: tf.Tensor, mean: tf.Tensor
) -> tf.Tensor:
    """Returns the squared error summed over observed entries, `[...]`."""
    return tf.reduce_sum(
        observed * tf.math.squared_difference(x, mean), axis=-1
    )


Features = tuple[tf.Tensor, Callable[..., tf.Tensor]]
"""Features of data `[B, K]`, and a function from parameters to theirs."""


def _center(x: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
    """Returns a centre of the observed entries, a scalar.

    Centring the data reduces cancellation in the expanded square. It is a mean
    over data points in which those of large values count little: a data point
    far from all others must not take their precision.
    """
    means = tf.math.divide_no_nan(
        tf.reduce_sum(observed * x, -1), tf.reduce_sum(observed, -1)
    )
    weights = tf.square(1.0 / (1.0 + tf.abs(means)))
    return tf.math.divide_no_nan(
        tf.reduce_sum(weights * means), tf.reduce_sum(weights)
    )


def _observed_sums(
    observed: tf.Tensor,
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Returns features that sum values `[U, D]` over the observed entries.

    It takes one feature where nothing is missing, and D otherwise.
    """
    if _IS_STATIC.get():
        return observed, lambda values: values
    is_complete = tf.reduce_all(observed > 0.0)
    of_data = tf.cond(
        is_complete, lambda: tf.ones_like(observed[:, :1]), lambda: observed
    )

    def of_values(values: tf.Tensor) -> tf.Tensor:
        return tf.cond(
            is_complete,
            lambda: tf.reduce_sum(values, -1, keepdims=True),
            lambda: values,
        )

    return of_data, of_values


def gaussian_features(
    x: tf.Tensor, observed: tf.Tensor, variance: tf.Tensor
) -> Features:
    """Returns features of log N(x; mean, variance I); see the module.

    The square is expanded, so the rounding error in nats is about 1e-7 times
    the squared distance from the mean of all data, divided by the variance:
    negligible for noisy data, but tens of nats where the variance is a
    millionth of the data's.

    Args:
      x: `[B, D]`.
      observed: `[B, D]`.
      variance: Scalar.

    Returns:
      Features of the data, and a function of the mean `[U, D]`.
    """
    # o (x - m)**2 = o x**2 - 2 o x m + o m**2
    center = _center(x, observed)
    x = observed * (x - center)
    ones, sums = _observed_sums(observed)
    of_x_alone = gaussian_log_prob(
        tf.reduce_sum(tf.square(x), -1, keepdims=True),
        tf.reduce_sum(observed, -1, keepdims=True),
        variance,
    )

    def of_mean(mean: tf.Tensor) -> tf.Tensor:
        mean -= center
        return tf.concat(
            [
                mean / variance,
                -0.5 * sums(tf.square(mean)) / variance,
                tf.ones_like(mean[:, :1]),
            ],
            -1,
        )

    return tf.concat([x, ones, of_x_alone], -1), of_mean


def gaussian_log_prob(
    error: tf.Tensor, num_observed: tf.Tensor, variance: tf.Tensor
) -> tf.Tensor:
    """Returns log N(x; mean, variance I) from the summed squared error.

    Args:
      error: `[...]`, squared error summed over observed entries.
      num_observed: `[...]`, the number of those entries.
      variance: Scalar.

    Returns:
      `[...]`.
    """
    log_normaliser = num_observed * tf.math.log(2.0 * math.pi * variance)
    return -0.5 * (log_normaliser + error / variance)


def diagonal_gaussian_log_prob(
    x: tf.Tensor,
    observed: tf.Tensor,
    mean: tf.Tensor,
    log_variance: tf.Tensor,
) -> tf.Tensor:
    """Returns log N(x; mean, diag(exp(log_variance))), `[...]`."""
    scaled = tf.math.squared_difference(x, mean) * tf.exp(-log_variance)
    per_entry = math.log(2.0 * math.pi) + log_variance + scaled
    return -0.5 * tf.reduce_sum(observed * per_entry, axis=-1)


def diagonal_gaussian_features(x: tf.Tensor, observed: tf.Tensor) -> Features:
    """Returns features of log N(x; mean, diag(exp(log_variance))).

    Args:
      x: `[B, D]`.
      observed: `[B, D]`.

    Returns:
      Features of the data, and a function of mean and log-variance `[U, D]`.
    """
    center = _center(x, observed)
    x = observed * (x - center)
    ones, sums = _observed_sums(observed)

    def of_parameters(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
        mean -= center
        precision = tf.exp(-log_variance)
        rest = math.log(2.0 * math.pi) + log_variance
        rest += precision * tf.square(mean)
        return tf.concat(
            [-0.5 * precision, precision * mean, -0.5 * sums(rest)], -1
        )

    return tf.concat([tf.square(x), x, ones], -1), of_parameters


def bernoulli_log_prob(
    x: tf.Tensor, observed: tf.Tensor, logits: tf.Tensor
) -> tf.Tensor:
    """Returns x log m + (1 - x) log(1 - m), m = sigmoid(logits), `[...]`."""
    # log m = l - softplus(l) and log(1 - m) = -softplus(l).
    per_entry = x * logits - tf.nn.softplus(logits)
    return tf.reduce_sum(observed * per_entry, axis=-1)


def bernoulli_features(x: tf.Tensor, observed: tf.Tensor) -> Features:
    """Returns features of x log m + (1 - x) log(1 - m), m = sigmoid(logits).

    Args:
      x: `[B, D]`.
      observed: `[B, D]`.

    Returns:
      Features of the data, and a function of the logits `[U, D]`.
    """
    ones, sums = _observed_sums(observed)

    def of_logits(logits: tf.Tensor) -> tf.Tensor:
        return tf.concat([logits, -sums(tf.nn.softplus(logits))], -1)

    return tf.concat([observed * x, ones], -1), of_logits


def poisson_log_prob(
    x: tf.Tensor, observed: tf.Tensor, log_rate: tf.Tensor
) -> tf.Tensor:
    """Returns x log r - r - log x!, r = exp(log_rate), `[...]`.

    x! is Gamma(x + 1), so that x need not be an integer.

    Args:
      x: `[..., D]`, not negative where observed.
      observed: `[..., D]`.
      log_rate: `[..., D]`, finite, with finite exponentials.
    """
    # Two numbers of the size of x log x cancel for large counts, so log p is
    # written as its maximum over rates and the distance from it. With c = x
    # (or 1, where x is less) and l = log(r / c):
    #   log p = (x l - c (exp(l) - 1)) + (x log c - c - log x!).
    x = tf.where(observed > 0.0, x, 0.0)
    center = tf.maximum(x, 1.0)
    ratio = log_rate - tf.math.log(center)
    per_entry = x * ratio - center * tf.math.expm1(ratio) + _at_own_rate(x)
    return tf.reduce_sum(observed * per_entry, axis=-1)


def _at_own_rate(x: tf.Tensor) -> tf.Tensor:
    """Returns x log c - c - log x!, c = max(x, 1): nats, of any x >= 0."""
    few = tf.minimum(x, _STIRLING_FROM)
    center = tf.maximum(few, 1.0)
    exact = few * tf.math.log(center) - center - tf.math.lgamma(few + 1.0)
    # Stirling's series; the next term is 1 / (1260 x**5), or 1e-9.
    many = tf.maximum(x, _STIRLING_FROM)
    series = 1.0 / (12.0 * many) - 1.0 / (360.0 * many * many * many)
    stirling = -0.5 * tf.math.log(2.0 * math.pi * many) - series
    return tf.where(x < _STIRLING_FROM, exact, stirling)


def poisson_features(x: tf.Tensor, observed: tf.Tensor) -> Features:
    """Returns features of x log r - r - log x!, r = exp(log_rate).

    As both are taken relative to a centre c of the data, the rounding error in
    nats is about 1e-7 times the sum of |x - c| |log(r / c)|: negligible up to
    thousands of counts an entry, and about 1 nat for a million.

    Args:
      x: `[B, D]`, not negative where observed.
      observed: `[B, D]`.

    Returns:
      Features of the data, and a function of the log-rates `[U, D]`.
    """
    # With l = log(r / c), log p(x; r) = log p(x; c) + (x - c) l
    #   - c (exp(l) - 1 - l).
    center = tf.maximum(_center(x, observed), 1.0)
    log_center = tf.math.log(center)
    ones, sums = _observed_sums(observed)
    of_x_alone = poisson_log_prob(x, observed, log_center)[:, None]

    def of_log_rate(log_rate: tf.Tensor) -> tf.Tensor:
        ratio = log_rate - log_center
        rest = center * (tf.math.expm1(ratio) - ratio)
        return tf.concat([ratio, -sums(rest), tf.ones_like(ratio[:, :1])], -1)

    features = [observed * (x - center), ones, of_x_alone]
    return tf.concat(features, -1), of_log_rate
