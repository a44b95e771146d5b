# SPDX-License-Identifier: Apache-2.0
"""Text of a gin configuration, parsed without the functions that it names."""

from __future__ import annotations

import tokenize
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gin import config_parser


class Reference(NamedTuple):
    """A reference `@scope/name` to a function or class, or `@scope/name()`."""

    scope: tuple[str, ...]
    name: str
    is_call: bool

    def __repr__(self) -> str:
        path = "/".join([*self.scope, self.name])
        return f"@{path}()" if self.is_call else f"@{path}"


class Macro(NamedTuple):
    """A reference `%name` to a macro or a constant."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


class Binding(NamedTuple):
    """A binding `scope/selector.parameter = value`, or `macro = value`."""

    scope: tuple[str, ...]
    selector: str
    """Function or class, as far as it is written; the name of a macro."""
    parameter: str
    """Empty for a macro."""
    value: Any
    """With a `Reference` or `Macro` in place of what it refers to."""

    @property
    def is_macro(self) -> bool:
        return not self.parameter

    @property
    def name(self) -> str:
        """What stands before the equals sign."""
        selector = ".".join(filter(None, (self.selector, self.parameter)))
        return "/".join([*self.scope, selector])


class Parsed(NamedTuple):
    """A configuration."""

    bindings: tuple[Binding, ...]
    """Only the last one of each name."""
    imports: tuple[str, ...]
    """The imported modules."""


class _Delegate(config_parser.ParserDelegate):
    """Creates references to what may not exist."""

    def configurable_reference(self, name: str, evaluate: bool) -> Reference:
        *scope, selector = name.split("/")
        return Reference(tuple(scope), selector, evaluate)

    def macro(self, name: str) -> Macro:
        return Macro(name)


def parse(text: str) -> Parsed:
    """Parses a configuration; files that it includes are not read.

    Raises:
      SyntaxError: If it is not a valid gin configuration.
    """
    found: dict[str, Binding] = {}
    imports = []
    try:
        for one in config_parser.ConfigParser(text, _Delegate()):
            if isinstance(one, config_parser.BindingStatement):
                scope = tuple(one.scope.split("/")) if one.scope else ()
                binding = Binding(scope, one.selector, one.arg_name, one.value)
                found[binding.name] = binding
            elif isinstance(one, config_parser.ImportStatement):
                imports.append(one.module)
    except tokenize.TokenError as err:
        raise SyntaxError(f"{err.args[0]}") from err
    return Parsed(tuple(found.values()), tuple(imports))


def references(value: Any) -> Iterator[Reference | Macro]:
    """Yields the references in a value, at any depth."""
    if isinstance(value, Reference | Macro):
        yield value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from references(pair)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for one in value:
            yield from references(one)
