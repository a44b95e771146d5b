# SPDX-License-Identifier: Apache-2.0
"""Sparse Gaussian process: collapsed bound and posterior (Titsias, 2009).

The kernel is TensorFlow Probability's. Its own sparse process,
`VariationalGaussianProcess`, makes an n x n matrix or is trained by
minibatches, where sums over the points are enough here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf


class Parameters(NamedTuple):
    """Learned parameters of a sparse Gaussian process, float64.

    Attributes:
      log_lengthscales: `[M]`.
      log_variance: Scalar, log of the kernel variance.
      log_noise: Scalar, log of (noise variance - `MIN_NOISE`).
      inducing: Inducing points, `[m, M]`.
    """

    log_lengthscales: Any
    log_variance: Any
    log_noise: Any
    inducing: Any


class Posterior(NamedTuple):
    """Posterior of f.

    With k = k(z, inducing), f(z) has the mean k `weights` and the variance
    k(z, z) - k `shrinkage` k^T.

    Attributes:
      weights: `[m]`.
      shrinkage: `[m, m]`.
    """

    weights: tf.Tensor
    shrinkage: tf.Tensor


# Smallest noise variance, in units of standardised scores.
MIN_NOISE = 1e-6
# Smallest and largest jitter, as fractions of the kernel variance.
MIN_JITTER, MAX_JITTER = 1e-6, 1e-1

_FLOAT = tf.TensorSpec([None], tf.float64)
_SCALAR = tf.TensorSpec([], tf.float64)
_MATRIX = tf.TensorSpec([None, None], tf.float64)
# Dynamic shapes for all that varies within a run, to avoid retracing.
_SIGNATURE = (
    Parameters(_FLOAT, _SCALAR, _SCALAR, _MATRIX),
    _MATRIX,
    _FLOAT,
    _SCALAR,
)


def kernel_of(parameters: Parameters) -> Any:
    """Returns the kernel, an object of TensorFlow Probability."""
    # Imported here, as it takes a second and is needed only to fit.
    import tensorflow_probability as tfp

    kernels = tfp.math.psd_kernels
    return kernels.FeatureScaled(
        kernels.ExponentiatedQuadratic(
            amplitude=tf.exp(0.5 * parameters.log_variance)
        ),
        scale_diag=tf.exp(parameters.log_lengthscales),
    )


@tf.custom_gradient
def _second_moments(matrix: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """Returns A A^T, with a gradient of one product instead of TF's two."""

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        return tf.matmul(upstream + tf.transpose(upstream), matrix)

    return tf.matmul(matrix, matrix, transpose_b=True), gradient


class _Factors(NamedTuple):
    """Factors that the bound and the posterior share.

    Attributes:
      chol_prior: L of L L^T = K_uu, `[m, m]`.
      explained: L^-1 K_uf K_fu L^-T, `[m, m]`.
      chol_posterior: L_B of L_B L_B^T = I + explained / noise, `[m, m]`.
      projected: L_B^-1 L^-1 K_uf y / noise, `[m]`.
      noise: Scalar.
    """

    chol_prior: tf.Tensor
    explained: tf.Tensor
    chol_posterior: tf.Tensor
    projected: tf.Tensor
    noise: tf.Tensor


def _factors(
    parameters: Parameters,
    latents: tf.Tensor,
    scores: tf.Tensor,
    jitter: tf.Tensor,
) -> _Factors:
    solve = tf.linalg.triangular_solve
    kernel = kernel_of(parameters)
    inducing = parameters.inducing
    identity = tf.eye(tf.shape(inducing)[0], dtype=inducing.dtype)
    prior = kernel.matrix(inducing, inducing)
    prior += jitter * tf.exp(parameters.log_variance) * identity
    chol_prior = tf.linalg.cholesky(prior)
    cross = kernel.matrix(inducing, latents)  # [m, n]
    noise = MIN_NOISE + tf.exp(parameters.log_noise)
    # Solves with the second moments [m, m] rather than the far larger [m, n].
    # That squares the condition number, which float64 can afford.
    half = solve(chol_prior, _second_moments(cross))
    explained = solve(chol_prior, tf.transpose(half))
    chol_posterior = tf.linalg.cholesky(identity + explained / noise)
    projected = tf.matmul(cross, scores[:, None]) / noise
    projected = solve(chol_posterior, solve(chol_prior, projected))[:, 0]
    return _Factors(chol_prior, explained, chol_posterior, projected, noise)


def bound_of(
    parameters: Parameters,
    latents: tf.Tensor,
    scores: tf.Tensor,
    jitter: tf.Tensor,
) -> tf.Tensor:
    """Returns Titsias's collapsed bound on log p(scores), nats."""
    parts = _factors(parameters, latents, scores, jitter)
    noise = parts.noise
    count = tf.cast(tf.size(scores), scores.dtype)
    diagonal = tf.linalg.diag_part(parts.chol_posterior)
    unexplained = count * tf.exp(parameters.log_variance) - tf.linalg.trace(
        parts.explained
    )
    return (
        -0.5 * count * tf.math.log(2.0 * np.pi * noise)
        - tf.reduce_sum(tf.math.log(diagonal))
        - 0.5 * tf.reduce_sum(tf.square(scores)) / noise
        + 0.5 * tf.reduce_sum(tf.square(parts.projected))
        - 0.5 * unexplained / noise
    )


@tf.function(input_signature=_SIGNATURE)
def loss_and_gradients(
    parameters: Parameters,
    latents: tf.Tensor,
    scores: tf.Tensor,
    jitter: tf.Tensor,
) -> tuple[tf.Tensor, Parameters, tf.Tensor]:
    """Returns -bound / n, and its gradients in all parameters and scores."""
    with tf.GradientTape() as tape:
        tape.watch((parameters, scores))
        bound = bound_of(parameters, latents, scores, jitter)
        loss = -bound / tf.cast(tf.size(scores), bound.dtype)
    return loss, *tape.gradient(loss, (parameters, scores))


@tf.function(input_signature=_SIGNATURE)
def posterior(
    parameters: Parameters,
    latents: tf.Tensor,
    scores: tf.Tensor,
    jitter: tf.Tensor,
) -> Posterior:
    """Returns the posterior, conditioned on all points."""
    parts = _factors(parameters, latents, scores, jitter)
    identity = tf.eye(tf.size(parts.projected), dtype=scores.dtype)
    prior = tf.linalg.triangular_solve(parts.chol_prior, identity)
    posterior = tf.linalg.triangular_solve(parts.chol_posterior, prior)
    return Posterior(
        tf.linalg.matvec(posterior, parts.projected, transpose_a=True),
        tf.matmul(prior, prior, transpose_a=True)
        - tf.matmul(posterior, posterior, transpose_a=True),
    )
