# SPDX-License-Identifier: Apache-2.0
"""Ex-post density estimation: priors fitted to a trained model's latents."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.ops import random
from tfvae.priors.base import Prior

# Latents evaluated in one batch.
_EVALUATION_SIZE = 1000


class FitHistory(NamedTuple):
    """Mean log p(z), nats, before the first epoch and after each.

    Attributes:
      log_prob: Values of the training latents; for an epoch, the mean over
        its batches, each evaluated before its update.
      held_out_log_prob: Values of the held-out latents.
      best_epoch: Index, in both, of the epoch whose weights the prior has.
    """

    log_prob: list[float]
    held_out_log_prob: list[float]
    best_epoch: int


@typed_gin.register
def fit_prior(
    prior: Prior,
    latents: np.ndarray,
    *,
    epochs: int = 100,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    held_out: float = 0.1,
    patience: int = 10,
    adapt: bool = True,
    seed: int = 0,
) -> FitHistory:
    """Fits a prior to latents by maximum likelihood.

    This is ex-post density estimation: an autoencoder is trained without a
    prior, and the prior fitted to its latents afterwards is used to generate.
    Training uses Adam with early stopping on held-out latents; the prior is
    left with its best weights. With a `VampPrior`, call its `adapt_inputs`
    first; the encoder is not changed.

    Reference: Ghosh et al., 2020, "From variational to deterministic
    autoencoders", section 4.

    Args:
      prior: Its trainable weights are fitted.
      latents: `[N, M]`, an encoder's means or samples.
      epochs: Largest number of epochs.
      batch_size: Latents per step; the incomplete last batch of an epoch is
        dropped, different latents each time.
      learning_rate: Learning rate of Adam.
      held_out: Fraction of the latents that are held out.
      patience: Epochs without improvement before training stops.
      adapt: Whether to initialise the weights with `prior.adapt`; False to
        continue from the present weights.
      seed: Seed of the held-out split, the initialisation and the order.

    Returns:
      The mean log-likelihoods by epoch.

    Raises:
      ValueError: If the prior has no trainable weights, as
        `StandardNormalPrior`, or an argument is not as described.
    """
    check_counts(epochs=epochs, batch_size=batch_size, patience=patience)
    latents = _checked(prior, latents)
    train, test = _split(latents, held_out, seed)
    if adapt:
        prior.adapt(train, seed=seed)
    mean_log_prob = _make_evaluation(prior)
    optimizer = keras.optimizers.Adam(learning_rate)
    run_epoch = _make_epoch(prior, optimizer, train, batch_size)
    history = FitHistory([mean_log_prob(train)], [mean_log_prob(test)], 0)
    weights = prior.get_weights()
    for epoch in range(1, epochs + 1):
        log_prob = run_epoch(random.make_seed(seed, epoch))
        history.log_prob.append(float(log_prob))
        history.held_out_log_prob.append(mean_log_prob(test))
        best = history.held_out_log_prob[history.best_epoch]
        if history.held_out_log_prob[epoch] > best:
            history = history._replace(best_epoch=epoch)
            weights = prior.get_weights()
        elif epoch - history.best_epoch >= patience:
            break
    prior.set_weights(weights)
    return history


def _checked(prior: Prior, latents: np.ndarray) -> np.ndarray:
    if not prior.trainable_variables:
        raise ValueError(
            "`prior` must have trainable weights, got a "
            f"{type(prior).__name__} without any"
        )
    latents = np.asarray(latents, np.float32)
    if latents.ndim != 2 or latents.shape[1] != prior.num_latents:
        raise ValueError(
            f"`latents` must have the shape [N, {prior.num_latents}], got "
            f"{list(latents.shape)!r}"
        )
    if not np.isfinite(latents).all():
        count = int(np.sum(~np.isfinite(latents)))
        raise ValueError(
            f"`latents` must be finite, got {count} values that are not"
        )
    return latents


def _split(
    latents: np.ndarray, held_out: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the latents to train on and those held out."""
    num_held_out = math.ceil(held_out * len(latents))
    if not 0 < num_held_out < len(latents):
        raise ValueError(
            "`held_out` must be a fraction that leaves latents both to train "
            f"on and to hold out, got {held_out!r} of {len(latents)}"
        )
    order = np.random.default_rng(seed).permutation(len(latents))
    return latents[order[num_held_out:]], latents[order[:num_held_out]]


def _make_evaluation(prior: Prior) -> Callable[[np.ndarray], float]:
    signature = [tf.TensorSpec([None, prior.num_latents], tf.float32)]
    log_prob = tf.function(prior.log_prob, input_signature=signature)

    def mean_log_prob(latents: np.ndarray) -> float:
        # In parts: a mixture makes an array of all latents by all components.
        parts = range(0, len(latents), _EVALUATION_SIZE)
        values = [log_prob(latents[i : i + _EVALUATION_SIZE]) for i in parts]
        return float(np.mean(np.concatenate(values), dtype=np.float64))

    return mean_log_prob


def _make_epoch(
    prior: Prior,
    optimizer: keras.optimizers.Optimizer,
    latents: np.ndarray,
    batch_size: int,
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function from a seed to the mean log p(z) of one pass."""
    batch_size = min(batch_size, len(latents))
    num_steps = len(latents) // batch_size
    data = tf.constant(latents)
    variables = prior.trainable_variables
    optimizer.build(variables)

    # One graph of the whole epoch: called one by one, such small steps take
    # several times as long.
    @tf.function
    def run_epoch(seed: tf.Tensor) -> tf.Tensor:
        order = tf.argsort(random.uniform(seed, [len(latents)]))
        total = tf.constant(0.0)
        for step in tf.range(num_steps):
            rows = order[step * batch_size : (step + 1) * batch_size]
            batch = tf.gather(data, rows)
            with tf.GradientTape() as tape:
                log_prob = tf.reduce_mean(prior.log_prob(batch))
                loss = -log_prob
            optimizer.apply(tape.gradient(loss, variables), variables)
            total += log_prob
        return total / num_steps

    return run_epoch
