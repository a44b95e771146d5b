# SPDX-License-Identifier: Apache-2.0
"""Base class of priors p(z): density, draws and the KL term."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import keras
import numpy as np
import tensorflow as tf

from tfvae.arguments import check_counts
from tfvae.ops.distributions import (
    DiagonalGaussian,
    IndependentBernoulli,
    IndependentCategorical,
    Quantized,
)
from tfvae.ops.rows import LazyRows

Distribution = (
    DiagonalGaussian | IndependentBernoulli | IndependentCategorical | Quantized
)


class PriorParts(NamedTuple):
    """The two terms of a flow's log p(z), for objectives that separate them.

    Attributes:
      base_log_prob: `[...]`, log-density of the mapped z under the base
        distribution, nats.
      log_det: `[...]`, log |det| of the map's Jacobian, nats; 0 for priors
        that are not flows.
    """

    base_log_prob: tf.Tensor
    log_det: tf.Tensor


class Prior(keras.layers.Layer):
    """Base class of priors; weights, if any, are trained by gradient.

    A new prior is a subclass with `log_prob` and `sample`; the conformance
    tests pick it up. Its weights are created in the constructor (those that
    depend on the model in `connect`). Distribution objects are made from them
    at each call: a stored one would be neither trained nor saved.

    Densities are float32 whatever Keras's dtype policy, and so are weights,
    even where a model around the prior computes in half precision.

    Attributes:
      num_latents: M.
    """

    # Families of posteriors in whose draws log p(z) is linear.
    _linear_in: tuple[type, ...] = ()

    def __init__(self, num_latents: int, **kwargs: Any):
        """Creates the prior.

        Args:
          num_latents: M.
          **kwargs: Keyword arguments of `keras.layers.Layer`.

        Raises:
          ValueError: If `num_latents` is not a positive integer, or `dtype`
            is given and not float32.
        """
        dtype = keras.dtype_policies.get(kwargs.pop("dtype", "float32"))
        if {dtype.variable_dtype, dtype.compute_dtype} != {"float32"}:
            raise ValueError(
                "`dtype` must be float32, in which priors compute under any "
                f"policy, got {dtype.name!r}"
            )
        super().__init__(**kwargs, dtype=dtype)
        check_counts(num_latents=num_latents)
        self.num_latents = num_latents
        self.built = True

    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        """Returns log p(z), nats, `[..., M]` to `[...]`."""
        raise NotImplementedError

    def sample(
        self, seed: tf.Tensor, num_samples: int | tf.Tensor
    ) -> tf.Tensor:
        """Draws z.

        Args:
          seed: `[2]` int32; the same seed gives the same draws.
          num_samples: N.

        Returns:
          `[N, M]`.
        """
        raise NotImplementedError

    def log_prob_parts(self, latents: tf.Tensor) -> PriorParts:
        """Returns the two terms of log p(z), `[..., M]` to `[...]` each."""
        log_prob = self.log_prob(latents)
        return PriorParts(log_prob, tf.zeros_like(log_prob))

    def kl(
        self,
        posterior: Distribution,
        samples: tf.Tensor,
        parts: PriorParts | None = None,
    ) -> tf.Tensor:
        """Returns KL(q || p) = E_q[log q(z) - log p(z)], nats.

        By default the expectation of log q(z), minus the entropy, is exact and
        that of log p(z) is estimated from one draw: unbiased, and its gradient
        is pathwise. Where log p(z) is linear in the draws of q, its expectation
        is its value at their mean. A prior with another closed form overrides
        this.

        Args:
          posterior: q, of `[..., M]`.
          samples: `[..., M]`, one draw of each q. A further leading dimension
            makes as many estimates of each divergence; take their mean.
          parts: `log_prob_parts(samples)` if the caller has it, as a flow is
            slow to evaluate twice; None to compute it.

        Returns:
          `[...]`, the shape of `samples` without its last dimension, or that
          of `posterior` where the form is closed.
        """
        if isinstance(posterior, self._linear_in):
            return -posterior.entropy() - self.log_prob(posterior.mean)
        parts = parts or self.log_prob_parts(samples)
        return -posterior.entropy() - parts.base_log_prob - parts.log_det

    def connect(
        self,
        posterior_of: Callable[[tf.Tensor], DiagonalGaussian],
        num_observed: int,
    ) -> None:
        """Connects a prior that is made of posteriors to the encoder.

        A model calls it once, in its constructor, before weights are loaded.

        Args:
          posterior_of: The encoder, from data `[K, D]` to posteriors `[K, M]`.
          num_observed: D.
        """

    def adapt(self, latents: np.ndarray, seed: int = 0) -> None:
        """Initialises weights for training on known latents, `[N, M]`."""

    def adapt_inputs(self, x: np.ndarray | LazyRows, seed: int = 0) -> None:
        """Initialises weights that live in data space, from `[N, D]`."""

    def add_weight(self, *args: Any, **kwargs: Any) -> keras.Variable:
        """Creates a weight as Keras does, but one that stays float32."""
        return super().add_weight(*args, **{"autocast": False, **kwargs})

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_latents": self.num_latents}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        # Files of before name the policy under which the prior was made.
        return cls(**{**config, "dtype": "float32"})


def check_variables(num_latents: int, num_variables: int) -> None:
    """Raises ValueError unless so many categorical variables are possible.

    Args:
      num_latents: M, of all their one-hot codes.
      num_variables: G, each with M / G categories.
    """
    check_counts(num_variables=num_variables)
    if num_latents % num_variables:
        raise ValueError(
            f"`num_variables` must divide the {num_latents} latents, the "
            f"one-hot codes of all variables, got {num_variables!r}"
        )
