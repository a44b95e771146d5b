# SPDX-License-Identifier: Apache-2.0
"""Inputs of optimisations: parts, files of tasks, and errors about them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import sys
import types
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests.lso import tiny
from tfvae import lso
from tfvae.lso import snapshots
from tfvae.lso.tasks.base import LeftOut, Task
from tfvae.ranks import ONE_PROCESS
from tfvae.runs import (
    config,
    optimization_figures,
    optimize,
    task_files,
    train,
)
from tfvae.runs.run_directory import RunDirectory

IDLE = lso.Retraining(first_epochs=0.0, epochs=0.0)
TASK = """
import numpy as np
from tfvae.lso import ScoredData, Task
points = np.random.default_rng(0).normal(size=(24, 4))
data = lambda seed: ScoredData(points, points.sum(-1))
task = Task("own", data=data, objective=np.sum)
"""


def _fail(point):
    raise RuntimeError("no sample left")


class Case(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        self.run_dir = self.folder / "run"
        self.enter_context(contextlib.chdir(self.folder))
        self.enter_context(mock.patch.object(sys, "path", [*sys.path]))
        # They take longer than the runs.
        for name in ("write_run_figures", "progress_chart"):
            self.enter_context(
                mock.patch.object(optimization_figures, name, return_value="")
            )

    def write(self, text, name="my_task.py"):
        path = self.folder / name
        path.write_text(text)
        return path

    def optimize(self, run_dir=None, requests=None, **kwargs):
        """Optimises with a model that is not trained; returns the result."""
        begun = types.SimpleNamespace(model=tiny.model(), observations=None)
        parts = {"strategy": lso.PriorSampling(), "retraining": IDLE}
        if config.value("optimize.task") is None:
            parts |= {"task": tiny.task(), "budget": 2}
        with mock.patch.object(optimize, "_trained", return_value=begun):
            return optimize.optimize(
                run_dir or self.run_dir, requests, **(parts | kwargs)
            )

    def load(self, path, budget=1):
        bindings = [
            f"own_task.path = {str(path)!r}",
            "optimize.task = @own_task()",
            f"optimize.budget = {budget}",
        ]
        config.load([], bindings)


class FolderTest(Case):
    def test_folder_of_a_training_run_is_refused(self):
        self.run_dir.mkdir()
        (self.run_dir / "metrics.csv").touch()
        with self.assertRaisesRegex(ValueError, "which holds a training run"):
            self.optimize()
        self.assertFalse((self.run_dir / "ledger.jsonl").exists())


class PartsTest(Case, parameterized.TestCase):
    @parameterized.parameters(
        ("task", lso.Task, "the class Task"),
        ("task", tiny.task, "the function task"),
        ("strategy", lso.ThompsonSampling, "the class ThompsonSampling"),
        ("strategy", None, "None"),
        ("surrogate", lso.SparseGaussianProcess, "the class Sparse"),
        ("weighting", lso.Rank, "the class Rank"),
        ("weighting", 3, "3"),
        ("retraining", lso.Retraining, "the class Retraining"),
        ("evaluator", lso.ProcessPool, "the class ProcessPool"),
    )
    def test_part_of_another_kind_is_refused_at_once(self, name, part, got):
        message = (
            rf"`optimize.{name}` must be an object, such as @\w+\(\) with "
            f"parentheses, got {got}"
        )
        with self.assertRaisesRegex(TypeError, message):
            self.optimize(**{name: part})
        self.assertFalse(self.run_dir.exists())

    def test_missing_surrogate_is_refused_at_once(self):
        with self.assertRaisesRegex(
            ValueError, "`optimize.surrogate` must be given for ThompsonSampl"
        ):
            self.optimize(strategy=lso.ThompsonSampling())
        self.assertFalse(self.run_dir.exists())

    @parameterized.parameters(
        (lso.PriorSampling(), None, "`strategy` must use a surrogate"),
        (
            lso.ThompsonSampling(),
            lso.EnsembleRegressor(),
            "`surrogate` must have gradients",
        ),
    )
    def test_what_has_no_loss_to_train_jointly_is_refused_at_once(
        self, strategy, surrogate, message
    ):
        with self.assertRaisesRegex(ValueError, message):
            self.optimize(
                strategy=strategy,
                surrogate=surrogate,
                retraining=lso.Retraining(surrogate_weight=1.0),
            )
        self.assertFalse(self.run_dir.exists())

    def test_model_without_encoder_is_refused_before_it_is_trained(self):
        begun = types.SimpleNamespace(model=tiny.binary_model())
        retraining = lso.Retraining(surrogate_weight=1.0)
        with (
            mock.patch.object(optimize, "experiment", return_value=begun),
            mock.patch.object(optimize, "train") as trained,
            self.assertRaisesRegex(TypeError, "`model` must be a VAE"),
        ):
            optimize._trained(RunDirectory(self.run_dir), None, retraining)
        trained.assert_not_called()


class ResultTest(Case):
    def test_result_without_a_score_shows_none(self):
        aside = io.StringIO()
        with contextlib.redirect_stdout(aside):
            result = self.optimize(task=tiny.task(objective=_fail))
        self.assertEqual(result["num_failures"], 2)
        self.assertEqual(result["top"], {})
        self.assertIsNone(result["best"])
        self.assertRegex(
            aside.getvalue(), r": no query has a score yet; best in the data -"
        )

    def test_what_became_no_data_is_listed_once(self):
        run = RunDirectory(self.run_dir)
        run.path.mkdir()
        lines = [LeftOut(i, "CC.O", "salt") for i in range(3)]
        printed = []
        for left_out in ([], lines, lines, lines[1:], []):
            aside = io.StringIO()
            with contextlib.redirect_stdout(aside):
                optimize._note_left_out(run, left_out)
            printed.append(aside.getvalue())
        said = [
            f"{n} lines left out of the data, listed in left_out.csv: {n} x "
            "salt\n"
            for n in (3, 2)
        ]
        self.assertEqual(printed, ["", said[0], "", said[1], ""])
        self.assertFalse((run.path / "left_out.csv").exists())

    def test_functions_of_the_task_are_tried_before_anything_is_trained(self):
        task = tiny.task(write=lambda inputs: np.zeros((len(inputs), 3)))
        trained = mock.Mock()
        with (
            mock.patch.object(optimize, "_trained", trained),
            self.assertRaisesRegex(ValueError, "`write` of task .* got .1, 3"),
        ):
            optimize.optimize(
                self.run_dir, task=task, strategy=lso.PriorSampling()
            )
        trained.assert_not_called()
        self.assertFalse((self.run_dir / "config.gin").exists())

    def test_workers_without_work_are_warned_of(self):
        class OneByOne(lso.PriorSampling):
            def num_at_a_time(self, num_left):
                return 1

        def warns(strategy, workers, **kwargs):
            pool = None if workers is None else lso.ProcessPool(workers)
            plan = lso.Plan(budget=9, **kwargs)
            with mock.patch.object(optimize._logger, "warning") as warning:
                optimize._warn_of_idle_workers(pool, strategy, plan)
            return bool(warning.called)

        self.assertTrue(warns(OneByOne(), 2))
        self.assertTrue(warns(lso.PriorSampling(), 4, queries_per_round=3))
        self.assertFalse(warns(lso.PriorSampling(), 9))
        self.assertFalse(warns(OneByOne(), 2, repeats=2))
        self.assertFalse(warns(OneByOne(), 1))
        self.assertFalse(warns(OneByOne(), None))

    def test_objective_may_change_the_current_folder(self):
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()

        def objective(point):
            os.chdir(elsewhere)
            return tiny.objective(point)

        self.optimize("run", task=tiny.task(objective=objective))
        self.assertTrue((self.run_dir / "result.json").exists())
        self.assertEmpty([*elsewhere.iterdir()])


class DamageTest(Case):
    def test_damaged_files_of_a_run_are_made_anew(self):
        names = ("result.json", "rounds.csv", "weights.npz", "evaluations.csv")
        self.optimize()
        whole = {name: (self.run_dir / name).read_bytes() for name in names}
        for name in names:
            (self.run_dir / name).write_bytes(b"\x80damaged")
        with self.assertLogs("tfvae", "WARNING"):
            self.optimize(budget=3)
        scores, weights = (
            snapshots.read_arrays(self.run_dir / "weights.npz")[name]
            for name in ("scores", "weights")
        )
        self.assertAllEqual(scores, tiny.data(0).scores)
        self.assertAllClose(weights.sum(), 1.0)
        with self.assertNoLogs("tfvae", "WARNING"):
            self.optimize(budget=3)
        for name in names:
            content = (self.run_dir / name).read_bytes()
            self.assertEqual(content[:4], whole[name][:4], name)


class MixtureTest(parameterized.TestCase):
    @parameterized.parameters(
        (lso.PriorSampling(), r"got PriorSampling\(\)"),
        (lso.PriorSampling, "got the class PriorSampling"),
        ((lso.PriorSampling(), lso.OracleGrid), "got the class OracleGrid"),
        ((lso.PriorSampling(), "OracleGrid"), "got 'OracleGrid'"),
    )
    def test_strategies_that_are_none_are_refused(self, strategies, got):
        with self.assertRaisesRegex(
            TypeError, f"`strategies` must be a sequence of strategies.*{got}"
        ):
            lso.Mixture(strategies, (0.5, 0.5))

    @parameterized.parameters(
        (0.5, ValueError, "a number for each of the 2 strategies, got 0.5"),
        ("0.5, 0.5", TypeError, "numbers, one for each.*got '0.5, 0.5'"),
        (("0.5", "0.5"), TypeError, r"numbers, .*got \('0.5', '0.5'\)"),
        ((0.5, None), TypeError, r"numbers, .*got \(0.5, None\)"),
    )
    def test_shares_that_are_no_numbers_are_refused(self, shares, error, got):
        parts = (lso.PriorSampling(), lso.AggregateSampling())
        with self.assertRaisesRegex(error, f"`shares` must (have|be) {got}"):
            lso.Mixture(parts, shares)


class OwnTaskTest(Case, parameterized.TestCase):
    def test_file_needs_the_name_of_a_python_file(self):
        path = self.write(TASK, "my_task.txt")
        with self.assertRaisesRegex(ValueError, "ends in .py, got .*my_task.t"):
            task_files.own_task(path)
        with self.assertRaisesRegex(FileNotFoundError, "which is not a file"):
            task_files.own_task(self.folder)
        with self.assertRaisesRegex(FileNotFoundError, "does not exist"):
            task_files.own_task(self.folder / "no.py")

    @parameterized.parameters(
        ("raise SystemExit('no licence')", "SystemExit: no licence"),
        ("import no_such_module", "ModuleNotFoundError: .*no_such_module"),
        ("task = lambda: 1 / 0", "ZeroDivisionError"),
    )
    def test_file_that_fails_is_named(self, text, message):
        with self.assertRaisesRegex(ValueError, f"my_task.py fails: {message}"):
            task_files.own_task(self.write(text))
        self.assertNotIn("my_task_task", sys.modules)

    @parameterized.parameters(
        ("lambda seed: (points, points.sum(-1))", TypeError, "got a tuple"),
        ("lambda seed: None", TypeError, "got a NoneType"),
        ("lambda: 3", ValueError, "fails: .*takes 0 positional arguments"),
        ("lambda seed: 1 / 0", ValueError, "fails: .*ZeroDivisionError"),
        ("lambda seed: exit()", ValueError, "fails: .*SystemExit"),
    )
    def test_data_that_are_none_name_the_file(self, data, error, message):
        text = TASK.replace(
            "lambda seed: ScoredData(points, points.sum(-1))", data
        )
        task = task_files.own_task(self.write(text))
        with self.assertRaisesRegex(error, message) as caught:
            optimize.scored_data(task, 7)
        self.assertRegex(str(caught.exception), r"my_task.py .*task.data\(7\)")

    def test_models_are_trained_on_floats_where_points_are_bytes(self):
        points = np.array([[0, 255], [7, 1]], np.uint8)
        task = Task("bytes", lambda seed: lso.ScoredData(points, [1, 2]), sum)
        train = optimize.scored_data(task).train
        self.assertEqual(train.dtype, np.float32)
        self.assertAllEqual(train, points)

    def test_module_beside_the_file_is_found_from_any_folder(self):
        beside = self.folder / "beside"
        beside.mkdir()
        self.write("NAME = 'helped'\n", "beside/tfvae_test_helper.py")
        text = "import tfvae_test_helper as helper\n" + TASK
        path = self.write(text.replace('"own"', "helper.NAME"), "beside/a.py")
        again = self.write(TASK, "beside/b.py")
        self.assertEqual(task_files.own_task(path).name, "helped")
        task_files.own_task(again)
        self.assertEqual(sys.path.count(str(beside)), 1)
        self.assertEqual(sys.path[-1], str(beside))

    def test_task_data_and_model_are_made_once(self):
        text = TASK.replace(
            "data = lambda seed: ScoredData(points, points.sum(-1))",
            """
print("the file is executed")
def data(seed):
    print("data are made")
    return ScoredData(points, points.sum(-1))
""",
        )
        self.write(text)
        optimize.load(
            ["runs/optimize.gin"],
            [
                "own_task.path = 'my_task.py'",
                "optimize.strategy = @PriorSampling()",
                "optimize.surrogate = None",
                "optimize.budget = 4",
                "optimize.queries_per_round = 2",
                "fit.epochs = 1",
                "train.export = False",
            ],
            seed=3,
        )
        aside = io.StringIO()
        with (
            contextlib.redirect_stdout(aside),
            mock.patch.object(
                optimize, "experiment", wraps=optimize.experiment
            ) as built,
            mock.patch.object(train, "experiment") as built_again,
        ):
            optimize.optimize("run")
        printed = aside.getvalue()
        self.assertEqual(printed.count("the file is executed"), 1)
        self.assertEqual(printed.count("data are made"), 1)
        built.assert_called_once_with(ranks=ONE_PROCESS, draws_states=False)
        built_again.assert_not_called()
        # A run that is killed between its training and its first query.
        with contextlib.redirect_stdout(aside):
            optimize.optimize("other", warm_start="run/model")
        first, second = (
            lso.read_ledger(f"{folder}/ledger.jsonl").entries
            for folder in ("run", "other")
        )
        self.assertEqual(
            [(one.latent, one.input) for one in first],
            [(one.latent, one.input) for one in second],
        )

    def test_relative_path_outlasts_a_change_of_folder(self):
        self.write(TASK)
        task = task_files.own_task("my_task.py")
        with contextlib.chdir("/"):
            self.assertIs(task_files.own_task("my_task.py"), task)

    def test_file_may_be_spelled_in_several_ways(self):
        path = self.write(TASK)
        (self.folder / "sub").mkdir()
        for budget, spelled in enumerate(
            ("my_task.py", "./my_task.py", "sub/../my_task.py", path), 1
        ):
            self.load(spelled, budget)
            self.assertEqual(self.optimize()["num_queries"], budget)
        with contextlib.chdir("sub"):
            self.load("../my_task.py", 5)
            self.assertEqual(self.optimize()["num_queries"], 5)

    def test_another_file_is_refused(self):
        self.load(self.write(TASK))
        self.optimize()
        self.load(self.write(TASK + "# another\n", "other.py"))
        with self.assertRaisesRegex(
            ValueError, "own_task.path was .*my_task.py', is now .*other.py'"
        ):
            self.optimize()

    def test_file_that_was_moved_is_the_same(self):
        path = self.write(TASK)
        self.load(path)
        self.optimize()
        path.unlink()
        moved = self.write(TASK, "moved.py")
        for text in (TASK, TASK + "# edited there\n"):
            moved.write_text(text)
            self.load(moved, 2)
            self.assertEqual(self.optimize()["num_queries"], 2)
        record = json.loads((self.run_dir / task_files.RECORD).read_text())
        self.assertEqual(record["path"], str(moved))

    def test_changed_file_is_warned_of_once_it_has_scores(self):
        logger = task_files.__name__
        path = self.write(TASK)
        self.load(path)
        self.optimize(requests=optimize.Requests(io.StringIO()))
        with self.assertNoLogs(logger):
            self.load(self.write(TASK + "# No score is of the old one.\n"))
            self.optimize()
        with self.assertNoLogs(logger):
            self.load(path, 2)
            self.optimize()
        self.load(self.write(TASK.replace("np.sum", "np.max")), 3)
        with self.assertLogs(logger, "WARNING") as logged:
            self.optimize()
        self.assertEqual(
            [record.getMessage() for record in logged.records],
            [
                "my_task.py has changed since this run began; scores of old "
                "and new objectives will be mixed"
            ],
        )
        record = json.loads((self.run_dir / task_files.RECORD).read_text())
        self.assertEqual(record["path"], str(path))

    def test_configuration_cut_by_a_power_failure_is_none(self):
        self.load(self.write(TASK))
        self.optimize()
        (self.run_dir / "config.gin").write_text("")
        self.optimize()
        self.assertIn(
            "own_task.path", (self.run_dir / "config.gin").read_text()
        )

    def test_task_is_still_a_task(self):
        task = task_files.own_task(self.write(TASK))
        self.assertIsInstance(task, Task)
        self.assertIs(task.data(0), task.data(0))
        self.assertEqual(task.objective(np.ones(4)), 4.0)


if __name__ == "__main__":
    tf.test.main()
