# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import pathlib
from unittest import mock

import numpy as np
from absl.testing import absltest

from tests.runs import optimizations
from tfvae.lso import shapes
from tfvae.runs import optimize
from tfvae.sweeps import optimization_report


class OptimizationReportTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        self.study = optimizations.Study(self.folder)

    def _write(self, draws=False):
        return self.study.report(optimization_report.write, draws=draws)

    def test_settings_are_compared_after_the_last_query(self):
        self.study.add("binary", [-0.5, -0.3])
        self.study.add("continuous", [-1.5, -1.1])
        text = self._write(draws=True)
        self.assertIn("4 of 4 cells are finished", text)
        self.assertIn(
            "| setting | seeds | queries | top-1 | top-10 | top-50 |", text
        )
        self.assertIn("| binary | 2 | 3 | -0.4 ± 0.1 | -7 ± 0 | -7 ± 0 |", text)
        self.assertIn("| continuous | 2 | 3 | -1.3 ± 0.2 | -7 ± 0 | -7", text)
        self.assertIn("Best of the data: -5.", text)
        self.assertIn("](figures/expressions_top_k.png)", text)
        picture = self.folder / "report/figures/expressions_top_k.png"
        self.assertGreater(picture.stat().st_size, 0)
        self.assertIn("| -0.3 | `x` |", text)
        self.assertNotIn("published", text)

    def test_queries_and_seconds_are_reported(self):
        self.study.add("k_low_r_low", [-0.5])
        line = "| k_low_r_low | 2 | 1 | 0 | 1 | 20 | 6.67 | 0.333 | 3.33 | "
        self.assertIn(line, self._write())

    def test_runs_and_curves_are_tables(self):
        self.study.add("k_low_r_low", [-0.5, -0.3])
        self._write()
        with (self.folder / "report/curves.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertLen(rows, 9)
        means = [float(row["mean"]) for row in rows if row["k"] == "1"]
        np.testing.assert_allclose(means, [-2.4, -2.4, -0.4])
        spreads = [float(row["spread"]) for row in rows if row["k"] == "1"]
        np.testing.assert_allclose(spreads, [0.1, 0.1, 0.1])
        with (self.folder / "report/runs.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([row["top_1"] for row in rows], ["-0.5", "-0.3"])

    def test_tasks_are_compared_apart(self):
        self.study.add("k_low_r_low", [-0.5], task="expressions", model="vae")
        self.study.add("k_low_r_low", [9.0], task="molecules", model="tvae")
        text = self._write()
        self.assertIn("## expressions vae", text)
        self.assertIn("## molecules tvae", text)

    def test_unfinished_and_failed_cells_are_reported(self):
        self.study.add("k_low_r_low", [-0.5, -0.3])
        folder = self.folder / "cells/k_low_r_low-1"
        (folder / "result.json").unlink()
        (folder / "error.txt").write_text("Traceback\nValueError: no luck\n")
        text = self._write()
        self.assertIn("1 of 2 cells are finished", text)
        self.assertIn("* k_low_r_low-1: ValueError: no luck", text)

    def _add_old_cell(self, configuration):
        """Adds a cell as an earlier version left it; returns its folder."""
        inputs = [optimizations.square(4), None, optimizations.square(9)]
        self.study.add("old", [9.0], "shapes", inputs=inputs, score_label=None)
        folder = self.folder / "cells/old-0"
        (folder / "config.gin").write_text(configuration)
        return folder

    def test_finished_cells_of_an_earlier_version_are_completed(self):
        folder = self._add_old_cell("optimize.task = @shapes()\n")
        before = json.loads((folder / "result.json").read_text())
        text = self._write(draws=True)
        label = shapes().score_label
        self.assertNotEqual(label, "score")
        self.assertIn(f"Scores: {label}, larger", text)
        self.assertIn("](figures/shapes_best.png)", text)
        self.assertNotIn("earlier version", text)
        after = json.loads((folder / "result.json").read_text())
        self.assertEqual(after, {**before, "score_label": label})
        with mock.patch.object(optimize, "complete") as complete:
            self._write()
        complete.assert_not_called()

    def test_cells_that_can_not_be_completed_are_reported(self):
        gone = self.folder / "gone.py"
        configuration = (
            f"optimize.task = @own_task()\nown_task.path = {str(gone)!r}\n"
        )
        folder = self._add_old_cell(configuration)
        before = (folder / "result.json").read_text()
        text = self._write()
        self.assertRegex(
            text,
            "1 finished cells of an earlier version lack the label .* loaded "
            f"from config.gin .old-0: FileNotFoundError: .*{gone}, which does "
            f"not exist.*`tfvae study --run_dir={self.folder} --report_only`",
        )
        self.assertIn("| 9 | `", text)
        self.assertEqual((folder / "result.json").read_text(), before)
        gone.write_text("from tfvae import lso\ntask = lso.shapes()\n")
        self.assertNotIn("earlier version", self._write())

    def test_report_of_nothing_says_so(self):
        self.assertIn("0 of 0 cells are finished", self._write())

    def test_folder_without_a_study_is_refused(self):
        with self.assertRaisesRegex(FileNotFoundError, "folder of a study"):
            optimization_report.write(self.folder)


if __name__ == "__main__":
    absltest.main()
