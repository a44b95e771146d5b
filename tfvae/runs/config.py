# SPDX-License-Identifier: Apache-2.0
"""Reads, queries and writes gin configurations.

This is the only module that accesses the global state of gin. All other code
receives its configuration as arguments.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util  # noqa: F401 (gin uses it without importing it)
import os
import pathlib
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeVar

import gin
import keras
from gin import config_parser

import tfvae.likelihoods
import tfvae.metrics
import tfvae.networks
import tfvae.priors
import tfvae.restoration
import tfvae.schedules
import tfvae.tvae
import tfvae.vae  # noqa: F401 (their imports register names with gin)
from tfvae import data, locations, lso

# Packages that may be missing: those of clones, and those of an extra.
_OF_A_CLONE = ("benchmarks", "papers")
_OF_STUDIES = ("pandas", "statsmodels", "tabulate")

_Value = TypeVar("_Value")

# The names of lazily imported packages register with gin when accessed.
for _package in (data, lso):
    for _name in _package.__all__:
        getattr(_package, _name)

locations.make_clone_importable()
# Read from the file system only: gin would also look for `runs/bars.gin` in a
# Python package `runs`, and fails if the current folder has a folder of that
# name, which the first --run_dir=runs/one creates.
gin.config._FILE_READERS[:] = [(open, os.path.isfile)]

for _optimizer in (
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.SGD,
):
    gin.external_configurable(_optimizer, module="keras.optimizers")


def load(
    gin_files: Sequence[str | os.PathLike[str]] = (),
    gin_params: Sequence[str] = (),
) -> None:
    """Replaces gin's configuration; unknown names are errors.

    Args:
      gin_files: Files to read; later ones override earlier ones. A path that
        does not exist is looked up in the `gin` folder of tfvae.
      gin_params: Bindings like `fit.epochs = 3`, which override the files.

    Raises:
      OSError: If a file does not exist.
      ImportError: If a file imports a module that is not installed.
      SyntaxError: If a value is not a Python literal or gin reference.
      ValueError: If a name is unknown to gin, or a required value is missing.
    """
    gin.clear_config()
    try:
        _parse_files(gin_files)
        known = _macros()
        gin.parse_config(list(gin_params))
        gin.finalize()
    except SyntaxError as err:
        if "Failed to parse token" not in str(err):
            raise
        raise SyntaxError(
            f"{err} (strings need quotes of their own: "
            "--gin_param=\"IMAGE='house.png'\")"
        ) from err
    except ValueError as err:
        missing = re.search(r"(\w+)/macro\.value set to .*REQUIRED", str(err))
        if missing is None:
            raise
        name = missing.group(1)
        raise ValueError(
            f"`{name}` must be given, as in --gin_param=\"{name}='...'\"."
        ) from err
    _check_macros(gin_params, known)


def _parse_files(gin_files: Sequence[str | os.PathLike[str]]) -> None:
    """Parses files one after the other, without finalizing.

    What a packaged file includes are packaged files, whatever files of these
    names are in the current folder; what a user's file includes are the user's
    files first.
    """
    folder = os.fspath(locations.gin_folder())
    for path in gin_files:
        is_own = os.path.isfile(path)
        gin.config._LOCATION_PREFIXES[:] = (
            ["", folder] if is_own else [folder, ""]
        )
        with explaining_imports():
            gin.parse_config_file(os.fspath(path))


@contextlib.contextmanager
def explaining_imports() -> Iterator[None]:
    """Adds to the error of a missing package how to install it.

    Raises:
      ImportError: From a ModuleNotFoundError of a package that is not
        installed with tfvae. Other errors pass unchanged.
    """
    try:
        yield
    except ModuleNotFoundError as err:
        name = (_name_of_missing(err) or "").partition(".")[0]
        if name in _OF_A_CLONE:
            raise ImportError(
                f"`{name}` is not part of the installed package: clone the "
                "repository, and run the same command there."
            ) from err
        if name in _OF_STUDIES:
            raise ImportError(
                f"`{name}` must be installed for reports of studies: "
                "pip install 'tfvae[studies]'"
            ) from err
        raise


def _name_of_missing(err: BaseException | None) -> str | None:
    """Returns the missing module; gin re-raises errors without its name."""
    while err is not None and getattr(err, "name", None) is None:
        err = err.__context__
    return getattr(err, "name", None)


def with_data(
    gin_files: Sequence[str | os.PathLike[str]],
    default: str | os.PathLike[str],
) -> list[str | os.PathLike[str]]:
    """Prepends a default file if no other file binds `experiment.data`.

    Replaces gin's configuration.

    Args:
      gin_files: See `load`.
      default: The file that binds it in this case.

    Returns:
      The files to load.

    Raises:
      OSError: If a file does not exist.
      ValueError: If a name is unknown to gin.
    """
    gin.clear_config()
    _parse_files(gin_files)
    is_bound = value("experiment.data") is not None
    return [*gin_files] if is_bound else [default, *gin_files]


def load_run(
    run_dir: str | os.PathLike[str],
    gin_files: Sequence[str | os.PathLike[str]] = (),
    gin_params: Sequence[str] = (),
) -> None:
    """Loads the configuration of a run, then files and bindings over it.

    The functions that runs of any kind configure are registered first: the
    model of an optimisation, for example, has the bindings of `optimize`.

    Args:
      run_dir: Folder of the run.
      gin_files: See `load`.
      gin_params: See `load`.

    Raises:
      FileNotFoundError: If there is no run in the folder.
    """
    path = pathlib.Path(run_dir) / "config.gin"
    if not path.exists():
        raise FileNotFoundError(
            f"`run_dir` must be the folder of a run, got {os.fspath(run_dir)} "
            "without config.gin."
        )
    # Imported here, as these modules import this one; a configuration that was
    # loaded before has locked gin.
    with gin.unlock_config():
        from tfvae.runs import denoise, evaluate, export, optimize  # noqa: F401

    load([path, *gin_files], gin_params)


def text() -> str:
    """Returns the whole configuration as text that gin can parse."""
    return gin.config_str()


def value(name: str) -> Any:
    """Returns the value of a parameter, or None if it is not bound."""
    try:
        found = gin.query_parameter(name)
    except ValueError:
        return None
    # gin evaluates a reference to a macro when it is copied.
    return copy.deepcopy(found) if str(found).startswith("%") else found


def evaluated(name: str) -> Any:
    """Returns the value of a parameter, the result of `@function()` for one.

    Args:
      name: Name of the parameter, such as `optimize.task`.

    Raises:
      ValueError: If it is not bound, or what its function raises.
    """
    # gin calls the function of a reference when it is copied.
    return copy.deepcopy(gin.query_parameter(name))


def once(key: Hashable, make: Callable[[], _Value]) -> _Value:
    """Returns the same object for all references in a configuration.

    gin calls the function of a reference, such as `@own_task()`, once for each
    parameter that is bound to it. A function that returns `once(key, make)`
    creates its object in the first call after `load`, and returns the same
    object in later calls.

    Args:
      key: Identifies the object.
      make: Creates the object.
    """
    return gin.config.singleton_value(key, make)


def operative_text() -> str:
    """Returns the bindings used so far, defaults included, as text."""
    return gin.operative_config_str()


def bindings(config_text: str) -> dict[str, str]:
    """Returns the values of a configuration by name.

    Args:
      config_text: A configuration in the format of `text`.

    Returns:
      The `repr` of each value; references in the syntax of gin.

    Raises:
      SyntaxError: If the text is not a valid gin configuration.
    """
    return _parsed(config_text)[0]


class _Reference:
    """A reference to a macro or a function, whose `repr` is gin syntax."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class _References(config_parser.ParserDelegate):
    """Parses references to functions that may not exist; collects macros."""

    def __init__(self) -> None:
        self.macros: set[str] = set()

    def configurable_reference(self, name: str, evaluate: bool) -> _Reference:
        return _Reference(f"@{name}()" if evaluate else f"@{name}")

    def macro(self, name: str) -> _Reference:
        self.macros.add(name)
        return _Reference(f"%{name}")


def _parsed(config_text: str) -> tuple[dict[str, str], set[str]]:
    """Returns the values by name, and the macros that they use."""
    references = _References()
    found: dict[str, str] = {}
    for one in config_parser.ConfigParser(config_text, references):
        if isinstance(one, config_parser.BindingStatement):
            selector = ".".join(filter(None, (one.selector, one.arg_name)))
            name = "/".join(filter(None, (one.scope, selector)))
            found[name] = repr(one.value)
    return found, references.macros


def _macros() -> set[str]:
    """Returns the macros that the configuration defines or uses."""
    values, used = _parsed(text())
    return {name for name in values if name.isidentifier()} | used


def _check_macros(gin_params: Sequence[str], known: set[str]) -> None:
    """Raises a ValueError if `gin_params` define a macro that is not used.

    Args:
      gin_params: Bindings of the command line.
      known: Macros of the gin files.
    """
    defined = [
        match.group(1)
        for param in gin_params
        if (match := re.match(r"\s*(\w+)\s*=", param))
    ]
    used = known | _parsed(text())[1]
    unknown = [name for name in defined if name not in used]
    if unknown:
        listed = ", ".join(sorted(used)) or "none"
        raise ValueError(
            f"`{unknown[0]}` must be a macro of the gin files (they use "
            f"{listed}) or a parameter written as function.parameter."
        )
