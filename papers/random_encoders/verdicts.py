# SPDX-License-Identifier: Apache-2.0
"""Findings of the thesis, and verdicts of a study on them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from papers.random_encoders import comparisons
from papers.random_encoders.findings import (
    Equal,
    Finding,
    OnlyOne,
    Order,
    Saving,
    Unchanged,
    Verdict,
)


def _chain(*levels: str) -> tuple[tuple[str, str], ...]:
    return tuple(itertools.pairwise(levels))


_CONV_FLOW6 = {"layer": "conv", "prior": "flow6"}
_EQUAL = Equal(
    "PNL's Fréchet distance equals L's with convolutions and 6 flows",
    "frechet_distance",
    "encoder",
    ("L", "PNL"),
    _CONV_FLOW6,
    margin=0.1,
)
_SAVING = Saving(
    "PNL takes about 16 % less time than L with convolutions and 6 flows",
    "seconds_per_epoch",
    "encoder",
    ("L", "PNL"),
    _CONV_FLOW6,
    share=0.16,
)


def _encoders(
    what: str, metric: str, text: str, *order: tuple[str, str]
) -> Order:
    return Order(f"{what}: {text}", metric, "encoder", order)


_L_PNL_RKS_NL = "L < PNL < RKS < NL"
_ORDER = _chain("L", "PNL", "RKS", "NL")
_TIME = _encoders(
    "Seconds per epoch",
    "seconds_per_epoch",
    "RKS < NL < PNL < L",
    *_chain("RKS", "NL", "PNL", "L"),
)
_LOSS = _encoders("Negative ELBO", "test_loss", _L_PNL_RKS_NL, *_ORDER)

FINDINGS: dict[str, tuple[Finding, ...]] = {
    "mnist": (
        _encoders(
            "Reconstruction error", "test_squared_error", _L_PNL_RKS_NL, *_ORDER
        ),
        Unchanged(
            "The prior does not change the reconstruction error",
            "test_squared_error",
            "prior",
            ("normal", "flow2", "flow6"),
            by="encoder",
            margin=0.1,
        ),
        Order(
            "More flows, lower Fréchet distance",
            "frechet_distance",
            "prior",
            _chain("flow6", "flow2", "normal"),
        ),
        Order(
            "Fully connected layers overfit more than convolutions (negative "
            "ELBO)",
            "gap_loss",
            "layer",
            _chain("conv", "fc"),
        ),
        Order(
            "Fully connected layers overfit more than convolutions "
            "(reconstruction error)",
            "gap_squared_error",
            "layer",
            _chain("conv", "fc"),
        ),
        _EQUAL,
        _SAVING,
        OnlyOne(
            "A random encoder gives readable samples only with convolutions "
            "and 6 flows",
            "frechet_distance",
            _CONV_FLOW6,
            "encoder",
            ("NL", "RKS"),
        ),
        _LOSS,
        _encoders(
            "Fréchet distance", "frechet_distance", _L_PNL_RKS_NL, *_ORDER
        ),
        Order(
            "Convolutions give a lower Fréchet distance",
            "frechet_distance",
            "layer",
            _chain("conv", "fc"),
        ),
        _TIME,
    ),
    "svhn": (
        _LOSS,
        _encoders(
            "Regularization term",
            "test_regularization",
            "RKS < NL, PNL, L",
            *(("RKS", other) for other in ("NL", "PNL", "L")),
        ),
        _encoders(
            "Reconstruction error",
            "test_squared_error",
            "L < PNL, RKS < NL",
            ("L", "PNL"),
            ("L", "RKS"),
            ("PNL", "NL"),
            ("RKS", "NL"),
        ),
        _encoders(
            "Fréchet distance",
            "frechet_distance",
            "L, PNL, RKS < NL",
            *((other, "NL") for other in ("L", "PNL", "RKS")),
        ),
        _EQUAL,
        _SAVING,
        _TIME,
    ),
}
"""The published findings, by data set."""


def verdicts(
    name: str, frame: pd.DataFrame, factors: Sequence[str]
) -> list[Verdict]:
    """Tests all published findings on a data set.

    Args:
      name: The data set, "mnist" or "svhn".
      frame: Results of one part of a study.
      factors: The factors that may vary in it.
    """
    return [finding.judge(frame, factors) for finding in FINDINGS[name]]


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
        table = comparisons.pairs(part, metric, factor, (first, second), others)
        p_value = comparisons.p_different(
            (table[first] - table[second]).to_numpy()
        )
        lines.append((dict(zip(others, key, strict=True)), means, p_value))
    return Duel(wins, lines)
