# SPDX-License-Identifier: Apache-2.0
"""Runs training programs alternately, and parses their JSON output.

A program prints one JSON line for each epoch, with "per_second" (data points
per second), and if known with "bound" or "free_energy" (nats per data point)
and "seconds". Each program, including tfvae, is a separate process, so that its
memory and its start-up time are measured separately.
"""

from __future__ import annotations

import json
import math
import pathlib
import re
import tempfile
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tfvae import processes

_NAME = re.compile(r"[\w.+-]+")


class Program(NamedTuple):
    """A program to measure."""

    name: str
    """Name in the tables."""
    argv: Sequence[str]
    """Command."""
    is_optional: bool = False
    """Whether it is left out, instead of raising an error, if it fails."""


class Output(NamedTuple):
    """The output and the cost of one run of a program."""

    epochs: list[dict[str, float]]
    """The epochs: "per_second" and, where known, "bound" and "seconds"."""
    facts: dict[str, Any]
    """Content of its JSON lines {"facts": {...}}."""
    peak_memory_mb: float
    """Peak memory, MB."""
    seconds: float
    """Time from its start to its end."""


def parse(commands: Sequence[str]) -> list[Program]:
    """Parses programs of the form `name=command`.

    Args:
      commands: The texts; commands are run by a shell.

    Raises:
      ValueError: If a text does not have this form.
    """
    programs = []
    for text in commands:
        name, _, command = text.partition("=")
        if not _NAME.fullmatch(name) or not command.strip():
            raise ValueError(
                "`compare` must be name=command, as in "
                f"'other=python other.py --epochs=4', got {text!r}."
            )
        programs.append(Program(name, ["/bin/sh", "-c", command]))
    return programs


def run(program: Program, min_epochs: int = 2) -> Output:
    """Runs a program to its end.

    Args:
      program: The program.
      min_epochs: The minimum number of epochs that it must print.

    Raises:
      RuntimeError: If it fails, or prints fewer epochs.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "errors.txt"
        started = time.perf_counter()
        with processes.Process(program.argv, log=log) as process:
            try:
                process.check_started()
            except OSError as err:
                raise RuntimeError(
                    f"`{program.name}` must be an executable program, got "
                    f"{program.argv[0]!r}: {err}"
                ) from err
            process.close_input()
            epochs, facts = _read(process.lines())
            ended = process.end(None)
        seconds = time.perf_counter() - started
        if ended.code:
            raise RuntimeError(
                f"`{program.name}` must exit with code 0, got exit code "
                f"{ended.code}: {processes.last_line(log)}"
            )
    if len(epochs) < min_epochs:
        raise RuntimeError(
            f'`{program.name}` must print a JSON line with "per_second" for '
            f"each of at least {min_epochs} epochs, got {len(epochs)}."
        )
    return Output(epochs, facts, ended.peak_memory_mb, seconds)


def alternate(
    programs: Sequence[Program], repeats: int, min_epochs: int = 2
) -> tuple[dict[str, list[Output]], dict[str, str]]:
    """Runs programs alternately, so that other load affects all of them.

    Args:
      programs: The programs, with different names.
      repeats: Number of runs of each program.
      min_epochs: See `run`.

    Returns:
      The outputs of each program, and the errors of programs that failed.

    Raises:
      RuntimeError: If a program fails that is not optional.
    """
    outputs: dict[str, list[Output]] = {one.name: [] for one in programs}
    left_out: dict[str, str] = {}
    for number in range(repeats):
        for program in programs:
            if program.name in left_out:
                continue
            label = f"round {number + 1}/{repeats}  {program.name:10}"
            try:
                output = run(program, min_epochs)
            except RuntimeError as err:
                if not program.is_optional:
                    raise
                left_out[program.name] = str(err)
                del outputs[program.name]
                print(f"{label}  left out: {err}", flush=True)
                continue
            outputs[program.name].append(output)
            speed = f"{output.epochs[-1]['per_second']:.0f} points/s"
            print(f"{label}  {speed}, {output.seconds:.0f} s", flush=True)
    return outputs, left_out


def _read(
    lines: Iterable[str],
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Returns the epochs and the facts in the lines of an output."""
    epochs, facts = [], {}
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if not isinstance(row, dict):
            continue
        facts.update(row.get("facts", {}))
        numbers = {
            name: float(value)
            for name, value in row.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        if numbers.get("per_second", 0.0) <= 0.0:
            continue
        if "free_energy" in numbers:
            numbers.setdefault("bound", numbers.pop("free_energy"))
        epochs.append(numbers)
    return epochs, facts
