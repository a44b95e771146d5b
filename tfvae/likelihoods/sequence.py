# SPDX-License-Identifier: Apache-2.0
"""Categorical likelihood of symbol sequences, with grammar masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.likelihoods.base import Likelihood
from tfvae.ops import random
from tfvae.ops.rows import LazyRows

# Allowed deviation from 1 of the sum of a step's float32 probabilities.
_ROUNDING = 1e-4
# Rows that are checked at a time.
_ROWS = 1024


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class SequenceLikelihood(Likelihood):
    """T categorical symbols out of K, independent given s.

    A data point is T one-hot rows of length K, flattened: D = T K. The decoder
    outputs as many logits. Symbols may belong to groups, of which the group in
    each step is known beforehand: in a grammar, the productions that expand
    the leftmost nonterminal. The softmax of a step is over that group only:

        log p(x | s) = sum_t log softmax(logits of the group of x_t)[x_t]

    Data may also be probabilities of symbols; each term is then the expectation
    under these. Missing entries do not count; a step is meant to be observed
    completely or not at all.

    Reference: Kusner, Paige and Hernandez-Lobato, 2017, "Grammar variational
    autoencoder", equation 4.
    """

    support = (0.0, 1.0)

    def __init__(
        self,
        num_steps: int,
        num_symbols: int,
        groups: Sequence[int] | None = None,
        **kwargs: Any,
    ):
        """Creates the likelihood.

        Args:
          num_steps: T.
          num_symbols: K.
          groups: `[K]`, the group of each symbol, counted from 0; None for
            a single group of all symbols.
          **kwargs: Keyword arguments of `keras.layers.Layer`.

        Raises:
          ValueError: If a number is not positive, or a group is empty.
        """
        super().__init__(**kwargs)
        check_counts(num_steps=num_steps, num_symbols=num_symbols)
        self.num_steps = num_steps
        self.num_symbols = num_symbols
        self.groups = None if groups is None else [int(g) for g in groups]
        found = self.groups or [0] * num_symbols
        if len(found) != num_symbols or set(found) != set(
            range(max(found) + 1)
        ):
            raise ValueError(
                f"`groups` must be the groups 0, 1, ... of {num_symbols} "
                f"symbols, none of them empty, got {groups!r}"
            )
        # [G, K], membership of symbols in groups.
        self._members = np.arange(max(found) + 1)[:, None] == np.array(found)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_steps": self.num_steps,
            "num_symbols": self.num_symbols,
            "groups": self.groups,
        }

    def num_observed(self, num_outputs: int) -> int:
        if num_outputs != self.num_steps * self.num_symbols:
            raise ValueError(
                f"`decoder` must have {self.num_steps} times "
                f"{self.num_symbols} outputs for this SequenceLikelihood, got "
                f"{num_outputs}"
            )
        return num_outputs

    def validate(self, x: np.ndarray | LazyRows) -> None:
        """Raises ValueError unless the entries of each step sum to 1.

        In a step with missing entries, the observed ones sum to at most 1.

        Args:
          x: `[N, T K]`, NaN where missing.
        """
        super().validate(x)
        # A part of the rows at a time, as the sums make copies.
        for start in range(0, len(x), _ROWS):
            rows = x[start : start + _ROWS]
            steps = np.reshape(rows, (-1, self.num_symbols))
            sums = np.nansum(steps, -1)
            lacks = (sums < 1.0 - _ROUNDING) & ~np.isnan(steps).any(-1)
            wrong = np.flatnonzero(lacks | (sums > 1.0 + _ROUNDING))
            if wrong.size:
                row, step = divmod(int(wrong[0]), self.num_steps)
                raise ValueError(
                    "`x` must be one-hot or probabilities in each step, got "
                    f"{steps[wrong[0]].tolist()} at step {step} of row "
                    f"{start + row}"
                )

    def _steps(self, flat: tf.Tensor) -> tf.Tensor:
        """Returns `[..., T K]` as `[..., T, K]`."""
        sizes = [self.num_steps, self.num_symbols]
        return tf.reshape(flat, tf.concat([tf.shape(flat)[:-1], sizes], 0))

    def _flat(self, steps: tf.Tensor) -> tf.Tensor:
        """Returns `[..., T, K]` as `[..., T K]`."""
        size = [self.num_steps * self.num_symbols]
        flat = tf.reshape(steps, tf.concat([tf.shape(steps)[:-2], size], 0))
        return tf.ensure_shape(flat, [*steps.shape[:-2], *size])

    def _log_probs(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns log p of each symbol within its group, `[..., T K]`."""
        logits = self._steps(outputs)
        if len(self._members) == 1:
            return self._flat(tf.nn.log_softmax(logits))
        normalisers = [
            tf.reduce_logsumexp(
                tf.where(members, logits, -np.inf), -1, keepdims=True
            )
            for members in self._members
        ]
        of_groups = tf.constant(self._members, logits.dtype)
        normaliser = tf.matmul(tf.concat(normalisers, -1), of_groups)
        return self._flat(logits - normaliser)

    def log_prob(
        self, x: tf.Tensor, observed: tf.Tensor, outputs: tf.Tensor
    ) -> tf.Tensor:
        # `observed` masks missing entries, where x is arbitrary.
        return tf.reduce_sum(observed * x * self._log_probs(outputs), -1)

    def features(
        self, x: tf.Tensor, observed: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return observed * x, self._log_probs

    def mean(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the probabilities of all symbols in each step.

        The group of a step is not known here, so every group has the same
        probability. Restricted to the symbols of one group and normalised,
        they are the softmax of that group.

        Args:
          outputs: `[..., T K]`.

        Returns:
          `[..., T K]`, on [0, 1], with sum T.
        """
        return tf.exp(self._log_probs(outputs)) / len(self._members)

    def sample(self, seed: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        probs = tf.reshape(self.mean(outputs), [-1, self.num_symbols])
        drawn = random.categorical(seed, probs, 1)[:, 0]
        hot = tf.one_hot(drawn, self.num_symbols, dtype=tf.float32)
        return tf.reshape(hot, tf.shape(outputs))
