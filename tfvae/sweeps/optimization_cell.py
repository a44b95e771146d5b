# SPDX-License-Identifier: Apache-2.0
"""One cell of a comparison: an optimisation of one setting and seed."""

from __future__ import annotations

import os
from typing import Any

from tfvae.runs.optimize import optimize


def run_cell(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Runs the configured optimisation, or goes on with it.

    Args:
      path: Folder of the cell.

    Returns:
      Its result, see `tfvae.runs.optimize.summary`.
    """
    return optimize(path)
