# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pathlib
import shlex
import sys

import tensorflow as tf
from absl.testing import parameterized

from benchmarks import programs

_TWO_LINES = ('{"per_second": 1}', '{"per_second": 2}')


def _python(name, code, **kwargs):
    return programs.Program(name, [sys.executable, "-c", code], **kwargs)


def _printing(*lines):
    return f"print({chr(10).join(lines)!r})"


class ParseTest(tf.test.TestCase, parameterized.TestCase):
    def test_command_is_what_follows_the_first_sign(self):
        (program,) = programs.parse(["other=SEED=3 run --epochs=4 | tee log"])
        self.assertEqual(program.name, "other")
        self.assertEqual(program.argv[-1], "SEED=3 run --epochs=4 | tee log")
        self.assertFalse(program.is_optional)

    @parameterized.parameters("", "other", "other=", "=run", "run --epochs=4")
    def test_other_forms_are_refused(self, text):
        with self.assertRaisesRegex(ValueError, "must be name=command.*got"):
            programs.parse([text])


class RunTest(tf.test.TestCase, parameterized.TestCase):
    def test_reads_the_epochs_and_nothing_else(self):
        output = programs.run(
            _python(
                "other",
                _printing(
                    "a line, [1], 3, null",
                    "[1]",
                    "3",
                    '{"per_second": "fast"}',
                    '{"per_second": 0}',
                    '{"epoch": 0, "per_second": 5, "free_energy": -2.5}',
                    '{"per_second": 6, "bound": -1.5, "seconds": 2}',
                    '{"per_second": 7, "bound": NaN}',
                    '{"facts": {"data": "bars"}}',
                ),
            )
        )
        self.assertEqual(
            output.epochs,
            [
                {"epoch": 0.0, "per_second": 5.0, "bound": -2.5},
                {"per_second": 6.0, "bound": -1.5, "seconds": 2.0},
                {"per_second": 7.0},
            ],
        )
        self.assertEqual(output.facts, {"data": "bars"})

    def test_memory_is_that_of_the_program_alone(self):
        # This process has TensorFlow, hundreds of MB of it.
        for size_mb in (0, 200):
            output = programs.run(
                _python(
                    "other",
                    f"x = b'1' * {size_mb * 2**20};{_printing(*_TWO_LINES)}",
                )
            )
            self.assertBetween(output.peak_memory_mb - size_mb, 5.0, 60.0)

    @parameterized.parameters(
        ("import sys; sys.exit(3)", "`other` .*got exit code 3: no message"),
        ("raise SystemExit('error: no data')", "got exit code 1: no data"),
        ("import os; os.abort()", "got exit code -6"),
        (_printing('{"per_second": 1}'), "at least 2 epochs, got 1"),
        ("", '"per_second" for each of at least 2 epochs, got 0'),
    )
    def test_failure_is_reported(self, code, message):
        with self.assertRaisesRegex(RuntimeError, message):
            programs.run(_python("other", code))

    def test_program_that_is_not_there_is_reported(self):
        program = programs.Program("other", ["/nowhere/run"])
        with self.assertRaisesRegex(
            RuntimeError, "executable program.*/nowhere/run"
        ):
            programs.run(program)


class AlternateTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.log = pathlib.Path(self.create_tempdir().full_path) / "log"

    def _logging(self, name, code, **kwargs):
        write = f"open({str(self.log)!r}, 'a').write({name!r});"
        return _python(name, write + code, **kwargs)

    def test_programs_take_turns(self):
        each = [self._logging(name, _printing(*_TWO_LINES)) for name in "abc"]
        outputs, left_out = programs.alternate(each, 3)
        self.assertEqual(self.log.read_text(), "abcabcabc")
        self.assertEqual([*outputs], ["a", "b", "c"])
        self.assertEqual([len(one) for one in outputs.values()], [3, 3, 3])
        self.assertEmpty(left_out)

    def test_optional_program_is_left_out_once_it_fails(self):
        good = self._logging("a", _printing(*_TWO_LINES))
        bad = self._logging("b", "raise SystemExit('why')", is_optional=True)
        outputs, left_out = programs.alternate([bad, good], 2)
        self.assertEqual(self.log.read_text(), "baa")
        self.assertEqual([*outputs], ["a"])
        self.assertRegex(left_out["b"], "exit code 1: why")
        with self.assertRaisesRegex(RuntimeError, "why"):
            programs.alternate([bad._replace(is_optional=False)], 2)


class ShellTest(tf.test.TestCase):
    def test_flag_runs_in_a_shell(self):
        code = shlex.quote(_printing(*_TWO_LINES))
        command = f"x=1; {shlex.quote(sys.executable)} -c {code} | cat"
        (program,) = programs.parse([f"other={command}"])
        self.assertLen(programs.run(program).epochs, 2)


if __name__ == "__main__":
    tf.test.main()
