# SPDX-License-Identifier: Apache-2.0
"""Findings of the thesis, and verdicts of a study on them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pandas as pd

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
