# SPDX-License-Identifier: Apache-2.0
"""Latent space of a model: encoding, decoding, sampling from the prior."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfvae.latent_model import LatentModel, in_batches


class LatentSpace:
    """Latent space of a model, as optimisations use it; see `latent_space`.

    Attributes:
      num_latents: M.
      is_binary: Whether latents are zeros and ones.
    """

    def __init__(self, model: LatentModel) -> None:
        """Wraps a model.

        Args:
          model: A built model; its current weights are used in each call.
        """
        self.num_latents = model.num_latents
        self.is_binary = model.has_binary_latents
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
        """Returns the latents of data points.

        Args:
          points: `[n, D]`, NaN where missing.
          rows: int `[n]`, indices of the points in the training data; None for
            unseen data.

        Returns:
          float32 `[n, M]`: the mode of q(z | x), which is its mean for a
          Gaussian and the best state where latents are binary.
        """
        return self._model.posterior_mode(points, rows)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Returns the means of p(x | z), `[n, M]` to float32 `[n, D]`."""
        return in_batches(self._decode, latents)

    def sample_prior(self, seed: int, count: int) -> np.ndarray:
        """Draws latents from the model's prior, float32 `[count, M]`."""
        return np.asarray(self._model.sample_prior(count, seed), np.float32)


def latent_space(model: LatentModel) -> LatentSpace:
    """Returns the latent space of a model.

    Raises:
      TypeError: If it is not a VAE or TVAE of this library.
    """
    if not isinstance(model, LatentModel):
        raise TypeError(
            f"`model` must be a VAE or a TVAE, got {type(model).__name__}"
        )
    return LatentSpace(model)
