# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed at any moment end like the unbroken one."""

from __future__ import annotations

import json
import pathlib
import random
import subprocess
import sys
import time

import console
import pytest
import tensorflow as tf

from tests.runners import small

_MOMENTS = 10
_COMMAND = [
    sys.executable,
    str(pathlib.Path(console.__file__).parent / "train.py"),
    "--gin_file=runs/bars.gin",
    "--gin_param=fit.epochs=60",
    "--gin_param=fit.observe_every=7",
    "--gin_param=bars.num_test=20",
]


@pytest.mark.slow
class KillTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)

    def _start(self, name):
        return subprocess.Popen(
            [*_COMMAND, f"--run_dir={self.folder / name}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def test_killed_at_random_moments(self):
        started = time.perf_counter()
        self.assertEqual(self._start("unbroken").wait(), 0)
        seconds = time.perf_counter() - started
        expected = json.loads(
            (self.folder / "unbroken/summary.json").read_text()
        )
        moments = random.Random(0)
        reached = set()
        for number in range(_MOMENTS):
            name = f"killed_{number}"
            process = self._start(name)
            time.sleep(moments.uniform(0.3, 0.98) * seconds)
            process.kill()
            process.wait()
            checkpoints = sorted((self.folder / name).glob("checkpoints/*.npz"))
            reached.add(checkpoints[-1].name if checkpoints else "none")
            self.assertEqual(self._start(name).wait(), 0)
            self.assertEqual(
                small.metrics(self.folder / name),
                small.metrics(self.folder / "unbroken"),
            )
            summary = json.loads(
                (self.folder / name / "summary.json").read_text()
            )
            for figure in ("bound", "test_bound", "features_found"):
                self.assertEqual(summary[figure], expected[figure])
        # The moments were different ones.
        self.assertGreater(len(reached), _MOMENTS // 2)
        print("killed after", sorted(reached))


if __name__ == "__main__":
    tf.test.main()
