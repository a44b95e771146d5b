# SPDX-License-Identifier: Apache-2.0
"""Gaussian mixture prior, and the density and sampling of mixtures."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.ops import random
from tfvae.ops.distributions import DiagonalGaussian
from tfvae.priors.base import Prior

# Added to each variance, so that no component collapses on a data point.
MIN_VARIANCE = 1e-6


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class GaussianMixturePrior(Prior):
    """p(z) = sum_k weight_k N(z; mean_k, diag variance_k), all trained.

    Initially means are standard normal draws, variances 1 and weights equal;
    `adapt` gives a better initialisation where latents are known.

    Attributes:
      num_components: K.
      logits: float32 weight `[K]`, log-weights up to a constant.
      means: float32 weight `[K, M]`.
      log_variances: float32 weight `[K, M]`.
    """

    def __init__(
        self, num_latents: int, num_components: int = 10, **kwargs: Any
    ):
        """Creates the prior.

        Args:
          num_latents: M.
          num_components: K.
          **kwargs: Keyword arguments of `keras.layers.Layer`.
        """
        super().__init__(num_latents, **kwargs)
        check_counts(num_components=num_components)
        self.num_components = num_components
        shape = (num_components, num_latents)
        self.logits = self.add_weight(
            shape=shape[:1], initializer="zeros", name="logits"
        )
        self.means = self.add_weight(
            shape=shape,
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            name="means",
        )
        self.log_variances = self.add_weight(
            shape=shape, initializer="zeros", name="log_variances"
        )

    def components(self) -> DiagonalGaussian:
        """Returns the K components, parameters `[K, M]`."""
        # log(exp(l) + MIN_VARIANCE), without overflow.
        smallest = math.log(MIN_VARIANCE)
        given = self.log_variances.value
        log_variances = tf.maximum(given, smallest) + tf.math.log1p(
            tf.exp(-tf.abs(given - smallest))
        )
        return DiagonalGaussian(self.means.value, log_variances)

    def log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        return mixture_log_prob(latents, self.logits.value, self.components())

    def sample(
        self, seed: tf.Tensor, num_samples: int | tf.Tensor
    ) -> tf.Tensor:
        return mixture_sample(
            seed, num_samples, self.logits.value, self.components()
        )

    def adapt(self, latents: np.ndarray, seed: int = 0) -> None:
        """Initialises the components by clusters of latents.

        K seeding points are drawn among the latents by k-means++, and each
        latent is assigned to the nearest one. Means and weights are those of
        the clusters; all components have the pooled within-cluster variances.

        Args:
          latents: `[N, M]`.
          seed: Seed of the choice of points.
        """
        latents = np.asarray(latents, np.float64)
        means, nearest = _spread_points(latents, self.num_components, seed)
        counts = np.bincount(nearest, minlength=self.num_components)
        for k in np.flatnonzero(counts):
            means[k] = latents[nearest == k].mean(0)
        variances = np.square(latents - means[nearest]).mean(0)
        self.means.assign(means)
        # A repeated seeding point has an empty cluster, but a positive weight.
        self.logits.assign(np.log(np.maximum(counts, 0.5)))
        self.log_variances.assign(
            np.tile(
                np.log(np.maximum(variances, MIN_VARIANCE)),
                [self.num_components, 1],
            )
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_components": self.num_components}


def mixture_log_prob(
    latents: tf.Tensor, logits: tf.Tensor, components: DiagonalGaussian
) -> tf.Tensor:
    """Returns log sum_k weight_k N(z; component k), nats, `[...]`.

    Args:
      latents: `[..., M]`.
      logits: `[K]`, log-weights up to a constant.
      components: The K Gaussians, parameters `[K, M]`.
    """
    latents = tf.cast(latents, tf.float32)[..., tf.newaxis, :]
    log_probs = components.log_prob(latents)  # [..., K]
    return tf.reduce_logsumexp(tf.nn.log_softmax(logits) + log_probs, -1)


def mixture_sample(
    seed: tf.Tensor,
    num_samples: int | tf.Tensor,
    logits: tf.Tensor,
    components: DiagonalGaussian,
) -> tf.Tensor:
    """Draws from a mixture, without gradient in its weights.

    Args:
      seed: `[2]` int32.
      num_samples: N.
      logits: `[K]`, log-weights up to a constant.
      components: The K Gaussians, parameters `[K, M]`.

    Returns:
      `[N, M]`.
    """
    weights = tf.nn.softmax(logits)[tf.newaxis]
    chosen = random.categorical(
        random.make_seed(seed, 0), weights, num_samples
    )[0]
    log_variance = tf.broadcast_to(
        components.log_variance, tf.shape(components.mean)
    )
    drawn = DiagonalGaussian(
        tf.gather(components.mean, chosen), tf.gather(log_variance, chosen)
    )
    return drawn.sample(random.make_seed(seed, 1))


def _spread_points(
    latents: np.ndarray, num_points: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws seeding points among `latents` by k-means++.

    Reference: Arthur and Vassilvitskii, 2007, "k-means++: the advantages of
    careful seeding", section 2.

    Returns:
      The points, `[K, M]`, and the index of each latent's nearest one, `[N]`.
    """
    rng = np.random.default_rng(seed)
    points = np.empty((num_points, latents.shape[1]))
    distances = np.full(len(latents), np.inf)
    nearest = np.zeros(len(latents), np.int64)
    for k in range(num_points):
        total = distances.sum()
        # Uniform for the first, and once every latent equals a chosen point.
        likely = 0.0 < total < np.inf
        probs = distances / total if likely else None
        points[k] = latents[rng.choice(len(latents), p=probs)]
        to_new = np.square(latents - points[k]).sum(-1)
        nearest[to_new < distances] = k
        distances = np.minimum(distances, to_new)
    return points, nearest
