# SPDX-License-Identifier: Apache-2.0
"""Tests of what converters make of exported models."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import pathlib
import sys
from unittest import mock

import pytest
import tensorflow as tf
from absl.testing import parameterized

from benchmarks import conversion_worker, conversions
from tfvae import serving

_PACKAGES = {"TFLite": (), "ONNX": ("tf2onnx", "onnxruntime")}
_PACKAGES["OpenVINO"] = ("openvino",)
# Answers each request with the name of the signature as an error.
_FAKE = """
import json, sys
print(json.dumps({"facts": {}}), flush=True)
for line in sys.stdin:
    name = json.loads(line)["signature"]
    results = {"TFLite": 1e-7, "ONNX": f"Error: {name}\\nmore", "OpenVINO": 0.0}
    print(json.dumps({"results": results}), flush=True)
"""


class ConversionsTest(tf.test.TestCase, parameterized.TestCase):
    def test_table_has_differences_and_errors(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        fake = folder / "fake.py"
        fake.write_text(_FAKE)
        out = io.StringIO()
        with (
            mock.patch.object(conversions, "_WORKER", fake),
            mock.patch.object(
                conversions,
                "_export",
                lambda case, _: case._asdict() | {"make": 0},
            ),
            contextlib.redirect_stdout(out),
        ):
            result = conversions.conversions(
                folder / "run",
                converter_python=sys.executable,
                only=["TVAE: convolutions"],
            )
        ((title, signature, results),) = result["rows"]
        self.assertEqual((title, signature), ("TVAE: convolutions", "decode"))
        self.assertEqual(results["ONNX"], "Error: decode\nmore")
        self.assertRegex(
            out.getvalue(),
            r"TVAE: convolutions +decode +1.0e-07 +Error: decode ",
        )

    def test_unknown_title_raises(self):
        folder = self.create_tempdir().full_path
        with self.assertRaisesRegex(ValueError, "`only` must be of .*'GAN'"):
            conversions.conversions(folder, only=["VAE: frozen encoder", "GAN"])

    @parameterized.parameters(*_PACKAGES)
    @pytest.mark.slow
    @mock.patch.object(serving, "check_saved_model", mock.Mock())
    def test_all_without_draws_convert_to(self, name):
        for package in _PACKAGES[name]:
            if importlib.util.find_spec(package) is None:
                self.skipTest(f"{package} is not installed")
        convert = conversion_worker.CONVERTERS[name]
        folder = pathlib.Path(self.create_tempdir().full_path)
        cases = [
            case
            for case in conversions._cases()
            if case.signature != "serving_default"
        ]
        self.assertGreater(len(cases), 15)
        for case in cases:
            with self.subTest(case.title, signature=case.signature):
                request = conversions._export(case, folder)
                difference = conversion_worker.largest_difference(
                    convert,
                    request["path"],
                    request["signature"],
                    conversion_worker.np.load(request["rows"]),
                )
                self.assertLess(difference, 1e-5)


if __name__ == "__main__":
    tf.test.main()
