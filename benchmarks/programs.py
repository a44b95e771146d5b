# SPDX-License-Identifier: Apache-2.0
"""Runs programs that train something, in turn, and reads what they print.

A program prints one JSON line for each epoch, with "per_second" (data points),
and "bound" or "free_energy" (nats a data point) and "seconds" where it knows
them. Every program is a process of its own, ours too, so memory and the time
to start are its own.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

# The peak memory that Linux keeps for a process begins with that of the one
# that started it, so a small one has to stand between TensorFlow and it.
_LAUNCHER = """
import json, resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
with open(sys.argv[1], "w") as file:
    json.dump({"code": code, "peak_kb": peak}, file)
"""
_NAME = re.compile(r"[\w.+-]+")


class Program(NamedTuple):
    """What is measured."""

    name: str
    """As it stands in the tables."""
    argv: Sequence[str]
    """How it is called."""
    is_optional: bool = False
    """Whether the others are measured without it when it fails."""


class Output(NamedTuple):
    """What a program told in one call, and what it took."""

    epochs: list[dict[str, float]]
    """In order, with "per_second" and, where known, "bound" and "seconds"."""
    facts: dict[str, Any]
    """What it says of itself in a JSON line {"facts": {...}}."""
    peak_memory_mb: float
    """The most memory that it had, MB."""
    seconds: float
    """From its start to its end."""


def parse(commands: Sequence[str]) -> list[Program]:
    """Returns the programs of flags `name=command`.

    Args:
      commands: The flags; the command is run by a shell.

    Raises:
      ValueError: If one is not of this form.
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
      min_epochs: How many epochs it has to tell of.

    Raises:
      RuntimeError: If it fails, or tells of fewer epochs.
    """
    with tempfile.TemporaryDirectory() as folder:
        usage = pathlib.Path(folder) / "usage.json"
        started = time.perf_counter()
        out, err = _communicate(
            [sys.executable, "-I", "-c", _LAUNCHER, str(usage), *program.argv]
        )
        seconds = time.perf_counter() - started
        if not usage.exists():
            raise RuntimeError(
                f"`{program.name}` must be a program that can be run, got "
                f"{program.argv[0]!r}: {_last(err)}"
            )
        ended = json.loads(usage.read_text())
    if ended["code"]:
        raise RuntimeError(
            f"`{program.name}` must be a program that succeeds, got exit code "
            f"{ended['code']}: {_last(err)}"
        )
    epochs, facts = _read(out)
    if len(epochs) < min_epochs:
        raise RuntimeError(
            f'`{program.name}` must print a JSON line with "per_second" for '
            f"each of at least {min_epochs} epochs, got {len(epochs)}."
        )
    return Output(epochs, facts, ended["peak_kb"] / 1024.0, seconds)


def alternate(
    programs: Sequence[Program], repeats: int, min_epochs: int = 2
) -> tuple[dict[str, list[Output]], dict[str, str]]:
    """Runs programs in turn, so that all see the same moods of the machine.

    Args:
      programs: The programs, of different names.
      repeats: How often each one is run.
      min_epochs: See `run`.

    Returns:
      The outputs of each program, and why those that are missing are.

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


def _communicate(argv: Sequence[str]) -> tuple[str, str]:
    """Runs a command; nothing of it outlives an interrupt of ours."""
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            return process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def _read(text: str) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Returns the epochs and the facts among the lines of an output."""
    epochs, facts = [], {}
    for line in text.splitlines():
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


def _last(text: str) -> str:
    """Returns the last line of an error output, the one that tells most."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else "no message"
