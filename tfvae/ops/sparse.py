# SPDX-License-Identifier: Apache-2.0
"""Matrix products with binary vectors, most of whose entries are zero."""

from __future__ import annotations

import tensorflow as tf


def sum_rows(states: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Returns the product of states and a matrix, as sums of its rows.

    A state with few ones is the sum of few rows, whatever H is; its cost, and
    that of the gradient, is K times the mean number of ones, not K H.

    Args:
      states: `[K, H]` of zeros and ones; what is not zero counts as one.
      matrix: `[H, F]`.

    Returns:
      `[K, F]`, differentiable in `matrix`.
    """
    places = tf.where(states)  # [number of ones, 2], row by row
    # Without any ones TensorFlow's gradient of the sums would be whatever is in
    # memory; the product's is zero.
    return tf.cond(
        tf.size(places) > 0,
        lambda: tf.sparse.segment_sum(
            matrix, places[:, 1], places[:, 0], num_segments=tf.shape(states)[0]
        ),
        lambda: tf.matmul(states, matrix),
    )
