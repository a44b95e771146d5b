# SPDX-License-Identifier: Apache-2.0
"""Paired tests between levels of a factor, with repetitions as blocks.

The cells of a repetition share its data split and seed. Therefore repetitions
are the samples: for each one, the difference is averaged over all models that
have both levels, and the t test is applied to these averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from tfvae.sweeps.results import REPETITION


def pairs(
    frame: pd.DataFrame,
    metric: str,
    factor: str,
    levels: tuple[str, str],
    others: Sequence[str],
) -> pd.DataFrame:
    """Returns the values of two levels of a factor, averaged over models.

    Args:
      frame: Results.
      metric: The column to compare.
      factor: The factor.
      levels: Two of its levels.
      others: The other factors, whose levels define a model.

    Returns:
      A row for each repetition, a column for each of the two levels.
      Repetitions with fewer finished models than others are left out.
    """
    columns = [*others, REPETITION, factor, metric]
    chosen = frame.loc[frame[factor].isin(levels), columns]
    table = chosen.pivot_table(
        index=[REPETITION, *others], columns=factor, values=metric
    )
    table = table.reindex(columns=list(levels)).dropna()
    if table.empty:
        return table
    counts = table.groupby(level=REPETITION).size()
    kept = counts.index[counts == counts.max()]
    table = table.loc[table.index.isin(kept, level=REPETITION)]
    if others:  # Keep the models that all repetitions have.
        models = table.groupby(level=list(others)).size()
        complete = models.index[models == len(kept)]
        own = table.index.droplevel(REPETITION)
        table = table.loc[own.isin(complete)]
    return table.groupby(level=REPETITION).mean()


def p_less(differences: np.ndarray, limit: float = 0.0) -> float:
    """Returns the one-sided p value of a mean below `limit`.

    NaN for fewer than two repetitions, here and in the tests below.
    """
    values = _values(differences)
    if len(values) < 2:
        return float("nan")
    if np.ptp(values) == 0.0:  # Without variance, t is not finite.
        return 0.0 if values[0] < limit else 1.0
    return float(DescrStatsW(values).ttest_mean(limit, "smaller")[1])


def p_different(differences: np.ndarray) -> float:
    """Returns the two-sided p value of a mean other than zero."""
    values = _values(differences)
    if len(values) < 2:
        return float("nan")
    if np.ptp(values) == 0.0:
        return 0.0 if values[0] else 1.0
    return float(DescrStatsW(values).ttest_mean()[1])


def p_within(differences: np.ndarray, low: float, high: float) -> float:
    """Returns the p value of a mean within limits, by two one-sided tests."""
    values = _values(differences)
    if len(values) < 2:
        return float("nan")
    if np.ptp(values) == 0.0:
        return 0.0 if low < values[0] < high else 1.0
    return float(DescrStatsW(values).ttost_mean(low, high)[0])


def p_outside(differences: np.ndarray, low: float, high: float) -> float:
    """Returns the p value of a mean outside of limits, on either side."""
    values = _values(differences)
    return min(1.0, 2.0 * min(p_less(values, low), p_less(-values, -high)))


def _values(differences: np.ndarray | Sequence[float]) -> np.ndarray:
    return np.asarray(differences, np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p values with the Holm correction for multiple tests."""
    values = _values(p_values)
    if np.isnan(values).any():
        return [float("nan")] * len(values)
    return multipletests(values, method="holm")[1].tolist()


def p_text(p_value: float) -> str:
    """Returns a p value as text."""
    if np.isnan(p_value):
        return "needs repetitions"
    return "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.4f}"


class Duel(NamedTuple):
    """Comparison of the levels of a factor, model by model."""

    wins: dict[str, int]
    """The number of models in which each level has the smallest mean."""
    lines: list[tuple[dict[str, str], dict[str, float], float]]
    """By model: its levels, the compared means, p of the first difference."""


def duel(
    frame: pd.DataFrame, metric: str, factor: str, factors: Sequence[str]
) -> Duel | None:
    """Counts the models in which each level has the smallest metric.

    Args:
      frame: Results.
      metric: The metric.
      factor: The factor, such as the objective.
      factors: All factors.

    Returns:
      The comparison, or None if there are fewer than two levels.
    """
    levels = list(dict.fromkeys(frame[factor])) if factor in frame else []
    if metric not in frame or len(levels) < 2:
        return None
    others = [name for name in factors if name != factor]
    wins = dict.fromkeys(levels, 0)
    lines = []
    for key, part in frame.groupby(others, sort=False):
        means = part.groupby(factor)[metric].mean().to_dict()
        if len(means) < len(levels) or np.isnan(list(means.values())).any():
            continue
        wins[min(means, key=means.__getitem__)] += 1
        first, second = levels[:2]
        table = pairs(part, metric, factor, (first, second), others)
        p_value = p_different((table[first] - table[second]).to_numpy())
        lines.append((dict(zip(others, key, strict=True)), means, p_value))
    return Duel(wins, lines)
