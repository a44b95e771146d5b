# SPDX-License-Identifier: Apache-2.0
"""Scores of latents that do not count for the query budget.

They are used by oracle strategies and figures, and are not recorded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfvae.lso import evaluation
from tfvae.lso.collection import Collection
from tfvae.lso.reading import Reading, read
from tfvae.lso.records import is_feasible
from tfvae.lso.tasks.base import Decodes, Task

if TYPE_CHECKING:
    from tfvae.lso.latent_space import LatentSpace


class Scorer:
    """Decodes and evaluates latents.

    Failures, and what violates constraints, score as invalid decodes. None of
    them are candidates, so that the task does not count them.
    """

    def __init__(
        self, task: Task, space: LatentSpace, collection: Collection
    ) -> None:
        """Stores the parts of a run."""
        self._task = dataclasses.replace(task, decodes=Decodes())
        self._space = space
        self._collection = collection

    def of_latents(
        self, latents: np.ndarray
    ) -> tuple[np.ndarray, list[str | None]]:
        """Returns scores `[n]`, larger is better, and keys of the inputs."""
        found = read(self._task, self._space.decode(latents), 0)
        keys = [
            None if one.input is None else self._collection.key(one.content)
            for one in found
        ]
        return self._task.sign * self._scores(found), keys

    def of_means(
        self, means: np.ndarray, seed: int
    ) -> tuple[np.ndarray, list[Any]]:
        """Returns scores `[n]` in the direction of the task, and the inputs.

        Args:
          means: Decoder means, `[n, D]`.
          seed: Seed of their conversion to inputs.
        """
        found = read(self._task, means, seed)
        return self._scores(found), [one.input for one in found]

    def _scores(self, found: Sequence[Reading]) -> np.ndarray:
        invalid = self._task.sign * self._collection.invalid_score
        scores = np.full(len(found), invalid)
        for i, one in enumerate(found):
            if one.input is None:
                continue
            result = evaluation.evaluate_one(self._task.objective, one.input)
            if result.score is not None and is_feasible(result.constraints):
                scores[i] = result.score
        return scores
