# SPDX-License-Identifier: Apache-2.0
"""Training batches with weighted and repeated data points."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfvae.ops import truncated
from tfvae.ranks import Ranks


class Draws(NamedTuple):
    """The distinct data points of a batch, and their weights.

    A data point that was drawn twice becomes one of weight 2, with one set of
    states that evolves once. In fixed shapes, see `static_draws`, places are
    left; they repeat the first data point, with weights and counts of 0.

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

    @property
    def is_point(self) -> tf.Tensor:
        """Which of the places have a data point, bool `[U]`."""
        return self.counts > 0

    def num_points(self) -> tf.Tensor:
        """Returns the number of data points, int32 scalar."""
        return tf.reduce_sum(tf.cast(self.is_point, tf.int32))

    def step_weights(self, ranks: Ranks) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns weights by which a mean over points is one over draws.

        Args:
          ranks: The processes, each with its part of the batch.

        Returns:
          The weights, `[U]`, and the number of points of each rank, int32
          `[R]`.
        """
        numbers, num_draws = ranks.all_sum(
            tf.one_hot(ranks.rank, ranks.size, self.num_points(), 0),
            tf.reduce_sum(self.counts),
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


def padded(
    x: tf.Tensor, index: tf.Tensor, weights: tf.Tensor | None, size: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Fills a batch up with draws of its first data point that do not count.

    Args:
      x: `[B, D]`, B at least 1.
      index: int32 `[B]`.
      weights: `[B]`, weights of the draws; None for 1 each.
      size: Draws to fill it up to, int32 scalar, at least B.

    Returns:
      The four arguments of `static_draws`.
    """
    places = tf.range(size)
    is_drawn = places < tf.size(index)
    source = tf.where(is_drawn, places, 0)
    if weights is None:
        weights = tf.ones_like(index, tf.float32)
    weights = tf.gather(tf.reshape(tf.cast(weights, tf.float32), [-1]), source)
    return (
        tf.gather(x, source),
        tf.gather(index, source),
        tf.where(is_drawn, weights, 0.0),
        is_drawn,
    )


def static_draws(
    x: tf.Tensor, index: tf.Tensor, weights: tf.Tensor, is_drawn: tf.Tensor
) -> Draws:
    """As `distinct_draws`, in fixed shapes: as many places as draws, U = B.

    Args:
      x: `[B, D]`, equal rows where `index` is equal.
      index: int32 `[B]`, indices into the training data.
      weights: `[B]`, weights of the draws.
      is_drawn: bool `[B]`, the draws that count, the first one among them.
    """
    size = tf.size(index)
    first = truncated.first_equals(index)
    is_first = tf.equal(first, tf.range(size))
    source, _ = truncated.places_of(is_first, size)
    position = tf.gather(tf.cumsum(tf.cast(is_first, tf.int32)) - 1, first)
    counts, totals = (
        tf.math.unsorted_segment_sum(values, position, size)
        for values in (tf.cast(is_drawn, tf.int32), weights)
    )
    return Draws(
        tf.gather(x, source),
        tf.gather(index, source),
        totals,
        counts,
        position,
    )
