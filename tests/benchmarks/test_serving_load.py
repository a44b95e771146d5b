# SPDX-License-Identifier: Apache-2.0
"""Tests of models that KServe serves."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import pathlib
import sys
import unittest
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from benchmarks import serving_load
from tfvae import serving

# A Python interpreter with KServe and TensorFlow, if this one has none.
_PYTHON = os.environ.get("KSERVE_PYTHON") or sys.executable
_IS_MISSING = (
    _PYTHON == sys.executable and importlib.util.find_spec("kserve") is None
)
_REFUSALS = {"400", "413", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}


@pytest.mark.slow
@unittest.skipIf(_IS_MISSING, "needs KServe, or KSERVE_PYTHON, which has it")
class ServedTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters("TVAE", "VAE")
    def test_answers_are_those_of_the_model_and_refusals_harmless(self, kind):
        folder = pathlib.Path(self.create_tempdir().full_path)
        model = serving_load.make_model(kind)
        serving.export_saved_model(model, folder / "model")
        settings = {
            "kind": kind,
            "data": str(serving_load.save_data(folder)),
            "num_latents": model.num_latents,
            "batch_size": 4,
        }
        log = folder / "server.log"
        with serving_load.server(_PYTHON, folder / "model", log) as ready:
            settings.update(ready._asdict())
            rows = serving_load.client(_PYTHON, settings, folder)
        good = [row for row in rows if row["kind"] == "good"]
        expected = _expected(model, np.load(settings["data"])[:4])
        self.assertLen(good, 3 * len(expected))
        for row in good:
            self.assertIn(row["status"], ("200", "OK"))
            self.assertAllClose(row["outputs"], expected[row["name"]])
        malformed = [row for row in rows if row["kind"] == "malformed"]
        self.assertGreater(len(malformed), 100)
        for row in malformed:
            if row["name"].startswith("long"):  # The reason must be short.
                self.assertEqual(row["status"], "INVALID_ARGUMENT", row)
            self.assertIn(row["status"], _REFUSALS, row)
            self.assertNotEmpty(row["reason"], row)
            self.assertIn(row["after"], ("200", "OK"), row)


def _expected(model, x):
    """The answers to the good requests of the client."""
    masked = np.where(np.arange(x.shape[1]) % 3 == 0, np.float32(np.nan), x)
    is_vae = serving_load.vae.VAE is type(model)
    bound = (
        model.log_likelihood_bound(x, 3, 1)
        if is_vae
        else model.infer(x, seed=1, max_steps=3).bound
    )
    return {
        "default": {
            "mean": model.reconstruct(x).numpy(),
            "bound": model.log_likelihood_bound(x).numpy(),
        },
        "observed": {
            "mean": model.reconstruct(masked).numpy(),
            "bound": model.log_likelihood_bound(masked).numpy(),
        },
        "bound": {"bound": bound.numpy()},
        "sample": {
            "observations": model.sample(4, 1).numpy(),
            "mean": model.sample(4, 1, mean=True).numpy(),
        },
    }


class LoadTest(tf.test.TestCase, parameterized.TestCase):
    def test_reports_rates_and_answers(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        answer = {"kind": "malformed", "protocol": "V1", "after": "200"}
        checks = [{**answer, "status": "400"}, {**answer, "status": "413"}]
        rates = {"per_second": 12.3, "p50_ms": 4.5, "p99_ms": 6.7}
        load = [
            {"at_s": 0.0, "rss_bytes": 5},
            {
                "load": {"V1": rates},
                "malformed_codes": {"400": 8},
                "num_failures": 0,
            },
        ]
        ready = contextlib.nullcontext(serving_load.Server(1, 2, 3))
        out = io.StringIO()
        with (
            mock.patch.object(serving_load.serving, "export_saved_model"),
            mock.patch.object(serving_load, "server", return_value=ready),
            mock.patch.object(
                serving_load, "client", side_effect=[checks, load]
            ) as client,
            contextlib.redirect_stdout(out),
        ):
            result = serving_load.serving_load(folder, kind="VAE", seconds=9.0)
        self.assertEqual(client.call_args.args[1]["seconds"], 9.0)
        self.assertEqual(client.call_args.args[1]["pid"], 3)
        written = json.loads((folder / "benchmark_serving.json").read_text())
        self.assertEqual(written, result)
        self.assertEqual(written["memory"], load[:1])
        self.assertRegex(out.getvalue(), r"V1 +12.3 +4.5 +6.7\n")
        self.assertRegex(out.getvalue(), r"V1 +413 +200 +1\n")

    def test_server_that_does_not_start_is_reported(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        server = folder / "server.py"
        server.write_text("raise SystemExit('error: no such model')")
        with (
            mock.patch.object(serving_load, "_SERVER", server),
            self.assertRaisesRegex(
                RuntimeError, "the server must start: .*no such model"
            ),
        ):
            with serving_load.server(sys.executable, folder, folder / "log"):
                pass

    @parameterized.parameters(
        {"seconds": 0.0}, {"clients": 0}, {"batch_size": 257}
    )
    def test_numbers_out_of_range_raise(self, **settings):
        folder = self.create_tempdir().full_path
        with self.assertRaisesRegex(ValueError, "`batch_size` in 1 to 256"):
            serving_load.serving_load(folder, **settings)

    def test_unknown_kind_raises(self):
        with self.assertRaisesRegex(ValueError, "`kind` must be .* got 'GAN'"):
            serving_load.make_model("GAN")


if __name__ == "__main__":
    tf.test.main()
