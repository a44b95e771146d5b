# SPDX-License-Identifier: Apache-2.0
"""Checks of the numbers that functions and classes are called with."""

from __future__ import annotations

import math
import numbers
from typing import Any


def check_counts(minimum: int = 1, **counts: Any) -> None:
    """Raises ValueError unless each is an integer of at least `minimum`.

    Args:
      minimum: The smallest count allowed.
      **counts: Counts, or lists and tuples of counts, by the names of their
        arguments.
    """
    for name, value in counts.items():
        is_many = isinstance(value, (list, tuple))
        for count in value if is_many else [value]:
            is_integer = isinstance(count, numbers.Integral)
            if not is_integer or isinstance(count, bool) or count < minimum:
                noun = "integers" if is_many else "an integer"
                raise ValueError(
                    f"`{name}` must be {noun} of at least {minimum}, got "
                    f"{value!r}"
                )


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
