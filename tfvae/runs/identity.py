# SPDX-License-Identifier: Apache-2.0
"""Compares the configuration of a run folder with the current one.

Training, denoising, optimisations and cells of sweeps all ask here, before
they go on with what a folder has.
"""

from __future__ import annotations

import ast
import os
import pathlib
from typing import NamedTuple

from tfvae.runs import config

EPOCHS = "fit.epochs"
"""More epochs extend a training; they do not make it another one."""

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


class Rules(NamedTuple):
    """What may differ between two configurations of the same run."""

    extendable: str | None
    """The parameter that may be raised, for the error; None for none."""
    free: tuple[str, ...] = ()
    """Parameters that may differ; with a dot at the end, all of a function."""


TRAINING = Rules(EPOCHS, (EPOCHS,))
OPTIMIZATION = Rules(
    "optimize.budget",
    (
        "optimize.budget",
        "optimize.evaluator",
        "optimize.num_samples",
        "ProcessPool.",
        EPOCHS,  # The model has been trained by then.
    ),
)
CELL = Rules(None)


def check(
    run_dir: pathlib.Path,
    saved: str,
    current: str,
    rules: Rules,
    what: str | None = None,
) -> None:
    """Refuses a configuration that is not the one of a folder.

    Args:
      run_dir: The folder.
      saved: Text of the configuration that it has.
      current: Text of the one that it shall go on with.
      rules: What may differ.
      what: The part of the folder that it is of, for the error.

    Raises:
      ValueError: If a value differs that makes it another run.
    """
    different = differences(saved, current, rules)
    if not different:
        return
    of_what = "" if what is None else f" for {what}"
    hint = ""
    if rules.extendable is not None:
        hint = f" Only {rules.extendable} may be raised."
    raise ValueError(
        f"`run_dir` {run_dir} must be empty or of the same configuration, got "
        f"other values{of_what}: {'; '.join(different)}.{hint}"
    )


def check_data(
    run_dir: pathlib.Path, saved: int, current: int, name: str
) -> None:
    """Refuses training data that are not those of a folder.

    Args:
      run_dir: The folder.
      saved: CRC-32 of the data that it was trained on.
      current: Of the data that it shall go on with.
      name: What these are called.

    Raises:
      ValueError: If they differ.
    """
    if saved != current:
        raise ValueError(
            f"`experiment.data` must be the data that {run_dir} was trained "
            f"on, got {name} with other values; choose another folder."
        )


def differences(saved: str, current: str, rules: Rules) -> list[str]:
    """Compares two configurations.

    Args:
      saved: Text of the one that a run was started with.
      current: Text of the one that it shall go on with.
      rules: What may differ, beside what has no influence on the figures.

    Returns:
      A line for each value that differs, with both values in it.
    """
    before, after = _values(saved), _values(current)
    return [
        f"{name} was {before.get(name, 'not set')}, is now "
        f"{after.get(name, 'not set')}"
        for name in sorted(before.keys() | after.keys())
        if not _may_differ(name, rules)
        and _compared(name, before) != _compared(name, after)
    ]


def _values(text: str) -> dict[str, str]:
    """Returns values by name, that of a macro for epochs in its place."""
    values = config.bindings(text)
    epochs = values.get(EPOCHS, "")
    if epochs.startswith("%"):
        values[EPOCHS] = values.pop(epochs.removeprefix("%"), epochs)
    return values


def _may_differ(name: str, rules: Rules) -> bool:
    return name in _WITHOUT_INFLUENCE or any(
        name.startswith(one) if one.endswith(".") else name == one
        for one in rules.free
    )


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
