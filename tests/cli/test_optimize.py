# SPDX-License-Identifier: Apache-2.0
"""The command `tfvae optimize`: what needs no TensorFlow, and its answers."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import pathlib
import subprocess
import sys
from unittest import mock

import gin
from absl.testing import absltest, parameterized

from tests.runs import optimizations
from tfvae.cli import console
from tfvae.cli import main as cli
from tfvae.cli import optimize as command
from tfvae.lso.ledger import read_ledger
from tfvae.runs import optimization_readout
from tfvae.runs.errors import StoppedError


def _call(*argv):
    """Runs `tfvae optimize` here; returns exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        # It would silence this process for good.
        mock.patch.object(console, "only_own_warnings"),
    ):
        code = cli.main(["optimize", *argv])
    return code, out.getvalue(), err.getvalue()


class Case(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        self.run_dir = self.folder / "lab"
        self.flag = f"--run_dir={self.run_dir}"

    def write(self, scores, **kwargs):
        inputs = [f"input {i}" for i in range(len(scores))]
        optimizations.write(self.run_dir, scores, inputs, **kwargs)

    def assert_told(self, argv, message):
        code, _, err = _call(self.flag, *argv)
        self.assertEqual(code, 2, err)
        self.assertRegex(err, f"^error: .*{message}")


class LightTest(Case):
    def test_status_and_results_need_no_tensorflow(self):
        self.write([1.5, None, 2.5], pending=2, budget=9)
        program = """
import sys
from tfvae.cli import main
for argv in ({argv}):
    code = main.main(["optimize", {flag!r}, *argv])
    assert code == 0, code
heavy = {{"tensorflow", "keras", "tensorflow_probability", "rdkit"}}
loaded = heavy & set(sys.modules)
assert not loaded, loaded
"""
        argv = '["--status"], ["--tell=3=1.7", "--amend=0=1", "--withdraw=2"]'
        ended = subprocess.run(
            [
                sys.executable,
                "-c",
                program.format(argv=argv, flag=self.flag),
            ],
            capture_output=True,
            text=True,
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertIn("3 of 9 queries done, 2 pending", ended.stdout)
        self.assertEqual(
            ended.stderr.splitlines(),
            [
                "query 2: withdrawn (was 2.5), pending again  input 2",
                "query 0: 1 (was 1.5)  input 0",
                "query 3: 1.7  pending 3",
            ],
        )
        for name in ("evaluations.csv", "best.csv", "report.html"):
            self.assertTrue((self.run_dir / name).exists(), name)

    def test_status_reads_what_another_process_has_locked(self):
        self.write([1.5])
        from tfvae.lso.ledger import Ledger

        with Ledger(self.run_dir / "ledger.jsonl"):
            code, out, _ = _call(self.flag, "--status")
        self.assertEqual(code, 0)
        self.assertIn("1 of 1 queries done", out)

    def test_results_are_refused_while_another_process_has_the_run(self):
        self.write([1.5], pending=1)
        from tfvae.lso.ledger import Ledger

        with Ledger(self.run_dir / "ledger.jsonl"):
            self.assert_told(["--tell=1=1"], "in use by another process")

    @parameterized.parameters(
        ("--tell=2=1", "--tell=1=x", "NUMBER=SCORE.*got '1=x'"),
        ("--tell=2=1", "--tell=0=1", "got 0, which has its result already"),
        ("--tell=2=1", "--tell=9=1", "got 9, which has not been proposed"),
        ("--tell=2=1", "--tell=2=1", "got 2, which has its result"),
        ("--tell=2=1", "--amend=3=1", "got 3, which waits for one"),
        ("--tell=2=1", "--withdraw=3", "got 3, which waits for one"),
        ("--tell=2=1", "--withdraw=x", "number of a query.*got 'x'"),
    )
    def test_one_wrong_result_records_none(self, right, wrong, message):
        self.write([1.5, 2.5], pending=2)
        self.assert_told([right, wrong], message)
        found = read_ledger(self.run_dir / "ledger.jsonl")
        self.assertLen(found.entries, 2)

    @parameterized.parameters(
        *("1_0=1", " 1=1", "+1=1", "٣=1", "-1=1", "1.0=1", "0x1=1", "=1"),
        *("1=1_0", "1= 1", "1=1 ", "1=٣", "1=", "1=0x1", "1", "1=one", "1=1,"),
        *("1=1,a", "1=1,=2", "1=1,a=b", "1=1,a=1,a=2", "1=1,a=1_0"),
    )
    def test_what_is_no_result_is_refused(self, told):
        self.write([1.5], pending=1)
        for flag in ("tell", "amend"):
            self.assert_told(
                [f"--{flag}={told}"],
                rf"`--{flag}` must be NUMBER=SCORE.*got ",
            )

    @parameterized.parameters(
        ("1.7", "1.7", 1.7, None),
        ("-1e-3", "-0.001", -0.001, None),
        (".5,tox=-0.2", "0.5, tox=-0.2", 0.5, {"tox": -0.2}),
        ("failed,tox=2", "failed, tox=2", None, {"tox": 2.0}),
        ("failed", "failed", None, None),
        ("failed:it broke, badly", "failed: it broke, badly", None, None),
        ("nan", "failed: .*must be a finite number, got nan", None, None),
        ("inf", "failed: .*must be a finite number, got inf", None, None),
    )
    def test_result_is_recorded_and_echoed(self, told, said, score, values):
        self.write([1.5], pending=1)
        with mock.patch.object(optimization_readout, "write"):
            code, out, err = _call(self.flag, f"--tell=1={told}")
        self.assertEqual((code, out), (0, ""), err)
        self.assertRegex(err, f"^query 1: {said}  pending 1\n$")
        entry = read_ledger(self.run_dir / "ledger.jsonl").entries[1]
        self.assertEqual((entry.score, entry.constraints), (score, values))

    def test_constraint_that_may_be_misspelt_is_warned_of(self):
        self.write([1.5], pending=3)
        warning = "warning: no earlier result has the constraint 'tocs', but"
        for told, warns in (
            ("--tell=1=2,tox=1", False),
            ("--tell=2=2,tox=2", False),
            ("--tell=3=2,tocs=-1", True),
            ("--amend=3=2,tox=-1", False),
        ):
            code, _, err = _call(self.flag, told)
            self.assertEqual(code, 0)
            self.assertEqual(f"{warning} 'tox'" in err, warns, told)
        told = ["--withdraw=1", "--tell=1=1,a=0", "--amend=2=1,b=0,tox=0"]
        code, _, err = _call(self.flag, *told)
        self.assertEqual(code, 0)
        self.assertEqual(err.count("warning: no earlier result has"), 2)
        self.assertIn("constraint 'a', but 'b', 'tox'", err)

    def test_nothing_is_told_without_a_run(self):
        self.assert_told(["--tell=0=1"], "got query 0 but no run in .*--ask")
        self.assertFalse(self.run_dir.exists())
        self.assert_told(["--status"], "must be the folder of an optimisation")


class FlagsTest(Case):
    @parameterized.parameters(
        (["--ask", "2"], "`--ask` must have its number after =, .*got --ask 2"),
        (["--ask=0"], "`--ask` must be a positive integer.*got '0'"),
        (["--ask=1_0"], "`--ask` must be a positive integer.*got '1_0'"),
        (["--ask= 2"], "`--ask` must be a positive integer.*got ' 2'"),
        (["--ask="], "`--ask` must be a positive integer.*got ''"),
        (["--ask", "--target=1"], "`--target` must come without --ask"),
        (["--budget=1_0"], "--budget=1_0: it must be a decimal integer"),
        (["--repeat=0"], "--repeat=0"),
        (["--target=nan"], "`--target` must be a finite number, got nan"),
        (["--target=inf"], "`--target` must be a finite number, got inf"),
        (["--time_limit=soon"], "`--time_limit` must be seconds, .*got 'soon'"),
        (["--time_limit=1_0m"], "`--time_limit` must be seconds"),
        (["--time_limit=0"], "`--time_limit` must be seconds"),
        (["--workers=2"], "`--workers` must come with --evaluator=pool"),
        (["--status", "--ask"], "`--status` must be alone, got --ask, too"),
        (["--tell=0=1", "--budget=9"], "`--budget` must come with --ask"),
        (["--tell=0=1", "--gin_param=fit.epochs=2"], "`--gin_param` must come"),
        (["--tell=0=1", "--target=1"], "`--target` must come without --tell"),
        (["--add=no.csv", "--patience=1"], "`--patience` must come without"),
        (["--add=no.csv"], "`--add` must be an existing file, got 'no.csv'"),
        ([], "`--task` must be given for a new run.*no config.gin in .*lab"),
    )
    def test_wrong_flags_are_told(self, argv, message):
        self.assert_told(argv, message)

    def test_ray_must_be_installed(self):
        with mock.patch.object(importlib.util, "find_spec", return_value=None):
            self.assert_told(
                ["--evaluator=ray", "--task=x.py"],
                r"pip install 'tfvae\[ray\]'",
            )

    def _parsed(self, *argv):
        values = console.common_flags()
        command.define(values)
        values(["tfvae", *command.rewritten([self.flag, *argv])])
        return values

    @parameterized.parameters(("--ask", None), ("-ask", None), ("--ask=2", 2))
    def test_ask_takes_a_number_or_none(self, argument, count):
        values = self._parsed("--task=x.py", argument, "--budget=3")
        self.assertEqual(command._count(values), count)
        self.assertEqual(values.budget, 3)

    @parameterized.parameters(
        ("90", 90.0), ("1.5s", 1.5), ("90m", 5400.0), ("2h", 7200.0)
    )
    def test_time_has_units(self, text, seconds):
        values = self._parsed(f"--time_limit={text}")
        self.assertEqual(command._seconds("time_limit", values), seconds)

    def test_evaluator_is_bound(self):
        bound = command._bindings(
            self._parsed("--evaluator=pool", "--workers=3", "--timeout=2m")
        )
        self.assertEqual(
            bound,
            [
                "optimize.evaluator = @ProcessPool()",
                "ProcessPool.workers = 3",
                "ProcessPool.timeout_seconds = 120.0",
            ],
        )
        bound = command._bindings(self._parsed("--evaluator=in_process"))
        self.assertEqual(bound, ["optimize.evaluator = None"])

    def test_paths_do_not_depend_on_the_current_folder(self):
        with contextlib.chdir(self.folder):
            bound = command._bindings(self._parsed("--task=my.py"))
        path = str(pathlib.Path(self.folder).resolve() / "my.py")
        self.assertIn(os.path.basename(path), bound[0])
        self.assertTrue(os.path.isabs(bound[0].split("'")[1]))

    def test_help_has_all_flags_in_groups(self):
        code, out, _ = _call("--help")
        self.assertEqual(code, 0)
        for title, names in command.GROUPS.items():
            self.assertIn(f"\n{title}:\n", out)
            for name in names:
                self.assertEqual(out.count(f"\n  --{name}\n"), 1, name)

    def test_examples_of_help_are_right(self):
        task = self.folder / "my_task.py"
        task.touch()
        lines = (command.__doc__ or "").replace("\\\n", " ").splitlines()
        examples = [one.split() for one in lines if "  tfvae optimize" in one]
        self.assertGreater(len(examples), 6)
        for example in examples:
            values = self._parsed(*example[2:])
            self.assertTrue(values.run_dir)


class AnswersTest(absltest.TestCase):
    def test_standard_output_has_answers_and_nothing_else(self):
        program = """
import atexit, ctypes, os, subprocess, sys
from tfvae.cli import console
print("before")
answers = console.only_answers()
print("printed")
sys.__stdout__.write("own")
os.write(1, b"raw")
subprocess.run(["echo", "child"])
subprocess.run(["echo", "to descriptor"], stdout=1)
ctypes.CDLL(None).puts(b"from C")
atexit.register(print, "at exit")
print('{"query": 0}', file=answers, flush=True)
"""
        ended = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertEqual(ended.stdout, 'before\n{"query": 0}\n')
        for text in ("printed", "own", "raw", "child", "to desc", "from C"):
            self.assertIn(text, ended.stderr)
        self.assertIn("at exit", ended.stderr)


class ErrorsTest(Case):
    def _ended(self, main):
        """Returns exit code and error of a command that does `main`."""
        values = console.common_flags()
        values(["tfvae", self.flag])
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            code = console._guarded(main, values)
        return code, err.getvalue()

    def test_error_from_elsewhere_has_its_type_and_place(self):
        def main(values):
            json.loads("{")

        code, err = self._ended(main)
        self.assertEqual(code, 1)
        self.assertRegex(
            err,
            r"^error: JSONDecodeError\(.*unexpected; .*decoder.py, line \d+, in"
            rf" .*traceback is in {self.run_dir}/error.log",
        )
        log = (self.run_dir / "error.log").read_text()
        self.assertIn("Traceback", log)

    def test_end_of_a_run_is_one_line_without_what_gin_adds(self):
        @gin.configurable(module="test_optimize")
        def stopping():
            raise StoppedError("stopped: 5 in a row", 1)

        code, err = self._ended(lambda values: stopping())
        self.assertEqual((code, err), (1, "stopped: 5 in a row\n"))

    def test_error_of_ours_is_one_line(self):
        def main(values):
            read_ledger(self.run_dir / "ledger.jsonl")

        self.run_dir.mkdir()
        (self.run_dir / "ledger.jsonl").touch()
        code, err = self._ended(main)
        self.assertEqual(code, 2)
        self.assertRegex(err, "^error: .*must have a header, got an empty file")


if __name__ == "__main__":
    absltest.main()
