# SPDX-License-Identifier: Apache-2.0
"""Tests of the benchmark of Bayesian optimisation, on few queries."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
import stat
import sys
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from benchmarks import optimizers
from benchmarks.objectives import PROBLEMS
from tfvae.lso import ThompsonSampling

# Answers with the seed, except that one method is not installed.
_FAKE = """#!{python}
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked["method"] == "BoTorch":
        print(json.dumps({{"error": "No module named 'torch'"}}), flush=True)
    else:
        found = {{"regret": float(asked["seed"]), "seconds": 0.5}}
        print(json.dumps(found), flush=True)
"""


class ObjectivesTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        ("Branin", [(np.pi + 5.0) / 15.0, 2.275 / 15.0]),
        (
            "Hartmann-6",
            [0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573],
        ),
    )
    def test_optima_are_the_published_ones(self, name, point):
        problem = PROBLEMS[name]
        self.assertLess(problem.regret(point), 1e-5)
        for x in problem.initial(0, 1000):
            self.assertGreater(problem.regret(x), 0.0)

    def test_noise_is_that_of_seed_and_point(self):
        problem = PROBLEMS["noisy Hartmann-6"]
        points = problem.initial(0, 500)
        noise = [problem.evaluate(x, 3) - problem.function(x) for x in points]
        # Five standard errors.
        self.assertAllClose(np.std(noise), 0.2, rtol=5.0 / np.sqrt(1000))
        self.assertEqual(
            problem.evaluate(points[0], 3), problem.evaluate(points[0], 3)
        )
        self.assertNotEqual(
            problem.evaluate(points[0], 3), problem.evaluate(points[0], 4)
        )


class OptimizersTest(tf.test.TestCase):
    def test_unit_cube_decodes_what_it_encodes(self):
        model = optimizers.UnitCube(3)
        points = model.decode(model.sample_prior(0, 2000))
        self.assertAllClose(model.decode(model.encode(points)), points)
        self.assertAllClose(model.encode(points).std(), 1.0, rtol=0.02)
        self.assertAllInRange(model.decode([[9.0, -9.0, 0.0]]), 0.0, 1.0)

    def test_regret_is_that_of_the_best_of_all_points(self):
        problem = PROBLEMS["Branin"]
        found = optimizers.ours(ThompsonSampling(), problem, 0, 6, 4)
        initial = [problem.regret(x) for x in problem.initial(0, 4)]
        self.assertLessEqual(found["regret"], min(initial))
        self.assertGreater(found["seconds"], 0.0)

    def _main(self, folder, *flags):
        out = io.StringIO()
        argv = ["optimizers", f"--run_dir={folder}", "--seeds", "1", "2", "9"]
        argv += ["--methods", "BoTorch", "Optuna, TPE", *flags]
        with (
            mock.patch.object(sys, "argv", argv),
            contextlib.redirect_stdout(out),
        ):
            optimizers.main()
        return out.getvalue()

    def test_peers_run_in_their_interpreter_and_once(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        fake = folder / "python"
        fake.write_text(_FAKE.format(python=sys.executable))
        fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
        for _ in range(2):
            out = self._main(folder, f"--peer_python={fake}")
            self.assertIn("left out: BoTorch (No module named 'torch')", out)
            self.assertRegex(
                out, r"Optuna, TPE +2\.0000 \(1\.5000 to 5\.5000\).* 0\.50\n"
            )
        rows = (folder / "runs.jsonl").read_text().splitlines()
        self.assertLen(rows, 9)
        self.assertEqual(json.loads(rows[0])["method"], "Optuna, TPE")

    def test_peers_are_left_out_without_an_interpreter(self):
        out = self._main(self.create_tempdir().full_path)
        self.assertIn("left out: BoTorch and Optuna (no --peer_python)", out)


if __name__ == "__main__":
    tf.test.main()
