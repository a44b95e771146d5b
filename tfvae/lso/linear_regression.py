# SPDX-License-Identifier: Apache-2.0
"""Bayesian linear regression on features of data points.

The weights have a standard normal prior, so that scores are a Gaussian process
whose kernel is the inner product of the features.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def log_evidence(
    features: tf.Tensor, scores: tf.Tensor, noise: tf.Tensor
) -> tf.Tensor:
    """Returns log N(scores; 0, features features^T + noise I).

    The time grows with the third power of n.

    Args:
      features: `[n, F]`.
      scores: `[n]`.
      noise: Variance of the noise.
    """
    covariance = tf.matmul(features, features, transpose_b=True)
    return log_normal(covariance, scores, noise)


def log_normal(
    covariance: tf.Tensor, scores: tf.Tensor, noise: tf.Tensor
) -> tf.Tensor:
    """Returns log N(scores; 0, covariance + noise I).

    Args:
      covariance: `[n, n]`.
      scores: `[n]`.
      noise: Variance of the noise.
    """
    identity = tf.eye(tf.shape(covariance)[0], dtype=covariance.dtype)
    root = tf.linalg.cholesky(covariance + noise * identity)
    white = tf.linalg.triangular_solve(root, scores[:, None])
    log_det = 2.0 * tf.reduce_sum(tf.math.log(tf.linalg.diag_part(root)))
    constant = tf.cast(tf.size(scores), covariance.dtype) * np.log(2.0 * np.pi)
    return -0.5 * (tf.reduce_sum(tf.square(white)) + log_det + constant)


@tf.function(reduce_retracing=True)
def posterior(
    features: tf.Tensor, scores: tf.Tensor, noise: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the posterior of the weights.

    With L = features^T features + noise I:

        mean = L^{-1} features^T scores,    covariance = noise L^{-1}

    Args:
      features: `[n, F]`.
      scores: `[n]`.
      noise: Variance of the noise.

    Returns:
      The mean `[F]`, and R of R R^T = covariance, `[F, F]`.
    """
    moments = tf.matmul(features, features, transpose_a=True)
    identity = tf.eye(tf.shape(features)[1], dtype=features.dtype)
    root = tf.linalg.cholesky(moments + noise * identity)
    projected = tf.linalg.matvec(features, scores, transpose_a=True)
    mean = tf.linalg.cholesky_solve(root, projected[:, None])[:, 0]
    inverse = tf.linalg.triangular_solve(root, identity)  # L = root root^T.
    return mean, tf.sqrt(noise) * tf.transpose(inverse)
