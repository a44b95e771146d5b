# SPDX-License-Identifier: Apache-2.0
"""Inference of unseen data: evolves fresh states at fixed parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfvae.latent_model import in_batches
from tfvae.ops import bits, densities, random, truncated
from tfvae.tvae import evolution

if TYPE_CHECKING:
    from tfvae.tvae.model import TVAE


class Inference(NamedTuple):
    """The posterior of unseen data points.

    Attributes:
      packed: uint8 `[B, S, W]`, distinct states, the best first.
      weights: float32 `[B, S]`, posterior weights, rows summing to 1.
      bound: float32 `[B]`, lower bound on log p(x), nats.
      num_steps: int32 scalar, E-steps made.
    """

    packed: tf.Tensor
    weights: tf.Tensor
    bound: tf.Tensor
    num_steps: tf.Tensor


def infer(
    model: TVAE,
    x: tf.Tensor,
    seed: tf.Tensor,
    max_steps: tf.Tensor,
    tolerance: tf.Tensor,
) -> Inference:
    """Evolves the posterior of one batch of unseen data, in a graph.

    Args:
      model: The model.
      x: `[B, D]`, NaN where missing.
      seed: `[2]` int32, of the first states and the search.
      max_steps: Scalar int32, the most E-steps.
      tolerance: Scalar, nats a data point and step at which the search ends.
    """
    batch, observed = densities.split_missing(x)
    score = model._joint.own(batch, observed)
    batch_size = tf.shape(x)[0]
    if model.is_exhaustive:
        every = bits.pack(tf.constant(bits.all_states(model.num_latents)))
        every = tf.repeat(every[None], batch_size, axis=0)
        states = truncated.best_distinct(every, score(every), model.num_states)
        num_steps = tf.constant(0)
    else:
        if model.archive is None:
            first = truncated.initial_states(
                random.make_seed(seed, 0),
                batch_size,
                model.num_states,
                model.num_latents,
            )
        else:
            first = _best_archived(model, batch, observed)
        states, num_steps = evolution.infer(
            random.make_seed(seed, 1),
            truncated.StateSet(first, score(first)),
            score,
            model.evolution,
            model.prior.expected_ones(),
            model.num_latents,
            max_steps,
            tolerance,
        )
    return Inference(
        states.packed,
        truncated.posterior_weights(states.log_joints),
        truncated.free_energy(states.log_joints),
        num_steps,
    )


def _best_archived(model: TVAE, x: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
    """Returns the S best archived states of each data point, `[B, S, W]`."""
    archive = tf.convert_to_tensor(model.archive)
    states = bits.unpack(archive, model.num_latents)
    log_joints = model._joint.log_prob_pairs(x, observed, states)
    best = tf.math.top_k(log_joints, model.num_states).indices
    return tf.gather(archive, best)


class UpdateArchive(keras.callbacks.Callback):
    """Updates the archive of a `TVAE`, if it has one, when training ends."""

    def on_train_end(self, logs: dict | None = None) -> None:
        if self.model.archive is not None and self.model.states is not None:
            self.model.update_archive()


def posterior_mode(
    model: TVAE, x: np.ndarray, index: np.ndarray | None
) -> np.ndarray:
    """Returns the best states of data points; see `TVAE.posterior_mode`."""

    def inferred(points: np.ndarray) -> tf.Tensor:
        return bits.unpack(model.infer(points).packed[:, 0], model.num_latents)

    if index is None or model.states is None:
        return in_batches(inferred, x)
    # The store keeps each point's best state first, as of its last visit.
    states = model.states.gather(tf.convert_to_tensor(index))
    packed = states.packed[:, 0]
    latents = np.array(bits.unpack(packed, model.num_latents), np.float32)
    unseen = ~states.visited.numpy()
    if unseen.any():
        latents[unseen] = in_batches(inferred, x[unseen])
    return latents
