# SPDX-License-Identifier: Apache-2.0
"""Plan of an optimisation: query budget, rounds, surrogate data, seeds."""

from __future__ import annotations

import dataclasses
import enum
import math
import numbers

import numpy as np


class Use(enum.IntEnum):
    """What a seed is used for; the numbers are part of every run."""

    RETRAINING = 0
    POINTS = 1
    FITTING = 2
    PROPOSING = 3
    READING = 4
    SAMPLING = 5


@dataclasses.dataclass(frozen=True)
class Plan:
    """Budget and schedule of an optimisation.

    Attributes:
      budget: Total number of queries, M.
      queries_per_round: Queries between two retrainings, r; None for all, so
        that the model is trained only once, before the first query.
      num_best: Number of the best data points that the surrogate is fitted to.
      num_random: Number of further data points, drawn at random, that it is
        fitted to.
      num_proposals: Number of latents proposed for each query; the first that
        decodes to an input without a known score (in the ledger, or in the
        data if they have inputs) is queried. 1 is the published way, in which
        most queries of some tasks are repeats.
      num_samples: Draws from the prior that are scored in the first, the
        middle and the last round, outside the budget, as is a grid of 289
        points for two latents that decode to images; only for cheap
        objectives.
      seed: Seed of everything random.
    """

    budget: int
    queries_per_round: int | None = None
    num_best: int = 1000
    num_random: int = 4000
    num_proposals: int = 1
    num_samples: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the values."""
        for name, least in (
            ("budget", 1),
            ("queries_per_round", 1),
            ("num_best", 0),
            ("num_random", 0),
            ("num_proposals", 1),
            ("num_samples", 0),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if name == "queries_per_round" and value is None:
                continue
            is_integer = isinstance(value, numbers.Integral)
            if not is_integer or isinstance(value, bool) or value < least:
                raise ValueError(
                    f"`{name}` must be an integer of at least {least}, got "
                    f"{value!r}"
                )
        if self.budget < self.round_size:
            raise ValueError(
                "`budget` must be at least one round of `queries_per_round` = "
                f"{self.queries_per_round}, got {self.budget}"
            )
        if not self.num_best + self.num_random:
            raise ValueError(
                "`num_best` and `num_random` must not both be 0, got 0"
            )

    @property
    def round_size(self) -> int:
        """r, the queries of a round."""
        return self.queries_per_round or self.budget

    @property
    def num_rounds(self) -> int:
        """The number of rounds, the last of which may be shorter."""
        return math.ceil(self.budget / self.round_size)

    def round_of(self, number: int) -> int:
        """Returns the index of the round of a query."""
        return number // self.round_size if self.queries_per_round else 0

    def queries_of(self, now: int) -> range:
        """Returns the numbers of the queries of a round."""
        start = now * self.round_size
        return range(start, min(start + self.round_size, self.budget))

    def seed_of(self, use: Use, number: int) -> int:
        """Returns the seed of one use, given the number of a query or round."""
        sequence = np.random.SeedSequence([self.seed, int(use), number])
        return int(sequence.generate_state(1)[0] >> 1)
