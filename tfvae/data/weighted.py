# SPDX-License-Identifier: Apache-2.0
"""Datasets of batches with weighted data points.

Weights act as sampling probabilities (`WeightedBatches`) or as factors of the
loss (`loss_weighted_batches`). The expected gradient is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfvae.arguments import check_counts
from tfvae.data.batches import gathered, point_table, shuffled_batches
from tfvae.data.source import check_weights
from tfvae.ops import random

# Small operations are dominated by call overhead, so many batches are drawn in
# one call; fewer of large data points, to bound memory.
_CHUNK_BATCHES = 64
_CHUNK_BYTES = 2**22
_PHILOX = 1
MAX_DATA = 2**31 - 1  # Indices are int32.


class WeightedBatches:
    """Samples data points with replacement, in proportion to their weights.

    The cost of a draw does not depend on N. The batch of a step depends only
    on the data, the weights, the seed and the step, so that a stopped run can
    be resumed exactly.

    Weights and data points are variables: when `replace` changes them, or
    `start_step` is set, existing datasets stay valid, and nothing is retraced.
    Changes take effect for iterators created afterwards, and Keras's `fit`
    creates one at each call; an older iterator may hold some batches drawn
    before.

        batches = WeightedBatches(points, weights, batch_size=32)
        dataset = batches.dataset()
        model.fit(dataset, epochs=10)
        for weights in rounds:
            batches.replace(weights)
            model.fit(dataset)

    Attributes:
      batch_size: Data points in each batch, B.
      seed: Seed of the draws.
      with_index: Whether batches contain the row indices of their points.
    """

    def __init__(
        self,
        points: np.ndarray,
        weights: np.ndarray,
        batch_size: int,
        seed: int = 0,
        with_index: bool = False,
        targets: np.ndarray | None = None,
    ) -> None:
        """Builds the alias table to draw from.

        Args:
          points: `[N, D]` float32, NaN where an entry is missing, or uint8,
            which stays so until a batch is made.
          weights: `[N]`, not negative, not necessarily normalised.
          batch_size: Data points in each batch, B.
          seed: Seed of the draws; at most 64 bits.
          with_index: Whether to yield the row indices, too.
          targets: `[N, ...]`, the targets of the points, of any type, to yield
            in the place of the indices; None for none.

        Raises:
          ValueError: If an argument is out of range.
        """
        check_counts(batch_size=batch_size)
        if not len(points):
            raise ValueError("`points` must have at least one row, got none")
        self.batch_size = batch_size
        self.seed = seed
        self.with_index = with_index
        _check_targets(targets, len(points), with_index)
        table = _checked_table(weights, len(points))
        # Plain variables, as a distribution strategy would make copies.
        with tf.init_scope(), tf.device("CPU:0"):
            self._points = _variable(point_table(points))
            self._table = _variable(packed_table(table))
            self._targets = None if targets is None else _variable(targets)
            self._start_step = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._num_settings = tf.Variable(0, dtype=tf.int64, trainable=False)

    @property
    def num_data(self) -> int:
        """Number of data points, N."""
        return int(tf.shape(self._table)[0])

    @property
    def dtype(self) -> tf.DType:
        """The dtype in which points are kept, float32 or uint8."""
        return self._points.dtype

    @property
    def start_step(self) -> int:
        """The step whose batch comes first; see `dataset`."""
        return int(self._start_step.numpy())

    @start_step.setter
    def start_step(self, step: int) -> None:
        self._start_step.assign(_checked_step(step))
        self._num_settings.assign_add(1)

    def replace(
        self,
        weights: np.ndarray,
        points: np.ndarray | None = None,
        targets: np.ndarray | None = None,
    ) -> None:
        """Replaces all weights, and optionally the data points, in O(N).

        Args:
          weights: `[N]`, not negative, not necessarily normalised.
          points: `[N, D]`, new data points, where N may have changed, of the
            dtype as before; None to keep the present ones.
          targets: `[N, ...]`, given with new points where there were some.

        Raises:
          ValueError: If an argument is out of range; nothing is changed then.
        """
        is_given = points is not None and self._targets is not None
        if (targets is not None) != is_given:
            raise ValueError(
                "`targets` must be given with new points where there were some "
                f"before, and else be None, got {targets!r}"
            )
        if points is None:
            table = packed_table(_checked_table(weights, self.num_data))
            self._table.assign(table)
            return
        values = point_table(points)
        if values.dtype != self.dtype:
            raise ValueError(
                f"`points` must be kept as {self.dtype.name} as before, got "
                f"{values.dtype.name}"
            )
        num_observed = self._points.shape[1]
        if values.shape[1] != num_observed:
            raise ValueError(
                f"`points` must have {num_observed} columns as before, got "
                f"shape {points.shape!r}"
            )
        _check_targets(targets, len(points), self.with_index)
        table = packed_table(_checked_table(weights, len(points)))
        # In an order in which no missing row can be drawn in between.
        if is_smaller := len(points) < self.num_data:
            self._table.assign(table)
        self._points.assign(values)
        if self._targets is not None:
            self._targets.assign(targets)
        if not is_smaller:
            self._table.assign(table)

    def dataset(
        self,
        start_step: int | None = None,
        shard: tuple[int, int] = (0, 1),
        *,
        infinite: bool = False,
    ) -> tf.data.Dataset:
        """Returns the dataset of batches.

        It has the length of an epoch, ceil(N / B) batches for the present N.
        Each iterator, so each epoch of Keras's `fit`, begins at the step where
        the one before would have ended.

        Args:
          start_step: The step of the first batch; None for the value of the
            property `start_step`, also when that is set later.
          shard: Index of an input pipeline, from 0, and their number. Each
            draws independently from all data points.
          infinite: Whether the dataset has no end, and all of its iterators
            begin at the same step; for `fit` with `steps_per_epoch`.

        Returns:
          A dataset of `[B, D]` float32, with `with_index` of
          `(points [B, D] float32, index [B] int32)`, and with targets of
          `(points [B, D] float32, targets [B, ...])`.

        Raises:
          ValueError: If an argument is out of range.
        """
        number, count = shard
        if not 0 <= number < count:
            raise ValueError(
                "`shard` must be (index, count) with 0 <= index < count, got "
                f"{shard!r}"
            )
        start: tf.Variable | tf.Tensor = self._start_step
        setting: tf.Variable | tf.Tensor = self._num_settings
        if start_step is not None:
            start = tf.constant(_checked_step(start_step), tf.int64)
            setting = tf.constant(0, tf.int64)
        num_observed = self._points.shape[1]
        batch_bytes = self.batch_size * num_observed * 4
        num_batches = min(max(_CHUNK_BYTES // batch_bytes, 1), _CHUNK_BATCHES)
        length = math.ceil(self.num_data / self.batch_size)
        if not infinite:
            num_batches = min(num_batches, length)

        def chunk(step: tf.Tensor) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
            index = self.draw(step, num_batches, number)
            # Gathering by a vector of indices is faster than by a matrix.
            points = gathered(self._points, tf.reshape(index, [-1]))
            points = tf.reshape(points, [*index.shape, num_observed])
            if self._targets is not None:
                return points, tf.gather(self._targets, index)
            return (points, index) if self.with_index else points

        with tf.init_scope(), tf.device("CPU:0"):
            # The step that follows the last iterator, and the number of times
            # that `start_step` had been set when that was created.
            following = tf.Variable([0, -1], dtype=tf.int64, trainable=False)

        def chunks(_: tf.Tensor) -> tf.data.Dataset:
            # Reads the variable when an iterator is created, not here.
            first = tf.identity(start)
            if not infinite:
                step, last = tf.unstack(following)
                first = tf.where(tf.equal(last, setting), step, first)
                following.assign([first + length, setting])
            return tf.data.Dataset.range(first, tf.int64.max, num_batches)

        dataset = tf.data.Dataset.range(1).flat_map(chunks).map(chunk)
        dataset = dataset.prefetch(2).unbatch()
        dataset = dataset.apply(
            tf.data.experimental.assert_cardinality(
                tf.data.experimental.INFINITE_CARDINALITY
            )
        )
        return dataset if infinite else dataset.take(length)

    def indices(self, step: int, shard_number: int = 0) -> np.ndarray:
        """Returns the row indices `[B]` int32 that are drawn at a step.

        Args:
          step: The step, from 0.
          shard_number: Index of the input pipeline; see `dataset`.

        Raises:
          ValueError: If the step is negative.
        """
        first = tf.constant(_checked_step(step), tf.int64)
        return self.draw(first, 1, shard_number)[0].numpy()

    def state(self) -> dict[str, int]:
        """Returns what resuming needs beside data and weights, as JSON."""
        return {"seed": self.seed, "start_step": self.start_step}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues at the step of a saved state.

        Args:
          state: As returned by the method `state`.

        Raises:
          ValueError: If it was saved with another seed.
        """
        if state["seed"] != self.seed:
            raise ValueError(
                f"`state` must have the seed {self.seed}, got {state!r}"
            )
        self.start_step = state["start_step"]

    def draw(
        self, step: tf.Tensor, num_batches: int, shard_number: int = 0
    ) -> tf.Tensor:
        """Draws the row indices of consecutive steps.

        Args:
          step: int64, the first step.
          num_batches: Number of steps.
          shard_number: Index of the input pipeline; see `dataset`.

        Returns:
          int32 `[num_batches, B]`.
        """
        numbers = uniforms(
            random.make_seed(self.seed, shard_number),
            step,
            num_batches,
            self.batch_size,
        )
        num_data = tf.shape(self._table, out_type=tf.int64)[0]
        places = tf.reshape(numbers, [-1]) * tf.cast(num_data, tf.float64)
        column = tf.cast(places, tf.int32)
        height = tf.cast(places - tf.cast(column, tf.float64), tf.float32)
        accept, alias = tf.unstack(tf.gather(self._table, column), axis=1)
        accept = tf.bitcast(accept, tf.float32)
        index = tf.where(height < accept, column, alias)
        return tf.reshape(index, [num_batches, self.batch_size])


class AliasTable(NamedTuple):
    """Table for sampling from N weights in O(1); see `alias_table`."""

    accept: np.ndarray
    """`[N]` float32, the probability that a column returns its own index."""
    alias: np.ndarray
    """`[N]` int32, the alias: the index that a column returns otherwise."""


def alias_table(weights: np.ndarray) -> AliasTable:
    """Builds the alias table of a categorical distribution.

    With weights scaled to a mean of 1, those below 1 leave room in their
    columns, which the excess of larger ones fills. Room and excess are matched
    by their cumulative sums, in the order of the indices: Vose's algorithm
    without its loop; see Huebschle-Schneider and Sanders, 2019, "Parallel
    weighted random sampling".

    Args:
      weights: `[N]` float64, validated.
    """
    # Divide by the largest first, so that the sum does not overflow.
    scaled = weights / weights.max()
    scaled *= len(scaled) / scaled.sum()
    is_large = scaled >= 1.0
    is_large[np.argmax(scaled)] = True  # Though rounding may find it below 1.
    small, large = np.flatnonzero(~is_large), np.flatnonzero(is_large)
    room = np.cumsum(1.0 - scaled[small])
    excess = np.cumsum(np.maximum(scaled[large] - 1.0, 0.0))
    accept = scaled.astype(np.float32)
    alias = np.arange(len(scaled), dtype=np.int32)
    # The first large weight whose excess is left where the room begins.
    begins = np.concatenate([[0.0], room[:-1]])[: len(small)]
    filler = np.searchsorted(excess, begins, side="right")
    alias[small] = large[np.minimum(filler, len(large) - 1)]
    # A large weight may give more than its excess to the last room it fills;
    # the deficit is room in its own column, which the next one fills.
    last = np.searchsorted(begins, excess[:-1], side="left") - 1
    ends = np.append(room, 0.0)[last]  # Position -1 if it filled none.
    given = ends - excess[:-1]
    accept[large[:-1]] = np.clip(1.0 - given, 0.0, 1.0)
    alias[large[:-1]] = large[1:]
    accept[large[-1]] = 1.0
    return AliasTable(accept, alias)


def packed_table(table: AliasTable) -> np.ndarray:
    """Returns both parts interleaved, int32 `[N, 2]`.

    Where the table exceeds the processor's cache, this halves the time.
    """
    return np.stack([table.accept.view(np.int32), table.alias], axis=1)


def loss_weighted_batches(
    points: np.ndarray,
    weights: np.ndarray,
    batch_size: int,
    seed: int = 0,
    start_epoch: int = 0,
    with_index: bool = False,
    targets: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Infinite dataset of batches of data points with loss weights.

    The order is that of `indexed_batches`: each epoch visits every data point
    once.

    Args:
      points: `[N, D]` float32; NaN marks a missing entry.
      weights: `[N]`, not negative; they are scaled to a mean of 1.
      batch_size: Points per batch, B; the last batch of an epoch holds the
        remainder. An epoch has ceil(N / B) batches.
      seed: Seed of the order.
      start_epoch: Epoch to begin with.
      with_index: Whether to yield the row indices, too.
      targets: `[N, ...]`, targets of any type to yield in their place; None for
        none.

    Returns:
      An infinite dataset of `(points [b, D] float32, index [b] int32 or targets
      [b, ...] or None, weight [b] float32)`, which Keras takes for data,
      targets and `sample_weight`.

    Raises:
      ValueError: If an argument is out of range.
    """
    table = point_table(points)
    _check_targets(targets, len(points), with_index)
    of_rows = None if targets is None else tf.convert_to_tensor(targets)
    checked = check_weights(weights, len(points))
    scaled = checked / checked.max()
    scales = tf.constant(scaled / scaled.mean(), tf.float32)

    def gather(
        index: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor | None, tf.Tensor]:
        kept = index if with_index else None
        if of_rows is not None:
            kept = tf.gather(of_rows, index)
        return gathered(table, index), kept, tf.gather(scales, index)

    return shuffled_batches(len(points), batch_size, seed, start_epoch, gather)


def _check_targets(
    targets: np.ndarray | None, num_data: int, with_index: bool
) -> None:
    if targets is None:
        return
    if with_index or len(targets) != num_data:
        raise ValueError(
            f"`targets` must have the {num_data} rows of `points`, and no "
            f"`with_index` beside them, got {len(targets)} rows and "
            f"{with_index!r}"
        )


def _checked_table(weights: np.ndarray, num_data: int) -> AliasTable:
    if num_data > MAX_DATA:
        raise ValueError(
            f"`points` must have at most {MAX_DATA} rows, got {num_data}"
        )
    return alias_table(check_weights(weights, num_data))


def _checked_step(step: int) -> int:
    if step < 0:
        raise ValueError(f"`start_step` must be at least 0, got {step!r}")
    return step


def _variable(values: np.ndarray | tf.Tensor) -> tf.Variable:
    """Returns a variable whose number of rows may change."""
    return tf.Variable(values, trainable=False, shape=[None, *values.shape[1:]])


def uniforms(
    seed: tf.Tensor, step: tf.Tensor, num_batches: int, batch_size: int
) -> tf.Tensor:
    """Draws uniforms on [0, 1), float64 `[num_batches, batch_size]`.

    They come from one Philox stream in which each step has a fixed position, so
    the draws of a step do not depend on how many are drawn together.
    """
    # One count of the generator makes two numbers.
    counts = (batch_size + 1) // 2
    first = tf.cast(step * counts, tf.uint64)
    numbers = tf.raw_ops.StatelessRandomUniformV2(
        shape=[num_batches, 2 * counts],
        key=tf.reshape(tf.bitcast(seed, tf.uint64), [1]),
        counter=tf.stack([first, tf.zeros_like(first)]),
        alg=_PHILOX,
        dtype=tf.float64,
    )
    return numbers[:, :batch_size]
