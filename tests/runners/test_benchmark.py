# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import pathlib
import shlex
import sys

import tensorflow as tf

from tests.runners import small
from tfvae.runners.benchmark import benchmark


def _printing(*lines):
    code = f"print({chr(10).join(lines)!r})"
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"


class BenchmarkTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        small.load_bars(
            "fit.epochs = 99",
            "benchmark.num_points = 20",
            "benchmark.epochs = 2",
            "benchmark.repeats = 1",
        )

    def test_counts_all_epochs_but_the_first_of_both_programs(self):
        command = _printing(
            '{"per_second": 1}',
            "another line",
            '{"per_second": 10}',
            '{"per_second": 30}',
            '{"per_second": 20}',
        )
        result = benchmark(self.folder, compare=command)
        self.assertEqual(result["num_data"], 20)
        self.assertLen(result["tfvae"]["rounds"][0], 2)
        self.assertEqual(result["compared"]["rounds"], [[10.0, 30.0, 20.0]])
        self.assertEqual(result["compared"]["per_second"], 20.0)
        self.assertAlmostEqual(
            result["ratio"], result["tfvae"]["per_second"] / 20.0
        )
        self.assertGreater(result["tfvae"]["peak_memory_mb"], 100.0)
        # 20 points of 8 states: one byte and a float32 each.
        self.assertAlmostEqual(result["state_store_mb"], 20 * 8 * 5 / 2**20)
        written = json.loads((self.folder / "benchmark.json").read_text())
        self.assertEqual(written, result)

    def test_command_must_succeed_and_tell_its_speed(self):
        for command, message in (
            ("exit 3", "got exit code 3"),
            (_printing('{"per_second": 1}'), "at least two epochs, got 1"),
        ):
            with self.assertRaisesRegex(RuntimeError, message):
                benchmark(self.folder, compare=command, epochs=1)

    def test_numbers_must_be_positive(self):
        with self.assertRaisesRegex(ValueError, "must be at least 1, got 0"):
            benchmark(self.folder, num_points=0)


if __name__ == "__main__":
    tf.test.main()
