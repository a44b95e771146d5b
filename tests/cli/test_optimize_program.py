# SPDX-License-Identifier: Apache-2.0
"""`tfvae optimize` as a program: what it prints where, how it ends."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from absl.testing import absltest

from tfvae.lso.ledger import read_ledger

_TASK = """
import atexit, os, subprocess, sys, time
import numpy as np
from tfvae.lso import ScoredData, Task
print("printed at import")
os.write(1, b"written at import")
subprocess.run(["echo", "echoed at import"])
atexit.register(print, "printed at exit")
atexit.register(os.write, 1, b"written at exit")
BASES = "ACGT"
MODE = os.environ.get("MODE")
def write(texts):
    rows = [[np.eye(4)[BASES.index(c)] for c in text] for text in texts]
    return np.reshape(rows, (len(texts), -1)).astype("float32")
def read(means, seed):
    print("printed by read")
    return ["".join(BASES[i] for i in row.reshape(-1, 4).argmax(-1))
            for row in means]
def score(text):
    if MODE == "fail":
        raise KeyError("the pump stopped")
    if MODE == "slow":
        print("evaluating", file=sys.stderr, flush=True)
        time.sleep(2.0)
    return float(text.count("A"))
def data(seed):
    rng = np.random.default_rng(seed)
    texts = ["".join(rng.choice(list(BASES), 5)) for _ in range(40)]
    return ScoredData(write(texts), [text.count("A") for text in texts], texts)
task = Task("texts", data, score, read, write)
"""
_PROGRAM = [sys.executable, "-m", "tfvae.cli.main", "optimize"]


@pytest.mark.slow
class ProgramTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        (self.folder / "my_task.py").write_text(_TASK)
        self.run_dir = self.folder / "lab"
        self.flag = f"--run_dir={self.run_dir}"
        self.first = [
            self.flag,
            "--task=my_task.py",
            "--gin_param=fit.epochs=1",
            "--gin_param=train.export=False",
            "--gin_param=optimize.strategy=@PriorSampling()",
            "--gin_param=optimize.surrogate=None",
        ]

    def _start(self, *argv, mode="", cwd=None):
        return subprocess.Popen(
            [*_PROGRAM, *argv],
            cwd=cwd or self.folder,
            env={**os.environ, "MODE": mode},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _run(self, *argv, **kwargs):
        started = self._start(*argv, **kwargs)
        out, err = started.communicate()
        return started.returncode, out, err

    def _entries(self):
        return read_ledger(self.run_dir / "ledger.jsonl").entries

    def test_laboratory_asks_and_tells_from_any_folder(self):
        code, out, err = self._run(*self.first, "--budget=6", "--ask=2")
        self.assertEqual(code, 0, err)
        lines = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([line["query"] for line in lines], [0, 1])
        for text in ("printed at", "written at", "echoed at", "by read"):
            self.assertIn(text, err)
        code, out, err = self._run(
            self.flag,
            *("--tell=0=1.5", "--tell=1=failed", "--ask=2", "--budget=5"),
            cwd="/",
        )
        self.assertEqual(code, 0, err)
        self.assertIn("query 0: 1.5  ", err)
        self.assertIn("budget 6 -> 5\n", err)
        lines = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([line["query"] for line in lines], [2, 3])
        code, out, _ = self._run(self.flag, "--status", cwd="/")
        self.assertEqual(code, 0)
        self.assertIn("2 of 5 queries done, 2 pending, 1 failed", out)
        table = (self.run_dir / "evaluations.csv").read_text()
        self.assertLen(table.splitlines(), 3)

    def test_failures_end_a_run_which_can_be_repeated(self):
        code, _, err = self._run(
            *self.first, "--budget=4", "--max_failures=2", mode="fail"
        )
        self.assertEqual(code, 1, err)
        self.assertIn("query 0 has failed: KeyError: 'the pump stopped'", err)
        self.assertEqual(err.count("Traceback (most recent call last)"), 1)
        self.assertIn('raise KeyError("the pump stopped")', err)
        self.assertRegex(err, "stopped: 2 evaluations in a row have failed")
        self.assertLen(self._entries(), 2)
        self.assertTrue((self.run_dir / "report.html").exists())
        code, out, err = self._run(self.flag, "--retry_failed")
        self.assertEqual(code, 0, err)
        self.assertIn("2 failed queries are pending again: 0, 1", err)
        self.assertIn("4 queries (0 without a score", out)

    def test_interrupt_waits_for_the_evaluation_under_way(self):
        started = self._start(*self.first, "--budget=50", mode="slow")
        for line in started.stderr:
            if line == "evaluating\n":
                break
        started.send_signal(signal.SIGINT)
        out, err = started.communicate()
        self.assertEqual(started.returncode, 130, err)
        self.assertIn("stopping after what is under way", err)
        self.assertIn("interrupted; the same command resumes", err)
        self.assertLen(self._entries(), 1)
        self.assertIn("1 queries (0 without a score", out)


if __name__ == "__main__":
    absltest.main()
