# SPDX-License-Identifier: Apache-2.0
"""Tests of what is read of an optimisation, and of its figures."""

from __future__ import annotations

import pathlib

import numpy as np
from absl.testing import absltest

from tests.runs import optimizations
from tfvae.lso import shapes
from tfvae.runs import optimization_figures, optimization_results


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
        optimizations.write(self.folder, [1.0, None], ["a", None])
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


if __name__ == "__main__":
    absltest.main()
