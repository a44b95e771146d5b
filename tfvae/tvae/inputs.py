# SPDX-License-Identifier: Apache-2.0
"""Checks of what a user hands to a TVAE."""

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
    """Returns a batch as a tensor, checked as far as a graph can.

    Args:
      x: Numbers `[B, D]`, NaN where missing.
      num_observed: D.
      support: The least and the largest value that an entry may have.

    Returns:
      float32 `[B, D]`. Infinite values, values outside the support and rows
      without any observed value raise tf.errors.InvalidArgumentError when the
      tensor is computed, and so do wrong shapes that only then are known.

    Raises:
      TypeError: If `x` are no numbers.
      ValueError: If the shape is wrong.
    """
    x = tf.convert_to_tensor(x)
    if not (x.dtype.is_floating or x.dtype.is_integer):
        raise TypeError(f"`x` must be numbers, got {x.dtype.name}")
    x = tf.cast(x, tf.float32)
    shape = tf.TensorShape([None, num_observed])
    if not shape.is_compatible_with(x.shape):
        raise _shape_error(x.shape.as_list(), num_observed)
    x = tf.ensure_shape(x, shape)  # when run, what is not known before
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
    """Raises ValueError if a model was compiled with what it does not use.

    Args:
      config: Of `keras.Model.get_compile_config`.
    """
    given = [
        name
        for name in ("loss", "loss_weights", "metrics", "weighted_metrics")
        if config.get(name) is not None
    ]
    if given:
        raise ValueError(
            f"`{given[0]}` must be left out of compile(): TVAE maximises its "
            f"own bound, got {config[given[0]]!r}"
        )


def check_data(x: Any, num_observed: int) -> np.ndarray:
    """Returns data as an array, fully checked.

    Args:
      x: Numbers `[N, D]`, NaN where missing.
      num_observed: D.

    Returns:
      float32 `[N, D]`.

    Raises:
      TypeError: If `x` are no numbers.
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


def as_index(index: Any, num_data: int) -> tf.Tensor:
    """Returns data indices as a tensor, checked as far as a graph can.

    Args:
      index: Integers `[B]` or `[B, 1]`.
      num_data: N.

    Returns:
      int32 `[B]`. Indices outside 0 .. N - 1 raise
      tf.errors.InvalidArgumentError when the tensor is computed.

    Raises:
      TypeError: If `index` are no integers.
    """
    index = tf.convert_to_tensor(index)
    if not index.dtype.is_integer:
        raise TypeError(f"`index` must be integers, got {index.dtype.name}")
    index = tf.reshape(tf.cast(index, tf.int32), [-1])
    in_range = tf.debugging.Assert(
        tf.reduce_all((index >= 0) & (index < num_data)),
        [f"index must be in [0, num_data = {num_data}), got", index],
    )
    with tf.control_dependencies([in_range]):
        return tf.identity(index)


def as_states(states: Any, num_latents: int) -> tf.Tensor:
    """Returns states as a tensor, checked as far as a graph can.

    Args:
      states: Zeros and ones `[..., H]`.
      num_latents: H.

    Returns:
      float32 `[..., H]`.

    Raises:
      ValueError: If the shape is wrong or, outside of graphs, other values
        are among them.
    """
    states = tf.convert_to_tensor(states, tf.float32)
    if states.shape[-1] != num_latents:
        raise ValueError(
            f"`states` must have shape [..., {num_latents}], got "
            f"{tuple(states.shape)!r}"
        )
    is_binary = tf.equal(states * (1.0 - states), 0.0)
    if tf.executing_eagerly() and not tf.reduce_all(is_binary):
        raise ValueError(
            "`states` must be zeros and ones, got values from "
            f"{tf.reduce_min(states):g} to {tf.reduce_max(states):g}"
        )
    return states


def _shape_error(shape: Sequence[int | None], num_observed: int) -> ValueError:
    return ValueError(
        f"`x` must have shape [N, {num_observed}], as the decoder has "
        f"outputs, got {tuple(shape)!r}"
    )


def check_sizes(
    num_latents: int,
    num_data: int,
    num_states: int,
    num_m_states: int | None,
    max_dropped_mass: float | None,
    m_batch_size: int | None,
) -> None:
    """Raises ValueError that names every size that does not fit."""
    problems = []
    if num_latents < 1:
        problems.append(
            f"`num_latents` must be at least 1, got {num_latents!r}"
        )
    if num_data < 0:
        problems.append(f"`num_data` must not be negative, got {num_data!r}")
    most = 2 ** max(num_latents, 1)
    if not 1 <= num_states <= most:
        problems.append(
            "`num_states` must be from 1 to 2**num_latents = "
            f"{most}, got {num_states!r}"
        )
    if num_m_states is not None and not 1 <= num_m_states <= num_states:
        problems.append(
            "`num_m_states` must be from 1 to `num_states` = "
            f"{num_states}, got {num_m_states!r}"
        )
    if num_states == most:
        for name, value, neutral in (
            ("num_m_states", num_m_states, num_states),
            ("max_dropped_mass", max_dropped_mass, 0.0),
        ):
            if value not in (None, neutral):
                problems.append(
                    f"`{name}` must be None where the states are all "
                    f"2**num_latents = {num_states}, got {value!r}"
                )
    if max_dropped_mass is not None and not 0.0 <= max_dropped_mass < 1.0:
        problems.append(
            "`max_dropped_mass` must be in [0, 1) or None, got "
            f"{max_dropped_mass!r}"
        )
    if m_batch_size is not None and m_batch_size < 1:
        problems.append(
            f"`m_batch_size` must be at least 1 or None, got {m_batch_size!r}"
        )
    if problems:
        raise ValueError("; ".join(problems))
