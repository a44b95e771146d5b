# SPDX-License-Identifier: Apache-2.0
"""Estimators of gradients in the parameters of q(z | x).

A family of posteriors has one of them. It says how many draws of the latents a
training step takes for a data point, and what loss, and hence what gradient,
follows from the losses of the draws. A new one is a class with these methods.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from tfvae.arguments import check_counts
from tfvae.ops import random
from tfvae.ops.distributions import IndependentBernoulli
from tfvae.settings import Settings, saved_settings


class Estimate(NamedTuple):
    """What an estimator makes of the losses of the draws.

    Attributes:
      losses: `[B]`, whose gradient is the estimate.
      shares: `[K, B]`, how much each draw counts in what is updated in closed
        form, with the sum 1 for each data point; None for a single draw.
    """

    losses: tf.Tensor
    shares: tf.Tensor | None


class Estimator(Protocol):
    """Protocol of gradient estimators.

    Attributes:
      num_draws: K, draws of the latents of a data point in a training step.
      has_log_ratios: Whether the rate of a draw is log q(z | x) - log p(z) at
        the draw, as an objective of several draws needs it. If not, it is the
        KL term, in closed form where there is one.
    """

    @property
    def num_draws(self) -> int: ...

    @property
    def has_log_ratios(self) -> bool: ...

    def estimate(
        self, distribution: Any, latents: tf.Tensor, losses: tf.Tensor
    ) -> Estimate:
        """Returns the loss of each data point.

        Args:
          distribution: q(z | x) of `[B, M]`.
          latents: The draws: `[K, B, M]`, or `[B, M]` for a single one.
          losses: Their losses, `[K, B]` or `[B]`.
        """


class BernoulliEstimator(Estimator, Protocol):
    """Protocol of estimators for binary latents, which also draw them."""

    def sample(
        self, distribution: IndependentBernoulli, seed: tf.Tensor
    ) -> tf.Tensor:
        """Draws states, `[K, B, M]`, or `[B, M]` for a single draw.

        Args:
          distribution: q(z | x) of `[B, M]`.
          seed: `[2]` int32.
        """


class Pathwise:
    """The gradient through a single draw that depends on the parameters."""

    num_draws = 1
    has_log_ratios = False

    def estimate(
        self, distribution: Any, latents: tf.Tensor, losses: tf.Tensor
    ) -> Estimate:
        return Estimate(losses, None)


@saved_settings
class StraightThrough(Settings, Pathwise):
    """A binary draw whose gradient is taken for that of the probability.

        d loss / d sigmoid(logit) = d loss / d z

    It is biased: for a loss that is linear in each latent it is right, for
    others it takes the slope at a corner for the difference of two corners.

    Reference: Bengio, Leonard and Courville, 2013, "Estimating or propagating
    gradients through stochastic neurons for conditional computation", section
    4.
    """

    def sample(
        self, distribution: IndependentBernoulli, seed: tf.Tensor
    ) -> tf.Tensor:
        return distribution.sample(seed) + _only_gradient(distribution.mean)


@saved_settings
class DisARM(Settings):
    """Unbiased gradient of the ELBO from antithetic pairs of binary draws.

    The logistic noise of the one draw z is minus that of the other, z'. With
    logits a and the loss f,

        d E f / d a_h ~ (f(z) - f(z')) / 2 (-1)**z'_h [z_h != z'_h] sigmoid|a_h|

    A draw has the distribution q, so the gradient in all other parameters is
    the mean of those at the draws.

    Reference: Dong, Mnih and Tucker, 2020, "DisARM: an antithetic gradient
    estimator for binary latent variables", equation 7.

    Attributes:
      num_pairs: Independent pairs of a data point, which are averaged.
    """

    num_pairs: int = 1

    has_log_ratios = False

    def __post_init__(self) -> None:
        """Checks the values."""
        check_counts(num_pairs=self.num_pairs)

    @property
    def num_draws(self) -> int:
        return 2 * self.num_pairs

    def sample(
        self, distribution: IndependentBernoulli, seed: tf.Tensor
    ) -> tf.Tensor:
        probs = distribution.mean
        shape = tf.concat([[self.num_pairs], tf.shape(probs)], 0)
        # Uniforms are multiples of 2**-23; half a step makes them symmetric.
        draws = random.uniform(seed, shape) + 2.0**-24
        pairs = tf.concat([draws, 1.0 - draws], 0)
        return tf.cast(pairs < probs, tf.float32)

    def estimate(
        self,
        distribution: IndependentBernoulli,
        latents: tf.Tensor,
        losses: tf.Tensor,
    ) -> Estimate:
        one, other = tf.split(latents, 2)
        difference = tf.subtract(*tf.split(losses, 2))[..., None]  # [P, B, 1]
        # (-1)**z' where z and z' differ, 0 elsewhere.
        signs = one - other
        logits = distribution.logits
        slopes = 0.5 * difference * signs * tf.sigmoid(tf.abs(logits))
        slopes = tf.stop_gradient(tf.reduce_mean(slopes, 0))  # [B, M]
        score = tf.reduce_sum(slopes * _only_gradient(logits), -1)
        return Estimate(
            tf.reduce_mean(losses, 0) + score,
            tf.fill(tf.shape(losses), 1.0 / self.num_draws),
        )


@saved_settings
class VIMCO(Settings):
    """Unbiased gradient of the bound of several draws, by a leave-one-out mean.

    The loss is minus the multi-sample bound

        L = log 1/K sum_k w_k,  w_k = p(x, z_k) / q(z_k | x)

    and the gradient is

        sum_k (L - L_k) d log q(z_k | x) + sum_k w_k / sum_j w_j d log w_k

    where in L_k the geometric mean of the other weights stands for w_k. Of an
    objective with a beta, log w_k is minus the loss of a draw. The parameters
    of the generative model get the importance-weighted gradient as well.

    Reference: Mnih and Rezende, 2016, "Variational inference for Monte Carlo
    objectives", equations 6 to 8.

    Attributes:
      num_samples: K, at least 2.
    """

    num_samples: int = 5

    has_log_ratios = True

    def __post_init__(self) -> None:
        """Checks the values."""
        check_counts(2, num_samples=self.num_samples)

    @property
    def num_draws(self) -> int:
        return self.num_samples

    def sample(
        self, distribution: IndependentBernoulli, seed: tf.Tensor
    ) -> tf.Tensor:
        return distribution.sample(seed, self.num_samples)

    def estimate(
        self,
        distribution: IndependentBernoulli,
        latents: tf.Tensor,
        losses: tf.Tensor,
    ) -> Estimate:
        log_weights = -losses
        count = float(self.num_samples)
        bound = tf.reduce_logsumexp(log_weights, 0) - tf.math.log(count)
        signals = tf.stop_gradient(bound - leave_one_out_bounds(log_weights))
        scores = _only_gradient(distribution.log_prob(latents))
        return Estimate(
            -bound - tf.reduce_sum(signals * scores, 0),
            tf.stop_gradient(tf.nn.softmax(log_weights, 0)),
        )


def leave_one_out_bounds(log_weights: tf.Tensor) -> tf.Tensor:
    """Returns L_k of `VIMCO` for each draw.

    Args:
      log_weights: `[K, B]`, K at least 2.

    Returns:
      `[K, B]`, the bound with the geometric mean of the other weights in place
      of the k-th.
    """
    count = tf.shape(log_weights)[0]
    others = tf.cast(count, tf.float32) - 1.0
    total = tf.reduce_sum(log_weights, 0)
    means = (total - log_weights) / others
    # [k, j, B]: the log-weight j of the k-th set.
    is_left_out = tf.eye(count, dtype=tf.bool)[..., None]
    sets = tf.where(is_left_out, means[:, None], log_weights[None])
    return tf.reduce_logsumexp(sets, 1) - tf.math.log(others + 1.0)


def _only_gradient(values: tf.Tensor) -> tf.Tensor:
    """Returns zeros that have the gradient of finite values."""
    return values - tf.stop_gradient(values)
