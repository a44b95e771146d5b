# SPDX-License-Identifier: Apache-2.0
"""CSV table of the rounds of an optimisation and the time of their stages."""

from __future__ import annotations

import csv
import pathlib
from typing import Any

from tfvae import files

STAGES = ("retrain", "encode", "fit", "acquisition", "decode", "evaluate")
"""Stages of a round whose time is measured."""


class RoundTable:
    """rounds.csv: a row for each round, with the seconds of its stages.

    The seconds of an interrupted round include those before the interruption.
    """

    COLUMNS = (
        "round",
        "num_data",
        "loss",
        "best",
        *(f"seconds_{stage}" for stage in STAGES),
    )

    def __init__(self, path: pathlib.Path) -> None:
        """Reads the file at `path`, if it exists."""
        self._path = path
        self._rows: dict[int, dict[str, Any]] = {}
        self._counted = dict.fromkeys(STAGES, 0.0)
        if path.exists():
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    self._rows[int(row["round"])] = dict(row)

    def begin(
        self,
        now: int,
        num_data: int,
        loss: float | None,
        before: dict[str, float],
        seconds: dict[str, float],
    ) -> None:
        """Starts the row of a round, after its model has been trained."""
        self._counted = before
        self._rows[now] = {"round": now, "num_data": num_data, "loss": loss}
        self.update(now, seconds)

    def update(self, now: int, seconds: dict[str, float]) -> None:
        """Adds the seconds since the last update to a round's row."""
        row = self._rows.setdefault(now, {"round": now})
        for stage in STAGES:
            name = f"seconds_{stage}"
            spent = seconds[stage] - self._counted[stage]
            row[name] = f"{float(row.get(name) or 0.0) + spent:.3f}"
        self._counted = dict(seconds)
        self._write()

    def end(
        self, now: int, best: float | None, seconds: dict[str, float]
    ) -> None:
        """Completes the row of a round."""
        if now in self._rows:
            self._rows[now]["best"] = best
            self.update(now, seconds)

    def seconds(self) -> dict[str, float]:
        """Returns the total seconds of all rounds, by stage."""
        return {
            stage: sum(
                float(row.get(f"seconds_{stage}") or 0.0)
                for row in self._rows.values()
            )
            for stage in STAGES
        }

    def _write(self) -> None:
        with files.replacing(self._path, newline="") as file:
            writer = csv.DictWriter(file, self.COLUMNS, restval="")
            writer.writeheader()
            writer.writerows(self._rows[key] for key in sorted(self._rows))
