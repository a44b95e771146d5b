# SPDX-License-Identifier: Apache-2.0
"""Training objectives of VAEs: ELBO, beta schedules, a published variant.

An objective is a callable from the terms of a batch to a distortion and a
regularization; the loss is distortion minus regularization. A new one is a
class like these.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import tensorflow as tf

from tfvae.settings import Settings, saved_settings


class Terms(NamedTuple):
    """The terms of the ELBO of each data point of a batch.

    Attributes:
      log_likelihood: `[B]`, E_q log p(x | z), nats.
      squared_error: `[B]`, E_q of the squared error, summed over entries.
      kl: `[B]`, E_q[log q(z | x) - log p(z)], nats.
      log_det: `[B]`, the log-determinant term of E_q log p(z) for flows,
        nats; 0 for other priors.
    """

    log_likelihood: tf.Tensor
    squared_error: tf.Tensor
    kl: tf.Tensor
    log_det: tf.Tensor

    @property
    def bound(self) -> tf.Tensor:
        """The lower bound on log p(x), nats, `[B]`."""
        return self.log_likelihood - self.kl


class Objective(Protocol):
    """Protocol of training objectives."""

    def __call__(
        self, terms: Terms, num_latents: int, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns distortion and regularization; the loss is the difference.

        Args:
          terms: Terms of a batch.
          num_latents: M.
          step: int64 scalar, the training steps so far.

        Returns:
          Two tensors `[B]`.
        """


@saved_settings
class Elbo(Settings):
    """The (beta-)ELBO in nats, with terms summed over dimensions.

    Reference: Kingma and Welling, 2014, "Auto-encoding variational Bayes",
    equation 3; `beta`: Higgins et al., 2017, "beta-VAE"; warm-up: Sonderby et
    al., 2016, "Ladder variational autoencoders", section 2.3.

    Attributes:
      beta: Factor of the KL term; 1 for the ELBO, 0 for a regularised
        autoencoder whose prior is fitted afterwards.
      warm_up_steps: Training steps in which the factor increases linearly from
        0 to `beta`.
      weighs_distortion: Whether weights of data points apply to the whole
        loss. If not, they apply to the KL term only, and the distortion of a
        batch is multiplied by their mean, as in the code published with
        weighted retraining of expressions.
    """

    beta: float = 1.0
    warm_up_steps: int = 0
    weighs_distortion: bool = True

    def __post_init__(self) -> None:
        """Checks the values."""
        if not 0.0 <= self.beta < math.inf or self.warm_up_steps < 0:
            raise ValueError(
                "`beta` and `warm_up_steps` must not be negative, got "
                f"{self.beta!r} and {self.warm_up_steps!r}"
            )

    def __call__(
        self, terms: Terms, num_latents: int, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        factor = tf.constant(self.beta)
        if self.warm_up_steps:
            done = tf.cast(step, tf.float32) / float(self.warm_up_steps)
            factor *= tf.minimum(done, 1.0)
        return -terms.log_likelihood, -factor * terms.kl


@saved_settings
class GeometricBeta(Settings):
    """The beta-VAE objective with a geometric schedule of beta.

    beta is `first` for `constant_steps` training steps, then is multiplied by
    `growth` every `growth_steps`, until it is `last`. The defaults are those of
    weighted retraining of images of squares, where retraining uses
    `Elbo(beta=10.0)`.

    Reference: Tripp, Daxberger and Hernandez-Lobato, 2020, "Sample-efficient
    optimization in the latent space of deep generative models via weighted
    retraining".

    Attributes:
      first: Initial factor of the KL term, beta.
      last: Largest factor of the KL term.
      growth: Ratio of successive factors, greater than 1.
      constant_steps: Training steps before the first multiplication.
      growth_steps: Training steps from one multiplication to the next.
    """

    first: float = 1e-6
    last: float = 10.0
    growth: float = 1.1
    constant_steps: int = 1000
    growth_steps: int = 10

    def __post_init__(self) -> None:
        """Checks the values."""
        if not 0.0 < self.first <= self.last < math.inf:
            raise ValueError(
                "`first` must be positive and at most `last`, got "
                f"{self.first!r} and {self.last!r}"
            )
        if not 1.0 < self.growth < math.inf:
            raise ValueError(
                f"`growth` must be greater than 1, got {self.growth!r}"
            )
        if self.constant_steps < 0 or self.growth_steps < 1:
            raise ValueError(
                "`constant_steps` must not be negative and `growth_steps` at "
                f"least 1, got {self.constant_steps!r} and "
                f"{self.growth_steps!r}"
            )

    def factor(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the factor of the KL term in a training step, a scalar."""
        grown = tf.cast(step, tf.int64) - self.constant_steps
        times = tf.maximum(grown, 0) // self.growth_steps
        # Larger exponents would overflow.
        log_growth = math.log(self.growth)
        enough = math.ceil(math.log(self.last / self.first) / log_growth)
        times = tf.cast(tf.minimum(times, enough), tf.float64)
        factor = self.first * tf.exp(times * log_growth)
        return tf.cast(tf.minimum(factor, self.last), tf.float32)

    def __call__(
        self, terms: Terms, num_latents: int, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return -terms.log_likelihood, -self.factor(step) * terms.kl


@saved_settings
class Thesis(Settings):
    """The loss that the published tables of 24 models report as negative ELBO.

    The distortion is the squared error summed over pixels. The regularization
    averages the Gaussian terms over the M latents, but sums the flow's
    log-determinant, which therefore has M times its proper weight relative to
    the density. It is not a bound: bounded scales saturate, as their
    log-determinant then grows by one for each latent that a flow transforms,
    whereas the density that decreases is divided by M. Use it only to
    reproduce the tables.

    docs/random_encoders.md derives this form from the published numbers.
    """

    def __call__(
        self, terms: Terms, num_latents: int, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        gaussian = -(terms.kl + terms.log_det) / num_latents
        return terms.squared_error, gaussian + terms.log_det
