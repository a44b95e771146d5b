# SPDX-License-Identifier: Apache-2.0
"""Distributions of latents: diagonal Gaussian, Bernoulli, categorical.

They are plain tuples of parameter tensors without variables of their own;
densities and entropies are differentiable in the parameters. They and their
gradients are finite for any finite arguments: far away a log-density falls as
the square of a logarithm.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from tfvae.ops import limits, random

# Log-variances count as that at most, either way: standard deviations from
# 4e-18 to 2e17.
MAX_LOG_VARIANCE = 80.0
# Standard deviations from the mean up to which a Gaussian is one; a power of
# two, so that to divide by it is exact. The square of a larger float32 would
# soon be infinite.
_FAR = 2.0**50
# Largest size of the logits and relaxed states of Bernoulli distributions.
_MAX_LOGIT = 1e15


class DiagonalGaussian(NamedTuple):
    """N(z; mean, diag(exp(log_variance))).

    Attributes:
      mean: float32 `[..., M]`.
      log_variance: float32 that broadcasts against `mean`; a scalar for an
        isotropic Gaussian. What exceeds +-`MAX_LOG_VARIANCE` counts as that.
    """

    mean: tf.Tensor
    log_variance: tf.Tensor

    def sample(
        self, seed: tf.Tensor, num_samples: int | tf.Tensor | None = None
    ) -> tf.Tensor:
        """Draws z by reparameterisation, differentiable in the parameters.

        Args:
          seed: `[2]` int32.
          num_samples: K; None for one draw without a sample dimension.

        Returns:
          `[..., M]` or `[K, ..., M]`.
        """
        shape = _sample_shape(self.mean, num_samples)
        noise = random.normal(seed, shape)
        return self.mean + tf.exp(0.5 * self._bounded()) * noise

    @property
    def mode(self) -> tf.Tensor:
        """The most probable z, `[..., M]`."""
        return self.mean

    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        """Returns log q(z), nats, summed over latents, `[...]`."""
        log_variance = self._bounded()
        scaled = _scaled_squares(latents, self.mean, log_variance)
        per_latent = math.log(2.0 * math.pi) + log_variance + scaled
        return -0.5 * tf.reduce_sum(per_latent, -1)

    def entropy(self) -> tf.Tensor:
        """Returns the differential entropy, nats, `[...]`."""
        per_latent = 1.0 + math.log(2.0 * math.pi) + self._bounded()
        return 0.5 * tf.reduce_sum(
            tf.broadcast_to(per_latent, tf.shape(self.mean)), -1
        )

    def kl_from_standard_normal(self) -> tf.Tensor:
        """Returns KL(q || N(0, I)), nats, `[...]`.

        Reference: Kingma and Welling, 2014, "Auto-encoding variational
        Bayes", appendix B.
        """
        # E_q log q - E_q log p = -H(q) + (log 2 pi + mean**2 + variance) / 2.
        log_variance = self._bounded()
        variance = tf.exp(log_variance)
        per_latent = _square(self.mean) + variance - 1.0 - log_variance
        return 0.5 * tf.reduce_sum(per_latent, -1)

    def _bounded(self) -> tf.Tensor:
        return tf.clip_by_value(
            self.log_variance, -MAX_LOG_VARIANCE, MAX_LOG_VARIANCE
        )


class IndependentBernoulli(NamedTuple):
    """prod_h Bern(s_h; sigmoid(logits_h)).

    Attributes:
      logits: float32 `[..., H]`.
    """

    logits: tf.Tensor

    @property
    def mean(self) -> tf.Tensor:
        """Probabilities of a one, `[..., H]`."""
        return tf.sigmoid(self.logits)

    @property
    def mode(self) -> tf.Tensor:
        """The most probable state, float32 `[..., H]`."""
        return tf.cast(self.logits > 0.0, tf.float32)

    def sample(
        self, seed: tf.Tensor, num_samples: int | tf.Tensor | None = None
    ) -> tf.Tensor:
        """Draws binary states as float32, without gradient.

        Args:
          seed: `[2]` int32.
          num_samples: K; None for one draw without a sample dimension.

        Returns:
          `[..., H]` or `[K, ..., H]`.
        """
        draws = random.uniform(seed, _sample_shape(self.logits, num_samples))
        return tf.cast(draws < self.mean, tf.float32)

    def relaxed_sample(
        self, seed: tf.Tensor, temperature: float | tf.Tensor
    ) -> tf.Tensor:
        """Draws from the relaxed Bernoulli, on (0, 1), differentiable.

        Reference: Maddison, Mnih and Teh, 2017, "The concrete distribution",
        section 3.1 (binary case); Jang, Gu and Poole, 2017, "Categorical
        reparameterization with Gumbel-softmax".

        Args:
          seed: `[2]` int32.
          temperature: Positive scalar; draws become binary as it goes to 0.

        Returns:
          `[..., H]`.
        """
        # Uniforms are multiples of 2**-23; half a step keeps logits finite.
        draws = random.uniform(seed, tf.shape(self.logits)) + 2.0**-24
        noise = tf.math.log(draws) - tf.math.log1p(-draws)  # logistic
        return tf.sigmoid((self.logits + noise) / temperature)

    def log_prob(self, states: tf.Tensor) -> tf.Tensor:
        """Returns log q(s), nats, summed over latents, `[...]`."""
        logits = self._bounded()
        states = tf.clip_by_value(states, -_MAX_LOGIT, _MAX_LOGIT)
        per_latent = states * logits - tf.nn.softplus(logits)
        return tf.reduce_sum(per_latent, -1)

    def entropy(self) -> tf.Tensor:
        """Returns the entropy, nats, `[...]`."""
        # -p log p - (1 - p) log(1 - p) = softplus(l) - p l.
        logits = self._bounded()
        per_latent = tf.nn.softplus(logits) - tf.sigmoid(logits) * logits
        return tf.reduce_sum(per_latent, -1)

    def _bounded(self) -> tf.Tensor:
        return tf.clip_by_value(self.logits, -_MAX_LOGIT, _MAX_LOGIT)


class IndependentCategorical(NamedTuple):
    """prod_g Cat(c_g; softmax(logits_g)), of one-hot states one after another.

    States are `[..., G * C]`: the one-hot code of the first of G variables with
    C categories, then that of the second.

    Attributes:
      logits: float32 `[..., G, C]`.
    """

    logits: tf.Tensor

    @property
    def mean(self) -> tf.Tensor:
        """Probabilities of the categories, `[..., G * C]`."""
        return _flat(tf.nn.softmax(self._bounded()))

    @property
    def mode(self) -> tf.Tensor:
        """The most probable state, float32 `[..., G * C]`."""
        return self._one_hot(self.logits)

    def sample(
        self, seed: tf.Tensor, num_samples: int | tf.Tensor | None = None
    ) -> tf.Tensor:
        """Draws one-hot states as float32, without gradient.

        Args:
          seed: `[2]` int32.
          num_samples: K; None for one draw without a sample dimension.

        Returns:
          `[..., G * C]` or `[K, ..., G * C]`.
        """
        shape = _sample_shape(self.logits, num_samples)
        return self._one_hot(self._bounded() + _gumbel(seed, shape))

    def relaxed_sample(
        self, seed: tf.Tensor, temperature: float | tf.Tensor
    ) -> tf.Tensor:
        """Draws from the Gumbel-softmax distribution, differentiable.

        Reference: Jang, Gu and Poole, 2017, "Categorical reparameterization
        with Gumbel-softmax", equation 2.

        Args:
          seed: `[2]` int32.
          temperature: Positive scalar; draws become one-hot as it goes to 0.

        Returns:
          `[..., G * C]`, of which every C sum to 1.
        """
        noise = _gumbel(seed, tf.shape(self.logits))
        return _flat(tf.nn.softmax((self._bounded() + noise) / temperature))

    def log_prob(self, states: tf.Tensor) -> tf.Tensor:
        """Returns log q(s), nats, summed over variables, `[...]`."""
        log_probs = _flat(tf.nn.log_softmax(self._bounded()))
        states = tf.clip_by_value(states, -_MAX_LOGIT, _MAX_LOGIT)
        return tf.reduce_sum(states * log_probs, -1)

    def entropy(self) -> tf.Tensor:
        """Returns the entropy, nats, `[...]`."""
        log_probs = tf.nn.log_softmax(self._bounded())
        return -tf.reduce_sum(tf.exp(log_probs) * log_probs, [-2, -1])

    def _one_hot(self, scores: tf.Tensor) -> tf.Tensor:
        best = tf.argmax(scores, -1, tf.int32)
        return _flat(tf.one_hot(best, self.logits.shape[-1]))

    def _bounded(self) -> tf.Tensor:
        return tf.clip_by_value(self.logits, -_MAX_LOGIT, _MAX_LOGIT)


class Quantized(NamedTuple):
    """All mass on the vectors of a codebook that are nearest to outputs.

    It is discrete: probabilities are masses, and the entropy is 0.

    Attributes:
      outputs: float32 `[..., G * d]`, vectors of size d one after another.
      codebook: float32 `[C, d]`.
    """

    outputs: tf.Tensor
    codebook: tf.Tensor

    @property
    def codes(self) -> tf.Tensor:
        """One-hot codes of the nearest vectors, `[..., G * C]`."""
        num_codes, size = self.codebook.shape
        vectors = by_variable(self.outputs, self.outputs.shape[-1] // size)
        # The squared distance but for the term that all codes share.
        products = tf.tensordot(vectors, self.codebook, [[-1], [-1]])
        squares = tf.reduce_sum(tf.square(self.codebook), -1)
        nearest = tf.argmin(squares - 2.0 * products, -1, tf.int32)
        return _flat(tf.one_hot(nearest, num_codes))

    @property
    def mode(self) -> tf.Tensor:
        """The nearest vectors, `[..., G * d]`."""
        num_codes, size = self.codebook.shape
        num_variables = self.outputs.shape[-1] // size
        codes = by_variable(self.codes, num_variables)
        return _flat(tf.tensordot(codes, self.codebook, 1))

    @property
    def mean(self) -> tf.Tensor:
        """The same, `[..., G * d]`."""
        return self.mode

    def sample(
        self, seed: tf.Tensor, num_samples: int | tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the mode, which is every draw.

        Args:
          seed: Not used.
          num_samples: K; None for one draw without a sample dimension.

        Returns:
          `[..., G * d]` or `[K, ..., G * d]`.
        """
        shape = _sample_shape(self.outputs, num_samples)
        return tf.broadcast_to(self.mode, shape)

    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        """Returns log q of the mode, 0, `[...]`."""
        return tf.zeros_like(latents[..., 0])

    def entropy(self) -> tf.Tensor:
        """Returns 0, `[...]`."""
        return tf.zeros_like(self.outputs[..., 0])


def _gumbel(seed: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Draws standard Gumbel noise, finite."""
    # Uniforms are multiples of 2**-23; half a step keeps logarithms finite.
    draws = random.uniform(seed, shape) + 2.0**-24
    return -tf.math.log(-tf.math.log(draws))


def _flat(values: tf.Tensor) -> tf.Tensor:
    """Returns values `[..., G, C]` as `[..., G * C]`."""
    size = values.shape[-2] * values.shape[-1]
    return tf.reshape(values, tf.concat([tf.shape(values)[:-2], [size]], 0))


def by_variable(values: tf.Tensor, num_variables: int) -> tf.Tensor:
    """Returns values `[..., G * C]` as `[..., G, C]`.

    Args:
      values: Logits or states of categorical variables.
      num_variables: G, a divisor of the last dimension.
    """
    sizes = [num_variables, values.shape[-1] // num_variables]
    return tf.reshape(values, tf.concat([tf.shape(values)[:-1], sizes], 0))


def _scaled_squares(
    latents: tf.Tensor, mean: tf.Tensor, log_variance: tf.Tensor
) -> tf.Tensor:
    """Returns (z - mean)**2 / variance, or less where that is very large."""

    def usual() -> tf.Tensor:
        squares = tf.math.squared_difference(latents, mean)
        return squares * tf.exp(-log_variance)

    def extreme() -> tf.Tensor:
        # Differences of what is smaller are finite.
        largest = 0.4 * latents.dtype.max
        near = tf.clip_by_value(latents, -largest, largest)
        difference = near - tf.clip_by_value(mean, -largest, largest)
        return _square(difference * tf.exp(-0.5 * log_variance))

    # Mixtures evaluate this for all pairs of latents and components, where the
    # second way would take three times as long as the first.
    largest = tf.reduce_max(tf.abs(latents)) + tf.reduce_max(tf.abs(mean))
    precision = tf.exp(-0.5 * tf.reduce_min(log_variance))
    return tf.cond(largest * precision < _FAR, usual, extreme)


def _square(values: tf.Tensor) -> tf.Tensor:
    """Returns the squares of values, growing more slowly from `_FAR` on.

    It increases with the absolute value, up to 4e33 for the largest float32.
    """
    return tf.square(_FAR * limits.compress(values / _FAR, 1.0))


def _sample_shape(
    parameters: tf.Tensor, num_samples: int | tf.Tensor | None
) -> tf.Tensor:
    shape = tf.shape(parameters)
    if num_samples is None:
        return shape
    return tf.concat([[num_samples], shape], 0)
