# SPDX-License-Identifier: Apache-2.0
"""Bernoulli prior of binary latents with a closed-form update."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfvae.ops import densities, random

# Prior probabilities stay this far from 0 and 1, so that log-odds are finite.
PRIOR_MARGIN = 1e-5


@keras.saving.register_keras_serializable("tfvae")
class BernoulliPrior(keras.layers.Layer):
    """p(s) = prod_h pi_h^s_h (1 - pi_h)^(1 - s_h), pi updated in closed form.

    Attributes:
      probs: float32 weight `[H]`, pi; not trained by gradient.
      visits: Scalar int64 weight, data points visited so far in this pass.
      total_weight: Scalar float64 weight, the sum of their weights.
    """

    def __init__(self, num_latents: int, **kwargs: Any):
        """Creates the prior, initially with one active latent on average.

        Args:
          num_latents: H.
          **kwargs: Keyword arguments of `keras.layers.Layer`.
        """
        super().__init__(**{"trainable": False, **kwargs, "dtype": "float32"})
        self.num_latents = num_latents
        self.probs = self.add_weight(
            shape=(num_latents,),
            initializer=keras.initializers.Constant(
                min(1.0 / num_latents, 0.5)
            ),
            trainable=False,
            autocast=False,
            name="probs",
        )
        # A pass sums up to millions of posterior weights: float64.
        self._ones_sum = self.add_weight(
            shape=(num_latents,),
            initializer="zeros",
            dtype="float64",
            trainable=False,
            name="ones_sum",
        )
        self.visits = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int64",
            trainable=False,
            name="visits",
        )
        self.total_weight = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="float64",
            trainable=False,
            name="total_weight",
        )
        self.built = True

    def log_prob(self, states: tf.Tensor) -> tf.Tensor:
        """Returns log p(s), nats, `[..., H]` to `[...]`."""
        # At 0 and 1 themselves, the log-odds would be infinite.
        probs = tf.clip_by_value(self.probs.value, 1e-30, 1.0 - 2.0**-24)
        return densities.bernoulli_log_prior(states, probs)

    def sample(
        self, seed: tf.Tensor, num_samples: int | tf.Tensor
    ) -> tf.Tensor:
        """Draws states, float32 `[num_samples, H]`; `seed` is `[2]` int32."""
        draws = random.uniform(seed, [num_samples, self.num_latents])
        return tf.cast(draws < self.probs.value, tf.float32)

    def expected_ones(self) -> tf.Tensor:
        """Returns the mean number of active latents, scalar."""
        return tf.reduce_sum(self.probs.value)

    def accumulate(
        self,
        ones: tf.Tensor,
        num_data: tf.Tensor,
        total_weight: tf.Tensor | None = None,
    ) -> None:
        """Adds a batch to the sufficient statistics of the closed-form update.

        Args:
          ones: `[H]`, weighted sum of the states' posterior means.
          num_data: Scalar, number of data points of the batch.
          total_weight: Scalar, the sum of their weights; None for `num_data`.
        """
        if total_weight is None:
            total_weight = num_data
        self._ones_sum.assign_add(tf.cast(ones, tf.float64))
        self.total_weight.assign_add(tf.cast(total_weight, tf.float64))
        self.visits.assign_add(tf.cast(num_data, tf.int64))

    def maximise(self, pass_done: tf.Tensor) -> None:
        """Updates pi in closed form and resets the sums where `pass_done`."""
        total_weight = self.total_weight.value
        # d F / d pi_h = 0 at the posterior's mean of s_h.
        best = tf.math.divide_no_nan(self._ones_sum.value, total_weight)
        best = tf.cast(best, tf.float32)
        best = tf.clip_by_value(best, PRIOR_MARGIN, 1.0 - PRIOR_MARGIN)
        # Without any weight there is nothing to learn from.
        is_known = tf.logical_and(pass_done, total_weight > 0.0)
        self.probs.assign(tf.where(is_known, best, self.probs.value))
        for total in (self._ones_sum, self.total_weight, self.visits):
            nothing = tf.zeros_like(total.value)
            total.assign(tf.where(pass_done, nothing, total.value))
