# SPDX-License-Identifier: Apache-2.0
"""Prior of quantised latents, those of a VQ-VAE: p(code)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.ops.distributions import Quantized, by_variable
from tfvae.priors.base import Prior, check_variables
from tfvae.priors.categorical import (
    AutoregressiveCategoricalPrior,
    IndependentCategoricalPrior,
)


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class QuantizedPrior(Prior):
    """p(z) of latents that are vectors of a codebook: that of their codes.

    A model connects it to its encoder, whose posterior has the codebook. The
    probabilities are masses, of codes: latents that are no vectors of the
    codebook have those of the nearest.

    In training they follow the codes, which get no gradient from them. Fitted
    afterwards, by `VAE.with_fitted_prior`, codes may depend on each other:

        prior = QuantizedPrior(8, num_variables=4, num_codes=16, hidden=64)
        model = model.with_fitted_prior(prior, x)

    Reference: van den Oord, Vinyals and Kavukcuoglu, 2017, "Neural discrete
    representation learning", section 3.3.

    Attributes:
      num_variables: G, vectors of a data point.
      num_codes: C.
      hidden: Size of the recurrent state; None for independent codes.
      codes: p of one-hot codes `[G * C]`, a prior itself.
    """

    def __init__(
        self,
        num_latents: int,
        num_variables: int,
        num_codes: int,
        hidden: int | None = None,
        **kwargs: Any,
    ):
        """Creates the prior.

        Args:
          num_latents: M = G d.
          num_variables: G, a divisor of M.
          num_codes: C, as of the posterior.
          hidden: Size of the recurrent state of an
            `AutoregressiveCategoricalPrior`; None for independent codes.
          **kwargs: Keyword arguments of `keras.layers.Layer`.
        """
        super().__init__(num_latents, **kwargs)
        check_variables(num_latents, num_variables)
        check_counts(2, num_codes=num_codes)
        self.num_variables = num_variables
        self.num_codes = num_codes
        self.hidden = hidden
        sizes = num_variables * num_codes, num_variables
        self.codes: Prior
        if hidden is None:
            self.codes = IndependentCategoricalPrior(*sizes, name="codes")
        else:
            self.codes = AutoregressiveCategoricalPrior(
                *sizes, hidden, name="codes"
            )
        self._posterior_of: Callable[[tf.Tensor], Any] | None = None
        self._num_observed = 0

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_variables": self.num_variables,
            "num_codes": self.num_codes,
            "hidden": self.hidden,
        }

    def connect(
        self, posterior_of: Callable[[tf.Tensor], Any], num_observed: int
    ) -> None:
        def connected(inputs: tf.Tensor) -> Any:
            return posterior_of(inputs)

        # Wrapped in a function, or the encoder's weights would be the prior's.
        self._posterior_of, self._num_observed = connected, num_observed
        found = self.codebook().shape
        expected = (self.num_codes, self.num_latents // self.num_variables)
        if tuple(found) != expected:
            raise ValueError(
                "`num_codes` and `num_variables` must be those of the "
                f"encoder's posterior, whose codebook is {tuple(found)!r}, got "
                f"what has one of {expected!r}"
            )

    def codebook(self) -> tf.Tensor:
        """Returns the vectors of the codes, `[C, M / G]`."""
        if self._posterior_of is None:
            raise RuntimeError(
                "QuantizedPrior must be connected to an encoder before it is "
                "used: make it the prior of a model, or call `connect`"
            )
        posterior = self._posterior_of(tf.zeros([1, self._num_observed]))
        if not isinstance(posterior, Quantized):
            raise TypeError(
                "`encoder` must have a VectorQuantizedPosterior for a "
                f"QuantizedPrior, got one whose q is a {type(posterior)!r}"
            )
        return tf.cast(posterior.codebook, tf.float32)

    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        latents = tf.cast(latents, tf.float32)
        return self.codes.log_prob(Quantized(latents, self.codebook()).codes)

    def sample(
        self, seed: tf.Tensor, num_samples: int | tf.Tensor
    ) -> tf.Tensor:
        codes = self.codes.sample(seed, num_samples)
        codes = by_variable(codes, self.num_variables)
        vectors = tf.tensordot(codes, self.codebook(), 1)
        return tf.reshape(vectors, [-1, self.num_latents])

    def adapt(self, latents: np.ndarray, seed: int = 0) -> None:
        """Initialises the prior of the codes by those of latents `[N, M]`."""
        latents = tf.convert_to_tensor(latents, tf.float32)
        codes = Quantized(latents, self.codebook()).codes
        self.codes.adapt(codes.numpy(), seed)
