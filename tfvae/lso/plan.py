# SPDX-License-Identifier: Apache-2.0
"""Plan of an optimisation: query budget, rounds, surrogate data, seeds."""

from __future__ import annotations

import dataclasses
import enum
import math

import numpy as np

from tfvae.arguments import check_counts


class Use(enum.IntEnum):
    """What a seed is used for; the numbers are part of every run."""

    RETRAINING = 0
    POINTS = 1
    FITTING = 2
    PROPOSING = 3
    READING = 4
    SAMPLING = 5
    CONSTRAINTS = 6
    FEATURES = 7


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
      repeats: Evaluations of each query, whose scores are averaged.
      skips_known: Whether latents that decode to an input with a known score
        are no query: the surrogate learns this score, and other latents are
        proposed. The published loops pay for repeats.
      min_distance: Smallest distance of a query to results, additions, pending
        queries, and the `num_best` and `num_random` data: of latents, in
        standard deviations of the data's latents, and of data points, in those
        of the data (root mean squares over coordinates). 0 for any distance.
    """

    budget: int
    queries_per_round: int | None = None
    num_best: int = 1000
    num_random: int = 4000
    num_proposals: int = 1
    num_samples: int = 0
    seed: int = 0
    repeats: int = 1
    skips_known: bool = False
    min_distance: float = 0.0

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
            ("repeats", 1),
        ):
            value = getattr(self, name)
            if name == "queries_per_round" and value is None:
                continue
            check_counts(minimum=least, **{name: value})
        if not 0.0 <= self.min_distance < math.inf:
            raise ValueError(
                "`min_distance` must be finite and not negative, got "
                f"{self.min_distance!r}"
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

    def end_of(self, now: int) -> int:
        """Returns the number after that of the last query of a round."""
        return min((now + 1) * self.round_size, self.budget)

    def seed_of(self, use: Use, number: int, attempt: int = 0) -> int:
        """Returns the seed of one use.

        Args:
          use: The use.
          number: Number of a query or round.
          attempt: Number of the attempt, 0 for the first.
        """
        more = (attempt,) if attempt else ()
        sequence = np.random.SeedSequence([self.seed, int(use), number, *more])
        return int(sequence.generate_state(1)[0] >> 1)
