# SPDX-License-Identifier: Apache-2.0
"""Retraining and checkpoints of a model, once per round, on weighted data."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfvae import checkpoints
from tfvae.arguments import check_counts, check_positive
from tfvae.data import WeightedBatches, loss_weighted_batches
from tfvae.latent_model import LatentModel
from tfvae.lso.joint_training import JointTraining
from tfvae.lso.weighting import replicate
from tfvae.optimizers import FusedAdam
from tfvae.settings import Settings, saved_settings
from tfvae.tvae import STATE_NAMES
from tfvae.vae.objectives import check_can_share

if TYPE_CHECKING:
    from tfvae.lso.surrogates import Surrogate
    from tfvae.lso.warping import Warping

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
      surrogate_weight: Weight of the surrogate's loss in that of a VAE, both
        nats a data point; 0 for none. See `tfvae.lso.joint_training`.
    """

    first_epochs: float = 1.0
    epochs: float = 0.1
    batch_size: int = 32
    learning_rate: float = 1e-3
    epsilon: float = 1e-8
    use: str = "sampling"
    keeps_optimizer: bool = False
    # `ModelRetrainer.settings` has it where it matters: the `repr` of others is
    # in ledgers.
    surrogate_weight: float = dataclasses.field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        """Checks the values."""
        for name in ("first_epochs", "epochs", "surrogate_weight"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ValueError(f"`{name}` must not be negative, got {value}")
        check_counts(batch_size=self.batch_size)
        check_positive(learning_rate=self.learning_rate)
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


class _Data(NamedTuple):
    """What a round is trained on."""

    points: np.ndarray
    """`[n, D]`."""
    weights: np.ndarray
    """`[n]`."""
    targets: np.ndarray | None
    """`[n]` float64, those of the latent loss; None without one."""


class ModelRetrainer:
    """Retrains a VAE or TVAE in each round; see `RoundRetrainer`.

    New data and weights do not retrace the training step.

    Attributes:
      num_observed: D of the model.
      capacity: The maximum number of data points; None for any number.
      settings: Settings that must match to resume a run.
    """

    def __init__(
        self,
        model: LatentModel,
        retraining: Retraining,
        seed: int,
        surrogate: Surrogate | None = None,
        warping: Warping | None = None,
    ) -> None:
        """Prepares a built model.

        Args:
          model: A built model, with capacity for the data of all rounds; it is
            trained further. Where it has ranks, all of them retrain it, and
            pass the same arguments everywhere.
          retraining: Settings of the training.
          seed: Seed of the draws of data points.
          surrogate: With the settings of the surrogate that is trained jointly,
            for a positive `surrogate_weight`.
          warping: Transforms scores before a surrogate is fitted to them; None
            for no transformation.

        Raises:
          TypeError: If a model or surrogate can not be trained jointly.
          ValueError: Likewise, or if the model is one that several ranks do
            not retrain.
        """
        if model.ranks.size > 1:
            _check_of_ranks(model, retraining)
        self.num_observed: int = model.num_observed
        self.capacity: int | None = model.capacity
        self.settings: dict[str, Any] = {
            "model": type(model).__name__,
            "retraining": retraining,
        }
        self._joint: JointTraining | None = None
        if weight := retraining.surrogate_weight:
            self.settings["surrogate_weight"] = weight
            self._joint = JointTraining(model, surrogate, weight, warping)
        self._model = model
        self._retraining = retraining
        self._seed = seed
        self._batches: WeightedBatches | None = None
        self._dataset: tf.data.Dataset | None = None
        # A model that has not been compiled has no such attribute.
        optimizer = getattr(model, "optimizer", None)
        is_new = not retraining.keeps_optimizer or optimizer is None
        if is_new:
            optimizer = FusedAdam(
                retraining.learning_rate, epsilon=retraining.epsilon
            )
        if self._joint is not None:
            model.compile(optimizer, latent_loss=self._joint)
        elif is_new:
            model.compile(optimizer)
        model.optimizer.build(model.trainable_variables)

    def retrain(
        self,
        points: np.ndarray,
        weights: np.ndarray,
        num_data: int,
        is_first: bool,
        scores: np.ndarray,
        rows: np.ndarray,
    ) -> float | None:
        """Trains the model for one round.

        Args:
          points: `[N, D]`.
          weights: `[N]`, sum 1.
          num_data: Number of draws of an epoch: N without the dropped points,
            whose weight is 0.
          is_first: Whether it is the first round.
          scores: `[N]` float64, larger is better.
          rows: int `[n]`, the points that the surrogate is fitted to.

        Returns:
          The mean loss (for a TVAE, minus the bound), nats, that of the
          surrogate included; None if there are no training steps.

        Raises:
          DivergedError: If the loss is not finite.
        """
        data = _Data(points, weights, None)
        copies = np.arange(len(points))
        if self._retraining.use == "replication":
            copies, repeated = replicate(weights)
            data = _Data(points[copies], repeated, None)
            num_data = len(copies)
        num_steps = self._retraining.num_steps(num_data, is_first)
        if not num_steps:
            return None
        if self._joint is not None:
            seed = self._seed_of_fit(int(self._model.iteration))
            targets = self._joint.fit(points, scores, rows, seed)
            data = data._replace(targets=targets[copies])
        if not self._retraining.keeps_optimizer:
            _reset(self._model.optimizer, self._model.trainable_variables)
        batches = self._weighted(data)
        if self._retraining.use == "replication" and self._model.needs_index:
            batches = batches.map(
                lambda x, place, weight: (x, tf.gather(copies, place), weight)
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

    def _seed_of_fit(self, step: int) -> int:
        sequence = np.random.SeedSequence([self._seed, step])
        return int(sequence.generate_state(1)[0] >> 1)

    def _weighted(self, data: _Data) -> tf.data.Dataset:
        """Returns infinite batches, starting at the model's current step.

        Draws depend only on the seed and the step, so a restored model gets
        the same batches as one that was not interrupted.
        """
        step = int(self._model.iteration)
        batch_size = self._retraining.batch_size
        if self._retraining.use != "sampling":
            # A new epoch in each round, of any length.
            return self._of_rank(
                loss_weighted_batches(
                    data.points,
                    data.weights,
                    batch_size,
                    self._seed,
                    start_epoch=step,
                    with_index=self._model.needs_index,
                    targets=data.targets,
                )
            )
        # Points that were integers so far may be so no more.
        is_byte = data.points.dtype == np.uint8
        if (
            self._batches is None
            or self._dataset is None
            or (self._batches.dtype == tf.uint8) != is_byte
        ):
            self._batches = WeightedBatches(
                data.points,
                data.weights,
                batch_size,
                self._seed,
                with_index=self._model.needs_index,
                targets=data.targets,
            )
            self._dataset = self._of_rank(self._batches.dataset(infinite=True))
        else:
            self._batches.replace(data.weights, data.points, data.targets)
        self._batches.start_step = step
        return self._dataset

    def _of_rank(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Returns this rank's part of each batch, which may be empty."""
        ranks = self._model.ranks
        if ranks.size == 1:
            return batches

        def part(*batch: Any) -> Any:
            own = tuple(
                None if one is None else one[ranks.rank :: ranks.size]
                for one in batch
            )
            return own if len(own) > 1 else own[0]

        return batches.map(part)


def _check_of_ranks(model: LatentModel, retraining: Retraining) -> None:
    """Raises a ValueError if several ranks do not retrain a model."""
    if model.capacity is not None:
        raise ValueError(
            "`model` must be a VAE to be retrained by several processes, got a "
            f"{type(model).__name__}, whose states of all data points the "
            "optimisation needs in one process"
        )
    if retraining.use != "sampling":
        check_can_share(model.objective)


def _reset(optimizer: Any, variables: list[keras.Variable]) -> None:
    """Resets all that an optimizer has learnt, but not the learning rate."""
    fresh = type(optimizer).from_config(optimizer.get_config())
    fresh.build(variables)
    pairs = zip(optimizer.variables, fresh.variables, strict=True)
    for variable, initial in pairs:
        if not variable.path.endswith("learning_rate"):
            variable.assign(initial)
