# SPDX-License-Identifier: Apache-2.0
"""The benchmark of training beyond the memory measures and cleans up."""

from __future__ import annotations

import contextlib
import io
import os

import pytest
from absl.testing import absltest, parameterized

from benchmarks import beyond_memory


class BeyondMemoryTest(parameterized.TestCase):
    @parameterized.parameters(
        (["--case=states", "--gigabytes=0.002"], r"disk +3,8\d\d"),
        (["--case=data", "--rows=3000,5000"], "5,000 "),
        (["--case=weights", "--rows=3000"], "3,000 +one level"),
    )
    @pytest.mark.slow  # It trains.
    def test_case_prints_a_row_and_leaves_no_files(self, argv, row):
        folder = self.create_tempdir().full_path
        small = ["--batch_size=500", "--points=1000", f"--folder={folder}"]
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            beyond_memory.main([*argv, *small])
        self.assertRegex(out.getvalue(), row)
        self.assertEmpty(os.listdir(folder))

    @parameterized.parameters(
        ["--case=states", "--gigabytes=1e9"],
        ["--case=data", "--rows=100000000000000"],
    )
    def test_disk_that_is_too_small_is_refused(self, *argv):
        folder = self.create_tempdir().full_path
        with self.assertRaisesRegex(OSError, "not enough disk space"):
            beyond_memory.main([*argv, f"--folder={folder}"])
        self.assertEmpty(os.listdir(folder))


if __name__ == "__main__":
    absltest.main()
