# SPDX-License-Identifier: Apache-2.0
"""Posterior families q(z | x): Gaussian, and of discrete latents.

A family maps encoder outputs to a distribution of `tfvae.ops.distributions`,
and samples it in training. A new one is a class with these methods.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Protocol

import tensorflow as tf

from tfvae.arguments import check_counts
from tfvae.ops import limits
from tfvae.ops.distributions import (
    DiagonalGaussian,
    IndependentBernoulli,
    IndependentCategorical,
    by_variable,
)
from tfvae.priors.base import Distribution, check_variables
from tfvae.settings import Settings, saved_settings
from tfvae.vae.estimators import (
    BernoulliEstimator,
    DisARM,
    Estimator,
    Pathwise,
)

# Log-variances are the encoder's outputs up to this, and at most that.
_USUAL_LOG_VARIANCE = 15.0
_MAX_LOG_VARIANCE = 60.0


class Posterior(Protocol):
    """Protocol of posterior families.

    Attributes:
      estimator: How gradients in the parameters are estimated.
    """

    @property
    def estimator(self) -> Estimator: ...

    def num_outputs(self, num_latents: int) -> int:
        """Returns the number of encoder outputs for M latents."""

    def num_latents(self, num_outputs: int) -> int:
        """Returns M for an encoder with `num_outputs` outputs."""

    def distribution(self, outputs: tf.Tensor) -> Distribution:
        """Returns q(z | x) for encoder outputs `[..., num_outputs]`."""

    def training_sample(
        self, distribution: Any, seed: tf.Tensor, step: tf.Tensor
    ) -> tf.Tensor:
        """Draws the latents that the estimator needs.

        Args:
          distribution: What `distribution` returned, of `[B, M]`.
          seed: `[2]` int32.
          step: int64 scalar, the training steps so far.

        Returns:
          `[B, M]`, or `[K, B, M]` for an estimator of K > 1 draws.
        """


@saved_settings
class GaussianPosterior(Settings):
    """N(mean(x), diag(variance(x))), or a fixed variance.

    Attributes:
      variance: The fixed variance, with an encoder of M outputs; None for an
        encoder of 2 M, means first, then log-variances. Beyond +-15 the
        latter grow as the logarithm of the output, so that no data point
        makes a bound infinite.
      sampling_scale: Factor of the noise in training alone. With one below 1,
        as grammar VAEs were published, decoders see latents closer to the
        means than the KL term assumes, down to those of an autoencoder at 0;
        what is logged of training is no bound then.
    """

    variance: float | None = None
    sampling_scale: float = 1.0

    estimator: ClassVar[Estimator] = Pathwise()

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.variance is not None and not 0.0 < self.variance < math.inf:
            raise ValueError(
                "`variance` must be positive and finite, or None, got "
                f"{self.variance!r}"
            )
        if not 0.0 <= self.sampling_scale < math.inf:
            raise ValueError(
                "`sampling_scale` must be finite and not negative, got "
                f"{self.sampling_scale!r}"
            )

    def num_outputs(self, num_latents: int) -> int:
        return num_latents if self.variance is not None else 2 * num_latents

    def num_latents(self, num_outputs: int) -> int:
        if self.variance is not None:
            return num_outputs
        if num_outputs % 2:
            raise ValueError(
                "`network` must have an even number of outputs (means, then "
                f"log-variances), got {num_outputs}"
            )
        return num_outputs // 2

    def distribution(self, outputs: tf.Tensor) -> DiagonalGaussian:
        if self.variance is not None:
            return DiagonalGaussian(
                outputs, tf.constant(math.log(self.variance))
            )
        mean, log_variance = tf.split(outputs, 2, -1)
        log_variance = limits.compress(log_variance, _USUAL_LOG_VARIANCE)
        return DiagonalGaussian(
            mean,
            tf.clip_by_value(
                log_variance, -_MAX_LOG_VARIANCE, _MAX_LOG_VARIANCE
            ),
        )

    def training_sample(
        self, distribution: DiagonalGaussian, seed: tf.Tensor, step: tf.Tensor
    ) -> tf.Tensor:
        sample = distribution.sample(seed)
        if self.sampling_scale == 1.0:
            return sample
        mean = distribution.mode
        return mean + self.sampling_scale * (sample - mean)


@dataclasses.dataclass(frozen=True)
class _Relaxed(Settings):
    """Temperature of relaxed latents in training.

    It decreases geometrically from the first to the last value.

    Attributes:
      first_temperature: Temperature of the first training step.
      last_temperature: Temperature after `annealing_steps`.
      annealing_steps: Training steps from the one to the other.
    """

    first_temperature: float = 1.0
    last_temperature: float = 0.3
    annealing_steps: int = 5000

    estimator: ClassVar[Estimator] = Pathwise()

    def __post_init__(self) -> None:
        """Checks the values."""
        if not 0.0 < self.last_temperature <= self.first_temperature:
            raise ValueError(
                "`last_temperature` must be positive and at most "
                f"`first_temperature`, got {self.last_temperature!r} and "
                f"{self.first_temperature!r}"
            )
        check_counts(annealing_steps=self.annealing_steps)

    def temperature(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the temperature of a training step, a scalar."""
        done = tf.cast(step, tf.float32) / float(self.annealing_steps)
        ratio = self.last_temperature / self.first_temperature
        return self.first_temperature * ratio ** tf.minimum(done, 1.0)

    def training_sample(
        self,
        distribution: IndependentBernoulli | IndependentCategorical,
        seed: tf.Tensor,
        step: tf.Tensor,
    ) -> tf.Tensor:
        return distribution.relaxed_sample(seed, self.temperature(step))


class _Binary:
    """An encoder output for each latent: the logit of its being 1."""

    def num_outputs(self, num_latents: int) -> int:
        return num_latents

    def num_latents(self, num_outputs: int) -> int:
        return num_outputs

    def distribution(self, outputs: tf.Tensor) -> IndependentBernoulli:
        return IndependentBernoulli(outputs)


@saved_settings
class RelaxedBernoulliPosterior(_Binary, _Relaxed):
    """Bernoulli posterior of binary latents, relaxed to (0, 1) in training.

    The temperature decreases geometrically from the first to the last value.
    Outside of training the latents are binary.

    Reference: Maddison, Mnih and Teh, 2017, "The concrete distribution"; Jang,
    Gu and Poole, 2017, "Categorical reparameterization with Gumbel-softmax".

    Attributes:
      first_temperature: Temperature of the first training step.
      last_temperature: Temperature after `annealing_steps`.
      annealing_steps: Training steps from the one to the other.
    """


@saved_settings
class RelaxedCategoricalPosterior(_Relaxed):
    """Posterior of categorical latents, relaxed by Gumbel-softmax in training.

    Latents are the one-hot codes of G variables with M / G categories, one
    after another. In training they are positive, and those of a variable sum
    to 1; the temperature decreases geometrically from the first to the last
    value. Outside of training they are one-hot. Its prior is an
    `IndependentCategoricalPrior` or an `AutoregressiveCategoricalPrior`.

    Reference: Jang, Gu and Poole, 2017, "Categorical reparameterization with
    Gumbel-softmax"; Maddison, Mnih and Teh, 2017, "The concrete distribution".

    Attributes:
      first_temperature: Temperature of the first training step.
      last_temperature: Temperature after `annealing_steps`.
      annealing_steps: Training steps from the one to the other.
      num_variables: G, a divisor of M.
    """

    num_variables: int = dataclasses.field(kw_only=True)

    def num_outputs(self, num_latents: int) -> int:
        check_variables(num_latents, self.num_variables)
        return num_latents

    def num_latents(self, num_outputs: int) -> int:
        return self.num_outputs(num_outputs)

    def distribution(self, outputs: tf.Tensor) -> IndependentCategorical:
        return IndependentCategorical(by_variable(outputs, self.num_variables))


@saved_settings
class BernoulliPosterior(_Binary, Settings):
    """Bernoulli posterior of binary latents, which are binary in training too.

    Attributes:
      estimator: `DisARM()`, `VIMCO()` or `StraightThrough()`.
    """

    estimator: BernoulliEstimator = DisARM()

    def __post_init__(self) -> None:
        """Checks the values."""
        if not callable(getattr(self.estimator, "sample", None)):
            raise TypeError(
                "`estimator` must be a gradient estimator of binary latents, "
                "such as DisARM(), VIMCO() or StraightThrough(), got "
                f"{self.estimator!r}"
            )

    def training_sample(
        self,
        distribution: IndependentBernoulli,
        seed: tf.Tensor,
        step: tf.Tensor,
    ) -> tf.Tensor:
        return self.estimator.sample(distribution, seed)
