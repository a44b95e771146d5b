# SPDX-License-Identifier: Apache-2.0
"""Orders that visit the rows of a table in blocks, for data beyond memory.

A block is a number of consecutive rows. In each epoch, the blocks come in a
random order; what several of them have together, a window, is read at once and
its rows are shuffled. So each row is visited once an epoch and files are read
in long pieces, while the memory is that of a few windows, whatever N.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import tensorflow as tf

from tfvae.ops.rows import LazyRows

# Bytes of the data points of a window, as float32. Three windows exist at a
# time: one that is trained on, one that is ready, one that is being read.
_WINDOW_BYTES, _WINDOWS = 2**25, 3
_MAX_ROWS = 2**31 - 1  # Row numbers are int32.
# The random streams of an epoch.
_BLOCKS, _WITHIN = range(2)


@dataclasses.dataclass(frozen=True)
class BlockOrder:
    """The order of an epoch: blocks at random, one after the other.

    Attributes:
      num_rows: N.
      block_rows: Rows of a block; the last one has the remainder.
      seed: Non-negative integers that choose the order.
    """

    num_rows: int
    block_rows: int
    seed: tuple[int, ...]

    def __post_init__(self) -> None:
        """Draws the order of the blocks."""
        blocks = np.random.default_rng((*self.seed, _BLOCKS)).permutation(
            math.ceil(self.num_rows / self.block_rows)
        )
        starts = blocks * self.block_rows
        sizes = np.minimum(self.block_rows, self.num_rows - starts)
        object.__setattr__(self, "_starts", starts)
        object.__setattr__(self, "_ends", np.cumsum(sizes))

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Returns the rows of consecutive places of the order, ascending.

        Args:
          start: The first place.
          stop: The place after the last.

        Returns:
          int64 `[stop - start]`.
        """
        places = np.arange(start, stop)
        ends: np.ndarray = self._ends  # type: ignore[attr-defined]
        starts: np.ndarray = self._starts  # type: ignore[attr-defined]
        block = np.searchsorted(ends, places, side="right")
        before = np.concatenate([[0], ends])[block]
        return np.sort(starts[block] + places - before)

    def shuffled(self, number: int, count: int) -> np.ndarray:
        """Returns the order of the `count` rows of a window, int64.

        Args:
          number: The number of the window.
          count: Its rows.
        """
        seed = (*self.seed, _WITHIN, number)
        return np.random.default_rng(seed).permutation(count)


def window_memory(num_columns: int, batch_size: int) -> int:
    """Returns the bytes of the data points that `block_batches` holds.

    Args:
      num_columns: D.
      batch_size: B.
    """
    return _WINDOWS * max(_WINDOW_BYTES, 4 * num_columns * batch_size)


def block_batches(
    points: np.ndarray | LazyRows,
    block_rows: int,
    batch_size: int,
    seed: int = 0,
    start_epoch: int = 0,
    num_data_of_all: int | None = None,
    window_bytes: int = _WINDOW_BYTES,
) -> tf.data.Dataset:
    """Endless batches of rows that are visited in blocks.

    Each epoch visits every row once, in an order that depends on
    `(seed, epoch)` alone. The arguments not listed are those of
    `indexed_batches`.

    Args:
      points: `[N, D]` numbers, NaN where missing.
      block_rows: Rows of a block.
      batch_size: B.
      seed: Seed of the order.
      start_epoch: Epoch to begin with.
      num_data_of_all: Data points of all ranks.
      window_bytes: Bytes of the data points of a window, at most, unless a
        batch has more.

    Returns:
      An infinite dataset of `(points [b, D] float32, index [b] int32)`.

    Raises:
      ValueError: If an argument is out of range.
    """
    if batch_size < 1 or start_epoch < 0 or block_rows < 1:
        raise ValueError(
            "`batch_size` and `block_rows` must be at least 1 and "
            f"`start_epoch` at least 0, got {batch_size!r}, {block_rows!r} "
            f"and {start_epoch!r}"
        )
    num_rows, num_columns = points.shape
    if num_rows > _MAX_ROWS:
        raise ValueError(
            f"`points` must have at most {_MAX_ROWS:,} rows, got {num_rows:,}; "
            "train on several processes, each of which has a part of them"
        )
    whole = num_data_of_all or num_rows
    steps = math.ceil(whole / batch_size)
    # Ends of the batches, as places of the order: the same share of each.
    ends = np.minimum(np.arange(steps + 1) * batch_size, whole)
    ends = ends * num_rows // whole
    batch_bytes = 4 * num_columns * max(1, batch_size * num_rows // whole)
    at_once = min(max(1, window_bytes // batch_bytes), steps)
    latest: list[BlockOrder] = []

    def order_of(epoch: int) -> BlockOrder:
        key = (seed % 2**64, epoch)
        for order in latest[:1]:
            if order.seed == key:
                return order
        order = BlockOrder(num_rows, block_rows, key)
        latest[:] = [order]
        return order

    def read(epoch: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, ...]:
        order = order_of(int(epoch))
        first = int(window) * at_once
        bounds = ends[first : first + at_once + 1]
        rows = order.rows(bounds[0], bounds[-1])
        return (
            np.asarray(points[rows], np.float32),
            rows.astype(np.int32),
            order.shuffled(int(window), len(rows)).astype(np.int32),
            (bounds - bounds[0]).astype(np.int32),
        )

    def read_in_graph(epoch: tf.Tensor, window: tf.Tensor) -> tuple:
        types = (tf.float32, tf.int32, tf.int32, tf.int32)
        found = tf.numpy_function(read, [epoch, window], types)
        shapes = [None, num_columns], [None], [None], [None]
        return tuple(map(tf.ensure_shape, found, shapes))

    def batches_of(
        values: tf.Tensor, rows: tf.Tensor, order: tf.Tensor, bounds: tf.Tensor
    ) -> tf.data.Dataset:
        def batch(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            places = order[bounds[number] : bounds[number + 1]]
            return tf.gather(values, places), tf.gather(rows, places)

        count = tf.size(bounds, tf.int64) - 1
        return tf.data.Dataset.range(count).map(batch)

    def windows_of(epoch: tf.Tensor) -> tf.data.Dataset:
        windows = tf.data.Dataset.range(math.ceil(steps / at_once))
        return windows.map(lambda window: (epoch, window))

    dataset = tf.data.Dataset.counter(start_epoch).flat_map(windows_of)
    dataset = dataset.map(read_in_graph).prefetch(1).flat_map(batches_of)
    dataset = dataset.apply(
        tf.data.experimental.assert_cardinality(
            tf.data.experimental.INFINITE_CARDINALITY
        )
    )
    return dataset.prefetch(2)
