# SPDX-License-Identifier: Apache-2.0
"""Runs a subcommand of `tfvae` with the code of this clone."""

from __future__ import annotations

import pathlib
import sys

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(command: str) -> int:
    """Runs a subcommand with the process's arguments; returns its exit code.

    Args:
      command: Its name, such as "train".
    """
    sys.path.insert(0, str(_ROOT))
    try:
        from tfvae.cli.main import main
    except ModuleNotFoundError as err:
        print(
            f"error: {err.name} is not installed; run: pip install -e {_ROOT}",
            file=sys.stderr,
        )
        return 2
    return main([command, *sys.argv[1:]])
