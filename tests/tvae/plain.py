# SPDX-License-Identifier: Apache-2.0
"""The training step of a TVAE, slow and obvious.

No state is decoded or scored once for several data points: every pass goes
through the decoder for each state of each data point. Repeats are found by
comparing all pairs of states, the best states by sorting. Only the operators,
the densities and the closed-form sums, which have tests of their own, are the
library's.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfvae import tvae
from tfvae.ops import bits, densities, random
from tfvae.tvae import model as model_lib


@keras.saving.register_keras_serializable("tests")
class PlainTVAE(tvae.TVAE):
    """A TVAE that trains the same way in many more operations.

    With shared candidates its cost grows with the square of the batch.
    """

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        batch, index, _ = keras.utils.unpack_x_y_sample_weight(data)
        x, observed = densities.split_missing(self._as_batch(batch))
        noise = self.likelihood.monitored()
        if self.is_exhaustive:
            every = tf.constant(bits.all_states(self.num_latents))
            states = tf.repeat(every[None], tf.shape(x)[0], axis=0)
            log_joints, _ = self._log_joints(x, observed, states)
            num_kept = self.num_states
        else:
            states, log_joints = self._evolve(x, observed, index)
            num_kept = self._count_kept(log_joints)
        self._climb(x, observed, states[:, :num_kept])
        self._iteration.assign_add(1)
        q = tf.nn.softmax(log_joints)
        self._monitor(
            loss=-tf.reduce_logsumexp(log_joints, -1),
            bound=tf.reduce_logsumexp(log_joints, -1),
            effective_states=1.0 / tf.reduce_sum(q**2, -1),
            dropped_mass=tf.reduce_sum(q[:, num_kept:], -1),
            **noise,
        )
        return {m.name: m.result() for m in self.metrics}

    def _log_joints(
        self,
        x: tf.Tensor,
        observed: tf.Tensor,
        states: tf.Tensor,
        training: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns log p(x, s) and outputs of each one's states `[B, K, H]`."""
        flat = tf.reshape(states, [-1, self.num_latents])
        outputs = self.decoder(flat, training=training)
        shape = tf.concat([tf.shape(states)[:2], [outputs.shape[-1]]], 0)
        outputs = tf.reshape(outputs, shape)
        probs = self.prior_probs.value
        log_prior = states * tf.math.log(probs)
        log_prior += (1.0 - states) * tf.math.log1p(-probs)
        log_likelihood = self.likelihood.log_prob(
            x[:, None], observed[:, None], outputs
        )
        return tf.reduce_sum(log_prior, -1) + log_likelihood, outputs

    def _log_joints_with_all(
        self, x: tf.Tensor, observed: tf.Tensor, states: tf.Tensor
    ) -> tf.Tensor:
        """Returns log p(x, s), `[B, K]`, of everyone with states `[K, H]`."""
        return tf.map_fn(
            lambda point: self._log_joints(
                point[0][None], point[1][None], states[None]
            )[0][0],
            (x, observed),
            fn_output_signature=tf.TensorSpec([None], tf.float32),
        )

    def _evolve(
        self, x: tf.Tensor, observed: tf.Tensor, index: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The E-step: returns states `[B, S, H]`, and their log-joints."""
        old = bits.unpack(
            tf.gather(self.states.packed.value, index), self.num_latents
        )
        seed = random.make_seed(
            self.seed, model_lib._TRAINING, self._iteration.value
        )
        pools = [old]
        log_joints, _ = self._log_joints(x, observed, old)
        for generation in range(self.evolution.num_generations):
            chosen = self.evolution.parents(
                random.make_seed(seed, generation, 0),
                log_joints,
                self.evolution.num_parents,
            )
            children = self.evolution.variation(
                random.make_seed(seed, generation, 1),
                bits.pack(tf.gather(pools[-1], chosen, batch_dims=1)),
                self.evolution.num_children,
                tf.reduce_sum(self.prior_probs.value),
                self.num_latents,
            )
            pools.append(bits.unpack(children, self.num_latents))
            log_joints, _ = self._log_joints(x, observed, pools[-1])
        if self.evolution.shared:
            states, log_joints = self._best_of_all(x, observed, pools)
        else:
            states, log_joints = self._best_of_own(x, observed, pools)
        self.states.packed.value.scatter_update(
            tf.IndexedSlices(bits.pack(states), index)
        )
        self.states.visited.value.scatter_update(
            tf.IndexedSlices(tf.ones_like(index, tf.bool), index)
        )
        is_new = ~tf.reduce_any(_equal_pairs(states, old), -1)
        self._monitor(replaced=tf.reduce_mean(tf.cast(is_new, tf.float32), -1))
        return states, log_joints

    def _best_of_own(
        self, x: tf.Tensor, observed: tf.Tensor, pools: list[tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        states = tf.concat(pools, 1)
        log_joints, _ = self._log_joints(x, observed, states)
        order = _best_first(log_joints, _is_repeat(states))
        order = order[:, : self.num_states]
        return (
            tf.gather(states, order, batch_dims=1),
            tf.gather(log_joints, order, batch_dims=1),
        )

    def _best_of_all(
        self, x: tf.Tensor, observed: tf.Tensor, pools: list[tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        states = tf.concat(
            [tf.reshape(pool, [-1, self.num_latents]) for pool in pools], 0
        )
        log_joints = self._log_joints_with_all(x, observed, states)
        order = _best_first(log_joints, _is_repeat(states[None]))
        order = order[:, : self.num_states]
        return (
            tf.gather(states, order),
            tf.gather(log_joints, order, batch_dims=1),
        )

    def _count_kept(self, log_joints: tf.Tensor) -> int | tf.Tensor:
        """Returns M: tries 1, 2, ... states, until little mass is left."""
        most = self.num_m_states or self.num_states
        if self.max_dropped_mass is None:
            return most
        q = tf.nn.softmax(log_joints)
        is_too_few = [
            tf.reduce_mean(tf.reduce_sum(q[:, count:], -1))
            > self.max_dropped_mass
            for count in range(1, most)
        ]
        return 1 + tf.reduce_sum(tf.cast(tf.stack(is_too_few), tf.int32))

    def _climb(
        self, x: tf.Tensor, observed: tf.Tensor, states: tf.Tensor
    ) -> None:
        """The M-step on states `[B, M, H]`, one M-step batch after another."""
        size = self.m_batch_size or tf.shape(x)[0]

        def step(start: tf.Tensor) -> tuple[tf.Tensor]:
            stop = start + size
            self._gradient_step(
                x[start:stop], observed[start:stop], states[start:stop]
            )
            return (stop,)

        tf.while_loop(
            lambda start: start < tf.shape(x)[0],
            step,
            (tf.constant(0),),
            parallel_iterations=1,
        )

    def _gradient_step(
        self, x: tf.Tensor, observed: tf.Tensor, states: tf.Tensor
    ) -> None:
        with tf.GradientTape() as tape:
            log_joints, outputs = self._log_joints(
                x, observed, states, training=True
            )
            bound = tf.reduce_mean(tf.reduce_logsumexp(log_joints, -1))
            loss = sum(self.decoder.losses) - bound
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        q = tf.nn.softmax(log_joints)
        self.prior.accumulate(
            tf.reduce_sum(q[..., None] * states, [0, 1]), tf.shape(x)[0]
        )
        self.likelihood.accumulate(
            *self.likelihood.statistics(
                x[:, None], observed[:, None], outputs, q
            )
        )
        pass_done = self.prior.visits.value >= self.num_data
        self.likelihood.maximise(pass_done)
        self.prior.maximise(pass_done)
        self._monitor(active=tf.reduce_sum(q * tf.reduce_sum(states, -1), -1))


def _equal_pairs(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Compares all pairs of rows, `[B, K, H]` and `[B, L, H]`: `[B, K, L]`."""
    return tf.reduce_all(tf.equal(first[:, :, None], second[:, None]), -1)


def _is_repeat(states: tf.Tensor) -> tf.Tensor:
    """Returns whether each of `[B, K, H]` equals one before it."""
    place = tf.range(tf.shape(states)[1])
    is_before = place[None, :] < place[:, None]
    return tf.reduce_any(_equal_pairs(states, states) & is_before, -1)


def _best_first(log_joints: tf.Tensor, is_repeat: tf.Tensor) -> tf.Tensor:
    """Returns the order of falling log-joints, repeats last."""
    ranked = tf.where(is_repeat, -float("inf"), log_joints)
    return tf.argsort(ranked, direction="DESCENDING", stable=True)
