# SPDX-License-Identifier: Apache-2.0
"""Statistical tests of published findings: orders, equivalence, savings.

A finding is tested at level `ALPHA` over repetitions, with the Holm correction
for the number of its tests. It is confirmed if all tests are significant,
refuted if a test of the opposite is significant, and undecided otherwise. A
finding of no difference is confirmed by equivalence tests (two one-sided
tests), not by a lack of significance.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd

from tfvae.sweeps import comparisons
from tfvae.sweeps.comparisons import p_text
from tfvae.sweeps.results import where

ALPHA = 0.01
"""Significance level of all tests, as in the thesis."""

CONFIRMED = "confirmed"
REFUTED = "refuted"
UNDECIDED = "undecided"
ABSENT = "not in this study"

_NAMES = {
    "frechet_distance": "Fréchet distance",
    "gap_loss": "gap of the negative ELBO",
    "gap_squared_error": "gap of the reconstruction error",
    "seconds_per_epoch": "seconds per epoch",
    "test_loss": "negative ELBO",
    "test_regularization": "regularization term",
    "test_squared_error": "reconstruction error",
}


class Verdict(NamedTuple):
    """The verdict on a published finding."""

    finding: str
    """The statement of the finding."""
    decision: str
    """Confirmed, refuted, undecided or not in this study."""
    test: str
    """Description of the tests."""
    numbers: str
    """The means and p values."""


class Finding(Protocol):
    """A published finding that can be tested on the results of a study."""

    @property
    def statement(self) -> str:
        """The finding in one line."""

    def judge(self, frame: pd.DataFrame, factors: Sequence[str]) -> Verdict:
        """Tests the finding.

        Args:
          frame: Results of one part of a study.
          factors: The factors that may vary in it.
        """


@dataclasses.dataclass(frozen=True)
class Order:
    """Finding: the levels of a factor have a certain order in a metric."""

    statement: str
    metric: str
    factor: str
    order: tuple[tuple[str, str], ...]
    """Pairs of levels; the metric of the first is smaller."""

    def judge(self, frame: pd.DataFrame, factors: Sequence[str]) -> Verdict:
        tables = _tables(frame, self.metric, self.factor, self.order, factors)
        if tables is None:
            return Verdict(self.statement, ABSENT, "", "")
        differences = [_difference(table) for table in tables]
        decision, p_values = _decide(differences)
        numbers = [
            f"{low} {table[low].mean():.4g}, {high} {table[high].mean():.4g} "
            f"({p_text(p)})"
            for (low, high), table, p in zip(
                self.order, tables, p_values, strict=True
            )
        ]
        holds, models = self._models(frame, factors)
        numbers.append(f"the whole order holds in {holds} of {models} models")
        test = f"one-sided paired t tests{_over(tables)}"
        return Verdict(self.statement, decision, test, "; ".join(numbers))

    def _models(
        self, frame: pd.DataFrame, factors: Sequence[str]
    ) -> tuple[int, int]:
        """Returns the number of models with this order, and of all models."""
        others = [name for name in factors if name != self.factor]
        levels = sorted({level for pair in self.order for level in pair})
        if others:
            means = frame.pivot_table(
                index=others, columns=self.factor, values=self.metric
            )
        else:
            means = frame.groupby(self.factor)[[self.metric]].mean().T
        means = means.reindex(columns=levels).dropna()
        holds = np.ones(len(means), bool)
        for low, high in self.order:
            holds &= (means[low] < means[high]).to_numpy()
        return int(holds.sum()), len(means)


@dataclasses.dataclass(frozen=True)
class Unchanged:
    """Finding: a factor has no effect on a metric, at any level of another."""

    statement: str
    metric: str
    factor: str
    levels: tuple[str, ...]
    by: str
    """The other factor; each of its levels is tested separately."""
    margin: float
    """Equivalence margin, as a relative difference."""

    def judge(self, frame: pd.DataFrame, factors: Sequence[str]) -> Verdict:
        cases = []
        order = tuple(itertools.combinations(self.levels, 2))
        for level in sorted(set(frame[self.by])) if self.by in frame else ():
            part = frame[frame[self.by] == level]
            tables = _tables(part, self.metric, self.factor, order, factors)
            if tables is None:
                return Verdict(self.statement, ABSENT, "", "")
            cases += [(level, table) for table in tables]
        if not cases:
            return Verdict(self.statement, ABSENT, "", "")
        changes = [_relative(table) for _, table in cases]
        decision, p_same, p_other = _decide_equal(changes, self.margin)
        worst = max(range(len(cases)), key=lambda i: abs(changes[i].mean()))
        level, table = cases[worst]
        first, second = table.columns
        numbers = (
            f"{sum(p < ALPHA for p in p_same)} of {len(cases)} differences are "
            f"within {100 * self.margin:.0f} %, "
            f"{sum(p < ALPHA for p in p_other)} differ from zero; the largest "
            f"is {level}: {first} {table[first].mean():.4g}, {second} "
            f"{table[second].mean():.4g} ({100 * changes[worst].mean():+.1f} %)"
        )
        test = (
            f"equivalence of each pair within {100 * self.margin:.0f} % for "
            f"each {self.by}{_over([table for _, table in cases])}"
        )
        return Verdict(self.statement, decision, test, numbers)


@dataclasses.dataclass(frozen=True)
class Equal:
    """Finding: two levels of a factor have the same metric in one model."""

    statement: str
    metric: str
    factor: str
    levels: tuple[str, str]
    model: Mapping[str, str]
    margin: float
    """Equivalence margin, as a relative difference."""

    def judge(self, frame: pd.DataFrame, factors: Sequence[str]) -> Verdict:
        tables = _tables(
            _model(frame, self.model),
            self.metric,
            self.factor,
            (self.levels,),
            factors,
        )
        if tables is None:
            return Verdict(self.statement, ABSENT, "", "")
        (table,) = tables
        change = _relative(table)
        decision, (p_same,), (p_other,) = _decide_equal([change], self.margin)
        first, second = self.levels
        numbers = (
            f"{first} {table[first].mean():.4g}, {second} "
            f"{table[second].mean():.4g} ({100 * change.mean():+.1f} %); "
            f"within {100 * self.margin:.0f} %: {p_text(p_same)}; other than "
            f"zero: {p_text(p_other)}"
        )
        test = f"equivalence within {100 * self.margin:.0f} %{_over(tables)}"
        return Verdict(self.statement, decision, test, numbers)


@dataclasses.dataclass(frozen=True)
class Saving:
    """Finding: a level has a metric smaller by a fraction, in one model."""

    statement: str
    metric: str
    factor: str
    levels: tuple[str, str]
    """The level with the larger metric, and the one with the smaller."""
    model: Mapping[str, str]
    share: float
    """The fraction that is saved; confirmed from half of it to 1.5 times."""

    def judge(self, frame: pd.DataFrame, factors: Sequence[str]) -> Verdict:
        tables = _tables(
            _model(frame, self.model),
            self.metric,
            self.factor,
            (self.levels,),
            factors,
        )
        if tables is None:
            return Verdict(self.statement, ABSENT, "", "")
        (table,) = tables
        more, less = self.levels
        saved = (1.0 - table[less] / table[more]).to_numpy()
        low, high = 0.5 * self.share, 1.5 * self.share
        inside = comparisons.p_within(saved, low, high)
        outside = comparisons.p_outside(saved, low, high)
        decision = _with_reason(
            _decision(inside < ALPHA, outside < ALPHA), [inside]
        )
        numbers = (
            f"{more} {table[more].mean():.4g}, {less} "
            f"{table[less].mean():.4g}: saves {100 * saved.mean():.1f} % "
            f"({p_text(inside)})"
        )
        test = (
            f"saving from {100 * low:.0f} to {100 * high:.0f} %, two one-sided "
            f"t tests{_over(tables)}"
        )
        return Verdict(self.statement, decision, test, numbers)


@dataclasses.dataclass(frozen=True)
class OnlyOne:
    """Finding: one model has the smallest metric, at each of some levels."""

    statement: str
    metric: str
    model: Mapping[str, str]
    by: str
    levels: tuple[str, ...]

    def judge(self, frame: pd.DataFrame, factors: Sequence[str]) -> Verdict:
        varied = list(self.model)
        if not {self.by, self.metric, *varied} <= set(frame.columns):
            return Verdict(self.statement, ABSENT, "", "")
        names = frame[varied].agg("-".join, axis=1)
        joined = frame.assign(_model=names)
        best = "-".join(self.model.values())
        rest = [one for one in dict.fromkeys(names) if one != best]
        order = tuple((best, other) for other in rest)
        others = [name for name in factors if name not in varied]
        tables, labels = [], []
        for level in self.levels:
            part = joined[joined[self.by] == level]
            found = _tables(part, self.metric, "_model", order, others)
            if not found:
                return Verdict(self.statement, ABSENT, "", "")
            tables += found
            labels += [f"{level} {other}" for other in rest]
        decision, p_values = _decide([_difference(one) for one in tables])
        numbers = self._numbers(tables, labels, p_values, best)
        test = (
            f"{_NAMES.get(self.metric, self.metric)} of {best} the smallest "
            f"for {' and '.join(self.levels)}, one-sided paired t "
            f"tests{_over(tables)}; see the sheets for the readability of "
            "samples"
        )
        return Verdict(self.statement, decision, test, numbers)

    def _numbers(
        self,
        tables: Sequence[pd.DataFrame],
        labels: Sequence[str],
        p_values: Sequence[float],
        best: str,
    ) -> str:
        significant = sum(p < ALPHA for p in p_values)
        parts = [f"{significant} of {len(tables)} comparisons are significant"]
        size = len(tables) // len(self.levels)
        for i, level in enumerate(self.levels):
            group = range(i * size, (i + 1) * size)
            nearest = min(group, key=lambda k: tables[k].iloc[:, 1].mean())
            table = tables[nearest]
            parts.append(
                f"{level} {best} {table[best].mean():.4g}, next "
                f"{labels[nearest]} {table.iloc[:, 1].mean():.4g} "
                f"({p_text(p_values[nearest])})"
            )
        return "; ".join(parts)


def _tables(
    frame: pd.DataFrame,
    metric: str,
    factor: str,
    order: Sequence[tuple[str, str]],
    factors: Sequence[str],
) -> list[pd.DataFrame] | None:
    """Returns the values of each pair of levels, None if any is missing."""
    if metric not in frame or factor not in frame:
        return None
    others = [name for name in factors if name != factor]
    tables = [
        comparisons.pairs(frame, metric, factor, pair, others) for pair in order
    ]
    return None if any(table.empty for table in tables) else tables


def _model(frame: pd.DataFrame, model: Mapping[str, str]) -> pd.DataFrame:
    """Returns the results of a model, no rows if a factor is missing."""
    if not set(model) <= set(frame.columns):
        return frame.iloc[:0]
    return where(frame, model)


def _difference(table: pd.DataFrame) -> np.ndarray:
    return (table.iloc[:, 0] - table.iloc[:, 1]).to_numpy()


def _relative(table: pd.DataFrame) -> np.ndarray:
    """Returns the change to the second level, relative to the first's mean."""
    return -_difference(table) / abs(table.iloc[:, 0].mean())


def _decide(differences: Sequence[np.ndarray]) -> tuple[str, list[float]]:
    """Tests whether all differences are negative; returns p values, too."""
    p_values = comparisons.holm([comparisons.p_less(d) for d in differences])
    opposite = comparisons.holm([comparisons.p_less(-d) for d in differences])
    decision = _decision(
        all(p < ALPHA for p in p_values), any(p < ALPHA for p in opposite)
    )
    return _with_reason(decision, p_values), p_values


def _decide_equal(
    changes: Sequence[np.ndarray], margin: float
) -> tuple[str, list[float], list[float]]:
    """Tests whether all relative changes are within a margin.

    It is confirmed if each test of equivalence is significant at level `ALPHA`;
    as all must be, they need no correction. It is refuted if any change is
    significantly outside of the margin, with the Holm correction.
    """
    p_same = [comparisons.p_within(one, -margin, margin) for one in changes]
    p_other = comparisons.holm([comparisons.p_different(d) for d in changes])
    p_outside = comparisons.holm(
        [comparisons.p_outside(one, -margin, margin) for one in changes]
    )
    is_refuted = any(p < ALPHA for p in p_outside)
    decision = _decision(all(p < ALPHA for p in p_same), is_refuted)
    return _with_reason(decision, p_same), p_same, p_other


def _decision(is_confirmed: bool, is_refuted: bool) -> str:
    if is_refuted:
        return REFUTED
    return CONFIRMED if is_confirmed else UNDECIDED


def _with_reason(decision: str, p_values: Sequence[float]) -> str:
    if any(math.isnan(p) for p in p_values):
        return f"{UNDECIDED} (needs repetitions)"
    return decision


def _over(tables: Sequence[pd.DataFrame]) -> str:
    counts = sorted({len(table) for table in tables})
    shown = "-".join(str(count) for count in dict.fromkeys(counts))
    return f", n = {shown}"
