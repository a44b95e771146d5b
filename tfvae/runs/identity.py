# SPDX-License-Identifier: Apache-2.0
"""Comparison of the configuration of a run folder with the current one.

Training, denoising, optimisations and cells of sweeps check it before they
resume the run of a folder.
"""

from __future__ import annotations

import ast
import os
import pathlib
from typing import NamedTuple

from tfvae.runs import config

EPOCHS = "fit.epochs"
"""The number of epochs, which may be raised to extend a training run."""

# Parameters of what is written or kept, without influence on any result.
_WITHOUT_INFLUENCE = frozenset(
    {
        "denoise.export",
        "denoise.lossy",
        "denoise.output",
        "denoise.output_std",
        "denoise.overwrite",
        "evaluate.num_points",
        "export.output",
        "fit.keep_checkpoints",
        "train.export",
        "TVAE.states_folder",
        "TVAE.states_in_memory",
    }
)
# Parameters whose values are paths, compared after resolving them.
_PATHS = frozenset({"optimize.warm_start", "own_task.path"})


class Rules(NamedTuple):
    """The parameters that may differ between configurations of the same run."""

    extendable: str | None
    """The parameter that the error message says may be raised, or None."""
    free: tuple[str, ...] = ()
    """Parameters that may differ; `name.` stands for all of a function."""
    change: str = "raised"
    """What may be done with `extendable`, for the error message."""


TRAINING = Rules(EPOCHS, (EPOCHS,))
OPTIMIZATION = Rules(
    "optimize.budget",
    (
        "optimize.budget",
        "optimize.min_distance",
        "optimize.evaluator",
        "optimize.num_samples",
        "ProcessPool.",
        "RayPool.",
        EPOCHS,  # Only used before the first query.
    ),
    "changed",
)
CELL = Rules(None)


def check(
    run_dir: pathlib.Path,
    saved: str,
    current: str,
    rules: Rules,
    what: str | None = None,
) -> None:
    """Checks that a configuration is compatible with that of a run folder.

    Args:
      run_dir: The folder.
      saved: The configuration in the folder, as text.
      current: The configuration to resume with, as text.
      rules: The parameters that may differ.
      what: The part of the folder that is configured, for the error message.

    Raises:
      ValueError: If a parameter differs that must not.
    """
    different = differences(saved, current, rules)
    if not different:
        return
    of_what = "" if what is None else f" for {what}"
    hint = ""
    if rules.extendable is not None:
        hint = f" Only `{rules.extendable}` may be {rules.change}."
    raise ValueError(
        f"`run_dir` {run_dir} must be empty or of the same configuration, got "
        f"other values{of_what}: {'; '.join(different)}.{hint}"
    )


def check_data(
    run_dir: pathlib.Path, saved: int, current: int, name: str
) -> None:
    """Checks that training data are those of a run folder.

    Args:
      run_dir: The folder.
      saved: CRC-32 of the data that the run was trained on.
      current: CRC-32 of the data to resume with.
      name: Name of the latter, for the error message.

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
      saved: The configuration that a run was started with, as text.
      current: The configuration to resume with, as text.
      rules: The parameters that may differ, in addition to those without
        influence on the results.

    Returns:
      For each parameter that differs, a text with both values.
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
    """Returns what can act, by name, with a macro for the epochs resolved."""
    values = config.acting(text)
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
    """Returns the text by which values of a parameter are compared."""
    text = values.get(name)
    if text is None or name not in _PATHS:
        return text
    try:
        path = ast.literal_eval(text)
    except (SyntaxError, ValueError):  # A macro, for instance.
        return text
    return os.path.realpath(path) if isinstance(path, str) else text
