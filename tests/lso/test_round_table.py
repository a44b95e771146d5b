# SPDX-License-Identifier: Apache-2.0
"""The table of rounds adds up what several processes have spent."""

from __future__ import annotations

import csv
import pathlib
import time
from unittest import mock

from absl.testing import absltest

from tfvae.lso.round_table import RoundTable


class RoundTableTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(self.create_tempdir().full_path, "rounds.csv")

    def _spend(self, table, stage, seconds):
        times = [0.0, seconds]
        with (
            mock.patch.object(time, "perf_counter", side_effect=times),
            table.timed(stage),
        ):
            pass

    def _rows(self):
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def test_round_that_was_interrupted_has_the_seconds_of_both_parts(self):
        table = RoundTable(self.path)
        self._spend(table, "retrain", 2.0)
        table.begin(0, num_data=5, loss=1.5)
        self._spend(table, "fit", 0.25)
        table.update(0)
        again = RoundTable(self.path)
        self._spend(again, "fit", 0.5)
        again.update(0)
        again.end(0, best=3.0)
        (row,) = self._rows()
        self.assertEqual(row["seconds_retrain"], "2.000")
        self.assertEqual(row["seconds_fit"], "0.750")
        self.assertEqual(row["best"], "3.0")
        self.assertEqual(again.seconds()["fit"], 0.75)

    def test_what_is_spent_before_a_round_is_its_own(self):
        table = RoundTable(self.path)
        for now in range(2):
            self._spend(table, "retrain", 1.0 + now)
            table.begin(now, num_data=5, loss=None)
            table.end(now, best=None)
        self.assertEqual(
            [row["seconds_retrain"] for row in self._rows()],
            ["1.000", "2.000"],
        )

    def test_stage_that_fails_is_timed_too(self):
        table = RoundTable(self.path)
        with self.assertRaisesRegex(KeyError, "lost"):
            with mock.patch.object(time, "perf_counter", side_effect=[0, 4.0]):
                with table.timed("evaluate"):
                    raise KeyError("lost")
        table.update(0)
        self.assertEqual(self._rows()[0]["seconds_evaluate"], "4.000")


if __name__ == "__main__":
    absltest.main()
