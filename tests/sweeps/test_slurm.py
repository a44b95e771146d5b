# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import pathlib
import sys
import types
from unittest import mock

import pytest
from absl.testing import absltest, parameterized

from tfvae.runs import config
from tfvae.runs.run_directory import UnexpectedError
from tfvae.sweeps import folders, report, slurm, study
from tfvae.sweeps.pool import Job
from tfvae.sweeps.slurm import SlurmExecutor

_HAS_SUBMITIT = importlib.util.find_spec("submitit") is not None


class FakeJob:
    """Stands for a job of submitit that ends as its cell's name says."""

    known = {}
    """Jobs by folder and number, as they are found again."""

    def __init__(self, folder, job_id, name=""):
        self.job_id, self.name = job_id, name
        self.paths = types.SimpleNamespace(
            folder=pathlib.Path(folder),
            stderr=pathlib.Path(folder, f"{job_id}.err"),
            stdout=pathlib.Path(folder, f"{job_id}.out"),
        )
        self.num_looks = 0
        self.is_cancelled = False

    @property
    def state(self):
        return "TIMEOUT" if "late" in self.name else "COMPLETED"

    def done(self, force_check=False):
        self.num_looks += 1
        if self.is_cancelled:
            return True
        return "waits" not in self.name and self.num_looks > 1

    def exception(self):
        return RuntimeError("no result") if "late" in self.name else None

    def result(self):
        return ("ValueError: no luck" if "fails" in self.name else None), 2.5

    def cancel(self, check):
        self.is_cancelled = True


class FakeExecutor:
    """Stands for submitit's `AutoExecutor`."""

    made = []

    def __init__(self, folder, cluster):
        self.folder, self.cluster, self.jobs = folder, cluster, []
        self.made.append(self)

    def update_parameters(self, **parameters):
        self.parameters = parameters

    def submit(self, function, cell, folder):
        job_id = f"{len(self.jobs)}"
        self.jobs.append(FakeJob(self.folder, job_id, folder))
        return self.jobs[-1]


class FakeSubmititTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        fake = types.ModuleType("submitit")
        fake.AutoExecutor = FakeExecutor
        fake.LocalJob = None
        fake.SlurmJob = lambda *found: FakeJob.known[found]
        self.enter_context(mock.patch.dict(sys.modules, {"submitit": fake}))
        self.enter_context(mock.patch.object(slurm, "_LOOK_SECONDS", 0.001))
        self.enter_context(mock.patch.object(FakeExecutor, "made", []))
        self.enter_context(mock.patch.dict(FakeJob.known))

    def _outcomes(self, *names, **options):
        """Returns an iterator over the outcomes of cells of such names."""
        jobs = [Job(name, self.folder / name) for name in names]
        for job in jobs:
            job.path.mkdir(exist_ok=True)
        executor = SlurmExecutor(60, **options)
        return executor(jobs, "module:function", self.folder)

    def _submitted(self):
        (executor,) = FakeExecutor.made
        return executor.jobs

    def test_every_cell_is_a_job(self):
        outcomes = [*self._outcomes("a", "b_fails", "c")]
        self.assertEqual(
            [(one.job.name, one.error, one.seconds) for one in outcomes],
            [
                ("a", None, 2.5),
                ("b_fails", "ValueError: no luck", 2.5),
                ("c", None, 2.5),
            ],
        )
        self.assertLen(self._submitted(), 3)

    def test_lost_job_is_told_with_its_log(self):
        outcomes = self._outcomes("late")
        log = self.folder / "slurm" / "%j" / "0.out"
        log.parent.mkdir(parents=True)
        log.write_text("first\nslurmstepd: CANCELLED DUE TO TIME LIMIT\n")
        (outcome,) = outcomes
        self.assertTrue(outcome.is_lost)
        self.assertEqual(
            outcome.error,
            "job 0 ended without a result (TIMEOUT): slurmstepd: CANCELLED DUE "
            f"TO TIME LIMIT; see {log}",
        )

    @parameterized.parameters(1, 2, 5)
    def test_no_more_jobs_than_allowed_wait_or_run(self, jobs_at_once):
        outcomes = self._outcomes(*"abcde", jobs_at_once=jobs_at_once)
        for i, _ in enumerate(outcomes):
            self.assertLessEqual(len(self._submitted()) - i, jobs_at_once)
        self.assertLen(self._submitted(), 5)

    def test_jobs_are_cancelled_with_the_iterator(self):
        outcomes = self._outcomes("a", "b_waits", "c_waits")
        next(outcomes)
        outcomes.close()
        self.assertEqual(
            [one.is_cancelled for one in self._submitted()], [False, True, True]
        )

    def test_job_that_an_earlier_study_has_left_is_waited_for(self):
        for name in ("left", "gone"):
            (self.folder / name).mkdir()
            noted = {"job_id": f"7{name}", "folder": "old"}
            folders.write_json(self.folder / name / "job.json", noted)
        left = FakeJob("old", "7left", "left")
        gone = FakeJob("old", "7gone", "gone")
        gone.num_looks = 1
        FakeJob.known.update({("old", "7left"): left, ("old", "7gone"): gone})
        outcomes = [*self._outcomes("left", "gone")]
        self.assertCountEqual(
            [(one.job.name, one.error) for one in outcomes],
            [("left", None), ("gone", None)],
        )
        (submitted,) = self._submitted()
        self.assertEndsWith(submitted.name, "gone")
        noted = folders.read_json(self.folder / "gone" / "job.json")
        self.assertEqual(noted["job_id"], "0")

    def test_jobs_get_what_they_need(self):
        parameters = {"slurm_account": "physics", "name": "mine"}
        [
            *self._outcomes(
                "a",
                partition="short",
                cpus=3,
                memory_gb=8,
                parameters=parameters,
            )
        ]
        (executor,) = FakeExecutor.made
        self.assertEqual(executor.cluster, "slurm")
        given = dict(executor.parameters)
        setup = given.pop("slurm_setup")
        self.assertIn("export OMP_NUM_THREADS=3", setup)
        self.assertEqual(
            given,
            {
                "name": "mine",
                "timeout_min": 60,
                "cpus_per_task": 3,
                "gpus_per_node": 0,
                "mem_gb": 8,
                "slurm_partition": "short",
                "slurm_account": "physics",
            },
        )


class ArgumentsTest(parameterized.TestCase):
    def test_without_submitit_the_extra_is_named(self):
        with mock.patch.dict(sys.modules, {"submitit": None}):
            with self.assertRaisesRegex(ImportError, r"tfvae\[slurm\]"):
                [*SlurmExecutor(60)([], "a:b", pathlib.Path("nowhere"))]

    @parameterized.parameters(
        ({"timeout_minutes": 0}, "`timeout_minutes` must be .* got 0"),
        ({"timeout_minutes": 0.5}, "`timeout_minutes` must be .* got 0.5"),
        ({"jobs_at_once": 0}, "`jobs_at_once` must be"),
        ({"cpus": True}, "`cpus` must be"),
        ({"cluster": "pbs"}, "`cluster` must be one of .* got 'pbs'"),
    )
    def test_refuses_values(self, options, pattern):
        with self.assertRaisesRegex(ValueError, pattern):
            SlurmExecutor(**{"timeout_minutes": 60, **options})

    @parameterized.parameters(
        ("@SlurmExecutor", TypeError, "must be an object, .* got"),
        ("3", TypeError, "must be an object, .* got 3"),
        ("@SlurmExecutor()", ValueError, "`study.workers` must be None"),
    )
    def test_study_refuses_executors(self, value, kind, pattern):
        path = self.create_tempfile("study.gin", "study.factors = {}").full_path
        config.load(
            [path],
            [
                f"study.executor = {value}",
                "SlurmExecutor.timeout_minutes = 60",
                "study.workers = 2",
            ],
        )
        with self.assertRaisesRegex(kind, pattern):
            study.study(self.create_tempdir().full_path)

    @parameterized.parameters(
        ("fit.epochs = 3", True),
        ("study.seed = 3", False),
        (" SlurmExecutor.cpus = 3", False),
    )
    def test_bindings_of_the_executor_are_not_for_cells(
        self, binding, expected
    ):
        self.assertEqual(study.is_of_cells(binding), expected)


_CELLS = """
import os, signal, time
import tfvae.runs.experiment

def run_cell(path):
    name = path.name
    if "small" in name and not (path / "again").exists():
        (path / "again").touch()
        if name.endswith("0"):
            raise ValueError("no luck")
        print("out of memory")
        os.kill(os.getpid(), signal.SIGKILL)
    with (path / "done").open("a") as file:
        file.write("x")
    return {"test_loss": 1.0, "threads": os.environ["OMP_NUM_THREADS"]}
"""
_STUDY = """
study.factors = {
    'size': {'small': ['fit.epochs = 8'], 'large': ['fit.epochs = 9']},
}
study.repetitions = 2
study.cell = 'cells_of_test_slurm:run_cell'
study.executor = @SlurmExecutor()
SlurmExecutor.timeout_minutes = 5
SlurmExecutor.cluster = 'local'
SlurmExecutor.jobs_at_once = 2
SlurmExecutor.cpus = 3
"""


@pytest.mark.slow  # Jobs import TensorFlow; submitit waits 15 s for lost ones.
@pytest.mark.skipif(
    not _HAS_SUBMITIT, reason="needs pip install 'tfvae[slurm]'"
)
class LocalClusterTest(absltest.TestCase):
    def test_study_of_jobs_tells_failures_and_goes_on(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        (folder / "cells_of_test_slurm.py").write_text(_CELLS)
        (folder / "study.gin").write_text(_STUDY)
        self.enter_context(mock.patch.object(sys, "path", [*sys.path]))
        sys.path.insert(0, str(folder))
        self.addCleanup(sys.modules.pop, "cells_of_test_slurm", None)
        self.enter_context(mock.patch.object(report, "write"))
        run = folder / "run"

        def run_study():
            config.load([folder / "study.gin"])
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                study.study(run)
            return out.getvalue()

        with self.assertRaisesRegex(
            UnexpectedError,
            r"2 of 4 cells failed: .*ValueError: no luck.*ended without a "
            r"result \(FINISHED\): .*; see .*_0_log\.",
        ):
            run_study()
        cells = run / folders.CELLS
        error = (cells / "small-1" / folders.ERROR).read_text()
        self.assertRegex(error, r"^job \d+ ended without a result")
        self.assertLen([*cells.glob("*/done")], 2)
        self.assertStartsWith(
            run_study(), "4 cells, 2 of them already finished, 2 at a time"
        )
        for path in cells.glob("*/done"):
            self.assertEqual(path.read_text(), "x")
            result = folders.read_json(path.parent / folders.RESULT)
            self.assertEqual(result["threads"], "3")
            self.assertNotIn(
                "SlurmExecutor", (path.parent / "config.gin").read_text()
            )
        self.assertLen([*cells.glob("*/done")], 4)
        self.assertNotIn("OMP_NUM_THREADS", os.environ)


if __name__ == "__main__":
    absltest.main()
