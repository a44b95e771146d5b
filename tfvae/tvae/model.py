# SPDX-License-Identifier: Apache-2.0
"""TVAE: the Keras model."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from tfvae import inputs, likelihoods, typed_gin
from tfvae import ranks as ranks_lib
from tfvae.latent_model import Costs, Figure, LatentModel
from tfvae.networks import binary
from tfvae.ops import bits, densities, random, truncated
from tfvae.ops.rows import LazyRows
from tfvae.tvae import (
    checks,
    costs,
    draws,
    inference,
    joint,
    m_step,
    prior,
    static,
)
from tfvae.tvae import evolution as evolution_lib
from tfvae.tvae import exploration as exploration_lib
from tfvae.tvae import states as states_lib
from tfvae.tvae.inference import Inference

# Enumerating more than 2**20 states would take too long to be intended.
MAX_ENUMERATED_LATENTS = 20

_NO_DATA = (
    "TVAE was created without `num_data` and stores no states; create it with "
    "the number of training data points to train it"
)

# The random streams of a model.
_INITIAL, _TRAINING, _INFERENCE, _SAMPLING, _ARCHIVE = range(5)


@typed_gin.register
@typed_gin.uses(defaults={"evolution": evolution_lib.Evolution})
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

    `evaluate(x)` and `predict(x)` treat `x` as unseen: they evolve fresh
    states at fixed parameters. The bound that `fit` logs is the mean over an
    epoch, each batch at the parameters that it met, before its update. Where
    S = 2**H the states are simply all states, nothing is evolved, and the
    bound is the exact log-likelihood. The `loss` that is logged beside it is
    minus the bound. Callbacks that watch the bound need `mode="max"`.

    In training the decoder runs in Keras's training mode and with its own
    regularizers, otherwise without either.

    With `compile(optimizer, jit_compile=True)` XLA compiles the whole training
    step, in fixed shapes; it is for GPUs and large batches, see docs/tvae.md.
    By default it does not, as how many distinct states a batch has changes
    from step to step. Inference is never compiled.

    Reference: Guiraud, Drefs and Luecke, 2021, "Direct evolutionary
    optimization of variational autoencoders with binary latents".

    Attributes:
      archive: uint8 weight `[K, W]`, the distinct states that inference starts
        from, see `update_archive`; None without `num_archived`.
      states: `StateStore` or `DiskStateStore` of the training data, None
        without `num_data` or with S = 2**H.
      prior: The prior p(s).
      best_parameters: Best parameters found by exploration, None without it.
      likelihood: The likelihood p(x | s).
      decoder: The decoder network.
      num_data_of_all: N of all ranks, see `set_ranks`.
      is_static: Whether training steps are compiled by XLA, see `compile`.
    """

    is_static = False
    _compiled_step: static.CompiledStep | None = None
    needs_index = True

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
        num_archived: int = 0,
        exploration: exploration_lib.Exploration | None = None,
        seed: int = 0,
        states_in_memory: int | None = None,
        states_folder: str | None = None,
        **kwargs: Any,
    ):
        """Creates the model and draws the first states.

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
            when the bound of a batch gains less, on average over some steps,
            more of them where a batch has fewer than 128 data points.
          num_archived: K, the number of states of the training data that
            inference starts from, at least S, see `update_archive`; 0 for
            random ones.
          exploration: Restarts that leave local optima, with the callback
            `Explore`; None for none.
          seed: Seed of everything random in the model except the decoder's
            initial weights.
          states_in_memory: Most bytes of states that are held in memory; more
            are held in a temporary file, see `DiskStateStore`. None for any
            number in memory, 0 for a file in any case.
          states_folder: Folder of that file; None for the system's of temporary
            files, which the environment variable TMPDIR chooses.
          **kwargs: Keyword arguments of `keras.Model`.

        Raises:
          ValueError: If S, M or the evolution do not fit H or each other.
        """
        super().__init__(**kwargs)
        # Only training steps can be compiled, and Keras does it to all.
        self.supports_jit = False
        if evolution is None:
            evolution = evolution_lib.default_evolution(num_states, num_latents)
        checks.check_sizes(
            num_latents,
            num_data,
            num_states,
            num_m_states,
            max_dropped_mass,
            m_batch_size,
            num_archived,
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
        self.num_archived = num_archived
        self.exploration = exploration
        self.seed = seed
        self.states_in_memory = states_in_memory
        self.states_folder = states_folder
        self.num_data_of_all = num_data

        self.prior = prior.BernoulliPrior(num_latents, name="prior")
        self.states = None
        if num_data and not self.is_exhaustive:
            self.states = self._new_store()
        self._has_drawn = states_lib.are_drawn()
        if self._has_drawn:
            self.draw_first_states()
        self.archive = None
        if num_archived:
            first = truncated.initial_states(
                random.make_seed(seed, _ARCHIVE), 1, num_archived, num_latents
            )
            self.archive = self.add_weight(
                shape=first.shape[1:],
                initializer="zeros",
                dtype="uint8",
                trainable=False,
                name="archive",
            )
            self.archive.assign(first[0])
        self._count_and_monitor(
            (
                "loss",
                "bound",
                "active",
                "effective_states",
                "dropped_mass",
                "replaced",
                *(("left_out",) if evolution.pool_size is not None else ()),
            )
        )
        self.build((None, None))

    def set_ranks(self, ranks: ranks_lib.Ranks) -> None:
        """Makes this model the one of several processes that train together.

        Each process creates the model for the data points that it owns, as
        many as its `num_data`, and has their states. Weights and noise are set
        to those of rank 0, and first states are drawn anew. With shared
        candidates, the data points of one rank's part of a batch share their
        states. `batch_size` of `batches`, and `m_batch_size`, count the points
        of all ranks.

        Args:
          ranks: The processes.

        Raises:
          ValueError: If the model has something that works in one process
            only, batch normalization; or if some ranks have no data points.
        """
        super().set_ranks(ranks)
        of_ranks = ranks.gather(self.num_data)
        if 0 in of_ranks and any(of_ranks):
            raise ValueError(
                "`num_data` must be at least 1 on each rank, got "
                f"{of_ranks!r}; use fewer ranks"
            )
        self.num_data_of_all = sum(of_ranks)
        if ranks.size > 1 and self._has_drawn:
            self.draw_first_states()

    def draw_first_states(self) -> None:
        self._has_drawn = True
        if self.states is not None:
            self.states.initialize(self._seed_of_rank(_INITIAL))

    def _new_store(self) -> states_lib.StateStore | states_lib.DiskStateStore:
        """Returns a store for the states, in memory or on disk."""
        sizes = self.num_data, self.num_states, self.num_latents
        most = self.states_in_memory
        if most is None or states_lib.state_bytes(*sizes) <= most:
            return states_lib.StateStore(*sizes, name="states")
        if self.exploration is not None:
            raise ValueError(
                "`exploration` must be None with states on disk, which are "
                f"those of more than `states_in_memory` = {most:,} bytes"
            )
        return states_lib.DiskStateStore(*sizes, self.states_folder)

    def arrays_on_disk(self) -> dict[str, np.ndarray]:
        if isinstance(self.states, states_lib.DiskStateStore):
            return self.states.arrays
        return {}

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
            functools.partial(inference.infer, self),
            input_signature=[
                data,
                tf.TensorSpec([2], tf.int32),
                tf.TensorSpec([], tf.int32),
                tf.TensorSpec([], tf.float32),
            ],
        )
        self._posterior_mean = tf.function(
            self._joint.mean,
            input_signature=[
                tf.TensorSpec(
                    [None, self.num_states, bits.packed_size(self.num_latents)],
                    tf.uint8,
                ),
                tf.TensorSpec([None, self.num_states], tf.float32),
            ],
        )
        self._log_likelihood = tf.function(
            self._enumerate_batch, input_signature=[data]
        )
        self._reconstruct_stored = tf.function(
            self._reconstruct_stored_batch,
            input_signature=[data, tf.TensorSpec([None], tf.int32)],
        )
        self._stored_moments = tf.function(
            self._stored_moments_batch,
            input_signature=[data, tf.TensorSpec([None], tf.int32)],
        )
        self._track_all_weights()
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
            "num_archived": self.num_archived,
            "exploration": serialize(self.exploration),
            "seed": self.seed,
            "states_in_memory": self.states_in_memory,
            "states_folder": self.states_folder,
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

    @property
    def capacity(self) -> int:
        """N, the data points that there are states for; 0 without any."""
        return self.num_data

    def with_capacity(self, num_data: int) -> Self:
        """Returns the same TVAE with states for more, or fewer, data points.

        Args:
          num_data: N of the one returned.

        Returns:
          This model if N is its own. Else another, of the same parameters and
          with the states of as many data points as both have, the others'
          states being those that a fresh model of that size draws; it has to
          be compiled before it is trained.
        """
        if num_data == self.num_data:
            return self
        other = type(self).from_config(
            {**self.get_config(), "num_data": num_data}
        )
        sources, targets = (
            self._weights_but_states(),
            other._weights_but_states(),
        )
        for source, target in zip(sources, targets, strict=True):
            target.assign(source)
        if self.ranks.size > 1:
            other.set_ranks(self.ranks)
        if self.states is not None and other.states is not None:
            other.states.copy_rows(self.states)
        return other

    def row_variables(self) -> list[keras.Variable]:
        return [] if self.states is None else list(self.states.weights)

    def _weights_but_states(self) -> list[keras.Variable]:
        ids = {id(variable) for variable in self.row_variables()}
        return [one for one in self.weights if id(one) not in ids]

    def gradient_steps(self, num_data: int, batch_size: int) -> int:
        size = min(self.m_batch_size or batch_size, batch_size)
        num_whole, rest = divmod(num_data, batch_size)
        return num_whole * math.ceil(batch_size / size) + math.ceil(rest / size)

    def training_callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns what `exploration` and `num_archived` need, if anything."""
        return [exploration_lib.Explore(), inference.UpdateArchive()]

    def training_costs(self, batch_size: int) -> Costs:
        room = costs.room_for_states(self)
        work = costs.work_of(self, batch_size)
        speed = None
        if work is not None:
            speed = costs.expected_speed(work, batch_size, costs.matrix_rate())
        return Costs(room.memory, room.disk, speed)

    def make_train_function(self, force: bool = False) -> Any:
        """Checks that an `Explore` callback is attached if one is needed."""
        if self.best_parameters is not None:
            self.best_parameters.check_watched()
        return super().make_train_function(force)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configures training: an optimizer, and how steps are run.

        Args:
          *args: The optimizer; see `keras.Model.compile`.
          **kwargs: Further arguments of `keras.Model.compile`. With
            `jit_compile=True` training steps have fixed shapes and are compiled
            by XLA, for the largest batch so far; "auto" does not.

        Raises:
          ValueError: If a loss or metrics are given, or trainable weights have
            less than 32 bits, or the model has something that has no form in
            fixed shapes.
        """
        wants_static = kwargs.get("jit_compile") is True
        # Keras declines the compilation of an eager step, with a warning.
        is_static = wants_static and not kwargs.get("run_eagerly")
        if is_static:
            static.check(self)
            kwargs = {**kwargs, "jit_compile": False}
        super().compile(*args, **kwargs)
        self.is_static = is_static
        self._compiled_step = None
        if is_static:
            self._compiled_step = static.CompiledStep(
                self._static_step, self.m_batch_size
            )

    def get_compile_config(self) -> dict[str, Any] | None:
        config = super().get_compile_config()
        if config and self.is_static:
            config["jit_compile"] = True
        return config

    def _needs_one_process(self) -> list[str]:
        problems = super()._needs_one_process()
        if self.is_static:
            problems.append(
                "`jit_compile` must be False on several ranks, which exchange "
                "within a step, got True"
            )
        return problems

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One EM step on a batch: E-step, gradient step, sums for the pass.

        Args:
          data: `(x, index)`: `[B, D]` and int `[B]`; or `(x, index, weights)`
            with weights `[B]` of the data points. A data point that is drawn
            twice counts as one of the summed weights.

        Returns:
          The metrics' running means.
        """
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise RuntimeError(
                "TVAE must be trained in one replica: its states belong to "
                "data points and are not synchronised between replicas; train "
                "on several processes by mpiexec instead, see `set_ranks`"
            )
        drawn = self._unpack_training_data(data)
        if self._compiled_step is None:
            self._em_step(
                drawn,
                lambda x, observed: self._e_step(x, observed, drawn.index),
            )
            return self._results()
        # The store, which may be on disk, is outside of what is compiled.
        store, packed = self.states, None
        if store is not None:
            packed = store.gather(drawn.index).packed
        evolved = self._compiled_step(drawn, packed)
        if store is not None and evolved is not None:
            store.scatter(drawn.index, evolved)
        return self._results()

    def _static_step(
        self, drawn: draws.Draws, packed: tf.Tensor | None
    ) -> truncated.StateSet | None:
        """E-step and M-step of a batch in fixed shapes, see `static.Step`."""
        with densities.fixed_shapes(), binary.plain_products():
            evolved = self._em_step(
                drawn,
                lambda x, observed: self._evolve(
                    x, observed, packed, drawn.is_point
                ),
            )
        if evolved is None:
            return None
        # Other places have the index of the first data point: its states.
        packed = tf.where(
            drawn.is_point[:, None, None], evolved.packed, evolved.packed[:1]
        )
        return evolved._replace(packed=packed)

    def _em_step(
        self,
        drawn: draws.Draws,
        e_step: Callable[[tf.Tensor, tf.Tensor], truncated.StateSet],
    ) -> truncated.StateSet | None:
        """Evolves the states of a batch and improves the parameters.

        Args:
          drawn: The data points.
          e_step: From their `x` and `observed`, `[U, D]`, to their new states;
            not called where all 2**H are used.

        Returns:
          The new states, if any.
        """
        x, observed = densities.split_missing(drawn.x)
        noise = self.likelihood.monitored()
        evolved = None
        if self.is_exhaustive:
            every = tf.constant(bits.all_states(self.num_latents))
            log_joints = self._joint.log_prob_pairs(x, observed, every)
            num_kept = self.num_states
            m_step.m_steps(self, x, observed, None, drawn)
        else:
            evolved = e_step(x, observed)
            log_joints = evolved.log_joints
            num_kept = self._num_kept(log_joints)
            m_step.m_steps(
                self, x, observed, evolved.packed[:, :num_kept], drawn
            )
        self._iteration.assign_add(1)
        bounds = truncated.free_energy(log_joints)
        # As Keras does: the loss is a sum over draws of weighted losses.
        self._means["loss"].update_state(
            tf.math.divide_no_nan(
                -drawn.weights * bounds, tf.cast(drawn.counts, tf.float32)
            ),
            drawn.counts,
        )
        self._monitor(
            drawn.weights,
            bound=bounds,
            effective_states=truncated.effective_states(log_joints),
            dropped_mass=truncated.dropped_mass(log_joints, num_kept),
        )
        self._monitor(**noise)
        return evolved

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
        if weights is not None:
            weights = inputs.as_weights(weights)
        x = self._as_batch(x)
        if self._compiled_step is None:
            drawn = draws.distinct_draws(x, index, weights)
        else:
            drawn, x = self._compiled_step.distinct(x, index, weights)
        return checks.as_draws(drawn, x)

    def _default_targets(
        self, points: np.ndarray, is_training: bool
    ) -> np.ndarray | None:
        if is_training:
            return None
        # Evaluation ignores it.
        return np.arange(len(points), dtype=np.int32)

    def _check_targets(
        self, y: Any, points: np.ndarray, is_training: bool
    ) -> None:
        found = np.asarray(y)
        shapes = ((len(points),), (len(points), 1))
        if found.dtype.kind not in "iu" or found.shape not in shapes:
            raise ValueError(
                "`y` must be the index of each row of `x` in the training "
                f"data, integers of shape ({len(points)},), as in fit(x, "
                "np.arange(len(x))): a TVAE reconstructs `x` and takes no "
                f"targets or labels; got {found.dtype} {found.shape!r}"
            )
        if is_training and self.num_data and len(found):
            checks.check_index(found, self.num_data)
        checks.check_rows(found.reshape(-1), points)

    def _states_or_raise(
        self,
    ) -> states_lib.StateStore | states_lib.DiskStateStore:
        if self.states is None:
            raise RuntimeError(_NO_DATA)
        return self.states

    def _e_step(
        self, x: tf.Tensor, observed: tf.Tensor, index: tf.Tensor
    ) -> truncated.StateSet:
        """Evolves the stored states of the data points `index`."""
        store = self._states_or_raise()
        packed = store.gather(index).packed
        is_point = tf.ones_like(index, tf.bool)
        evolved = self._evolve(x, observed, packed, is_point)
        store.scatter(index, evolved)
        return evolved

    def _evolve(
        self,
        x: tf.Tensor,
        observed: tf.Tensor,
        packed: tf.Tensor,
        is_point: tf.Tensor,
    ) -> truncated.StateSet:
        """Returns the new states of a batch, given the old `[U, S, W]`."""
        migrants = self._migrants(packed)

        def evolve() -> tuple[truncated.StateSet, tf.Tensor]:
            candidates = self._candidates(x, observed, is_point)
            found = evolution_lib.e_step(
                self._seed_of_rank(_TRAINING, self._iteration.value),
                packed,
                candidates,
                self.evolution,
                self.prior.expected_ones(),
                self.num_latents,
                migrants,
            )
            if isinstance(candidates, static.PooledCandidates):
                self._monitor_pool(candidates)
            return found

        if self.ranks.size > 1:  # This one's part of the batch may be empty.
            evolved, replaced = tf.cond(
                tf.size(is_point) > 0,
                evolve,
                lambda: (
                    # Of no data points.
                    truncated.StateSet(packed, tf.zeros(tf.shape(packed)[:2])),
                    tf.zeros_like(is_point, tf.float32),
                ),
            )
        else:
            evolved, replaced = evolve()
        self._monitor(tf.cast(is_point, tf.float32), replaced=replaced)
        return evolved

    def _monitor_pool(self, candidates: static.PooledCandidates) -> None:
        if self.evolution.pool_size is not None:
            self._monitor(left_out=candidates.num_left_out)

    def _candidates(
        self, x: tf.Tensor, observed: tf.Tensor, is_point: tf.Tensor
    ) -> evolution_lib.Candidates:
        """Returns an empty set of candidates for a batch, see `_evolve`."""
        if not self.evolution.shared:
            return evolution_lib.OwnCandidates(
                self._joint.own(x, observed, self.is_static)
            )
        if self.is_static:
            pool_size = self.evolution.pool_size
            return self._joint.pool(x, observed, is_point, pool_size)
        return self._joint.shared(x, observed)

    def _migrants(self, packed: tf.Tensor) -> tf.Tensor | None:
        """Returns the states that the ranks offer each other, `[K, W]`."""
        number = self.evolution.num_migrants
        if self.ranks.size == 1 or not number:
            return None
        mine = evolution_lib.best_states(packed, number)
        is_mine = tf.one_hot(self.ranks.rank, self.ranks.size, dtype=tf.uint8)
        (every,) = self.ranks.all_sum(is_mine[:, None, None] * mine)
        return tf.reshape(every, [-1, mine.shape[-1]])

    # Unseen data.

    def update_archive(self) -> None:
        """Sets the archive to the states that most training points have.

        For each unseen data point the S best of these are the states that
        inference starts from, in place of random ones. `UpdateArchive` does it
        at the end of training. Where the training data have fewer distinct
        states, the others stay. On several ranks the archive is that of the
        data points of the first; all of them have to call this.

        Raises:
          RuntimeError: If there is no archive, or there are no states.
        """
        if self.archive is None:
            raise RuntimeError(
                "`num_archived` must be positive for an archive, got 0"
            )
        used = states_lib.most_used(self._states_or_raise(), self.num_archived)
        used = self.ranks.broadcast(used)
        kept = self.archive.numpy()
        is_used = {row.tobytes() for row in used}
        others = [row for row in kept if row.tobytes() not in is_used]
        every = np.concatenate([used, np.reshape(others, (-1, kept.shape[1]))])
        self.archive.assign(every[: self.num_archived].astype(np.uint8))

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Infers the posterior of a batch of unseen data; logs the bound.

        Args:
          data: `x` `[B, D]`; or `(x, index)`, the index being ignored; or
            `(x, index, weights)`.

        Returns:
          The running means of the bound, nats per data point, and of the loss.
        """
        x, _, weights = keras.utils.unpack_x_y_sample_weight(data)
        bounds = self._infer_default(self._as_batch(x)).bound
        if weights is None:
            weights = tf.ones_like(bounds)
        weights = inputs.as_weights(weights)
        self._monitor(loss=-weights * bounds)
        self._monitor(weights, bound=bounds)
        return self._results("loss", "bound")

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

        Raises:
          ValueError: If `x` or `max_steps` is not as described.
        """
        if max_steps is not None:
            inputs.check_count(max_steps=max_steps)
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
        return np.concatenate(list(self.stored_reconstructions(x, index)))

    def stored_reconstructions(
        self,
        x: np.ndarray | tf.Tensor | LazyRows,
        index: np.ndarray | tf.Tensor,
    ) -> Iterator[np.ndarray]:
        """Yields `stored_reconstruction` in parts, in order.

        Args:
          x: `[K, D]`, training data.
          index: int `[K]`, their indices.
        """
        return self._in_parts(self._reconstruct_stored, x, index)

    def stored_moments(
        self,
        x: np.ndarray | tf.Tensor | LazyRows,
        index: np.ndarray | tf.Tensor,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields posterior means and variances of what the decoder says.

        The variance is that of E[x | s] over the stored states, so it has no
        part of the noise: it says how far a data point's noise-free values are
        known, if the model and its few states are right.

        Args:
          x: `[K, D]`, training data.
          index: int `[K]`, their indices.

        Yields:
          The means, those of `stored_reconstruction`, and the variances, both
          `[n, D]`, of consecutive parts of the data.

        Raises:
          RuntimeError: If the model was created without `num_data`.
        """
        return self._in_parts(self._stored_moments, x, index)

    def _in_parts(
        self, function: Callable[..., Any], x: Any, index: Any
    ) -> Iterator[Any]:
        """Yields a function of consecutive batches, as arrays."""
        if not isinstance(x, LazyRows):
            x = self._checked(x)
        index = np.asarray(index)
        outputs_per_point = self.num_states * self.num_observed
        size = max(1, joint.ENTRIES_AT_ONCE // outputs_per_point)
        for i in range(0, max(len(x), 1), size):
            found = function(x[i : i + size], index[i : i + size])
            yield tf.nest.map_structure(lambda one: one.numpy(), found)

    def _stored_posterior(
        self, x: tf.Tensor, index: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns states, uint8 `[B, K, W]`, and q, `[B, K]`."""
        if self.is_exhaustive:
            found = self._infer_default(x)
            return found.packed, found.weights
        index = checks.as_index(index, self.num_data)
        packed = self._states_or_raise().gather(index).packed
        log_joints = self._joint.own(*densities.split_missing(x))(packed)
        return packed, truncated.posterior_weights(log_joints)

    def _reconstruct_stored_batch(
        self, x: tf.Tensor, index: tf.Tensor
    ) -> tf.Tensor:
        batch = self._as_batch(x)
        return self._joint.mean(*self._stored_posterior(batch, index))

    def _stored_moments_batch(
        self, x: tf.Tensor, index: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        batch = self._as_batch(x)
        return self._joint.moments(*self._stored_posterior(batch, index))

    def log_likelihood_bound(
        self,
        x: np.ndarray | tf.Tensor,
        num_samples: int | tf.Tensor = 0,
        seed: int | tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the bound on log p(x), nats, of one batch: `[B]`.

        Args:
          x: `[B, D]`, NaN where missing.
          num_samples: Not used: the bound is a sum over states, not a mean
            over draws.
          seed: Of the first states and the search; None for the model's.
        """
        return self.infer(x, seed).bound

    def infer_points(
        self, x: np.ndarray | tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        found = self.infer(x)
        return found.bound, self._posterior_mean(found.packed, found.weights)

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

    # Latents.

    @property
    def has_binary_latents(self) -> bool:
        return True

    def describe_latents(self) -> str:
        return f"{super().describe_latents()}, {self.num_states} states each"

    def posterior_mode(
        self, x: np.ndarray, index: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns the best state of each data point, float32 `[n, H]`.

        Args:
          x: `[n, D]`, NaN where missing.
          index: int `[n]`, the rows of the training data that they are. What
            training has visited has its stored states, as of its last visit;
            all else is inferred.
        """
        return inference.posterior_mode(self, self._checked_rows(x), index)

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
        inputs.check_count(num_samples=num_samples)
        seed = random.make_seed(seed, _SAMPLING)
        return self._joint.sample(seed, num_samples, mean)

    def singleton_means(self) -> tf.Tensor:
        """Returns the feature of each latent, E[x | s = e_h], `[H, D]`."""
        return self.decode(np.eye(self.num_latents, dtype=np.float32))

    def figures(self, seed: int = 0) -> dict[str, Figure]:
        """Returns samples, and singleton means by falling pi.

        Args:
          seed: Of the samples.
        """
        order = np.argsort(-self.prior_probs.numpy())
        return {
            **super().figures(seed),
            "features": Figure(
                self.singleton_means().numpy()[order],
                "decoder features: what each latent draws alone",
            ),
        }
