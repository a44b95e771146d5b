# SPDX-License-Identifier: Apache-2.0
"""Analysis of variance (ANOVA) of a metric over the factors of a study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import statsmodels.formula.api
from statsmodels.stats.anova import anova_lm

NEEDS_REPETITIONS = "needs repetitions"


class Design(NamedTuple):
    """The terms of an analysis: all main effects, and interactions."""

    interactions: bool = True
    """Whether there are interactions, of all orders."""
    covariates: tuple[str, ...] = ()
    """Factors that have no interactions, only a main effect."""


FULL = Design()
MAIN_EFFECTS = Design(interactions=False)


class Term(NamedTuple):
    """A term of an analysis."""

    name: str
    sum_of_squares: float
    df: float
    f: float
    p: float
    eta_squared: float
    """Partial: its fraction of the sum of squares of itself and residuals."""


class Anova(NamedTuple):
    """An analysis of variance with sums of squares of type 2."""

    formula: str
    terms: list[Term]
    residual_df: float
    note: str
    """A remark, such as the reason why there are no terms."""


def anova(
    frame: pd.DataFrame,
    metric: str,
    factors: Sequence[str],
    design: Design = FULL,
) -> Anova:
    """Returns the analysis of variance of a metric.

    Args:
      frame: The results to include.
      metric: The column to analyse.
      factors: The factors that may vary.
      design: The terms; by default all interactions.
    """
    frame = frame[frame[metric].notna()]
    varied = [name for name in factors if frame[name].nunique() > 1]
    if not varied:
        return Anova("", [], 0, "nothing varies")
    counts = frame.groupby(varied, observed=True).size()
    if counts.max() < 2:
        return Anova("", [], 0, NEEDS_REPETITIONS)
    if np.ptp(frame[metric]) == 0.0:
        return Anova("", [], 0, "all values are the same")
    note = ""
    num_combinations = int(np.prod([frame[name].nunique() for name in varied]))
    if len(counts) < num_combinations and design.interactions:
        design = MAIN_EFFECTS
        note = "some models have no results yet: main effects only"
    return _fitted(frame, metric, _formula(varied, design), note)


def _formula(varied: list[str], design: Design) -> str:
    if not design.interactions:
        return " + ".join(f"C({name})" for name in varied)
    crossed = [name for name in varied if name not in design.covariates]
    parts = [" * ".join(f"C({name})" for name in crossed)] if crossed else []
    parts += [f"C({name})" for name in design.covariates if name in varied]
    return " + ".join(parts)


def _fitted(frame: pd.DataFrame, metric: str, formula: str, note: str) -> Anova:
    data = frame.rename(columns={metric: "value"})
    fit = statsmodels.formula.api.ols(f"value ~ {formula}", data).fit()
    shown = formula.replace("C(", "").replace(")", "")
    if fit.df_resid < 1:
        return Anova(shown, [], 0, NEEDS_REPETITIONS)
    if fit.ssr <= 1e-12 * fit.centered_tss:
        return Anova(shown, [], fit.df_resid, "repetitions do not differ")
    table = anova_lm(fit, typ=2)
    residual = table.loc["Residual", "sum_sq"]
    terms = [
        Term(
            str(name).replace("C(", "").replace(")", "").replace(":", " x "),
            float(row["sum_sq"]),
            float(row["df"]),
            float(row["F"]),
            float(row["PR(>F)"]),
            float(row["sum_sq"] / (row["sum_sq"] + residual)),
        )
        for name, row in table.iterrows()
        if name != "Residual"
    ]
    return Anova(shown, terms, float(fit.df_resid), note)
