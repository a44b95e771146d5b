# SPDX-License-Identifier: Apache-2.0
"""Analyses of variance (ANOVA), with the designs of the thesis."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import statsmodels.formula.api
from statsmodels.stats.anova import anova_lm

DESIGNS = {
    "test_loss": "covariate",
    "test_regularization": "covariate",
    "seconds_per_epoch": "main",
    "gap_loss": "main",
    "gap_regularization": "main",
    "gap_squared_error": "main",
}
"""The design of each metric; see `anova`. Other metrics have the full one."""

NEEDS_REPETITIONS = "needs repetitions"
# Regularization terms of different priors have different scales, so the prior
# is a covariate without interactions in their analyses.
_COVARIATE = "prior"


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
    frame: pd.DataFrame, metric: str, factors: list[str], design: str = "full"
) -> Anova:
    """Returns the analysis of variance of a metric.

    Args:
      frame: The results to include.
      metric: The column to analyse.
      factors: The factors that may vary.
      design: "full" for all interactions, "covariate" for all except those of
        the prior, "main" for main effects only.
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
    if len(counts) < num_combinations and design != "main":
        design = "main"
        note = "some models have no results yet: main effects only"
    return _fitted(frame, metric, _formula(varied, design), note)


def _formula(varied: list[str], design: str) -> str:
    if design == "main":
        return " + ".join(f"C({name})" for name in varied)
    covariates = [_COVARIATE] if design == "covariate" else []
    crossed = [name for name in varied if name not in covariates]
    parts = [" * ".join(f"C({name})" for name in crossed)] if crossed else []
    parts += [f"C({name})" for name in covariates if name in varied]
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
