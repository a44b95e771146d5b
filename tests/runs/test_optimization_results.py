# SPDX-License-Identifier: Apache-2.0
"""What figures of optimisations know of scores and pictures of a task."""

from __future__ import annotations

import pathlib

import numpy as np
from absl.testing import absltest, parameterized

from tests.lso import tiny
from tests.runs import optimizations
from tfvae.lso import expressions, shapes
from tfvae.runs import optimization_figures, optimization_results


class Case(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path) / "run"


class LabelTest(Case):
    @parameterized.parameters(
        ("area / pixels", True, "area / pixels"),
        ("energy / eV", False, "energy / eV (smaller is better)"),
        (None, True, "score"),
    )
    def test_label_is_that_of_the_task(self, given, maximise, label):
        optimizations.write(
            self.folder, [1.0], ["a"], score_label=given, maximise=maximise
        )
        run = optimization_results.read(self.folder)
        self.assertEqual(optimization_figures.score_label(run), label)


class PicturesTest(Case):
    def test_best_inputs_are_kept_as_pictures(self):
        areas = [*range(1, 13)]
        optimizations.write(
            self.folder,
            [float(area) for area in areas],
            [optimizations.square(area) for area in areas],
        )
        optimization_results.write_pictures(self.folder, shapes())
        run = optimization_results.read(self.folder)
        found = run.pictures()
        self.assertLen(found, optimization_results.NUM_BEST)
        for score, one in run.best(optimization_results.NUM_BEST):
            picture = found[optimization_results.key(one)]
            self.assertEqual(picture.shape, (64, 64))
            self.assertEqual(picture.sum(), score)

    @parameterized.parameters(expressions, tiny.task)
    def test_other_tasks_have_none(self, task):
        optimizations.write(self.folder, [1.0], ["x"])
        optimization_results.write_pictures(self.folder, task())
        self.assertEmpty(optimization_results.read(self.folder).pictures())

    @parameterized.parameters(
        (np.zeros(4), r"\[height, width\] of numbers, got float64 \(4,\)"),
        (np.full((2, 2), 255), "values from 0 to 1, got some from 255 to 255"),
        (np.array([["a"]]), "of numbers, got <U1"),
    )
    def test_what_is_no_picture_is_an_error(self, picture, message):
        optimizations.write(self.folder, [1.0], [[0.0]])
        task = tiny.task(from_json=np.array, to_picture=lambda one: picture)
        with self.assertRaisesRegex(
            ValueError, f"`to_picture` of task tiny must return .*{message}"
        ):
            optimization_results.write_pictures(self.folder, task)

    def test_picture_of_a_task_must_be_a_function(self):
        with self.assertRaisesRegex(
            TypeError, "`to_picture` must be a function, got 3"
        ):
            tiny.task(to_picture=3)

    def test_best_of_a_run_without_pictures_are_not_drawn(self):
        optimizations.write(self.folder, [5.0], [optimizations.square(5)])
        groups = {"a": [optimization_results.read(self.folder)]}
        path = self.folder / "best.png"
        self.assertFalse(optimization_figures.draw_best(groups, path))
        self.assertFalse(path.exists())


if __name__ == "__main__":
    absltest.main()
