# SPDX-License-Identifier: Apache-2.0
"""Type checkers see the signatures of what programs import from tfvae."""

from __future__ import annotations

import importlib.util
import pathlib
import subprocess
import sys

import pytest
from absl.testing import absltest

ROOT = pathlib.Path(__file__).parents[1]
_PROGRAM = """
import tfvae
from tfvae import data, lso

observations = data.sklearn_digits(size=(16, 16))
tfvae.random_features(8, 2, nonsense=1)
tfvae.corrupted_image("house.png", noise_std="loud")
lso.shapes().nothing
observations.nothing
"""
_MISTAKES = [
    (6, 'Unexpected keyword argument "nonsense" for "random_features"'),
    (7, 'Argument "noise_std" to "corrupted_image" has incompatible type'),
    (8, '"Task" has no attribute "nothing"'),
    (9, '"Observations" has no attribute "nothing"'),
]


class TypingTest(absltest.TestCase):
    @pytest.mark.slow
    def test_mypy_finds_the_mistakes_of_a_program(self):
        if importlib.util.find_spec("mypy") is None:
            self.skipTest("mypy is not installed.")
        program = pathlib.Path(self.create_tempdir().full_path) / "program.py"
        program.write_text(_PROGRAM)
        ended = subprocess.run(
            [sys.executable, "-m", "mypy", program]
            + [f"--cache-dir={program.parent / 'cache'}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        errors = [
            line.partition(".py:")[2]
            for line in ended.stdout.splitlines()
            if ": error: " in line
        ]
        self.assertLen(errors, len(_MISTAKES), ended.stdout + ended.stderr)
        for error, (line, message) in zip(errors, _MISTAKES, strict=True):
            self.assertStartsWith(error, f"{line}: error: {message}")


if __name__ == "__main__":
    absltest.main()
