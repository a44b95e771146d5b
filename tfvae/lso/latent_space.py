# SPDX-License-Identifier: Apache-2.0
"""The latents of a model, as an optimisation sees them.

The one place that knows how an amortised VAE and a TVAE differ: everything
else encodes points, decodes latents and draws from the prior.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfvae.ops import bits, densities, random
from tfvae.tvae import TVAE
from tfvae.vae import VAE, RelaxedBernoulliPosterior

# Points that are encoded or decoded at a time.
_BATCH = 1024


class LatentSpace:
    """What is common to both kinds; `latent_space` makes the right one.

    Attributes:
      num_latents: M.
      is_binary: Whether latents are zeros and ones.
    """

    num_latents: int
    is_binary: bool

    def encode(
        self, points: np.ndarray, rows: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns the latents of data points.

        Args:
          points: `[n, D]`, NaN where missing.
          rows: int `[n]`, the rows of the training data that they are; None
            for others.

        Returns:
          float32 `[n, M]`: the means of q(z | x), or its best state where
          latents are binary.
        """
        raise NotImplementedError

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Returns the means of p(x | z), `[n, M]` to float32 `[n, D]`."""
        raise NotImplementedError

    def sample_prior(self, seed: int, count: int) -> np.ndarray:
        """Draws latents from the model's prior, float32 `[count, M]`."""
        raise NotImplementedError


def latent_space(model: Any) -> LatentSpace:
    """Returns the latent space of a model.

    Raises:
      TypeError: If it is neither a VAE nor a TVAE.
    """
    if isinstance(model, VAE):
        return _Amortised(model)
    if isinstance(model, TVAE):
        return _Evolved(model)
    raise TypeError(
        f"`model` must be a VAE or a TVAE, got {type(model).__name__}"
    )


class _Amortised(LatentSpace):
    """Latents of a VAE with an encoder."""

    def __init__(self, model: VAE) -> None:
        self.num_latents = model.num_latents
        self.is_binary = isinstance(
            model.encoder.posterior, RelaxedBernoulliPosterior
        )
        self._model = model
        self._encode = tf.function(
            lambda x: model.encoder(densities.split_missing(x)[0]).mode,
            input_signature=[
                tf.TensorSpec([None, model.num_observed], tf.float32)
            ],
        )
        self._decode = tf.function(
            model.decode,
            input_signature=[
                tf.TensorSpec([None, model.num_latents], tf.float32)
            ],
        )

    def encode(
        self, points: np.ndarray, rows: np.ndarray | None = None
    ) -> np.ndarray:
        del rows  # The encoder needs nothing but the points.
        return _in_batches(self._encode, points)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        return _in_batches(self._decode, latents)

    def sample_prior(self, seed: int, count: int) -> np.ndarray:
        draws = self._model.prior.sample(random.make_seed(seed), count)
        return np.asarray(draws, np.float32)


class _Evolved(LatentSpace):
    """Binary latents of a TVAE: those of its states that fit best."""

    def __init__(self, model: TVAE) -> None:
        self.num_latents = model.num_latents
        self.is_binary = True
        self._model = model
        self._decode = tf.function(
            model.decode,
            input_signature=[
                tf.TensorSpec([None, model.num_latents], tf.float32)
            ],
        )

    def encode(
        self, points: np.ndarray, rows: np.ndarray | None = None
    ) -> np.ndarray:
        states = self._model.states
        if rows is None or states is None:
            return _in_batches(self._infer, points)
        # The store keeps each point's best state first, as of when training
        # last met it.
        packed = tf.gather(states.packed.value, rows)[:, 0]
        latents = np.array(bits.unpack(packed, self.num_latents), np.float32)
        best = tf.gather(states.log_joints.value, rows)[:, 0]
        unseen = np.isneginf(best.numpy())
        if unseen.any():
            latents[unseen] = _in_batches(self._infer, points[unseen])
        return latents

    def _infer(self, points: np.ndarray) -> tf.Tensor:
        packed = self._model.infer(points).packed[:, 0]
        return bits.unpack(packed, self.num_latents)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        return _in_batches(self._decode, latents)

    def sample_prior(self, seed: int, count: int) -> np.ndarray:
        draws = random.uniform(
            random.make_seed(seed), [count, self.num_latents]
        )
        probs = self._model.prior_probs.value
        return np.asarray(draws < probs, np.float32)


def _in_batches(function: Any, rows: np.ndarray) -> np.ndarray:
    """Applies a function of a batch to any number of rows, one at least."""
    rows = np.asarray(rows, np.float32)
    return np.concatenate(
        [
            np.asarray(function(rows[i : i + _BATCH]), np.float32)
            for i in range(0, len(rows), _BATCH)
        ]
    )
