# SPDX-License-Identifier: Apache-2.0
"""Validation of arguments specific to the TVAE: indices, states, sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from tfvae.tvae.draws import Draws


def as_index(index: Any, num_data: int) -> tf.Tensor:
    """Returns data indices as a tensor, validated inside the graph.

    Args:
      index: Integers `[B]` or `[B, 1]`.
      num_data: N.

    Returns:
      int32 `[B]`. Indices outside 0 .. N - 1 raise
      tf.errors.InvalidArgumentError when the tensor is computed.

    Raises:
      TypeError: If `index` is not of integers.
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


def check_index(index: np.ndarray, num_data: int) -> None:
    """Raises ValueError unless all indices are in 0 .. `num_data` - 1."""
    wrong = (index < 0) | (index >= num_data)
    if wrong.any():
        raise ValueError(
            f"`y`, the index of each row of `x`, must be in [0, {num_data}), "
            f"the training data that the model has states for, got "
            f"{index[wrong][0]}"
        )


def check_rows(index: np.ndarray, x: np.ndarray) -> None:
    """Raises ValueError unless rows of equal index are equal.

    Labels are not told from indices by anything else.

    Args:
      index: Integers `[N]`.
      x: float32 `[N, D]`, NaN where missing.
    """
    _, first, place = np.unique(index, return_index=True, return_inverse=True)
    if len(first) == len(index):
        return
    earlier = first[place]
    is_same = (x == x[earlier]) | (np.isnan(x) & np.isnan(x[earlier]))
    wrong = np.flatnonzero(~is_same.all(1))
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            "`y` must be the index of each row of `x` in the training data, "
            "as in fit(x, np.arange(len(x))): a TVAE takes no targets or "
            f"labels; got rows {earlier[row]} and {row}, which differ, both "
            f"with index {index[row]}"
        )


def as_draws(drawn: Draws, x: tf.Tensor) -> Draws:
    """Returns the draws of a batch, validated inside the graph.

    Args:
      drawn: The distinct data points of `x`.
      x: `[B, D]`, NaN where missing. Rows of equal index that are not equal
        raise tf.errors.InvalidArgumentError when the draws are computed.
    """
    first = tf.gather(drawn.x, drawn.position)
    is_same = (x == first) | (tf.math.is_nan(x) & tf.math.is_nan(first))
    are_same = tf.debugging.Assert(
        tf.reduce_all(is_same),
        [
            "rows of x must be equal where their indices are equal; labels are "
            "no indices"
        ],
    )
    with tf.control_dependencies([are_same]):
        return drawn._replace(x=tf.identity(drawn.x))


def as_states(states: Any, num_latents: int) -> tf.Tensor:
    """Returns states as a tensor; values are validated in eager mode only.

    Args:
      states: Zeros and ones `[..., H]`.
      num_latents: H.

    Returns:
      float32 `[..., H]`.

    Raises:
      ValueError: If the shape is wrong or, in eager mode, there are values
        other than 0 and 1.
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


def check_sizes(
    num_latents: int,
    num_data: int,
    num_states: int,
    num_m_states: int | None,
    max_dropped_mass: float | None,
    m_batch_size: int | None,
    num_archived: int = 0,
) -> None:
    """Raises a ValueError that names every invalid size."""
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
    if num_archived and not num_states <= num_archived <= most:
        problems.append(
            "`num_archived` must be 0, or from `num_states` to "
            f"2**num_latents = {most}, got {num_archived!r}"
        )
    if num_archived and num_states == most:
        problems.append(
            "`num_archived` must be 0 where the states are all "
            f"2**num_latents = {num_states}, got {num_archived!r}"
        )
    if m_batch_size is not None and m_batch_size < 1:
        problems.append(
            f"`m_batch_size` must be at least 1 or None, got {m_batch_size!r}"
        )
    if problems:
        raise ValueError("; ".join(problems))
