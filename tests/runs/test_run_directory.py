# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import fcntl
import json
import pathlib
import subprocess
import sys
from unittest import mock

from absl.testing import absltest, parameterized

from tfvae.runs import config, experiment  # noqa: F401 (registers `fit`)
from tfvae.runs.kinds import Kind
from tfvae.runs.run_directory import (
    RunDirectory,
    UnexpectedError,
    versions,
)


class RunDirectoryTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.run_dir = RunDirectory(
            pathlib.Path(self.create_tempdir().full_path) / "new"
        )

    def test_lock_keeps_others_out_while_it_is_held(self):
        other = RunDirectory(self.run_dir.path)
        with self.run_dir.locked():
            with self.assertRaisesRegex(RuntimeError, "in use by another"):
                with other.locked():
                    pass
        with other.locked():
            self.assertTrue(self.run_dir.path.is_dir())

    def test_lock_of_a_process_that_was_killed_is_free_and_its_file_stays(self):
        self.run_dir.path.mkdir()
        lock = self.run_dir.path / "lock"
        code = (
            "import filelock, sys\n"
            "lock = filelock.FileLock(sys.argv[1])\n"
            "lock.acquire()\n"
            "print(flush=True)\n"
            "input()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, str(lock)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            process.stdout.readline()
            with self.assertRaisesRegex(RuntimeError, "in use by another"):
                with self.run_dir.locked():
                    pass
            process.kill()
        with self.run_dir.locked():
            # A lock of the version before this library is respected.
            with lock.open("a") as file, self.assertRaises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.assertTrue(lock.exists())

    def _start(self, *params):
        config.load([], list(params))
        self.run_dir.checkpoints.mkdir(parents=True, exist_ok=True)
        (self.run_dir.checkpoints / "checkpoint-000001.npz").touch()
        self.run_dir.write_config()

    def test_same_configuration_and_more_epochs_may_go_on(self):
        self._start("fit.epochs = 3", "fit.batch_size = 8")
        self.run_dir.check_config()
        config.load([], ["fit.epochs = 9", "fit.batch_size = 8"])
        self.run_dir.check_config()

    def test_other_configuration_is_refused_with_both_values(self):
        self._start("fit.batch_size = 8")
        config.load([], ["fit.batch_size = 9", "experiment.seed = 1"])
        with self.assertRaisesRegex(
            ValueError,
            "experiment.seed was not set, is now 1; "
            "fit.batch_size was 8, is now 9.*Only `fit.epochs` may be raised",
        ):
            self.run_dir.check_config()

    def test_folder_without_checkpoints_takes_any_configuration(self):
        self._start("fit.batch_size = 8")
        (self.run_dir.checkpoints / "checkpoint-000001.npz").unlink()
        config.load([], ["fit.batch_size = 9"])
        self.run_dir.check_config()

    def test_empty_configuration_is_none(self):
        self.assertIsNone(self.run_dir.read_config())
        self._start("fit.batch_size = 8")
        self.assertIn("fit.batch_size = 8", self.run_dir.read_config())
        self.run_dir.config.write_text("\n")
        self.assertIsNone(self.run_dir.read_config())
        self.run_dir.check_config()

    def test_file_is_on_the_disk_before_it_gets_its_name(self):
        self.run_dir.path.mkdir()
        calls = mock.Mock()
        with (
            mock.patch("os.fsync", calls.fsync),
            mock.patch("os.replace", calls.replace),
        ):
            path = self.run_dir.write_json("one.json", {"a": 1})
        partial = path.with_name("one.json.partial")
        self.assertEqual(
            calls.mock_calls,
            [mock.call.fsync(mock.ANY), mock.call.replace(partial, path)],
        )
        self.assertEqual(json.loads(partial.read_text()), {"a": 1})

    def test_run_is_finished_with_the_epochs_asked_for(self):
        self._start("fit.epochs = 2")
        self.assertFalse(self.run_dir.is_finished())
        rows = [
            {"epoch": e, "bound": -e, "learning_rate": 1.0, "seconds": 2.0}
            for e in (1, 2)
        ]
        summary = self.run_dir.write_summary(rows, {"psnr": 30.0}, seed=7)
        self.assertTrue(self.run_dir.is_finished())
        self.assertEqual(self.run_dir.read_summary(), summary)
        self.assertEqual(summary["bound"], -2)
        self.assertEqual(summary["seed"], 7)
        self.assertEqual(summary["training_seconds"], 4.0)
        self.assertNotIn("learning_rate", summary)
        config.load([], ["fit.epochs = 3"])
        self.assertFalse(self.run_dir.is_finished())

    def test_training_is_locked_and_reports_whether_it_is_finished(self):
        self._start("fit.epochs = 1")
        other = RunDirectory(self.run_dir.path)
        with self.run_dir.locked_for_training() as is_finished:
            self.assertFalse(is_finished)
            with self.assertRaisesRegex(RuntimeError, "in use by another"):
                with other.locked():
                    pass
        row = {"epoch": 1, "bound": -1.0, "seconds": 2.0}
        self.run_dir.write_summary([row], {}, seed=7)
        with self.run_dir.locked_for_training() as is_finished:
            self.assertTrue(is_finished)

    def test_training_of_another_configuration_is_refused(self):
        self._start("fit.batch_size = 8")
        config.load([], ["fit.batch_size = 9"])
        with self.assertRaisesRegex(ValueError, "was 8, is now 9"):
            with self.run_dir.locked_for_training():
                self.fail("The folder is of another run.")
        with self.run_dir.locked():  # It was released.
            pass

    @parameterized.parameters(
        (Kind.TRAINING, "ledger.jsonl", "a training run.*an optimisation"),
        (Kind.TRAINING, "study.json", "a training run, got .*a study"),
        (Kind.OPTIMIZATION, "metrics.csv", "an optimisation.*a training run"),
        (Kind.OPTIMIZATION, "study.json", "an optimisation, got .*a study"),
        (Kind.STUDY, "checkpoints", "hold a study, got .*a training run"),
        (Kind.STUDY, "ledger.jsonl", "hold a study, got .*an optimisation"),
    )
    def test_run_of_another_kind_is_refused_and_kept(self, kind, name, message):
        self.run_dir.path.mkdir()
        (self.run_dir.path / name).touch()
        with self.assertRaisesRegex(ValueError, rf"{message} \({name}\)"):
            with self.run_dir.locked(kind):
                self.fail("The folder is of another kind.")
        with self.run_dir.locked():  # It was released; anything may read it.
            pass

    def test_training_does_not_replace_the_configuration_of_others(self):
        self._start("fit.batch_size = 8")
        (self.run_dir.checkpoints / "checkpoint-000001.npz").unlink()
        self.run_dir.checkpoints.rmdir()
        (self.run_dir.path / "ledger.jsonl").touch()
        with self.assertRaisesRegex(ValueError, "holds an optimisation"):
            with self.run_dir.locked_for_training():
                self.fail("The folder has an optimisation.")

    def test_run_of_the_same_kind_may_go_on(self):
        self._start("fit.epochs = 3")
        with self.run_dir.locked(Kind.TRAINING):
            pass

    def test_broken_summary_is_no_summary(self):
        self._start("fit.epochs = 2")
        self.run_dir.summary.write_text("{")
        self.assertIsNone(self.run_dir.read_summary())

    def test_json_is_readable_and_leaves_no_partial_file(self):
        self._start()
        path = self.run_dir.write_json("a.json", {"b": 1.5})
        self.assertEqual(json.loads(path.read_text()), {"b": 1.5})
        self.assertEmpty(list(self.run_dir.path.glob("*.partial")))

    def test_our_errors_are_logged_with_a_traceback(self):
        self._start()
        with self.assertRaisesRegex(UnexpectedError, "KeyError: 'lost'.*error"):
            with self.run_dir.our_errors():
                raise KeyError("lost")
        log = (self.run_dir.path / "error.log").read_text()
        self.assertIn("Traceback", log)
        self.assertIn("test_run_directory.py", log)

    def test_errors_of_the_system_pass(self):
        with self.assertRaisesRegex(OSError, "disk"):
            with self.run_dir.our_errors():
                raise OSError("disk")

    def test_versions_know_the_packages_that_matter(self):
        self.assertEqual(versions()["tensorflow"][:2], "2.")


if __name__ == "__main__":
    absltest.main()
