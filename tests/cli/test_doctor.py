# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import pathlib
import subprocess
import sys
from unittest import mock

import pytest
from absl.testing import absltest, parameterized

from tfvae.cli import doctor
from tfvae.runs import self_test

ROOT = pathlib.Path(__file__).parents[2]
_METADATA = {
    "Provides-Extra": ["far", "test"],
    "Requires-Dist": [
        "absl-py>=2",
        "far-away>=1,<2; extra == 'far'",
        "also-here>=1; extra == 'far'",
        "pytest>=8; extra == 'test'",
    ],
}
_GOOD = {"step": "train", "seconds": 1.0, "detail": "bound", "error": None}


def _version(name, installed):
    if name not in installed:
        raise importlib.metadata.PackageNotFoundError(name)
    return installed[name]


class DoctorTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.log = pathlib.Path(self.create_tempdir().full_path) / "log"

    def _install(self, errors=(), **installed):
        """Simulates packages, and those of them that cannot be imported."""
        installed = {
            name.replace("_", "-"): version
            for name, version in installed.items()
        }
        found = mock.Mock(get_all=_METADATA.get)
        for target, value in (
            ("importlib.metadata.metadata", lambda name: found),
            (
                "importlib.metadata.version",
                lambda name: _version(name, installed),
            ),
            ("tfvae.cli.doctor.import_error", dict(errors).get),
        ):
            self.enter_context(mock.patch(target, value))

    def _main(self, *argv, steps=(_GOOD,)):
        out = io.StringIO()
        steps = [
            {**one, "state": "broken" if one["error"] else "ok"}
            for one in steps
        ]
        with (
            contextlib.redirect_stdout(out),
            mock.patch("tfvae.cli.doctor.self_test", lambda: iter(steps)),
        ):
            code = doctor.main(argv)
        return code, out.getvalue()

    def test_absent_extra_comes_with_the_command_that_adds_it(self):
        self._install(absl_py="2.1", pytest="9.0")
        code, out = self._main()
        self.assertEqual(code, 0)
        self.assertRegex(out, r'\n  far +absent +pip install "tfvae\[far\]"\n')
        self.assertRegex(out, r"\n  test +ok +pytest 9.0\n")
        self.assertRegex(out, r"\n  absl-py +ok +2.1\n")
        self.assertEndsWith(out, "all that is installed works\n")

    def test_extra_of_which_a_part_is_missing_is_absent(self):
        self._install(absl_py="2.1", pytest="9.0", far_away="1.5")
        found = doctor.examine_extra("far")
        self.assertEqual(found["state"], "absent")
        self.assertEqual(found["packages"][0]["version"], "1.5")

    def test_package_that_cannot_be_imported_is_broken(self):
        self._install(
            {"far_away": "ImportError: no libfar"},
            **{"absl_py": "2.1", "far_away": "1.5", "also_here": "1"},
        )
        code, out = self._main()
        self.assertEqual(code, 1)
        self.assertRegex(out, "far +broken .*far-away: ImportError: no libfar")
        self.assertEndsWith(out, "not all works\n")

    def test_version_out_of_range_is_untested_and_no_failure(self):
        self._install(absl_py="2.1", far_away="2.5", also_here="1")
        code, out = self._main()
        self.assertEqual(code, 0)
        self.assertRegex(
            out, r"far +untested +far-away 2.5.*tested with <2,>=1"
        )

    def test_missing_package_that_is_needed_is_broken(self):
        self._install(pytest="9.0")
        code, out = self._main()
        self.assertEqual(code, 1)
        self.assertRegex(out, 'absl-py +broken +pip install "tfvae"')

    def test_failed_step_is_broken(self):
        self._install(absl_py="2.1")
        code, out = self._main(steps=[{**_GOOD, "error": "ValueError: x"}])
        self.assertEqual(code, 1)
        self.assertRegex(out, "train +broken +1.0 s  bound; ValueError: x")

    def test_json_has_the_whole_report(self):
        self._install(absl_py="2.1", pytest="9.0")
        code, out = self._main("--json")
        found = json.loads(out)
        self.assertEqual(code, 0)
        self.assertTrue(found["works"])
        self.assertEqual(found["extras"]["far"]["state"], "absent")
        self.assertEqual(found["self_test"], [{**_GOOD, "state": "ok"}])
        self.assertGreater(found["system"]["memory_gb"], 0.0)

    def test_import_happens_in_another_process(self):
        self.assertIsNone(doctor.import_error("this"))
        self.assertRegex(
            doctor.import_error("no_such_module"),
            "^ModuleNotFoundError: No module named 'no_such_module'$",
        )
        self.assertRegex(
            doctor.import_error("os; os.abort()"), "^ended by SIGABRT"
        )

    def test_test_that_dies_is_broken_and_says_how(self):
        program = (
            f"print({json.dumps(_GOOD)!r}, flush=True)\n"
            "print('not a step', flush=True)\n"
            "import os; os.kill(os.getpid(), 4)"
        )
        argv = [sys.executable, "-c", program]
        good, last = doctor.steps_of(argv, self.log, {})
        self.assertEqual(good, {**_GOOD, "state": "ok"})
        self.assertEqual(last["state"], "broken")
        self.assertStartsWith(last["error"], "ended by SIGILL")

    @parameterized.parameters(
        ("mpi4py", "mpi4py.MPI"),
        ("OpenEXR", "OpenEXR"),
        ("pandas", "pandas"),
        ("Tensorflow_Serving.api", "tensorflow_serving"),
    )
    def test_module_of_a_package(self, package, module):
        self.assertEqual(doctor.module_of(package), module)

    @pytest.mark.slow
    def test_this_installation_works(self):
        ended = subprocess.run(
            [sys.executable, "tools/doctor.py", "--json"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        found = json.loads(ended.stdout)
        self.assertEqual(ended.returncode, 0, ended.stdout)
        self.assertLen(found["self_test"], 5)
        self.assertEqual(found["system"]["folder"], str(ROOT / "tfvae"))


class SelfTestTest(parameterized.TestCase):
    @parameterized.parameters([[1.0, 1.0]], [[1.0, 0.5]], [[1.0, float("nan")]])
    def test_bound_that_does_not_rise_fails(self, bounds):
        with self.assertRaisesRegex(RuntimeError, "must rise in training, got"):
            self_test.risen(bounds)

    def test_bound_that_rises_is_described(self):
        self.assertEqual(
            self_test.risen([-2, 3, 1]), "bound -2.00 -> 1.00 nats"
        )

    def test_first_failure_ends_the_steps(self):
        def fail():
            raise OSError("no disk")

        reports = []
        steps = {"one": lambda: {"detail": "d"}, "two": fail, "three": fail}
        self.assertFalse(self_test.run_steps(steps, reports.append))
        self.assertEqual([one["step"] for one in reports], ["one", "two"])
        self.assertEqual(reports[0]["error"], None)
        self.assertEqual(reports[1]["error"], "OSError: no disk")


if __name__ == "__main__":
    absltest.main()
