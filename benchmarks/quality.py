# SPDX-License-Identifier: Apache-2.0
"""Benchmark: time to a given bound or PSNR."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.programs import Output
from benchmarks.tables import cell, print_table
from tfvae import plots

Curve = list[dict[str, float]]
"""One row per epoch: "seconds" since the start, and "bound" or "psnr"."""

_LABELS = {"bound": "bound / nats per data point", "psnr": "PSNR / dB"}
# Relative tolerance of levels: implementations differ by rounding errors.
_ROUNDING = 1e-4


def curve(outputs: Sequence[Output], num_data: int) -> Curve:
    """Returns medians over the runs of a program, with cumulative seconds.

    Args:
      outputs: The runs.
      num_data: Data points of an epoch.
    """
    found: Curve = []
    elapsed = 0.0
    for rows in zip(*(output.epochs for output in outputs), strict=False):
        elapsed += statistics.median(
            row.get("seconds", num_data / row["per_second"]) for row in rows
        )
        point = {"epoch": len(found) + 1.0, "seconds": elapsed}
        for name in _LABELS:
            if all(name in row for row in rows):
                point[name] = statistics.median(row[name] for row in rows)
        found.append(point)
    return found


def levels(
    curves: Mapping[str, Curve], reference: str, name: str
) -> list[dict[str, float | None]]:
    """Returns the times at which programs reach the levels of one of them.

    The levels are those after 1, 2, 4, ... epochs and at the end.

    Args:
      curves: The curves by program.
      reference: The program that sets the levels.
      name: "bound" or "psnr".

    Returns:
      Rows with the "level" and the seconds of each program, None if it does
      not reach the level.
    """
    own = curves[reference]
    powers = {2**i for i in range(len(own).bit_length())}
    rows = []
    for epoch in sorted({n for n in powers if n < len(own)} | {len(own)}):
        level = own[epoch - 1][name]
        row: dict[str, float | None] = {"level": level}
        for program, each in curves.items():
            row[program] = seconds_to_reach(each, name, level)
        rows.append(row)
    return rows


def seconds_to_reach(rows: Curve, name: str, level: float) -> float | None:
    """Returns the end of the first epoch that reaches a level.

    Args:
      rows: The epochs.
      name: "bound" or "psnr".
      level: The level, with a relative tolerance of 1e-4.

    Returns:
      Seconds since the start of training, None if no epoch reaches it.
    """
    enough = level - _ROUNDING * abs(level)
    return next(
        (row["seconds"] for row in rows if row.get(name, -math.inf) >= enough),
        None,
    )


def report(
    curves: Mapping[str, Curve],
    reference: str,
    path: str | os.PathLike[str],
    name: str,
) -> dict[str, Any]:
    """Prints and draws the time to quality.

    Args:
      curves: The curves by program.
      reference: The program that sets the levels.
      path: The figure to write.
      name: Name of the data.

    Returns:
      The "levels" of each measure; see `levels`.
    """
    own = curves[reference]
    measures = [one for one in _LABELS if all(one in row for row in own)]
    found = {one: levels(curves, reference, one) for one in measures}
    for measure, rows in found.items():
        print(
            f"\nseconds of training until the {measure} of {reference} after "
            "1, 2, 4, ... epochs is reached"
        )
        print_table(
            [measure, *curves],
            [
                [
                    cell(row["level"], ".3f"),
                    *(cell(row[program], ".1f") for program in curves),
                ]
                for row in rows
            ],
        )
    plots.panels(
        [_panel(curves, one) for one in measures],
        path,
        title=f"{name}: quality against time",
    )
    print(f"wrote {path}")
    return {"levels": found}


def _panel(curves: Mapping[str, Curve], measure: str) -> plots.Panel:
    lines = {}
    for program, every in curves.items():
        rows = [row for row in every if measure in row]
        if rows:
            lines[program] = (
                [row["seconds"] for row in rows],
                [row[measure] for row in rows],
            )
    return plots.Panel(lines, "seconds of training", _LABELS[measure])
