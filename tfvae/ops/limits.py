# SPDX-License-Identifier: Apache-2.0
"""Functions that keep extreme values finite and leave usual ones unchanged."""

from __future__ import annotations

import tensorflow as tf


def compress(values: tf.Tensor, limit: float) -> tf.Tensor:
    """Returns values that grow logarithmically beyond a limit.

    The function is odd, increasing, and has a continuous derivative, which is
    1 within the limit and 1 / (1 + |v| - limit) beyond it.

    Args:
      values: float32 `[...]`.
      limit: Largest absolute value that is not changed; positive.

    Returns:
      `[...]`: of 3e38, the largest float32, `limit` + 89.
    """
    # Infinity, as of a difference of finite values, counts as the largest.
    values = tf.clip_by_value(values, values.dtype.min, values.dtype.max)
    excess = tf.nn.relu(tf.abs(values) - limit)
    # Not log1p, which ONNX and its converter have not.
    beyond = tf.sign(values) * tf.math.log(1.0 + excess)
    return tf.clip_by_value(values, -limit, limit) + beyond
