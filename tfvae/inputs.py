# SPDX-License-Identifier: Apache-2.0
"""Validation of the data passed to models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def as_batch(
    x: Any,
    num_observed: int,
    support: tuple[float, float] = (-math.inf, math.inf),
) -> tf.Tensor:
    """Returns a batch as a tensor, validated inside the graph.

    Args:
      x: Numbers `[B, D]`, NaN where missing.
      num_observed: D.
      support: Smallest and largest value that an entry may have.

    Returns:
      float32 `[B, D]`. Infinite values, values outside the support and rows
      without any observed value raise tf.errors.InvalidArgumentError when the
      tensor is computed, as do wrong shapes that are unknown before.

    Raises:
      TypeError: If `x` is not numeric.
      ValueError: If the shape is wrong.
    """
    x = tf.convert_to_tensor(x)
    if not (x.dtype.is_floating or x.dtype.is_integer):
        raise TypeError(f"`x` must be numbers, got {x.dtype.name}")
    x = tf.cast(x, tf.float32)
    shape = tf.TensorShape([None, num_observed])
    if not shape.is_compatible_with(x.shape):
        raise _shape_error(x.shape.as_list(), num_observed)
    x = tf.ensure_shape(x, shape)  # at run time, for unknown dimensions
    low, high = support
    checks = [
        tf.debugging.Assert(
            ~tf.reduce_any(tf.math.is_inf(x)), ["x has infinite values"]
        ),
        # NaN is neither below nor above.
        tf.debugging.Assert(
            ~tf.reduce_any((x < low) | (x > high)),
            [f"x must be in [{low:g}, {high:g}] for this likelihood"],
        ),
        tf.debugging.Assert(
            ~tf.reduce_any(tf.reduce_all(tf.math.is_nan(x), 1)),
            ["x has rows without any observed value"],
        ),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(x)


def check_compiled(config: dict[str, Any]) -> None:
    """Raises ValueError if `compile` was given a loss or metrics.

    Args:
      config: As returned by `keras.Model.get_compile_config`.
    """
    given = [
        name
        for name in ("loss", "loss_weights", "metrics", "weighted_metrics")
        if config.get(name) is not None
    ]
    if given:
        raise ValueError(
            f"`{given[0]}` must be left out of compile(): a model has its "
            f"own objective, got {config[given[0]]!r}"
        )


def check_data(x: Any, num_observed: int) -> np.ndarray:
    """Returns data as a fully validated array.

    Args:
      x: Numbers `[N, D]`, NaN where missing.
      num_observed: D.

    Returns:
      float32 `[N, D]`.

    Raises:
      TypeError: If `x` is not numeric.
      ValueError: If the shape is wrong, or there are infinite values or rows
        without any observed value.
    """
    x = np.asarray(x)
    if x.dtype.kind not in "fiu":
        raise TypeError(f"`x` must be numbers, got dtype {x.dtype}")
    x = x.astype(np.float32, copy=False)
    if x.ndim != 2 or x.shape[1] != num_observed:
        raise _shape_error(x.shape, num_observed)
    infinite = np.isinf(x).any(1)
    if infinite.any():
        raise ValueError(
            "`x` must be finite, or NaN where missing, got infinite values in "
            f"{int(infinite.sum())} rows, the first {int(infinite.argmax())}"
        )
    empty = np.isnan(x).all(1)
    if empty.any():
        raise ValueError(
            "`x` must have an observed value in every row, got none in "
            f"{int(empty.sum())} rows, the first {int(empty.argmax())}"
        )
    return x


def _shape_error(shape: Sequence[int | None], num_observed: int) -> ValueError:
    return ValueError(
        f"`x` must have shape [N, {num_observed}] to match the decoder, got "
        f"{tuple(shape)!r}"
    )
