# SPDX-License-Identifier: Apache-2.0
"""Construction and training of a configured model, shared by all runs."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import numbers
import sys
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import gin
import keras
import numpy as np
import tqdm

import tfvae.callbacks
import tfvae.checkpoints
import tfvae.schedules
from tfvae import ranks as ranks_lib
from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.data import Observations, ShardedRows, sample_rows
from tfvae.data.blocks import window_memory
from tfvae.joint_restoration import JointRestoration
from tfvae.latent_model import LatentModel
from tfvae.likelihoods import GaussianLikelihood, Likelihood
from tfvae.ops.rows import LazyRows, part_of
from tfvae.optimizers import FusedAdam
from tfvae.priors import Prior
from tfvae.resources import check_disk_space, peak_memory
from tfvae.restoration import Restoration
from tfvae.runs import config, estimates, identity, training_page
from tfvae.runs.run_directory import RunDirectory
from tfvae.tvae import TVAE, undrawn_states
from tfvae.vae import VAE, Elbo, Encoder, learnable
from tfvae.vae.objectives import Objective

# Bytes of data points, of those in files, that a model is adapted to.
_ADAPTED_BYTES = 2**28

Observer = Callable[[int], tfvae.callbacks.Observation]
"""From the number of completed epochs to the observed scalars and images."""


class Experiment(NamedTuple):
    """A model and its data, ready to be trained or restored."""

    model: LatentModel
    observations: Observations
    """The data of all ranks of the model."""
    restoration: Restoration | JointRestoration | None
    """The restoration of the images whose patches are the data, or None."""
    seed: int

    def rows_of_rank(self) -> Any:
        """Returns the data points `[n, D]` that this process trains on."""
        points = self.observations.train
        return part_of(points, self.model.ranks.rows(len(points)))


@typed_gin.configurable
@typed_gin.uses(
    passes={
        "decoder": typed_gin.arguments(
            "the number of outputs that `experiment.likelihood` needs"
        ),
        "likelihood": typed_gin.arguments(),
        "model": typed_gin.arguments(
            "`experiment.decoder`",
            likelihood="`experiment.likelihood`",
            num_data="the number of points of `experiment.data`",
            seed="`experiment.seed`",
        ),
    }
)
def experiment(
    prepare: Callable[[Any], None] | None = None,
    ranks: ranks_lib.Ranks = ranks_lib.ONE_PROCESS,
    draws_states: bool = True,
    *,
    data: Observations | Restoration | JointRestoration = gin.REQUIRED,
    model: Callable[..., LatentModel] = TVAE,
    decoder: Callable[..., keras.layers.Layer] = gin.REQUIRED,
    likelihood: Callable[[], Likelihood] = GaussianLikelihood,
    seed: int = 0,
    max_points: int | None = None,
) -> Experiment:
    """Builds the configured model for the configured data.

    Args:
      prepare: Called with the restoration, if `data` is one, before its
        patches are cut and the model is made, which may take long.
      ranks: The processes that train the model; each reads all data, and
        trains on its rows of them.
      draws_states: Whether the model draws first states of the data points;
        False where `fit` follows, which does so unless it resumes, or where a
        checkpoint is restored.
      data: Data points, or the restoration of images that provides them.
      model: Called with the decoder, the likelihood, the number of data
        points and the seed.
      decoder: Called with the number of outputs.
      likelihood: Called without arguments. Its noise is that of an image to
        restore, where that is known.
      seed: Seed of the decoder's initial weights, of the model's random draws
        and of the order of the data.
      max_points: The maximum number of training points, evenly spaced; with a
        limit, an image can not be restored. None for all.

    Returns:
      The experiment.

    Raises:
      TypeError: If `data` is neither, or an image is to be restored by a model
        other than a TVAE.
      ValueError: If `max_points` is less than 1, `seed` is not an integer
        from 0 to 2**32 - 1, there are fewer data points than processes, or data
        are outside the likelihood's support.
    """
    if not isinstance(seed, numbers.Integral) or not 0 <= seed < 2**32:
        raise ValueError(
            "`experiment.seed` must be an integer from 0 to 2**32 - 1, got "
            f"{seed!r}."
        )
    restoration: Restoration | JointRestoration | None = None
    observations = data
    if isinstance(data, Restoration | JointRestoration):
        if prepare is not None:
            prepare(data)
        restoration, observations = data, data.observations()
    if not isinstance(observations, Observations):
        raise TypeError(
            "`experiment.data` must be Observations or a Restoration, such as "
            f"@bars() or @corrupted_image(), got {data!r}."
        )
    if max_points is not None:
        restoration, observations = None, _thinned(observations, max_points)
    keras.utils.set_random_seed(seed)
    noise = likelihood()
    if isinstance(data, Restoration | JointRestoration):
        noise = data.likelihood(noise)
    num_data = observations.num_data
    if num_data < ranks.size:
        raise ValueError(
            "`experiment.data` must have a data point for each process, got "
            f"{num_data} for {ranks.size}; start fewer"
        )
    with contextlib.nullcontext() if draws_states else undrawn_states():
        built = model(
            decoder(noise.num_outputs(observations.num_observed)),
            likelihood=noise,
            num_data=len(range(num_data)[ranks.rows(num_data)]),
            seed=seed,
        )
    if restoration is not None and built.capacity is None:
        raise TypeError(
            "`experiment.model` must be @TVAE to restore an image, got "
            f"{type(built).__name__}."
        )
    _adapt(built, observations.train)
    built.set_ranks(ranks)
    if observations.test is not None:
        try:
            noise.validate(observations.test)
        except ValueError as err:
            raise ValueError(f"test data: {err}.") from err
    config.refuse_passed()
    return Experiment(built, observations, restoration, seed)


@typed_gin.register
@typed_gin.uses(
    passes={
        "encoder": typed_gin.arguments("`vae.network`", "`vae.num_latents`"),
        "network": typed_gin.arguments(
            "the number of outputs that `vae.encoder` needs"
        ),
        "prior": typed_gin.arguments("`vae.num_latents`"),
    },
    builds={
        VAE: typed_gin.arguments(
            "`vae.encoder`",
            "`experiment.decoder`",
            "`vae.prior`",
            "`experiment.likelihood`",
            objective="`vae.objective`",
            seed="`experiment.seed`",
        )
    },
    defaults={"objective": Elbo},
)
def vae(
    decoder: keras.layers.Layer,
    likelihood: Likelihood,
    num_data: int,
    seed: int,
    *,
    network: Callable[[int], keras.Model],
    prior: Callable[[int], Prior],
    num_latents: int,
    encoder: Callable[..., Encoder] = learnable,
    objective: Objective | None = None,
) -> VAE:
    """Builds an amortised VAE, as a value of `experiment.model`.

    Args:
      decoder: The decoder.
      likelihood: The likelihood.
      num_data: Not used; only a TVAE needs it.
      seed: Seed of the model's random draws.
      network: Returns the encoder network; called with the number of outputs.
      prior: Returns the prior; called with the number of latents.
      num_latents: M.
      encoder: Returns the encoder, with all, some or none of the network's
        layers trainable; called with `network` and the number of latents.
      objective: The training objective; None for the negative ELBO.

    Raises:
      TypeError: If `network`, `prior` or `encoder` is not callable.
    """
    for name, part in (
        ("encoder", encoder),
        ("network", network),
        ("prior", prior),
    ):
        if not callable(part):
            raise TypeError(
                f"`vae.{name}` must be a function that returns it, such as "
                f"@learnable, @conv_encoder or @RealNVPPrior, got {part!r}."
            )
    return VAE(
        encoder(network, num_latents),
        decoder,
        prior(num_latents),
        likelihood,
        objective=objective or Elbo(),
        seed=seed,
    )


def _adapt(model: LatentModel, points: Any) -> None:
    """Adapts a model to training data, to a sample of what is in large files.

    It is the same in every process.
    """
    if not isinstance(points, LazyRows) or points.block_rows is None:
        model.adapt(points)
        return
    model.likelihood.validate(points)
    count = max(1, _ADAPTED_BYTES // (4 * points.shape[1]))
    model.adapt(sample_rows(points, count))


def _thinned(observations: Observations, max_points: int) -> Observations:
    """Returns at most `max_points` training points, evenly spaced."""
    check_counts(**{"experiment.max_points": max_points})
    every = max(observations.num_data // max_points, 1)
    kept = slice(0, every * max_points, every)

    def thinned(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[kept]

    return dataclasses.replace(
        observations,
        train=part_of(observations.train, kept),
        train_labels=thinned(observations.train_labels),
        weights=thinned(observations.weights),
        log_likelihood=None,
    )


@typed_gin.register
@typed_gin.uses(
    builds={
        keras.optimizers.Adam: typed_gin.arguments(
            "`cyclical_adam.min_learning_rate` and "
            "`cyclical_adam.max_learning_rate`"
        ),
        tfvae.schedules.TriangularCyclical: typed_gin.arguments(
            "`cyclical_adam.min_learning_rate`",
            "`cyclical_adam.max_learning_rate`",
            "`cyclical_adam.half_cycle_epochs`",
        ),
    }
)
def cyclical_adam(
    steps_per_epoch: int,
    *,
    min_learning_rate: float = 1e-4,
    max_learning_rate: float = 0.01,
    half_cycle_epochs: float = 10,
) -> keras.optimizers.Optimizer:
    """Returns Adam with a triangular cyclical learning rate.

    Args:
      steps_per_epoch: Optimizer steps of an epoch.
      min_learning_rate: Learning rate at the beginning of a cycle.
      max_learning_rate: Learning rate in the middle of a cycle.
      half_cycle_epochs: Epochs from the minimum to the maximum.
    """
    # Not the fused form: the recorded results were obtained with Keras's, and
    # rounding differences suffice to move hard runs, such as bars, to other
    # local optima.
    return keras.optimizers.Adam(
        tfvae.schedules.TriangularCyclical(
            min_learning_rate,
            max_learning_rate,
            max(1, round(half_cycle_epochs * steps_per_epoch)),
        )
    )


@typed_gin.register
@typed_gin.uses(
    builds={
        FusedAdam: typed_gin.arguments(
            "`constant_adam.learning_rate`", epsilon="`constant_adam.epsilon`"
        )
    }
)
def constant_adam(
    steps_per_epoch: int,
    *,
    learning_rate: float = 1e-3,
    epsilon: float = 1e-7,
) -> keras.optimizers.Optimizer:
    """Returns Adam with a constant learning rate and fused updates.

    Args:
      steps_per_epoch: Not used.
      learning_rate: The learning rate.
      epsilon: Adam's epsilon; the default is that of Keras (PyTorch: 1e-8).
    """
    return FusedAdam(learning_rate, epsilon=epsilon)


@typed_gin.configurable
@typed_gin.uses(
    passes={"optimizer": typed_gin.arguments("the gradient steps of an epoch")}
)
def fit(
    run: RunDirectory,
    parts: Experiment,
    observer: Observer,
    *,
    epochs: int = gin.REQUIRED,
    batch_size: int = 32,
    optimizer: Callable[[int], keras.optimizers.Optimizer] = cyclical_adam,
    observe_every: int = 10,
    checkpoint_every: int = 1,
    keep_checkpoints: int = 2,
    steps_per_execution: int = 1,
    block_rows: int | None = None,
) -> list[dict[str, float]]:
    """Trains a model, from the last checkpoint of the run if there is one.

    Data order, learning rate and random numbers depend only on the seed and
    the epoch, so an interrupted and resumed run gives the same results as an
    uninterrupted one.

    Args:
      run: Folder of the run, locked.
      parts: The model and its data.
      observer: Called every `observe_every` epochs.
      epochs: Total number of epochs of the run.
      batch_size: Data points of a batch, B.
      optimizer: Returns the optimizer; called with the number of gradient
        steps of an epoch.
      observe_every: Epochs between two calls of `observer`.
      checkpoint_every: Epochs between two checkpoints.
      keep_checkpoints: Number of checkpoints that remain on disk.
      steps_per_execution: The maximum of `steps_per_execution` of Keras. The
        largest number is used that divides the steps of an epoch, as a resumed
        run would differ otherwise. Larger values save time if a step takes
        less than a few milliseconds.
      block_rows: Consecutive data points that are visited together, for states
        on disk that exceed the memory; of shards, their own number if None, and
        of other data none.

    Returns:
      The metrics of each epoch; of ranks but the first, of those before.

    Raises:
      TypeError: If `optimizer` is not a function that returns an optimizer.
      ValueError: If a value is out of range, `epochs` is less than the number
        of epochs already trained, or the run was trained on other data.
      OSError: If there is not enough disk space for the checkpoints.
      DivergedError: If the bound is not finite; the checkpoint of the epoch
        before is kept.
    """
    counts = {
        "epochs": epochs,
        "batch_size": batch_size,
        "observe_every": observe_every,
        "checkpoint_every": checkpoint_every,
        "keep_checkpoints": keep_checkpoints,
        "steps_per_execution": steps_per_execution,
        **({} if block_rows is None else {"block_rows": block_rows}),
    }
    check_counts(**{f"fit.{name}": count for name, count in counts.items()})
    steps = math.ceil(parts.observations.num_data / batch_size)
    _compile(parts, optimizer, batch_size, steps_per_execution)
    checksum = _checksum(parts.observations.train)
    start, rows = _resume(run, parts, epochs, checksum)
    _check_room(run, parts.model, keep_checkpoints + 1)
    if parts.model.ranks.rank:
        _follow(
            run,
            parts,
            start,
            epochs,
            (batch_size, block_rows),
            (checkpoint_every, keep_checkpoints),
            observe=(
                tfvae.callbacks.Observe(observer, observe_every)
                if parts.restoration is not None
                else None
            ),
        )
        return rows
    run.write_config()
    table = tfvae.callbacks.MetricsTable(run.metrics, rows)
    observe = tfvae.callbacks.Observe(observer, observe_every)
    saver = _saver(run, table, checksum, checkpoint_every, keep_checkpoints)
    if start < epochs:
        _announce(parts, start, epochs, steps)
        if parts.restoration is None:
            _announce_costs(parts, batch_size, keep_checkpoints + 1)
        with run.our_errors():
            callbacks = _callbacks(run, parts, observe, table, saver)
            if parts.restoration is not None:
                callbacks.append(
                    _estimate(parts.restoration, parts.model, epochs, steps)
                )
            else:
                callbacks.append(_report(run, parts, table, epochs))
            _train(
                run, parts, start, epochs, (batch_size, block_rows), callbacks
            )
    return table.rows


def _follow(
    run: RunDirectory,
    parts: Experiment,
    start: int,
    epochs: int,
    sizes: tuple[int, int | None],
    checkpoints: tuple[int, int],
    observe: tfvae.callbacks.Observe | None,
) -> None:
    """Trains as a rank that writes only its part of the checkpoints.

    Args:
      run: Folder of the run.
      parts: The model and its data.
      start: Epochs already trained.
      epochs: Total number of epochs.
      sizes: B, and the consecutive data points that are visited together.
      checkpoints: Epochs between two, and how many are kept.
      observe: The observer of a restoration, to which all ranks contribute.
    """
    every, keep = checkpoints
    saver = tfvae.checkpoints.SaveCheckpoints(run.checkpoints, every, keep=keep)
    callbacks = [
        tfvae.callbacks.StopWhenDiverged(),
        *parts.model.training_callbacks(),
        *([] if observe is None else [observe]),
        saver,
    ]
    if start < epochs:
        with run.our_errors():
            _train(run, parts, start, epochs, sizes, callbacks)


def _checksum(points: np.ndarray | LazyRows) -> int:
    """Returns the CRC-32 of data points, the same for lazy ones.

    Of shards it is that of their checksums, so that no values are read.
    """
    if isinstance(points, ShardedRows):
        return points.crc32
    if not isinstance(points, LazyRows):
        return zlib.crc32(points.data)
    checksum = 0
    for _, part in points.parts():
        checksum = zlib.crc32(part.data, checksum)
    return checksum


def _compile(
    parts: Experiment,
    optimizer: Callable[[int], keras.optimizers.Optimizer],
    batch_size: int,
    steps_per_execution: int,
) -> None:
    """Prepares a model for training; see `fit`."""
    num_data = parts.observations.num_data
    gradient_steps = parts.model.gradient_steps(num_data, batch_size)
    steps = math.ceil(num_data / batch_size)
    if parts.model.ranks.size > 1:
        steps_per_execution = 1  # So that ranks sum in the same order.
    parts.model.compile(
        optimizer=_made_optimizer(optimizer, gradient_steps),
        steps_per_execution=_largest_divisor(steps, steps_per_execution),
    )


def _made_optimizer(
    optimizer: Callable[[int], keras.optimizers.Optimizer], steps: int
) -> keras.optimizers.Optimizer:
    """Calls `optimizer`, unless it is a class.

    An optimizer class would take the number of steps for its learning rate.
    """
    made = None
    if callable(optimizer) and not inspect.isclass(optimizer):
        made = optimizer(steps)
    if not isinstance(made, keras.optimizers.Optimizer):
        raise TypeError(
            "`fit.optimizer` must be a function from the number of gradient "
            "steps of an epoch to an optimizer, such as @cyclical_adam, got "
            f"{optimizer!r}."
        )
    return made


def _largest_divisor(number: int, limit: int) -> int:
    """Returns the largest divisor of `number` that is at most `limit`."""
    return max(n for n in range(1, min(number, limit) + 1) if number % n == 0)


def _resume(
    run: RunDirectory, parts: Experiment, epochs: int, checksum: int
) -> tuple[int, list[dict[str, float]]]:
    """Restores the model from the last checkpoint of the run, if there is one.

    Args:
      run: Folder of the run.
      parts: The experiment, its model compiled.
      epochs: Total number of epochs of the run.
      checksum: CRC-32 of the training data.

    Returns:
      The number of epochs already trained, and their metrics.

    Raises:
      ValueError: If it was trained on other data, or for more epochs.
    """
    restored = tfvae.checkpoints.restore_latest(run.checkpoints, parts.model)
    if restored is None:
        parts.model.draw_first_states()
        return 0, []
    identity.check_data(
        run.path,
        restored.extra.get("data_crc32", checksum),
        checksum,
        parts.observations.name,
    )
    if restored.epoch > epochs:
        raise ValueError(
            f"`fit.epochs` must be at least {restored.epoch}, the number of "
            f"epochs already trained in {run.path}, got {epochs!r}."
        )
    return restored.epoch, restored.extra["rows"]


def _check_room(
    run: RunDirectory, model: LatentModel, num_checkpoints: int
) -> None:
    """Raises an OSError if the checkpoints do not fit on the disk."""
    check_disk_space(
        run.path,
        num_checkpoints * tfvae.checkpoints.checkpoint_bytes(model),
        f"writing to {run.path}",
    )


def _saver(
    run: RunDirectory,
    table: tfvae.callbacks.MetricsTable,
    checksum: int,
    every: int,
    keep: int,
) -> tfvae.checkpoints.SaveCheckpoints:
    """Returns the callback that saves the checkpoints `_resume` reads."""
    return tfvae.checkpoints.SaveCheckpoints(
        run.checkpoints,
        every,
        keep=keep,
        extra=lambda: {"rows": table.rows, "data_crc32": checksum},
    )


def _callbacks(
    run: RunDirectory,
    parts: Experiment,
    observe: tfvae.callbacks.Observe,
    table: tfvae.callbacks.MetricsTable,
    saver: tfvae.checkpoints.SaveCheckpoints,
) -> list[keras.callbacks.Callback]:
    """Returns all callbacks of a run, in the order that they depend on."""
    factors = {}
    if parts.restoration is not None:
        is_transformed = parts.restoration.is_transformed
        # That of a transform has no units, and is not printed.
        factors["noise_std"] = (
            math.nan if is_transformed else parts.restoration.in_units(1.0)[0]
        )
    return [
        tfvae.callbacks.StopWhenDiverged(),
        *parts.model.training_callbacks(),
        observe,
        table,
        tfvae.callbacks.TensorBoardLog(
            run.tensorboard, observe, {"config.gin": config.text_of_run()}
        ),
        saver,
        tfvae.callbacks.Progress(factors=factors),
    ]


def _estimate(
    restoration: Restoration | JointRestoration,
    model: LatentModel,
    epochs: int,
    steps: int,
) -> tfvae.callbacks.MeasureSteps:
    """Returns the callback that prints how long a restoration will take."""

    def announce(steps_done: int, seconds_per_step: float) -> None:
        # What comes later: the copy of a checkpoint, and four float64 images
        # to merge means and variances in.
        still_needed = max(
            tfvae.checkpoints.checkpoint_bytes(model) // model.ranks.size,
            4 * 8 * restoration.num_entries,
        )
        line = estimates.line(
            restoration,
            epochs,
            (epochs * steps - steps_done) * seconds_per_step,
            epochs * steps * seconds_per_step,
            peak_memory() + still_needed,
        )
        tqdm.tqdm.write(line)  # Above a bar, if there is one.
        sys.stdout.flush()

    return tfvae.callbacks.MeasureSteps(announce)


def page_writer(
    run: RunDirectory, parts: Experiment, epochs: int
) -> training_page.Writer:
    """Returns what writes the page of a training run."""
    found = parts.observations.log_likelihood
    references = {} if found is None else {"generating parameters": found}
    return training_page.Writer(run.path, epochs, references)


def _report(
    run: RunDirectory,
    parts: Experiment,
    table: tfvae.callbacks.MetricsTable,
    epochs: int,
) -> keras.callbacks.Callback:
    """Returns the callback that writes the page of a training run."""
    writer = page_writer(run, parts, epochs)
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: writer.refresh(table.rows),
        on_train_end=lambda logs: writer.write(table.rows),
    )


def _train(
    run: RunDirectory,
    parts: Experiment,
    start: int,
    epochs: int,
    sizes: tuple[int, int | None],
    callbacks: list[keras.callbacks.Callback],
) -> None:
    """Trains the compiled model from epoch `start` to `epochs`."""
    data = parts.observations
    batch_size, block_rows = sizes
    ranks = parts.model.ranks
    features = run.features
    if ranks.size > 1:
        features = features.with_stem(f"{features.stem}-{ranks.rank}")
    rows = ranks.rows(data.num_data)
    batches = parts.model.batches(
        parts.rows_of_rank(),
        batch_size,
        parts.seed,
        start,
        weights=None if data.weights is None else data.weights[rows],
        path=features,
        block_rows=block_rows,
    )
    parts.model.fit(
        batches,
        steps_per_epoch=math.ceil(data.num_data / batch_size),
        initial_epoch=start,
        epochs=epochs,
        shuffle=False,  # The batches are already shuffled.
        verbose=0,
        callbacks=callbacks,
    )
    features.unlink(missing_ok=True)


def _announce(parts: Experiment, start: int, epochs: int, steps: int) -> None:
    """Prints a summary of the data and the model before training."""
    data, model = parts.observations, parts.model
    action = f"resuming after epoch {start}" if start else "training"
    print(
        f"{data.name}: {data.num_data:,} data points of "
        f"{data.num_observed:,} dimensions, {model.describe_latents()}; "
        f"{action}, {epochs} epochs of {steps:,} steps",
        flush=True,
    )


def _announce_costs(
    parts: Experiment, batch_size: int, num_checkpoints: int
) -> None:
    """Prints what training takes where the model knows it."""
    model, train = parts.model, parts.observations.train
    own_batch = max(1, batch_size // model.ranks.size)
    costs = model.training_costs(own_batch)
    if costs is None:
        return
    data_bytes = 0 if isinstance(train, LazyRows) else train.nbytes
    if getattr(train, "block_rows", None) is not None:
        data_bytes = window_memory(train.shape[1], batch_size)
    line = estimates.training_line(
        data_bytes,
        costs,
        tfvae.checkpoints.checkpoint_bytes(model),
        num_checkpoints,
        len(parts.rows_of_rank()),
    )
    print(line, flush=True)
