# SPDX-License-Identifier: Apache-2.0
"""Standard normal prior."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfvae import typed_gin
from tfvae.ops import random
from tfvae.ops.distributions import DiagonalGaussian
from tfvae.priors.base import Distribution, Prior, PriorParts


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class StandardNormalPrior(Prior):
    """p(z) = N(z; 0, I).

    Example:
      >>> StandardNormalPrior(16).log_prob(tf.zeros([2, 16]))
    """

    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        latents = tf.cast(latents, tf.float32)
        standard = DiagonalGaussian(tf.zeros_like(latents), tf.constant(0.0))
        return standard.log_prob(latents)

    def sample(
        self, seed: tf.Tensor, num_samples: int | tf.Tensor
    ) -> tf.Tensor:
        return random.normal(seed, [num_samples, self.num_latents])

    def kl(
        self,
        posterior: Distribution,
        samples: tf.Tensor,
        parts: PriorParts | None = None,
    ) -> tf.Tensor:
        if isinstance(posterior, DiagonalGaussian):
            return posterior.kl_from_standard_normal()
        return super().kl(posterior, samples, parts)
