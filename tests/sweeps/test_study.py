# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import textwrap
import time
from unittest import mock

import pytest
import tensorflow as tf
from absl.testing import parameterized

import tfvae.runs.experiment  # noqa: F401 (the configurations name it)
from tests import installed
from tfvae import processes
from tfvae.runs import config
from tfvae.runs.run_directory import UnexpectedError
from tfvae.sweeps import (
    folders,
    report,
    study,
    worker,
)

_STUB = pathlib.Path(__file__).with_name("stub_worker.py")
_STUDY = """
fit.epochs = 3
fit.optimizer = @cyclical_adam
cyclical_adam.min_learning_rate = 0.5
study.factors = {
    'size': {'small': ['fit.batch_size = 8'], 'large': ['%s']},
    'rate': {
        'low': ['cyclical_adam.max_learning_rate = 0.1'],
        'high': ['cyclical_adam.max_learning_rate = 0.2'],
    },
}
study.repetitions = 2
"""


class StudyTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        self.run = self.folder / "run"
        (self.folder / "large.gin").write_text("fit.batch_size = 64\n")
        (self.folder / "study.gin").write_text(
            _STUDY % (self.folder / "large.gin")
        )
        command = [sys.executable, str(_STUB), str(self.folder)]
        self.enter_context(mock.patch.object(study, "_WORKER", command))
        self.enter_context(mock.patch.object(report, "write"))

    def _study(self, *params, overrides=(), **behaviour):
        """Runs the study; returns what it printed."""
        (self.folder / "behaviour.json").write_text(json.dumps(behaviour))
        out = io.StringIO()
        config.load([self.folder / "study.gin"], ["study.workers = 2", *params])
        with contextlib.redirect_stdout(out):
            study.study(self.run, overrides)
        return out.getvalue()

    def _counts(self):
        """Returns how often each cell was trained."""
        return {
            path.parent.name: len(path.read_text().split())
            for path in self.run.glob("cells/*/done")
        }

    def test_cell_has_the_configuration_of_its_levels_and_seed(self):
        self._study("study.seed = 5", overrides=["fit.observe_every = 9"])
        text = (self.run / "cells/large-high-1/config.gin").read_text()
        self.assertEqual(
            config.bindings(text),
            {
                "cyclical_adam.max_learning_rate": "0.2",
                "cyclical_adam.min_learning_rate": "0.5",
                "experiment.seed": "6",
                "fit.batch_size": "64",
                "fit.epochs": "3",
                "fit.observe_every": "9",
                "fit.optimizer": "@cyclical_adam",
            },
        )

    def test_progress_reports_the_time_that_is_left(self):
        lines = self._study().splitlines()
        self.assertEqual(
            lines[0], "8 cells, 0 of them already finished, 2 at a time"
        )
        for line in lines[1:-1]:
            self.assertRegex(line, r"^\d/8  [a-z-]+\d  0\.\d s; \d+ s left$")
        self.assertRegex(lines[-1], r"^8/8  [a-z-]+\d  0\.\d s$")

    def test_finished_cells_are_never_trained_again(self):
        self._study()
        self._study("study.repetitions = 3")
        self.assertLen(self._counts(), 12)
        self.assertEqual(set(self._counts().values()), {1})

    def test_result_that_was_not_wholly_written_does_not_count(self):
        self._study()
        (self.run / "cells/small-low-0/result.json").write_text('{"test_')
        self._study()
        self.assertEqual(self._counts().pop("small-low-0"), 2)
        self.assertEqual(sum(self._counts().values()), 9)

    def test_failures_are_recorded_and_tried_again(self):
        with self.assertRaisesRegex(
            UnexpectedError, "2 of 8 cells failed: .*repeat the command"
        ):
            self._study(**{"small-low-0": "fail", "large-low-1": "die"})
        self.assertLen(self._counts(), 6)
        error = self.run / "cells/large-low-1/error.txt"
        self.assertIn("was killed", error.read_text())
        report.write.assert_called_once()
        self._study()
        self.assertEqual(set(self._counts().values()), {1})
        self.assertLen(self._counts(), 8)

    @parameterized.parameters(
        ("fit.batch_size = 3", "fit.batch_size was 8, is now 3"),
        ("fit.epochs = 4", "fit.epochs was 3, is now 4"),
        ("fit.observe_every = 4", "fit.observe_every was not set, is now 4"),
    )
    def test_folder_of_another_configuration_is_refused(
        self, override, message
    ):
        self._study(
            "study.factors = {'size': {'small': ['fit.batch_size = 8']}}"
        )
        factors = {"size": {"small": ["fit.batch_size = 8", override]}}
        with self.assertRaisesRegex(ValueError, f"cell small-0: {message}"):
            self._study(f"study.factors = {factors}")
        self.assertEqual(set(self._counts().values()), {1})

    def test_cells_that_are_the_same_are_refused(self):
        with self.assertRaisesRegex(
            ValueError, "same for small-low-0 and large-low-0"
        ):
            self._study(overrides=["fit.batch_size = 2"])
        with self.assertRaisesRegex(ValueError, "small-low-0 and small-low-1"):
            self._study("study.seed_bindings = ['experiment.seed = 3']")
        self.assertEmpty(self._counts())

    @parameterized.parameters(
        (["TVAE.num_states = 8"], "nothing in this run refers to `@TVAE`"),
        (["fit.parts = 8"], "the run passes one of its own"),
    )
    def test_override_that_no_cell_uses_is_refused(self, overrides, why):
        model = "experiment.model = @vae"
        with self.assertRaisesRegex(
            ValueError, f"` has no effect in any cell: {why}"
        ):
            self._study(model, overrides=overrides)
        self.assertEmpty(self._counts())

    def test_binding_that_some_cell_uses_is_accepted(self):
        factors = {
            "model": {
                "a": ["experiment.model = @TVAE"],
                "b": ["experiment.model = @vae"],
            }
        }
        lines = self._study(
            f"study.factors = {factors}",
            "study.repetitions = 1",
            "TVAE.num_latents = 3",
            "RealNVPPrior.num_flows = 7",
            overrides=["TVAE.num_states = 8"],
        ).splitlines()
        self.assertStartsWith(lines[-1], "not used by this run: RealNVPPrior.")
        self.assertNotIn("TVAE", lines[-1])

    def test_wrong_binding_is_reported_before_anything_is_trained(self):
        factors = {"a": {"b": ["fit.batch_size = 8"], "c": ["fit.no = 1"]}}
        with self.assertRaisesRegex(
            ValueError, "`no` is no parameter of `fit`, which has epochs"
        ):
            self._study(f"study.factors = {factors}")
        self.assertEmpty(self._counts())

    def test_smoke_trains_one_small_repetition(self):
        self._study("study.smoke = True")
        self.assertLen(self._counts(), 4)
        text = (self.run / "cells/large-high-0/config.gin").read_text()
        self.assertEqual(config.bindings(text)["fit.epochs"], "1")

    def test_what_runs_cells_and_reports_may_be_given(self):
        (self.folder / "stub_report.py").write_text(
            "def write(run_dir):\n    (run_dir / 'done').write_text('all')\n"
        )
        self.enter_context(mock.patch.object(sys, "path", [str(self.folder)]))
        run = self.enter_context(
            mock.patch.object(study.pool, "run", wraps=study.pool.run)
        )
        self._study(
            "study.report = 'stub_report:write'",
            "study.cell = 'os:getcwd'",
        )
        self.assertEqual(run.call_args[0][1][-1], "os:getcwd")
        self.assertEqual((self.run / "done").read_text(), "all")
        report.write.assert_not_called()
        (self.run / "done").unlink()
        study.write_report(self.run)
        self.assertEqual((self.run / "done").read_text(), "all")

    def test_study_from_before_reports_could_be_given_has_the_first(self):
        self._study()
        path = self.run / folders.STUDY
        content = folders.read_json(path)
        del content["report"]
        folders.write_json(path, content)
        report.write.reset_mock()
        study.write_report(self.run)
        report.write.assert_called_once_with(self.run)

    @parameterized.parameters(
        {"report": "tfvae.runners.studies.report:write"},
        {"layout": {"factors": {}, "published": "some"}},
    )
    def test_study_of_an_earlier_version_says_what_to_do_and_goes_on(
        self, **old
    ):
        self.enter_context(
            mock.patch.dict(sys.modules, {"tfvae.runners": None})
        )
        self._study()
        path = self.run / folders.STUDY
        folders.write_json(path, {**folders.read_json(path), **old})
        report.write.reset_mock()
        with self.assertRaisesRegex(
            ValueError,
            f"study.json of this version, got {self.run}: .*run the study again"
            " with its gin file and without --report_only",
        ):
            study.write_report(self.run)
        report.write.assert_not_called()
        self._study()
        study.write_report(self.run)
        self.assertEqual(report.write.call_count, 2)
        self.assertEqual(set(self._counts().values()), {1})

    @pytest.mark.slow  # A process.
    def test_missing_package_is_reported_before_anything_is_trained(self):
        # A process that has not imported them; in the order that they fail in.
        script = textwrap.dedent(
            """
            import sys

            class Hidden:
                name = "pandas"  # Keras imports it, if it is there.
                def find_spec(self, name, *_):
                    if name == self.name:
                        raise ModuleNotFoundError(name, name=name)

            hidden = Hidden()
            sys.meta_path.insert(0, hidden)
            from tfvae.runs import config
            from tfvae.sweeps import study
            report = "papers.random_encoders.report:mnist"
            config.load(sys.argv[1:2], [f"study.report = {report!r}"])
            for hidden.name in ("pandas", "statsmodels", "tabulate"):
                try:
                    study.study(sys.argv[2])
                except ImportError as err:
                    print(str(err).splitlines()[0])
            """
        )
        ended = subprocess.run(
            [
                *(sys.executable, "-c", script),
                *(str(self.folder / "study.gin"), str(self.run)),
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        how = "must be installed for reports of studies: pip install"
        self.assertEqual(
            ended.stdout.splitlines(),
            [
                f"`{name}` {how} 'tfvae[studies]'"
                for name in ("pandas", "statsmodels", "tabulate")
            ],
            ended.stderr,
        )
        self.assertFalse(self.run.exists())

    def test_report_of_a_paper_needs_a_clone(self):
        installed.hide_clone(self)
        reporter = "papers.random_encoders.report:mnist"
        with self.assertRaisesRegex(
            ImportError, "`papers` is not part of the installed package"
        ):
            self._study(f"study.report = '{reporter}'")
        self.assertFalse(self.run.exists())

    def test_processes_import_from_where_the_study_does(self):
        self.enter_context(
            mock.patch.object(sys, "path", [*sys.path, "", str(self.folder)])
        )
        run = self.enter_context(
            mock.patch.object(study.pool, "run", wraps=study.pool.run)
        )
        self._study()
        found = run.call_args[0][4]["PYTHONPATH"].split(os.pathsep)
        self.assertEqual(found[-2:], [os.getcwd(), str(self.folder)])
        self.assertTrue(all(map(os.path.isabs, found)))

    def test_folder_of_a_run_that_is_no_study_is_refused(self):
        self.run.mkdir()
        (self.run / "ledger.jsonl").touch()
        with self.assertRaisesRegex(ValueError, "which holds an optimisation"):
            self._study()
        self.assertFalse((self.run / folders.BASE).exists())

    def test_report_of_no_study_is_refused(self):
        with self.assertRaisesRegex(FileNotFoundError, "folder of a study"):
            study.write_report(self.folder)

    def test_interrupt_leaves_what_is_finished(self):
        update = mock.patch.object(
            study._Progress, "update", side_effect=[None, KeyboardInterrupt]
        )
        with update, self.assertRaises(KeyboardInterrupt):
            self._study()
        self.assertLess(len(self._counts()), 8)
        self._study()
        self.assertEqual(set(self._counts().values()), {1})
        self.assertLen(self._counts(), 8)

    def test_interrupt_lets_results_be_written_that_have_been_computed(self):
        def interrupt(_):
            # The one that has given its result has begun another cell.
            if len(self._counts()) > 2:
                raise KeyboardInterrupt
            time.sleep(0.3)

        names = [
            f"{size}-{rate}-{seed}"
            for size in ("small", "large")
            for rate in ("low", "high")
            for seed in (0, 1)
        ]
        update = mock.patch.object(
            study._Progress, "update", side_effect=interrupt
        )
        with update, self.assertRaises(KeyboardInterrupt):
            self._study(**dict.fromkeys(names, "write slowly"))
        self.assertLess(len(self._counts()), 8)
        self._study()
        self.assertEqual(self._counts(), dict.fromkeys(names, 1))

    def test_cell_whose_process_dies_after_the_result_is_finished(self):
        self._study(**{"small-low-0": "die late"})
        cell = self.run / "cells/small-low-0"
        self.assertTrue((cell / folders.RESULT).exists())
        self.assertFalse((cell / folders.ERROR).exists())
        report.write.assert_called_once()

    @parameterized.parameters(
        ("study.workers = 0", "`study.workers` must be an integer.*got 0"),
        ("study.columns = 'a'", "among size, rate, got 'a'"),
        ("study.separate = ['size', 'rate']", "must leave a factor"),
        ("study.cell = 'os:no_such'", "`study.cell` must be the name of a f"),
        ("study.cell = ''", "`study.cell` must .* got ''"),
        ("study.report = 'no.such:write'", "`study.report` must be the name"),
    )
    def test_wrong_settings_are_refused(self, param, message):
        with self.assertRaisesRegex(ValueError, message):
            self._study(param)

    @parameterized.parameters(
        (
            "study.cell = 'tfvae.runners.optimization_cell:run_cell'",
            "such as 'tfvae.sweeps.training_cell:run_cell' or .*moved in 0.2.0:"
            " it is now 'tfvae.runs.optimize:optimize'",
        ),
        (
            "study.cell = 'tfvae.runners.cell:run_cell'",
            "it is now 'tfvae.sweeps.training_cell:run_cell'",
        ),
        (
            "study.report = 'tfvae.runners.studies.report:write'",
            "such as 'tfvae.sweeps.report:write' or .*"
            "it is now 'tfvae.sweeps.report:write'; gin/papers/ names",
        ),
        (
            "study.report = 'tfvae.runners.studies.optimization_report:write'",
            "it is now 'tfvae.sweeps.optimization_report:write'; gin/papers/",
        ),
    )
    def test_names_of_an_earlier_version_say_what_they_are_now(
        self, param, message
    ):
        self.enter_context(
            mock.patch.dict(sys.modules, {"tfvae.runners": None})
        )
        with self.assertRaisesRegex(ValueError, message):
            self._study(param)


class WorkerTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        (self.folder / folders.CONFIG).write_text("fit.epochs = 3\n")

    def test_result_is_what_the_cell_returns(self):
        def run_cell(folder):
            (folder / "checkpoints").mkdir()
            os.write(1, b"training")
            return {"epochs": config.value("fit.epochs")}

        (self.folder / folders.ERROR).write_text("of an attempt before")
        self.assertIsNone(worker.answer(run_cell, self.folder))
        result = json.loads((self.folder / folders.RESULT).read_text())
        self.assertGreaterEqual(result.pop("cell_seconds"), 0.0)
        self.assertEqual(result, {"epochs": 3})
        left = {path.name for path in self.folder.iterdir()}
        self.assertEqual(left, {folders.CONFIG, folders.LOG, folders.RESULT})
        self.assertIn("training", (self.folder / folders.LOG).read_text())

    def test_failure_leaves_its_traceback_and_no_result(self):
        def run_cell(folder):
            raise ValueError("no luck\nat all")

        message = worker.answer(run_cell, self.folder)
        self.assertEqual(message, "ValueError: no luck")
        self.assertFalse((self.folder / folders.RESULT).exists())
        text = (self.folder / folders.ERROR).read_text()
        self.assertStartsWith(text, "Traceback")
        self.assertIn("at all", text)

    def test_result_of_a_trained_cell_is_written_though_the_study_ends(self):
        (self.folder / "cell_that_ends.py").write_text(
            "import time\n"
            "import tfvae.runs.experiment\n"
            "from tfvae.sweeps import folders\n"
            "write = folders.write_json\n"
            "def write_slowly(path, content):\n"
            "    (path.parent / 'begun').touch()\n"
            "    time.sleep(1.0)\n"
            "    write(path, content)\n"
            "folders.write_json = write_slowly\n"
            "def run_cell(path):\n"
            "    return {'test_loss': 1.0}\n"
        )
        root = pathlib.Path(__file__).parents[2]
        with processes.Process(
            [sys.executable, "-m", worker.__name__, "cell_that_ends:run_cell"],
            log=self.folder / "log",
            environment={"PYTHONPATH": f"{root}:{self.folder}"},
        ) as process:
            self.assertEqual(process.receive(), {"ready": True})
            process.send({"name": "a", "path": str(self.folder)})
            while not (self.folder / "begun").exists():
                time.sleep(0.01)
            self.assertFalse((self.folder / folders.RESULT).exists())
            self.assertEqual(process.end(60.0).code, 0)
        result = folders.read_json(self.folder / folders.RESULT)
        self.assertEqual(result["test_loss"], 1.0)

    @pytest.mark.slow
    def test_process_goes_away_with_the_one_that_started_it(self):
        # `time.sleep` stands for a training that takes an hour.
        (self.folder / "slow_cell.py").write_text(
            "import time\n"
            "import tfvae.runs.experiment\n"
            "def run_cell(path):\n"
            "    print('chatter')\n"
            "    if path.name == 'slow':\n"
            "        time.sleep(3600)\n"
            "    return {'test_loss': 1.0}\n"
        )
        slow = self.folder / "slow"
        slow.mkdir()
        (slow / folders.CONFIG).write_text("fit.epochs = 3\n")
        with subprocess.Popen(
            [sys.executable, "-m", worker.__name__, "slow_cell:run_cell"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=self.folder,
            env={"PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
        ) as process:
            lines = filter(str.strip, iter(process.stdout.readline, ""))
            self.assertEqual(next(lines), '{"ready": true}\n')
            for folder in (self.folder, slow):
                job = {"name": "a", "path": str(folder), "request": "7"}
                process.stdin.write(json.dumps(job) + "\n")
                process.stdin.flush()
                if folder is self.folder:
                    self.assertEqual(
                        json.loads(next(lines)),
                        {"error": None, "request": "7"},
                    )
            process.stdin.close()
            process.wait(60)


if __name__ == "__main__":
    tf.test.main()
