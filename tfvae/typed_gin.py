# SPDX-License-Identifier: Apache-2.0
"""gin's decorators, with types: what they decorate keeps its signature.

gin ships no types, so type checkers take whatever is under `@gin.register`
for `Any` and check no call of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

import gin

_Target = TypeVar("_Target", bound=Callable[..., Any])


def register(target: _Target) -> _Target:
    """Decorator: gin can pass a function or class to others, by its name.

    Calls from Python remain unaffected by the configuration.
    """
    gin.register(target)
    return target


@overload
def configurable(name_or_target: str) -> Callable[[_Target], _Target]: ...


@overload
def configurable(name_or_target: _Target) -> _Target: ...


def configurable(name_or_target: Any) -> Any:
    """Decorator: gin fills in the arguments that a call leaves out.

    Args:
      name_or_target: The function, or its name in gin: `@configurable("cell")`.
    """
    return gin.configurable(name_or_target)
