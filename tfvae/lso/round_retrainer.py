# SPDX-License-Identifier: Apache-2.0
"""Protocol of models that are retrained before each round."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np


class RoundRetrainer(Protocol):
    """Trains a model before each round, and saves it to disk.

    `ModelRetrainer` implements it for VAEs and TVAEs.
    """

    @property
    def num_observed(self) -> int:
        """D, the dimensions of a data point."""

    @property
    def capacity(self) -> int | None:
        """The maximum number of data points; None for any number."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings, compared by `repr`, that must match to resume a run."""

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
          weights: `[N]`, sum 1, 0 for dropped points.
          num_data: Number of points that have not been dropped, which is the
            length of an epoch.
          is_first: Whether it is the first round.
          scores: `[N]` float64, larger is better, none below that of an
            invalid input.
          rows: int64 `[n]`, the points that the surrogate is fitted to; none
            without a surrogate.

        Returns:
          The mean loss, nats; None if there was nothing to train.
        """

    def save(self, folder: pathlib.Path, now: int) -> None:
        """Saves the model of round `now`; it is on disk when this returns."""

    def restore(self, folder: pathlib.Path) -> int | None:
        """Restores the newest saved model; returns its round, None if none."""


def check_size(
    retrainer: RoundRetrainer, points: np.ndarray, budget: int
) -> None:
    """Raises a ValueError if a model does not fit the data of all rounds.

    Args:
      retrainer: The retrainer of the model.
      points: Initial data points, `[N, D]`.
      budget: Number of queries, each of which may become a data point.
    """
    if points.shape[1] != retrainer.num_observed:
        raise ValueError(
            f"`model` must observe the {points.shape[1]} dimensions of the "
            f"task, got {retrainer.num_observed}"
        )
    most, capacity = len(points) + budget, retrainer.capacity
    if capacity is not None and capacity < most:
        raise ValueError(
            f"`model` must have capacity for {most} data points, the initial "
            f"ones and all queries, got {capacity}; use "
            f"model.with_capacity({most})"
        )
