# SPDX-License-Identifier: Apache-2.0
"""The generative model p(x, s) of a TVAE: prior, decoder and likelihood.

Decoder outputs do not depend on the data point, so each distinct state of a
batch is decoded once.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from tfvae import likelihoods
from tfvae.ops import bits, random, truncated
from tfvae.tvae import evolution, prior, static

# Entries of decoder outputs held in memory at a time over many states.
ENTRIES_AT_ONCE = 2**22


class Joint:
    """Generative model: s ~ prior, x ~ likelihood(decoder(s)).

    It has no variables of its own; the parts are the model's layers.
    """

    def __init__(
        self,
        state_prior: prior.BernoulliPrior,
        decoder: keras.layers.Layer,
        likelihood: likelihoods.Likelihood,
    ):
        """Creates the joint.

        Args:
          state_prior: p(s).
          decoder: From `[b, H]` to `[b, outputs]`, built.
          likelihood: p(x | outputs).
        """
        self._prior = state_prior
        self._decoder = decoder
        self._likelihood = likelihood
        self._num_latents = state_prior.num_latents

    def decode(self, states: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns decoder outputs, `[..., H]` to float32 `[..., O]`."""
        flat = tf.reshape(states, [-1, self._num_latents])
        outputs = tf.cast(self._decoder(flat, training=training), tf.float32)
        shape = tf.concat([tf.shape(states)[:-1], [outputs.shape[-1]]], 0)
        outputs = tf.reshape(outputs, shape)
        return tf.ensure_shape(outputs, [*states.shape[:-1], outputs.shape[-1]])

    def distinct(self, packed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns a batch's distinct states.

        Args:
          packed: uint8 `[B, K, W]`.

        Returns:
          The distinct states, float32 `[U, H]`, and the index of each state
          among them, int32 `[B, K]`.
        """
        flat = tf.reshape(packed, [-1, packed.shape[-1]])
        _, first, index = truncated.distinct(bits.keys(flat))
        states = bits.unpack(tf.gather(flat, first), self._num_latents)
        return states, tf.reshape(index, tf.shape(packed)[:2])

    def log_prob(
        self,
        x: tf.Tensor,
        observed: tf.Tensor,
        states: tf.Tensor,
        index: tf.Tensor | None = None,
        training: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Evaluates log p(x, s) for the states of each data point.

        Args:
          x: `[B, D]`.
          observed: `[B, D]`.
          states: `[U, H]`, distinct; or `[B, K, H]`, without `index`.
          index: int32 `[B, K]`, the states of each data point as indices into
            `states`; or `[1, K]`, the same for all.
          training: Whether the decoder is being trained.

        Returns:
          log p(x, s), nats, `[B, K]`, and decoder outputs `[B or 1, K, O]`.
        """
        outputs = self.decode(states, training)
        log_prior = self._prior.log_prob(states)
        if index is not None:
            outputs = tf.gather(outputs, index)
            log_prior = tf.gather(log_prior, index)
        log_likelihood = self._likelihood.log_prob(
            x[:, None], observed[:, None], outputs
        )
        return log_prior + log_likelihood, outputs

    def features(
        self, x: tf.Tensor, observed: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        """Returns log p(x, s) of all pairs as inner products of features.

        Args:
          x: `[B, D]`.
          observed: `[B, D]`.

        Returns:
          Features of the data points, `[B, K]`, and a function from states
          `[U, H]` to state features `[U, K]`; see `tfvae.ops.densities`.
        """
        of_data, of_outputs = self._likelihood.features(x, observed)
        of_data = tf.pad(of_data, [[0, 0], [0, 1]], constant_values=1.0)

        def of_states(states: tf.Tensor) -> tf.Tensor:
            log_prior = self._prior.log_prob(states)[:, None]
            return tf.concat([of_outputs(self.decode(states)), log_prior], -1)

        return of_data, of_states

    def log_prob_pairs(
        self, x: tf.Tensor, observed: tf.Tensor, states: tf.Tensor
    ) -> tf.Tensor:
        """Returns log p(x, s), `[B, U]`, of all data and states `[U, H]`."""
        of_data, of_states = self.features(x, observed)
        return tf.matmul(of_data, of_states(states), transpose_b=True)

    def own(
        self, x: tf.Tensor, observed: tf.Tensor, is_static: bool = False
    ) -> evolution.OwnLogJoint:
        """Returns the function from each data point's states to log p(x, s).

        Args:
          x: `[B, D]`.
          observed: `[B, D]`.
          is_static: Whether each state of each data point is decoded, in
            fixed shapes, rather than each distinct one.
        """

        def score(packed: tf.Tensor) -> tf.Tensor:
            if is_static:
                states = bits.unpack(packed, self._num_latents)
                return self.log_prob(x, observed, states)[0]
            return self.log_prob(x, observed, *self.distinct(packed))[0]

        return score

    def shared(
        self, x: tf.Tensor, observed: tf.Tensor
    ) -> evolution.SharedCandidates:
        """Returns an empty set of candidates shared by a batch."""
        return evolution.SharedCandidates(*self._packed_features(x, observed))

    def pool(
        self,
        x: tf.Tensor,
        observed: tf.Tensor,
        is_point: tf.Tensor,
        pool_size: int | None,
    ) -> static.PooledCandidates:
        """Returns an empty set of shared candidates in fixed shapes.

        Args:
          x: `[B, D]`.
          observed: `[B, D]`.
          is_point: bool `[B]`, see `PooledCandidates`.
          pool_size: See `Evolution`.
        """
        return static.PooledCandidates(
            *self._packed_features(x, observed), is_point, pool_size
        )

    def _packed_features(
        self, x: tf.Tensor, observed: tf.Tensor
    ) -> tuple[tf.Tensor, evolution.StateFeatures]:
        """As `features`, of packed states."""
        of_data, of_states = self.features(x, observed)
        return (
            of_data,
            lambda packed: of_states(bits.unpack(packed, self._num_latents)),
        )

    def enumerate(self, x: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Returns log p(x), `[B]`, by enumeration of all 2**H states."""
        num_entries = tf.size(x)  # of all pairs with one state
        return truncated.enumerated_free_energy(
            lambda states: self.log_prob_pairs(x, observed, states),
            tf.shape(x)[0],
            self._num_latents,
            ENTRIES_AT_ONCE // tf.maximum(num_entries, 1),
        )

    def mean(self, packed: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Returns sum_s q(s) E[x | s], `[B, D]`.

        Args:
          packed: uint8 `[B, K, W]`.
          weights: `[B, K]`, q.
        """
        states, index = self.distinct(packed)
        means = self._likelihood.mean(self.decode(states))
        return tf.linalg.matvec(
            tf.gather(means, index), weights, transpose_a=True
        )

    def moments(
        self, packed: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `mean`, and the variance of E[x | s] over the states.

        Args:
          packed: uint8 `[B, K, W]`.
          weights: `[B, K]`, q.
        """
        states, index = self.distinct(packed)
        means = self._likelihood.mean(self.decode(states))
        return truncated.moments(tf.gather(means, index), weights)

    def sample(
        self, seed: tf.Tensor, num_samples: int | tf.Tensor, mean: bool
    ) -> tf.Tensor:
        """Draws s, then x or E[x | s], `[num_samples, D]`."""
        states = self._prior.sample(random.make_seed(seed, 0), num_samples)
        outputs = self.decode(states)
        if mean:
            return self._likelihood.mean(outputs)
        return self._likelihood.sample(random.make_seed(seed, 1), outputs)
