# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import pathlib
import sys
import time
from unittest import mock

from absl.testing import absltest, parameterized

from tfvae.sweeps import pool

_STUB = pathlib.Path(__file__).with_name("stub_worker.py")


class PoolTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)

    def _run(self, names, num_workers=2, **behaviour):
        (self.folder / "behaviour.json").write_text(json.dumps(behaviour))
        jobs = [pool.Job(name, self.folder / name) for name in names]
        for job in jobs:
            job.path.mkdir(exist_ok=True)
        command = [sys.executable, str(_STUB), str(self.folder)]
        log = self.folder / "log.txt"
        return pool.run(jobs, command, num_workers, log, jobs_per_process=9)

    def _processes(self, names):
        return [
            int(pid)
            for name in names
            for pid in (self.folder / name / "done").read_text().split()
        ]

    @parameterized.parameters(1, 2, 5)
    def test_every_job_is_done_once_by_processes_that_stay(self, num_workers):
        names = [f"job{i}" for i in range(8)]
        outcomes = [*self._run(names, num_workers)]
        self.assertCountEqual([one.job.name for one in outcomes], names)
        self.assertEqual({one.error for one in outcomes}, {None})
        processes = self._processes(names)
        self.assertLen(processes, 8)
        self.assertLessEqual(len(set(processes)), num_workers)

    def test_process_gives_way_to_another_before_it_grows(self):
        names = [f"job{i:02d}" for i in range(20)]
        outcomes = [*self._run(names, 1)]
        self.assertEqual([one.job.name for one in outcomes], names)
        processes = self._processes(names)
        counts = [processes.count(one) for one in dict.fromkeys(processes)]
        self.assertEqual(counts, [9, 9, 2])

    def test_nothing_to_do_starts_nothing(self):
        self.assertEmpty([*self._run([])])

    def test_failure_is_reported_and_its_process_goes_on(self):
        outcomes = [*self._run(["a", "b", "c"], 1, b="fail")]
        self.assertEqual(
            [(one.job.name, one.error) for one in outcomes],
            [("a", None), ("b", "ValueError: no luck"), ("c", None)],
        )
        self.assertLen(set(self._processes(["a", "c"])), 1)

    @parameterized.parameters(
        ("die", "its process was killed, probably because memory ran out"),
        ("exit", "its process ended with exit code 3"),
    )
    def test_death_of_a_process_loses_one_job_only(self, how, message):
        names = ["a", "b", "c", "d"]
        outcomes = {
            one.job.name: one for one in self._run(names, 1, b=how, d=how)
        }
        self.assertCountEqual(outcomes, names)
        for name in ("b", "d"):
            self.assertTrue(outcomes[name].is_lost)
            self.assertRegex(outcomes[name].error, message)
        for name in ("a", "c"):
            self.assertIsNone(outcomes[name].error)
        self.assertLen(set(self._processes(["a", "c"])), 2)

    def test_process_that_can_not_start_ends_the_study(self):
        with self.assertRaisesRegex(
            RuntimeError, "ended with exit code 1: no such module"
        ):
            [*self._run(["a"], start="fail")]

    @mock.patch.object(pool, "_GRACE_SECONDS", 1.0)
    def test_processes_end_with_the_iterator(self):
        outcomes = self._run(["a", "b", "c"], 2, b="wait")
        next(outcomes)
        started = time.perf_counter()
        outcomes.close()
        self.assertLess(time.perf_counter() - started, 30.0)
        (process,) = set(self._processes(["a"]))
        with self.assertRaises(ProcessLookupError):
            os.kill(process, 0)


if __name__ == "__main__":
    absltest.main()
