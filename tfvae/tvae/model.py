# SPDX-License-Identifier: Apache-2.0
"""TVAE: the Keras model."""

from __future__ import annotations

from typing import Any, NamedTuple

import gin
import keras
import numpy as np
import tensorflow as tf

from tfvae import likelihoods
from tfvae.latent_model import LatentModel
from tfvae.ops import bits, densities, random, truncated
from tfvae.tvae import checks, draws, joint, prior
from tfvae.tvae import evolution as evolution_lib
from tfvae.tvae import exploration as exploration_lib
from tfvae.tvae import states as states_lib

# Enumerating more than 2**20 states would take too long to be intended.
MAX_ENUMERATED_LATENTS = 20

_NO_DATA = (
    "TVAE was created without `num_data` and stores no states; create it with "
    "the number of training data points to train it"
)

# The random streams of a model.
_INITIAL, _TRAINING, _INFERENCE, _SAMPLING = range(4)


class Inference(NamedTuple):
    """The posterior of unseen data points.

    Attributes:
      packed: uint8 `[B, S, W]`, distinct states, the best first.
      weights: float32 `[B, S]`, posterior weights, rows summing to 1.
      bound: float32 `[B]`, lower bound on log p(x), nats.
      num_steps: int32 scalar, E-steps made.
    """

    packed: tf.Tensor
    weights: tf.Tensor
    bound: tf.Tensor
    num_steps: tf.Tensor


@gin.register
@keras.saving.register_keras_serializable("tfvae")
class TVAE(LatentModel):
    """A VAE with binary latents and truncated posteriors instead of an encoder.

    The model is s ~ Bern(pi), x ~ p(x | decoder(s)). The posterior of each
    data point is a truncated distribution over S latent states, which an
    evolutionary algorithm improves in every training step (E-step). Then the
    decoder takes gradient steps on the bound (M-step), one for each
    `m_batch_size` data points of the batch; pi and the likelihood's noise are
    updated in closed form whenever N data points have been visited. Large
    batches with small M-step batches train best, as all data points of a batch
    share their states as candidates.

    Train it like any Keras model, on data `[N, D]` and the indices of the data
    points, which address their states; NaN marks missing entries:

        model = tfvae.TVAE(
            decoder, num_latents=512, num_data=len(x), num_states=16,
            m_batch_size=128,
        )
        model.adapt(x)
        model.compile(keras.optimizers.Adam(1e-3))
        model.fit(x, np.arange(len(x)), batch_size=2048, epochs=30)
        x_hat = model.stored_reconstruction(x, np.arange(len(x)))

    `evaluate(x)` and `predict(x)` treat `x` as unseen: they evolve new states
    at fixed parameters. The bound that `fit` logs is the mean over an epoch,
    each batch evaluated before its parameter update. With S = 2**H all states
    are used, nothing is evolved, and the bound is the exact log-likelihood.
    Callbacks that monitor the bound need `mode="max"`.

    In training the decoder runs in Keras's training mode and with its own
    regularizers, otherwise without either. Steps are not compiled by XLA, as
    the number of distinct states of a batch changes from step to step.

    Reference: Guiraud, Drefs and Luecke, 2021, "Direct evolutionary
    optimization of variational autoencoders with binary latents".

    Attributes:
      states: `StateStore` of the training data, None without `num_data` or
        with S = 2**H.
      prior: The prior p(s).
      best_parameters: Best parameters found by exploration, None without it.
      likelihood: The likelihood p(x | s).
      decoder: The decoder network.
    """

    def __init__(
        self,
        decoder: keras.layers.Layer,
        num_latents: int,
        num_data: int = 0,
        likelihood: likelihoods.Likelihood | None = None,
        num_states: int = 64,
        evolution: evolution_lib.Evolution | None = None,
        num_m_states: int | None = None,
        max_dropped_mass: float | None = None,
        m_batch_size: int | None = None,
        inference_steps: int = 100,
        inference_tolerance: float = 1e-3,
        exploration: exploration_lib.Exploration | None = None,
        seed: int = 0,
        **kwargs: Any,
    ):
        """Creates the model and draws the initial states.

        Args:
          decoder: Keras layer or model from `[b, H]` to `[b, outputs]`, whose
            outputs are interpreted by the likelihood.
          num_latents: H.
          num_data: N, the number of training data points; 0 for a model that
            is not to be trained.
          likelihood: Likelihood p(x | s); None for `GaussianLikelihood()`.
          num_states: S, latent states per data point, at most 2**H.
          evolution: Operators and budget of an E-step; None for
            `Evolution()`, as far as S and H allow.
          num_m_states: M, the number of best states that the M-step uses;
            None for all S, as always with S = 2**H.
          max_dropped_mass: Largest mean posterior mass of a batch outside the
            M-step's states; M is then the smallest number that satisfies it,
            at most `num_m_states`. A mass m lowers the bound that the M-step
            maximises by -log(1 - m) per data point, which is at most
            log(S / M) for the M best of S.
          m_batch_size: Data points per gradient step; None for the batch.
          inference_steps: Largest number of E-steps for unseen data.
          inference_tolerance: Nats per data point and step; inference ends
            when the bound gains less.
          exploration: Restarts that leave local optima, with the callback
            `Explore`; None for none.
          seed: Seed of everything random in the model except the decoder's
            initial weights.
          **kwargs: Keyword arguments of `keras.Model`.

        Raises:
          ValueError: If S, M or the evolution do not fit H or each other.
        """
        super().__init__(**kwargs)
        self.supports_jit = False  # Keras warns and does not use XLA.
        if evolution is None:
            evolution = evolution_lib.default_evolution(num_states, num_latents)
        checks.check_sizes(
            num_latents,
            num_data,
            num_states,
            num_m_states,
            max_dropped_mass,
            m_batch_size,
        )
        self.is_exhaustive = num_states == 2**num_latents
        if not self.is_exhaustive:
            evolution.validate(num_states, num_latents)
        self.decoder = decoder
        self.num_latents = num_latents
        self.num_data = num_data
        self.likelihood = likelihood or likelihoods.GaussianLikelihood()
        self.num_states = num_states
        self.evolution = evolution
        self.num_m_states = num_m_states
        self.max_dropped_mass = max_dropped_mass
        self.m_batch_size = m_batch_size
        self.inference_steps = inference_steps
        self.inference_tolerance = inference_tolerance
        self.exploration = exploration
        self.seed = seed

        self.prior = prior.BernoulliPrior(num_latents, name="prior")
        self.states = None
        if num_data and not self.is_exhaustive:
            self.states = states_lib.StateStore(
                num_data, num_states, num_latents, name="states"
            )
            self.states.initialize(random.make_seed(seed, _INITIAL))
        self._count_and_monitor(
            ("bound", "active", "effective_states", "dropped_mass", "replaced")
        )
        self.build((None, None))

    def build(self, input_shape: Any = None) -> None:
        """Builds the decoder; `input_shape` follows from it."""
        if not self.decoder.built:
            self.decoder.build((None, self.num_latents))
        outputs = self.decoder.compute_output_shape((None, self.num_latents))
        if len(outputs) != 2 or outputs[-1] is None:
            raise ValueError(
                "`decoder` must map [b, H] to [b, outputs], got output shape "
                f"{tuple(outputs)!r}"
            )
        self.num_observed = self.likelihood.num_observed(outputs[-1])
        self._joint = joint.Joint(self.prior, self.decoder, self.likelihood)
        self.best_parameters = None
        if self.exploration is not None:
            self.best_parameters = exploration_lib.BestParameters(
                exploration_lib.parameters(self), name="best_parameters"
            )
        data = tf.TensorSpec([None, self.num_observed], tf.float32)
        self._infer = tf.function(
            self._infer_batch,
            input_signature=[
                data,
                tf.TensorSpec([2], tf.int32),
                tf.TensorSpec([], tf.int32),
                tf.TensorSpec([], tf.float32),
            ],
        )
        self._log_likelihood = tf.function(
            self._enumerate_batch, input_signature=[data]
        )
        self._reconstruct_stored = tf.function(
            self._reconstruct_stored_batch,
            input_signature=[data, tf.TensorSpec([None], tf.int32)],
        )
        self.built = True

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "decoder": serialize(self.decoder),
            "num_latents": self.num_latents,
            "num_data": self.num_data,
            "likelihood": serialize(self.likelihood),
            "num_states": self.num_states,
            "evolution": serialize(self.evolution),
            "num_m_states": self.num_m_states,
            "max_dropped_mass": self.max_dropped_mass,
            "m_batch_size": self.m_batch_size,
            "inference_steps": self.inference_steps,
            "inference_tolerance": self.inference_tolerance,
            "exploration": serialize(self.exploration),
            "seed": self.seed,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> TVAE:
        config = dict(config)
        for name in ("decoder", "likelihood", "evolution", "exploration"):
            config[name] = keras.saving.deserialize_keras_object(
                config[name], custom_objects
            )
        return cls(**config)

    @property
    def prior_probs(self) -> keras.Variable:
        """float32 weight `[H]`, pi."""
        return self.prior.probs

    # Training.

    def make_train_function(self, force: bool = False) -> Any:
        """Checks that an `Explore` callback is attached if one is needed."""
        if self.best_parameters is not None:
            self.best_parameters.check_watched()
        return super().make_train_function(force)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One EM step on a batch: E-step, gradient step, sums for the pass.

        Args:
          data: `(x, index)`: `[B, D]` and int `[B]`; or `(x, index, weights)`
            with weights `[B]` of the data points, whose mean over a pass must
            be 1. Data points that are drawn twice count twice.

        Returns:
          The metrics' running means.
        """
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise RuntimeError(
                "TVAE must be trained in one replica: its states belong to "
                "data points and are not synchronised between replicas"
            )
        drawn = self._unpack_training_data(data)
        x, observed = densities.split_missing(drawn.x)
        noise = self.likelihood.monitored()
        if self.is_exhaustive:
            every = tf.constant(bits.all_states(self.num_latents))
            log_joints = self._joint.log_prob_pairs(x, observed, every)
            num_kept = self.num_states
            self._m_steps(x, observed, None, drawn)
        else:
            evolved = self._e_step(x, observed, drawn.index)
            log_joints = evolved.log_joints
            num_kept = self._num_kept(log_joints)
            self._m_steps(x, observed, evolved.packed[:, :num_kept], drawn)
        self._iteration.assign_add(1)
        log_joints = drawn.per_draw(log_joints)
        self._monitor(
            bound=truncated.free_energy(log_joints),
            effective_states=truncated.effective_states(log_joints),
            dropped_mass=truncated.dropped_mass(log_joints, num_kept),
            **noise,
        )
        return {m.name: m.result() for m in self.metrics}

    def _num_kept(self, log_joints: tf.Tensor) -> int | tf.Tensor:
        """Returns M, given descending log-joints `[B, S]`."""
        most = self.num_m_states or self.num_states
        if self.max_dropped_mass is None:
            return most
        num_kept = truncated.num_kept(log_joints, self.max_dropped_mass)
        return tf.minimum(num_kept, most)

    def _unpack_training_data(self, data: Any) -> draws.Draws:
        x, index, weights = keras.utils.unpack_x_y_sample_weight(data)
        if not self.num_data:
            raise RuntimeError(_NO_DATA)
        if index is None:
            raise ValueError(
                "TVAE must be trained on (x, index) with the index of each "
                "data point, as in fit(x, np.arange(len(x))), got no index"
            )
        index = checks.as_index(index, self.num_data)
        return draws.distinct_draws(self._as_batch(x), index, weights)

    def _states_or_raise(self) -> states_lib.StateStore:
        if self.states is None:
            raise RuntimeError(_NO_DATA)
        return self.states

    def _e_step(
        self, x: tf.Tensor, observed: tf.Tensor, index: tf.Tensor
    ) -> truncated.StateSet:
        store = self._states_or_raise()
        candidates = (
            self._joint.shared(x, observed)
            if self.evolution.shared
            else evolution_lib.OwnCandidates(self._joint.own(x, observed))
        )
        evolved, replaced = evolution_lib.e_step(
            random.make_seed(self.seed, _TRAINING, self._iteration.value),
            store.gather(index).packed,
            candidates,
            self.evolution,
            self.prior.expected_ones(),
            self.num_latents,
        )
        store.scatter(index, evolved)
        self._monitor(replaced=replaced)
        return evolved

    def _m_steps(
        self,
        x: tf.Tensor,
        observed: tf.Tensor,
        packed: tf.Tensor | None,
        drawn: draws.Draws,
    ) -> None:
        """Updates the parameters, one gradient step per M-step batch.

        Args:
          x: `[U, D]`.
          observed: `[U, D]`.
          packed: uint8 `[U, M, W]`, each data point's states; None for all
            2**H.
          drawn: The distinct data points, with their weights and counts.
        """
        step_weights = drawn.step_weights()

        def step(part: slice) -> None:
            own = None if packed is None else packed[part]
            self._m_step(
                x[part],
                observed[part],
                own,
                weights=drawn.weights[part],
                step_weights=step_weights[part],
                num_draws=tf.reduce_sum(drawn.counts[part]),
            )

        size = self.m_batch_size
        if size is None:
            step(slice(None))
            return

        def advance(start: tf.Tensor) -> tuple[tf.Tensor]:
            step(slice(start, start + size))
            return (start + size,)

        tf.while_loop(
            lambda start: start < tf.shape(x)[0],
            advance,
            (tf.constant(0),),
            parallel_iterations=1,
        )

    def _m_step(
        self,
        x: tf.Tensor,
        observed: tf.Tensor,
        packed: tf.Tensor | None,
        *,
        weights: tf.Tensor,
        step_weights: tf.Tensor,
        num_draws: tf.Tensor,
    ) -> None:
        """One gradient step, and its contribution to the closed-form updates.

        Args:
          x: See `_m_steps`, as `observed` and `packed`.
          observed: `[U, D]`.
          packed: uint8 `[U, M, W]` or None.
          weights: `[U]`, weights in the sums over a pass.
          step_weights: `[U]`, weights in the mean of this gradient step.
          num_draws: Scalar int32, number of draws of these data points.
        """
        if packed is None:
            states = tf.constant(bits.all_states(self.num_latents))
            index = tf.range(self.num_states)[None]  # [1, K], for all points
        else:
            states, index = self._joint.distinct(packed)
        with tf.GradientTape() as tape:
            log_joints, outputs = self._joint.log_prob(
                x, observed, states, index, training=True
            )
            # q maximises the bound on these states, so the gradient of the
            # bound is that of the expected log-joint.
            bounds = truncated.free_energy(log_joints)
            loss = -tf.reduce_mean(step_weights * bounds)
            loss += sum(self.decoder.losses)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)

        q = truncated.posterior_weights(log_joints)  # [U, M]
        index = tf.broadcast_to(index, tf.shape(q))
        # Total posterior weight of each distinct state.
        totals = tf.math.unsorted_segment_sum(
            weights[:, None] * q, index, tf.shape(states)[0]
        )
        ones = tf.linalg.matvec(states, totals, transpose_a=True)
        self.prior.accumulate(ones, num_draws)
        # Weights of entries: those of the data points, 0 where missing.
        self.likelihood.accumulate(
            x[:, None], (weights[:, None] * observed)[:, None], outputs, q
        )
        pass_done = self.prior.visits.value >= self.num_data
        self.likelihood.maximise(pass_done)
        self.prior.maximise(pass_done)
        num_ones = tf.gather(tf.reduce_sum(states, -1), index)
        self._monitor(active=tf.reduce_sum(q * num_ones, -1))

    # Unseen data.

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Infers the posterior of a batch of unseen data; logs the bound.

        Args:
          data: `x` `[B, D]`, or a tuple that starts with it.

        Returns:
          The running mean of the bound, nats per data point.
        """
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        self._monitor(bound=self._infer_default(self._as_batch(x)).bound)
        return {"bound": self._means["bound"].result()}

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Reconstructs a batch of unseen data.

        Args:
          x: `[B, D]`, NaN where missing.

        Returns:
          `[B, D]`, the posterior mean of x, with newly evolved states.
        """
        inference = self._infer_default(self._as_batch(x))
        return self.posterior_mean(inference)

    def infer(
        self,
        x: np.ndarray | tf.Tensor,
        seed: int | tf.Tensor | None = None,
        max_steps: int | tf.Tensor | None = None,
        tolerance: float | tf.Tensor | None = None,
    ) -> Inference:
        """Infers the truncated posterior of one batch of unseen data.

        Args:
          x: `[B, D]`, NaN where missing.
          seed: Seed of the initial states and the search; None for the
            model's.
          max_steps: Largest number of E-steps; None for `inference_steps`.
          tolerance: Nats per data point and step at which the search ends;
            None for `inference_tolerance`.

        Returns:
          The posterior. Data points are inferred independently, except that
          the search ends for all of them at once.
        """
        return self._infer_default(
            self._as_batch(self._checked(x)),
            seed,
            max_steps,
            tolerance,
        )

    def _infer_default(
        self,
        x: tf.Tensor,
        seed: int | tf.Tensor | None = None,
        max_steps: int | tf.Tensor | None = None,
        tolerance: float | tf.Tensor | None = None,
    ) -> Inference:
        """As `infer`, without validation."""

        def default(value: Any, fallback: Any) -> Any:
            return fallback if value is None else value

        return self._infer(
            x,
            random.make_seed(default(seed, self.seed), _INFERENCE),
            tf.cast(default(max_steps, self.inference_steps), tf.int32),
            tf.cast(default(tolerance, self.inference_tolerance), tf.float32),
        )

    def _infer_batch(
        self,
        x: tf.Tensor,
        seed: tf.Tensor,
        max_steps: tf.Tensor,
        tolerance: tf.Tensor,
    ) -> Inference:
        batch, observed = densities.split_missing(x)
        score = self._joint.own(batch, observed)
        batch_size = tf.shape(x)[0]
        if self.is_exhaustive:
            every = bits.pack(tf.constant(bits.all_states(self.num_latents)))
            every = tf.repeat(every[None], batch_size, axis=0)
            states = truncated.best_distinct(
                every, score(every), self.num_states
            )
            num_steps = tf.constant(0)
        else:
            first = truncated.initial_states(
                random.make_seed(seed, 0),
                batch_size,
                self.num_states,
                self.num_latents,
            )
            states, num_steps = evolution_lib.infer(
                random.make_seed(seed, 1),
                first,
                score,
                self.evolution,
                self.prior.expected_ones(),
                self.num_latents,
                max_steps,
                tolerance,
            )
        return Inference(
            states.packed,
            truncated.posterior_weights(states.log_joints),
            truncated.free_energy(states.log_joints),
            num_steps,
        )

    def posterior_mean(self, inference: Inference) -> tf.Tensor:
        """Returns the posterior mean sum_s q(s) E[x | s], `[B, D]`."""
        return self._joint.mean(inference.packed, inference.weights)

    def stored_reconstruction(
        self, x: np.ndarray | tf.Tensor, index: np.ndarray | tf.Tensor
    ) -> np.ndarray:
        """Reconstructs training data from their stored states.

        The states are evaluated at the present parameters, but not evolved.
        Any number of data points may be given; memory stays bounded.

        Args:
          x: `[K, D]`, training data.
          index: int `[K]`, their indices.

        Returns:
          `[K, D]`, the posterior mean: denoised, and in-painted where NaN.

        Raises:
          RuntimeError: If the model was created without `num_data`.
        """
        x, index = self._checked(x), np.asarray(index)
        outputs_per_point = self.num_states * self.num_observed
        size = max(1, joint.ENTRIES_AT_ONCE // outputs_per_point)
        return np.concatenate(
            [
                self._reconstruct_stored(x[i : i + size], index[i : i + size])
                for i in range(0, max(len(x), 1), size)
            ]
        )

    def _reconstruct_stored_batch(
        self, x: tf.Tensor, index: tf.Tensor
    ) -> tf.Tensor:
        batch = self._as_batch(x)
        if self.is_exhaustive:
            return self(batch)
        index = checks.as_index(index, self.num_data)
        packed = self._states_or_raise().gather(index).packed
        log_joints = self._joint.own(*densities.split_missing(batch))(packed)
        return self._joint.mean(packed, truncated.posterior_weights(log_joints))

    def log_likelihood_bound(self, x: np.ndarray | tf.Tensor) -> tf.Tensor:
        """Returns the bound on log p(x), nats, of one batch: `[B]`."""
        return self.infer(x).bound

    def log_likelihood(self, x: np.ndarray | tf.Tensor) -> tf.Tensor:
        """Returns log p(x), nats, by enumeration of all 2**H states.

        Args:
          x: `[B, D]`, NaN where missing.

        Returns:
          `[B]`.

        Raises:
          ValueError: If H is over `MAX_ENUMERATED_LATENTS`.
        """
        if self.num_latents > MAX_ENUMERATED_LATENTS:
            raise ValueError(
                "`num_latents` must be at most "
                f"{MAX_ENUMERATED_LATENTS} to enumerate all states, got "
                f"{self.num_latents}; log_likelihood_bound(x) has no limit"
            )
        return self._log_likelihood(self._as_batch(self._checked(x)))

    def _enumerate_batch(self, x: tf.Tensor) -> tf.Tensor:
        return self._joint.enumerate(*densities.split_missing(x))

    # Generation.

    def decode(self, states: np.ndarray | tf.Tensor) -> tf.Tensor:
        """Returns the mean of p(x | s): states `[..., H]` to `[..., D]`.

        Raises:
          ValueError: If the shape is wrong, or not all values are 0 or 1.
        """
        states = checks.as_states(states, self.num_latents)
        return self.likelihood.mean(self._joint.decode(states))

    def sample(
        self,
        num_samples: int | tf.Tensor,
        seed: int | tf.Tensor = 0,
        mean: bool = False,
    ) -> tf.Tensor:
        """Draws observations: s ~ Bern(pi), then x ~ p(x | s).

        Args:
          num_samples: Number of samples.
          seed: Seed of the draws.
          mean: Whether to return E[x | s] instead of drawing x.

        Returns:
          float32 `[num_samples, D]`.
        """
        seed = random.make_seed(seed, _SAMPLING)
        return self._joint.sample(seed, num_samples, mean)

    def singleton_means(self) -> tf.Tensor:
        """Returns the feature of each latent, E[x | s = e_h], `[H, D]`."""
        return self.decode(np.eye(self.num_latents, dtype=np.float32))
