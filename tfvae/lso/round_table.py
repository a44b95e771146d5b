# SPDX-License-Identifier: Apache-2.0
"""CSV table of the rounds of an optimisation and the time of their stages."""

from __future__ import annotations

import contextlib
import csv
import logging
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from tfvae import files

STAGES = ("retrain", "encode", "fit", "acquisition", "decode", "evaluate")
"""Stages of a round whose time is measured."""

_logger = logging.getLogger(__name__)


class RoundTable:
    """rounds.csv: a row for each round, with the seconds of its stages.

    A round that was interrupted has the seconds before and after it.

        with table.timed("retrain"):
            loss = train()
        table.begin(0, num_data=5000, loss=loss)
        with table.timed("evaluate"):
            score = objective(one)
        table.end(0, best=score)
    """

    COLUMNS = (
        "round",
        "num_data",
        "loss",
        "best",
        *(f"seconds_{stage}" for stage in STAGES),
    )

    def __init__(self, path: pathlib.Path) -> None:
        """Reads the file at `path`, if it exists.

        A row that is damaged is left out, with a warning.
        """
        self._path = path
        # What has been timed but is in no row yet.
        self._spent = dict.fromkeys(STAGES, 0.0)
        self._rows = _read(path)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time that passes within to a stage, one of `STAGES`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent[stage] += time.perf_counter() - start

    def begin(self, now: int, num_data: int, loss: float | None) -> None:
        """Makes the row of a round whose model has been trained."""
        self._rows[now] = {"round": now, "num_data": num_data, "loss": loss}
        self.update(now)

    def update(self, now: int) -> None:
        """Adds what has been timed since the last call to a round's row."""
        row = self._rows.setdefault(now, {"round": now})
        for stage, spent in self._spent.items():
            name = f"seconds_{stage}"
            row[name] = f"{float(row.get(name) or 0.0) + spent:.3f}"
        self._spent = dict.fromkeys(STAGES, 0.0)
        self._write()

    def end(self, now: int, best: float | None) -> None:
        """Completes the row of a round."""
        if now in self._rows:
            self._rows[now]["best"] = best
            self.update(now)

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


def _read(path: pathlib.Path) -> dict[int, dict[str, Any]]:
    """Returns the intact rows of a table, by their rounds."""
    rows: dict[int, dict[str, Any]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if "round" not in (reader.fieldnames or ("round",)):
                raise ValueError("there is no column `round`")
            for row in reader:
                for stage in STAGES:
                    float(row.get(f"seconds_{stage}") or 0.0)
                rows[int(row["round"])] = {
                    name: row.get(name) or "" for name in RoundTable.COLUMNS
                }
    except FileNotFoundError:
        pass
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        message = "ignoring rows of %s, which is damaged: %r"
        _logger.warning(message, path, error)
    return rows
