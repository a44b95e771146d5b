# SPDX-License-Identifier: Apache-2.0
"""A command that writes shards survives kills; what it writes is trained on."""

from __future__ import annotations

import json
import pathlib
import random
import subprocess
import sys
import time

import numpy as np
import pytest
from absl.testing import absltest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow  # Processes that import TensorFlow.
class ShardKillTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)

    def _start(self, *argv):
        return subprocess.Popen(
            [sys.executable, ROOT / "tools" / f"{argv[0]}.py", *argv[1:]],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _run(self, *argv):
        process = self._start(*argv)
        out, _ = process.communicate()
        self.assertEqual(process.returncode, 0, out)
        return out

    def test_killed_writing_continues_to_the_same_shards(self):
        points = np.random.default_rng(0).normal(size=(40_000, 64))
        points = points.astype(np.float32)
        np.save(self.folder / "points.npy", points)
        shard = ("shard", "--input=points.npy", "--rows_per_shard=100")
        whole, broken = self.folder / "whole", self.folder / "broken"
        self._run(*shard, "--run_dir=whole")
        generator = random.Random(0)
        found = []
        for _ in range(5):
            process = self._start(*shard, "--run_dir=broken")
            before = len(list(broken.glob("shard*.npy")))
            deadline = time.time() + 60.0
            while len(list(broken.glob("shard*.npy"))) <= before and (
                time.time() < deadline and process.poll() is None
            ):
                time.sleep(0.01)
            time.sleep(generator.uniform(0.0, 0.3))
            process.kill()
            process.communicate()
            found.append(len(list(broken.glob("shard*.npy"))))
        print(f"shards after each kill, of 400: {found}")
        self.assertGreater(found[0], 0)
        self.assertEqual(found, sorted(found))
        self._run(*shard, "--run_dir=broken")
        names = {path.name for path in whole.iterdir()}
        self.assertEqual({path.name for path in broken.iterdir()}, names)
        for name in names:
            one, other = whole / name, broken / name
            self.assertEqual(one.read_bytes(), other.read_bytes())
        found = [np.load(one) for one in sorted(whole.glob("shard*.npy"))]
        np.testing.assert_array_equal(np.concatenate(found), points)

    def _assert_trains(self, *params):
        """Trains on shards, evaluates, and trains on."""
        points = np.random.default_rng(0).random((200, 64), np.float32)
        np.save(self.folder / "points.npy", points)
        self._run(
            *("shard", "--input=points.npy", "--rows_per_shard=60"),
            "--run_dir=shards",
        )
        train = ("train", "--gin_file=runs/shards.gin",
                 "--gin_param=FOLDER='shards'",
                 "--gin_param=train.export=False",
                 "--run_dir=run", *params)  # fmt: skip
        for epochs in (1, 2):
            out = self._run(*train, f"--gin_param=fit.epochs={epochs}")
            self.assertIn("200 data points of 64 dimensions", out)
        self._run("evaluate", "--run_dir=run")
        found = json.loads((self.folder / "run/evaluation.json").read_text())
        self.assertEqual(found["points_of_split"], 200)
        summary = json.loads((self.folder / "run/summary.json").read_text())
        self.assertEqual(summary["epochs"], 2)

    def test_tvae_trains_on_shards(self):
        self._assert_trains(
            "--gin_param=TVAE.num_latents=8", "--gin_param=TVAE.num_states=16"
        )

    def test_vae_trains_on_shards(self):
        self._assert_trains(
            "--gin_file=models/vae.gin",
            "--gin_param=IMAGE_SHAPE=(8, 8, 1)",
            "--gin_param=RealNVPPrior.num_flows=2",
        )


if __name__ == "__main__":
    absltest.main()
