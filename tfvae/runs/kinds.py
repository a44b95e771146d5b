# SPDX-License-Identifier: Apache-2.0
"""Kinds of run folders, by the files that they hold."""

from __future__ import annotations

import enum

from tfvae.lso.ledger import LEDGER

STUDY = "study.json"
"""File of a study folder that lists its cells."""

PICTURES = "pictures.json"
"""File of a folder of restorations that lists its pictures."""

METRICS, SUMMARY = "metrics.csv", "summary.json"
"""Files of a training run: a row per epoch; final metrics, once finished."""

CONFIG, ERRORS = "config.gin", "error.log"
"""Configuration of a run; traceback of what should not have happened."""


class Kind(enum.Enum):
    """What a folder holds: a description, and the files that show it."""

    TRAINING = "a training run", (METRICS, SUMMARY, "checkpoints")
    OPTIMIZATION = "an optimisation", (LEDGER,)
    STUDY = "a study", (STUDY,)
    PICTURES = "restorations of several pictures", (PICTURES,)
