# SPDX-License-Identifier: Apache-2.0
"""Truncated posteriors: a distribution over S latent states per data point.

With lj(x, s) = log p(x, s), the optimal distribution on a set K of states is
q(s) = softmax over K of lj, and with it the lower bound on log p(x) is
F = logsumexp over K of lj (Luecke, 2019, "Truncated variational expectation
maximization"). Replacing a member of K by a new state of higher lj raises F;
a duplicate state would count twice, so sets hold distinct states only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfvae.ops import bits, random

# Products that `best_products` holds in memory at a time: 16 MB.
_PRODUCTS_AT_ONCE = 2**22
# Columns of a block of `top_k`, and how many times as many columns as values
# make blocks worth while.
_BLOCK = 32
_WIDE = 128


class StateSet(NamedTuple):
    """The S states of each data point, the best first.

    Attributes:
      packed: uint8 `[B, S, W]`, distinct within a data point.
      log_joints: float32 `[B, S]`, descending, nats.
    """

    packed: tf.Tensor
    log_joints: tf.Tensor


def free_energy(log_joints: tf.Tensor) -> tf.Tensor:
    """Returns the bound F on log p(x), nats: `[B, S]` to `[B]`."""
    return tf.reduce_logsumexp(log_joints, axis=-1)


def posterior_weights(log_joints: tf.Tensor) -> tf.Tensor:
    """Returns q, `[B, S]`, rows summing to 1."""
    return tf.nn.softmax(log_joints, axis=-1)


def moments(
    values: tf.Tensor, weights: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns mean and variance, over the states, of a function of them.

    Args:
      values: `[B, K, D]`, the function of each state.
      weights: `[B, K]`, q, rows summing to 1.

    Returns:
      The mean, sum_s q(s) f(s), and the variance,
      sum_s q(s) (f(s) - mean)**2, both `[B, D]`.
    """
    mean = tf.linalg.matvec(values, weights, transpose_a=True)
    squares = tf.math.squared_difference(values, mean[:, None])
    return mean, tf.linalg.matvec(squares, weights, transpose_a=True)


def effective_states(log_joints: tf.Tensor) -> tf.Tensor:
    """Returns the effective number of states, 1 / sum_s q(s)**2: `[B]`."""
    return 1.0 / tf.reduce_sum(tf.square(posterior_weights(log_joints)), -1)


def dropped_mass(log_joints: tf.Tensor, num_kept: int | tf.Tensor) -> tf.Tensor:
    """Returns the posterior mass outside the `num_kept` first states, `[B]`.

    Args:
      log_joints: `[B, S]`, descending.
      num_kept: M, at most S.

    Returns:
      `[B]`. Using only the M states lowers the bound by -log(1 - mass).
    """
    return tf.reduce_sum(posterior_weights(log_joints)[:, num_kept:], -1)


def num_kept(log_joints: tf.Tensor, max_dropped_mass: float) -> tf.Tensor:
    """Returns how many of the best states hold a batch's posterior mass.

    Args:
      log_joints: `[B, S]`, descending.
      max_dropped_mass: The most posterior mass outside them, as a mean over
        the batch.

    Returns:
      int32 scalar, the smallest such M; at least 1.
    """
    mass = tf.reduce_mean(posterior_weights(log_joints), 0)  # [S]
    dropped = tf.cumsum(mass, exclusive=True, reverse=True)  # after each one
    too_few = tf.cast(dropped > max_dropped_mass, tf.int32)
    return 1 + tf.reduce_sum(too_few)


def distinct(keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Finds the distinct keys of states, in order of first occurrence.

    Args:
      keys: int64 `[K]`, from `bits.keys`.

    Returns:
      The distinct keys, int64 `[U]`; the position of the first occurrence of
      each, int32 `[U]`; and for each key its index among the distinct ones,
      int32 `[K]`.
    """
    once, index = tf.unique(keys)
    places = tf.range(tf.size(keys))
    first = tf.math.unsorted_segment_min(places, index, tf.size(once))
    return once, first, index


def first_equals(keys: tf.Tensor) -> tf.Tensor:
    """Finds the first occurrence of each key, without `tf.unique`.

    All shapes are those of the keys, so that XLA can compile it.

    Args:
      keys: Integers `[K]`.

    Returns:
      int32 `[K]`, the position of the first of the keys that equal each one.
    """
    # A stable sort puts the first of equal keys first.
    order = tf.argsort(keys, stable=True)
    ordered = tf.gather(keys, order)
    is_new = tf.pad(tf.not_equal(ordered[1:], ordered[:-1]), [[1, 0]])
    group = tf.cumsum(tf.cast(is_new, tf.int32))
    size = tf.size(keys)
    first = tf.gather(tf.math.unsorted_segment_min(order, group, size), group)
    return tf.scatter_nd(order[:, None], first, [size])


def places_of(
    is_chosen: tf.Tensor, size: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the places of the first elements that are chosen, in order.

    Args:
      is_chosen: bool `[K]`.
      size: Q, the number of places to return.

    Returns:
      int32 `[Q]`, followed by zeros where fewer are chosen; and the number of
      those that are chosen, int32 scalar, which may be larger than Q.
    """
    counts = tf.cumsum(tf.cast(is_chosen, tf.int32))
    # What is not wanted goes behind the last place.
    target = tf.where(is_chosen, tf.minimum(counts - 1, size), size)
    values = tf.where(target < size, tf.range(tf.size(is_chosen)), 0)
    places = tf.scatter_nd(target[:, None], values, [size + 1])
    return places[:size], counts[-1]


def best_distinct(
    packed: tf.Tensor, log_joints: tf.Tensor, num_states: int
) -> StateSet:
    """Returns the S best distinct states of each data point.

    Args:
      packed: uint8 `[B, K, W]`, possibly with repeats.
      log_joints: float32 `[B, K]`; -inf counts as the lowest finite number.
      num_states: S. Where a data point has fewer distinct states, the last
        log-joints of the result are -inf and their states repeat others.

    Returns:
      The S best of the distinct states. Of equal states the first one's
      log-joint is kept.
    """
    keys = bits.keys(packed)  # [B, K]
    # Equal states are adjacent once the keys are sorted.
    order = tf.argsort(keys, axis=-1, stable=True)
    keys = tf.gather(keys, order, batch_dims=1)
    again = tf.equal(keys[:, 1:], keys[:, :-1])
    again = tf.pad(again, [[0, 0], [1, 0]])
    # Only repeats are -inf: any state, however bad, ranks before a repeat.
    finite = tf.maximum(log_joints, log_joints.dtype.min)
    once = tf.where(
        again, -float("inf"), tf.gather(finite, order, batch_dims=1)
    )
    best, position = tf.math.top_k(once, num_states)
    index = tf.gather(order, position, batch_dims=1)
    return StateSet(tf.gather(packed, index, batch_dims=1), best)


def best_products(
    left: tf.Tensor, right: tf.Tensor, count: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds each row's largest products with the rows of another matrix.

    The same as top_k(left right^T), computed for a few rows at a time: the
    full product need not fit into memory, and the partial ones stay in the
    cache.

    Args:
      left: `[B, K]`.
      right: `[U, K]`.
      count: Number of products to return for each row, at most U.

    Returns:
      The products, descending, and their rows of `right`, int32; both
      `[B, count]`.
    """
    num_rows, num_products = tf.shape(left)[0], tf.shape(right)[0]
    at_once = tf.clip_by_value(_PRODUCTS_AT_ONCE // num_products, 1, num_rows)
    num_slices = -(-num_rows // at_once)
    values = tf.TensorArray(
        left.dtype, num_slices, infer_shape=False, element_shape=[None, count]
    )
    index = tf.TensorArray(
        tf.int32, num_slices, infer_shape=False, element_shape=[None, count]
    )

    def advance(
        i: tf.Tensor, values: tf.TensorArray, index: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.TensorArray, tf.TensorArray]:
        rows = left[i * at_once : (i + 1) * at_once]
        best = top_k(tf.matmul(rows, right, transpose_b=True), count)
        return i + 1, values.write(i, best[0]), index.write(i, best[1])

    _, values, index = tf.while_loop(
        lambda i, *_: i < num_slices,
        advance,
        (0, values, index),
        parallel_iterations=1,
    )
    return values.concat(), index.concat()


def best_masked_products(
    left: tf.Tensor, right: tf.Tensor, is_valid: tf.Tensor, count: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """As `best_products`, in fixed shapes, among some rows of `right`.

    Args:
      left: `[B, K]`.
      right: `[U, K]`.
      is_valid: bool `[U]`, the rows that count, at least `count`.
      count: Number of products to return for each row.

    Returns:
      The products, descending, and their rows of `right`, int32; both
      `[B, count]`.
    """
    num_rows, num_products = tf.shape(left)[0], tf.shape(right)[0]
    # XLA inlines a loop of a single slice, and is ten times slower on a CPU.
    at_once = tf.clip_by_value(
        _PRODUCTS_AT_ONCE // num_products, 1, -(-num_rows // 2)
    )
    num_slices = -(-num_rows // at_once)
    padding = num_slices * at_once - num_rows
    slices = tf.reshape(
        tf.pad(left, [[0, padding], [0, 0]]),
        [num_slices, at_once, tf.shape(left)[1]],
    )

    def best(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        products = tf.matmul(rows, right, transpose_b=True)
        products = tf.where(is_valid, products, -float("inf"))
        return tuple(tf.math.top_k(products, count))

    found = tf.map_fn(
        best,
        slices,
        parallel_iterations=1,
        fn_output_signature=(left.dtype, tf.int32),
    )
    values, index = (tf.reshape(one, [-1, count])[:num_rows] for one in found)
    return values, index


def top_k(values: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """As `tf.math.top_k`, faster on a CPU for a few values of thousands.

    The `count` largest values of a row are in the `count` blocks of columns
    with the largest maxima, so only these blocks are searched. Of equal values
    those of the lowest columns are chosen, as `tf.math.top_k` does: where a
    block of maximum v is left out, the blocks that are not have, before it, as
    many values of at least v as are wanted.

    Args:
      values: `[B, K]`, no NaN.
      count: Number of values to return for each row, at most K.

    Returns:
      The values, descending, and their columns, int32; both `[B, count]`.
    """
    num_columns = tf.shape(values)[1]
    return tf.cond(
        num_columns >= _WIDE * count,
        lambda: _top_k_by_blocks(values, count),
        lambda: tuple(tf.math.top_k(values, count)),
    )


def _top_k_by_blocks(
    values: tf.Tensor, count: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """As `top_k`, whatever the number of columns."""
    num_columns = tf.shape(values)[1]
    num_blocks = tf.maximum(-(-num_columns // _BLOCK), count)
    padding = num_blocks * _BLOCK - num_columns
    blocks = tf.reshape(
        tf.pad(values, [[0, 0], [0, padding]], constant_values=-float("inf")),
        [-1, num_blocks, _BLOCK],
    )
    best_blocks = tf.math.top_k(tf.reduce_max(blocks, -1), count).indices
    best_blocks = tf.sort(best_blocks, axis=-1)
    searched = tf.reshape(
        tf.gather(blocks, best_blocks, batch_dims=1), [-1, count * _BLOCK]
    )
    best, place = tf.math.top_k(searched, count)
    block = tf.gather(best_blocks, place // _BLOCK, batch_dims=1)
    return best, block * _BLOCK + place % _BLOCK


def initial_states(
    seed: tf.Tensor, batch_size: int | tf.Tensor, num_states: int, num_bits: int
) -> tf.Tensor:
    """Draws S distinct states for each data point.

    Bits are 1 with probability p = 1 / H in the first round of draws; where
    that gives fewer than S distinct states, further rounds fill the set. Each
    of them flips each bit of the last round's draws with probability p. So the
    bits of round t = 1, 2, ... are 1 with probability (1 - (1 - 2 p)^t) / 2,
    about t / H at first, and one half in the end. (With a single latent p is
    one half.)

    Args:
      seed: `[2]` int32.
      batch_size: B.
      num_states: S, at most 2**H.
      num_bits: H.

    Returns:
      uint8 `[B, S, W]`, distinct within a data point.
    """
    shape = [batch_size, num_states]
    prob = min(1.0 / num_bits, 0.5)
    vacant = -float("inf")

    def flips(turn: int | tf.Tensor) -> tf.Tensor:
        return random.packed_bits(
            random.make_seed(seed, turn), shape, num_bits, prob
        )

    def has_vacancy(
        turn: tf.Tensor, drawn: tf.Tensor, held: StateSet
    ) -> tf.Tensor:
        return tf.reduce_any(tf.equal(held.log_joints, vacant))

    def fill(
        turn: tf.Tensor, drawn: tf.Tensor, held: StateSet
    ) -> tuple[tf.Tensor, tf.Tensor, StateSet]:
        # Held states rank before new draws; a vacant place, which repeats a
        # held state, ranks last.
        drawn = tf.bitwise.bitwise_xor(drawn, flips(turn))
        held_rank = tf.minimum(held.log_joints, 0.0)
        ranks = tf.concat([held_rank, tf.fill(tf.shape(held_rank), -1.0)], 1)
        packed = tf.concat([held.packed, drawn], 1)
        filled = best_distinct(packed, ranks, num_states)
        ranks = tf.where(filled.log_joints > vacant, 0.0, vacant)
        return turn + 1, drawn, StateSet(filled.packed, ranks)

    first = flips(0)
    held = best_distinct(first, tf.zeros(shape), num_states)
    _, _, held = tf.while_loop(has_vacancy, fill, (tf.constant(1), first, held))
    return held.packed


def enumerated_free_energy(
    log_joint: Callable[[tf.Tensor], tf.Tensor],
    batch_size: int | tf.Tensor,
    num_bits: int,
    num_at_once: int | tf.Tensor,
) -> tf.Tensor:
    """Returns the free energy of all 2**H states, which is log p(x).

    Args:
      log_joint: From states `[K, H]` to log-joints `[B, K]`.
      batch_size: B.
      num_bits: H, at most 30.
      num_at_once: Largest number of states to score at a time; clipped to at
        least 1.

    Returns:
      float32 `[B]`, nats.
    """
    num_states = 2**num_bits
    num_at_once = tf.clip_by_value(num_at_once, 1, num_states)
    places = tf.range(num_bits)
    total = tf.fill([batch_size], -float("inf"))
    for start in tf.range(0, num_states, num_at_once):
        stop = tf.minimum(start + num_at_once, num_states)
        counts = tf.range(start, stop)[:, None]
        states = tf.bitwise.right_shift(counts, places) & 1
        part = free_energy(log_joint(tf.cast(states, tf.float32)))
        total = tf.reduce_logsumexp(tf.stack([total, part]), 0)
    return total
