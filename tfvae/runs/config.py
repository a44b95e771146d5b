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
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import gin
import keras

import tfvae.likelihoods
import tfvae.metrics
import tfvae.networks
import tfvae.noise
import tfvae.priors
import tfvae.restoration
import tfvae.schedules
import tfvae.tvae
import tfvae.vae  # noqa: F401 (their imports register names with gin)
from tfvae import data, locations, lso, typed_gin
from tfvae.runs import gin_errors, gin_text, reach

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


_SHOWN_PROBLEMS = 5


class _Origins(NamedTuple):
    """Where bindings are from, by their names; files are the rest."""

    run: frozenset[str] = frozenset()
    """Those of the folder of a run, which another command has checked."""
    params: frozenset[str] = frozenset()
    """Those of the command line."""
    may_be_idle: frozenset[str] = frozenset()
    """Those that need not act, and are not the user's."""


_origins = _Origins()


class _Registry:
    """What gin knows; see `reach.Registry` and `gin_errors.Names`."""

    def find(self, selector: str) -> reach.Configurable | None:
        try:
            return gin.config._REGISTRY.get_match(selector)
        except KeyError:  # The name is ambiguous.
            return None

    def all(self) -> list[reach.Configurable]:
        return [found for _, found in gin.config._REGISTRY.items()]

    def functions(self) -> list[str]:
        return [found.name for found in self.all()]

    def parameters(self, function: str) -> list[str] | None:
        found = self.find(function)
        return None if found is None else reach.bindable(found.wrapped)

    def has_keywords(self, function: str) -> bool:
        found = self.find(function)
        return found is not None and reach.has_keywords(found.wrapped)

    def files(self) -> list[str]:
        folder = locations.gin_folder()
        return [
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*.gin")
        ]


_registry = _Registry()


def load(
    gin_files: Sequence[str | os.PathLike[str]] = (),
    gin_params: Sequence[str] = (),
    *,
    function: str | None = None,
    may_be_idle: Collection[str] = (),
) -> None:
    """Replaces gin's configuration; what can not act is an error.

    A binding of `gin_params` must act; one of a file need not, as files are
    shared. In both, a binding that no run could use is an error: of an argument
    that the run passes itself, in a scope that nothing enters, of a class that
    the run constructs without gin, of a macro that is likely to be a misspelt
    one. Without `function`, the configuration of a study is checked cell by
    cell later, with the levels of its factors.

    Args:
      gin_files: Files to read; later ones override earlier ones. A path that
        does not exist is looked up in the `gin` folder of tfvae.
      gin_params: Bindings like `fit.epochs = 3`, which override the files.
      function: Name of the function that is to run, such as "train"; None for
        any.
      may_be_idle: Names of parameters in `gin_params` that need not act.

    Raises:
      OSError: If a file does not exist.
      ImportError: If a file imports a module that is not installed.
      SyntaxError: If a value is not a Python literal or gin reference.
      ValueError: If a name is unknown, a required value is missing, or a
        binding can not act.
    """
    read(gin_files, gin_params, may_be_idle=may_be_idle)
    if function is not None or value("study.factors") is None:
        _refuse_idle(reached(function), _origins.params)


def read(
    gin_files: Sequence[str | os.PathLike[str]] = (),
    gin_params: Sequence[str] = (),
    *,
    may_be_idle: Collection[str] = (),
    run: pathlib.Path | None = None,
) -> None:
    """Replaces gin's configuration as `load`, whether or not it can act.

    Args:
      gin_files: See `load`.
      gin_params: See `load`.
      may_be_idle: See `load`.
      run: Configuration of a run, read before the files; None for none.

    Raises:
      OSError: If a file does not exist.
      ImportError: If a file imports a module that is not installed.
      SyntaxError: If a value is not a Python literal or gin reference.
      ValueError: If a name is unknown, or a required value is missing.
    """
    global _origins
    gin.clear_config()
    _parse_files([] if run is None else [run])
    before = bindings(text())
    _parse_files(gin_files)
    known = _macros()
    required = {  # gin demands them, whether or not they act.
        one.name
        for one in gin_text.parse(text()).bindings
        if one.is_macro and one.value == gin_text.Macro("gin.REQUIRED")
    }
    for param in gin_params:
        with gin_errors.in_one_line(_registry, param):
            gin.parse_config(param)
    after = gin_text.parse(text()).bindings
    gin_errors.check_names(after, _registry)
    constants = {name for name, _ in gin.config._CONSTANTS.items()}
    gin_errors.check_macros(after, constants)
    with gin_errors.in_one_line(_registry):
        gin.finalize()
    _check_macros(gin_params, known)
    params = names(gin_params)
    _origins = _Origins(
        frozenset(
            one.name
            for one in after
            if one.name not in params
            and before.get(one.name) == repr(one.value)
        ),
        frozenset(params),
        frozenset(may_be_idle) | required,
    )


def _key(binding: gin_text.Binding) -> tuple[str, str, str]:
    """Returns scope, whole selector and parameter, as gin stores them."""
    if binding.is_macro:
        return binding.name, "gin.macro", "value"
    found = _registry.find(binding.selector)
    selector = binding.selector if found is None else found.selector
    return "/".join(binding.scope), selector, binding.parameter


def reached(function: str | None = None) -> reach.Reach:
    """Returns what can act in a function, by its name; None for any."""
    return reach.Reach(gin_text.parse(text()), _registry, function)


def _refuse_idle(found: reach.Reach, must_act: Collection[str] = ()) -> None:
    """Raises a ValueError if a binding of the user can not act.

    Args:
      found: What can act.
      must_act: Names of bindings that must, in addition to those that could
        not act in any run.
    """
    exempt = _origins.run | _origins.may_be_idle
    problems = [
        f"`{name}` has no effect: {found.why_idle(name)}"
        for name in found.idle
        if name not in exempt
        and (found.is_mistake(name) or (found.is_certain and name in must_act))
    ]
    problems += [
        why for name, why in found.wrong.items() if name not in _origins.run
    ]
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        shown = problems[:_SHOWN_PROBLEMS]
        shown += [f"and {more} more"] if more > 0 else []
        raise ValueError("; ".join(shown))


def check(function: str, *, optional: Collection[str] = ()) -> None:
    """Checks what a function is to use; called before it does any work.

    The command line has been checked by `load`; a program may load a
    configuration once, and call several functions.

    Args:
      function: Name of the function, such as "train".
      optional: Names of functions whose required parameters need no bindings.

    Raises:
      ValueError: If a binding has no effect that no run could use, or a
        required parameter is not bound.
    """
    found = reached(function)
    _refuse_idle(found)
    missing = [
        name for name in found.missing if name.partition(".")[0] not in optional
    ]
    if missing:
        raise ValueError(
            f"{', '.join(f'`{name}`' for name in missing)} must be bound, as "
            f"in --gin_param={missing[0]}=..., or in a gin file"
        )


def registered_name(function: Callable[..., Any]) -> str | None:
    """Returns the name of a function in gin, None if it has none."""
    for found in _registry.all():
        if function in (found.wrapper, found.wrapped):
            return found.name
    return None


def names(gin_params: Sequence[str]) -> set[str]:
    """Returns the names in the configuration that bindings have bound."""
    given = {
        _key(one)
        for param in gin_params
        for one in gin_text.parse(param).bindings
    }
    return {
        one.name
        for one in gin_text.parse(text()).bindings
        if _key(one) in given
    }


def given() -> frozenset[str]:
    """Returns the names of the bindings that `gin_params` have bound."""
    return _origins.params


def refuse_passed() -> None:
    """Checks that no call so far passed an argument that is bound.

    `check` finds what `typed_gin.uses` declares before any work; this finds
    the rest, such as calls in modules of the user.

    Raises:
      ValueError: If one did.
    """
    used = gin.config._OPERATIVE_CONFIG
    for one in gin_text.parse(text()).bindings:
        scope, selector, parameter = _key(one)
        calls = [
            parameters
            for (entered, called), parameters in used.items()
            if called == selector and _is_within(entered, scope)
        ]
        found = _registry.find(one.selector)
        is_users = one.name not in _origins.run | _origins.may_be_idle
        if found is not None and typed_gin.is_configured(found.wrapped):
            continue  # Arguments of a Python program are meant to win.
        if calls and is_users and all(parameter not in c for c in calls):
            raise ValueError(
                f"`{one.name}` has no effect: what calls `{one.selector}` "
                f"passes `{parameter}` itself"
            )


def _is_within(entered: str, scope: str) -> bool:
    """Returns whether bindings of a scope are valid in an entered one."""
    return not scope or f"{entered}/".startswith(f"{scope}/")


def unused(function: str, *, is_whole: bool = True) -> list[str]:
    """Returns the user's bindings that a run has not used.

    Those of a run folder that the run has read are left out, as they are for
    other functions too.

    Args:
      function: Name of the function that has run.
      is_whole: Whether all that it calls has run in this process, rather than
        in an earlier one, so that what gin has not looked up was not used.

    Returns:
      Their names, sorted; without macros that other bindings use.
    """
    found = reached(function)
    exempt = _origins.run | _origins.may_be_idle
    looked_up = _looked_up()
    return sorted(
        one.name
        for one in gin_text.parse(text()).bindings
        if one.name not in exempt
        and one.name not in looked_up
        and not (one.is_macro and found.is_used_macro(one.name))
        and (is_whole or one.name not in found.acting)
    )


def _looked_up() -> set[str]:
    """Returns the names of the bindings that gin has used so far."""
    used = gin.config._OPERATIVE_CONFIG
    return {
        one.name
        for one in gin_text.parse(text()).bindings
        for scope, selector, parameter in [_key(one)]
        if any(
            called == selector
            and parameter in parameters
            and _is_within(entered, scope)
            for (entered, called), parameters in used.items()
        )
    }


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
        with explaining_imports(), gin_errors.in_one_line(_registry):
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
    *,
    function: str | None = None,
    may_be_idle: Collection[str] = (),
) -> None:
    """Loads the configuration of a run, then files and bindings over it.

    The functions that runs of any kind configure are registered first: the
    model of an optimisation, for example, has the bindings of `optimize`.

    Args:
      run_dir: Folder of the run.
      gin_files: See `load`.
      gin_params: See `load`.
      function: See `load`.
      may_be_idle: See `load`.

    Raises:
      FileNotFoundError: If there is no run in the folder.
      ValueError: If the function needs a model, and the run has none.
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

    read(gin_files, gin_params, may_be_idle=may_be_idle, run=path)
    if function in ("export", "evaluate") and value("denoise.method"):
        raise ValueError(
            "`run_dir` must be a run that has trained a model, got "
            f"{os.fspath(run_dir)}, whose picture has been restored without "
            "one (`tfvae denoise --method=tvae` trains one)"
        )
    _refuse_idle(reached(function), _origins.params)


def text() -> str:
    """Returns the whole configuration as text that gin can parse."""
    return gin.config_str()


def text_of_run() -> str:
    """Returns the configuration as text, as a run folder keeps it.

    It does not claim that what no function can use has had an effect: these
    bindings are comments.
    """
    found = reached()
    if not found.is_certain:
        return text()
    unused = set(found.idle) - _looked_up()
    keys = {
        _key(one)
        for one in gin_text.parse(text()).bindings
        if one.name in unused
    }
    used, rest = _split(keys)
    lines = [
        f"# {line}"
        for line in gin.config._config_str(rest).splitlines()
        if line and not line.startswith(("#", "import ", "from "))
    ]
    note = ["# Not used by this run:", *lines, ""] if lines else []
    return "\n".join([gin.config._config_str(used), *note])


def _split(keys: Collection[tuple[str, str, str]]) -> tuple[Any, Any]:
    """Returns gin's configuration without some bindings, and these alone."""
    used: dict[tuple[str, str], dict[str, Any]] = {}
    rest: dict[tuple[str, str], dict[str, Any]] = {}
    for (scope, selector), parameters in gin.config._CONFIG.items():
        for parameter, bound in parameters.items():
            part = rest if (scope, selector, parameter) in keys else used
            part.setdefault((scope, selector), {})[parameter] = bound
    return used, rest


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
    return {
        one.name: repr(one.value)
        for one in gin_text.parse(config_text).bindings
    }


def acting(config_text: str) -> dict[str, str]:
    """Returns the values of a configuration, as `bindings`, that can act.

    Args:
      config_text: A configuration in the format of `text`.

    Raises:
      SyntaxError: If the text is not a valid gin configuration.
    """
    parsed = gin_text.parse(config_text)
    found = reach.Reach(parsed, _registry)
    return {
        one.name: repr(one.value)
        for one in parsed.bindings
        if one.name in found.acting or not found.is_certain
    }


def _macros() -> set[str]:
    """Returns the macros that the configuration defines or uses."""
    parsed = gin_text.parse(text()).bindings
    return {one.name for one in parsed if one.is_macro} | _used_macros()


def _used_macros() -> set[str]:
    return {
        one.name
        for binding in gin_text.parse(text()).bindings
        for one in gin_text.references(binding.value)
        if isinstance(one, gin_text.Macro)
    }


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
    used = known | _used_macros()
    unknown = [name for name in defined if name not in used]
    if unknown:
        listed = ", ".join(sorted(used)) or "none"
        near = gin_errors.did_you_mean(unknown[0], used)
        raise ValueError(
            f"`{unknown[0]}` must be a macro of the gin files (they use "
            f"{listed}) or a parameter written as function.parameter{near}"
        )
