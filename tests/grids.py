# SPDX-License-Identifier: Apache-2.0
"""Grids of cases of which a sample runs by default, and all in `make slow`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

_ATTRIBUTE = "cases_by_default"


def by_default(*numbers: int) -> Callable[[Callable], Callable]:
    """Marks all cases but some as slow.

    Stands below `parameterized.parameters` or `parameterized.product`, which
    number cases from 0 in their order.

    Args:
      *numbers: The cases that run by default.
    """

    def decorate(test: Callable) -> Callable:
        setattr(test, _ATTRIBUTE, numbers)
        return test

    return decorate


def is_slow(test: Any, name: str) -> bool:
    """Whether a collected test is a case that does not run by default."""
    numbers: Sequence[int] | None = getattr(test, _ATTRIBUTE, None)
    if numbers is None:
        return False
    found = re.search(r"\d+$", name)
    if found is None:
        raise ValueError(f"{name} must be a numbered case")
    return int(found[0]) not in numbers
