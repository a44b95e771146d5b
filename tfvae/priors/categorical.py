# SPDX-License-Identifier: Apache-2.0
"""Priors of categorical latents: independent and autoregressive."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae import typed_gin
from tfvae.networks.autoregressive import AutoregressiveDecoder
from tfvae.ops.distributions import IndependentCategorical
from tfvae.priors.base import Prior, check_variables


class _CategoricalPrior(Prior):
    """Base class of priors of G categorical variables, one-hot."""

    def __init__(self, num_latents: int, num_variables: int, **kwargs: Any):
        super().__init__(num_latents, **kwargs)
        check_variables(num_latents, num_variables)
        self.num_variables = num_variables
        self.num_categories = num_latents // num_variables

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_variables": self.num_variables}


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class IndependentCategoricalPrior(_CategoricalPrior):
    """p(c) = prod_g Cat(c_g; softmax(logits_g)), with logits initially 0.

    Latents are one-hot codes, see `IndependentCategorical`. For relaxed codes
    the same formula is evaluated, which is linear in them.

    Attributes:
      num_variables: G.
      num_categories: C = M / G.
      logits: float32 weight `[G, C]`.
    """

    _linear_in = (IndependentCategorical,)

    def __init__(self, num_latents: int, num_variables: int, **kwargs: Any):
        """Creates the prior.

        Args:
          num_latents: M, the length of all one-hot codes.
          num_variables: G, a divisor of M.
          **kwargs: Keyword arguments of `keras.layers.Layer`.
        """
        super().__init__(num_latents, num_variables, **kwargs)
        self.logits = self.add_weight(
            shape=(num_variables, self.num_categories),
            initializer="zeros",
            name="logits",
        )

    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        latents = tf.cast(latents, tf.float32)
        return IndependentCategorical(self.logits.value).log_prob(latents)

    def sample(
        self, seed: tf.Tensor, num_samples: int | tf.Tensor
    ) -> tf.Tensor:
        prior = IndependentCategorical(self.logits.value)
        return prior.sample(seed, num_samples)

    def adapt(self, latents: np.ndarray, seed: int = 0) -> None:
        """Sets the probabilities to the frequencies of codes `[N, M]`."""
        # A pseudo-count of half keeps the logits finite.
        counts = np.sum(latents, axis=0, dtype=np.float64) + 0.5
        logits = np.log(counts.reshape(self.logits.shape))
        self.logits.assign(logits - logits.mean(-1, keepdims=True))


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class AutoregressiveCategoricalPrior(_CategoricalPrior):
    """p(c) = prod_g p(c_g | c_1, ..., c_{g - 1}), by a recurrent network.

    Latents are one-hot codes, see `IndependentCategorical`. The network is an
    `AutoregressiveDecoder`: a step for each variable, in a density and in
    draws.

    Attributes:
      num_variables: G.
      num_categories: C = M / G.
      hidden: Size of the recurrent state.
    """

    def __init__(
        self,
        num_latents: int,
        num_variables: int,
        hidden: int = 64,
        **kwargs: Any,
    ):
        """Creates the prior.

        Args:
          num_latents: M, the length of all one-hot codes.
          num_variables: G, a divisor of M.
          hidden: Size of the recurrent state.
          **kwargs: Keyword arguments of `keras.layers.Layer`.
        """
        super().__init__(num_latents, num_variables, **kwargs)
        self.hidden = hidden
        self._network = AutoregressiveDecoder(
            num_variables,
            self.num_categories,
            1,
            hidden,
            has_end=False,
            dtype="float32",
            name="network",
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden": self.hidden}

    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        latents = tf.cast(latents, tf.float32)
        rows = tf.reshape(latents, [-1, self.num_latents])
        log_probs = self._network.log_prob(tf.ones_like(rows[:, :1]), rows)
        return tf.reshape(log_probs, tf.shape(latents)[:-1])

    def sample(
        self, seed: tf.Tensor, num_samples: int | tf.Tensor
    ) -> tf.Tensor:
        codes = self._network.sample(tf.ones([num_samples, 1]), seed)
        one_hot = tf.one_hot(codes, self.num_categories)
        return tf.reshape(one_hot, [-1, self.num_latents])

    def adapt(self, latents: np.ndarray, seed: int = 0) -> None:
        """Starts from the frequencies of categories over all variables."""
        counts = np.sum(latents, axis=0, dtype=np.float64) + 0.5
        counts = counts.reshape(self.num_variables, self.num_categories)
        self._network.adapt(counts.sum(0))
