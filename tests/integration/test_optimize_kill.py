# SPDX-License-Identifier: Apache-2.0
"""Kills an optimisation again and again, and has it go on each time.

With `-s` it prints, for each kill, when it came and what had been recorded:

    python -m pytest -m slow -s tests/integration/test_optimize_kill.py
"""

import ast
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import pytest
import tensorflow as tf

from tests.integration import slow_task
from tfvae.lso.ledger import read_ledger

ROOT = pathlib.Path(__file__).parents[2]
TASK = pathlib.Path(__file__).with_name("slow_task.py")
NUM_KILLS = 20
# So many come while it starts or trains the model; the others among queries.
NUM_EARLY = 5
BUDGET = 120


class _Run:
    """A run folder, and the calls of its objective."""

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir()
        self.path = folder / "run"
        self.calls = folder / "calls"
        self.calls.touch()

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "tools" / "optimize.py"),
                f"--task={TASK}",
                f"--run_dir={self.path}",
                f"--budget={BUDGET}",
                "--gin_param=optimize.queries_per_round=12",
                "--gin_param=SparseGaussianProcess.num_inducing=30",
                "--gin_param=NUM_LATENTS=3",
                "--gin_param=fit.epochs=5",
                # So short a training decodes all latents to much the same.
                "--gin_param=optimize.min_distance=0.001",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            text=True,
            env={
                **os.environ,
                slow_task.CALLS: str(self.calls),
                "OMP_NUM_THREADS": "1",
            },
        )

    def finish(self) -> None:
        process = self.start()
        _, err = process.communicate()
        if process.returncode:
            raise AssertionError(err)

    def recorded(self) -> list:
        """Returns the entries on the disk, without when and how long."""
        path = self.path / "ledger.jsonl"
        if not path.exists() or not path.read_bytes().count(b"\n"):
            return []
        return [
            entry._replace(time="", seconds=0.0)
            for entry in read_ledger(path)[1]
        ]

    def called(self) -> list:
        lines = self.calls.read_text(encoding="utf-8").splitlines()
        return [ast.literal_eval(line) for line in lines]


def _kill(process: subprocess.Popen) -> bool:
    """Kills it; returns whether it was still running."""
    was_running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return was_running


@pytest.mark.slow
class KillTest(tf.test.TestCase):
    def test_nothing_is_lost_or_repeated_and_the_sequence_is_the_same(self):
        folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
        unbroken = _Run(folder / "unbroken")
        unbroken.finish()
        expected = unbroken.recorded()
        self.assertLen(expected, BUDGET)
        run = _Run(folder / "killed")
        moments = random.Random(0)
        num_lost = num_repeated = num_killed = 0
        before: list = []
        while num_killed < NUM_KILLS:
            started, num_calls = time.monotonic(), len(run.called())
            process = run.start()
            if num_killed % (NUM_KILLS // NUM_EARLY) == 0:
                time.sleep(moments.uniform(0.5, 12.0))
            else:
                # Among evaluations, fits and retrainings, wherever it is then.
                wanted = num_calls + moments.randint(1, 7)
                while len(run.called()) < wanted:
                    self.assertIsNone(process.poll(), "it ended too soon")
                    time.sleep(0.01)
                time.sleep(moments.uniform(0.0, 2.0 * slow_task.SECONDS))
            self.assertTrue(_kill(process), "it ended too soon")
            num_killed += 1
            after = run.recorded()
            num_lost += sum(a != b for a, b in zip(before, after, strict=False))
            num_lost += max(0, len(before) - len(after))
            known = [entry.input for entry in before]
            newest = run.called()[num_calls:]
            num_repeated += sum(one in known for one in newest)
            print(
                f"kill {num_killed}: after {time.monotonic() - started:.1f} s, "
                f"{len(after)} evaluations recorded"
            )
            before = after
        run.finish()
        found = run.recorded()
        print(
            f"{num_killed} kills: {num_lost} evaluations lost, "
            f"{num_repeated} repeated; the sequence is "
            f"{'the same' if found == expected else 'ANOTHER'}"
        )
        self.assertEqual(num_lost, 0)
        self.assertEqual(num_repeated, 0)
        self.assertEqual(found, expected)
        result = json.loads((run.path / "result.json").read_text())
        self.assertEqual(result["num_queries"], BUDGET)


if __name__ == "__main__":
    tf.test.main()
