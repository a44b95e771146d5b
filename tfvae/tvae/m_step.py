# SPDX-License-Identifier: Apache-2.0
"""The M-step: gradient steps for the decoder, sums for the closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import tensorflow as tf

from tfvae.ops import bits, truncated
from tfvae.ranks import ONE_PROCESS, mean_gradients
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
    size = model.m_batch_size
    # A single gradient step divides by the draws of all ranks itself.
    step_weights, numbers = drawn.step_weights(
        ONE_PROCESS if size is None else model.ranks
    )

    def step(part: Callable[[tf.Tensor], tf.Tensor]) -> None:
        weights = part(step_weights)
        if model.is_static:
            # So that a mean over all places is one over those of data points.
            share = tf.reduce_mean(tf.cast(part(drawn.is_point), tf.float32))
            weights /= share
        _m_step(
            model,
            part(x),
            part(observed),
            None if packed is None else part(packed),
            sum_weights=part(drawn.weights),
            step_weights=weights,
            num_draws=tf.reduce_sum(part(drawn.counts)),
        )

    if size is None:
        step(lambda rows: rows)
        return

    size = math.ceil(size / model.ranks.size)
    most = tf.reduce_max(numbers)

    def advance(start: tf.Tensor) -> tuple[tf.Tensor]:
        if model.is_static:  # The places are a multiple of the size.
            step(lambda rows: _slice(rows, start, size))
        else:
            step(lambda rows: rows[start : start + size])
        return (start + size,)

    tf.while_loop(
        lambda start: start < most,
        advance,
        (tf.constant(0),),
        parallel_iterations=1,
    )


def _slice(rows: tf.Tensor, start: tf.Tensor, size: int) -> tf.Tensor:
    """Returns `rows[start : start + size]`, in fixed shapes."""
    rest = rows.shape[1:]
    return tf.slice(rows, [start, *(0 for _ in rest)], [size, *rest])


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
    elif model.is_static:
        states, index = bits.unpack(packed, model.num_latents), None
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
            counted = tf.shape(x)[0] if model.m_batch_size else num_draws
            share = tf.cast(counted, tf.float32)
            loss *= share
        # Optimizers with loss scaling divide the gradients by the scale.
        loss = model.optimizer.scale_loss(loss)
    variables = model.trainable_variables
    gradients = tape.gradient(loss, variables)
    q = truncated.posterior_weights(log_joints)  # [U, M]
    totals = sum_weights[:, None] * q
    num_ones = tf.reduce_sum(states, -1)
    if index is None:
        states = tf.reshape(states, [-1, model.num_latents])
        totals = tf.reshape(totals, [-1])
    else:
        index = tf.broadcast_to(index, tf.shape(q))
        num_ones = tf.gather(num_ones, index)
        # What all data points together give to each distinct state.
        totals = tf.math.unsorted_segment_sum(
            totals, index, tf.shape(states)[0]
        )
    ones = tf.linalg.matvec(states, totals, transpose_a=True)
    of_prior = [
        tf.cast(value, tf.float64)
        for value in (ones, num_draws, tf.reduce_sum(sum_weights))
    ]
    # Weights of entries: those of the data points where observed.
    of_likelihood = model.likelihood.statistics(
        x[:, None], (sum_weights[:, None] * observed)[:, None], outputs, q
    )
    sums = (*of_prior, *of_likelihood)
    if model.ranks.size > 1:
        gradients, sums = mean_gradients(model.ranks, gradients, share, sums)
    model.optimizer.apply(gradients, variables)
    model.prior.accumulate(*sums[: len(of_prior)])
    model.likelihood.accumulate(*sums[len(of_prior) :])
    pass_done = model.prior.visits.value >= model.num_data_of_all
    model.likelihood.maximise(pass_done)
    model.prior.maximise(pass_done)
    model._monitor(sum_weights, active=tf.reduce_sum(q * num_ones, -1))
