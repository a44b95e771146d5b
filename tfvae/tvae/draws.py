# SPDX-License-Identifier: Apache-2.0
"""Batches in which data points have weights, and may occur several times."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Draws(NamedTuple):
    """The distinct data points of a batch, and how much each one counts.

    A data point that was drawn twice is one of weight 2: it has one set of
    states, which evolve once.

    Attributes:
      x: `[U, D]`, in the order of their first draws.
      index: int32 `[U]`, the rows of the data that they are.
      weights: float32 `[U]`, the sum of the weights of their draws.
      counts: int32 `[U]`, the number of their draws.
      position: int32 `[B]`, which of the U each draw is.
    """

    x: tf.Tensor
    index: tf.Tensor
    weights: tf.Tensor
    counts: tf.Tensor
    position: tf.Tensor

    def step_weights(self) -> tf.Tensor:
        """Returns weights whose mean over the U points is that over draws."""
        num_distinct = tf.cast(tf.size(self.index), tf.float32)
        num_draws = tf.cast(tf.size(self.position), tf.float32)
        return self.weights * (num_distinct / num_draws)

    def per_draw(self, values: tf.Tensor) -> tf.Tensor:
        """Returns what each draw has of values of the data points."""
        return tf.gather(values, self.position)


def distinct_draws(
    x: tf.Tensor, index: tf.Tensor, weights: tf.Tensor | None
) -> Draws:
    """Joins the draws of the same data point.

    Args:
      x: `[B, D]`, equal rows where `index` is equal.
      index: int32 `[B]`.
      weights: `[B]`, of the draws; None for 1 each.
    """
    distinct, position = tf.unique(index)
    num_distinct = tf.size(distinct)
    first = tf.math.unsorted_segment_min(
        tf.range(tf.size(index)), position, num_distinct
    )
    counts = tf.math.unsorted_segment_sum(
        tf.ones_like(index), position, num_distinct
    )
    totals = tf.cast(counts, tf.float32)
    if weights is not None:
        weights = tf.reshape(tf.cast(weights, tf.float32), [-1])
        totals = tf.math.unsorted_segment_sum(weights, position, num_distinct)
    return Draws(tf.gather(x, first), distinct, totals, counts, position)
