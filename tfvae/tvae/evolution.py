# SPDX-License-Identifier: Apache-2.0
"""The evolutionary E-step: truncated posteriors improved by new states.

The fitness of a state is its log-joint. A generation selects parents, makes
children by mutation or crossover and evaluates them; after G generations every
data point keeps the S best distinct states among its old ones and its
candidates. As a state is replaced only by a better one, the bound never
decreases (Guiraud et al., 2021, "Direct evolutionary optimization of
variational autoencoders with binary latents", section 2; Drefs et al., 2022,
"Evolutionary variational optimization of generative models").

Decoder outputs depend on the state alone, and most states belong to many data
points. So each distinct state of a batch is decoded once, and decoded states
may be offered to all data points of the batch (`SharedCandidates`), whereas
published TVAEs offer each data point only its own children (`OwnCandidates`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import tensorflow as tf

from tfvae.arguments import check_counts
from tfvae.ops import bits, random, truncated
from tfvae.settings import Settings, saved_settings
from tfvae.tvae import operators

OwnLogJoint = Callable[[tf.Tensor], tf.Tensor]
"""`states uint8 [B, K, W] -> log-joints [B, K]` with each one's data point."""

StateFeatures = Callable[[tf.Tensor], tf.Tensor]
"""`states uint8 [U, W] -> features [U, K]`, whose inner products with the
features `[B, K]` of data points are log-joints."""


class Candidates(Protocol):
    """Protocol of the candidate states of an E-step, with their log-joints."""

    def add(self, packed: tf.Tensor) -> tf.Tensor:
        """Adds states uint8 `[B, K, W]`; returns their log-joints `[B, K]`."""

    def best(self, num_states: int) -> truncated.StateSet:
        """Returns the best distinct states of each data point."""


class OwnCandidates:
    """Candidate states kept separately for each data point."""

    def __init__(self, log_joint: OwnLogJoint):
        """Creates an empty set.

        Args:
          log_joint: Evaluates states of each data point; called once by each
            `add`.
        """
        self._log_joint = log_joint
        self._packed: list[tf.Tensor] = []
        self._log_joints: list[tf.Tensor] = []

    def add(self, packed: tf.Tensor) -> tf.Tensor:
        log_joints = self._log_joint(packed)
        self.add_evaluated(truncated.StateSet(packed, log_joints))
        return log_joints

    def add_evaluated(self, states: truncated.StateSet) -> None:
        """Adds states `[B, K, W]` whose log-joints are known."""
        self._packed.append(states.packed)
        self._log_joints.append(states.log_joints)

    def best(self, num_states: int) -> truncated.StateSet:
        packed, log_joints = self._packed, self._log_joints
        return truncated.best_distinct(
            tf.concat(packed, 1), tf.concat(log_joints, 1), num_states
        )


class SharedCandidates:
    """Candidate states shared by all data points of a batch.

    Every distinct state is decoded once, and its log-joints with all data
    points are computed by one matrix product.
    """

    def __init__(self, data_features: tf.Tensor, state_features: StateFeatures):
        """Creates an empty set.

        Args:
          data_features: `[B, K]`.
          state_features: Called once by each `add`, with the new states; inner
            products with `data_features` are log-joints.
        """
        self._data_features = data_features
        self._state_features = state_features
        self._keys: tf.Tensor | None = None  # [U]
        self._packed: list[tf.Tensor] = []  # [U, W] in parts
        self._features: list[tf.Tensor] = []  # [U, K] in parts

    def add(self, packed: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(packed, [-1, packed.shape[-1]])
        keys = bits.keys(flat)
        known = 0
        if self._keys is not None:
            known = tf.size(self._keys)
            keys = tf.concat([self._keys, keys], 0)
        # Known states come first, and keep their positions.
        self._keys, first, index = truncated.distinct(keys)
        new = tf.gather(flat, first[known:] - known)
        self._packed.append(new)
        self._features.append(self._state_features(new))
        index = tf.reshape(index[known:], tf.shape(packed)[:2])
        own = tf.gather(tf.concat(self._features, 0), index)  # [B, K', K]
        return tf.linalg.matvec(own, self._data_features)

    def best(self, num_states: int) -> truncated.StateSet:
        log_joints, index = truncated.best_products(
            self._data_features, tf.concat(self._features, 0), num_states
        )
        packed = tf.gather(tf.concat(self._packed, 0), index)
        return truncated.StateSet(packed, log_joints)


# What inference averages gains over for its stopping criterion: at least so
# many steps, and so many gains of data points. A random search of a few points
# has many steps without any gain before it has converged.
_MIN_STEPS, _MIN_GAINS = 4.0, 512.0


@saved_settings
class Evolution(Settings):
    """Settings of an E-step: evolutionary operators and budget.

    Attributes:
      parents: Parent selection operator.
      variation: Mutation or crossover operator.
      num_parents: P, parents per generation, at most the number of states.
      num_children: C, children per parent; not used by crossover.
      num_generations: G; from the second generation on, parents are selected
        among the children of the previous one.
      shared: Whether in training all data points of a batch share their states
        and children as candidates; unseen data points use only their own, so
        that inference does not depend on the other data of a batch.
      num_migrants: On several ranks, the number of data points of its part of
        a batch whose best states each rank offers to the others' data points,
        too; only with `shared`.
      pool_size: Of steps compiled by XLA (`compile(jit_compile=True)`), the
        number of distinct states of a batch, old ones and children, that its
        data points share; what exceeds it is a candidate of its own data point
        alone. None for all. Other steps share all.
    """

    parents: operators.ParentSelection = operators.Softmax()
    variation: operators.Variation = operators.RandFlip()
    num_parents: int = 6
    num_children: int = 4
    num_generations: int = 2
    shared: bool = True
    num_migrants: int = 0
    pool_size: int | None = None

    def __post_init__(self) -> None:
        check_counts(
            num_parents=self.num_parents,
            num_children=self.num_children,
            num_generations=self.num_generations,
        )
        check_counts(minimum=0, num_migrants=self.num_migrants)
        if self.num_migrants and not self.shared:
            raise ValueError(
                "`num_migrants` must be 0 where candidates are not `shared`, "
                f"got {self.num_migrants!r}"
            )
        size = self.pool_size
        if size is not None and (not isinstance(size, int) or size < 1):
            raise ValueError(
                f"`pool_size` must be a positive integer or None, got {size!r}"
            )
        if size is not None and not self.shared:
            raise ValueError(
                "`pool_size` must be None where candidates are not `shared`, "
                f"got {size!r}"
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
        """Whether the variation operator is a crossover."""
        return isinstance(self.variation, operators.Crossover)

    @property
    def children_per_generation(self) -> int:
        """Number of children per data point and generation."""
        if self.uses_crossover:
            return self.num_parents * (self.num_parents - 1)
        return self.num_parents * self.num_children

    def validate(self, num_states: int, num_latents: int) -> None:
        """Raises ValueError if the settings do not fit S and H.

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
        if self.pool_size is not None and self.pool_size < num_states:
            problems.append(
                "`pool_size` must be None, or at least `num_states` = "
                f"{num_states}, got {self.pool_size}"
            )
        flips_one = isinstance(self.variation, operators.RandFlip)
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
    """Returns the default settings, reduced where S or H are small."""
    default = Evolution()
    num_children = min(default.num_children, num_latents)
    return Evolution(
        num_parents=min(default.num_parents, num_states),
        num_children=num_children,
    )


def e_step(
    seed: tf.Tensor,
    packed: tf.Tensor,
    candidates: Candidates,
    evolution: Evolution,
    expected_ones: tf.Tensor,
    num_latents: int,
    migrants: tf.Tensor | None = None,
) -> tuple[truncated.StateSet, tf.Tensor]:
    """Evolves the states of a batch of data points for one E-step.

    Args:
      seed: `[2]` int32.
      packed: uint8 `[B, S, W]`, distinct states of each data point.
      candidates: An empty set; evaluates the old states anew, as parameters
        have changed, and the children of each generation.
      evolution: Operators and budget.
      expected_ones: Scalar, the prior's mean number of ones.
      num_latents: H.
      migrants: uint8 `[K, W]`, further candidates, if they are shared.

    Returns:
      The S best distinct states of the candidates, and the fraction of them
      that are new to their data point, `[B]`.
    """
    evaluated = truncated.StateSet(packed, candidates.add(packed))
    if migrants is not None:
        candidates.add(migrants[None])
    _breed(seed, evaluated, candidates, evolution, expected_ones, num_latents)
    states = candidates.best(packed.shape[1])
    old, kept = bits.keys(packed), bits.keys(states.packed)
    is_old = tf.reduce_any(tf.equal(kept[:, :, None], old[:, None]), -1)
    return states, 1.0 - tf.reduce_mean(tf.cast(is_old, tf.float32), -1)


def _breed(
    seed: tf.Tensor,
    states: truncated.StateSet,
    candidates: Candidates,
    evolution: Evolution,
    expected_ones: tf.Tensor,
    num_latents: int,
) -> None:
    """Adds the children of all generations to the candidates of an E-step.

    Args:
      seed: `[2]` int32.
      states: The parents of the first generation are selected among them.
      candidates: The set to add to.
      evolution: Operators and budget.
      expected_ones: Scalar, the prior's mean number of ones.
      num_latents: H.
    """
    pool, log_joints = states
    for generation in range(evolution.num_generations):
        chosen = evolution.parents(
            random.make_seed(seed, generation, 0),
            log_joints,
            evolution.num_parents,
        )
        pool = evolution.variation(
            random.make_seed(seed, generation, 1),
            tf.gather(pool, chosen, batch_dims=1),  # [B, P, W]
            evolution.num_children,
            expected_ones,
            num_latents,
        )
        log_joints = candidates.add(pool)


def best_states(packed: tf.Tensor, number: int) -> tf.Tensor:
    """Returns the best state of each of the first data points of a batch.

    Args:
      packed: uint8 `[B, S, W]`, the best first.
      number: How many; zeros stand for data points that there are not.

    Returns:
      uint8 `[number, W]`.
    """
    best = packed[:number, 0]
    missing = number - tf.shape(best)[0]
    best = tf.pad(best, [[0, missing], [0, 0]])
    return tf.ensure_shape(best, [number, packed.shape[-1]])


def infer(
    seed: tf.Tensor,
    first: truncated.StateSet,
    log_joint: OwnLogJoint,
    evolution: Evolution,
    expected_ones: tf.Tensor,
    num_latents: int,
    max_steps: tf.Tensor,
    tolerance: tf.Tensor,
) -> tuple[truncated.StateSet, tf.Tensor]:
    """Repeats E-steps at fixed parameters until convergence.

    Only children are evaluated, as log-joints do not change meanwhile.

    Args:
      seed: `[2]` int32.
      first: Initial states, distinct, in any order, with their log-joints.
      log_joint: Evaluates states.
      evolution: Operators and budget of each step.
      expected_ones: Scalar, the prior's mean number of ones.
      num_latents: H.
      max_steps: Scalar int32, largest number of E-steps; at least 1 is made.
      tolerance: Scalar, nats. The search ends once the batch's mean gain in
        the bound, smoothed over at least 4 steps and 512 gains of data points,
        is below it. So batches of 1 to 5 make 100 steps or more, if they may.

    Returns:
      The evolved states, and the number of steps made.
    """

    def step(
        count: tf.Tensor, states: truncated.StateSet
    ) -> truncated.StateSet:
        candidates = OwnCandidates(log_joint)
        candidates.add_evaluated(states)
        _breed(
            random.make_seed(seed, count),
            states,
            candidates,
            evolution,
            expected_ones,
            num_latents,
        )
        return candidates.best(states.packed.shape[1])

    batch_size = tf.cast(tf.shape(first.packed)[0], tf.float32)
    memory = tf.maximum(_MIN_STEPS, _MIN_GAINS / tf.maximum(batch_size, 1.0))

    def goes_on(
        count: tf.Tensor, gain: tf.Tensor, states: truncated.StateSet
    ) -> tf.Tensor:
        is_early = tf.cast(count, tf.float32) < memory
        return (count < max_steps) & (is_early | (gain >= tolerance))

    def advance(
        count: tf.Tensor, gain: tf.Tensor, states: truncated.StateSet
    ) -> tuple[tf.Tensor, tf.Tensor, truncated.StateSet]:
        evolved = step(count, states)
        newest = tf.reduce_mean(
            truncated.free_energy(evolved.log_joints)
            - truncated.free_energy(states.log_joints)
        )
        # The mean of all so far, later that of about as many as `memory`.
        share = 1.0 / tf.minimum(tf.cast(count, tf.float32), memory)
        return count + 1, gain + (newest - gain) * share, evolved

    evolved = step(tf.constant(0), first)
    count, _, states = tf.while_loop(
        goes_on, advance, (tf.constant(1), tf.constant(0.0), evolved)
    )
    return states, count
