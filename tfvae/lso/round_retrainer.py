# SPDX-License-Identifier: Apache-2.0
"""Protocol of models that are retrained before each round."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np


class RoundRetrainer(Protocol):
    """Trains a model before each round, and keeps it on the disk.

    `ModelRetrainer` does so with a VAE or a TVAE.
    """

    @property
    def num_observed(self) -> int:
        """D, the dimensions of a data point."""

    @property
    def capacity(self) -> int | None:
        """How many data points there may be; None for any number."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What has to be the same when a run is resumed, by their `repr`."""

    def retrain(
        self,
        points: np.ndarray,
        weights: np.ndarray,
        num_data: int,
        is_first: bool,
    ) -> float | None:
        """Trains the model on `points` `[N, D]`, drawn by `weights` `[N]`.

        Returns the loss, nats, or None if nothing was trained. `num_data` of
        the points have not been dropped; an epoch is as long as they are.
        """

    def save(self, folder: pathlib.Path, now: int) -> None:
        """Writes the model of a round, and is on the disk on return."""

    def restore(self, folder: pathlib.Path) -> int | None:
        """Takes up the newest model and returns its round; None without."""


def check_size(
    retrainer: RoundRetrainer, points: np.ndarray, budget: int
) -> None:
    """Raises a ValueError if a model is not one of data that may grow."""
    if points.shape[1] != retrainer.num_observed:
        raise ValueError(
            f"`model` must observe the {points.shape[1]} dimensions of the "
            f"task, got {retrainer.num_observed}"
        )
    most, capacity = len(points) + budget, retrainer.capacity
    if capacity is not None and capacity < most:
        raise ValueError(
            f"`model` must have room for {most} data points, all there may "
            f"ever be, got {capacity}; use model.with_capacity({most})"
        )
