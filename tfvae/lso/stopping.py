# SPDX-License-Identifier: Apache-2.0
"""Conditions that end an optimisation before its budget is spent."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Stopping:
    """Conditions that end a run; no further evaluation begins then.

    Attributes:
      target: A score that is good enough, in the direction of the task; None
        for none.
      patience: Number of queries without a better score after which a run
        ends; None for any number.
      seconds: Wall-clock limit of this process, from the beginning of its
        optimisation; None for none.
      failures_in_a_row: Number of evaluations that may fail one after another;
        None for any number.
    """

    target: float | None = None
    patience: int | None = None
    seconds: float | None = None
    failures_in_a_row: int | None = 5

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.target is not None and not math.isfinite(self.target):
            raise ValueError(f"`target` must be finite, got {self.target!r}")
        if self.seconds is not None and not self.seconds > 0.0:
            raise ValueError(
                f"`seconds` must be positive, got {self.seconds!r}"
            )
        for name in ("patience", "failures_in_a_row"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(
                    f"`{name}` must be an integer of at least 1 or None, got "
                    f"{value!r}"
                )

    def reason(
        self, history: Callable[[], np.ndarray], sign: float, seconds: float
    ) -> str | None:
        """Returns why a run ends now, in one line, or None.

        Args:
          history: Returns the scores of the queries that have all of their
            results, in the order of their first ones, `[n]`; larger is better,
            -inf where there is none. Called only where a condition needs them.
          sign: 1 if larger scores of the task are better, else -1.
          seconds: Seconds since the beginning.
        """
        if self.target is not None or self.patience is not None:
            reason = self._of_scores(history(), sign)
            if reason is not None:
                return reason
        if self.seconds is not None and seconds >= self.seconds:
            return f"the time limit of {self.seconds:g} s is reached"
        return None

    def _of_scores(self, scores: np.ndarray, sign: float) -> str | None:
        if self.target is not None and len(scores):
            if scores.max() >= sign * self.target:
                return f"the target of {self.target:g} is reached"
        if self.patience is not None and len(scores) > self.patience:
            earlier = scores[: -self.patience].max()
            if scores[-self.patience :].max() <= earlier:
                return f"{self.patience} queries have brought nothing better"
        return None

    def failing(self, failures: Sequence[str | None]) -> str | None:
        """Returns why a run ends that fails, in one line, or None.

        Args:
          failures: Of the evaluations that were made here, in order; None for
            those that have a score.
        """
        limit = self.failures_in_a_row
        if limit is None or len(failures) < limit:
            return None
        last = failures[-limit:]
        if any(one is None for one in last):
            return None
        return f"{limit} evaluations in a row have failed, the last: {last[-1]}"
