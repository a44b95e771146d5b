# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
import json
import pathlib
import re
import shlex
import sys
from unittest import mock

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from absl.testing import parameterized

from benchmarks import (
    profiling,
    programs,
    quality,
    scaling,
    training_worker,
)
from benchmarks import training as benchmark_lib
from benchmarks.training import benchmark
from tests.runs import small
from tfvae import checkpoints
from tfvae.runs import config
from tfvae.runs.experiment import experiment

_FACTS = {
    "data": "bars",
    "num_data": 100,
    "num_observed": 16,
    "num_latents": 16,
    "num_states": 8,
    "batch_size": 16,
    "state_store_bytes": 100 * 8 * 6,
    "checkpoint_bytes": 10_000,
}


def _printing(*lines):
    code = f"print({chr(10).join(lines)!r})"
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"


def _output(speeds, bounds=(), facts=None, **columns):
    epochs = [{"per_second": float(speed)} for speed in speeds]
    for name, values in {"bound": bounds, **columns}.items():
        for row, value in zip(epochs, values, strict=False):
            row[name] = float(value)
    return programs.Output(epochs, facts or {}, 300.0, 9.0)


def _worked(**settings):
    """Runs a worker in this process; returns its lines and exit code."""
    out, err = io.StringIO(), io.StringIO()
    path = pathlib.Path(tf.compat.v1.test.get_temp_dir()) / "config.gin"
    path.write_text(config.text())
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(training_worker, "_limit_memory"),
    ):
        code = training_worker.main([str(path), json.dumps(settings)])
    rows = [
        json.loads(line)
        for line in out.getvalue().splitlines()
        if line.startswith("{")
    ]
    return rows, code, err.getvalue()


class BenchmarkTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        self.out = io.StringIO()
        small.load_bars("benchmark.num_points = 20", "benchmark.epochs = 2")

    def _run(self, outputs=None, **settings):
        """Benchmarks with given outputs of the programs."""
        context = contextlib.nullcontext()
        if outputs is not None:
            context = mock.patch.object(
                programs, "run", lambda program, _=2: outputs(program)
            )
        with context, contextlib.redirect_stdout(self.out):
            result = benchmark(self.folder, **settings)
        path = self.folder / f"benchmark_{result['mode']}.json"
        self.assertEqual(json.loads(path.read_text()), result)
        return result

    def _assert_picture(self, name):
        with PIL.Image.open(self.folder / name) as picture:
            self.assertEqual(picture.format, "PNG")
            self.assertGreater(np.asarray(picture.convert("L")).std(), 1.0)

    @pytest.mark.slow  # Four processes with TensorFlow.
    def test_speed_beside_another_program(self):
        command = _printing(
            '{"per_second": 1, "free_energy": -9}',
            "another line",
            '{"per_second": 10, "free_energy": -8}',
            '{"per_second": 30}',
            '{"per_second": 20, "free_energy": -6}',
        )
        result = self._run(compare=[f"other={command}"], repeats=1, plain=False)
        ours, other = (result["programs"][name] for name in ("tfvae", "other"))
        self.assertEqual(result["facts"]["num_data"], 20)
        self.assertLen(ours["rounds"][0], 2)
        self.assertLen(ours["bounds"], 3)
        self.assertGreater(ours["peak_memory_mb"], 100.0)
        self.assertGreater(ours["startup_seconds"], 0.0)
        self.assertEqual(other["rounds"], [[10.0, 30.0, 20.0]])
        self.assertEqual(other["per_second"], 20.0)
        self.assertEqual(other["bounds"], [-9.0, -8.0, None, -6.0])
        self.assertAlmostEqual(other["ratio"], ours["per_second"] / 20.0)
        # 20 points of 8 states: one byte and a float32 each.
        self.assertEqual(result["facts"]["state_store_bytes"], 20 * 8 * 5)
        self.assertEqual(result["state_store_formula_bytes"], 20 * 8 * 5)
        text = self.out.getvalue()
        self.assertRegex(text, r"(?m)^other +20 +10 +30 +[\d.]+ x +\d+$")
        self.assertRegex(text, r"(?m)^2 +-\d+\.\d{3} +-8\.000$")
        self.assertIn("800 bytes, N S ceil(H/8) + 4 N S = 800;", text)

    def test_what_fails_is_reported_and_only_the_reference_may(self):
        def outputs(program):
            if program.name == failing:
                raise RuntimeError("no room")
            return _output([1, 2], facts=_FACTS)

        failing = "plain"
        result = self._run(outputs)
        self.assertEqual(result["left_out"], {"plain": "no room"})
        self.assertEqual([*result["programs"]], ["tfvae"])
        self.assertIn("left out: plain (no room)", self.out.getvalue())
        failing = "tfvae"
        with self.assertRaisesRegex(RuntimeError, "no room"):
            self._run(outputs)

    def test_programs_are_measured_in_turn(self):
        names = []

        def outputs(program):
            names.append(program.name)
            return _output([1, 2], facts=_FACTS)

        self._run(outputs, compare=["other=run"], repeats=2)
        self.assertEqual(names, ["tfvae", "plain", "other"] * 2)
        names.clear()
        self._run(outputs, plain=False, repeats=1)
        self.assertEqual(names, ["tfvae"])

    def test_quality_shows_when_a_level_is_reached(self):
        made = {
            "tfvae": _output(
                [100] * 5,
                [-9, -8, -7, -6, -5],
                _FACTS,
                psnr=[20, 21, 22, 23, 24],
                seconds=[1, 1, 1, 1, 1],
            ),
            "plain": _output(
                [50] * 5, [-9, -8, -7, -6.0002, -6], psnr=[20] * 5
            ),
            "other": _output([200] * 3, [-8, -7, -4]),
        }
        result = self._run(
            lambda program: made[program.name],
            mode="quality",
            compare=["other=run"],
            repeats=1,
        )
        expected = (  # level, then seconds of each program
            (-9.0, 1.0, 2.0, 0.5),
            (-8.0, 2.0, 4.0, 0.5),
            (-6.0, 4.0, 8.0, 1.5),  # plain is level but for rounding
            (-5.0, 5.0, None, 1.5),
        )
        for row, values in zip(
            result["levels"]["bound"], expected, strict=True
        ):
            self.assertEqual((*row.values(),), values)
        last = result["levels"]["psnr"][-1]
        self.assertEqual((*last.values(),), (24.0, 5.0, None, None))
        self.assertRegex(self.out.getvalue(), r"(?m)^-5\.000 +5\.0 +- +1\.5$")
        self._assert_picture("quality.png")

    def test_medians_over_rounds(self):
        rounds = [_output([100, speed], [-3, -2]) for speed in (50, 100, 20)]
        rows = quality.curve(rounds, num_data=100)
        self.assertEqual([row["seconds"] for row in rows], [1.0, 3.0])
        self.assertEqual([row["bound"] for row in rows], [-3.0, -2.0])

    def test_scaling_of_a_linear_cost_has_exponents_of_one(self):
        def outputs(program):
            given = json.loads(program.argv[-1])
            sizes = re.findall(r"= (\d+)", " ".join(given["bindings"]))
            num_latents, num_states = map(int, sizes)
            speed = 1e6 / (num_latents * num_states)
            facts = {
                **_FACTS,
                "num_latents": num_latents,
                "num_states": num_states,
                "state_store_bytes": num_latents * num_states,
            }
            return _output([1, speed], [-9, -8], facts)

        result = self._run(
            outputs, mode="scaling", latents=(16, 64, 256), states=(8, 32)
        )
        self.assertLen(result["grid"], 6)
        for kinds in result["exponents"].values():
            for found in kinds.values():
                self.assertAllClose([*found.values()], [1.0, 1.0])
        self.assertRegex(
            self.out.getvalue(), r"(?m)^seconds +1\.00 +1\.00 +1\.00 +1\.00$"
        )
        self._assert_picture("scaling.png")

    def test_exponents_are_those_of_the_grid(self):
        grid = [
            {"latents": h, "states": s, "seconds": 3e-6 * h**0.5 * s**2}
            for h in (2, 4, 64)
            for s in (3, 9)
        ]
        fitted = scaling.exponents(grid, "seconds")
        self.assertAllClose([*fitted.values()], [0.5, 2.0])
        self.assertEqual(
            scaling.exponents(grid[:1], "seconds"),
            {"latents": None, "states": None},
        )
        one_latent = scaling.exponents(grid[:2], "seconds")
        self.assertIsNone(one_latent["latents"])
        self.assertAlmostEqual(one_latent["states"], 2.0)
        grid[-2]["seconds"] *= 16**0.5  # H = 64, S = 3
        grid[-1]["seconds"] *= 16**0.5
        steepest = scaling.steepest(grid, "seconds")
        self.assertAllClose([*steepest.values()], [1.0, 2.0])

    @parameterized.parameters(
        ({"num_points": 0}, "must be at least 1, got 0"),
        ({"epochs": 0}, "must be at least 1"),
        ({"latents": ()}, "`latents`"),
        ({"mode": "spede"}, "`mode` must be one of.*'profile'.*got 'spede'"),
        ({"compare": ["run"]}, "`compare` must be name=command"),
        ({"compare": ["plain=run"]}, "distinct names.*got .'plain'"),
        ({"compare": ["a=run", "a=run"]}, "distinct names"),
    )
    def test_wrong_value_is_reported(self, settings, message):
        with self.assertRaisesRegex(ValueError, message):
            benchmark(self.folder, **settings)


class WorkerTest(tf.test.TestCase):
    def test_prints_a_line_an_epoch_and_the_facts(self):
        small.load_bars()
        rows, code, _ = _worked(epochs=2, num_points=20)
        self.assertEqual(code, 0)
        self.assertEqual([row["epoch"] for row in rows[:2]], [1, 2])
        for row in rows[:2]:
            self.assertAlmostEqual(row["per_second"] * row["seconds"], 20.0)
            self.assertLess(row["bound"], 0.0)
        facts = rows[2]["facts"]
        self.assertEqual(set(facts), set(_FACTS))
        parts = experiment(max_points=20)
        size = checkpoints.checkpoint_bytes(parts.model)
        self.assertEqual(facts["num_latents"], 6)
        self.assertLessEqual(size, facts["checkpoint_bytes"])  # and optimizer

    @pytest.mark.slow  # Trains in processes.
    def test_scores_a_picture_outside_of_the_seconds(self):
        small.load_picture()
        rows, _, _ = _worked(epochs=2, observe=True)
        for row in rows[:2]:
            self.assertGreater(row["psnr"], 10.0)
            self.assertNotIn("observing_seconds", row)
        # A part of the patches gives no picture.
        rows, _, _ = _worked(epochs=1, observe=True, num_points=20)
        self.assertNotIn("psnr", rows[0])

    @pytest.mark.slow  # Trains in processes.
    def test_reference_implementation_trains_to_the_same_bounds(self):
        small.load_bars()
        bounds = [
            [row["bound"] for row in _worked(epochs=2, plain=plain)[0][:2]]
            for plain in (False, True)
        ]
        self.assertAllClose(*bounds, rtol=1e-4)

    @pytest.mark.slow  # Trains in processes.
    def test_reference_implementation_has_the_same_values(self):
        small.load_bars()
        model = experiment().model
        plain = training_worker.plain_form(model)
        self.assertEqual(type(plain).__name__, "PlainTVAE")
        for one, other in zip(model.weights, plain.weights, strict=True):
            self.assertAllEqual(one.numpy(), other.numpy())

    @pytest.mark.slow  # Trains in processes.
    def test_reference_implementation_belongs_to_a_clone(self):
        small.load_bars()
        nowhere = pathlib.Path("/nowhere/plain.py")
        with mock.patch.object(training_worker, "_PLAIN", nowhere):
            _, code, err = _worked(epochs=1, plain=True)
        self.assertEqual(code, 2)
        self.assertRegex(
            err,
            "^error: the reference implementation is part of the tests.*/no",
        )

    def test_errors_are_one_line(self):
        small.load_bars()
        _, code, err = _worked(epochs=1, bindings=["TVAE.num_states = 65"])
        self.assertEqual(code, 2)
        self.assertRegex(err, r"^error: `num_states` must be.*got 65[^\n]*\n$")
        small.load_bars()
        with mock.patch.object(
            training_worker,
            "fit",
            side_effect=tf.errors.ResourceExhaustedError(None, None, "OOM"),
        ):
            _, _, err = _worked(epochs=1)
        self.assertEqual(err, "error: it needs more memory than is available\n")


class ProfileTest(tf.test.TestCase):
    @pytest.mark.slow  # TensorFlow's profiler takes 5 seconds.
    def test_profile_of_a_step(self):
        small.load_bars("TVAE.num_m_states = 3", "Evolution.shared = True")
        with mock.patch.object(profiling, "_MATMUL_SIZE", 64):
            rows, code, err = _worked(
                profile={"num_points": 20, "epochs": 1, "steps": 4}
            )
        self.assertEqual(code, 0, err)
        facts = rows[-1]["facts"]
        found = facts["profile"]
        self.assertGreater(found["loop_ms"], 0.0)
        self.assertGreater(found["step_ms"], 0.0)
        self.assertGreater(found["e_step_ms"], 0.0)
        kinds = [row["type"] for row in found["operations"]]
        self.assertTrue(any("MatMul" in kind for kind in kinds), kinds)
        self.assertNotIn("StatefulPartitionedCall", kinds)
        # 6 latents, 4 hidden units, 16 pixels; 16 points and 3 M-step states.
        decoded = found["decoded"]
        self.assertBetween(decoded["e_states"], 8, 64)
        self.assertBetween(decoded["m_states"], 3, 48)
        self.assertBetween(decoded["ones"], 0, 6)
        per_state = 2 * (6 * 4 + 4 * 16)
        self.assertAllClose(
            [*found["flops"].values()],
            [
                decoded["e_states"] * per_state,
                2 * 16 * decoded["e_states"] * 16,
                3 * decoded["m_states"] * per_state,
                6 * 16 * 3 * 16,
            ],
        )
        ideal = sum(found["flops"].values()) / found["matmul_gflops"] / 1e6
        self.assertAllClose(found["ideal_ms"], ideal)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            benchmark_lib._print_profile(found)
        self.assertIn("of the roofline", out.getvalue())

    def test_wide_binary_layer_adds_rows(self):
        small.load_bars("TVAE.num_latents = 300")
        model = experiment(max_points=20).model
        self.assertEqual(
            profiling._decoder_flops(model, 5.0), 5 * 4 + 2 * 4 * 16
        )

    def test_convolutions_are_not_counted(self):
        small.load_bars()
        model = experiment(max_points=20).model
        kernel = tf.Variable(tf.zeros([3, 3, 1, 1]))
        model.decoder = mock.Mock(trainable_variables=[kernel])
        self.assertIsNone(profiling._decoder_flops(model, 5.0))


if __name__ == "__main__":
    tf.test.main()
