# SPDX-License-Identifier: Apache-2.0
"""The examples in `examples/` do what their docstrings say."""

from __future__ import annotations

import ast
import importlib
import io
import pathlib
import re
import runpy
import shlex
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from absl.testing import absltest, parameterized

from benchmarks.queries import IdentityModel
from tfvae.lso import (
    AggregateSampling,
    LatentSpaceOptimizer,
    Plan,
    ProcessPool,
    Rank,
    Score,
    read_ledger,
)

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "examples"
TASKS = (
    "text_from_csv",
    "mixed_inputs",
    "noisy_task",
    "cluster_task",
    "molecules",
)


def _task(name):
    return importlib.import_module(f"examples.{name}").task


def _opened(folder, task, budget=6, **settings):
    """Returns an optimizer whose latents are the points themselves."""
    model = IdentityModel(task.data(0).points.shape[1])
    return LatentSpaceOptimizer(
        folder,
        task,
        model,
        model,
        Plan(budget, queries_per_round=4, skips_known=True, **settings),
        strategy=AggregateSampling(),
        weighting=Rank(1e-3),
    )


class TasksTest(parameterized.TestCase):
    @parameterized.parameters(*TASKS)
    def test_files_are_short(self, name):
        text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
        first = ast.parse(text).body[0]
        lines = text.splitlines()[first.end_lineno :]
        self.assertLess(len([one for one in lines if one.strip()]), 40)

    @parameterized.parameters(*(one for one in TASKS if one != "molecules"))
    def test_queries_are_made_and_scored(self, name):
        task = _task(name)
        with _opened(self.create_tempdir().full_path, task) as optimizer:
            with mock.patch("time.sleep"):
                optimizer.run()
            entries = optimizer.ledger.entries
        self.assertLen(entries, 6)
        self.assertEmpty([one for one in entries if one.failure is not None])
        if task.is_noisy:
            return
        for one in entries:
            with mock.patch("time.sleep"):
                again = task.objective(optimizer.task.from_json(one.input))
            if isinstance(again, Score):
                self.assertEqual(one.constraints, again.constraints)
                again = again.value
            self.assertEqual(one.score, again)

    @parameterized.parameters("text_from_csv", "mixed_inputs", "molecules")
    def test_encoded_inputs_are_read_back(self, name):
        task = _task(name)
        data = task.data(0)
        self.assertSequenceEqual(task.read(data.points, 0), data.inputs)
        np.testing.assert_allclose(
            task.write(data.inputs), data.points, atol=1e-6
        )

    def test_peptides_are_those_that_the_file_writes(self):
        before = (FOLDER / "peptides.csv").read_bytes()
        written = io.StringIO()
        written.close = lambda: None
        with mock.patch.object(pathlib.Path, "open", return_value=written):
            runpy.run_path(FOLDER / "text_from_csv.py", run_name="__main__")
        self.assertEqual(written.getvalue().encode(), before)
        task = _task("text_from_csv")
        data = task.data(0)
        scores = [task.objective(one) for one in data.inputs]
        np.testing.assert_allclose(data.scores, scores, atol=5e-5)

    def test_no_mixed_input_of_the_best_may_boil(self):
        task = _task("mixed_inputs")
        (one,) = task.read(np.array([[0.5, 1.0, 1.0, 0.0, 0.0, 0.0]]), 0)
        hot = {"temperature": 70, "hours": 24.0, "solvent": "acetone"}
        self.assertEqual(one, hot)
        self.assertEqual(task.objective(hot).constraints, {"boiling": 14})
        cool = {"temperature": 56, "hours": 24.0, "solvent": "acetone"}
        self.assertEqual(task.objective(cool).constraints, {"boiling": 0})

    def test_readings_are_noisy_and_averaged(self):
        task = _task("noisy_task")
        folder = self.create_tempdir().full_path
        with _opened(folder, task, 2, repeats=3) as optimizer:
            optimizer.run()
            entries = optimizer.ledger.entries
        for one in entries:
            self.assertLen({*one.scores}, 3)
            self.assertAlmostEqual(one.score, np.mean(one.scores))

    def test_controllers_run_in_other_processes(self):
        task, found = _task("cluster_task"), {}
        inputs = [np.array([1.0, 1.0, 1.0]), np.array([0.0, 500.0, 0.0])]
        with ProcessPool(2, timeout_seconds=60.0) as pool:
            pool(task.objective, inputs, found.__setitem__)
        self.assertAlmostEqual(found[0].score, task.objective(inputs[0]))
        self.assertRegex(found[1].failure, "ArithmeticError: unstable")

    @pytest.mark.slow  # Two seconds, of processes that import RDKit.
    def test_molecules_are_scored_in_other_processes(self):
        task, found = _task("molecules"), {}
        data = task.data(0)
        chosen = [data.inputs[i] for i in np.flatnonzero(~data.is_refused)[:2]]
        with ProcessPool(2, timeout_seconds=60.0) as pool:
            pool(task.objective, chosen, found.__setitem__)
        for i, one in enumerate(chosen):
            self.assertAlmostEqual(found[i].score, task.objective(one))

    def test_molecules_have_the_rules_and_scores_that_the_file_says(self):
        task = _task("molecules")
        data = task.data(0)
        for smiles, score in [*zip(data.inputs, data.scores, strict=True)][::9]:
            self.assertAlmostEqual(task.objective(smiles), score, delta=5e-5)
        self.assertLess(data.scores.max(), 0.8)
        self.assertIsNone(task.refuse("COc1ccc(C(=O)NCCCCc2ccccc2)cc1"))
        self.assertRegex(task.refuse("CCO"), "similarity .* at least 0.35")


def _commands(name):
    """Returns the commands of the docstring of an example."""
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    text = (ast.get_docstring(ast.parse(text)) or "").replace("\\\n", "")
    return re.findall(r"^ *((?:tfvae|python) .*)$", text, re.M)


@pytest.mark.slow
class PublishedTest(parameterized.TestCase):
    @parameterized.parameters(*TASKS)
    def test_command_of_the_docstring_finds_something_better(self, name):
        command = _commands(name)[0]
        if "--evaluator=ray" in command:
            pytest.importorskip("ray", reason="Ray is not installed")
        folder = self.create_tempdir().full_path
        words = [
            f"--run_dir={folder}" if one.startswith("--run_dir=") else one
            for one in shlex.split(command)[1:]
        ]
        subprocess.run(
            [sys.executable, "-m", "tfvae.cli.main", *words],
            cwd=ROOT,
            check=True,
        )
        entries = read_ledger(pathlib.Path(folder, "ledger.jsonl")).entries
        budget = re.search(r"--budget=(\d+)", command)[1]
        self.assertLen(entries, int(budget))
        task = _task(name)
        data = task.data(0)
        scores = [
            task.sign * one.score
            for one in entries
            if one.score is not None and one.is_feasible
        ]
        feasible = ~data.is_refused
        for values in data.constraints.values():
            feasible &= values <= 0.0
        best = (task.sign * data.scores[feasible]).max()
        self.assertGreater(max(scores), best)


if __name__ == "__main__":
    absltest.main()
