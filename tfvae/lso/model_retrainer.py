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
    """A VAE or TVAE that an optimisation retrains; see `RoundRetrainer`.

    Attributes:
      num_observed: D of the model.
      capacity: How many data points it can be trained on; None for any number.
      settings: What has to be the same when a run is resumed.
    """

    def __init__(self, model: Any, retraining: Retraining, seed: int) -> None:
        """Prepares a built model.

        Args:
          model: A VAE or a TVAE; it is trained further.
          retraining: How.
          seed: Of the draws of data points.
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
        # States of data that a TVAE had no room for yet are fresh ones.
        found = checkpoints.restore_latest(
            folder, self._model, grows=STATE_NAMES
        )
        return None if found is None else found.epoch
