# SPDX-License-Identifier: Apache-2.0
"""Checks of the numbers that functions and classes are called with."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any


def check_counts(minimum: int = 1, **counts: Any) -> tuple[Any, ...]:
    """Returns counts as Python's integers, which Keras wants as sizes.

    Args:
      minimum: The smallest count allowed.
      **counts: Counts, or sequences of counts, by the names of their
        arguments.

    Returns:
      An int for each count, a tuple of them for each sequence, in order.

    Raises:
      ValueError: If one is no integer, or less than `minimum`.
    """
    found: list[Any] = []
    for name, value in counts.items():
        is_many = isinstance(value, Sequence) and not isinstance(value, str)
        for count in value if is_many else [value]:
            is_integer = isinstance(count, numbers.Integral)
            if not is_integer or isinstance(count, bool) or count < minimum:
                noun = "integers" if is_many else "an integer"
                raise ValueError(
                    f"`{name}` must be {noun} of at least {minimum}, got "
                    f"{value!r}"
                )
        found.append(tuple(map(int, value)) if is_many else int(value))
    return tuple(found)


def check_positive(**values: Any) -> None:
    """Raises ValueError unless each is a positive, finite number.

    Args:
      **values: Numbers by the names of their arguments.
    """
    for name, value in values.items():
        is_number = isinstance(value, numbers.Real)
        if not is_number or not 0.0 < value < math.inf:
            raise ValueError(
                f"`{name}` must be positive and finite, got {value!r}"
            )
