# SPDX-License-Identifier: Apache-2.0
"""Shared parts of the subcommands: flags, help, one-line error messages.

TensorFlow is not imported until a subcommand has work to do, so that `--help`
and the errors of wrong or missing flags appear at once.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import math
import os
import pathlib
import platform
import re
import sys
import textwrap
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, TextIO

from absl import flags

from tfvae import locations
from tfvae import ranks as ranks_lib
from tfvae.runs.errors import StoppedError, UnexpectedError

# Exceptions that tfvae raises for wrong values, files or orders of calls.
_USER_ERRORS = (
    ImportError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
_PACKAGE = pathlib.Path(__file__).parents[1]
# Code whose errors say what a person did wrong.
_OURS = (_PACKAGE, _PACKAGE.parent / "papers", _PACKAGE.parent / "benchmarks")


_SECONDS_FOR_FIRST_RANK = 1.0

Main = Callable[[flags.FlagValues], Any]
"""What a subcommand does with its flags."""


def _refuse_ranks(command: ModuleType, size: int) -> str:
    """Returns why a command that is of one process does not begin."""
    name = command.__name__.rpartition(".")[2]
    instead = getattr(command, "IN_PARALLEL", "start it without mpiexec")
    return (
        f"`tfvae {name}` must be started as one process, got {size} of MPI; "
        f"{instead}"
    )


def _print_for_all(error: BaseException | str, rank: int) -> int:
    """Prints an error that all processes of a job have, once; returns 2."""
    if not rank:
        return print_error(error)
    # Those that end first end the job.
    time.sleep(_SECONDS_FOR_FIRST_RANK)
    return 2


@contextlib.contextmanager
def joined_job() -> Iterator[ranks_lib.Job]:
    """Joins the other processes of the job, and says which ones they are.

    Yields:
      The ranks.
    """
    try:
        ranks = ranks_lib.of_job()
    except ImportError:
        if ranks_lib.launched()[1]:  # As below.
            time.sleep(_SECONDS_FOR_FIRST_RANK)
        raise
    ranks_lib.hide_launcher()
    ranks.share_devices()
    if ranks.size > 1:
        # By these, `mpiexec` says which one was killed.
        where = ranks.gather(f"process {os.getpid()} on {platform.node()}")
        if not ranks.rank:
            named = [f"rank {rank} is {one}" for rank, one in enumerate(where)]
            print("; ".join(named), flush=True)
    try:
        yield ranks
    except Exception:
        if ranks.rank:
            # What fails on all ranks is for the first one to say.
            time.sleep(_SECONDS_FOR_FIRST_RANK)
        raise


def run(command: ModuleType, argv: Sequence[str]) -> int:
    """Runs a subcommand and returns its exit code.

    Args:
      command: Module of the subcommand; see `tfvae.cli.main`.
      argv: Arguments after the name of the subcommand.

    Returns:
      0 on success; 1 for an internal error, with a traceback in error.log of
      the run folder; 2 for a user error; 130 when interrupted.
    """
    size, rank = ranks_lib.launched()
    if size > 1 and not hasattr(command, "failed"):
        return _print_for_all(_refuse_ranks(command, size), rank)
    values = common_flags()
    if hasattr(command, "define"):
        command.define(values)
    if {"--help", "-h", "-help"} & set(argv):
        groups = getattr(command, "GROUPS", {})
        print(help_text(command.__doc__ or "", values, groups))
        return 0
    try:
        if hasattr(command, "rewritten"):
            argv = command.rewritten(argv)
        rest = values(["tfvae", *argv])[1:]
        if rest:
            raise flags.Error(f"unexpected argument {rest[0]!r}; see --help")
        check(command, values)
    except (flags.Error, *_USER_ERRORS) as err:
        return _print_for_all(err, rank)
    command_main = command.main
    if hasattr(command, "first"):
        only_own_warnings()
        found = _guarded(command.first, values)
        if isinstance(found, int):
            return found
        command_main = found
    try:
        with quiet():
            import tensorflow as tf

            tf.config.list_physical_devices()
        import tfvae.runs.config
    except ModuleNotFoundError as err:
        return _print_for_all(
            f"{err.name} is not installed; run: pip install tfvae", rank
        )
    if "" not in sys.path:  # The current folder, for imports of gin files.
        sys.path.append("")

    def main(values: flags.FlagValues) -> int | None:
        with tfvae.runs.config.explaining_imports():
            return command_main(values)

    code = _guarded(main, values) or 0
    if code and hasattr(command, "failed"):
        command.failed(code)
    return code


def common_flags() -> flags.FlagValues:
    """Returns the flags of all subcommands, as a new `FlagValues`."""
    values = flags.FlagValues()
    flags.DEFINE_multi_string(
        "gin_file", [], "Configuration to read. Repeatable.", flag_values=values
    )
    flags.DEFINE_multi_string(
        "gin_param",
        [],
        "Binding that overrides the files, such as fit.epochs=10. Repeatable.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "run_dir", None, "Folder of the run.", flag_values=values
    )
    define_integer(
        "seed", "Seed of the run (0 unless set).", values, 0, 2**32 - 1
    )
    return values


def is_digits(text: str) -> bool:
    """Whether a text is a decimal number of ASCII digits, which `int` takes."""
    return text.isascii() and text.isdigit()


class _IntegerParser(flags.IntegerParser):
    """Parser of decimal integers, without signs, spaces and underscores."""

    def convert(self, argument: int | str) -> int:
        if isinstance(argument, str):
            if not is_digits(argument.removeprefix("-")):
                raise ValueError("it must be a decimal integer")
            return int(argument)
        return super().convert(argument)


class _FloatParser(flags.FloatParser):
    """Parser of numbers without spaces and underscores."""

    def convert(self, argument: float | str) -> float:
        if isinstance(argument, str):
            if not re.fullmatch("[-+.0-9a-zA-Z]+", argument):
                raise ValueError("it must be a number")
            return float(argument)
        return super().convert(argument)


def define_integer(
    name: str,
    text: str,
    values: flags.FlagValues,
    lower_bound: int | None = None,
    upper_bound: int | None = None,
) -> None:
    """Defines a flag that is a decimal integer, None unless given."""
    parser = _IntegerParser(lower_bound, upper_bound)
    _define(parser, name, text, values)


def define_float(name: str, text: str, values: flags.FlagValues) -> None:
    """Defines a flag that is a number, None unless given."""
    _define(_FloatParser(), name, text, values)


def _define(
    parser: flags.ArgumentParser,
    name: str,
    text: str,
    values: flags.FlagValues,
) -> None:
    serializer: flags.ArgumentSerializer = flags.ArgumentSerializer()
    flags.DEFINE(
        parser, name, None, text, flag_values=values, serializer=serializer
    )


def check(command: ModuleType, values: flags.FlagValues) -> None:
    """Validates the flags, as far as that does not need TensorFlow.

    Args:
      command: The module of the subcommand.
      values: Its parsed flags.

    Raises:
      ValueError: If a flag is missing, or a file does not exist.
    """
    if not values.run_dir:
        raise ValueError("`--run_dir` must be given, as in --run_dir=runs/one")
    if os.path.exists(values.run_dir) and not os.path.isdir(values.run_dir):
        raise ValueError(
            f"`--run_dir` must be a folder, got the file {values.run_dir!r}"
        )
    _check_gin_files(values)
    if hasattr(command, "check"):
        command.check(values)


def _check_gin_files(values: flags.FlagValues) -> None:
    """Raises a ValueError if a configuration file does not exist."""
    folder = locations.gin_folder()
    for path in values.gin_file:
        if os.path.isfile(path) or (folder / path).is_file():
            continue
        packaged = path.removeprefix("gin/")
        known = [
            one.relative_to(folder).as_posix() for one in folder.rglob("*.gin")
        ]
        near = difflib.get_close_matches(packaged, known, 1)
        hint = "`tfvae list` prints the packaged ones"
        if near:
            hint = f"did you mean --gin_file={near[0]}?"
        raise ValueError(
            f"`--gin_file` must be an existing file, got {path!r}; {hint}"
        )


def check_gin_file(values: flags.FlagValues) -> None:
    """Raises a ValueError if there is no configuration file."""
    if not values.gin_file:
        raise ValueError(
            "`--gin_file` must be given, such as --gin_file=runs/bars.gin; "
            "`tfvae list` prints all of them"
        )


def bindings(
    values: flags.FlagValues, parameters: Mapping[str, str] | None = None
) -> list[str]:
    """Returns the gin bindings of the flags.

    Args:
      values: The flags.
      parameters: The gin parameter that each flag of the subcommand binds.

    Raises:
      ValueError: If a number is not finite.
    """
    parameters = {**(parameters or {}), "seed": "experiment.seed"}
    for name in parameters:
        value = values[name].value
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"`--{name}` must be finite, got {value!r}")
    return values.gin_param + [
        f"{parameter} = {values[name].value!r}"
        for name, parameter in parameters.items()
        if values[name].value is not None
    ]


def help_text(
    doc: str,
    values: flags.FlagValues,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Returns the text of `--help`.

    Args:
      doc: Text before the flags.
      values: The flags.
      groups: Names of flags by the titles of their groups, which come first.
    """
    lines = [doc.strip()]
    left = sorted(values)
    for title, names in (groups or {}).items():
        lines += ["", f"{title}:", *_flag_lines(names, values)]
        left = [name for name in left if name not in names]
    lines += ["", "Flags:", *_flag_lines(left, values)]
    return "\n".join(lines)


def _flag_lines(
    names: Sequence[str], values: flags.FlagValues
) -> Iterator[str]:
    for name in names:
        text = values[name].help.partition(";\n")[0]  # absl appends a hint.
        yield f"  --{name}"
        yield from textwrap.wrap(
            text, 78, initial_indent=" " * 6, subsequent_indent=" " * 6
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what TensorFlow writes to standard error when it is imported.

    Afterwards, only warnings of tfvae itself are shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    only_own_warnings()


def only_own_warnings() -> None:
    """Shows warnings of tfvae, and no others."""
    logging.getLogger().setLevel(logging.CRITICAL)
    logger = logging.getLogger("tfvae")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("warning: %(message)s"))
        logger.addHandler(handler)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def only_answers() -> TextIO:
    """Keeps standard output for answers, and returns it.

    All else that this process, its libraries and the programs that it starts
    print to standard output goes to standard error, from now on.
    """
    sys.stdout.flush()
    output = sys.stdout
    if output is not sys.__stdout__:  # A program has replaced it.
        sys.stdout = sys.stderr
        return output
    saved = os.dup(1)
    os.dup2(2, 1)
    return open(saved, "w", encoding="utf-8")  # noqa: SIM115


def _guarded(main: Main, values: flags.FlagValues) -> Any:
    """Calls `main` and converts exceptions to exit codes."""
    try:
        return main(values)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return 130
    except StoppedError as err:
        print(_one_line(err), file=sys.stderr)
        return err.code
    except UnexpectedError as err:
        print_error(err)
        return 1
    except _USER_ERRORS as err:
        if _is_ours(err):
            return print_error(err)
        return _unexpected(err, values)
    except Exception as err:
        return _unexpected(err, values)


def _is_ours(err: BaseException) -> bool:
    """Whether an error has been raised for a person to read.

    Errors of files and of imports are always; others if they come from tfvae
    or from gin, rather than from a library or a file of the user.
    """
    if not isinstance(err, RuntimeError | TypeError | ValueError):
        return True
    frames = traceback.extract_tb(err.__traceback__)
    if not frames:
        return True
    path = pathlib.Path(frames[-1].filename)
    is_gin = path.parent.name == "gin" and "-packages" in str(path)
    return is_gin or any(path.is_relative_to(one) for one in _OURS)


def _unexpected(err: BaseException, values: flags.FlagValues) -> int:
    """Prints an error with its type and place; returns 1."""
    log = pathlib.Path(values.run_dir) / "error.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    lines = traceback.format_exception(err)
    log.write_text("".join(lines), encoding="utf-8", errors="replace")
    frames = traceback.extract_tb(err.__traceback__)
    where = ""
    if frames:
        last = frames[-1]
        where = f"; {last.filename}, line {last.lineno}, in {last.name}"
    print_error(f"{err!r} (unexpected{where}; the traceback is in {log})")
    return 1


def print_error(error: BaseException | str) -> int:
    """Prints an error as one line; returns 2."""
    print("error:", _one_line(error), file=sys.stderr)
    return 2


def _one_line(error: BaseException | str) -> str:
    """Returns the message of an error as one line, without gin's call stack."""
    lines = [
        line.strip()
        for line in str(error).splitlines()
        if not line.lstrip().startswith("In call to configurable")
    ]
    return " ".join(filter(None, lines))
