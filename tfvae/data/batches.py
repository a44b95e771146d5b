# SPDX-License-Identifier: Apache-2.0
"""Seeded, resumable `tf.data` streams of shuffled batches."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfvae.data.blocks import block_batches
from tfvae.ops.rows import LazyRows


def indexed_batches(
    points: np.ndarray | LazyRows,
    batch_size: int,
    seed: int = 0,
    start_epoch: int = 0,
    num_data_of_all: int | None = None,
    block_rows: int | None = None,
) -> tf.data.Dataset:
    """Endless batches of data points together with their row numbers.

    Each epoch visits every data point once, in an order that depends on
    `(seed, epoch)` alone. Starting at epoch e therefore continues exactly
    where a run left that stopped after e epochs. Batching, shuffling and
    gathering all happen in the tf.data graph.

    Args:
      points: `[N, D]` float32; NaN marks a missing entry. Of `LazyRows` each
        batch computes its own.
      batch_size: Points per batch, B; the last batch of an epoch holds
        the remainder. An epoch has ceil(N / B) batches.
      seed: Seed of the order.
      start_epoch: Epoch to begin with.
      num_data_of_all: The number of all data points, of which `points` are a
        part. An epoch then has the batches of all, and each of them the same
        share of `points`, up to one; it may be empty. None for len(points).
      block_rows: Consecutive rows that are visited together, see
        `tfvae.data.blocks`; None for those of `points`, where rows are read
        from files, and an order without blocks otherwise.

    Returns:
      An infinite dataset of `(points [b, D] float32, index [b] int32)`.

    Raises:
      ValueError: If an argument is out of range.
    """
    if block_rows is None:
        block_rows = getattr(points, "block_rows", None)
    if block_rows is not None:
        return block_batches(
            points, block_rows, batch_size, seed, start_epoch, num_data_of_all
        )
    rows = _row_reader(
        points if isinstance(points, LazyRows) else point_table(points)
    )

    def gather(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cast(rows(index), tf.float32), index

    return shuffled_batches(
        len(points), batch_size, seed, start_epoch, gather, num_data_of_all
    )


def batches_with(
    points: np.ndarray,
    features: np.ndarray,
    batch_size: int,
    seed: int = 0,
    start_epoch: int = 0,
    num_data_of_all: int | None = None,
) -> tf.data.Dataset:
    """Endless batches of data points together with what is known of each.

    The order is that of `indexed_batches`. Features that are an `np.memmap`
    may be larger than memory: each batch reads its own rows, in ascending
    order.

    Args:
      points: `[N, D]` float32; NaN marks a missing entry.
      features: `[N, ...]`, numbers of any type.
      batch_size: Points per batch, B; the last batch of an epoch holds
        the remainder. An epoch has ceil(N / B) batches.
      seed: Seed of the order.
      start_epoch: Epoch to begin with.
      num_data_of_all: As of `indexed_batches`.

    Returns:
      An infinite dataset of `(points [b, D], features [b, ...])`, both
      float32.

    Raises:
      ValueError: If an argument is out of range.
    """
    table = point_table(points)
    if features.ndim < 1 or len(features) != len(points):
        raise ValueError(
            f"`features` must have the {len(points)} rows of `points`, got "
            f"shape {features.shape!r}"
        )
    rows = _row_reader(features)

    def gather(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return gathered(table, index), tf.cast(rows(index), tf.float32)

    return shuffled_batches(
        len(points), batch_size, seed, start_epoch, gather, num_data_of_all
    )


def point_table(points: np.ndarray) -> tf.Tensor:
    """Returns data points `[N, D]` as a tensor, once checked.

    It is of float32, or of uint8 where they are, which `gathered` converts.
    """
    points = np.asarray(points)
    if points.ndim != 2 or 0 in points.shape:
        raise ValueError(
            "`points` must have shape [points, dimensions], neither of them "
            f"zero, got shape {points.shape!r}"
        )
    dtype = tf.uint8 if points.dtype == np.uint8 else tf.float32
    return tf.convert_to_tensor(points, dtype=dtype)


def gathered(table: tf.Tensor | tf.Variable, index: tf.Tensor) -> tf.Tensor:
    """Returns rows of a point table, float32 `[b, D]`."""
    return tf.cast(tf.gather(table, index), tf.float32)


def _row_reader(
    features: np.ndarray | tf.Tensor | LazyRows,
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function from row numbers `[b]` to rows `[b, ...]`."""
    if not isinstance(features, np.memmap | LazyRows):
        in_memory = tf.convert_to_tensor(features)
        return lambda index: tf.gather(in_memory, index)

    def read(index: np.ndarray) -> np.ndarray:
        # A disk reads ahead, so ascending order is what it does best.
        order = np.argsort(index)
        rows = np.empty((len(index), *features.shape[1:]), features.dtype)
        rows[order] = features[index[order]]
        return rows

    def read_in_graph(index: tf.Tensor) -> tf.Tensor:
        rows = tf.numpy_function(read, [index], features.dtype)
        return tf.ensure_shape(rows, [None, *features.shape[1:]])

    return read_in_graph


def shuffled_batches(
    num_data: int,
    batch_size: int,
    seed: int,
    start_epoch: int,
    gather: Callable[[tf.Tensor], tuple[tf.Tensor | None, ...]],
    num_data_of_all: int | None = None,
) -> tf.data.Dataset:
    """Returns the endless dataset of `gather(index)`, index `[b]` a batch."""
    whole = num_data_of_all or num_data
    if batch_size < 1 or start_epoch < 0:
        raise ValueError(
            "`batch_size` must be at least 1 and `start_epoch` at least 0, "
            f"got {batch_size!r} and {start_epoch!r}"
        )
    steps = math.ceil(whole / batch_size)

    def batches_of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        # Sorting random 32-bit keys permutes uniformly up to ties, which are
        # broken by position. Integer Philox bits are the same on every
        # platform, unlike the operation's default generator.
        keys = tf.random.stateless_uniform(
            [num_data],
            seed=tf.stack([tf.constant(seed, tf.int64), epoch]),
            minval=None,
            maxval=None,
            dtype=tf.int32,
            alg="philox",
        )
        order = tf.argsort(keys, stable=True)

        def batch(step: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
            start = step * batch_size
            stop = start + batch_size
            if whole != num_data:  # The same share of each batch.
                start = start * num_data // whole
                stop = tf.minimum(stop, whole) * num_data // whole
            return gather(order[start:stop])

        return tf.data.Dataset.range(steps).map(batch)

    dataset = tf.data.Dataset.counter(start_epoch).flat_map(batches_of_epoch)
    dataset = dataset.apply(
        tf.data.experimental.assert_cardinality(
            tf.data.experimental.INFINITE_CARDINALITY
        )
    )
    return dataset.prefetch(2)
