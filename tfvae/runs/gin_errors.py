# SPDX-License-Identifier: Apache-2.0
"""Errors of gin in one line each, with what is allowed and close matches."""

from __future__ import annotations

import contextlib
import difflib
import re
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from tfvae.runs.gin_text import Binding, Macro, references

_UNKNOWN_REFERENCE = re.compile(r"matching reference '(@[\w./]+?)(?:\(\))?'")
_UNKNOWN_FUNCTION = re.compile(r"No configurable matching '([\w./]+)'")
_UNKNOWN_PARAMETER = re.compile(
    r"Configurable '([\w./]+)' doesn't have a parameter named '(\w+)'"
)
_UNKNOWN_FILE = re.compile(r"Unable to open file: (.+?)\. Searched config")
_MACRO_REQUIRED = re.compile(r"(\w+)/macro\.value set to .*REQUIRED")
_REQUIRED = re.compile(r"([\w./]+) set to `%gin\.REQUIRED`")
_LOCATION = re.compile(r'In file "([^"]+)", line (\d+)')
_LINE = re.compile(r"line \d+\n\s*(.+)")
_WORD = re.compile(r"[\w./~:\\-]+")
_START_OF_BINDING = re.compile(r"\s*[\w./]+\s*=")
_CONSTANTS = {"true": True, "false": False, "none": None, "null": None}


class Names(Protocol):
    """The names that a configuration may use."""

    def functions(self) -> Iterable[str]:
        """Returns the names of all functions and classes."""

    def parameters(self, function: str) -> Sequence[str] | None:
        """Returns those that gin may bind, None if any is allowed."""

    def has_keywords(self, function: str) -> bool:
        """Returns whether gin takes any name for a parameter of it."""

    def files(self) -> Iterable[str]:
        """Returns the paths of the packaged files."""


@contextlib.contextmanager
def in_one_line(names: Names, param: str | None = None) -> Iterator[None]:
    """Rewrites the errors of gin's parser.

    Args:
      names: The names that are allowed.
      param: The binding that is parsed; None for a file.

    Raises:
      FileNotFoundError: If a file does not exist.
      SyntaxError: If a value is not a Python literal or gin reference.
      ValueError: If a name is unknown, or a value is missing.
    """
    try:
        yield
    except tokenize.TokenError as err:
        what = "a file" if param is None else f"`{param}`"
        raise SyntaxError(
            f"{what} must have all brackets and quotes closed, got its end "
            "first"
        ) from err
    except SyntaxError as err:
        raise SyntaxError(_syntax_message(err, param)) from err
    except ValueError as err:
        message = _name_message(str(err), names)
        if message is None:
            raise
        raise ValueError(_place(str(err)) + message) from err
    except OSError as err:
        missing = _UNKNOWN_FILE.search(str(err))
        if missing is None:
            raise
        near = did_you_mean(missing[1], names.files())
        raise FileNotFoundError(
            f"{_place(str(err))}a gin file must exist, got {missing[1]!r}"
            f"{near or '; `tfvae list` prints the packaged ones'}"
        ) from err


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Returns a hint at a close match, empty without one."""
    near = difflib.get_close_matches(name, list(names), 1)
    return f"; did you mean `{near[0]}`?" if near else ""


def check_names(bindings: Iterable[Binding], names: Names) -> None:
    """Checks parameters that gin accepts, as their class has `**kwargs`.

    Args:
      bindings: The configuration.
      names: The names that are allowed.

    Raises:
      ValueError: If one is unknown.
    """
    for one in bindings:
        if one.is_macro or not names.has_keywords(one.selector):
            continue
        allowed = names.parameters(one.selector)
        if allowed is not None and one.parameter not in allowed:
            raise ValueError(
                _no_parameter(one.selector, one.parameter, allowed)
            )


def check_macros(bindings: Sequence[Binding], constants: set[str]) -> None:
    """Checks that all macros are defined.

    Args:
      bindings: The configuration.
      constants: What bindings may use beside its macros.

    Raises:
      ValueError: If one is not.
    """
    defined = {one.name for one in bindings if one.is_macro}
    for binding in bindings:
        for one in references(binding.value):
            if not isinstance(one, Macro) or one.name in {*defined, *constants}:
                continue
            near = did_you_mean(one.name, defined)
            raise ValueError(
                f"`{binding.name}` must use a macro that is defined, got "
                f"{one!r}{near}; --gin_param={one.name}=... defines it"
            )


def _syntax_message(err: SyntaxError, param: str | None) -> str:
    """Returns the message for a binding or line that is no valid one."""
    line = param if param is not None else (err.text or "")
    line = line.strip()
    where = ""
    if param is None and err.filename:
        where = f"{err.filename}, line {err.lineno}: "
    token = re.search(r"Failed to parse token '(.*)'", err.msg or "")
    name, equals, text = (part.strip() for part in line.partition("="))
    if not equals:
        return (
            f"{where}a binding must be name = value, such as fit.epochs = 3, "
            f"got {line!r}"
        )
    if token and token[1] and name.startswith(token[1]):
        return (
            f"{where}brackets must be closed before the next binding, got "
            f"{line!r}"
        )
    text = text.partition("  #")[0].strip()
    if text.lower() in _CONSTANTS:
        return (
            f"{where}`{name}` must be a Python value, such as "
            f"{_CONSTANTS[text.lower()]}, got {text}"
        )
    if not _WORD.fullmatch(text):
        what = f" at {token[1]!r}" if token else ""
        return (
            f"{where}`{name}` must be a Python value or a reference such as "
            f"@name or %MACRO, got {text}{what}; strings need quotes"
        )
    quoted = f"{name}='{text}'"
    example = quoted if param is None else f'--gin_param="{quoted}"'
    return (
        f"{where}`{name}` must be a Python value, got {text}; strings need "
        f"quotes: {example}"
    )


def _name_message(message: str, names: Names) -> str | None:
    """Returns a message for an unknown name or a missing value."""
    found = _UNKNOWN_REFERENCE.search(message)
    if found:
        name = found[1].rpartition("/")[2].removeprefix("@")
        near = did_you_mean(name, names.functions()).replace("`", "`@", 1)
        line = _LINE.search(message)
        binding = line[1].partition("=")[0].strip() if line else "a binding"
        return f"`{binding}` must refer to what exists, got @{name}{near}"
    found = _UNKNOWN_FUNCTION.search(message)
    if found:
        near = did_you_mean(found[1], names.functions())
        return f"`{found[1]}` is no function or class that gin knows{near}"
    found = _UNKNOWN_PARAMETER.search(message)
    if found:
        allowed = names.parameters(found[1]) or ()
        return _no_parameter(found[1], found[2], allowed)
    found = _MACRO_REQUIRED.search(message)
    if found:
        return (
            f"`{found[1]}` must be given, as in "
            f"--gin_param=\"{found[1]}='...'\"."
        )
    found = _REQUIRED.search(message)
    if found:
        return f"`{found[1]}` must be given, as in --gin_param={found[1]}=..."
    return None


def _no_parameter(function: str, name: str, allowed: Sequence[str]) -> str:
    near = did_you_mean(name, allowed)
    listed = f", which has {', '.join(allowed)}" if allowed else ""
    return f"`{name}` is no parameter of `{function}`{near or listed}"


def _place(message: str) -> str:
    found = _LOCATION.search(message)
    return f"{found[1]}, line {found[2]}: " if found else ""
