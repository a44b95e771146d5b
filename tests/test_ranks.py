# SPDX-License-Identifier: Apache-2.0
"""Ranks are what MPI starts, share what they sum, and end together."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from unittest import mock

import numpy as np
import psutil
import pytest
from absl.testing import absltest, parameterized

from tfvae import ranks as ranks_lib
from tfvae.cli import console, main
from tfvae.lso.ledger import read_ledger

_ROOT = pathlib.Path(__file__).parents[1]
# That of the interpreter's environment comes before that of the system.
_MPIEXEC = pathlib.Path(sys.executable).with_name("mpiexec")
_NEEDS_MPI = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or not _MPIEXEC.exists(),
    reason="needs mpi4py and mpich: pip install 'tfvae[mpi]' mpich",
)


def _start(size: int, *arguments: str) -> subprocess.Popen:
    """Starts Python on some ranks."""
    return subprocess.Popen(
        [str(_MPIEXEC), "-n", str(size), sys.executable, *arguments],
        cwd=_ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _run(size: int, *arguments: str) -> tuple[int, str, str]:
    process = _start(size, *arguments)
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


# Rank 0 prints what all have: the lines of two processes may run together.
_COLLECTIVES = """
import sys
import numpy as np
from tfvae import ranks

job = ranks.of_job()
job.barrier()
lines = [
    f"{job.gather(job.rank)} {job.broadcast(job.rank)}",
    f"summed {job._all_sum(np.arange(3.0) + job.rank, np.arange(2))}",
    f"rows {job.gather(list(range(7))[job.rows(7)])}",
    f"without TensorFlow: {'tensorflow' not in sys.modules}",
]
of_ranks = job.gather(lines)
if job.rank == 0:
    print(*of_ranks[0], *of_ranks[1], sep="\\n")
"""

# The slow references of these tests, with processes in place of threads and
# steps that are graphs. Draws of a VAE's latents are modes.
_TVAE_AS_ONE = """
from tests.tvae import test_ranks as test
from tfvae import ranks

job = ranks.of_job()
for case in ("disk", "m_batches"):
    of_ranks = job.gather(test.train_rank(case, job, in_graph=True))
    if job.rank == 0:
        name = "test_ranks_explore_as_one_process_does"
        test.RanksTest(name).assert_is_of_one_process(case, of_ranks)
        print("equal:", case)
"""
_VAE_AS_ONE = """
import keras
import tensorflow as tf
from tests.vae import test_ranks as test
from tfvae import ranks

job = ranks.of_job()
keras.utils.set_random_seed(0)
model, alone = test.make(), test.make()
for one, other in zip(alone.variables, model.variables, strict=True):
    one.assign(other)
model.train_step = tf.function(model.train_step, reduce_retracing=True)
with test.modes():
    of_ranks = job.gather(test.trained(model, job))
if job.rank == 0:
    name = "test_ranks_train_as_one_process_does"
    test.RanksTest(name).assert_is_of_one_process(alone, of_ranks)
    print("equal: vae")
"""

_FAILS = """
import time
from tfvae import ranks

job = ranks.of_job()
if job.rank == 1:
    ranks.end_job(3)
time.sleep(300)
"""


class RanksTest(parameterized.TestCase):
    def test_without_a_launcher_there_is_one_process(self):
        alone = ranks_lib.of_job({"PATH": "/bin"})
        self.assertIs(alone, ranks_lib.ONE_PROCESS)
        self.assertEqual(list(range(5))[alone.rows(5)], [0, 1, 2, 3, 4])
        self.assertEqual(alone.gather("a"), ["a"])
        self.assertEqual(alone.all_sum(1, 2), (1, 2))

    @parameterized.parameters(
        ({"PATH": "/bin"}, (1, 0)),
        ({"PMI_SIZE": "4", "PMI_RANK": "3"}, (4, 3)),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, (2, 1)),
        ({"PMIX_RANK": "5", "SLURM_STEP_NUM_TASKS": "8"}, (8, 5)),
        ({"PMIX_RANK": "0"}, (1, 0)),
    )
    def test_launchers_are_recognised_without_joining(self, given, expected):
        self.assertEqual(ranks_lib.launched(given), expected)

    def test_what_a_rank_starts_is_no_part_of_the_job(self):
        of_rank = {"PMI_SIZE": "2", "PMI_RANK": "1", "PMI_FD": "5"}
        with mock.patch.dict(os.environ, {"HOME": "/", **of_rank}):
            ranks_lib.hide_launcher()
            self.assertEqual(ranks_lib.launched(), (1, 0))
            self.assertNotIn("PMI_FD", os.environ)
            self.assertIn("HOME", os.environ)

    @parameterized.parameters(
        ("study", "--workers=N, or mixins/slurm.gin"),
        ("export", "start it without mpiexec"),
    )
    def test_commands_of_one_process_say_what_to_use_instead(
        self, command, instead
    ):
        job = {"PMI_SIZE": "4", "PMI_RANK": "0"}
        err = io.StringIO()
        with (
            mock.patch.dict(os.environ, job),
            contextlib.redirect_stderr(err),
        ):
            self.assertEqual(main.main([command]), 2)
        (line,) = err.getvalue().splitlines()
        self.assertIn(
            f"`tfvae {command}` must be started as one process, got 4 of MPI; ",
            line,
        )
        self.assertIn(instead, line)

    @parameterized.parameters(
        ("--status", "`--status` must be given to one process"),
        ("--tell=0=1.5", "`--tell` must be given to one process"),
        ("--budget=0", "flag --budget=0"),
    )
    def test_wrong_flags_are_said_by_the_first_rank_alone(self, flag, message):
        for rank in range(2):
            job = {"PMI_SIZE": "2", "PMI_RANK": str(rank)}
            err = io.StringIO()
            with (
                mock.patch.dict(os.environ, job),
                mock.patch.object(console, "_SECONDS_FOR_FIRST_RANK", 0.0),
                contextlib.redirect_stderr(err),
            ):
                code = main.main(["optimize", "--run_dir=no_folder", flag])
            self.assertEqual(code, 2)
            lines = err.getvalue().splitlines()
            self.assertLen(lines, 1 - rank)
            self.assertTrue(all(message in one for one in lines), lines)

    def test_missing_mpi4py_is_said_by_the_first_rank_first(self):
        slept = []
        for rank in range(2):
            job = {"PMI_SIZE": "2", "PMI_RANK": str(rank)}
            with (
                mock.patch.dict(os.environ, job),
                mock.patch.dict(sys.modules, {"mpi4py": None}),
                mock.patch.object(time, "sleep", slept.append),
                self.assertRaisesRegex(ImportError, 'pip install "tfvae.mpi'),
                console.joined_job(),
            ):
                pass
            self.assertLen(slept, rank)

    @_NEEDS_MPI
    def test_two_ranks_exchange_what_they_have(self):
        code, out, err = _run(2, "-c", _COLLECTIVES)
        self.assertEqual(code, 0, err)
        expected = [
            "[0, 1] 0",
            "summed [array([1., 3., 5.]), array([0, 2])]",
            "rows [[0, 2, 4, 6], [1, 3, 5]]",
            "without TensorFlow: True",
        ]
        self.assertEqual(out.splitlines(), 2 * expected)

    @_NEEDS_MPI
    def test_a_rank_that_fails_ends_the_job_and_says_which(self):
        begin = time.monotonic()
        code, _, err = _run(2, "-c", _FAILS)
        self.assertEqual(code, 3)
        self.assertIn("rank 1 of 2 has failed and ends the job", err)
        self.assertLess(time.monotonic() - begin, 60.0)


def _train(run_dir: pathlib.Path, epochs: int, *more: str) -> list[str]:
    return [
        "tools/train.py",
        "--gin_file=gin/papers/ecml2022_tvae/bars.gin",
        f"--gin_param=fit.epochs={epochs}",
        "--gin_param=TVAE.m_batch_size=8",
        "--gin_param=train.export=False",
        f"--run_dir={run_dir}",
        *more,
    ]


def _ranks_of(process: subprocess.Popen) -> list[psutil.Process]:
    """Returns the processes of a job that train, those that still run."""
    try:
        of_job = psutil.Process(process.pid).children(recursive=True)
        return [
            one
            for one in of_job
            if one.name().startswith("python")
            and {"tools/train.py", "optimize"} & {*one.cmdline()}
        ]
    except psutil.NoSuchProcess:
        return []


def _states(path: pathlib.Path) -> list[np.ndarray]:
    """Returns the arrays of a rank's rows: states and their log-joints."""
    with np.load(path) as arrays:
        return [arrays[name] for name in arrays.files if name[0].isdigit()]


def _figures(run_dir: pathlib.Path) -> list[dict[str, str]]:
    """Returns the rows of metrics.csv, without times."""
    with open(run_dir / "metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"]
    return rows


class _FolderTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(
            self.enter_context(tempfile.TemporaryDirectory())
        )


@pytest.mark.slow
@_NEEDS_MPI
class OneProcessTest(parameterized.TestCase):
    @parameterized.parameters(
        (_TVAE_AS_ONE, ["equal: disk", "equal: m_batches"]),
        (_VAE_AS_ONE, ["equal: vae"]),
    )
    def test_two_processes_train_as_one_does(self, program, expected):
        code, out, err = _run(2, "-c", program)
        self.assertEqual(code, 0, err)
        self.assertEqual(out.splitlines(), expected)


@pytest.mark.slow
@_NEEDS_MPI
class TrainTest(_FolderTest):
    def _finish(
        self, size: int, run_dir: pathlib.Path, epochs: int, *more: str
    ) -> str:
        code, out, err = _run(size, *_train(run_dir, epochs, *more))
        self.assertEqual(code, 0, err)
        return out

    def test_killed_job_ends_and_resumes_to_the_same_figures(self):
        unbroken, broken = self.folder / "unbroken", self.folder / "broken"
        out = self._finish(2, unbroken, 6)
        self.assertEqual(out.count("done: "), 1)  # Of one rank.
        process = _start(2, *_train(broken, 6))
        while not list(broken.glob("checkpoints/checkpoint-*2.npz")):
            self.assertIsNone(process.poll())
            time.sleep(0.1)
        ranks = _ranks_of(process)
        ranks[-1].send_signal(signal.SIGKILL)
        begin = time.monotonic()
        out, _ = process.communicate(timeout=60)
        self.assertLess(time.monotonic() - begin, 30.0)
        self.assertNotEqual(process.returncode, 0)
        killed = ranks[-1].pid
        self.assertIn(f"rank 1 is process {killed} ", out)
        self.assertRegex(out, f"TERMINATION(.*\n)+.*PID {killed} RUNNING")
        self.assertFalse((broken / "summary.json").exists())
        out = self._finish(2, broken, 6)
        self.assertIn("resuming after epoch", out)
        self.assertEqual(_figures(broken), _figures(unbroken))

    def test_other_numbers_of_ranks_resume(self):
        run_dir = self.folder / "run"
        bounds = []
        for epochs, size in enumerate((2, 3, 1, 2), 2):
            self._finish(size, run_dir, epochs)
            summary = json.loads((run_dir / "summary.json").read_text())
            bounds.append(summary["bound"])
        self.assertLen(_figures(run_dir), 5)
        self.assertEqual(bounds, sorted(bounds))
        files = [path.name for path in (run_dir / "checkpoints").iterdir()]
        self.assertCountEqual(
            [name for name in files if "000005" in name],
            [
                "checkpoint-000005.npz",
                "rows-000005-0-of-2.npz",
                "rows-000005-1-of-2.npz",
            ],
        )

    def test_states_on_disk_give_the_figures_of_those_in_memory(self):
        on_disk = "--gin_param=TVAE.states_in_memory=0"
        runs = self.folder / "memory", self.folder / "disk"
        for epochs, size in ((3, 2), (6, 3), (9, 3)):
            self._finish(size, runs[0], epochs)
            # The last epochs go on in memory.
            self._finish(size, runs[1], epochs, *([on_disk] * (epochs < 9)))
        figures = _figures(runs[0])
        self.assertLen(figures, 9)
        self.assertEqual(_figures(runs[1]), figures)

    def test_kills_of_random_ranks_lose_nothing(self):
        size, epochs, num_kills = 2, 20, 20
        unbroken = self.folder / "unbroken"
        begin = time.monotonic()
        self._finish(size, unbroken, epochs)
        seconds = time.monotonic() - begin
        rng = random.Random(0)
        num_killed = num_runs = 0
        while num_killed < num_kills:
            broken = self.folder / f"broken_{num_runs}"
            num_runs += 1
            code = None
            while code != 0:
                process = _start(size, *_train(broken, epochs))
                delay = rng.uniform(0.0, seconds)
                if num_killed < num_kills:
                    time.sleep(delay)
                ranks = _ranks_of(process)
                if num_killed < num_kills and len(ranks) == size:
                    killed = rng.randrange(size)
                    ranks[killed].send_signal(signal.SIGKILL)
                    num_killed += 1
                    done = sorted(broken.glob("checkpoints/checkpoint-*.npz"))
                    newest = done[-1].name if done else "no checkpoint"
                    print(f"kill {num_killed}: {delay:.1f} s, {newest}")
                _, err = process.communicate(timeout=400)
                code = process.returncode
            self.assertEqual(_figures(broken), _figures(unbroken), err)
            rows = [
                len(states)
                for file in broken.glob(f"checkpoints/rows-0000{epochs}-*")
                for states in _states(file)
            ]
            self.assertEqual(rows, [250] * size * 2)

    def test_4_ranks_resume_on_2_and_back_on_4(self):
        run_dir = self.folder / "run"
        bounds = []
        for epochs, size in ((3, 4), (6, 2), (9, 4)):
            self._finish(size, run_dir, epochs)
            rows = [
                len(states)
                for file in run_dir.glob(f"checkpoints/rows-00000{epochs}-*")
                for states in _states(file)
            ]
            self.assertEqual(rows, [500 // size] * size * 2)
            bounds += [float(row["bound"]) for row in _figures(run_dir)][-3:]
        print(bounds)
        self.assertLen(_figures(run_dir), 9)
        # What is lost at a change of the ranks would show as a fall.
        self.assertEqual(bounds, sorted(bounds))

    def test_picture_is_restored_by_all_ranks(self):
        image, run_dir = self.folder / "image.npy", self.folder / "run"
        rng = np.random.default_rng(0)
        clean = np.full((24, 24), 100.0) + 50.0 * (np.arange(24) > 11)
        np.save(image, np.float32(clean + rng.normal(0.0, 20.0, clean.shape)))
        arguments = (
            "-m",
            "tfvae.cli.main",
            "denoise",
            f"--image={image}",
            f"--output={self.folder / 'restored.npy'}",
            "--epochs=6",
            "--gin_param=denoise.export=False",
            "--gin_param=fit.batch_size=128",
            "--gin_param=TVAE.m_batch_size=16",
            "--gin_param=TVAE.num_latents=16",
            f"--run_dir={run_dir}",
        )
        for said in ("done: ", "already finished: "):
            code, out, err = _run(2, *arguments)
            self.assertEqual(code, 0, err)
            self.assertEqual(out.count(said), 1)
        restored = np.load(self.folder / "restored.npy")
        self.assertTrue(np.isfinite(restored).all())
        errors = [
            np.sqrt(np.mean(np.square(one - clean)))
            for one in (restored, np.load(image))
        ]
        print(errors)
        self.assertLess(errors[0], 0.7 * errors[1])

    def test_mistake_is_said_once(self):
        code, _, err = _run(
            2, *_train(self.folder / "run", 2), "--gin_param=fit.epochs=0"
        )
        self.assertEqual(code, 2)
        self.assertEqual(err.count("error: `fit.epochs` must be"), 1)


_TASK = """
import numpy as np
from tfvae.lso import ScoredData, Task

def objective(x):
    return -float(np.sum((x - 1.0) ** 2))

def data(seed):
    points = np.random.default_rng(seed).normal(size=(101, 4))
    return ScoredData(points, [objective(x) for x in points])

task = Task("distance", data, objective)
"""


@pytest.mark.slow
@_NEEDS_MPI
class OptimizeTest(_FolderTest):
    def _arguments(self, run_dir: pathlib.Path, budget: int) -> list[str]:
        task = self.folder / "task.py"
        task.write_text(_TASK)
        return [
            *("-m", "tfvae.cli.main", "optimize"),
            *(f"--task={task}", f"--run_dir={run_dir}", f"--budget={budget}"),
            "--gin_param=fit.epochs=4",
            "--gin_param=train.export=False",
            "--gin_param=optimize.queries_per_round=2",
            "--gin_param=optimize.surrogate=None",
            "--gin_param=optimize.strategy=@PriorSampling()",
        ]

    def _finish(self, size: int, run_dir: pathlib.Path, budget: int) -> None:
        code, _, err = _run(size, *self._arguments(run_dir, budget))
        self.assertEqual(code, 0, err)

    def test_killed_optimisation_resumes_also_on_other_ranks(self):
        unbroken, broken = self.folder / "unbroken", self.folder / "broken"
        self._finish(2, unbroken, 6)
        expected = read_ledger(unbroken / "ledger.jsonl").entries
        self.assertLen(expected, 6)
        for killed in (1, 0):
            process = _start(2, *self._arguments(broken, 6))
            path = broken / f"rounds/checkpoint-00000{1 - killed}.npz"
            while not path.exists():
                self.assertIsNone(process.poll())
                time.sleep(0.02)
            _ranks_of(process)[killed].send_signal(signal.SIGKILL)
            begin = time.monotonic()
            process.communicate(timeout=60)
            self.assertLess(time.monotonic() - begin, 30.0)
            self.assertNotEqual(process.returncode, 0)
            done = len(read_ledger(broken / "ledger.jsonl").entries)
            print(f"rank {killed} killed after {done} of 6 queries")
        self._finish(2, broken, 6)
        self.assertEqual(
            [one.input for one in read_ledger(broken / "ledger.jsonl").entries],
            [one.input for one in expected],
        )
        for budget, size in ((8, 3), (10, 1)):
            self._finish(size, broken, budget)
            entries = read_ledger(broken / "ledger.jsonl").entries
            self.assertLen(entries, budget)
            self.assertEqual(entries[5].input, expected[5].input)

    def test_tvae_is_refused_before_it_is_trained(self):
        code, out, err = _run(
            2,
            *self._arguments(self.folder / "run", 4),
            "--gin_param=experiment.model=@TVAE",
            "--gin_param=TVAE.num_latents=8",
        )
        self.assertEqual(code, 2)
        self.assertEqual(err.count("`experiment.model` must be @vae on sev"), 1)
        self.assertNotIn("training", out)


if __name__ == "__main__":
    absltest.main()
