# SPDX-License-Identifier: Apache-2.0
"""Training batches with weighted and repeated data points."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfvae.ranks import Ranks


class Draws(NamedTuple):
    """The distinct data points of a batch, and their weights.

    A data point that was drawn twice becomes one of weight 2, with one set of
    states that evolves once.

    Attributes:
      x: `[U, D]`, in the order of first occurrence.
      index: int32 `[U]`, indices into the training data.
      weights: float32 `[U]`, total weight of the draws of each data point.
      counts: int32 `[U]`, number of draws of each data point.
      position: int32 `[B]`, index into the U data points of each draw.
    """

    x: tf.Tensor
    index: tf.Tensor
    weights: tf.Tensor
    counts: tf.Tensor
    position: tf.Tensor

    def step_weights(self, ranks: Ranks) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns weights by which a mean over points is one over draws.

        Args:
          ranks: The processes, each with its part of the batch.

        Returns:
          The weights, `[U]`, and the number of points of each rank, int32
          `[R]`.
        """
        numbers, num_draws = ranks.all_sum(
            tf.one_hot(ranks.rank, ranks.size, tf.size(self.index), 0),
            tf.size(self.position),
        )
        num_distinct, num_draws = (
            tf.cast(value, tf.float32)
            for value in (tf.reduce_sum(numbers), num_draws)
        )
        ratio = tf.math.divide_no_nan(num_distinct, num_draws)
        return self.weights * ratio, numbers


def distinct_draws(
    x: tf.Tensor, index: tf.Tensor, weights: tf.Tensor | None
) -> Draws:
    """Merges repeated draws of the same data point.

    Args:
      x: `[B, D]`, equal rows where `index` is equal.
      index: int32 `[B]`, indices into the training data.
      weights: `[B]`, weights of the draws; None for 1 each.
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
