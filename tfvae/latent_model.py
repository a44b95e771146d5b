# SPDX-License-Identifier: Apache-2.0
"""Base class of all models: their common interface.

Outside of `tfvae.vae` and `tfvae.tvae`, all code trains, evaluates and draws
models by the methods of `LatentModel`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Self

import keras
import numpy as np
import tensorflow as tf

from tfvae import inputs, resources
from tfvae import ranks as ranks_lib
from tfvae.data import WeightedBatches, WeightedRows, indexed_batches
from tfvae.likelihoods import Likelihood
from tfvae.ops import random
from tfvae.ops.rows import LazyRows

# Number of generated data points in a figure.
_NUM_SAMPLES = 64
# Number of data points that `in_batches` processes at a time.
_BATCH = 1024


class Costs(NamedTuple):
    """What training a model takes in one process, by formulas.

    Attributes:
      memory: Bytes of memory for what belongs to single data points.
      disk: Bytes of disk for that.
      points_per_second: Expected data points a second; None if unknown.
    """

    memory: int
    disk: int
    points_per_second: float | None


class Figure(NamedTuple):
    """Content of a figure of a model, for `tfvae.plots.image_grid`.

    Attributes:
      points: `[n, D]`, one tile each.
      title: Title of the figure.
      per_row: Tiles per row; None to fit the page.
    """

    points: np.ndarray
    title: str
    per_row: int | None = None


class LatentModel(keras.Model):
    """A Keras model of data `[N, D]` with latents `[N, M]`.

    A subclass sets the attributes below, trains in `train_step`, reconstructs
    in `call`, and implements the methods that raise NotImplementedError here.
    The defaults of other methods suit models that store nothing for each data
    point.

    Attributes:
      likelihood: The likelihood p(x | z).
      decoder: The decoder network.
      prior: p(z), with `log_prob(latents)` and `sample(seed, num_samples)`.
      num_latents: M.
      num_observed: D.
      seed: Seed of what is random in the model.
      needs_index: Whether training batches carry the row number of each data
        point, `(x, index)`.
      ranks: The processes that train the model together, see `set_ranks`.
    """

    likelihood: Likelihood
    decoder: keras.layers.Layer
    prior: keras.layers.Layer
    num_latents: int
    num_observed: int
    seed: int
    needs_index: bool = False
    ranks: ranks_lib.Ranks = ranks_lib.ONE_PROCESS

    def _count_and_monitor(self, names: Iterable[str]) -> None:
        """Creates the step counter, and mean metrics of the given names."""
        # Data are not rounded to the type that the networks compute in.
        self.autocast = False
        self._iteration = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int64",
            trainable=False,
            name="iteration",
        )
        self._means = {
            name: keras.metrics.Mean(name=name, dtype="float32")
            for name in (*names, *self.likelihood.monitored())
        }

    def _track_all_weights(self) -> None:
        """Makes TensorFlow's checkpoints hold all that Keras's files hold.

        They leave out what a layer keeps in a list or dictionary, as layers of
        users do, and `assert_existing_objects_matched` does not notice.
        """
        seen = {
            (one.value if isinstance(one, keras.Variable) else one).ref()
            for one in tf.train.TrackableView(self).descendants()
            if isinstance(one, (keras.Variable, tf.Variable))
        }
        holder = tf.Module()
        holder.variables_in_lists = [
            weight.value
            for weight in self.weights
            if weight.value.ref() not in seen
        ]
        self._left_out = holder

    @property
    def iteration(self) -> tf.Variable:
        """Number of training steps so far, int64 scalar."""
        return self._iteration.value

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._means.values())

    def _monitor(
        self, weights: tf.Tensor | None = None, **values: tf.Tensor
    ) -> None:
        """Updates metrics by a batch; `weights` are those of its values."""
        for name, value in values.items():
            self._means[name].update_state(value, weights)

    def _results(self, *names: str) -> dict[str, tf.Tensor]:
        """Returns the running means of metrics, of all by default."""
        return {
            name: self._means[name].result() for name in names or self._means
        }

    def _get_metrics_result_or_logs(self, logs: Any) -> Any:
        """Returns the means over an epoch, or an evaluation, of all ranks."""
        if self.ranks.size == 1:
            return super()._get_metrics_result_or_logs(logs)
        # A rank without data has no logs.
        logs = next(filter(None, self.ranks.gather([*logs])))
        of_model = {one.name: one for one in self.metrics}
        means = [of_model[name] for name in logs]
        totals, counts = self.ranks.all_sum(
            tf.stack([one.total.value for one in means]),
            tf.stack([one.count.value for one in means]),
        )
        values = tf.math.divide_no_nan(totals, counts)
        return dict(zip(logs, tf.unstack(values), strict=True))

    # Keras's methods. Those of arrays are checked before any work; batches of
    # datasets are checked in the graph.

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configures training: an optimizer, and how steps are run.

        Args:
          *args: The optimizer; see `keras.Model.compile`.
          **kwargs: Further arguments of `keras.Model.compile`.

        Raises:
          ValueError: If a loss or metrics are given, as a model has its own,
            or if trainable weights have less than 32 bits.
        """
        super().compile(*args, **kwargs)
        try:
            inputs.check_compiled(self.get_compile_config())
            inputs.check_precision(self.trainable_variables)
        except ValueError:
            self.compiled = False
            raise

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model, as Keras asks where `compile` is custom."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains the model, as `keras.Model.fit`.

        Args:
          x: `[N, D]`, NaN where missing, or a dataset of batches.
          y: See the model's own documentation.
          batch_size: See Keras, as the others that are not listed.
          epochs: Passes over the data.
          verbose: See Keras.
          callbacks: See Keras.
          validation_split: See Keras.
          validation_data: `x`, or a tuple `(x, y)` or `(x, y, sample_weight)`
            of what `evaluate` takes, or a dataset.
          shuffle: See Keras.
          class_weight: Must be None: data points have no classes.
          sample_weight: `[N]`, finite and not negative; the loss is the mean
            of weight times loss over a batch, metrics are weighted means.
          **kwargs: Further arguments of `keras.Model.fit`.

        Raises:
          TypeError: If data are not numeric.
          ValueError: If an argument is not as described.
        """
        _check_no_class_weight(class_weight)
        y = self._checked_arrays(x, y, sample_weight, is_training=True)
        if validation_data is not None:
            validation_data = self._checked_validation(validation_data)
        if self.ranks.size > 1:
            self._check_steps(x, batch_size, kwargs.get("steps_per_epoch"))
        return super().fit(
            x,
            y,
            batch_size,
            epochs,
            verbose,
            callbacks,
            validation_split,
            validation_data,
            shuffle,
            None,
            sample_weight,
            **kwargs,
        )

    def _check_steps(
        self, x: Any, batch_size: int | None, steps: int | None
    ) -> None:
        """Raises a ValueError unless all ranks make the same steps."""
        if steps is None and isinstance(x, tf.data.Dataset):
            steps = int(x.cardinality())
        elif steps is None and inputs.is_array(self._points_of(x)):
            steps = math.ceil(len(self._points_of(x)) / (batch_size or 32))
        of_ranks = self.ranks.gather(steps)
        if len(set(of_ranks)) > 1:
            raise ValueError(
                "`x` must have the same number of batches on each rank, as in "
                "fit(model.batches(x, batch_size), steps_per_epoch=...), got "
                f"{of_ranks!r}"
            )

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Returns the metrics of unseen data, as `keras.Model.evaluate`.

        Args:
          x: `[N, D]`, NaN where missing, or a dataset of batches. On several
            ranks each passes its part, which may be an array without rows, and
            metrics are those of all parts.
          y: See the model's own documentation.
          batch_size: See Keras.
          verbose: See Keras.
          sample_weight: `[N]`, finite and not negative; metrics are weighted
            means.
          **kwargs: Further arguments of `keras.Model.evaluate`.

        Raises:
          TypeError: If data are not numeric.
          ValueError: If an argument is not as described.
        """
        points = self._points_of(x)
        if self.ranks.size > 1 and inputs.is_array(points) and not len(points):
            self.reset_metrics()
            logs = self._get_metrics_result_or_logs({})
            logs = {name: float(value) for name, value in logs.items()}
            if kwargs.get("return_dict"):
                return logs
            return self._flatten_metrics_in_order(logs)
        y = self._checked_arrays(x, y, sample_weight)
        return super().evaluate(
            x, y, batch_size, verbose, sample_weight, **kwargs
        )

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        """Returns the reconstructions of unseen data, `[N, D]`.

        Args:
          x: `[N, D]`, NaN where missing, or a dataset of batches.
          *args: Further arguments of `keras.Model.predict`.
          **kwargs: Likewise.

        Raises:
          TypeError: If data are not numeric.
          ValueError: If `x` is not as described.
        """
        if isinstance(x, (tuple, list)):
            raise ValueError(
                f"`x` must be data alone, got a {type(x).__name__} of {len(x)}"
            )
        self._checked_arrays(x, None, None)
        return super().predict(x, *args, **kwargs)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """One training step, with the arguments of `fit`."""
        _check_no_class_weight(class_weight)
        y = self._checked_arrays(x, y, sample_weight, is_training=True)
        return super().train_on_batch(
            x, y, sample_weight, return_dict=return_dict
        )

    def test_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Metrics of one batch, with the arguments of `evaluate`."""
        y = self._checked_arrays(x, y, sample_weight)
        return super().test_on_batch(x, y, sample_weight, return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """Reconstructions of one batch, `[B, D]`."""
        self._checked_arrays(x, None, None)
        return super().predict_on_batch(x)

    def _checked_arrays(
        self, x: Any, y: Any, weights: Any, is_training: bool = False
    ) -> Any:
        """Validates arrays given to a method of Keras; returns `y`.

        With weights, a missing `y` is replaced by one that means the same:
        Keras drops weights that come without any.
        """
        points = self._points_of(x)
        if points is None:
            raise ValueError("`x` must be data or a dataset, got None")
        if not inputs.is_array(points):
            return y
        if isinstance(points, LazyRows):
            # Keras makes an array of them.
            resources.check_memory(
                4 * math.prod(points.shape),
                f"all {len(points):,} data points as one array",
                "train on model.batches(x, batch_size) instead",
            )
            points = np.asarray(points)
        points = self._checked_rows(points)
        if is_training:
            self.likelihood.check_units(points)
        if weights is not None:
            inputs.check_weights(weights, len(points))
            if y is None:
                y = self._default_targets(points, is_training)
        if y is not None:
            self._check_targets(y, points, is_training)
        return y

    def _checked_validation(self, data: Any) -> Any:
        """Validates `validation_data`; returns it, with `y` beside weights."""
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        y = self._checked_arrays(x, y, weights)
        return data if weights is None else (x, y, weights)

    def _points_of(self, x: Any) -> Any:
        """Returns the data among what is passed as `x`."""
        return x

    def _default_targets(
        self, points: np.ndarray, is_training: bool
    ) -> np.ndarray | None:
        """Returns a `y` that means the same as None, for data `[N, D]`.

        None where there must be one.
        """
        raise NotImplementedError

    def _check_targets(
        self, y: Any, points: np.ndarray, is_training: bool
    ) -> None:
        """Raises TypeError or ValueError unless `y` is what it has to be."""
        raise NotImplementedError

    # Training.

    def set_ranks(self, ranks: ranks_lib.Ranks) -> None:
        """Makes this model the one of several processes that train together.

        Each process passes its own part of the data to all methods. Weights
        are set to those of rank 0; in training, gradients and sums over data
        points are those of all ranks.

        Args:
          ranks: The processes.

        Raises:
          ValueError: If the model has something that works in one process
            only, such as batch normalization.
        """
        problems = self._needs_one_process() if ranks.size > 1 else []
        if problems:
            raise ValueError("; ".join(problems))
        self.ranks = self.likelihood.ranks = ranks
        self.train_function = None  # To be traced again.
        own = {id(variable) for variable in self.row_variables()}
        self.share(one for one in self.variables if id(one) not in own)

    def _needs_one_process(self) -> list[str]:
        """Returns what keeps several processes from training the model."""
        return [
            "`model` must not normalize by its batch on several ranks, as each "
            "has a part of it; LayerNormalization or GroupNormalization do not,"
            f" got the layer {layer.name!r}"
            for layer in self._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
            and layer.trainable
        ]

    def share(self, variables: Iterable[keras.Variable]) -> None:
        """Sets variables to their values of rank 0, on all ranks.

        Args:
          variables: Of the model.
        """
        if self.ranks.size > 1:
            for variable in variables:
                variable.assign(self.ranks.broadcast(variable.numpy()))

    def _seed_of_rank(self, *path: int | tf.Tensor) -> tf.Tensor:
        """Derives a `[2]` int32 seed that is this rank's own."""
        if self.ranks.size > 1:
            path = (*path, self.ranks.rank)
        return random.make_seed(self.seed, *path)

    def row_variables(self) -> list[keras.Variable]:
        """Returns the weights with one row for each data point."""
        return []

    @property
    def capacity(self) -> int | None:
        """The maximum number of training points; None for any number."""
        return None

    def draw_first_states(self) -> None:
        """Draws what the model has for each data point before training.

        Models do so when they are made, except in `tvae.undrawn_states`.
        """

    def arrays_on_disk(self) -> dict[str, np.ndarray]:
        """Returns what training changes beside weights, memory-mapped files.

        Checkpoints have it; Keras's files do not.
        """
        return {}

    def with_capacity(self, num_data: int) -> Self:
        """Returns a model with these parameters for `num_data` data points.

        Args:
          num_data: The maximum number of training points.

        Returns:
          This model if its capacity is None or `num_data`; otherwise a copy,
          which must be compiled before it is trained.
        """
        return self

    def adapt(self, x: np.ndarray) -> None:
        """Initialises data-dependent parameters; call it before training.

        Data may have any units: parameters are standardised by these.

        Args:
          x: `[N, D]`, NaN where missing.

        Raises:
          ValueError: If `x` has a wrong shape, infinite values, rows without
            any observed value, or values outside the likelihood's support.
        """
        self.likelihood.adapt(self._checked_rows(x))

    def _checked_rows(self, x: Any) -> np.ndarray:
        """Returns data of at least one row, validated."""
        x = self._checked_data(x)
        if not len(x):
            raise ValueError("`x` must have at least one row, got none")
        return x

    def _checked_data(self, x: Any) -> np.ndarray:
        """Returns validated data; `LazyRows`, checked by their maker, stay."""
        if isinstance(x, LazyRows):
            inputs.check_data(x[:1], self.num_observed)
        else:
            x = inputs.check_data(x, self.num_observed)
        self.likelihood.validate(x)
        return x

    def batches(
        self,
        x: np.ndarray,
        batch_size: int,
        seed: int = 0,
        start_epoch: int = 0,
        *,
        weights: np.ndarray | None = None,
        path: Any = None,
        block_rows: int | None = None,
    ) -> tf.data.Dataset:
        """Returns an infinite dataset of shuffled batches for `fit`.

        Args:
          x: `[N, D]`, NaN where missing.
          batch_size: B; the last batch of an epoch may be smaller. On several
            ranks, each of which passes its own data, it is that of all
            together, and each has its part of every batch.
          seed: Seed of the order.
          start_epoch: The first epoch.
          weights: `[N]`, relative frequencies by which data points are drawn,
            with replacement; None to draw each point once per epoch. On several
            ranks they are relative to those of all: a batch has more points of
            some ranks than of others, maybe none.
          path: File for features of the data that a model computes once, if
            they do not fit into memory; None to raise a ValueError in this
            case.
          block_rows: Consecutive data points that are visited together, as
            suits data or states on disk, see `indexed_batches`.
        """
        if weights is not None:
            num_data = sum(self.ranks.gather(len(x)))
            start = start_epoch * math.ceil(num_data / batch_size)
            if self.ranks.size > 1:
                return self._drawn_batches(x, weights, batch_size, seed, start)
            settings = (x, weights, batch_size, seed, self.needs_index)
            if isinstance(x, LazyRows):
                return WeightedRows(*settings).dataset(start)
            return WeightedBatches(*settings).dataset(start, infinite=True)
        num_data, seed = self._order_of_ranks(len(x), seed)
        batches = indexed_batches(
            x, batch_size, seed, start_epoch, num_data, block_rows
        )
        if self.needs_index:
            return batches
        return batches.map(lambda data, index: data)

    def _drawn_batches(
        self,
        x: np.ndarray,
        weights: np.ndarray,
        batch_size: int,
        seed: int,
        start: int,
    ) -> tf.data.Dataset:
        """Returns this rank's part of weighted batches, see `batches`.

        All ranks draw the rank of each data point of a batch, by the sum of
        its weights and the same seed; each then draws its own points.
        """
        rank, size = self.ranks.rank, self.ranks.size
        of_ranks = self.ranks.gather(float(np.sum(weights, dtype=np.float64)))
        if sum(of_ranks) == 0.0:
            raise ValueError(
                "`weights` must have a positive sum over all ranks, got 0"
            )
        if not np.any(weights):
            weights = np.ones_like(weights)  # None of its points is drawn.
        ends = np.cumsum(of_ranks)
        ends = tf.constant(ends[:-1] / ends[-1], tf.float32)

        def kept(step: tf.Tensor, drawn: Any) -> Any:
            uniforms = random.uniform(
                random.make_seed(seed, size, step), [batch_size]
            )
            ranks = tf.searchsorted(ends, uniforms, side="right")
            return tf.nest.map_structure(
                lambda one: tf.boolean_mask(one, tf.equal(ranks, rank)), drawn
            )

        if isinstance(x, LazyRows):
            _, own_seed = self._order_of_ranks(len(x), seed)
            batches = WeightedRows(
                x, weights, batch_size, own_seed, self.needs_index
            ).dataset(start)
        else:
            batches = WeightedBatches(
                x, weights, batch_size, seed, with_index=self.needs_index
            ).dataset(start, shard=(rank, size), infinite=True)
        steps = tf.data.Dataset.range(start, tf.int64.max)
        return tf.data.Dataset.zip(steps, batches).map(kept)

    def _order_of_ranks(self, num_data: int, seed: int) -> tuple[int, int]:
        """Returns the data points of all ranks, and this one's seed."""
        # Orders of seeds of 32 bits differ on all ranks.
        return sum(self.ranks.gather(num_data)), seed + (self.ranks.rank << 32)

    def gradient_steps(self, num_data: int, batch_size: int) -> int:
        """Returns the number of optimizer steps in an epoch of training.

        Args:
          num_data: N.
          batch_size: B.
        """
        return math.ceil(num_data / batch_size)

    def training_callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns the callbacks that `fit` needs for this model."""
        return []

    def calibrate(self, x: np.ndarray) -> None:
        """Sets parameters with closed-form optima to these, after training.

        By default it does nothing.

        Args:
          x: `[N, D]`, the training data, NaN where missing.
        """

    def with_fitted_prior(
        self, prior: Any, x: np.ndarray, **settings: Any
    ) -> LatentModel:
        """Returns the model with a prior fitted to the latents of data.

        Args:
          prior: The prior to fit.
          x: `[N, D]`, NaN where missing.
          **settings: Further arguments of `tfvae.priors.fit_prior`.

        Raises:
          TypeError: If the prior of the model can not be replaced.
        """
        raise TypeError(
            f"`prior` must be the one that a {type(self).__name__} fits in "
            f"training, got {type(prior).__name__}"
        )

    def make_train_function(self, force: bool = False) -> Any:
        """Builds the optimizer before the training step is traced.

        Keras builds it in the first step, which would then be traced twice, as
        it creates variables.
        """
        if self.ranks.size > 1 and self.steps_per_execution > 1:
            raise ValueError(
                "`steps_per_execution` must be 1 on several ranks, which have "
                f"to sum in the same order, got {self.steps_per_execution}"
            )
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def _penalties(self) -> tf.Tensor:
        """Returns the sum of the layers' regularization losses."""
        return tf.add_n(
            [
                tf.constant(0.0),
                *(tf.cast(penalty, tf.float32) for penalty in self.losses),
            ]
        )

    # Unseen data.

    def predict_step(self, data: Any) -> tf.Tensor:
        """Returns the reconstruction of a batch of unseen data."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self(x)

    def reconstruct(self, x: np.ndarray | tf.Tensor) -> tf.Tensor:
        """Validates a batch and returns its reconstruction, `[B, D]`."""
        return self(self._checked(x))

    def stored_reconstruction(
        self, x: np.ndarray | tf.Tensor, index: np.ndarray | tf.Tensor
    ) -> np.ndarray:
        """Reconstructs training data from their stored posteriors, `[K, D]`.

        Args:
          x: `[K, D]`, training data.
          index: int `[K]`, their indices.

        Raises:
          TypeError: If the model stores no posteriors (its capacity is None).
        """
        raise TypeError(
            "`model` must store the posteriors of its training data, got a "
            f"{type(self).__name__}; use reconstruct(x)"
        )

    def log_likelihood_bound(
        self,
        x: np.ndarray | tf.Tensor,
        num_samples: int | tf.Tensor = 128,
        seed: int | tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns a lower bound on log p(x), nats, of one batch: `[B]`.

        Args:
          x: `[B, D]`, NaN where missing.
          num_samples: Number of samples, if the bound is a Monte Carlo
            estimate.
          seed: Seed of random draws; None for that of the model.
        """
        raise NotImplementedError

    def bound_terms(
        self, x: np.ndarray, batch_size: int = 256
    ) -> dict[str, float]:
        """Returns the means over data of the terms that `evaluate` returns.

        Args:
          x: `[N, D]`, NaN where missing.
          batch_size: Number of data points processed at a time.

        Returns:
          The terms by name; empty if the bound is not a sum of terms.
        """
        return {}

    def infer_points(
        self, x: np.ndarray | tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns bound and reconstruction of a batch of unseen data.

        Args:
          x: `[B, D]`, NaN where missing.

        Returns:
          The bound on log p(x), nats, `[B]`, and the reconstruction, `[B, D]`.
        """
        return self.log_likelihood_bound(x), self.reconstruct(x)

    # Latents.

    @property
    def has_binary_latents(self) -> bool:
        """Whether latents are zeros and ones."""
        raise NotImplementedError

    @property
    def prior_probs(self) -> keras.Variable | None:
        """float32 weight `[M]`, the probability that each binary latent is one.

        None for a model whose prior has no such weight.
        """
        return None

    def describe_latents(self) -> str:
        """Returns a short description of the latents, for messages."""
        return f"{self.num_latents} latents"

    def posterior_mode(
        self, x: np.ndarray, index: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns the most probable latents of any number of data points.

        Args:
          x: `[n, D]`, NaN where missing.
          index: int `[n]`, indices of the points in the training data; None for
            unseen data.

        Returns:
          float32 `[n, M]`.
        """
        raise NotImplementedError

    def decode(self, latents: np.ndarray | tf.Tensor) -> tf.Tensor:
        """Returns the mean of p(x | z): `[..., M]` to `[..., D]`."""
        raise NotImplementedError

    def sample_prior(
        self, num_samples: int | tf.Tensor, seed: int | tf.Tensor = 0
    ) -> tf.Tensor:
        """Draws latents from p(z), float32 `[num_samples, M]`."""
        num_samples = inputs.check_count(num_samples=num_samples)
        return self.prior.sample(random.make_seed(seed), num_samples)

    def sample(
        self,
        num_samples: int | tf.Tensor,
        seed: int | tf.Tensor = 0,
        mean: bool = False,
    ) -> tf.Tensor:
        """Draws observations: z ~ p(z), then x ~ p(x | z).

        Args:
          num_samples: Number of samples.
          seed: Seed of the draws.
          mean: Whether to return E[x | z] instead of drawing x.

        Returns:
          float32 `[num_samples, D]`.
        """
        raise NotImplementedError

    def singleton_means(self) -> tf.Tensor | None:
        """Returns the decoder means with a single active latent, `[M, D]`.

        None for models whose latents are not binary.
        """
        return None

    def training_costs(self, batch_size: int) -> Costs | None:
        """Returns what training takes, roughly; None if it is not known.

        Args:
          batch_size: Data points of a batch of this process.
        """
        del batch_size
        return None

    def figures(self, seed: int = 0) -> dict[str, Figure]:
        """Returns the figures of a trained model.

        Args:
          seed: Seed of random draws.

        Returns:
          Figures by file name, without extension.
        """
        samples = self.sample(_NUM_SAMPLES, seed, mean=True)
        return {
            "samples": Figure(np.asarray(samples), "samples from the model")
        }

    def _checked(self, x: Any) -> np.ndarray | tf.Tensor:
        """Validates data in eager mode; returns it unchanged in a graph."""
        if not tf.executing_eagerly():
            return x
        return self._checked_data(x)

    def _as_batch(self, x: Any) -> tf.Tensor:
        return inputs.as_batch(x, self.num_observed, self.likelihood.support)


def _check_no_class_weight(class_weight: Any) -> None:
    if class_weight is not None:
        raise ValueError(
            "`class_weight` must be None, as data points have no classes; "
            f"pass `sample_weight`, got {class_weight!r}"
        )


def in_batches(
    function: Callable[[np.ndarray], tf.Tensor], rows: np.ndarray
) -> np.ndarray:
    """Applies a function of a batch to any number of rows, at least one.

    Args:
      function: From `[b, K]` to `[b, ...]`.
      rows: `[n, K]`.

    Returns:
      float32 `[n, ...]`.
    """
    rows = np.asarray(rows, np.float32)
    return np.concatenate(
        [
            np.asarray(function(rows[i : i + _BATCH]), np.float32)
            for i in range(0, len(rows), _BATCH)
        ]
    )
