# SPDX-License-Identifier: Apache-2.0
"""The M-step: gradient steps for the decoder, sums for the closed forms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import tensorflow as tf

from tfvae.ops import bits, truncated
from tfvae.ranks import Ranks
from tfvae.tvae.draws import Draws

if TYPE_CHECKING:
    from tfvae.tvae.model import TVAE


def m_steps(
    model: TVAE,
    x: tf.Tensor,
    observed: tf.Tensor,
    packed: tf.Tensor | None,
    drawn: Draws,
) -> None:
    """Improves the parameters, one gradient step an M-step batch.

    Args:
      model: The model, compiled.
      x: `[U, D]`.
      observed: `[U, D]`.
      packed: uint8 `[U, M, W]`, each data point's states; None for all
        2**H.
      drawn: What counts how much.

    On several ranks, each passes its part of the batch, and all make the same
    number of steps; a rank that has no points left contributes nothing.
    """
    step_weights = drawn.step_weights(model.ranks)

    def step(part: slice) -> None:
        _m_step(
            model,
            x[part],
            observed[part],
            None if packed is None else packed[part],
            sum_weights=drawn.weights[part],
            step_weights=step_weights[part],
            num_draws=tf.reduce_sum(drawn.counts[part]),
        )

    size = model.m_batch_size
    if size is None:
        step(slice(None))
        return

    num_points = tf.shape(x)[0]
    if model.ranks.size > 1:
        size = math.ceil(size / model.ranks.size)
        num_points = _most_of_a_rank(model.ranks, num_points)

    def advance(start: tf.Tensor) -> tuple[tf.Tensor]:
        step(slice(start, start + size))
        return (start + size,)

    tf.while_loop(
        lambda start: start < num_points,
        advance,
        (tf.constant(0),),
        parallel_iterations=1,
    )


def _most_of_a_rank(ranks: Ranks, number: tf.Tensor) -> tf.Tensor:
    """Returns the largest of the ranks' int32 scalars."""
    (numbers,) = ranks.all_sum(tf.one_hot(ranks.rank, ranks.size, number, 0))
    return tf.reduce_max(numbers)


def _mean_gradients(
    ranks: Ranks, gradients: list[tf.Tensor | None], num_points: tf.Tensor
) -> list[tf.Tensor | None]:
    """Returns the gradients of the mean over the data points of all ranks.

    Args:
      ranks: The processes.
      gradients: Those of this rank's mean times its number of points; None
        where the loss does not depend on a variable.
      num_points: Scalar float32, the number of points of this rank.
    """
    known = [tf.convert_to_tensor(one) for one in gradients if one is not None]
    *sums, count = ranks.all_sum(*known, num_points)
    means = iter([one / count for one in sums])
    return [None if one is None else next(means) for one in gradients]


def _m_step(
    model: TVAE,
    x: tf.Tensor,
    observed: tf.Tensor,
    packed: tf.Tensor | None,
    *,
    sum_weights: tf.Tensor,
    step_weights: tf.Tensor,
    num_draws: tf.Tensor,
) -> None:
    """One gradient step, and its share of the closed-form updates.

    Args:
      model: The model, compiled.
      x: `[U, D]`.
      observed: `[U, D]`.
      packed: uint8 `[U, M, W]`, the states, see `m_steps`.
      sum_weights: `[U]`, of the sums over a pass.
      step_weights: `[U]`, of the mean over the step.
      num_draws: Scalar int32, how many draws the points stand for.
    """
    if packed is None:
        states = tf.constant(bits.all_states(model.num_latents))
        index = tf.range(model.num_states)[None]  # [1, K]: as of everyone
    else:
        states, index = model._joint.distinct(packed)
    with tf.GradientTape() as tape:
        log_joints, outputs = model._joint.log_prob(
            x, observed, states, index, training=True
        )
        # q is the maximiser of the bound on these states, so the bound's
        # gradient is the expected log-joint's.
        bounds = truncated.free_energy(log_joints)
        loss = -tf.reduce_mean(step_weights * bounds)
        loss += model._penalties()
        if model.ranks.size > 1:
            num_points = tf.cast(tf.shape(x)[0], tf.float32)
            loss *= num_points
        # Optimizers with loss scaling divide the gradients by the scale.
        loss = model.optimizer.scale_loss(loss)
    variables = model.trainable_variables
    gradients = tape.gradient(loss, variables)
    if model.ranks.size > 1:
        gradients = _mean_gradients(model.ranks, gradients, num_points)
    model.optimizer.apply(gradients, variables)

    q = truncated.posterior_weights(log_joints)  # [U, M]
    index = tf.broadcast_to(index, tf.shape(q))
    # What all data points together give to each distinct state.
    totals = tf.math.unsorted_segment_sum(
        sum_weights[:, None] * q, index, tf.shape(states)[0]
    )
    ones = tf.linalg.matvec(states, totals, transpose_a=True)
    model.prior.accumulate(ones, num_draws, tf.reduce_sum(sum_weights))
    # Weights of entries: those of the data points where observed.
    model.likelihood.accumulate(
        x[:, None], (sum_weights[:, None] * observed)[:, None], outputs, q
    )
    pass_done = model.prior.visits.value >= model.num_data_of_all
    model.likelihood.maximise(pass_done)
    model.prior.maximise(pass_done)
    num_ones = tf.gather(tf.reduce_sum(states, -1), index)
    model._monitor(sum_weights, active=tf.reduce_sum(q * num_ones, -1))
