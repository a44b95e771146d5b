# SPDX-License-Identifier: Apache-2.0
"""Binary latent states packed eight to a byte, and hash keys of them.

A state is a vector of H zeros and ones. Unpacked it is float32 `[..., H]`, as
a decoder takes it; packed it is uint8 `[..., W]` with W = ceil(H / 8). Latent
h is bit h % 8 of byte h // 8; bits past H are zero.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def packed_size(num_latents: int) -> int:
    """Returns W, the bytes that a packed state of `num_latents` bits takes."""
    return -(-num_latents // 8)


def pack(states: tf.Tensor) -> tf.Tensor:
    """Packs states into bytes.

    Args:
      states: float32 `[..., H]` of zeros and ones, H static.

    Returns:
      uint8 `[..., W]`.
    """
    num_latents = states.shape[-1]
    latent = np.arange(num_latents)
    place_values = np.zeros((num_latents, packed_size(num_latents)), np.float32)
    place_values[latent, latent // 8] = 2.0 ** (latent % 8)
    # Each byte is a sum of at most eight powers of two: exact in float32, and
    # a matrix product is the fastest reduction there is.
    return tf.cast(tf.tensordot(states, place_values, 1), tf.uint8)


def unpack(packed: tf.Tensor, num_latents: int) -> tf.Tensor:
    """Unpacks bytes into states, the inverse of `pack`.

    Args:
      packed: uint8 `[..., W]`.
      num_latents: H.

    Returns:
      float32 `[..., H]` of zeros and ones.
    """
    table = np.unpackbits(
        np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"
    ).astype(np.float32)
    bits = tf.gather(table, tf.cast(packed, tf.int32))  # [..., W, 8]
    states = tf.reshape(
        bits, tf.concat([tf.shape(packed)[:-1], [8 * packed.shape[-1]]], 0)
    )
    states = states[..., :num_latents]
    return tf.ensure_shape(states, [*packed.shape[:-1], num_latents])


def singletons(num_latents: int) -> np.ndarray:
    """Returns the packed one-hot states e_1 .. e_H, uint8 `[H, W]`."""
    return np.packbits(
        np.eye(num_latents, dtype=np.uint8), axis=1, bitorder="little"
    )


def prefix_masks(num_latents: int) -> np.ndarray:
    """Returns packed masks of the first c = 0 .. H bits, uint8 `[H + 1, W]`."""
    latent = np.arange(num_latents)
    is_in_prefix = latent < np.arange(num_latents + 1)[:, None]
    return np.packbits(is_in_prefix, axis=1, bitorder="little")


def keys(packed: tf.Tensor) -> tf.Tensor:
    """Returns an integer key for each packed state; equal states, equal keys.

    Up to 64 latents the key is the state itself. Beyond, the words are mixed
    by splitmix64's finaliser and added, so two different states collide with
    a probability of about 2**-64. Dropping one state of every pair of equal
    keys therefore always leaves distinct states.

    Args:
      packed: uint8 `[..., W]`, W static.

    Returns:
      int64 `[...]`.
    """
    num_bytes = packed.shape[-1]
    num_words = -(-num_bytes // 8)
    padding = [[0, 0]] * (packed.shape.rank - 1)
    padding.append([0, 8 * num_words - num_bytes])
    padded = tf.pad(packed, padding)
    words = tf.bitcast(
        tf.reshape(
            padded, tf.concat([tf.shape(packed)[:-1], [num_words, 8]], 0)
        ),
        tf.int64,
    )  # [..., num_words]
    if num_words == 1:
        return words[..., 0]
    # Odd multiples of the golden ratio make keys depend on the words' order.
    place = np.arange(1, num_words + 1, dtype=np.uint64)
    place *= np.uint64(0x9E3779B97F4A7C15)
    mixed = words + place.view(np.int64)
    for shift, multiplier in (
        (30, 0xBF58476D1CE4E5B9),
        (27, 0x94D049BB133111EB),
    ):
        factor = np.array(multiplier, np.uint64).view(np.int64)
        mixed = _xor_shift(mixed, shift) * factor
    return tf.reduce_sum(_xor_shift(mixed, 31), -1)


def _xor_shift(values: tf.Tensor, shift: int) -> tf.Tensor:
    shifted = tf.bitwise.right_shift(values, tf.constant(shift, tf.int64))
    # A signed shift copies the sign bit, with which a word and its complement
    # would give the same; the finaliser wants zeros there.
    shifted &= tf.constant(2 ** (64 - shift) - 1, tf.int64)
    return tf.bitwise.bitwise_xor(values, shifted)


def all_states(num_latents: int) -> np.ndarray:
    """Returns all states, counting up from zero.

    Args:
      num_latents: H, at most 24.

    Returns:
      float32 `[2**H, H]`; row i holds the bits of i, latent 0 the lowest.
    """
    index = np.arange(2**num_latents)[:, None]
    return ((index >> np.arange(num_latents)) & 1).astype(np.float32)
