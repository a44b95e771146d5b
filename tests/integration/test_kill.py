# SPDX-License-Identifier: Apache-2.0
"""Kills training runs at random moments and has them go on.

With `-s` it prints, for each kill, when it came and what had been done:

    python -m pytest -m slow -s tests/integration/test_kill.py
"""

import csv
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[2]
NUM_KILLS = 10
# Of a summary and of a row, what tells the time or the folder.
_NOT_FIGURES = ("seconds", "training_seconds", "command", "versions")


def _start(run_dir: pathlib.Path) -> subprocess.Popen:
    """Starts a run of some ten seconds, with a checkpoint every epoch."""
    return subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "tools" / "train.py"),
            "--gin_file=gin/runs/bars.gin",
            "--gin_param=fit.epochs=40",
            "--gin_param=fit.observe_every=20",
            "--gin_param=train.export=False",
            f"--run_dir={run_dir}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )


def _finish(run_dir: pathlib.Path) -> None:
    process = _start(run_dir)
    _, err = process.communicate()
    if process.returncode:
        raise AssertionError(err.decode())


def _figures(run_dir: pathlib.Path) -> tuple[list[dict], dict]:
    """Returns the rows of metrics.csv and the summary, without times."""
    with open(run_dir / "metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    summary = json.loads((run_dir / "summary.json").read_text())
    for figures in (*rows, summary):
        for name in _NOT_FIGURES:
            figures.pop(name, None)
    return rows, summary


@pytest.mark.slow
class KillTest(tf.test.TestCase):
    def test_killed_runs_end_with_the_figures_of_the_unbroken_one(self):
        folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
        begin = time.monotonic()
        _finish(folder / "unbroken")
        duration = time.monotonic() - begin
        expected = _figures(folder / "unbroken")
        self.assertLen(expected[0], 40)
        print(f"\nunbroken: {duration:.1f} s, bound {expected[1]['bound']}")
        moments = random.Random(0)
        num_killed = 0
        while num_killed < NUM_KILLS:
            run_dir = folder / f"killed_{num_killed}"
            shutil.rmtree(run_dir, ignore_errors=True)
            begin = time.monotonic()
            process = _start(run_dir)
            delay = moments.uniform(0.1, 1.0) * duration
            try:
                process.communicate(timeout=delay)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
            else:  # It was faster than the one before; again.
                duration = time.monotonic() - begin
                continue
            done = sorted((run_dir / "checkpoints").glob("*.npz"))
            state = done[-1].stem if done else "no checkpoint"
            print(f"kill {num_killed}: after {delay:.1f} s, {state}")
            num_killed += 1
            _finish(run_dir)
            self.assertEqual(_figures(run_dir), expected)


if __name__ == "__main__":
    tf.test.main()
