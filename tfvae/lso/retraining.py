# SPDX-License-Identifier: Apache-2.0
"""Retraining and checkpoints of a model, once per round, on weighted data."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae import checkpoints
from tfvae.data import WeightedBatches, loss_weighted_batches
from tfvae.latent_model import LatentModel
from tfvae.lso.weighting import replicate
from tfvae.optimizers import FusedAdam
from tfvae.settings import Settings, saved_settings
from tfvae.tvae import STATE_NAMES

USES = ("sampling", "loss", "replication")
"""The uses of weights, see `Retraining.use`."""


class DivergedError(RuntimeError):
    """The loss of retraining is not finite."""


@saved_settings
class Retraining(Settings):
    """Settings of the training at the beginning of each round.

    Training continues from the weights of the previous round. An epoch has as
    many draws as there are data points, also if points are drawn repeatedly.

    Attributes:
      first_epochs: Epochs before the first queries. A fraction of an epoch is
        rounded down to whole batches, but at least one. 0 for no training.
      epochs: Epochs before each later round.
      batch_size: Data points of a batch.
      learning_rate: Learning rate of Adam.
      epsilon: Epsilon of Adam; the published runs use PyTorch's default.
      use: How weights are used. "sampling" draws points in proportion to them,
        with replacement; "loss" visits each point once per epoch and
        multiplies its whole loss by its weight; "replication" repeats points
        and multiplies the loss by the remaining part of the weight (as in the
        published runs on expressions).
      keeps_optimizer: Whether to keep the moments of the optimizer between
        rounds, and the optimizer of a model that is already compiled. The
        published runs use a new optimizer in each round.
    """

    first_epochs: float = 1.0
    epochs: float = 0.1
    batch_size: int = 32
    learning_rate: float = 1e-3
    epsilon: float = 1e-8
    use: str = "sampling"
    keeps_optimizer: bool = False

    def __post_init__(self) -> None:
        """Checks the values."""
        for name in ("first_epochs", "epochs"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ValueError(f"`{name}` must not be negative, got {value}")
        if self.batch_size < 1 or not self.learning_rate > 0.0:
            raise ValueError(
                "`batch_size` must be at least 1 and `learning_rate` "
                f"positive, got {self.batch_size!r} and {self.learning_rate!r}"
            )
        if self.use not in USES:
            raise ValueError(
                f"`use` must be one of {', '.join(USES)}, got {self.use!r}"
            )

    def num_steps(self, num_data: int, is_first: bool) -> int:
        """Returns the number of training steps before a round.

        Args:
          num_data: Number of data points.
          is_first: Whether it is the first round.
        """
        epochs = self.first_epochs if is_first else self.epochs
        if not epochs:
            return 0
        return max(1, int(epochs * max(1, num_data // self.batch_size)))


class ModelRetrainer:
    """Retrains a VAE or TVAE in each round; see `RoundRetrainer`.

    New data and weights do not retrace the training step.

    Attributes:
      num_observed: D of the model.
      capacity: The maximum number of data points; None for any number.
      settings: Settings that must match to resume a run.
    """

    def __init__(
        self, model: LatentModel, retraining: Retraining, seed: int
    ) -> None:
        """Prepares a built model.

        Args:
          model: A built model, with capacity for the data of all rounds; it is
            trained further.
          retraining: Settings of the training.
          seed: Seed of the draws of data points.
        """
        self.num_observed: int = model.num_observed
        self.capacity: int | None = model.capacity
        self.settings = {
            "model": type(model).__name__,
            "retraining": retraining,
        }
        self._model = model
        self._retraining = retraining
        self._seed = seed
        self._batches: WeightedBatches | None = None
        self._dataset: tf.data.Dataset | None = None
        # A model that has not been compiled has no such attribute.
        optimizer = getattr(model, "optimizer", None)
        if not retraining.keeps_optimizer or optimizer is None:
            model.compile(
                FusedAdam(retraining.learning_rate, epsilon=retraining.epsilon)
            )
        model.optimizer.build(model.trainable_variables)

    def retrain(
        self,
        points: np.ndarray,
        weights: np.ndarray,
        num_data: int,
        is_first: bool,
    ) -> float | None:
        """Trains the model for one round.

        Args:
          points: `[N, D]`.
          weights: `[N]`, sum 1.
          num_data: Number of draws of an epoch: N without the dropped points,
            whose weight is 0.
          is_first: Whether it is the first round.

        Returns:
          The mean loss (for a TVAE, minus the bound), nats; None if there are
          no training steps.

        Raises:
          DivergedError: If the loss is not finite.
        """
        if self._retraining.use == "replication":
            rows, weights = replicate(weights)
            points, num_data = points[rows], len(rows)
        num_steps = self._retraining.num_steps(num_data, is_first)
        if not num_steps:
            return None
        if not self._retraining.keeps_optimizer:
            _reset(self._model.optimizer, self._model.trainable_variables)
        batches = self._weighted(points, weights)
        if self._retraining.use == "replication" and self._model.needs_index:
            batches = batches.map(
                lambda x, place, weight: (x, tf.gather(rows, place), weight)
            )
        logs = self._model.fit(
            batches, steps_per_epoch=num_steps, verbose=0, shuffle=False
        ).history
        loss = logs["loss"][0]
        if not math.isfinite(loss):
            raise DivergedError(
                f"retraining diverged (the loss is {loss}); start a new run "
                "with a smaller `learning_rate` of Retraining"
            )
        return float(loss)

    def save(self, folder: pathlib.Path, now: int) -> None:
        checkpoints.save(folder, self._model, now)

    def restore(self, folder: pathlib.Path) -> int | None:
        # A TVAE may have more capacity now; it initialises the new states.
        found = checkpoints.restore_latest(
            folder, self._model, grows=STATE_NAMES
        )
        return None if found is None else found.epoch

    def _weighted(
        self, points: np.ndarray, weights: np.ndarray
    ) -> tf.data.Dataset:
        """Returns infinite batches, starting at the model's current step.

        Draws depend only on the seed and the step, so a restored model gets
        the same batches as one that was not interrupted.
        """
        step = int(self._model.iteration)
        batch_size = self._retraining.batch_size
        if self._retraining.use != "sampling":
            # A new epoch in each round, of any length.
            return loss_weighted_batches(
                points,
                weights,
                batch_size,
                self._seed,
                start_epoch=step,
                with_index=self._model.needs_index,
            )
        # Points that were integers so far may be so no more.
        is_byte = points.dtype == np.uint8
        if (
            self._batches is None
            or self._dataset is None
            or (self._batches.dtype == tf.uint8) != is_byte
        ):
            self._batches = WeightedBatches(
                points,
                weights,
                batch_size,
                self._seed,
                with_index=self._model.needs_index,
            )
            self._dataset = self._batches.dataset(infinite=True)
        else:
            self._batches.replace(weights, points)
        self._batches.start_step = step
        return self._dataset


def _reset(optimizer: Any, variables: list[keras.Variable]) -> None:
    """Resets all that an optimizer has learnt, but not the learning rate."""
    fresh = type(optimizer).from_config(optimizer.get_config())
    fresh.build(variables)
    pairs = zip(optimizer.variables, fresh.variables, strict=True)
    for variable, initial in pairs:
        if not variable.path.endswith("learning_rate"):
            variable.assign(initial)
