# SPDX-License-Identifier: Apache-2.0
"""The E-step: sets of latent states, evolved towards the posterior.

The fitness of a state is its log-joint. A generation chooses parents, varies
them into children and scores those; after G generations every data point
keeps the S best distinct states of its old ones and all children. As no state
gives way but to a better one, the bound never falls (Guiraud et al., 2021,
"Direct evolutionary optimization of variational autoencoders with binary
latents", section 2; Drefs et al., 2022, "Evolutionary variational
optimization of generative models").

Operators are pure callables, passed as arguments. Parents are chosen by
`(seed, log_joints [B, K], num_parents) -> index [B, P]`, and varied by
`(seed, parents [B, P, H], num_children, expected_ones) -> children [B, K, H]`.
Those here are small classes only to carry their settings, as Keras's
initialisers are; a plain function does as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import gin
import keras
import numpy as np
import tensorflow as tf

from tfvae.ops import bits, random, truncated

ParentSelection = Callable[[tf.Tensor, tf.Tensor, int], tf.Tensor]
"""`(seed, log_joints [B, K], num_parents) -> int32 index [B, P]`."""

Variation = Callable[[tf.Tensor, tf.Tensor, int, tf.Tensor], tf.Tensor]
"""`(seed, parents [B, P, H], num_children, expected_ones) -> [B, K, H]`."""

LogJoint = Callable[[tf.Tensor], tf.Tensor]
"""`states [B, K, H] -> log-joints [B, K]` of the batch's data points."""


class _Settings:
    """Gives a frozen dataclass the `get_config` that Keras saves it by."""

    def get_config(self) -> dict[str, Any]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {
            field.name: keras.saving.serialize_keras_object(
                getattr(self, field.name)
            )
            for field in fields
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(
            **{
                name: keras.saving.deserialize_keras_object(value)
                for name, value in config.items()
            }
        )


def _operator(cls: type) -> Any:
    """Makes a class of settings an operator for gin and Keras files."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    cls = keras.saving.register_keras_serializable("tfvae")(cls)
    return gin.register(cls)


# Parent selection.


@_operator
class Fitness(_Settings):
    """Draws parents in proportion to shifted fitness, with replacement.

    The shifted fitness is lj - 2 min(0, min lj), the minimum taken per data
    point, which makes it positive. Where log-joints are large and close to
    each other it is nearly uniform.
    """

    def __call__(
        self, seed: tf.Tensor, log_joints: tf.Tensor, num_parents: int
    ) -> tf.Tensor:
        lowest = tf.reduce_min(log_joints, axis=-1, keepdims=True)
        shifted = log_joints - 2.0 * tf.minimum(lowest, 0.0)
        return random.categorical(seed, shifted, num_parents)


@_operator
class Elite(_Settings):
    """Takes the best states as parents."""

    def __call__(
        self, seed: tf.Tensor, log_joints: tf.Tensor, num_parents: int
    ) -> tf.Tensor:
        return tf.math.top_k(log_joints, num_parents).indices


@_operator
class Softmax(_Settings):
    """Draws parents in proportion to exp(lj / temperature).

    At temperature 1 these are draws from the truncated posterior itself.

    Attributes:
      temperature: Nats; positive.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0.0:
            raise ValueError(
                f"`temperature` must be positive, got {self.temperature!r}"
            )

    def __call__(
        self, seed: tf.Tensor, log_joints: tf.Tensor, num_parents: int
    ) -> tf.Tensor:
        weights = tf.nn.softmax(log_joints / self.temperature)
        return random.categorical(seed, weights, num_parents)


@_operator
class Uniform(_Settings):
    """Draws different parents, every set of them equally likely."""

    def __call__(
        self, seed: tf.Tensor, log_joints: tf.Tensor, num_parents: int
    ) -> tf.Tensor:
        return random.distinct_integers(
            seed, tf.shape(log_joints)[:1], log_joints.shape[1], num_parents
        )


# Variation.


@_operator
class RandFlip(_Settings):
    """Flips one bit in each child; siblings flip different bits."""

    def __call__(
        self,
        seed: tf.Tensor,
        parents: tf.Tensor,
        num_children: int,
        expected_ones: tf.Tensor,
    ) -> tf.Tensor:
        num_bits = parents.shape[-1]
        flipped = random.distinct_integers(
            seed, tf.shape(parents)[:-1], num_bits, num_children
        )  # [B, P, C]
        flips = tf.one_hot(flipped, num_bits)  # [B, P, C, H]
        return _one_row_per_child(_flip(parents[:, :, None], flips))


@_operator
class SparseFlip(_Settings):
    """Flips each bit independently, towards the prior's number of ones.

    A child of a parent with s ones has H p flips on average, and s* =
    `expected_ones` ones on average as far as that many flips can bring it
    there (Drefs et al., 2022, "sparsity-driven bitflips").

    Attributes:
      flip_rate: p, the mean share of flipped bits; None for 1 / H, which is
        one flip a child.
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
    ) -> tf.Tensor:
        num_bits = parents.shape[-1]
        rate = 1.0 / num_bits if self.flip_rate is None else self.flip_rate
        prob_zero, prob_one = sparse_flip_probs(
            tf.reduce_sum(parents, -1, keepdims=True),
            num_bits,
            rate,
            expected_ones,
        )
        prob = tf.where(parents > 0.0, prob_one, prob_zero)[:, :, None]
        batch_size, num_parents = tf.unstack(tf.shape(parents)[:2])
        draws = random.uniform(
            seed, [batch_size, num_parents, num_children, num_bits]
        )
        flips = tf.cast(draws < prob, tf.float32)  # [B, P, C, H]
        return _one_row_per_child(_flip(parents[:, :, None], flips))


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
    which solves (H - s) p_0 + s p_1 = H p and (H - s) p_0 - s p_1 = d. A
    change beyond what H p flips can do is cut to that.

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


@_operator
class Crossover(_Settings):
    """Joins every ordered pair of parents at a cut point.

    For each pair a cut is drawn from 1 .. H - 1; the two children of a pair
    have complementary parts, one for each order. P parents give P (P - 1)
    children; `num_children` is not used.

    Attributes:
      mutation: A variation applied to each child once, or None.
    """

    mutation: Variation | None = None

    def __call__(
        self,
        seed: tf.Tensor,
        parents: tf.Tensor,
        num_children: int,
        expected_ones: tf.Tensor,
    ) -> tf.Tensor:
        batch_size, num_parents, num_bits = tf.unstack(tf.shape(parents))
        first, second = np.triu_indices(parents.shape[1], k=1)
        shape = [batch_size, len(first), 1]
        cut = 1 + random.integers(
            random.make_seed(seed, 0), shape, parents.shape[2] - 1
        )
        is_head = tf.range(num_bits) < cut  # [B, pairs, H]
        mother = tf.gather(parents, first, axis=1)
        father = tf.gather(parents, second, axis=1)
        children = tf.concat(
            [
                tf.where(is_head, mother, father),
                tf.where(is_head, father, mother),
            ],
            axis=1,
        )
        if self.mutation is None:
            return children
        return self.mutation(
            random.make_seed(seed, 1), children, 1, expected_ones
        )


def _flip(states: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
    return tf.abs(states - flips)


def _one_row_per_child(children: tf.Tensor) -> tf.Tensor:
    """Reshapes `[B, P, C, H]` to `[B, P * C, H]`."""
    _, num_parents, num_children, num_bits = children.shape
    return tf.reshape(children, [-1, num_parents * num_children, num_bits])


# The E-step.

# Steps over which inference smooths the gain that it stops by: one step of
# a random search without gain is no sign that there is none to be had.
GAIN_MEMORY = 4.0


@gin.register
@keras.saving.register_keras_serializable("tfvae")
@dataclasses.dataclass(frozen=True)
class Evolution(_Settings):
    """What one E-step tries: operators and budget.

    Attributes:
      parents: Parent selection.
      variation: Mutation or crossover.
      num_parents: P, at most the number of states.
      num_children: C, children of a parent; not used by crossover.
      num_generations: G; from the second on, parents are chosen among the
        children of the one before.
    """

    parents: ParentSelection = Softmax()
    variation: Variation = RandFlip()
    num_parents: int = 6
    num_children: int = 4
    num_generations: int = 2

    def __post_init__(self) -> None:
        for name in ("num_parents", "num_children", "num_generations"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"`{name}` must be a positive integer, got {value!r}"
                )
        for name in ("parents", "variation"):
            value = getattr(self, name)
            if not callable(value) or isinstance(value, type):
                raise TypeError(
                    f"`{name}` must be an operator such as Softmax() or "
                    f"RandFlip(), or a function, got {value!r}"
                )

    @property
    def uses_crossover(self) -> bool:
        """Whether children come from pairs of parents."""
        return isinstance(self.variation, Crossover)

    @property
    def children_per_generation(self) -> int:
        """New states that a generation tries for each data point."""
        if self.uses_crossover:
            return self.num_parents * (self.num_parents - 1)
        return self.num_parents * self.num_children

    def validate(self, num_states: int, num_latents: int) -> None:
        """Raises ValueError if the operators cannot work on such states.

        Args:
          num_states: S.
          num_latents: H.
        """
        problems = []
        if self.num_parents > num_states:
            problems.append(
                "`num_parents` must be at most `num_states` = "
                f"{num_states}, got {self.num_parents}"
            )
        flips_one = isinstance(self.variation, RandFlip)
        if flips_one and self.num_children > num_latents:
            problems.append(
                "`num_children` must be at most `num_latents` = "
                f"{num_latents} (a parent's children flip different bits), "
                f"got {self.num_children}"
            )
        pool = self.children_per_generation
        if self.num_generations > 1 and self.num_parents > pool:
            problems.append(
                "`num_parents` must be at most the children of a generation, "
                f"{pool}, got {self.num_parents}"
            )
        if self.uses_crossover and min(self.num_parents, num_latents) < 2:
            problems.append(
                "crossover must have at least 2 parents and 2 latents, got "
                f"{self.num_parents} and {num_latents}"
            )
        if problems:
            raise ValueError("; ".join(problems))


def default_evolution(num_states: int, num_latents: int) -> Evolution:
    """Returns the default evolution, cut to what few states or bits allow."""
    default = Evolution()
    num_children = min(default.num_children, num_latents)
    return Evolution(
        num_parents=min(default.num_parents, num_states),
        num_children=num_children,
    )


def e_step(
    seed: tf.Tensor,
    packed: tf.Tensor,
    log_joint: LogJoint,
    evolution: Evolution,
    expected_ones: tf.Tensor,
    num_latents: int,
) -> tuple[truncated.StateSet, tf.Tensor]:
    """Evolves the states of a batch of data points for one E-step.

    Args:
      seed: `[2]` int32.
      packed: uint8 `[B, S, W]`, distinct states of each data point.
      log_joint: Scores states; called once on the old states, as parameters
        have moved since they were scored, and once a generation.
      evolution: Operators and budget.
      expected_ones: Scalar, the prior's mean number of ones.
      num_latents: H.

    Returns:
      The S best distinct states of the old ones and all children, and the
      share of them that are new, `[B]`.
    """
    num_states = packed.shape[1]
    pool = bits.unpack(packed, num_latents)
    pool_log_joints = log_joint(pool)
    candidates, scores = [packed], [pool_log_joints]
    for generation in range(evolution.num_generations):
        chosen = evolution.parents(
            random.make_seed(seed, generation, 0),
            pool_log_joints,
            evolution.num_parents,
        )
        parents = tf.gather(pool, chosen, batch_dims=1)  # [B, P, H]
        pool = evolution.variation(
            random.make_seed(seed, generation, 1),
            parents,
            evolution.num_children,
            expected_ones,
        )
        pool_log_joints = log_joint(pool)
        candidates.append(bits.pack(pool))
        scores.append(pool_log_joints)
    states, index = truncated.best_distinct(
        tf.concat(candidates, 1), tf.concat(scores, 1), num_states
    )
    is_new = tf.cast(index >= num_states, tf.float32)
    return states, tf.reduce_mean(is_new, -1)


def infer(
    seed: tf.Tensor,
    packed: tf.Tensor,
    log_joint: LogJoint,
    evolution: Evolution,
    expected_ones: tf.Tensor,
    num_latents: int,
    max_steps: tf.Tensor,
    tolerance: tf.Tensor,
) -> tuple[truncated.StateSet, tf.Tensor]:
    """Repeats E-steps at fixed parameters until they gain little.

    Args:
      seed: `[2]` int32.
      packed: uint8 `[B, S, W]`, where the search starts.
      log_joint: Scores states.
      evolution: Operators and budget of each step.
      expected_ones: Scalar, the prior's mean number of ones.
      num_latents: H.
      max_steps: Scalar int32, the most E-steps; at least 1 is made.
      tolerance: Scalar, nats. The search ends once the batch's mean gain in
        the bound, smoothed over about `GAIN_MEMORY` steps, is below it.

    Returns:
      The evolved states, and the number of steps made.
    """

    def step(count: tf.Tensor, packed: tf.Tensor) -> truncated.StateSet:
        states, _ = e_step(
            random.make_seed(seed, count),
            packed,
            log_joint,
            evolution,
            expected_ones,
            num_latents,
        )
        return states

    def goes_on(
        count: tf.Tensor, gain: tf.Tensor, states: truncated.StateSet
    ) -> tf.Tensor:
        return tf.logical_and(count < max_steps, gain >= tolerance)

    def advance(
        count: tf.Tensor, gain: tf.Tensor, states: truncated.StateSet
    ) -> tuple[tf.Tensor, tf.Tensor, truncated.StateSet]:
        evolved = step(count, states.packed)
        newest = tf.reduce_mean(
            truncated.free_energy(evolved.log_joints)
            - truncated.free_energy(states.log_joints)
        )
        # The first gains are the largest; before any, assume there is one.
        gain = tf.where(
            tf.math.is_inf(gain), newest, gain + (newest - gain) / GAIN_MEMORY
        )
        return count + 1, gain, evolved

    first = step(tf.constant(0), packed)
    count, _, states = tf.while_loop(
        goes_on, advance, (tf.constant(1), tf.constant(float("inf")), first)
    )
    return states, count
