# SPDX-License-Identifier: Apache-2.0
"""Entry point of the command `tfvae`: dispatches to its subcommands.

A subcommand is a module with a docstring (the text of its `--help`) and a
function `main` that takes the flags. Optional functions are `define`, which
defines further flags, `rewritten`, which changes arguments before they are
parsed, `check`, which validates the flags, and `first`, which does what does
not need TensorFlow and returns an exit code, or what to call instead of `main`,
and `failed`, which is called with the exit code of a `main` that failed.
Before the last, TensorFlow is not imported. Optional `GROUPS` are flags by the
titles under which `--help` shows them.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from tfvae import __version__, locations
from tfvae.cli import board, console, doctor, listing

COMMANDS = {
    "train": ("tfvae.cli.train", "train a model on data points"),
    "denoise": ("tfvae.cli.denoise", "denoise or in-paint pictures"),
    "evaluate": ("tfvae.cli.evaluate", "evaluate a run on held-out data"),
    "export": ("tfvae.cli.export", "export a run for TensorFlow Serving"),
    "shard": (
        "tfvae.cli.shard",
        "write data points as shards, to train beyond the memory",
    ),
    "optimize": (
        "tfvae.cli.optimize",
        "optimise a black-box objective in a latent space",
    ),
    "study": ("tfvae.cli.study", "run a sweep over a grid of configurations"),
    "benchmark": (
        "benchmarks.command",
        "measure speed, quality and memory (in a clone)",
    ),
}
"""Module and summary of each subcommand, by its name."""

OTHERS = {
    "board": (board.main, "show the runs of a folder in a browser, live"),
    "doctor": (doctor.main, "say what is installed, and whether it works"),
    "list": (listing.main, "print the packaged configurations (gin files)"),
}
"""Function of the arguments and summary of what is about no run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    Args:
      argv: Arguments after `tfvae`; None for those of the process.
    """
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:  # As in `tfvae list | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _run(argv: Sequence[str]) -> int:
    """Runs the subcommand that comes first in `argv`."""
    name = argv[0] if argv else "--help"
    if name in ("--help", "-h", "-help", "help"):
        print(_help())
        return 0
    if name == "--version":
        print(f"tfvae {__version__}")
        return 0
    if name in OTHERS:
        return OTHERS[name][0](argv[1:])
    if name not in COMMANDS:
        names = [*COMMANDS, *OTHERS]
        near = difflib.get_close_matches(name, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return console.print_error(
            f"the first argument must be one of {', '.join(names)}, got "
            f"{name!r}{hint}"
        )
    try:
        command = _command(name)
    except ModuleNotFoundError as err:
        if err.name is None or err.name.partition(".")[0] != "benchmarks":
            raise
        return console.print_error(locations.needs_clone(f"tfvae {name}"))
    return console.run(command, argv[1:])


def _command(name: str) -> ModuleType:
    """Imports the module of a subcommand."""
    locations.make_clone_importable()
    return importlib.import_module(COMMANDS[name][0])


def _help() -> str:
    """Returns the text of `tfvae --help`."""
    summaries = {name: summary for name, (_, summary) in COMMANDS.items()}
    summaries |= {name: summary for name, (_, summary) in OTHERS.items()}
    width = max(map(len, summaries))
    return "\n".join(
        [
            "Trains, evaluates and exports variational autoencoders.",
            "",
            "Usage:",
            "  tfvae COMMAND --run_dir=FOLDER [--gin_file=FILE ...]",
            "  tfvae COMMAND --help",
            "  tfvae --version",
            "",
            "Commands:",
            *(f"  {name:{width}}  {text}" for name, text in summaries.items()),
            "",
            "First steps:",
            "  tfvae denoise --gin_file=quickstart.gin --run_dir=quickstart",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
