# SPDX-License-Identifier: Apache-2.0
"""Whether a literal of a configuration is of the type of a parameter."""

from __future__ import annotations

import collections.abc
import os
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from tfvae.runs.gin_text import Macro, Reference

_NUMBERS = {
    int: lambda value: isinstance(value, int) or _is_whole(value),
    float: lambda value: isinstance(value, int | float),
    bool: lambda value: isinstance(value, bool) or value in (0, 1),
}


def fits(value: Any, hint: Any) -> bool:
    """Returns whether a value may be of a type.

    Args:
      value: A literal; a reference in it may be of any type.
      hint: A type, such as `Sequence[int] | None`. Any value fits types other
        than those of literals: their functions check it themselves.
    """
    if isinstance(value, Reference | Macro) or hint is Any:
        return True
    if hint in _NUMBERS:
        return _NUMBERS[hint](value)
    if hint in (str, types.NoneType):
        return isinstance(value, hint)
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint) or hint
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin in (collections.abc.Sequence, list, tuple):
        return _fits_sequence(value, arguments)
    if origin in (collections.abc.Mapping, dict):
        return isinstance(value, Mapping)
    return origin is not os.PathLike


def _fits_sequence(value: Any, arguments: tuple[Any, ...]) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    kinds = [one for one in arguments if one is not Ellipsis]
    return not kinds or all(any(fits(x, k) for k in kinds) for x in value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()
