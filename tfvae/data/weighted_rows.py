# SPDX-License-Identifier: Apache-2.0
"""Batches of weighted data points that are read from files.

Draws are with replacement and in proportion to the weights, as those of
`WeightedBatches`, in two levels: a group of consecutive rows, such as a shard,
by the sum of its weights, then a row of it by its own. An alias table serves
each level, so that a draw does not depend on N, and the tables are built one
group at a time: they take 8 bytes a row, their construction nothing to speak
of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfvae.arguments import check_counts
from tfvae.data.source import check_weights
from tfvae.data.weighted import MAX_DATA, alias_table, packed_table, uniforms
from tfvae.ops import random
from tfvae.ops.rows import LazyRows

# Rows of a group where the data have no shards.
_GROUP_ROWS = 2**20
# Bytes of the data points that are drawn, and read in ascending order, at once.
_CHUNK_BYTES = 2**24


class TwoLevelTable:
    """Samples rows in proportion to weights: a group, then a row of it."""

    def __init__(
        self, weights: np.ndarray, rows_of_groups: Sequence[int]
    ) -> None:
        """Builds the tables.

        Args:
          weights: `[N]` numbers, validated by `check_weights`.
          rows_of_groups: Positive numbers of rows, of sum N.
        """
        self.sizes = np.asarray(rows_of_groups, np.int64)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.rows = np.empty((len(weights), 2), np.int32)
        sums = np.zeros(len(self.sizes))
        largest = weights.max()
        for group, start in enumerate(self.starts):
            part = slice(start, start + self.sizes[group])
            own = np.asarray(weights[part], np.float64) / largest
            sums[group] = own.sum()
            if sums[group] > 0.0:  # Of others, no row is drawn.
                self.rows[part] = packed_table(alias_table(own))
        self.groups = packed_table(alias_table(sums))

    def draw(self, numbers: np.ndarray) -> np.ndarray:
        """Returns rows, int64 `[n]`.

        Args:
          numbers: float64 `[n, 2]`, independent and uniform on [0, 1).
        """
        size = len(self.sizes)
        group = _accepted(self.groups, numbers[:, 0], size, 0)
        return _accepted(
            self.rows, numbers[:, 1], self.sizes[group], self.starts[group]
        )


def _accepted(
    table: np.ndarray,
    numbers: np.ndarray,
    size: np.ndarray | int,
    start: np.ndarray | int,
) -> np.ndarray:
    """Returns what alias tables return for numbers on [0, 1), int64 `[n]`.

    Args:
      table: The tables, one after the other, int32 `[N, 2]`.
      numbers: float64 `[n]`.
      size: Rows of the table of each number.
      start: Where it begins.
    """
    places = numbers * size
    column = np.minimum(places.astype(np.int64), np.asarray(size) - 1)
    accept, alias = table[start + column].T
    is_own = places - column < np.ascontiguousarray(accept).view(np.float32)
    return start + np.where(is_own, column, alias)


class WeightedRows:
    """As `WeightedBatches`, of data points that are read when they are drawn.

    The batch of a step depends only on the weights, the number of rows of each
    shard, the seed and the step. Many batches are drawn at once, so that their
    rows are read in ascending order.

    Attributes:
      batch_size: Data points in each batch, B.
      seed: Seed of the draws.
      with_index: Whether batches contain the row indices of their points.
      table: The table to draw from.
    """

    def __init__(
        self,
        points: LazyRows,
        weights: np.ndarray,
        batch_size: int,
        seed: int = 0,
        with_index: bool = False,
    ) -> None:
        """Builds the tables.

        Args:
          points: `[N, D]`.
          weights: `[N]`, not negative, not necessarily normalised.
          batch_size: Data points in each batch, B.
          seed: Seed of the draws; at most 64 bits.
          with_index: Whether to yield the row indices, too.

        Raises:
          ValueError: If an argument is out of range.
        """
        if len(points) > MAX_DATA:
            raise ValueError(
                f"`points` must have at most {MAX_DATA} rows, got {len(points)}"
            )
        check_counts(batch_size=batch_size)
        self.batch_size = batch_size
        self.seed = seed
        self.with_index = with_index
        self._points = points
        self._groups = getattr(points, "rows_of_shards", None) or [
            min(_GROUP_ROWS, len(points) - start)
            for start in range(0, len(points), _GROUP_ROWS)
        ]
        self.replace(weights)

    def replace(self, weights: np.ndarray) -> None:
        """Replaces all weights, `[N]`, in O(N).

        It takes effect for batches that are not drawn yet; a dataset may hold
        some that are.

        Raises:
          ValueError: If weights are out of range; nothing is changed then.
        """
        weights = check_weights(weights, len(self._points))
        self.table = TwoLevelTable(weights, self._groups)

    def dataset(self, start_step: int = 0) -> tf.data.Dataset:
        """Returns the endless dataset of batches.

        Args:
          start_step: The step of the first batch.

        Returns:
          A dataset of `[B, D]` float32, or with `with_index` of
          `(points [B, D] float32, index [B] int32)`.
        """
        num_columns = self._points.shape[1]
        batch_bytes = 4 * num_columns * self.batch_size
        count = max(1, _CHUNK_BYTES // batch_bytes)
        shape = [count, self.batch_size]

        def read(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            index = self.table.draw(numbers.reshape(-1, 2))
            points = self._points.take(index)
            return points.reshape(*shape, -1), index.reshape(shape)

        def chunk(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
            points, index = tf.numpy_function(
                read, [self._uniforms(step, count)], (tf.float32, tf.int64)
            )
            points = tf.ensure_shape(points, [*shape, num_columns])
            index = tf.cast(tf.ensure_shape(index, shape), tf.int32)
            return (points, index) if self.with_index else points

        steps = tf.data.Dataset.range(start_step, 2**62, count)
        dataset = steps.map(chunk).prefetch(1).unbatch()
        return dataset.apply(
            tf.data.experimental.assert_cardinality(
                tf.data.experimental.INFINITE_CARDINALITY
            )
        )

    def indices(self, step: int) -> np.ndarray:
        """Returns the row indices `[B]` that are drawn at a step, from 0."""
        numbers = self._uniforms(tf.constant(step, tf.int64), 1).numpy()
        return self.table.draw(numbers.reshape(-1, 2)).astype(np.int32)

    def _uniforms(self, step: tf.Tensor, count: int) -> tf.Tensor:
        """Returns two numbers for each point of consecutive batches."""
        seed = random.make_seed(self.seed)
        return uniforms(seed, step, count, 2 * self.batch_size)
