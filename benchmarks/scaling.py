# SPDX-License-Identifier: Apache-2.0
"""Benchmark: scaling of the cost with the numbers of latents and states."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.tables import cell, print_table
from tfvae import plots

Grid = Sequence[Mapping[str, float]]
"""One measurement for each pair of the sizes "latents" and "states"."""

_SIZES = ("latents", "states")


def exponents(grid: Grid, cost: str) -> dict[str, float | None]:
    """Fits cost = c latents^a states^b by least squares in log space.

    Args:
      grid: The measurements, with positive costs.
      cost: Key of the cost.

    Returns:
      a as "latents" and b as "states", None for a size that does not vary.
    """
    varied = [one for one in _SIZES if len({row[one] for row in grid}) > 1]
    columns = [[math.log(row[one]) for row in grid] for one in varied]
    design = np.array([*columns, [1.0] * len(grid)]).T
    target = np.log([row[cost] for row in grid])
    fitted = np.linalg.lstsq(design, target, rcond=None)[0].tolist()
    found: dict[str, float | None] = dict.fromkeys(_SIZES)
    found.update(zip(varied, fitted, strict=False))
    return found


def steepest(grid: Grid, cost: str) -> dict[str, float | None]:
    """Returns the largest exponents between neighbours in a grid.

    Args:
      grid: See `exponents`.
      cost: Key of the cost.

    Returns:
      The largest exponent along each size, None for one that does not vary.
    """
    found: dict[str, float | None] = {}
    for size, other in (_SIZES, _SIZES[::-1]):
        slopes = []
        for value in {row[other] for row in grid}:
            line = sorted(
                (row[size], row[cost]) for row in grid if row[other] == value
            )
            slopes += [
                math.log(y2 / y1) / math.log(x2 / x1)
                for (x1, y1), (x2, y2) in zip(line, line[1:], strict=False)
            ]
        found[size] = max(slopes, default=None)
    return found


def report(
    grid: Grid, path: str | os.PathLike[str], name: str
) -> dict[str, dict[str, Any]]:
    """Prints a grid and its exponents, and draws it.

    Args:
      grid: Rows with "latents", "states", "per_second" (data points per
        second), "seconds" (per data point), "state_store_bytes",
        "peak_memory_mb" and "bound".
      path: The figure to write.
      name: Name of the data.

    Returns:
      The exponents of "seconds" and "state_store_bytes".
    """
    print(f"\n{name}")
    print_table(
        ["H", "S", "points/s", "state store MB", "peak MB", "bound"],
        [
            [
                *(f"{row[size]:.0f}" for size in _SIZES),
                f"{row['per_second']:,.0f}",
                f"{row['state_store_bytes'] / 1e6:,.2f}",
                f"{row['peak_memory_mb']:,.0f}",
                cell(row.get("bound"), ".3f"),
            ]
            for row in grid
        ],
    )
    print("\nexponents: 1 is linear")
    stored = [row for row in grid if row["state_store_bytes"]]
    costs = {"seconds": grid, "state_store_bytes": stored}
    found = {
        cost: {
            "fitted": exponents(rows, cost),
            "steepest": steepest(rows, cost),
        }
        for cost, rows in costs.items()
        if rows
    }
    print_table(
        ["cost", "in H", "in S", "steepest in H", "steepest in S"],
        [
            [
                cost.replace("_", " "),
                *(
                    cell(kind[size], ".2f")
                    for kind in each.values()
                    for size in _SIZES
                ),
            ]
            for cost, each in found.items()
        ],
    )
    _draw(grid, path, name)
    print(f"wrote {path}")
    return {"exponents": found}


def _draw(grid: Grid, path: str | os.PathLike[str], name: str) -> None:
    """Draws speed and bytes over the number of latents, one curve per S."""
    speed: dict[str, tuple[list[float], list[float]]] = {}
    size: dict[str, tuple[list[float], list[float]]] = {}
    for num_states in sorted({row["states"] for row in grid}):
        rows = [row for row in grid if row["states"] == num_states]
        rows.sort(key=lambda row: row["latents"])
        latents = [row["latents"] for row in rows]
        label = f"S = {num_states:.0f}"
        speed[label] = latents, [row["per_second"] for row in rows]
        stored = [row for row in rows if row["state_store_bytes"]]
        if stored:
            size[label] = (
                [row["latents"] for row in stored],
                [row["state_store_bytes"] for row in stored],
            )
    places, values = next(iter(speed.values()))
    linear = [values[0] * places[0] / place for place in places]
    panels = [
        plots.Panel(
            speed,
            "latents H",
            "data points per second",
            True,
            {"linear in H": (places, linear)},
        )
    ]
    if size:
        panels.append(
            plots.Panel(size, "latents H", "bytes of the state store", True)
        )
    plots.panels(panels, path, title=f"{name}: cost against size")
