# SPDX-License-Identifier: Apache-2.0
"""Reading, comparing and writing gin configurations.

This is the only module that touches the state of gin. Everything else is
configured by being called.
"""

from __future__ import annotations

import ast
import copy
import importlib.util  # noqa: F401 (gin needs it, and forgets to import it)
import os
import pathlib
import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import gin
import keras

import tfvae.likelihoods
import tfvae.metrics
import tfvae.networks
import tfvae.priors
import tfvae.restoration
import tfvae.schedules
import tfvae.tvae
import tfvae.vae  # noqa: F401 (these register their names with gin)
from tfvae import data, locations, lso

# More epochs extend a run; other values that have an influence make it another.
EXTENDABLE = "fit.epochs"
# What is written or kept of a run, without an influence on any figure.
_WITHOUT_INFLUENCE = frozenset(
    {
        "denoise.export",
        "denoise.output",
        "evaluate.num_points",
        "export.output",
        "fit.keep_checkpoints",
        "train.export",
    }
)

# Their values are paths, which can be written in several ways.
_PATHS = frozenset({"optimize.warm_start", "own_task.path"})

_Value = TypeVar("_Value")

# Those of the lazy packages register when they are looked up.
for _package in (data, lso):
    for _name in _package.__all__:
        getattr(_package, _name)

locations.make_clone_importable()
gin.add_config_file_search_path(os.fspath(locations.gin_folder()))
# Files only: gin also takes `runs/bars.gin` for a file of a package `runs`, and
# fails where the current folder has a folder of that name, as it does after
# the first --run_dir=runs/one.
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
    """Replaces gin's configuration, strictly.

    Args:
      gin_files: Files to read, later ones override. A path that does not
        exist is looked for in the `gin` folder of the project.
      gin_params: Bindings like `fit.epochs = 3`, which override the files.

    Raises:
      OSError: If a file does not exist.
      SyntaxError: If a value is not Python.
      ValueError: If a name is unknown to gin, or a required value is missing.
    """
    gin.clear_config()
    try:
        gin.parse_config_files_and_bindings(
            [os.fspath(path) for path in gin_files], [], finalize_config=False
        )
        known = _macros()
        gin.parse_config(list(gin_params))
        gin.finalize()
    except SyntaxError as err:
        if "Failed to parse token" not in str(err):
            raise
        raise SyntaxError(
            f"{err} (text needs quotes of its own: "
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


def with_data(
    gin_files: Sequence[str | os.PathLike[str]],
    default: str | os.PathLike[str],
) -> list[str | os.PathLike[str]]:
    """Puts a file first where none binds `experiment.data`.

    Replaces the configuration.

    Args:
      gin_files: See `load`.
      default: The file that binds it then.

    Returns:
      The files to load.

    Raises:
      OSError: If a file does not exist.
      ValueError: If a name is unknown to gin.
    """
    gin.clear_config()
    gin.parse_config_files_and_bindings(
        [os.fspath(path) for path in gin_files], [], finalize_config=False
    )
    is_bound = value("experiment.data") is not None
    return [*gin_files] if is_bound else [default, *gin_files]


def load_run(
    run_dir: str | os.PathLike[str],
    gin_files: Sequence[str | os.PathLike[str]] = (),
    gin_params: Sequence[str] = (),
) -> None:
    """Loads the configuration of a run, then what overrides it.

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
    load([path, *gin_files], gin_params)


def text() -> str:
    """Returns the whole configuration; parsing it gives the same again."""
    return gin.config_str()


def value(name: str) -> Any:
    """Returns the value of a parameter, None where nothing binds it."""
    try:
        found = gin.query_parameter(name)
    except ValueError:
        return None
    # A copy of a reference to a macro is the value of the macro.
    return copy.deepcopy(found) if str(found).startswith("%") else found


def once(key: Hashable, make: Callable[[], _Value]) -> _Value:
    """Returns one object to all that the configuration hands it to.

    gin calls what a value refers to, such as `@own_task()`, for each parameter
    that has the value. A function that returns `once(key, make)` makes its
    object in the first call after `load`, and returns the same one in others.

    Args:
      key: Of the object.
      make: Makes it.
    """
    return gin.config.singleton_value(key, make)


def operative_text() -> str:
    """Returns what has been used of the configuration, defaults included."""
    return gin.operative_config_str()


def bindings(config_text: str) -> dict[str, str]:
    """Returns the values of a configuration by name.

    Args:
      config_text: Such as `text` returns.

    Returns:
      The text of each value, white space made uniform.
    """
    found: dict[str, str] = {}
    name = ""
    for line in config_text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace() and name:
            found[name] += " " + line.strip()
            continue
        name, _, value = (part.strip() for part in line.partition("="))
        found[name] = value
    return {
        name: re.sub(r"\s+", " ", value.replace("\\", " ")).strip()
        for name, value in found.items()
    }


def differences(saved: str, current: str) -> list[str]:
    """Compares two configurations.

    Args:
      saved: Text of the one that a run was started with.
      current: Text of the one that it shall go on with.

    Returns:
      A line for each value that differs, but for `EXTENDABLE` and what has
      no influence on the figures; both values are in it.
    """
    before, after = bindings(saved), bindings(current)
    may_differ = _WITHOUT_INFLUENCE | {
        EXTENDABLE,
        after.get(EXTENDABLE, "").lstrip("%"),
    }
    return [
        f"{name} was {before.get(name, 'not set')}, is now "
        f"{after.get(name, 'not set')}"
        for name in sorted(before.keys() | after.keys())
        if name not in may_differ
        and _compared(name, before) != _compared(name, after)
    ]


def _compared(name: str, values: dict[str, str]) -> str | None:
    """Returns the text by which values of a parameter are told apart."""
    text = values.get(name)
    if text is None or name not in _PATHS:
        return text
    try:
        path = ast.literal_eval(text)
    except (SyntaxError, ValueError):  # A macro, for instance.
        return text
    return os.path.realpath(path) if isinstance(path, str) else text


def _macros() -> set[str]:
    """Returns the macros that the configuration defines or uses."""
    return {name for name in bindings(text()) if name.isidentifier()} | set(
        re.findall(r"%(\w+)", text())
    )


def _check_macros(gin_params: Sequence[str], known: set[str]) -> None:
    """Raises a ValueError for a macro on the command line that nothing uses.

    Args:
      gin_params: The command line's.
      known: Those of the gin files.
    """
    defined = [
        match.group(1)
        for param in gin_params
        if (match := re.match(r"\s*(\w+)\s*=", param))
    ]
    used = known | set(re.findall(r"%(\w+)", text()))
    unknown = [name for name in defined if name not in used]
    if unknown:
        listed = ", ".join(sorted(used)) or "none"
        raise ValueError(
            f"`{unknown[0]}` must be a macro of the gin files (they use "
            f"{listed}) or a parameter written as function.parameter."
        )
