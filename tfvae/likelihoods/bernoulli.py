# SPDX-License-Identifier: Apache-2.0
"""Bernoulli likelihood for binary data."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from tfvae import typed_gin
from tfvae.likelihoods.base import Likelihood
from tfvae.ops import densities, random


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class BernoulliLikelihood(Likelihood):
    """p(x | s) = Bern(x; sigmoid(outputs)), for data in [0, 1]."""

    support = (0.0, 1.0)

    def log_prob(
        self, x: tf.Tensor, observed: tf.Tensor, outputs: tf.Tensor
    ) -> tf.Tensor:
        return densities.bernoulli_log_prob(x, observed, outputs)

    def features(
        self, x: tf.Tensor, observed: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return densities.bernoulli_features(x, observed)

    def mean(self, outputs: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(outputs)

    def sample(self, seed: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        draws = random.uniform(seed, tf.shape(outputs))
        return tf.cast(draws < tf.sigmoid(outputs), tf.float32)
