# SPDX-License-Identifier: Apache-2.0
"""gin's decorators, with types: what they decorate keeps its signature.

gin ships no types, so type checkers take whatever is under `@gin.register`
for `Any` and check no call of it.

An argument that a call passes wins over a binding of it, and what Python code
constructs or calls without gin has no bindings; gin reports neither. `uses`
declares both beside the code, so that `tfvae.runs.config` can.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar, overload

import gin

_Target = TypeVar("_Target", bound=Callable[..., Any])
_USES = "__gin_uses__"
_CONFIGURED = "__gin_configured__"


class Arguments(NamedTuple):
    """The arguments of a call in the code, each by where its value is from."""

    args: tuple[str, ...]
    kwargs: dict[str, str]

    def of(self, target: Callable[..., Any]) -> dict[str, str] | None:
        """Returns them by the names of the parameters of what is called.

        Args:
          target: The function or class.

        Returns:
          None if it can not be called in this way.
        """
        try:
            signature = inspect.signature(target)
            bound = signature.bind_partial(*self.args, **self.kwargs)
        except (TypeError, ValueError):
            return None
        found: dict[str, str] = {}
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                found.update(value)
            elif kind is not inspect.Parameter.VAR_POSITIONAL:
                found[name] = value
        return found


def arguments(*args: str, **kwargs: str) -> Arguments:
    """Returns the arguments of a call, written as in the call.

    Args:
      *args: Where the values of positional arguments are from, for messages,
        such as "`experiment.decoder`".
      **kwargs: The same of keyword arguments.
    """
    return Arguments(args, kwargs)


class Uses(NamedTuple):
    """What a function does with what gin configures; see `uses`."""

    calls: tuple[Callable[..., Any], ...] = ()
    passes: Mapping[str, Arguments] = {}
    builds: Mapping[Callable[..., Any], Arguments] = {}
    defaults: Mapping[str, Callable[..., Any]] = {}


def uses(
    *calls: Callable[..., Any],
    passes: Mapping[str, Arguments] | None = None,
    builds: Mapping[Callable[..., Any], Arguments] | None = None,
    defaults: Mapping[str, Callable[..., Any]] | None = None,
) -> Callable[[_Target], _Target]:
    """Decorator, below `register` or `configurable`: declares what is used.

    Args:
      *calls: The `configurable` functions that the function calls.
      passes: For each parameter that the function calls, such as a factory,
        the arguments of that call.
      builds: For each registered class or function that the function calls
        without gin, the arguments of that call.
      defaults: For each parameter that may be None, the registered class that
        is constructed then.
    """
    declared = Uses(calls, passes or {}, builds or {}, defaults or {})

    def declare(target: _Target) -> _Target:
        setattr(target, _USES, declared)
        return target

    return declare


def uses_of(target: Callable[..., Any]) -> Uses:
    """Returns what `uses` has declared, nothing without a declaration."""
    return getattr(target, _USES, Uses())


def is_configured(target: Callable[..., Any]) -> bool:
    """Returns whether `configurable` has decorated a function."""
    return hasattr(target, _CONFIGURED)


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

    Calls must pass all parameters that are not keyword-only, except those with
    a default value; gin is not to bind them.

    Args:
      name_or_target: The function, or its name in gin: `@configurable("cell")`.
    """
    if isinstance(name_or_target, str):

        def named(target: Any) -> Any:
            setattr(target, _CONFIGURED, True)
            return gin.configurable(name_or_target)(target)

        return named
    setattr(name_or_target, _CONFIGURED, True)
    return gin.configurable(name_or_target)
