# SPDX-License-Identifier: Apache-2.0
"""Counts of network parameters, the usual one and a published one."""

from __future__ import annotations

import math
from collections.abc import Iterable

import keras


def num_parameters(variables: Iterable[keras.Variable]) -> int:
    """Returns the number of entries of all variables."""
    return sum(math.prod(variable.shape) for variable in variables)


def sum_of_dimensions(variables: Iterable[keras.Variable]) -> int:
    """Returns the sum of all dimensions of all variables.

    A dense layer from 1024 to 256 counts 1024 + 256 + 256 instead of
    1024 * 256 + 256. It says little about a network, but it is how the "numbers
    of trainable weights" published with random encoders were counted: 10,256
    for fully connected layers with 2,047,328 weights. Use it only to compare
    with those.
    """
    return sum(sum(variable.shape) for variable in variables)
