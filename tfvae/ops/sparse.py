# SPDX-License-Identifier: Apache-2.0
"""Matrix products with binary vectors, most of whose entries are zero."""

from __future__ import annotations

import tensorflow as tf

# A row that is added costs as much as so many entries of a matrix product.
ENTRIES_PER_ROW = 32


def sum_rows(states: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Returns the product of states and a matrix, as sums of its rows.

    A state with few ones is the sum of few rows, whatever H is; its cost, and
    that of the gradient, is K times the mean number of ones, not K H. Where
    more than one in `ENTRIES_PER_ROW` entries is a one, and where none is, it
    is the matrix product.

    Args:
      states: `[K, H]` of zeros and ones.
      matrix: `[H, F]`.

    Returns:
      `[K, F]`, differentiable in `matrix`.
    """
    num_ones = tf.reduce_sum(tf.cast(states, tf.float32))
    num_entries = tf.cast(tf.size(states), tf.float32)
    are_few = ENTRIES_PER_ROW * num_ones <= num_entries

    def add_rows() -> tf.Tensor:
        places = tf.where(states)  # [number of ones, 2], row by row
        return tf.sparse.segment_sum(
            matrix, places[:, 1], places[:, 0], num_segments=tf.shape(states)[0]
        )

    # Without any ones TensorFlow's gradient of the sums would be whatever is in
    # memory; the product's is zero.
    return tf.cond(
        are_few & (num_ones > 0.0),
        add_rows,
        lambda: tf.matmul(states, matrix),
    )
