# SPDX-License-Identifier: Apache-2.0
r"""Serves an exported model with KServe, by the V1 and V2 protocols and gRPC.

Needs TensorFlow and KServe, and nothing of tfvae:

  pip install "kserve>=0.21,<0.22" "tensorflow>=2.21,<2.22"
  python kserve_server.py --model_dir=models/bars/1 --model_name=bars \
      --http_port=8080 --grpc_port=8081

  curl http://localhost:8080/v1/models/bars:predict \
      -d '{"instances": [[0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]]}'
  curl http://localhost:8080/v1/models/bars:predict -d '{
      "signature_name": "sample", "inputs": {"num_samples": 2, "seed": 0}}'
  curl http://localhost:8080/v2/models/bars/infer \
      -H "Content-Type: application/json" -d '{
      "parameters": {"signature_name": "sample"}, "inputs": [
      {"name": "num_samples", "datatype": "INT32", "shape": [], "data": [2]},
      {"name": "seed", "datatype": "INT32", "shape": [], "data": [0]}]}'

The V1 protocol is TensorFlow Serving's: `instances` are rows, and `predictions`
too; `inputs` are columns, and `outputs` too. In V2 and gRPC the inputs of a
signature are named tensors. Requests that the model refuses, such as those over
the limits that were set at its export, are answered with status 400 or
INVALID_ARGUMENT and the reason; bodies over --max_body_bytes with 413, or
RESOURCE_EXHAUSTED.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import uuid
from typing import Any

import fastapi
import kserve
import numpy as np
import orjson
import tensorflow as tf
from fastapi.exceptions import RequestValidationError
from kserve import model_server
from kserve.errors import InvalidInput
from kserve.utils.numpy_codec import from_np_dtype

_DEFAULT_SIGNATURE = "serving_default"
# Bodies of up to this many times the limit are read to their end.
_DRAINED = 8
_BINARY_HEADER = b"inference-header-content-length"


class SavedModel(kserve.Model):
    """A SavedModel; `signature_name` of a request names the signature."""

    def __init__(self, name: str, path: str):
        """Loads the model."""
        super().__init__(name)
        self._loaded = tf.saved_model.load(path)
        self._signatures = self._loaded.signatures
        self.ready = True

    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None
    ) -> Any:
        """Answers a request of any protocol."""
        # In a thread, so that requests do not wait for each other.
        if isinstance(payload, kserve.InferRequest):
            return await asyncio.to_thread(self._answer_v2, payload)
        return await asyncio.to_thread(self._answer_v1, payload)

    def get_input_types(self) -> list[dict[str, Any]]:
        signature = self._signatures[_DEFAULT_SIGNATURE]
        return _metadata(signature.structured_input_signature[1])

    def get_output_types(self) -> list[dict[str, Any]]:
        signature = self._signatures[_DEFAULT_SIGNATURE]
        return _metadata(signature.structured_outputs)

    def _answer_v1(self, body: Any) -> dict[str, Any]:
        if isinstance(body, bytes):  # Of another content type, as curl sends.
            try:
                body = orjson.loads(body)
            except orjson.JSONDecodeError as err:
                raise InvalidInput(f"the body must be JSON: {err}") from err
        if not isinstance(body, dict) or ("instances" in body) == (
            "inputs" in body
        ):
            raise InvalidInput(
                "the body must be an object with either `instances` or `inputs`"
            )
        name = body.get("signature_name", _DEFAULT_SIGNATURE)
        values = body.get("instances", body.get("inputs"))
        specs = self._specs(name)
        by_row = "instances" in body
        if by_row:
            if not isinstance(values, list) or not values:
                raise InvalidInput("`instances` must be a list of rows")
            if all(isinstance(row, dict) for row in values):
                keys = {key for row in values for key in row}
                if any(keys != row.keys() for row in values):
                    raise InvalidInput("`instances` must have the same inputs")
                values = {key: [row[key] for row in values] for key in keys}
        if not isinstance(values, dict):
            if len(specs) > 1:
                raise InvalidInput(f"inputs must be named: {', '.join(specs)}")
            values = {next(iter(specs)): values}
        outputs = self._run(name, values)
        columns = {key: value.tolist() for key, value in outputs.items()}
        if not by_row:
            return {"outputs": columns}
        if any(not isinstance(column, list) for column in columns.values()):
            raise InvalidInput(f"`{name}` must be called with `inputs`")
        rows = zip(*columns.values(), strict=True)
        return {
            "predictions": [
                dict(zip(columns, row, strict=True)) for row in rows
            ]
        }

    def _answer_v2(self, request: kserve.InferRequest) -> kserve.InferResponse:
        parameter = (request.parameters or {}).get("signature_name")
        name = getattr(parameter, "string_param", parameter)
        values = {}
        for tensor in request.inputs:
            try:
                values[tensor.name] = tensor.as_numpy()
            except (TypeError, ValueError, OverflowError) as err:
                raise InvalidInput(f"`{tensor.name}`: {err}") from err
        outputs = self._run(name or _DEFAULT_SIGNATURE, values)
        asked = {output.name for output in request.request_outputs or ()}
        if asked - outputs.keys():
            raise InvalidInput(f"outputs must be among {', '.join(outputs)}")
        tensors = []
        for key in asked or outputs:
            kind = from_np_dtype(outputs[key].dtype)
            tensor = kserve.InferOutput(key, list(outputs[key].shape), kind)
            tensor.set_data_from_numpy(outputs[key], request.use_binary_outputs)
            tensors.append(tensor)
        answer = request.id or str(uuid.uuid4())
        return kserve.InferResponse(answer, self.name, tensors)

    def _specs(self, name: Any) -> dict[str, tf.TensorSpec]:
        """Returns the inputs of a signature."""
        if not isinstance(name, str) or name not in self._signatures:
            names = ", ".join(sorted(self._signatures))
            raise InvalidInput(
                f"`signature_name` must be one of {names}, got {name!r}"
            )
        return self._signatures[name].structured_input_signature[1]

    def _run(self, name: str, values: dict[str, Any]) -> dict[str, np.ndarray]:
        """Calls a signature."""
        specs = self._specs(name)
        if specs.keys() != values.keys():
            raise InvalidInput(
                f"inputs of `{name}` must be {', '.join(specs)}, got "
                f"{', '.join(map(str, values)) or 'none'}"
            )
        tensors = {
            key: tf.constant(_as_array(key, values[key], spec))
            for key, spec in specs.items()
        }
        try:
            outputs = self._signatures[name](**tensors)
        except tf.errors.InvalidArgumentError as err:
            raise InvalidInput(_reason(err.message)) from err
        return {key: value.numpy() for key, value in outputs.items()}


def _as_array(name: str, value: Any, spec: tf.TensorSpec) -> np.ndarray:
    """Returns an input as an array of the signature's type and shape."""
    dtype = spec.dtype.as_numpy_dtype
    try:
        array = np.asarray(value)
    except (OverflowError, ValueError) as err:  # Rows of different lengths.
        raise InvalidInput(f"`{name}` must be an array: {err}") from err
    kinds = "biuf" if np.dtype(dtype).kind == "f" else "iu"
    if array.size and array.dtype.kind not in kinds:
        noun = "numbers" if "f" in kinds else "integers"
        raise InvalidInput(f"`{name}` must be {noun}, got {array.dtype}")
    with np.errstate(over="ignore"):  # To infinity, which models refuse.
        cast = array.astype(dtype)
    if "f" not in kinds and not np.array_equal(cast, array):
        raise InvalidInput(f"`{name}` must be {np.dtype(dtype)}, got {array}")
    if spec.shape.rank == 0 and cast.size == 1:
        return cast.reshape(())
    if not spec.shape.is_compatible_with(cast.shape) or not cast.size:
        sizes = ["rows", *map(str, spec.shape[1:])] if spec.shape.rank else []
        raise InvalidInput(
            f"`{name}` must have shape [{', '.join(sizes)}], with at least one "
            f"row, got {list(cast.shape)}"
        )
    return cast


def _reason(message: str) -> str:
    """Returns what a model says, without the place in its graph."""
    text = re.sub(r"\s*\[\[\{\{node.*", "", message, flags=re.DOTALL).strip()
    reason = text.splitlines()[-1]
    stated = reason.removeprefix("assertion failed: ")
    # Its parts have brackets of their own: [x must be at most 3, got] [4].
    return reason if stated == reason else stated[1:-1].replace("] [", " ")


def _metadata(specs: dict[str, tf.TensorSpec]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "datatype": from_np_dtype(np.dtype(spec.dtype.as_numpy_dtype)),
            "shape": [size or -1 for size in spec.shape],
        }
        for name, spec in specs.items()
    ]


class BodyLimit:
    """ASGI middleware that refuses bodies that are too large or malformed.

    It reads a body before anything else sees it, so that one without a
    `content-length` is bounded too. What is over the limit is read and dropped,
    up to `_DRAINED` times the limit, as clients listen only once they have
    sent all.
    """

    def __init__(self, app: Any, most: int):
        """Wraps an application."""
        self._app = app
        self._most = most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parts: list[Any] = []
        size, more = 0, True
        while more and size <= _DRAINED * self._most:
            part = await receive()
            size += len(part.get("body", b""))
            more = part.get("more_body", False)
            if size <= self._most:
                parts.append(part)
        if size > self._most:
            reason = f"bodies must have at most {self._most} bytes"
            await _refuse(send, 413, reason)
            return

        async def replay() -> Any:
            return parts.pop(0) if parts else await receive()

        try:
            await self._app(scope, replay, send)
        except (KeyError, TypeError, ValueError) as err:
            # KServe 0.21 lets these pass where it reads binary tensors.
            if _BINARY_HEADER not in dict(scope["headers"]):
                raise
            await _refuse(send, 400, f"malformed binary tensors: {err!r}")


async def answer_invalid(
    request: fastapi.Request, err: RequestValidationError
) -> fastapi.responses.JSONResponse:
    """Answers what is no request of V2, without repeating its values.

    FastAPI's own answer does, which fails for NaN.
    """
    first = err.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return fastapi.responses.JSONResponse(
        {"error": f"{place}: {first['msg']}"}, status_code=400
    )


async def _refuse(send: Any, status: int, reason: str) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"connection", b"close"),
    ]
    start = {"type": "http.response.start", "status": status}
    await send({**start, "headers": headers})
    body = orjson.dumps({"error": reason})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serves until it is interrupted."""
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.add_argument("--model_dir", required=True, help="The SavedModel.")
    parser.add_argument("--max_body_bytes", type=int, default=8 * 2**20)
    options = parser.parse_args()
    # As in KServe's own servers: gRPC takes its limit from here.
    model_server.args.grpc_max_receive_message_length = options.max_body_bytes
    app = model_server.app
    app.add_middleware(BodyLimit, most=options.max_body_bytes)
    app.add_exception_handler(RequestValidationError, answer_invalid)
    model = SavedModel(options.model_name, options.model_dir)
    kserve.ModelServer().start([model])


if __name__ == "__main__":
    main()
