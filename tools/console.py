# SPDX-License-Identifier: Apache-2.0
"""What the tools share: flags, a quiet TensorFlow, and errors in one line.

Nothing here imports TensorFlow until a tool has work to do, so `--help` and
wrong flags are answered at once.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pathlib
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

_NOT_INSTALLED = "is not installed; install tfvae first: pip install -e ."

try:
    from absl import flags
except ImportError:
    print(f"error: absl-py {_NOT_INSTALLED}", file=sys.stderr)
    sys.exit(2)

# What tfvae raises for a value, a file or an order of calls that is wrong.
_USER_ERRORS = (
    ImportError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)

Main = Callable[[flags.FlagValues], None]
"""The work of a tool, given its flags."""


def run(
    main: Main,
    doc: str,
    define: Callable[[flags.FlagValues], None] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Runs a tool and returns its exit code.

    Args:
      main: What to do.
      doc: What `--help` prints above the flags.
      define: Defines the flags of this tool beside the common ones.
      argv: The command line; that of the process when None.

    Returns:
      0; 1 for an error of ours, with a traceback in error.log of the run
      folder; 2 for an error of the user; 130 when interrupted.
    """
    values = common_flags()
    if define is not None:
        define(values)
    argv = list(sys.argv if argv is None else argv)
    if {"--help", "-h", "-help"} & set(argv):
        print(help_text(doc, values))
        return 0
    try:
        rest = values(argv)[1:]
        if rest:
            raise flags.Error(f"unexpected argument {rest[0]!r}; see --help")
    except flags.Error as err:
        return _tell(err)
    try:
        with quiet():
            import tensorflow as tf

            tf.config.list_physical_devices()
        import tfvae.runs.config  # noqa: F401 (needs all that is needed)
    except ModuleNotFoundError as err:
        return _tell(f"{err.name} {_NOT_INSTALLED}")
    if "" not in sys.path:  # The current folder, for imports of gin files.
        sys.path.append("")
    return _guarded(main, values)


def common_flags() -> flags.FlagValues:
    """Returns the flags that every tool has, of a set of their own."""
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


def run_dir(values: flags.FlagValues) -> str:
    """Returns the run folder.

    Raises:
      ValueError: If it was not given.
    """
    if not values.run_dir:
        raise ValueError("`--run_dir` must be given, as in --run_dir=runs/one")
    return values.run_dir


def gin_files(values: flags.FlagValues) -> list[str]:
    """Returns the configuration files.

    Raises:
      ValueError: If none was given.
    """
    if not values.gin_file:
        raise ValueError(
            "`--gin_file` must be given, such as --gin_file=gin/runs/bars.gin"
        )
    return values.gin_file


def bindings(
    values: flags.FlagValues, parameters: Mapping[str, str] | None = None
) -> list[str]:
    """Returns the gin bindings that the flags ask for.

    Args:
      values: The flags.
      parameters: The parameter that each flag of the tool binds.

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
        text = flag.help.partition(";\n")[0]  # absl adds that
        lines.append(f"  --{name}")
        lines += textwrap.wrap(
            text, 78, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    return "\n".join(lines)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what TensorFlow writes to standard error as it wakes up."""
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
    # From here on only our own words.
    logging.getLogger().setLevel(logging.CRITICAL)
    ours = logging.getLogger("tfvae")
    ours.setLevel(logging.INFO)
    ours.propagate = False
    if not ours.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("warning: %(message)s"))
        ours.addHandler(handler)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def _guarded(main: Main, values: flags.FlagValues) -> int:
    """Calls `main` and turns what it raises into an exit code."""
    from tfvae.runs.run_directory import UnexpectedError

    try:
        main(values)
        return 0
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    except UnexpectedError as err:
        _tell(err)
        return 1
    except _USER_ERRORS as err:
        return _tell(err)
    except Exception as err:
        log = pathlib.Path(values["run_dir"].value or ".") / "error.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc(), encoding="utf-8")
        _tell(f"{err!r} (this should not happen; the traceback is in {log})")
        return 1


def _tell(error: BaseException | str) -> int:
    """Prints an error as one line, without gin's call stack."""
    lines = [
        line.strip()
        for line in str(error).splitlines()
        if not line.lstrip().startswith("In call to configurable")
    ]
    print("error:", " ".join(filter(None, lines)), file=sys.stderr)
    return 2
