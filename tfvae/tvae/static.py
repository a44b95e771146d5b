# SPDX-License-Identifier: Apache-2.0
"""Training steps in fixed shapes, compiled by XLA.

How many states of a batch are distinct is known only once they are, and XLA
wants to know sizes before. So every state of every data point is decoded,
repeats are found by sorting keys, and what is shared is a pool of fixed size.
The places that repeated draws, or a smaller last batch, leave in a batch repeat
a data point and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from tfvae.ops import bits, truncated
from tfvae.tvae import draws, evolution

if TYPE_CHECKING:
    from tfvae.tvae.model import TVAE


class PooledCandidates:
    """Candidate states shared by all data points of a batch, in fixed shapes.

    With a pool that is large enough, it finds what `SharedCandidates` finds.
    A pool holds the first distinct states in the order of addition. Those that
    it has no place for are candidates of the data points that they were added
    for, and of no others, so the bound never falls.

    Attributes:
      num_left_out: int32 scalar, the distinct states that the pool had no
        place for; set by `best`.
    """

    def __init__(
        self,
        data_features: tf.Tensor,
        state_features: evolution.StateFeatures,
        is_point: tf.Tensor,
        pool_size: int | None = None,
    ):
        """Creates an empty set.

        Args:
          data_features: `[B, K]`.
          state_features: See `SharedCandidates`; repeats are not left out.
          is_point: bool `[B]`, the rows that are data points, the first one
            among them. What is added for others is no candidate.
          pool_size: Q, at least the number of states that `best` is asked for;
            None for as many as there may be.
        """
        self._data_features = data_features
        self._state_features = state_features
        self._is_point = is_point
        self._pool_size = pool_size
        self._packed: list[tf.Tensor] = []  # [B, K, W]
        self._features: list[tf.Tensor] = []  # [B * K, F]
        self._log_joints: list[tf.Tensor] = []  # [B, K]
        self.num_left_out = tf.constant(0)

    def add(self, packed: tf.Tensor) -> tf.Tensor:
        # Rows that are no data points repeat a state that is there already.
        packed = tf.where(self._is_point[:, None, None], packed, packed[:1, :1])
        features = self._state_features(_flat(packed))
        own = tf.reshape(
            features,
            tf.concat([tf.shape(packed)[:2], [-1]], 0),
        )
        log_joints = tf.linalg.matvec(own, self._data_features)
        self._packed.append(packed)
        self._features.append(features)
        self._log_joints.append(log_joints)
        return log_joints

    def best(self, num_states: int) -> truncated.StateSet:
        packed = tf.concat([_flat(one) for one in self._packed], 0)  # [N, W]
        features = tf.concat(self._features, 0)
        first = truncated.first_equals(bits.keys(packed))
        is_first = tf.equal(first, tf.range(tf.size(first)))
        if self._pool_size is None:
            return self._best_of_all(packed, features, is_first, num_states)
        places, number = truncated.places_of(is_first, self._pool_size)
        self.num_left_out = tf.maximum(number - self._pool_size, 0)
        pooled = self._best_of_all(
            tf.gather(packed, places),
            tf.gather(features, places),
            tf.range(self._pool_size) < number,
            num_states,
        )
        place = tf.gather(tf.cumsum(tf.cast(is_first, tf.int32)), first) - 1
        return self._with_own(pooled, place, num_states)

    def _best_of_all(
        self,
        packed: tf.Tensor,
        features: tf.Tensor,
        is_valid: tf.Tensor,
        num_states: int,
    ) -> truncated.StateSet:
        """Returns the best of shared states `[N, W]`, bool `[N]` of them."""
        log_joints, index = truncated.best_masked_products(
            self._data_features, features, is_valid, num_states
        )
        return truncated.StateSet(tf.gather(packed, index), log_joints)

    def _with_own(
        self, pooled: truncated.StateSet, place: tf.Tensor, num_states: int
    ) -> truncated.StateSet:
        """Returns the best of the pool and of what was left out of it.

        Args:
          pooled: The best of the pool.
          place: int32 `[N]`, the place of each state that was added, in a pool
            that holds all.
          num_states: S.
        """
        own = truncated.StateSet(
            tf.concat(self._packed, 1), tf.concat(self._log_joints, 1)
        )
        sizes = [tf.size(one) for one in self._log_joints]
        place = tf.concat(
            [
                tf.reshape(part, tf.shape(one))
                for part, one in zip(
                    tf.split(place, sizes, num=len(sizes)),
                    self._log_joints,
                    strict=True,
                )
            ],
            1,
        )  # [B, K]
        # Sorting rows takes longer under XLA than comparing all their pairs.
        column = tf.range(tf.shape(place)[1])
        is_before = column[:, None] > column
        is_again = tf.reduce_any(
            tf.equal(place[:, :, None], place[:, None]) & is_before, -1
        )
        left_out = tf.where(
            (place < self._pool_size) | is_again,
            -float("inf"),
            tf.maximum(own.log_joints, own.log_joints.dtype.min),
        )
        best, column = tf.math.top_k(
            tf.concat([pooled.log_joints, left_out], 1), num_states
        )
        packed = tf.concat([pooled.packed, own.packed], 1)
        return truncated.StateSet(tf.gather(packed, column, batch_dims=1), best)


def _flat(packed: tf.Tensor) -> tf.Tensor:
    """Returns states `[B, K, W]` as `[B * K, W]`."""
    return tf.reshape(packed, [-1, packed.shape[-1]])


Step = Callable[[draws.Draws, tf.Tensor | None], truncated.StateSet | None]
"""`(drawn, states uint8 [U, S, W]) -> the new states`; None where all 2**H
states are used."""


class CompiledStep:
    """A training step that XLA compiles, for batches of one size.

    Smaller batches are filled up to the largest so far; a larger one makes XLA
    compile once more.
    """

    def __init__(self, step: Step, m_batch_size: int | None):
        """Creates the step.

        Args:
          step: E-step and M-step, in fixed shapes, with all variables that
            they need.
          m_batch_size: See `TVAE`; the places of a batch are a multiple.
        """
        self._multiple = m_batch_size or 1
        self._largest = tf.Variable(0, trainable=False)
        self._draws = tf.function(
            draws.static_draws, autograph=False, jit_compile=True
        )
        self._step = tf.function(
            step, autograph=False, jit_compile=True, reduce_retracing=True
        )

    def distinct(
        self, x: tf.Tensor, index: tf.Tensor, weights: tf.Tensor | None
    ) -> tuple[draws.Draws, tf.Tensor]:
        """As `distinct_draws`, in fixed shapes.

        Args:
          x: `[B, D]`, equal rows where `index` is equal.
          index: int32 `[B]`, indices into the training data.
          weights: `[B]`, weights of the draws; None for 1 each.

        Returns:
          The draws, of U >= B places, and `x` with as many rows.
        """
        size = tf.maximum(self._largest, tf.size(index))
        size = -(-size // self._multiple) * self._multiple
        self._largest.assign(size)
        every = draws.padded(x, index, weights, size)
        drawn = self._draws(*every)
        points = tf.ensure_shape(drawn.x, [None, x.shape[1]])
        return drawn._replace(x=points), every[0]

    def __call__(
        self, drawn: draws.Draws, packed: tf.Tensor | None
    ) -> truncated.StateSet | None:
        return self._step(drawn, packed)

    def hlo(self, drawn: draws.Draws, packed: tf.Tensor | None) -> str:
        """Returns what XLA makes of the step, as text, after its fusions."""
        get = self._step.experimental_get_compiler_ir(drawn, packed)
        return get(stage="optimized_hlo")


def check(model: TVAE) -> None:
    """Raises a ValueError that names all that has no static form.

    Args:
      model: The model.
    """
    problems = []
    if model.ranks.size > 1:
        problems.append(
            "trains in one process, got a model of "
            f"{model.ranks.size} ranks, which exchange within a step"
        )
    if model.max_dropped_mass is not None:
        problems.append(
            "has a fixed number of M-step states: use `num_m_states`, got "
            f"`max_dropped_mass` = {model.max_dropped_mass!r}"
        )
    for layer in model.decoder._flatten_layers():
        is_normalization = isinstance(layer, keras.layers.BatchNormalization)
        if is_normalization and layer.trainable:
            problems.append(
                "decodes repeated states, which change what the layer "
                f"{layer.name!r} normalizes by; use LayerNormalization or "
                "GroupNormalization"
            )
        if getattr(layer, "activity_regularizer", None) is not None:
            problems.append(
                "decodes repeated states, which change the activity "
                f"regularization of the layer {layer.name!r}"
            )
        if not layer.supports_jit:
            problems.append(f"needs XLA, which {layer.name!r} does not support")
    if problems:
        raise ValueError(
            "`jit_compile` must be False here, as a compiled step "
            + "; it ".join(problems)
        )
