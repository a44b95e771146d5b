# SPDX-License-Identifier: Apache-2.0
"""Validation of the data passed to models."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

MAX_WEIGHT = 1e12
"""Largest weight of a data point; optimizers square gradients in float32."""

_INTEGERS = (tf.int32, tf.int64, np.int32, np.int64)
_WEIGHTS = f"must be finite, not negative, and at most {MAX_WEIGHT:g}"


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


def as_weights(weights: Any) -> tf.Tensor:
    """Returns the weights of a batch as a tensor, validated inside the graph.

    Args:
      weights: Numbers `[B]` or `[B, 1]`.

    Returns:
      float32 `[B]`. Weights that are NaN, negative or above MAX_WEIGHT raise
      tf.errors.InvalidArgumentError when the tensor is computed.
    """
    weights = tf.reshape(tf.cast(weights, tf.float32), [-1])
    is_valid = tf.debugging.Assert(
        tf.reduce_all((weights >= 0.0) & (weights <= MAX_WEIGHT)),
        [f"sample_weight {_WEIGHTS}, got", weights],
    )
    with tf.control_dependencies([is_valid]):
        return tf.identity(weights)


def is_array(x: Any) -> bool:
    """Returns whether `x` is an array or eager tensor, and no dataset."""
    return hasattr(x, "__array__") and not tf.is_symbolic_tensor(x)


def check_weights(weights: Any, num_data: int) -> None:
    """Raises ValueError unless `weights` can weigh data points.

    Args:
      weights: Numbers `[N]` or `[N, 1]`, from 0 to MAX_WEIGHT.
      num_data: N.
    """
    found = np.asarray(weights)
    if found.shape not in ((num_data,), (num_data, 1)):
        raise ValueError(
            f"`sample_weight` must have shape ({num_data},), one weight for "
            f"each row of `x`, got {found.shape!r}"
        )
    # Compared as float32, like in the graph; NaN is not in between.
    with np.errstate(over="ignore"):
        values = found.astype(np.float32).reshape(-1)
    wrong = ~((values >= 0.0) & (values <= np.float32(MAX_WEIGHT)))
    if wrong.any():
        raise ValueError(
            f"`sample_weight` {_WEIGHTS}, got "
            f"{found.reshape(-1)[wrong][0]} in {int(wrong.sum())} rows, the "
            f"first {int(wrong.argmax())}"
        )


def check_count(minimum: int = 0, **counts: Any) -> Any:
    """Returns a number of draws or steps, if it is one.

    Args:
      minimum: Smallest number allowed.
      **counts: The number, by its argument's name: an integer, or an integer
        scalar tensor, whose value is not checked in a graph.

    Raises:
      ValueError: If it is no integer, or less than `minimum`.
    """
    ((name, count),) = counts.items()
    is_integer = isinstance(count, numbers.Integral)
    if isinstance(count, (tf.Tensor, tf.Variable, np.ndarray)):
        is_integer = count.dtype in _INTEGERS and count.shape == ()
    is_known = not tf.is_symbolic_tensor(count)
    if (
        isinstance(count, (bool, np.bool_))
        or not is_integer
        or (is_known and int(count) < minimum)
    ):
        raise ValueError(
            f"`{name}` must be an integer of at least {minimum}, got "
            f"{count.numpy() if tf.is_tensor(count) and is_known else count!r}"
        )
    return count


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


def check_precision(variables: Sequence[keras.Variable]) -> None:
    """Raises ValueError if weights to be trained have less than 32 bits.

    Their updates would be lost to rounding.

    Args:
      variables: The trainable weights.
    """
    short = [v for v in variables if v.dtype in ("float16", "bfloat16")]
    if short:
        raise ValueError(
            "trainable weights must be float32 or float64, got "
            f"{short[0].dtype} for `{short[0].path}`; the dtype policy "
            f"'mixed_{short[0].dtype}' computes in {short[0].dtype} and keeps "
            "float32 weights"
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
    with np.errstate(over="ignore"):  # Infinite values are refused below.
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
