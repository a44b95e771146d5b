# SPDX-License-Identifier: Apache-2.0
"""Retraining by several processes (ranks), the first of which optimises.

Rank 0 proposes, evaluates and records, and calls a `LeadingRetrainer`; the
others call `follow`, and wait until they are told what to take part in. All
have the data of each round from rank 0, make the batches of one process, and
train on their part of each.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfvae.lso.plan import Plan, Use
from tfvae.lso.round_retrainer import RoundRetrainer
from tfvae.ranks import Ranks

if TYPE_CHECKING:  # These import TensorFlow.
    from tfvae.latent_model import LatentModel
    from tfvae.lso.retraining import Retraining
    from tfvae.lso.surrogates import Surrogate
    from tfvae.lso.warping import Warping


class LeadingRetrainer:
    """The retrainer of rank 0, which the others follow; see `RoundRetrainer`.

    Attributes:
      num_observed: D of the model.
      capacity: The maximum number of data points; None for any number.
      settings: Settings that must match to resume a run: those of a model that
        one process trains, so that any number of ranks resumes it.
    """

    def __init__(self, retrainer: RoundRetrainer, ranks: Ranks) -> None:
        """Wraps a retrainer.

        Args:
          retrainer: That of this rank, whose model has the ranks.
          ranks: The processes.
        """
        self.num_observed: int = retrainer.num_observed
        self.capacity: int | None = retrainer.capacity
        self.settings: Mapping[str, Any] = retrainer.settings
        self._retrainer = retrainer
        self._ranks = ranks

    def retrain(
        self,
        points: np.ndarray,
        weights: np.ndarray,
        num_data: int,
        is_first: bool,
        scores: np.ndarray,
        rows: np.ndarray,
    ) -> float | None:
        return self._by_all(
            "retrain", points, weights, num_data, is_first, scores, rows
        )

    def save(self, folder: pathlib.Path, now: int) -> None:
        self._by_all("save", folder, now)

    def restore(self, folder: pathlib.Path) -> int | None:
        return self._by_all("restore", folder)

    def _by_all(self, name: str, *args: Any) -> Any:
        """Calls a method on all ranks; returns what it returns here."""
        self._ranks.wait()
        self._ranks.broadcast((name, args))
        return getattr(self._retrainer, name)(*args)


def release(ranks: Ranks) -> None:
    """Lets all other ranks return from `follow`; called by rank 0."""
    if ranks.size > 1:
        ranks.wait()
        ranks.broadcast(None)


def follow(
    model: LatentModel,
    plan: Plan,
    *,
    surrogate: Surrogate | None = None,
    retraining: Retraining | None = None,
    warping: Warping | None = None,
) -> None:
    """Takes part in the retraining of rank 0's optimiser, until `release`.

    It is for all other ranks. Arguments are as of
    `LatentSpaceOptimizer.of_model` there.

    Args:
      model: The VAE of this rank, with the weights of that of rank 0.
      plan: Query budget and rounds.
      surrogate: The surrogate.
      retraining: Settings of retraining; None for `Retraining()`.
      warping: Transforms scores.

    Raises:
      TypeError: If a model or surrogate can not be trained jointly.
      ValueError: Likewise, or if the model is one that several ranks do not
        retrain.
      DivergedError: If the loss is not finite.
    """
    from tfvae.lso.retraining import ModelRetrainer, Retraining

    ranks = model.ranks
    retrainer = ModelRetrainer(
        model,
        retraining or Retraining(),
        plan.seed_of(Use.RETRAINING, 0),
        surrogate,
        warping,
    )
    while True:
        ranks.wait()  # For as long as an evaluation takes.
        told = ranks.broadcast(None)
        if told is None:
            return
        name, args = told
        getattr(retrainer, name)(*args)
