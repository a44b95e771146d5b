# SPDX-License-Identifier: Apache-2.0
"""Converts signatures of SavedModels, and compares the outputs.

Needs TensorFlow, and what it converts to: tf2onnx and onnxruntime for ONNX,
openvino for OpenVINO. It needs nothing of tfvae; `conversions` runs it. Reads
lines of JSON with the path of a SavedModel, a signature and a NumPy file of its
only input; prints one with the result of each converter.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import tempfile
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

Outputs = dict[str, np.ndarray]
Run = Callable[[np.ndarray], Outputs]


def tflite(path: str, signature: str) -> Run:
    """Converts to TensorFlow Lite, with its own operations only."""
    converter = tf.lite.TFLiteConverter.from_saved_model(
        path, signature_keys=[signature]
    )
    content = converter.convert()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Moves to a package of its own.
        interpreter = tf.lite.Interpreter(model_content=content)
    (inputs,) = interpreter.get_signature_list()[signature]["inputs"]
    runner = interpreter.get_signature_runner(signature)
    return lambda x: runner(**{inputs: x})


def onnx(path: str, signature: str) -> Run:
    """Converts by the command of tf2onnx, runs by onnxruntime."""
    import onnxruntime
    from tf2onnx import convert

    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "model.onnx")
        argv = ["convert", "--saved-model", path, "--output", file]
        argv += ["--signature_def", signature, "--opset", "18"]
        with mock.patch.object(sys, "argv", argv):
            convert.main()
        session = onnxruntime.InferenceSession(file)
    (inputs,) = (one.name for one in session.get_inputs())
    outputs = [one.name for one in session.get_outputs()]
    return lambda x: dict(
        zip(outputs, session.run(outputs, {inputs: x}), strict=True)
    )


def openvino(path: str, signature: str) -> Run:
    """Converts the function of a signature, runs it in float32."""
    import openvino as ov

    loaded = tf.saved_model.load(path)
    model = ov.convert_model(loaded.signatures[signature])
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(model, "CPU", settings)
    return lambda x: {
        key.get_any_name(): value for key, value in compiled({0: x}).items()
    }


CONVERTERS = {"TFLite": tflite, "ONNX": onnx, "OpenVINO": openvino}


def largest_difference(
    convert: Callable[[str, str], Run],
    path: str,
    signature: str,
    rows: np.ndarray,
) -> float:
    """Returns the largest difference of a converted signature's outputs.

    It is relative to the largest absolute value of each output.

    Args:
      convert: One of the converters.
      path: Folder of the SavedModel.
      signature: Name of the signature, of one input.
      rows: Its input, `[n, ...]`; also passed alone, for other batch sizes.

    Raises:
      Exception: Whatever converters raise.
    """
    loaded = tf.saved_model.load(path)
    function = loaded.signatures[signature]
    (name,) = function.structured_input_signature[1]
    run = convert(path, signature)
    largest = 0.0
    for batch in (rows, rows[:1]):
        expected = function(**{name: tf.constant(batch)})
        found = run(batch)
        for key, value in expected.items():
            error = np.max(np.abs(found[key] - value.numpy()))
            scale = np.max(np.abs(value.numpy()))
            largest = max(largest, float(error / scale))
    return largest


def main() -> None:
    """Answers requests until there are no more."""
    versions: dict[str, Any] = {"tensorflow": tf.__version__}
    for package in ("tf2onnx", "onnxruntime", "openvino"):
        try:
            versions[package] = __import__(package).__version__
        except ImportError:
            versions[package] = None
    print(json.dumps({"facts": versions}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        rows = np.load(pathlib.Path(request["rows"]))
        results: dict[str, float | str] = {}
        for name, convert in CONVERTERS.items():
            try:
                results[name] = largest_difference(
                    convert, request["path"], request["signature"], rows
                )
            except Exception as err:  # Every converter has errors of its own.
                results[name] = f"{type(err).__name__}: {err}"
        print(json.dumps({"results": results}), flush=True)


if __name__ == "__main__":
    main()
