# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import itertools
import json
import pathlib

import numpy as np
import pandas as pd
from absl.testing import absltest

from tests.sweeps import finished
from tfvae import plots
from tfvae.sweeps import report, tables

_SIZES = ("small", "large")
_RATES = ("low", "high")
_DATA = ("bars", "digits")
_FACTORS = ("data", "size", "rate")
# Of `test_loss`: two repetitions of each size, rate and data.
_LOSSES = {
    ("bars", "small", "low"): (1.0, 3.0),
    ("bars", "small", "high"): (2.0, 2.0),
    ("bars", "large", "low"): (5.25, 6.25),
    ("bars", "large", "high"): (7.0, 9.0),
    ("digits", "small", "low"): (10.0, 30.0),
    ("digits", "small", "high"): (20.0, 20.0),
    ("digits", "large", "low"): (50.0, 60.0),
    ("digits", "large", "high"): (70.0, 90.0),
}


def _frame():
    rows = []
    for repetition, *levels in itertools.product(
        range(2), _DATA, _SIZES, _RATES
    ):
        loss = _LOSSES[tuple(levels)][repetition]
        rows.append(
            {
                "name": "-".join([*levels, str(repetition)]),
                "repetition": repetition,
                **dict(zip(_FACTORS, levels, strict=True)),
                "test_loss": loss,
                "train_loss": loss - 0.5,
                "trainable_parameters": 1200,
                "own_figure": 10.0 * loss,
            }
        )
    return pd.DataFrame(rows)


class ReportTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)

    def _study(self, frame=None, separate=("data",)):
        finished.write(
            self.folder,
            _frame() if frame is None else frame,
            _FACTORS,
            columns="rate",
            separate=list(separate),
        )

    def _write(self, **settings):
        return finished.plain(report.write(self.folder, **settings).read_text())

    def _csv(self, name):
        path = self.folder / "report" / name
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    def test_tables_have_means_and_deviations_over_repetitions(self):
        self._study()
        text = self._write()
        self.assertIn("16 of 16 cells are finished", text)
        self.assertIn("size (small, large), rate (low, high)", text)
        self.assertIn("## bars\n\n### Tables\n\n#### Negative ELBO\n", text)
        self.assertIn("| size | low | high |\n", text)
        # Population deviation of 1 and 3 would be 1.
        self.assertIn("| small | 2.00 (1.41) | 2.00 (0.00) |", text)
        self.assertIn("| large | 5.75 (0.71) | 8.00 (1.41) |", text)
        self.assertIn("| large | 55.00 (7.07) | 80.00 (14.14) |", text)

    def test_metrics_have_forms_of_their_own(self):
        self._study()
        text = self._write()
        self.assertIn("| small | 1,200 | 1,200 |", text)
        self.assertIn("#### Own figure\n", text)
        self.assertIn("| large | 550 (70.71) | 800 (141.4) |", text)
        self.assertIn("#### Negative ELBO, test less training\n", text)
        self.assertIn("| small | 0.50 (0.00) | 0.50 (0.00) |", text)
        self.assertNotIn("train_loss", text)

    def test_tables_are_files_too(self):
        self._study()
        self._write()
        rows = self._csv("tables/bars_test_loss.csv")
        self.assertLen(rows, 4)
        self.assertEqual(
            rows[2],
            {
                "data": "bars",
                "size": "large",
                "rate": "low",
                "n": "2",
                "mean": "5.75",
                "std": str(np.std([5.25, 6.25], ddof=1)),
            },
        )
        self.assertLen(self._csv("cells.csv"), 16)
        table = self.folder / "report/tables/digits_test_loss.md"
        self.assertStartsWith(table.read_text(), "#### Negative ELBO\n\n| size")

    def test_published_values_stand_beside_ours(self):
        published = {
            ("test_loss", "bars", "small", "low"): (1.5, 0.25),
            ("trainable_parameters", "bars", "small", "low"): (1100, 0),
        }

        def find(metric, levels):
            key = metric, *(levels[name] for name in _FACTORS)
            return published.get(key)

        def section(found, part, folder):
            return report.metric_tables(
                found,
                part,
                folder,
                published=find,
                captions={"test_loss": "table 9"},
            )

        self._study()
        text = self._write(section=section)
        self.assertIn("#### Negative ELBO (table 9)\n", text)
        self.assertIn("| size | low | low published | high |", text)
        self.assertIn("| small | 2.00 (1.41) | 1.50 (0.25) | 2.00", text)
        self.assertIn("| large | 5.75 (0.71) | - | 8.00 (1.41) | - |", text)
        self.assertIn("| small | 1,200 | 1,100 | 1,200 | - |", text)
        self.assertIn("| small | 20.00 (14.14) | 20.00 (0.00) |", text)
        row, *rest = self._csv("tables/bars_test_loss.csv")
        self.assertEqual(
            (row["published_mean"], row["published_std"]), ("1.5", "0.25")
        )
        self.assertEqual({row["published_mean"] for row in rest}, {""})

    def test_any_study_has_analyses_of_variance(self):
        self._study()
        text = self._write()
        self.assertEqual(text.count("### Analyses of variance\n"), 2)
        # Of bars: sizes differ by 4.875, so their sum of squares is
        # 8 * 2.4375**2 = 47.53; that of residuals is 4.5, with 4 df.
        self.assertIn(
            "| Negative ELBO | size * rate | size | 42.25 | 1, 4 | 0.0029 |",
            text,
        )
        rows = self._csv("tables/bars_anova.csv")
        terms = [r["term"] for r in rows if r["metric"] == "Own figure"]
        self.assertEqual(terms, ["size", "rate", "size x rate"])

    def test_levels_of_a_separate_factor_are_compared_by_model(self):
        frame = _frame()
        self._study(frame.assign(frechet_distance=frame["test_loss"]))
        text = self._write()
        self.assertIn("## Which data has the smaller Fréchet distance\n", text)
        self.assertIn("bars in 4 of 4, digits in 0 of 4 models.\n", text)
        self.assertNotIn("kernel distance", text)
        rows = self._csv("tables/data_frechet_distance.csv")
        self.assertEqual(
            [(row["size"], row["rate"], row["digits"]) for row in rows],
            [
                *(("small", "low", "20"), ("small", "high", "20")),
                *(("large", "low", "55"), ("large", "high", "80")),
            ],
        )

    def test_notes_sections_and_appendix_have_their_places(self):
        self._study()
        text = self._write(
            notes=["A note."],
            section=lambda found, part, folder: [f"{part.name}!"],
            appendix=lambda found, folder: [f"{folder.name} ends"],
        )
        self.assertEndsWith(
            text,
            "in brackets.\n\nA note.\n\n## bars\n\nbars!\n## digits\n\n"
            "digits!\nreport ends",
        )

    def test_unfinished_and_failed_cells_are_reported(self):
        self._study()
        for name in ("bars-small-low-1", "bars-large-low-0"):
            (self.folder / "cells" / name / "result.json").unlink()
        error = self.folder / "cells/bars-small-low-1/error.txt"
        error.write_text("Traceback\nValueError: no luck\n")
        text = self._write()
        self.assertIn("14 of 16 cells are finished", text)
        self.assertIn(
            "1 cells failed:\n\n* bars-small-low-1: ValueError: no luck\n", text
        )
        self.assertIn("| small | 1.00 n=1 | 2.00 (0.00) |", text)
        self.assertIn("| large | 6.25 n=1 | 8.00 (1.41) |", text)

    def test_model_without_results_has_a_dash(self):
        frame = _frame()
        self._study(frame[~frame["name"].str.startswith("bars-small-high")])
        self.assertIn("| small | 2.00 (1.41) | - |", self._write())
        row = self._csv("tables/bars_test_loss.csv")[1]
        self.assertEqual((row["n"], row["mean"], row["std"]), ("0", "", ""))

    def test_report_of_nothing_says_so(self):
        self._study()
        for path in self.folder.glob("cells/*/result.json"):
            path.unlink()
        self.assertIn("0 of 16 cells are finished", self._write())

    def test_metrics_are_rows_where_only_columns_vary(self):
        frame = _frame()
        self._study(frame[frame["size"] == "large"])
        text = self._write()
        self.assertIn("| metric | low | high |", text)
        self.assertIn("| Negative ELBO | 5.75 (0.71) | 8.00 (1.41) |", text)
        self.assertIn("| Trainable parameters | 1,200 | 1,200 |", text)

    def test_study_without_separate_factors_has_one_part(self):
        self._study(separate=())
        text = self._write()
        self.assertIn("## Results\n", text)
        self.assertIn("| data | size | low | high |", text)
        self.assertLen(self._csv("tables/test_loss.csv"), 8)

    def test_pictures_of_a_part_are_one_sheet(self):
        self._study()
        text = self._write()
        for data in _DATA:
            self.assertIn(f"### Images\n\n![samples](sheets/{data}_s", text)
            sheet = self.folder / f"report/sheets/{data}_samples.png"
            self.assertGreater(sheet.stat().st_size, 0)

    def test_sheet_needs_pictures_of_its_rows_and_columns(self):
        pictures = {("a", "b"): np.zeros((2, 2, 1))}
        with self.assertRaisesRegex(ValueError, "`pictures` must have"):
            plots.sheet_of_pictures(pictures, ["b"], ["a"], self.folder / "a")

    def test_folder_without_a_study_is_refused(self):
        with self.assertRaisesRegex(FileNotFoundError, "`run_dir` must be"):
            report.write(self.folder)

    def test_study_of_an_earlier_version_is_refused_with_what_to_do(self):
        self._study()
        path = self.folder / "study.json"
        content = json.loads(path.read_text())
        content["layout"]["published"] = None  # Of nothing: that is as now.
        path.write_text(json.dumps(content))
        self.assertIn("16 of 16", self._write())
        content["layout"]["published"] = "some"
        path.write_text(json.dumps(content))
        with self.assertRaisesRegex(
            ValueError, "run the study again with its gin file and without"
        ):
            report.write(self.folder)


class TablesTest(absltest.TestCase):
    def test_text_stays_as_it_is(self):
        table = tables.table(["a|b", "c", "c"], [["1.50", "x|y", "1e3"]])
        self.assertEqual(
            finished.plain(tables.markdown(table)).splitlines()[::2],
            ["| a\\|b | c | c |", "| 1.50 | x\\|y | 1e3 |"],
        )

    def test_table_without_rows_has_its_head(self):
        self.assertStartsWith(
            finished.plain(tables.markdown(tables.table(["a", "b"], []))),
            "| a | b |\n|",
        )

    def test_csv_quotes_what_it_must(self):
        path = pathlib.Path(self.create_tempdir().full_path) / "a.csv"
        rows = [["1, 2", 'say "x"'], ["", "é"]]
        tables.write_csv(path, tables.table(["a", "b"], rows))
        with path.open(newline="", encoding="utf-8") as file:
            self.assertEqual([*csv.reader(file)], [["a", "b"], *rows])


if __name__ == "__main__":
    absltest.main()
