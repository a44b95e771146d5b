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
"""A row an epoch: "seconds" since training began, and "bound" or "psnr"."""

_LABELS = {"bound": "bound / nats per data point", "psnr": "PSNR / dB"}
# Two forms of the same training drift apart by rounding; this much is level.
_ROUNDING = 1e-4


def curve(outputs: Sequence[Output], num_data: int) -> Curve:
    """Returns medians over the calls of a program, the seconds summed up.

    Args:
      outputs: The calls.
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
    """Returns when programs were as good as one after 1, 2, 4, ... epochs.

    Args:
      curves: The programs by name.
      reference: Which of them sets the levels.
      name: "bound" or "psnr".

    Returns:
      Rows with the "level" and the seconds of each program, None where it
      never gets there.
    """
    ours = curves[reference]
    powers = {2**i for i in range(len(ours).bit_length())}
    rows = []
    for epoch in sorted({n for n in powers if n < len(ours)} | {len(ours)}):
        level = ours[epoch - 1][name]
        row: dict[str, float | None] = {"level": level}
        for program, each in curves.items():
            row[program] = seconds_to_reach(each, name, level)
        rows.append(row)
    return rows


def seconds_to_reach(rows: Curve, name: str, level: float) -> float | None:
    """Returns when an epoch ended that was at a level or above.

    Args:
      rows: The epochs.
      name: What has to reach the level.
      level: The level; what is 1e-4 of it below has reached it.

    Returns:
      Seconds since training began, None if no epoch was.
    """
    enough = level - _ROUNDING * abs(level)
    return next(
        (row["seconds"] for row in rows if row.get(name, -math.inf) >= enough),
        None,
    )


def tell(
    curves: Mapping[str, Curve],
    reference: str,
    path: str | os.PathLike[str],
    name: str,
) -> dict[str, Any]:
    """Prints the time to quality, and draws it.

    Args:
      curves: The programs by name.
      reference: Which of them sets the levels.
      path: The figure to write.
      name: Of the data.

    Returns:
      The "levels" of each measure; see `levels`.
    """
    ours = curves[reference]
    measures = [one for one in _LABELS if all(one in row for row in ours)]
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
