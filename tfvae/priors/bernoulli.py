# SPDX-License-Identifier: Apache-2.0
"""Independent Bernoulli prior of binary latents, trained by gradient."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae import typed_gin
from tfvae.ops.distributions import IndependentBernoulli
from tfvae.priors.base import Prior


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class IndependentBernoulliPrior(Prior):
    """p(s) = prod_h Bern(s_h; sigmoid(logits_h)), with logits initially 0.

    For relaxed states between 0 and 1 the same formula is evaluated, which is
    linear in them.

    Attributes:
      logits: float32 weight `[H]`.
    """

    _linear_in = (IndependentBernoulli,)

    def __init__(self, num_latents: int, **kwargs: Any):
        """Creates the prior.

        Args:
          num_latents: H.
          **kwargs: Keyword arguments of `keras.layers.Layer`.
        """
        super().__init__(num_latents, **kwargs)
        self.logits = self.add_weight(
            shape=(num_latents,), initializer="zeros", name="logits"
        )

    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        latents = tf.cast(latents, tf.float32)
        return IndependentBernoulli(self.logits.value).log_prob(latents)

    def sample(
        self, seed: tf.Tensor, num_samples: int | tf.Tensor
    ) -> tf.Tensor:
        return IndependentBernoulli(self.logits.value).sample(seed, num_samples)

    def adapt(self, latents: np.ndarray, seed: int = 0) -> None:
        """Sets the probabilities to the frequency of ones in `[N, H]`."""
        # Half a pseudo-count for ones and for zeros keeps the logits finite.
        ones = np.sum(latents, axis=0, dtype=np.float64) + 0.5
        zeros = len(latents) + 1.0 - ones
        self.logits.assign(np.log(ones / zeros))
