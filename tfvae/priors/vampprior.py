# SPDX-License-Identifier: Apache-2.0
"""VampPrior: a mixture of the encoder's posteriors of trained pseudo-inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.ops import moments
from tfvae.ops.distributions import DiagonalGaussian
from tfvae.ops.rows import LazyRows
from tfvae.priors.base import Prior
from tfvae.priors.mixture import mixture_log_prob, mixture_sample


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class VampPrior(Prior):
    """p(z) = sum_k q(z | u_k) / K, with trained pseudo-inputs u_k.

    A model connects it to its encoder, which the prior's gradient trains as
    well. Pseudo-inputs are initially uniform on [0, 1], or data points by
    `adapt_inputs`; unlike in the publication they are not restricted to the
    range of pixels, because data may have any range. It does not suit frozen
    encoders of tiny variance, whose posteriors do not overlap.

    Reference: Tomczak and Welling, 2018, "VAE with a VampPrior", section 2.

    Attributes:
      num_pseudo_inputs: K.
      pseudo_inputs: float32 weight `[K, D]`; None before `connect`.
    """

    def __init__(
        self, num_latents: int, num_pseudo_inputs: int = 500, **kwargs: Any
    ):
        """Creates the prior; it has no weights before `connect`.

        Args:
          num_latents: M.
          num_pseudo_inputs: K.
          **kwargs: Keyword arguments of `keras.layers.Layer`.
        """
        super().__init__(num_latents, **kwargs)
        check_counts(num_pseudo_inputs=num_pseudo_inputs)
        self.num_pseudo_inputs = num_pseudo_inputs
        self.pseudo_inputs: keras.Variable | None = None
        self._posterior_of: Callable[[tf.Tensor], DiagonalGaussian] | None
        self._posterior_of = None

    def connect(
        self,
        posterior_of: Callable[[tf.Tensor], DiagonalGaussian],
        num_observed: int,
    ) -> None:
        check_counts(num_observed=num_observed)
        if self.pseudo_inputs is None:
            self.pseudo_inputs = self.add_weight(
                shape=(self.num_pseudo_inputs, num_observed),
                initializer=keras.initializers.RandomUniform(0.0, 1.0),
                name="pseudo_inputs",
            )
        elif self.pseudo_inputs.shape[1] != num_observed:
            raise ValueError(
                "`num_observed` must be that of the pseudo-inputs, "
                f"{self.pseudo_inputs.shape[1]}, got {num_observed!r}"
            )

        def connected(inputs: tf.Tensor) -> DiagonalGaussian:
            return posterior_of(inputs)

        # Wrapped in a function: Keras would track the weights of a layer that
        # is an attribute, the model's encoder, as weights of the prior.
        self._posterior_of = connected

    def components(self) -> DiagonalGaussian:
        """Returns the posteriors of the pseudo-inputs, `[K, M]`."""
        if self._posterior_of is None or self.pseudo_inputs is None:
            raise RuntimeError(
                "VampPrior must be connected to an encoder before it is used: "
                "make it the prior of a model, or call `connect`"
            )
        components = self._posterior_of(self.pseudo_inputs.value)
        # A network under a policy of half precision may have made them.
        floats = [tf.cast(parameter, tf.float32) for parameter in components]
        return type(components)(*floats)

    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        return mixture_log_prob(
            latents, tf.zeros([self.num_pseudo_inputs]), self.components()
        )

    def sample(
        self, seed: tf.Tensor, num_samples: int | tf.Tensor
    ) -> tf.Tensor:
        return mixture_sample(
            seed,
            num_samples,
            tf.zeros([self.num_pseudo_inputs]),
            self.components(),
        )

    def adapt_inputs(self, x: np.ndarray | LazyRows, seed: int = 0) -> None:
        """Sets the pseudo-inputs to randomly drawn data points.

        Args:
          x: `[N, D]`; missing entries (NaN) become their column's mean,
            0 where a column has no value.
          seed: Seed of the draw, which is without replacement if N >= K.

        Raises:
          RuntimeError: If the prior is not connected.
        """
        if self.pseudo_inputs is None:
            raise RuntimeError("`connect` must be called before `adapt_inputs`")
        rng = np.random.default_rng(seed)
        few = len(x) < self.num_pseudo_inputs
        rows = x[rng.choice(len(x), self.num_pseudo_inputs, replace=few)]
        missing = np.isnan(rows)
        if missing.any():
            rows = np.where(missing, moments.of_columns(x).mean, rows)
        self.pseudo_inputs.assign(rows)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_pseudo_inputs": self.num_pseudo_inputs,
        }
