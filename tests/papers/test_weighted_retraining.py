# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import pathlib
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from papers.weighted_retraining import published, report, tables
from tests.runs import optimizations
from tfvae.lso import shapes
from tfvae.runs import optimization_figures, optimization_results

_TABLE = {  # Of the contract: final top-1 after 500 queries.
    "k_low_r_low": ((1401.6, 80.9), (-0.480, 0.122), (19.66, 6.00)),
    "k_low_r_high": ((882.8, 27.4), (-0.681, 0.211), (11.14, 4.10)),
    "k_inf_r_low": ((623.0, 8.8), (-0.763, 0.036), (6.93, 0.67)),
    "k_low_r_inf": ((501.4, 11.1), (-0.672, 0.205), (6.03, 0.49)),
    "k_inf_r_inf": ((464.2, 3.1), (-1.184, 0.283), (5.71, 0.29)),
}
_TASKS = ("shapes", "expressions", "molecules")


class PublishedTest(parameterized.TestCase):
    @parameterized.parameters(*_TABLE)
    def test_ends_are_those_of_the_paper(self, setting):
        for task, expected in zip(_TASKS, _TABLE[setting], strict=True):
            found = published.find(task, setting, 1)
            np.testing.assert_allclose(found[500], expected, atol=0.0051)

    def test_best_baselines_are_those_of_the_paper(self):
        self.assertEqual(
            published.find("shapes", "cem_pi", 1), {5000: (621.0, 10.4)}
        )
        found = published.find("molecules", "dbas", 1)
        np.testing.assert_allclose(found[5000], (4.67, 0.13), atol=0.0051)
        self.assertEmpty(published.find("expressions", "cem_pi", 1))

    def test_top_k_is_in_order(self):
        # A larger K is no better, and more queries are no worse for K = 1.
        for task in _TASKS:
            for setting in published.TITLES:
                ends = [
                    list(published.find(task, setting, k).values())[-1].mean
                    for k in (1, 10, 50)
                    if published.find(task, setting, k)
                ]
                self.assertEqual(ends, sorted(ends, reverse=True))
                curve = published.find(task, setting, 1).values()
                means = [value.mean for value in curve]
                self.assertEqual(means, sorted(means))

    def test_minimised_scores_have_the_other_sign(self):
        found = published.find("expressions", "k_low_r_low", 1, maximise=False)
        self.assertEqual(found[500], (0.480, 0.122))

    @parameterized.parameters(
        ("k_low_r_low", "k_low_r_low"),
        ("weighted_retraining", "k_low_r_low"),
        ("Retrain.only", "k_inf_r_low"),
        ("CEM_PI", "cem_pi"),
        ("something", None),
    )
    def test_settings_are_known_by_other_names(self, name, setting):
        self.assertEqual(published.setting_of(name), setting)


class RunTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path) / "run"

    def test_failures_count_as_invalid_and_invalid_ones_are_one_input(self):
        optimizations.write(
            self.folder,
            [2.0, None, None, 1.0, None, 3.0],
            ["a", None, "b", "a", None, "c"],
            invalid_score=-7.0,
            budget=8,
        )
        run = optimization_results.read(self.folder)
        self.assertEqual(run.scores.tolist(), [2, -7, -7, 1, -7, 3])
        self.assertEqual((run.num_invalid, run.num_failed), (2, 1))
        self.assertEqual(run.top_k(1).tolist(), [2, 2, 2, 2, 2, 3, 3, 3])
        self.assertEqual(run.top_k(2).tolist(), [2, -7, -7, -7, -7, 2, 2, 2])
        self.assertEqual(run.best(2), [(3.0, "c"), (2.0, "a")])

    def test_what_is_minimised_keeps_its_direction(self):
        optimizations.write(
            self.folder, [5.0, 2.0, 3.0], ["a", "b", "c"], maximise=False
        )
        run = optimization_results.read(self.folder)
        self.assertEqual(run.top_k(1).tolist(), [5, 2, 2])
        self.assertEqual(run.top_k(2).tolist(), [5, 5, 3])
        self.assertEqual(run.best(1), [(2.0, "b")])

    def test_without_invalid_score_it_is_the_worst_of_the_data(self):
        optimizations.write(self.folder, [None, 2.0], [None, "a"])
        scores = np.array([-3.0, 1.0])
        optimizations.write_arrays(
            self.folder, scores, scores + 3, scores[None]
        )
        run = optimization_results.read(self.folder)
        self.assertEqual(run.scores.tolist(), [-3.0, 2.0])
        self.assertEqual(run.best_in_data, 1.0)

    def test_unfinished_run_is_read(self):
        optimizations.write(self.folder, [1.0], ["a"], budget=3, finished=False)
        run = optimization_results.read(self.folder)
        self.assertEqual(run.top_k(1).tolist(), [1, 1, 1])
        self.assertEqual(run.setting, "run")

    def test_other_folders_are_refused(self):
        with self.assertRaisesRegex(FileNotFoundError, "of an optimisation"):
            optimization_results.read(self.folder)
        optimizations.write(self.folder, [], [])
        with self.assertRaisesRegex(ValueError, "must have queries"):
            optimization_results.read(self.folder)


class RunFiguresTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path) / "run"

    def test_everything_that_there_is_is_drawn(self):
        areas = [4.0, 9.0, 16.0]
        optimizations.write(
            self.folder,
            areas,
            [optimizations.square(int(area)) for area in areas],
            task="shapes",
            best_in_data=10.0,
            optimum=20.0,
        )
        scores = np.arange(1.0, 20.0)
        optimizations.write_arrays(
            self.folder, scores, scores, scores[None], with_manifold=True
        )
        optimization_results.write_pictures(self.folder, shapes())
        files = optimization_figures.write_run_figures(self.folder)
        names = ["top_k", "weights", "samples", "manifold", "best"]
        self.assertEqual([path.stem for path in files], names)
        for path in files:
            self.assertGreater(path.stat().st_size, 0)

    def test_run_of_texts_has_its_curves_only(self):
        optimizations.write(self.folder, [1.0, 2.0], ["a", None])
        files = optimization_figures.write_run_figures(self.folder)
        self.assertEqual([path.name for path in files], ["top_k.png"])

    def test_optimum_out_of_reach_is_left_out(self):
        for name, optimum in (("near", 25.0), ("far", 4096.0)):
            optimizations.write(
                self.folder / name,
                [12.0, 20.0],
                ["a", "b"],
                best_in_data=10.0,
                optimum=optimum,
            )
            run = optimization_results.read(self.folder / name)
            found = optimization_figures._references({"a": [run]})
            self.assertEqual("optimum" in found, name == "near")


class ReportTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        self.cells = {}

    def _add(self, setting, ends, task="expressions", **levels):
        """Adds a cell for each end; a run rises to it in three queries."""
        for seed, end in enumerate(ends):
            name = "-".join([setting, *levels.values(), str(seed)])
            optimizations.write(
                self.folder / "cells" / name,
                [end - 2.0, None, end],
                [f"{setting}{seed}", None, "x"],
                task=task,
                setting=setting,
                seed=seed,
                best_in_data=-5.0,
                invalid_score=-7.0,
            )
            self.cells[name] = ({"setting": setting, **levels}, seed)

    def _write(self, draws=False):
        optimizations.write_study(self.folder, self.cells)
        if draws:
            return report.write(self.folder).read_text()
        with mock.patch.object(report, "figures", _NoFigures()):
            return report.write(self.folder).read_text()

    def test_means_stand_beside_the_published_ones(self):
        self._add("k_low_r_low", [-0.5, -0.3])
        self._add("k_inf_r_inf", [-1.5, -1.1])
        text = self._write(draws=True)
        # After 3 queries, what was published after 1.
        self.assertIn(
            "| k_low_r_low | 2 | 3 | -0.4 ± 0.1 | -4.988 ± 1.03 (q = 1) | ",
            text,
        )
        self.assertIn("| (k_low_r_high) | 0 | 0 | - | -4.988 ± 1.03", text)
        self.assertIn("4 of 4 cells are finished", text)
        self.assertIn("](figures/expressions_top_k.png)", text)
        picture = self.folder / "report/figures/expressions_top_k.png"
        self.assertGreater(picture.stat().st_size, 0)
        self.assertIn("| -0.3 | `x` |", text)

    def test_other_comparisons_have_nothing_published_beside_them(self):
        self._add("binary", [-0.5])
        self._add("continuous", [-0.7])
        self.assertNotIn("(k_low_r_high)", self._write())

    def test_queries_and_seconds_are_told(self):
        self._add("k_low_r_low", [-0.5])
        text = self._write()
        line = "| k_low_r_low | 2 | 1 | 0 | 1 | 20 | 6.67 | 0.333 | 3.33 | "
        self.assertIn(line, text)

    def test_runs_and_curves_are_tables(self):
        self._add("k_low_r_low", [-0.5, -0.3])
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
        self._add("k_low_r_low", [-0.5], task="expressions", model="vae")
        self._add("k_low_r_low", [9.0], task="molecules", model="tvae")
        text = self._write()
        self.assertIn("## expressions vae", text)
        self.assertIn("## molecules tvae", text)

    def test_unfinished_and_failed_cells_are_told(self):
        self._add("k_low_r_low", [-0.5, -0.3])
        folder = self.folder / "cells/k_low_r_low-1"
        (folder / "result.json").unlink()
        (folder / "error.txt").write_text("Traceback\nValueError: no luck\n")
        text = self._write()
        self.assertIn("1 of 2 cells are finished", text)
        self.assertIn("* k_low_r_low-1: ValueError: no luck", text)

    def test_report_of_nothing_says_so(self):
        self.assertIn("0 of 0 cells are finished", self._write())

    def test_folder_without_a_study_is_refused(self):
        with self.assertRaisesRegex(FileNotFoundError, "folder of a study"):
            report.write(self.folder)

    def test_order_of_pairs_is_judged(self):
        # Published after one query: -4.988, -4.783 and -5.684, with spreads
        # of 1.029, 0.208 and 0.566.
        self._add("k_low_r_low", [-3.0, -3.0])
        self._add("k_inf_r_low", [-2.0, -2.0])
        self._add("k_high_r_low", [-1.0, -1.0])
        one = self._comparison()
        _, rows = tables.order_table(one)
        decided = {row[0]: row[-1] for row in rows}
        self.assertEqual(
            decided,
            {
                "k_low_r_low less k_inf_r_low": tables.WITHIN,
                "k_low_r_low less k_high_r_low": tables.WITHIN,
                "k_inf_r_low less k_high_r_low": tables.DIFFERS,
            },
        )

    def test_what_was_published_after_more_queries_is_not_compared(self):
        self._add("cem_pi", [5.0], task="molecules")
        self._add("dbas", [4.0], task="molecules")
        one = self._comparison()
        self.assertEmpty(tables.order_table(one)[1])
        (row, *_) = tables.final_table(one)[1]
        self.assertEqual(row[4], "4.582 ± 0.093 (q = 5000)")

    def _comparison(self):
        optimizations.write_study(self.folder, self.cells)
        cells = [
            {"name": name, "levels": levels}
            for name, (levels, _) in self.cells.items()
        ]
        (one,) = report.comparisons(self.folder, cells)
        return one


class _NoFigures:
    """The module of figures, without what takes long."""

    def __getattr__(self, name):
        if name.startswith("draw_"):
            return lambda *arguments, **options: False
        return getattr(optimization_figures, name)


if __name__ == "__main__":
    absltest.main()
