# SPDX-License-Identifier: Apache-2.0
"""Training objectives of VAEs: loss = distortion + beta * rate.

The distortion is the negative expected log-likelihood -E_q[log p(x | z)], the
rate the KL term E_q[log q(z | x) - log p(z)], which beta weighs. A new
objective is a subclass of `Objective`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from tfvae.settings import Settings, saved_settings
from tfvae.vae.estimators import Estimator


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


class Objective(Settings):
    """Base class of objectives: distortion and weighted rate of a batch.

    A subclass is decorated with `saved_settings` and has `__call__`.
    """

    def __call__(
        self, terms: Terms, num_latents: int, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the two summands of each data point's loss.

        Args:
          terms: Terms of a batch.
          num_latents: M.
          step: int64 scalar, the training steps so far.

        Returns:
          The distortion, `[B]`, and the rate times its weight beta, `[B]`.
        """
        raise NotImplementedError

    def weighted_loss(
        self, distortion: tf.Tensor, rate: tf.Tensor, weights: tf.Tensor
    ) -> tf.Tensor:
        """Returns the losses of data points that count more or less, `[B]`.

        Args:
          distortion: `[B]`.
          rate: `[B]`, times beta.
          weights: `[B]`, of the data points.
        """
        return weights * (distortion + rate)


@saved_settings
class Elbo(Objective):
    """The negative evidence lower bound, in nats, summed over dimensions.

    The loss is -E_q[log p(x | z)] + beta * KL(q(z | x) || p(z)).

    Reference: Kingma and Welling, 2014, "Auto-encoding variational Bayes",
    equation 3; `beta`: Higgins et al., 2017, "beta-VAE"; warm-up: Sonderby et
    al., 2016, "Ladder variational autoencoders", section 2.3.

    Attributes:
      beta: Weight of the rate; 1 for the bound itself, 0 for a regularised
        autoencoder whose prior is fitted afterwards.
      warm_up_steps: Training steps in which the weight grows from 0 to `beta`
        linearly.
      weighs_distortion: Whether weights of data points apply to the whole
        loss. If not, they apply to the rate alone, and the distortion is
        multiplied by their mean over the batch, as in the code published with
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
        beta = tf.constant(self.beta)
        if self.warm_up_steps:
            done = tf.cast(step, tf.float32) / float(self.warm_up_steps)
            beta *= tf.minimum(done, 1.0)
        return -terms.log_likelihood, beta * terms.kl

    def weighted_loss(
        self, distortion: tf.Tensor, rate: tf.Tensor, weights: tf.Tensor
    ) -> tf.Tensor:
        if self.weighs_distortion:
            return super().weighted_loss(distortion, rate, weights)
        return tf.reduce_mean(weights) * distortion + weights * rate


def check_can_share(objective: Objective) -> None:
    """Raises ValueError if weighted losses need the batch of all ranks."""
    if isinstance(objective, Elbo) and not objective.weighs_distortion:
        raise ValueError(
            "`objective` must weigh the distortion of each data point on "
            "several ranks, each of which has a part of the batch, got "
            f"{objective!r}"
        )


def check_can_estimate(objective: Objective, estimator: Estimator) -> None:
    """Raises ValueError if an estimator has no gradient of an objective."""
    if not estimator.has_log_ratios:
        return
    if isinstance(objective, Thesis) or (
        isinstance(objective, Elbo) and not objective.weighs_distortion
    ):
        raise ValueError(
            "`objective` must weigh the whole loss of each data point, and sum "
            "over latents, for VIMCO and for quantised latents, got "
            f"{objective!r} and {estimator!r}"
        )


@saved_settings
class GeometricBeta(Objective):
    """The negative evidence lower bound with a beta that grows geometrically.

    Beta is `first` for `constant_steps` training steps, is then multiplied by
    `growth` every `growth_steps`, and stops at `last`. The defaults are those
    of weighted retraining of images of squares, which later trains with
    `Elbo(beta=10.0)`.

    Reference: Tripp, Daxberger and Hernandez-Lobato, 2020, "Sample-efficient
    optimization in the latent space of deep generative models via weighted
    retraining".

    Attributes:
      first: Beta at first.
      last: The largest beta.
      growth: What beta is multiplied by, over 1.
      constant_steps: Training steps before the growth.
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

    def beta(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the weight of the rate in a training step, a scalar."""
        grown = tf.cast(step, tf.int64) - self.constant_steps
        times = tf.maximum(grown, 0) // self.growth_steps
        # Larger exponents would overflow.
        log_growth = math.log(self.growth)
        enough = math.ceil(math.log(self.last / self.first) / log_growth)
        times = tf.cast(tf.minimum(times, enough), tf.float64)
        beta = self.first * tf.exp(times * log_growth)
        return tf.cast(tf.minimum(beta, self.last), tf.float32)

    def __call__(
        self, terms: Terms, num_latents: int, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return -terms.log_likelihood, self.beta(step) * terms.kl


@saved_settings
class Thesis(Objective):
    """What the published tables of the 24 models report as negative ELBO.

    The distortion is the squared error summed over pixels. The rate averages
    the Gaussian terms over the M latents, but sums the flow's log-determinant,
    which so weighs M times what it should against the density that it belongs
    to. The loss is no bound on anything: bounded scales saturate, for their
    log-determinant then grows by one for each latent that a flow transforms,
    whereas the density that falls is divided by M. It is here to reproduce the
    tables, and for nothing else. What the tables call regularization is minus
    the rate.

    docs/random_encoders.md derives this form from the published numbers.
    """

    def __call__(
        self, terms: Terms, num_latents: int, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        gaussian = (terms.kl + terms.log_det) / num_latents
        return terms.squared_error, gaussian - terms.log_det
