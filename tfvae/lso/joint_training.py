# SPDX-License-Identifier: Apache-2.0
"""Joint training of a VAE and a surrogate: the surrogate's part of the loss.

With scores y and latents z ~ q(z | x) there is a bound on the log density of
inputs and scores together (Maus, Jones, Moore, Kusner, Bradshaw and Gardner,
2022, "Local latent space Bayesian optimization over structured inputs",
section 4), for l = 1; l is the weight of the surrogate:

    sum_i E_q(z_i)[log p(x_i | z_i) + l E_q(f)[log N(y_i | f(z_i), s^2)]]
        - sum_i KL(q(z_i) || p(z_i)) - l KL(q(u) || p(u))

The second expectation is that of a sparse Gaussian process, where q(f) follows
from q(u) at the inducing points u (Hensman, Fusi and Lawrence, 2013, "Gaussian
processes for big data", equation 4). It is a sum over data points, so that a
weighted minibatch estimates it without bias, as it does the ELBO. Titsias's
collapsed bound, its maximum over q(u), is no such sum.

The bound holds for any q(u), kernel and s^2. Before the training of each round,
also of the first one, these are set, and in it they stay as they are, so that
there are no parameters of a second model to train, and latents move to where
their scores are predicted. The process is fitted to the means of the present
latents, as that of the queries is: a fit to draws explains nothing where
q(z | x) is wide, and a process that is constant has no gradient. Then s^2 is
set to its optimum for draws, the mean of (y - m(z))^2 + v(z), usually more
than the noise of the fit. So these squares are half a nat a data point at
first, however well scores were predicted, and do not outweigh the ELBO. The
loss itself is of draws, as the bound is, the same that the decoder is given.

The surrogate of the queries is fitted afterwards, to the means of the new
latents, as without joint training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfvae.lso.collapsed_bound import MIN_NOISE
from tfvae.lso.feasibility import fresh
from tfvae.lso.surrogates import LARGEST_SCORE
from tfvae.ops import random

if TYPE_CHECKING:
    from tfvae.lso.strategies import Strategy
    from tfvae.lso.surrogates import Surrogate
    from tfvae.lso.warping import Warping

# Data points encoded at a time.
_BATCH = 1024


def expected_log_likelihood(
    surrogate: Surrogate, latents: Any, scores: Any, noise: Any
) -> tf.Tensor:
    """Returns E_q(f)[log N(y | f(z), s^2)], nats a data point.

    With mean m(z) and variance v(z) of f it is

        -log(2 pi s^2) / 2 - ((y - m(z))^2 + v(z)) / (2 s^2).

    Args:
      surrogate: A fitted surrogate that has gradients.
      latents: z, `[B, M]`.
      scores: y, `[B]`, in the units of those of the fit.
      noise: s^2, scalar, in these units squared.

    Returns:
      float64 `[B]`, differentiable in the latents.
    """
    squares = _expected_squares(surrogate, latents, scores)
    noise = tf.cast(noise, squares.dtype)
    return -0.5 * (tf.math.log(2.0 * np.pi * noise) + squares / noise)


def _expected_squares(
    surrogate: Surrogate, latents: Any, scores: Any
) -> tf.Tensor:
    """Returns E_q(f)[(y - f(z))^2], `[B]`."""
    mean, std = surrogate.predict(latents)
    return tf.square(tf.cast(scores, mean.dtype) - mean) + tf.square(std)


def check_model(model: Any) -> None:
    """Raises an error if a model can not be trained jointly.

    Raises:
      TypeError: If it is no VAE.
      ValueError: If its latents are binary, or its encoder is frozen.
    """
    encoder = getattr(model, "encoder", None)
    if encoder is None:
        raise TypeError(
            "`model` must be a VAE where `surrogate_weight` is positive, "
            "as the surrogate's loss trains its encoder, got a "
            f"{type(model).__name__}"
        )
    if model.has_binary_latents or not encoder.trainable_variables:
        found = "a frozen encoder"
        if model.has_binary_latents:
            found = "binary latents"
        raise ValueError(
            "`model` must have continuous latents and an encoder that is "
            f"trained where `surrogate_weight` is positive, got {found}"
        )


def check_strategy(strategy: Strategy, surrogate: Surrogate | None) -> None:
    """Raises a ValueError if a strategy's surrogate can not be trained."""
    if not strategy.uses_surrogate:
        raise ValueError(
            "`strategy` must use a surrogate where `surrogate_weight` is "
            f"positive, got {type(strategy).__name__}"
        )
    _check_surrogate(surrogate)


def _check_surrogate(surrogate: Surrogate | None) -> None:
    if surrogate is None or not surrogate.has_gradients:
        raise ValueError(
            "`surrogate` must have gradients where `surrogate_weight` is "
            f"positive, as SparseGaussianProcess() has, got {surrogate!r}"
        )


class JointTraining:
    """The surrogate's part of the loss of a VAE, a `latent_loss` of `compile`.

    Called with latents `[B, M]` and the scores `[B]` that `fit` returned, it
    returns float64 `[B]`, nats a data point.
    """

    def __init__(
        self,
        model: Any,
        surrogate: Surrogate | None,
        weight: float,
        warping: Warping | None = None,
    ) -> None:
        """Checks the parts.

        Args:
          model: A VAE with continuous latents and an encoder that is trained.
          surrogate: One that has gradients; one of its settings is fitted.
          weight: Weight of the surrogate's loss, positive.
          warping: Transforms the scores; None for no transformation.

        Raises:
          TypeError: If the model is no VAE.
          ValueError: If its latents are binary, its encoder is frozen, or the
            surrogate has no gradients.
        """
        check_model(model)
        _check_surrogate(surrogate)
        assert surrogate is not None
        self._model = model
        self._surrogate = fresh(surrogate)
        self._weight = weight
        self._warping = warping
        # A variable, as a tensor would become a constant in traces.
        self._noise = tf.Variable(1.0, dtype=tf.float64, trainable=False)

    def fit(
        self,
        points: np.ndarray,
        scores: np.ndarray,
        rows: np.ndarray,
        seed: int,
    ) -> np.ndarray:
        """Sets the surrogate and s^2 for the model's present latents.

        Args:
          points: `[N, D]`.
          scores: `[N]`, larger is better.
          rows: int `[n]`, which the surrogate is fitted to.
          seed: Seed of the fit and of the draws.

        Returns:
          float64 `[N]`, the scores that the loss is called with.
        """
        if self._warping is not None:
            scores = self._warping(scores)
        scores = np.clip(scores, -LARGEST_SCORE, LARGEST_SCORE)
        means, draws = [], []
        for i in range(0, len(rows), _BATCH):
            part = points[rows[i : i + _BATCH]].astype(np.float32)
            posterior = self._model.encode(part)
            means.append(posterior.mode)
            draws.append(posterior.sample(random.make_seed(seed, i)))
        known = scores[rows]
        self._surrogate.fit(np.concatenate(means), known, seed, False)
        squares = _expected_squares(
            self._surrogate, np.concatenate(draws), known
        )
        # As that of a fit, whose scores have a variance of 1.
        least = MIN_NOISE * (np.var(known) or 1.0)
        self._noise.assign(np.maximum(np.mean(squares), least))
        return scores

    def __call__(self, latents: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        return -self._weight * expected_log_likelihood(
            self._surrogate, latents, scores, self._noise
        )
