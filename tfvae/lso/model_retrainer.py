# SPDX-License-Identifier: Apache-2.0
"""Retraining and checkpointing of a VAE or TVAE, round by round."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from tfvae import checkpoints
from tfvae.lso.retraining import Retrainer, Retraining
from tfvae.tvae import STATE_NAMES


class ModelRetrainer:
    """Retrains a VAE or TVAE in each round; see `RoundRetrainer`.

    Attributes:
      num_observed: D of the model.
      capacity: The maximum number of data points; None for any number.
      settings: Settings that must match to resume a run.
    """

    def __init__(self, model: Any, retraining: Retraining, seed: int) -> None:
        """Prepares a built model.

        Args:
          model: A VAE or a TVAE; it is trained further.
          retraining: Settings of retraining.
          seed: Seed of the draws of data points.
        """
        self._model = model
        self._retrainer = Retrainer(model, retraining, seed)
        self.num_observed: int = model.num_observed
        self.capacity: int | None = model.capacity
        self.settings = {
            "model": type(model).__name__,
            "retraining": retraining,
        }

    def retrain(
        self,
        points: np.ndarray,
        weights: np.ndarray,
        num_data: int,
        is_first: bool,
    ) -> float | None:
        return self._retrainer.retrain(points, weights, num_data, is_first)

    def save(self, folder: pathlib.Path, now: int) -> None:
        checkpoints.save(folder, self._model, now)

    def restore(self, folder: pathlib.Path) -> int | None:
        # A TVAE may have more capacity now; it initialises the new states.
        found = checkpoints.restore_latest(
            folder, self._model, grows=STATE_NAMES
        )
        return None if found is None else found.epoch
