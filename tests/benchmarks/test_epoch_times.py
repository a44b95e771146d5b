# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import runpy
import sys
from unittest import mock

import numpy as np
import psutil
import pytest
import tensorflow as tf
from absl.testing import parameterized

from benchmarks import epoch_times, epoch_worker
from benchmarks.pinned import PinnedProcess
from tfvae.runs import config

TORCH_VAE = pathlib.Path(__file__).parents[2] / "benchmarks" / "torch_vae.py"
# Names itself in a log and takes the seconds that it was given.
_FAKE = """
import json, sys
log, *names = sys.argv[1:]
seconds = iter(range(1, 100))
print("a line", json.dumps({"facts": {}}), json.dumps([3]), sep="\\n")
print(json.dumps({"facts": {}}), flush=True)
for line in sys.stdin:
    name = names[0] if names else line.strip()
    open(log, "a").write(name + ";")
    factor = 2.0 if name == "L" else 1.0
    print(json.dumps({"seconds": factor * next(seconds)}), flush=True)
"""


def _load():
    config.load([epoch_times.GIN_FILE], epoch_times.BINDINGS)


class PinnedProcessTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.log = pathlib.Path(self.create_tempdir().full_path) / "log"

    def _started(self, code, cores):
        return PinnedProcess([sys.executable, "-c", code], cores, self.log)

    def test_has_its_processors_alone_and_ends_with_us(self):
        cores = sorted(os.sched_getaffinity(0))[:1]
        code = (
            "import json, os, time\n"
            "cores = [*os.sched_getaffinity(0)]\n"
            "facts = {'cores': cores, 'pid': os.getpid()}\n"
            "print(json.dumps(facts), flush=True)\n"
            "time.sleep(99)"
        )
        with self._started(code, cores) as process:
            facts = process.read("cores")
            self.assertTrue(psutil.pid_exists(facts["pid"]))
        self.assertEqual(facts["cores"], cores)
        self.assertFalse(psutil.pid_exists(facts["pid"]))

    def test_reports_how_long_an_epoch_took(self):
        code = "input(); print('{\"seconds\": 2.5}')"
        with self._started(code, [0]) as process:
            epoch = process.epoch("epoch")
        self.assertEqual(epoch.seconds, 2.5)
        self.assertBetween(epoch.processor_seconds, 0.0, 2.5)
        self.assertBetween(epoch.others, 0.0, 1.5)

    def test_failure_is_reported(self):
        code = "raise SystemExit('error: no room')"
        with (
            self._started(code, [0]) as process,
            self.assertRaisesRegex(RuntimeError, "^no room$"),
        ):
            process.epoch("epoch")


class EpochTimesTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        self.order = self.folder / "order"
        _load()

    def _run(self, theirs, **settings):
        fake = [sys.executable, "-c", _FAKE, str(self.order)]
        out = io.StringIO()
        with (
            mock.patch.object(epoch_times, "ours", lambda *_: fake),
            mock.patch.object(epoch_times, "theirs", lambda *_: theirs(fake)),
            contextlib.redirect_stdout(out),
        ):
            result = epoch_times.epoch_times(self.folder, **settings)
        path = self.folder / "benchmark_epochs.json"
        self.assertEqual(json.loads(path.read_text()), result)
        return result, out.getvalue()

    def test_programs_take_turns_and_ratios_are_of_the_same_round(self):
        result, out = self._run(
            lambda fake: [*fake, "T"],
            layers=("fc",),
            encoders=("L", "PNL"),
            rounds=2,
            num_points=4,
        )
        turn = "L;PNL;PNL, cached;no encoder;T;T;"
        self.assertEqual(self.order.read_text(), 3 * turn)
        (table,) = result["tables"]
        rows = {row["program"]: row for row in table["rows"]}
        # The fifth and the ninth second of our process, twice as long for L.
        self.assertEqual(rows["L"]["rounds"], [10.0, 18.0])
        self.assertEqual(rows["PNL"]["rounds"], [6.0, 10.0])
        self.assertEqual(rows["PNL"]["seconds"], 8.0)
        self.assertEqual(rows["PNL"]["fastest"], 6.0)
        self.assertAlmostEqual(
            rows["PNL"]["ratio"], (6.0 / 10.0 + 10.0 / 18.0) / 2.0
        )
        self.assertAlmostEqual(rows["PNL"]["published_ratio"], 0.63 / 0.71)
        self.assertIsNone(rows["no encoder"]["published_ratio"])
        self.assertRegex(
            out, r"(?m)^PNL +8\.000 +6\.000 +0\.\d\d +0\.58 +0\.89 +\d+%$"
        )
        text = (self.folder / "benchmark_epochs.md").read_text()
        self.assertIn("\n## fc layers, normal prior\n", text)
        self.assertRegex(
            text, r"\n\| PNL \| 8\.000 \| 6\.000 \| 0\.\d\d \| 0\.58 \| 0.89 \|"
        )

    def test_torch_that_is_missing_is_left_out_and_reported(self):
        result, out = self._run(
            lambda _: [sys.executable, "-c", "raise SystemExit('no torch')"],
            layers=("conv",),
            priors=("flow2",),
            rounds=1,
            num_points=4,
        )
        (table,) = result["tables"]
        self.assertLen(table["rows"], 8)
        self.assertLen(table["left_out"], 4)
        self.assertEqual(set(table["left_out"].values()), {"no torch"})
        self.assertIn("left out: PyTorch (no torch)\n", out)
        text = (self.folder / "benchmark_epochs.md").read_text()
        self.assertIn("\nLeft out: PyTorch, compiled (no torch).\n", text)

    def test_published_ratios(self):
        found = [
            epoch_times.published_ratio("conv", "normal", encoder)
            for encoder in ("L", "PNL", "NL", "RKS")
        ]
        self.assertAllClose(found, [1.0, 0.78, 0.75, 0.64], atol=0.005)
        self.assertIsNone(
            epoch_times.published_ratio("conv", "normal", "NL, cached")
        )

    @parameterized.parameters(
        ({"rounds": 0}, "`rounds`.* must be at least 1, got .0, "),
        ({"layers": ("fcc",)}, "`layers` must be some of.*'conv'.*got .'fcc'"),
        ({"priors": ()}, "`priors` must be some of .*got ()"),
        ({"encoders": ("M",)}, "`encoders` must be some of .*got .'M'"),
    )
    def test_wrong_value_is_reported(self, settings, message):
        with self.assertRaisesRegex(ValueError, message):
            epoch_times.epoch_times(self.folder, **settings)


class WorkerTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        _load()
        (self.folder / "config.gin").write_text(config.text())
        points = np.random.default_rng(0).random((40, 1024), np.float32)
        np.save(self.folder / "points.npy", points)

    def _answers(self, encoders, lines, overrides=()):
        """Runs a worker in this process; returns its rows, code and errors."""
        settings = epoch_times.Settings(
            ["FullyConnectedDecoder.hidden = (8,)", *overrides],
            *(encoders, 1, 16, 14, [0], "python"),
        )
        argv = epoch_times.ours(settings, "fc", "normal", self.folder)
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(sys, "stdin", io.StringIO("\n".join(lines))),
        ):
            code = epoch_worker.main(argv[-1:])
        rows = [json.loads(line) for line in out.getvalue().splitlines()]
        return rows, code, err.getvalue()

    @pytest.mark.slow  # Trains twice.
    def test_cache_changes_nothing_but_the_time(self):
        rows, code, err = self._answers(
            ["PNL"], ["PNL", "PNL, cached", "no encoder", "no encoder"]
        )
        self.assertEqual(code, 0, err)
        facts, plain, cached, *without = rows
        self.assertAllClose(plain["loss"], cached["loss"], rtol=1e-4)
        self.assertGreater(plain["seconds"], 0.0)
        self.assertLess(without[1]["loss"], without[0]["loss"])
        # 16 latents, 8 hidden units, 1024 pixels; 64 features to 32 outputs.
        decoder = 16 * 8 + 8 + 8 * 1024 + 1024
        sizes = {
            name: each["trainable_parameters"]
            for name, each in facts["facts"].items()
        }
        self.assertEqual(sizes["no encoder"], decoder)
        self.assertEqual(sizes["PNL"], decoder + 64 * 32 + 32)

    def test_error_is_one_line(self):
        _, code, err = self._answers(["NL"], [], ["vae.num_latents = 0"])
        self.assertEqual(code, 2)
        self.assertRegex(err, "^error: [^\n]*got 0[^\n]*\n$")


class TorchTest(tf.test.TestCase):
    def test_missing_package_is_reported_in_one_line(self):
        err = io.StringIO()
        with (
            mock.patch.dict(sys.modules, {"torch": None}),
            contextlib.redirect_stderr(err),
        ):
            main = runpy.run_path(str(TORCH_VAE))["main"]
            self.assertEqual(main([]), 2)
        self.assertRegex(err.getvalue(), "^error: torch is not installed.*\n$")


if __name__ == "__main__":
    tf.test.main()
