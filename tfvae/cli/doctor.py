# SPDX-License-Identifier: Apache-2.0
r"""Says what is installed, what is missing, and whether all of it works.

Usage:
  tfvae doctor
  tfvae doctor --json

Prints versions, processors, memory and GPUs, and each optional extra: its
versions, or the command that adds it. Whatever is installed is imported in a
process of its own, and a self-test trains, saves and exports tiny models, in
some ten seconds. Please add the output to reports of bugs.

The exit code is 1 if anything that is installed does not work, or if a package
that tfvae needs is missing. --json prints one JSON object instead of lines.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil
from packaging.requirements import Requirement

from tfvae import __version__, locations, processes
from tfvae.cli import console

OK, ABSENT, UNTESTED, BROKEN = "ok", "absent", "untested", "broken"
"""States: it works; it is not there and need not be; its version is none that
tfvae is tested with; it does not work, or has to be there and is not."""

DEVELOPMENT = ("docs", "test")
"""Extras whose packages are not imported."""

# What is imported of packages whose modules have other names. Importing
# `mpi4py.MPI` loads the MPI library.
_MODULES = {
    "mpi4py": "mpi4py.MPI",
    "openexr": "OpenEXR",
    "tensorflow-serving-api": "tensorflow_serving",
}
_SECONDS_TO_IMPORT = 60.0
_SECONDS_TO_TEST = 600.0


def main(words: Sequence[str]) -> int:
    """Prints what is found.

    Args:
      words: Arguments of the command.

    Returns:
      The exit code: 0, 1 if something is broken, 2 for a wrong argument.
    """
    if {"--help", "-h"} & set(words):
        print((__doc__ or "").strip())
        return 0
    wrong = [word for word in words if word != "--json"]
    if wrong:
        return console.print_error(
            f"the only argument of `tfvae doctor` is --json, got {wrong[0]!r}"
        )
    is_json = bool(words)
    show = _silent if is_json else functools.partial(print, flush=True)
    found = examine(show)
    if is_json:
        print(json.dumps(found, indent=2))
    return 0 if found["works"] else 1


def _silent(line: str) -> None:
    """Shows nothing."""


def examine(show: Callable[[str], Any]) -> dict[str, Any]:
    """Examines the installation.

    Args:
      show: Called with each line of the report as soon as it is known.

    Returns:
      The report, as JSON: `system`, the `packages` that tfvae needs, `extras`,
      the steps of the `self_test`, and whether all `works`.
    """
    system = _system()
    show(f"tfvae {system['tfvae']} in {system['folder']}")
    show(f"Python {system['python']} in {sys.prefix}, {system['platform']}")
    show(
        f"processors: {system['processors']}, memory: "
        f"{system['memory_gb']:.1f} GB ({system['free_memory_gb']:.1f} free), "
        f"free in {tempfile.gettempdir()}: {system['free_disk_gb']:.1f} GB, "
        f"mpiexec: {system['mpiexec'] or 'none'}"
    )
    show("\nneeded")
    packages = _needed()
    for one in packages:
        show(_line(one["name"], one["state"], one["version"] or "", one))
    show("\noptional")
    extras = {}
    for name in _extras():
        extras[name] = one = examine_extra(name)
        show(_line(name, one["state"], _versions(one["packages"]), one))
    show("\nself-test")
    steps = []
    for step in self_test():
        steps.append(step)
        facts = {"remedy": step["error"]}
        text = f"{step['seconds']:.1f} s  {step['detail']}"
        show(_line(step["step"], step["state"], text, facts))
    states = [one["state"] for one in (*packages, *extras.values(), *steps)]
    works = BROKEN not in states
    show("\nall that is installed works" if works else "\nnot all works")
    return {
        "works": works,
        "system": system,
        "packages": packages,
        "extras": extras,
        "self_test": steps,
    }


def _line(name: str, state: str, text: str, facts: dict[str, Any]) -> str:
    """Returns a line of the report."""
    remedy = facts.get("remedy")
    rest = [text] if text else []
    if remedy and state != OK:
        rest.append(remedy)
    return f"  {name:24} {state:9} {'; '.join(rest)}".rstrip()


def _versions(packages: Sequence[dict[str, Any]]) -> str:
    """Returns the packages that are installed, with their versions."""
    return ", ".join(
        f"{one['name']} {one['version']}" for one in packages if one["version"]
    )


def _system() -> dict[str, Any]:
    """Returns versions and sizes of the machine."""
    memory = psutil.virtual_memory()
    if hasattr(os, "sched_getaffinity"):
        processors = len(os.sched_getaffinity(0))
    else:
        processors = os.cpu_count() or 1
    folder = pathlib.Path(__file__).parents[1]
    return {
        "tfvae": __version__,
        "folder": str(folder),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": processors,
        "memory_gb": memory.total / 1e9,
        "free_memory_gb": memory.available / 1e9,
        "free_disk_gb": shutil.disk_usage(tempfile.gettempdir()).free / 1e9,
        "mpiexec": _mpiexec(),
    }


def _mpiexec() -> str | None:
    """Returns the program that starts several processes, or None."""
    beside = os.fspath(pathlib.Path(sys.executable).parent)
    return shutil.which("mpiexec") or shutil.which("mpiexec", path=beside)


def _metadata() -> Any:
    """Returns the metadata of tfvae, None where it is not installed."""
    try:
        return importlib.metadata.metadata("tfvae")
    except importlib.metadata.PackageNotFoundError:
        return None


def _extras() -> list[str]:
    """Returns the names of the optional extras."""
    metadata = _metadata()
    return sorted(metadata.get_all("Provides-Extra") or []) if metadata else []


def _requirements(extra: str) -> list[Requirement]:
    """Returns what tfvae needs, or what an extra adds.

    Args:
      extra: Name of the extra; "" for what is always needed.
    """
    metadata = _metadata()
    texts = metadata.get_all("Requires-Dist") or [] if metadata else []
    every = [Requirement(text) for text in texts]
    always = [one for one in every if _applies(one, "")]
    if not extra:
        return always
    return [one for one in every if one not in always and _applies(one, extra)]


def _applies(wanted: Requirement, extra: str) -> bool:
    """Whether something is needed here, with an extra."""
    return wanted.marker is None or wanted.marker.evaluate({"extra": extra})


def _needed() -> list[dict[str, Any]]:
    """Returns the states of the packages that tfvae needs, without imports."""
    if _metadata() is None:  # A clone that a tool runs.
        facts = {"name": "tfvae", "version": None, "state": ABSENT}
        return [{**facts, "remedy": f"pip install -e {locations.clone()}"}]
    return [_package(one, "") for one in _requirements("")]


def _package(wanted: Requirement, extra: str) -> dict[str, Any]:
    """Returns version and state of a package, without importing it."""
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    name = f"tfvae[{extra}]" if extra else "tfvae"
    facts = {"name": wanted.name, "version": version, "state": OK}
    if version is None:
        state = ABSENT if extra else BROKEN
        return {**facts, "state": state, "remedy": f'pip install "{name}"'}
    if not wanted.specifier.contains(version, prereleases=True):
        remedy = f'tested with {wanted.specifier}: pip install "{name}"'
        return {**facts, "state": UNTESTED, "remedy": remedy}
    return facts


def examine_extra(extra: str) -> dict[str, Any]:
    """Returns the state of an extra, after importing what is installed of it.

    Args:
      extra: Its name.

    Returns:
      `state`, `packages`, and where it is not "ok" the `remedy`: a command, or
      the error.
    """
    packages = [_package(one, extra) for one in _requirements(extra)]
    states = {one["state"] for one in packages}
    remedies = [one["remedy"] for one in packages if "remedy" in one]
    found: dict[str, Any] = {"state": OK, "packages": packages}
    if remedies:
        state = ABSENT if ABSENT in states else UNTESTED
        found |= {"state": state, "remedy": remedies[0]}
    if extra in DEVELOPMENT:
        return found
    errors = []
    for one in packages:
        if one["version"] is None:
            continue
        error = import_error(module_of(one["name"]))
        if error is not None:
            one |= {"state": BROKEN, "remedy": error}
            errors.append(f"{one['name']}: {error}")
    if errors:
        hint = ""
        if extra == "mpi":
            hint = " (without an MPI of the system: pip install mpich)"
        found |= {"state": BROKEN, "remedy": "; ".join(errors) + hint}
    elif extra == "mpi" and found["state"] == OK and _mpiexec() is None:
        remedy = "`mpiexec` is not in PATH: pip install mpich"
        found |= {"state": BROKEN, "remedy": remedy}
    return found


def module_of(package: str) -> str:
    """Returns the name of the module that a package is imported by."""
    name = re.sub(r"[-_.]+", "-", package).lower()
    return _MODULES.get(name, name.replace("-", "_"))


def import_error(module: str) -> str | None:
    """Imports a module in a process of its own.

    Args:
      module: Its dotted name.

    Returns:
      Why it can not be imported, in one line; None if it can.
    """
    argv = [sys.executable, "-c", f"import {module}"]
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "log"
        with processes.Process(argv, log=log) as child:
            ended = child.end(_SECONDS_TO_IMPORT)
        return _why(ended, log) if ended.code else None


def _why(ended: processes.Ended, log: pathlib.Path) -> str:
    """Returns why a process failed, in one line."""
    line = processes.last_line(log)
    return line if ended.code > 0 else f"{ended.how}; {line}"


def self_test() -> Iterator[dict[str, Any]]:
    """Trains, saves and exports tiny models in a process of its own.

    Yields:
      The steps as they end, see `tfvae.runs.self_test`, each with a `state`.
      Where the process dies, the last one says how.
    """
    argv = [sys.executable, "-m", "tfvae.runs.self_test"]
    variables = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    root = locations.clone()
    if root is not None:
        paths = [str(root), os.environ.get("PYTHONPATH", "")]
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "log"
        yield from steps_of(argv, log, variables)


def steps_of(
    argv: Sequence[str], log: pathlib.Path, variables: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Yields the steps that a program prints, and how it died if it did.

    Args:
      argv: The program, which prints what `tfvae.runs.self_test` does.
      log: File for its standard error.
      variables: Environment variables to set for it.
    """
    with processes.Process(argv, log=log, environment=variables) as child:
        has_failed = False
        for line in child.lines():
            if line.startswith('{"step"'):
                step = json.loads(line)
                has_failed = step["error"] is not None
                yield {**step, "state": BROKEN if has_failed else OK}
        ended = child.end(_SECONDS_TO_TEST)
    if ended.code and not has_failed:
        yield {
            "step": "self-test",
            "state": BROKEN,
            "seconds": 0.0,
            "detail": "",
            "error": _why(ended, log),
        }
