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
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType

from absl import flags

from tfvae import locations

# Exceptions that tfvae raises for wrong values, files or orders of calls.
_USER_ERRORS = (
    ImportError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


def run(command: ModuleType, argv: Sequence[str]) -> int:
    """Runs a subcommand and returns its exit code.

    Args:
      command: Module of the subcommand; see `tfvae.cli.main`.
      argv: Arguments after the name of the subcommand.

    Returns:
      0 on success; 1 for an internal error, with a traceback in error.log of
      the run folder; 2 for a user error; 130 when interrupted.
    """
    values = common_flags()
    if hasattr(command, "define"):
        command.define(values)
    if {"--help", "-h", "-help"} & set(argv):
        print(help_text(command.__doc__ or "", values))
        return 0
    try:
        rest = values(["tfvae", *argv])[1:]
        if rest:
            raise flags.Error(f"unexpected argument {rest[0]!r}; see --help")
        check(command, values)
    except (flags.Error, *_USER_ERRORS) as err:
        return print_error(err)
    try:
        with quiet():
            import tensorflow as tf

            tf.config.list_physical_devices()
        import tfvae.runs.config  # noqa: F401 (imports all dependencies)
    except ModuleNotFoundError as err:
        return print_error(
            f"{err.name} is not installed; run: pip install tfvae"
        )
    if "" not in sys.path:  # The current folder, for imports of gin files.
        sys.path.append("")
    return _guarded(command.main, values)


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
    flags.DEFINE_integer(
        "seed",
        None,
        "Seed of the run (0 unless set).",
        lower_bound=0,
        upper_bound=2**32 - 1,
        flag_values=values,
    )
    return values


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


def help_text(doc: str, values: flags.FlagValues) -> str:
    """Returns the text of `--help`."""
    lines = [doc.strip(), "", "Flags:"]
    for name in sorted(values):
        flag = values[name]
        text = flag.help.partition(";\n")[0]  # absl appends ";\n" and a hint.
        lines.append(f"  --{name}")
        lines += textwrap.wrap(
            text, 78, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    return "\n".join(lines)


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


def _guarded(
    main: Callable[[flags.FlagValues], None], values: flags.FlagValues
) -> int:
    """Calls `main` and converts exceptions to exit codes."""
    from tfvae.runs import config
    from tfvae.runs.run_directory import UnexpectedError

    try:
        with config.explaining_imports():
            main(values)
        return 0
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return 130
    except UnexpectedError as err:
        print_error(err)
        return 1
    except _USER_ERRORS as err:
        return print_error(err)
    except Exception as err:
        log = pathlib.Path(values.run_dir) / "error.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc(), encoding="utf-8")
        print_error(f"{err!r} (unexpected; the traceback is in {log})")
        return 1


def print_error(error: BaseException | str) -> int:
    """Prints an error as one line, without gin's call stack; returns 2."""
    lines = [
        line.strip()
        for line in str(error).splitlines()
        if not line.lstrip().startswith("In call to configurable")
    ]
    print("error:", " ".join(filter(None, lines)), file=sys.stderr)
    return 2
