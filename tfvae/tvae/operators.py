# SPDX-License-Identifier: Apache-2.0
"""Evolutionary operators: parent selection, mutation and crossover.

Operators are pure callables. Parent selection is `(seed, log_joints [B, K],
num_parents) -> index [B, P]`, variation is `(seed, parents [B, P, W],
num_children, expected_ones, num_latents) -> children [B, K, W]`, on packed
states (see `tfvae.ops.bits`, which also unpacks them). The operators here are
classes only to carry their settings, like Keras's initializers; a plain
function works as well.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfvae.arguments import check_positive
from tfvae.ops import bits, random
from tfvae.settings import Settings, saved_settings

ParentSelection = Callable[[tf.Tensor, tf.Tensor, int], tf.Tensor]
"""`(seed, log_joints [B, K], num_parents) -> int32 index [B, P]`."""

Variation = Callable[[tf.Tensor, tf.Tensor, int, tf.Tensor, int], tf.Tensor]
"""`(seed, parents uint8 [B, P, W], num_children, expected_ones, num_latents)
-> children uint8 [B, K, W]`."""


# Parent selection.


@saved_settings
class Fitness(Settings):
    """Fitness-proportional selection, with replacement.

    The fitness is lj - 2 min(0, min lj), the minimum taken per data point,
    which makes it positive. Where log-joints are large and close to each other
    the selection is nearly uniform.
    """

    def __call__(
        self, seed: tf.Tensor, log_joints: tf.Tensor, num_parents: int
    ) -> tf.Tensor:
        lowest = tf.reduce_min(log_joints, axis=-1, keepdims=True)
        shifted = log_joints - 2.0 * tf.minimum(lowest, 0.0)
        return random.categorical(seed, shifted, num_parents)


@saved_settings
class Elite(Settings):
    """Truncation selection: the best states become parents."""

    def __call__(
        self, seed: tf.Tensor, log_joints: tf.Tensor, num_parents: int
    ) -> tf.Tensor:
        return tf.math.top_k(log_joints, num_parents).indices


@saved_settings
class Softmax(Settings):
    """Boltzmann selection, in proportion to exp(lj / temperature).

    At temperature 1 these are draws from the truncated posterior itself.

    Attributes:
      temperature: Nats; positive.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature)

    def __call__(
        self, seed: tf.Tensor, log_joints: tf.Tensor, num_parents: int
    ) -> tf.Tensor:
        weights = tf.nn.softmax(log_joints / self.temperature)
        return random.categorical(seed, weights, num_parents)


@saved_settings
class Uniform(Settings):
    """Uniform selection of parents, without replacement."""

    def __call__(
        self, seed: tf.Tensor, log_joints: tf.Tensor, num_parents: int
    ) -> tf.Tensor:
        return random.distinct_integers(
            seed, tf.shape(log_joints)[:1], log_joints.shape[1], num_parents
        )


# Variation.


@saved_settings
class RandFlip(Settings):
    """Uniform mutation: flips one bit per child, different among siblings."""

    def __call__(
        self,
        seed: tf.Tensor,
        parents: tf.Tensor,
        num_children: int,
        expected_ones: tf.Tensor,
        num_latents: int,
    ) -> tf.Tensor:
        flipped = random.distinct_integers(
            seed, tf.shape(parents)[:-1], num_latents, num_children
        )  # [B, P, C]
        flips = tf.gather(bits.singletons(num_latents), flipped)
        return _flip(parents, flips)


@saved_settings
class SparseFlip(Settings):
    """Sparsity-driven bit flips, independent, towards the prior's sparsity.

    A child of a parent with s ones has H p flips on average, and s* =
    `expected_ones` ones on average, as far as that many flips can achieve it
    (Drefs et al., 2022, "sparsity-driven bitflips").

    Attributes:
      flip_rate: p, the mean fraction of flipped bits; None for 1 / H, which is
        one flip per child.
    """

    flip_rate: float | None = None

    def __post_init__(self) -> None:
        if self.flip_rate is not None and not 0.0 < self.flip_rate < 1.0:
            raise ValueError(
                "`flip_rate` must be inside (0, 1) or None, got "
                f"{self.flip_rate!r}"
            )

    def __call__(
        self,
        seed: tf.Tensor,
        parents: tf.Tensor,
        num_children: int,
        expected_ones: tf.Tensor,
        num_latents: int,
    ) -> tf.Tensor:
        rate = 1.0 / num_latents if self.flip_rate is None else self.flip_rate
        states = bits.unpack(parents, num_latents)  # [B, P, H]
        prob_zero, prob_one = sparse_flip_probs(
            tf.reduce_sum(states, -1, keepdims=True),
            num_latents,
            rate,
            expected_ones,
        )
        prob = tf.where(states > 0.0, prob_one, prob_zero)[:, :, None]
        batch_size, num_parents = tf.unstack(tf.shape(parents)[:2])
        draws = random.uniform(
            seed, [batch_size, num_parents, num_children, num_latents]
        )
        return _flip(parents, bits.pack(tf.cast(draws < prob, tf.float32)))


def sparse_flip_probs(
    num_ones: tf.Tensor,
    num_bits: int,
    flip_rate: float,
    expected_ones: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the flip probabilities of zeros and of ones.

    With s ones of H bits, p the flip rate and d = s* - s the wanted change,
      alpha = (H - s) (H p - d) / ((d + H p) s),
      p_0 = H p / (H + (alpha - 1) s),   p_1 = alpha p_0,
    which solves (H - s) p_0 + s p_1 = H p and (H - s) p_0 - s p_1 = d. The
    change d is clipped to what H p flips can achieve.

    Args:
      num_ones: s, any shape.
      num_bits: H.
      flip_rate: p.
      expected_ones: s*, scalar.

    Returns:
      p_0 and p_1, the shape of `num_ones`, in [0, 1].
    """
    num_flips = num_bits * flip_rate
    change = tf.clip_by_value(expected_ones - num_ones, -num_flips, num_flips)
    # (H p + d) / 2 flips fall on zeros and (H p - d) / 2 on ones.
    num_zeros = tf.maximum(num_bits - num_ones, 1.0)
    prob_zero = 0.5 * (num_flips + change) / num_zeros
    prob_one = 0.5 * (num_flips - change) / tf.maximum(num_ones, 1.0)
    return tf.minimum(prob_zero, 1.0), tf.minimum(prob_one, 1.0)


@saved_settings
class Crossover(Settings):
    """Single-point crossover of all pairs of parents.

    For each pair a cut point is drawn from 1 .. H - 1; its two children have
    complementary parts. P parents give P (P - 1) children; `num_children` is
    not used.

    Attributes:
      mutation: A mutation operator applied once to each child, or None.
    """

    mutation: Variation | None = None

    def __call__(
        self,
        seed: tf.Tensor,
        parents: tf.Tensor,
        num_children: int,
        expected_ones: tf.Tensor,
        num_latents: int,
    ) -> tf.Tensor:
        first, second = np.triu_indices(parents.shape[1], k=1)
        shape = [tf.shape(parents)[0], len(first)]
        cut = 1 + random.integers(
            random.make_seed(seed, 0), shape, num_latents - 1
        )
        head = tf.gather(bits.prefix_masks(num_latents), cut)  # [B, pairs, W]
        mother = tf.gather(parents, first, axis=1)
        father = tf.gather(parents, second, axis=1)
        # Bits that differ are exchanged before the cut, or after it.
        differ = tf.bitwise.bitwise_xor(mother, father)
        exchange = tf.bitwise.bitwise_and(differ, head)
        children = tf.concat(
            [
                tf.bitwise.bitwise_xor(father, exchange),
                tf.bitwise.bitwise_xor(mother, exchange),
            ],
            axis=1,
        )
        if self.mutation is None:
            return children
        return self.mutation(
            random.make_seed(seed, 1), children, 1, expected_ones, num_latents
        )


def _flip(parents: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
    """Flips bits of parents `[B, P, W]` by `[B, P, C, W]`: `[B, P * C, W]`."""
    children = tf.bitwise.bitwise_xor(parents[:, :, None], flips)
    _, num_parents, num_children, num_bytes = flips.shape
    return tf.reshape(children, [-1, num_parents * num_children, num_bytes])
