# SPDX-License-Identifier: Apache-2.0
"""Stateless random draws, identical in eager mode, in graphs and under XLA.

TensorFlow's float draws differ between a graph and its XLA compilation, and
its default generator is about a hundred times slower under XLA on a CPU. The
integer draws of the Philox generator have neither fault, so all draws here are
derived from them, except for those of `poisson`, which XLA can not compile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfvae.ops import bits as bits_lib


def make_seed(seed: int | tf.Tensor, *path: int | tf.Tensor) -> tf.Tensor:
    """Derives the `[2]` int32 seed of one use, named by a path of integers.

    Args:
      seed: An integer of at most 64 bits, all of which count, or a `[2]`
        int32 seed made by this function.
      *path: Integers that name the use (a step, a tag); different paths give
        independent streams.

    Returns:
      `[2]` int32, as every `tf.random.stateless_*` op takes it.

    Raises:
      TypeError: If `seed` is not of integers.
    """
    seed = tf.convert_to_tensor(seed)
    if not seed.dtype.is_integer:
        raise TypeError(f"`seed` must be an integer, got {seed!r}")
    if seed.shape.rank == 0:
        seed = tf.bitcast(tf.cast(seed, tf.int64), tf.int32)
    for step in path:
        # The default algorithm under XLA is another one than elsewhere.
        seed = tf.random.fold_in(seed, tf.cast(step, tf.int32), alg="philox")
    return seed


def uniform(seed: tf.Tensor, shape: Sequence[int] | tf.Tensor) -> tf.Tensor:
    """Draws float32 uniforms on [0, 1), multiples of 2**-23.

    Args:
      seed: `[2]` int32.
      shape: Shape of the result, static or a tensor.

    Returns:
      float32 of that shape.
    """
    bits = tf.random.stateless_uniform(
        shape, seed, None, None, dtype=tf.uint32, alg="philox"
    )
    # The upper 23 bits become the mantissa of a float in [1, 2).
    mantissa = tf.bitwise.right_shift(bits, tf.constant(9, tf.uint32))
    one = tf.constant(0x3F800000, tf.uint32)
    return tf.bitcast(tf.bitwise.bitwise_or(mantissa, one), tf.float32) - 1.0


def normal(seed: tf.Tensor, shape: Sequence[int] | tf.Tensor) -> tf.Tensor:
    """Draws standard normals by inversion of `uniform`.

    Args:
      seed: `[2]` int32.
      shape: Shape of the result, static or a tensor.

    Returns:
      float32 of that shape; no value exceeds 5.4 in size.
    """
    # The half step keeps the argument away from 0, where ndtri is infinite.
    return tf.math.ndtri(uniform(seed, shape) + 2.0**-24)


def integers(
    seed: tf.Tensor, shape: Sequence[int] | tf.Tensor, num_values: int
) -> tf.Tensor:
    """Draws int32 uniformly from 0 .. `num_values` - 1."""
    return tf.cast(uniform(seed, shape) * num_values, tf.int32)


def distinct_integers(
    seed: tf.Tensor,
    shape: Sequence[int] | tf.Tensor,
    num_values: int,
    count: int,
) -> tf.Tensor:
    """Draws `count` distinct integers from 0 .. `num_values` - 1.

    Every subset is equally likely; the order within a subset is not uniform.
    This is Floyd's sampling (Bentley and Floyd, 1987, "A sample of
    brilliance"): `count` steps whatever `num_values` is, where sorting random
    keys would cost `num_values` draws per sample.

    Args:
      seed: `[2]` int32.
      shape: Shape of the batch of samples.
      num_values: Number of integers to choose from.
      count: Size of a sample, at most `num_values`.

    Returns:
      int32 `[*shape, count]`.
    """
    shape = tf.convert_to_tensor(shape, tf.int32)
    draws = uniform(seed, tf.concat([shape, [count]], 0))
    chosen: list[tf.Tensor] = []
    for i in range(count):
        newest = num_values - count + i
        value = tf.cast(draws[..., i] * (newest + 1), tf.int32)
        for earlier in chosen:
            # `newest` was out of reach before this step, so it is still free.
            # At most one of the earlier values equals the draw.
            value = tf.where(tf.equal(value, earlier), newest, value)
        chosen.append(value)
    return tf.stack(chosen, -1)


def packed_bits(
    seed: tf.Tensor,
    shape: Sequence[int] | tf.Tensor,
    num_bits: int,
    prob: float,
) -> tf.Tensor:
    """Draws packed states of independent bits that are 1 with probability p.

    N ~ Poisson(r) balls that are thrown into H bins leave each bin empty with
    probability exp(-r / H), independently of all others. With r = -H log(1 - p)
    the bins that are not empty are the bits. That takes some 10 draws for a
    state with a mean of one 1, whatever H is, where a draw for each bit takes
    H. N is drawn by inversion of a uniform, a multiple of 2**-23, so larger N
    than have that probability do not occur.

    Args:
      seed: `[2]` int32.
      shape: Shape of the batch of states, static or a tensor.
      num_bits: H.
      prob: p, in (0, 1); the fewer ones, H p, the faster.

    Returns:
      uint8 `[*shape, W]`, see `tfvae.ops.bits`.
    """
    shape = tf.convert_to_tensor(shape, tf.int32)
    num_bytes = bits_lib.packed_size(num_bits)
    # Ball i is thrown where the uniform is at least P(N <= i).
    at_most = _poisson_cumulative(-num_bits * math.log1p(-prob))
    num_balls = len(at_most)
    level = uniform(make_seed(seed, 0), shape)
    places = integers(
        make_seed(seed, 1), tf.concat([[num_balls], shape], 0), num_bits
    )
    values = []
    for i in range(num_balls):
        counts = level >= at_most[i]
        for j in range(i):  # A bin that an earlier ball is in counts once.
            counts &= places[i] != places[j]
        value = tf.bitwise.left_shift(1, places[i] % 8)
        values.append(tf.where(counts, value, 0))
    num_states = tf.reduce_prod(shape)
    first_bytes = num_bytes * tf.reshape(tf.range(num_states), shape)
    # Bits of a byte are distinct powers of two: their sum is the byte. On a CPU
    # this is twenty times as fast as `tf.scatter_nd`.
    packed = tf.math.unsorted_segment_sum(
        tf.reshape(tf.stack(values), [-1]),
        tf.reshape(first_bytes + places // 8, [-1]),
        num_states * num_bytes,
    )
    packed = tf.reshape(
        tf.cast(packed, tf.uint8), tf.concat([shape, [num_bytes]], 0)
    )
    return tf.ensure_shape(packed, [*level.shape, num_bytes])


def _poisson_cumulative(rate: float) -> np.ndarray:
    """Returns P(N <= i) of a Poisson distribution, i = 0, 1, ..., float32.

    It ends before the first one that exceeds all values of `uniform`.
    """
    terms = [math.exp(-rate)]
    while math.fsum(terms) <= 1.0 - 2.0**-23:
        terms.append(terms[-1] * rate / len(terms))
    return np.cumsum(terms[:-1]).astype(np.float32)


def categorical(
    seed: tf.Tensor, weights: tf.Tensor, num_draws: int
) -> tf.Tensor:
    """Draws indices with replacement, in proportion to `weights`.

    By inversion of the cumulative sum: one uniform per draw, where the Gumbel
    trick needs one for every weight.

    Args:
      seed: `[2]` int32.
      weights: `[B, K]`, not negative, not necessarily normalised.
      num_draws: Draws for each row.

    Returns:
      int32 `[B, num_draws]`.
    """
    cumulative = tf.cumsum(weights, axis=-1)
    total = cumulative[:, -1:]
    draws = uniform(seed, [tf.shape(weights)[0], num_draws]) * total
    index = tf.searchsorted(cumulative, draws, side="right")
    # Rounding may put a draw on the total itself; it belongs to the last index.
    return tf.minimum(index, tf.shape(weights)[1] - 1)


def poisson(seed: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
    """Draws counts from Poisson distributions, exactly.

    This is TensorFlow's rejection sampler, which XLA can not compile; it draws
    the same eagerly and in graphs.

    Args:
      seed: `[2]` int32.
      rate: `[...]`, finite, not negative.

    Returns:
      float32 `[...]` of integers, rounded to 24 bits.
    """
    return tf.random.stateless_poisson(
        tf.shape(rate), seed, rate, dtype=tf.float32
    )
