# SPDX-License-Identifier: Apache-2.0
"""Matrix products with sparse binary vectors."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Adding one row costs as much as this many entries of a matrix product.
ENTRIES_PER_ROW = 32


def sum_rows(
    states: tf.Tensor,
    matrix: tf.Tensor,
    *,
    with_state_gradient: bool = False,
) -> tf.Tensor:
    """Returns `states @ matrix`, as sums of rows where states are sparse.

    The product of a binary state and the matrix is a sum of the rows where the
    state is 1; forward and backward it costs K times the mean number of ones
    instead of K H. Where more than one in `ENTRIES_PER_ROW` entries is a one,
    where none is, or where an entry is neither zero nor one, the dense matrix
    product is computed instead.

    Args:
      states: `[K, H]`, any real numbers.
      matrix: `[H, F]`.
      with_state_gradient: Whether the result is differentiable in `states`
        too; otherwise they are constants.

    Returns:
      `[K, F]`, differentiable in `matrix`.
    """
    constant = tf.stop_gradient(states)
    # The number of ones, if all others are zeros; counting what is not zero
    # would take three passes instead of one.
    num_ones = tf.square(
        tf.math.reduce_euclidean_norm(tf.cast(constant, tf.float32))
    )
    num_entries = tf.cast(tf.size(constant), tf.float32)
    are_few = ENTRIES_PER_ROW * num_ones <= num_entries

    # Without any ones TensorFlow's gradient of the sums is uninitialised
    # memory; that of the product is zero.
    are_sums, places = tf.cond(
        are_few & (num_ones > 0.0),
        lambda: _find_ones(constant),
        lambda: (tf.constant(False), tf.zeros([0, 2], tf.int64)),
    )

    def add_rows() -> tf.Tensor:
        return tf.sparse.segment_sum(
            matrix, places[:, 1], places[:, 0], num_segments=tf.shape(states)[0]
        )

    total = tf.cond(are_sums, add_rows, lambda: tf.matmul(constant, matrix))
    if with_state_gradient:
        total = _with_state_gradient(total, states, matrix)
    return total


def _find_ones(states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns whether all nonzero entries are ones, and where they are."""
    # On a CPU TensorFlow finds nonzeros of all types but half.
    nonzero = states != 0.0 if states.dtype == tf.float16 else states
    places = tf.where(nonzero)  # [number of nonzeros, 2], row by row
    values = tf.gather_nd(states, places)
    return tf.reduce_all(tf.equal(values, tf.ones([], values.dtype))), places


@tf.custom_gradient
def _with_state_gradient(
    total: tf.Tensor, states: tf.Tensor, matrix: tf.Tensor
) -> tuple[tf.Tensor, Callable[..., tuple]]:
    """Returns `total` with the gradient of `states @ matrix` in `states`.

    The gradient is computed only in graphs that use it.
    """

    def gradient(slope: tf.Tensor) -> tuple:
        return slope, tf.matmul(slope, matrix, transpose_b=True), None

    return tf.identity(total), gradient
