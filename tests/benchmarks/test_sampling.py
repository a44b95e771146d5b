# SPDX-License-Identifier: Apache-2.0
"""Tests of the benchmark of weighted sampling, on tiny data."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
import sys
from unittest import mock

import tensorflow as tf
from absl.testing import parameterized

from benchmarks import sampling, sampling_worker

# Knows a line, and takes as many seconds as its name has letters.
_FAKE = """
import json, sys
print(json.dumps({"facts": {}}), flush=True)
for line in sys.stdin:
    print(json.dumps({"seconds": float(len(line.strip()))}), flush=True)
"""


class SamplingTest(tf.test.TestCase, parameterized.TestCase):
    def _run(self, theirs, **settings):
        folder = pathlib.Path(self.create_tempdir().full_path)
        fake = [sys.executable, "-c", _FAKE]
        out = io.StringIO()
        with (
            mock.patch.object(sampling, "ours", lambda *_: fake),
            mock.patch.object(sampling, "theirs", lambda *_: theirs or fake),
            contextlib.redirect_stdout(out),
        ):
            result = sampling.sampling(folder, rounds=2, **settings)
        path = folder / "benchmark_sampling.json"
        self.assertEqual(json.loads(path.read_text()), result)
        return result, out.getvalue()

    def test_reports_medians_of_all_sizes(self):
        result, out = self._run(None, num_points=(10, 20))
        self.assertEqual([t["num_points"] for t in result["tables"]], [10, 20])
        table = result["tables"][1]
        self.assertEqual(table["rounds"]["tfvae"]["python"], [6.0, 6.0])
        self.assertEqual(table["medians"]["PyTorch"]["default"], 7.0)
        self.assertContainsInOrder(
            ["N = 20;", "PyTorch, whole batches", "ms until the first batch"],
            out,
        )

    def test_missing_torch_is_left_out(self):
        code = "raise SystemExit('error: torch is not installed')"
        result, out = self._run([sys.executable, "-c", code], num_points=(10,))
        self.assertEqual([*result["tables"][0]["medians"]], ["tfvae"])
        self.assertIn("left out: PyTorch (torch is not installed", out)

    @parameterized.parameters(
        {"num_points": ()}, {"num_points": (0,)}, {"k": 0.0}, {"batch_size": 0}
    )
    def test_refuses(self, **settings):
        with self.assertRaisesRegex(ValueError, "`num_points`.* got"):
            sampling.sampling("unused", **settings)

    @parameterized.parameters("graph", "python", "draws", "replace", "ready")
    def test_worker_measures(self, name):
        measures = sampling_worker.Measures(
            {
                "num_points": 30,
                "num_observed": 3,
                "batch_size": 4,
                "k": 1e-2,
                "seed": 0,
                "limit": 0.01,
            }
        )
        self.assertBetween(measures.named(name)(), 1e-9, 10.0)


if __name__ == "__main__":
    tf.test.main()
