# SPDX-License-Identifier: Apache-2.0
"""Published tables of the thesis on random encoders.

IJzer, "Who Needs an Encoder? Evaluating the Use of Random Latent
Representations in Variational Autoencoders", Vrije Universiteit Amsterdam,
2021, tables 5.1 to 5.6 (MNIST) and 5.10 (SVHN): mean and standard deviation
over five repetitions. The negative "ELBO" and the regularization term of the
thesis belong to its own objective, and can only be compared with the same
objective.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

ENCODERS = ("L", "PNL", "NL", "RKS")

# Rows: layer, prior, then mean and standard deviation of each encoder.
_MNIST = {
    "test_loss": """
        fc normal 9.84 0.05 21.77 0.39 36.67 0.47 33.52 0.91
        fc flow2 -6.11 0.05 5.78 0.32 20.78 0.87 16.48 0.23
        fc flow6 -36.90 0.17 -26.06 0.47 -7.70 1.22 -2.53 0.63
        conv normal 13.08 0.29 20.04 2.35 35.37 2.04 31.52 1.81
        conv flow2 -2.16 0.53 2.65 0.88 21.01 4.77 14.26 0.61
        conv flow6 -31.91 0.32 -25.43 1.83 -10.74 4.92 -13.31 1.24""",
    "test_regularization": """
        fc normal -1.83 0.02 -1.98 0.01 -6.46 0.01 -6.48 0.01
        fc flow2 13.76 0.01 13.64 0.01 9.53 0.01 9.32 0.02
        fc flow6 44.82 0.02 44.66 0.01 38.07 0.38 28.80 0.17
        conv normal -2.66 0.04 -2.88 0.06 -6.43 0.02 -6.42 0.00
        conv flow2 12.89 0.03 12.86 0.05 9.58 0.01 9.54 0.01
        conv flow6 42.97 0.01 42.90 0.03 41.08 0.34 38.74 0.21""",
    "test_squared_error": """
        fc normal 8.01 0.05 19.79 0.39 30.22 0.48 27.04 0.91
        fc flow2 7.66 0.05 19.43 0.31 30.31 0.87 25.80 0.23
        fc flow6 7.92 0.18 18.60 0.46 30.38 1.21 26.27 0.70
        conv normal 10.42 0.26 17.15 2.33 28.94 2.05 25.09 1.81
        conv flow2 10.74 0.55 15.52 0.88 30.60 4.78 23.80 0.61
        conv flow6 11.06 0.32 17.48 1.84 30.34 5.20 25.43 1.40""",
    "frechet_distance": """
        fc normal 92.39 2.87 153.11 1.78 212.92 4.45 175.85 2.94
        fc flow2 70.39 1.56 138.15 2.31 165.32 5.79 142.73 1.77
        fc flow6 54.68 0.64 112.23 1.67 107.11 8.98 120.72 10.82
        conv normal 90.05 6.25 128.32 7.52 242.73 24.38 209.22 6.84
        conv flow2 45.71 9.45 42.67 4.74 220.86 30.27 138.68 15.39
        conv flow6 40.96 5.20 39.29 7.29 78.17 26.78 57.29 11.54""",
    "seconds_per_epoch": """
        fc normal 0.71 0.01 0.63 0.00 0.59 0.00 0.56 0.00
        fc flow2 1.08 0.02 0.99 0.01 0.95 0.01 0.92 0.01
        fc flow6 2.02 0.01 1.96 0.01 1.87 0.02 1.86 0.01
        conv normal 1.87 0.01 1.45 0.00 1.40 0.00 1.20 0.01
        conv flow2 2.04 0.00 1.62 0.01 1.56 0.00 1.39 0.01
        conv flow6 2.64 0.00 2.20 0.00 2.11 0.01 2.06 0.01""",
    "published_count": """
        fc normal 10256 0 7952 0 7824 0 7824 0
        fc flow2 11888 0 9584 0 9456 0 9456 0
        fc flow6 15152 0 12848 0 12720 0 12720 0
        conv normal 521 0 434 0 396 0 396 0
        conv flow2 3689 0 3602 0 3564 0 3564 0
        conv flow6 10025 0 9938 0 9900 0 9900 0""",
}
_SVHN = {
    "test_loss": "conv flow6 -79.23 0.11 -74.09 2.66 -62.60 3.36 -67.90 1.19",
    "test_regularization": """
        conv flow6 90.81 0.01 90.89 0.04 90.30 1.28 88.00 0.23""",
    "test_squared_error": """
        conv flow6 11.58 0.11 16.80 2.63 27.69 2.36 20.10 1.37""",
    "frechet_distance": """
        conv flow6 59.15 1.77 57.68 1.52 78.08 5.46 65.40 4.00""",
    "seconds_per_epoch": """
        conv flow6 2.65 0.01 2.21 0.01 2.13 0.01 2.08 0.00""",
    "published_count": "conv flow6 10339 0 10250 0 10196 0 10196 0",
}
_TEXTS = {"mnist": _MNIST, "svhn": _SVHN}

_OF_ITS_OBJECTIVE = ("test_loss", "test_regularization")
_OBJECTIVE = "thesis"


TABLES = {
    "test_loss": "table 5.1",
    "test_regularization": "table 5.2",
    "test_squared_error": "table 5.3",
    "frechet_distance": "table 5.4",
    "seconds_per_epoch": "table 5.5",
    "published_count": "table 5.6",
}
"""The table of the thesis for each metric."""


class Value(NamedTuple):
    """A published mean and standard deviation."""

    mean: float
    std: float


def find(name: str, metric: str, levels: Mapping[str, str]) -> Value | None:
    """Returns the published value of a metric of a model.

    Args:
      name: The data set, "mnist" or "svhn".
      metric: The metric.
      levels: "layer", "prior", "encoder" and "objective" of the model, as far
        as these are factors of the study.

    Returns:
      The value, or None if no comparable value was published.
    """
    if (
        metric in _OF_ITS_OBJECTIVE
        and levels.get("objective", _OBJECTIVE) != _OBJECTIVE
    ):
        return None
    key = tuple(levels.get(factor) for factor in ("layer", "prior", "encoder"))
    return _parsed(name).get(metric, {}).get(key)


@functools.cache
def _parsed(name: str) -> dict[str, dict[tuple[str | None, ...], Value]]:
    tables: dict[str, dict[tuple[str | None, ...], Value]] = {}
    for metric, text in _TEXTS[name].items():
        tables[metric] = {}
        for line in text.strip().splitlines():
            layer, prior, *numbers = line.split()
            pairs = zip(numbers[::2], numbers[1::2], strict=True)
            for encoder, (mean, std) in zip(ENCODERS, pairs, strict=True):
                value = Value(float(mean), float(std))
                tables[metric][layer, prior, encoder] = value
    return tables
