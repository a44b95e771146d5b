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
from collections.abc import Sequence
from typing import Any

import fastapi
import kserve
import numpy as np
import orjson
import pydantic
import tensorflow as tf
from fastapi.exceptions import RequestValidationError
from kserve import model_server
from kserve.errors import InvalidInput
from kserve.protocol.infer_type import to_http_parameters
from kserve.protocol.rest.v2_datamodels import InferenceRequest
from kserve.utils.numpy_codec import from_np_dtype, to_np_dtype

_DEFAULT_SIGNATURE = "serving_default"
# Bodies of up to this many times the limit are read to their end.
_DRAINED = 8
_BINARY_HEADER = b"inference-header-content-length"
# Characters of a request that reasons repeat.
_SHOWN = 100
# What NumPy's kinds of types are called; those that a datatype's kind allows.
_NOUNS = {
    "b": "booleans",
    "i": "integers",
    "u": "integers",
    "f": "floats",
    "U": "strings",
    "S": "strings",
}
_KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}


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
                names = ", ".join(sorted(specs))
                raise InvalidInput(f"inputs must be named: {names}")
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
        parameters = to_http_parameters(request.parameters or {})
        name = parameters.get("signature_name", _DEFAULT_SIGNATURE)
        values = {}
        for tensor in request.inputs:
            if tensor.name in values:
                raise InvalidInput(
                    f"inputs must be given once, got {_short(tensor.name)} "
                    "again"
                )
            values[tensor.name] = _tensor(tensor)
        outputs = self._run(name, values)
        requested = request.request_outputs or ()
        asked = dict.fromkeys(output.name for output in requested)
        if asked.keys() - outputs.keys():
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
                f"`signature_name` must be one of {names}, got {_short(name)}"
            )
        return self._signatures[name].structured_input_signature[1]

    def _run(self, name: str, values: dict[str, Any]) -> dict[str, np.ndarray]:
        """Calls a signature."""
        specs = self._specs(name)
        if specs.keys() != values.keys():
            raise InvalidInput(
                f"inputs of `{name}` must be {', '.join(sorted(specs))}, got "
                f"{_short(', '.join(sorted(values))) if values else 'none'}"
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


def _tensor(tensor: kserve.InferInput) -> np.ndarray:
    """Returns a tensor of V2 or gRPC, of its datatype and shape."""
    name = tensor.name
    dtype = to_np_dtype(tensor.datatype)
    if dtype is None or dtype is np.object_:
        raise InvalidInput(
            f"`{name}` must have a datatype of numbers, such as FP32, got "
            f"{_short(tensor.datatype)}"
        )
    if any(size < 0 for size in tensor.shape):
        raise InvalidInput(
            f"`{name}` must have a shape without negative sizes, got "
            f"{tensor.shape}"
        )
    # KServe makes numbers of strings and null, and drops fractions.
    if tensor.data:
        kind = np.dtype(dtype).kind
        _check_kind(name, _as_given(name, tensor.data), _KINDS[kind])
    try:
        return tensor.as_numpy()
    except (TypeError, ValueError, OverflowError) as err:
        raise InvalidInput(f"`{name}`: {err}") from err


def _as_given(name: str, value: Any) -> np.ndarray:
    """Returns numbers or nested lists as an array of their own type."""
    try:
        return np.asarray(value)
    except (OverflowError, ValueError) as err:  # Rows of different lengths.
        raise InvalidInput(f"`{name}` must be an array: {err}") from err


def _check_kind(name: str, array: np.ndarray, kinds: str) -> None:
    """Raises an InvalidInput unless values are of one of NumPy's kinds."""
    if array.size and array.dtype.kind not in kinds:
        *others, last = [_NOUNS[kind] for kind in kinds if kind != "u"]
        nouns = f"{', '.join(others)} or {last}" if others else last
        got = _NOUNS.get(array.dtype.kind, "null or objects")
        raise InvalidInput(f"`{name}` must be {nouns}, got {got}")


def _as_array(name: str, value: Any, spec: tf.TensorSpec) -> np.ndarray:
    """Returns an input as an array of the signature's type and shape."""
    dtype = spec.dtype.as_numpy_dtype
    array = _as_given(name, value)
    kinds = "biuf" if np.dtype(dtype).kind == "f" else "iu"
    _check_kind(name, array, kinds)
    with np.errstate(over="ignore"):  # To infinity, which models refuse.
        cast = array.astype(dtype)
    if "f" not in kinds and not np.array_equal(cast, array):
        raise InvalidInput(f"`{name}` must be {np.dtype(dtype)}, got {array}")
    if spec.shape.rank == 0:
        if cast.size != 1:
            raise InvalidInput(
                f"`{name}` must be one number, got shape {list(cast.shape)}"
            )
        return cast.reshape(())
    if not spec.shape.is_compatible_with(cast.shape) or not cast.size:
        sizes = ", ".join(["rows", *map(str, spec.shape[1:])])
        raise InvalidInput(
            f"`{name}` must have shape [{sizes}], with at least one row, got "
            f"{list(cast.shape)}"
        )
    return cast


def _short(value: Any) -> str:
    """Returns what a client has sent, without most of it where it is long.

    Reasons are part of gRPC's headers, which may have 8 KiB.
    """
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


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

        length = dict(scope["headers"]).get(_BINARY_HEADER)
        if length is not None:
            body = b"".join(part.get("body", b"") for part in parts)
            reason = _fault_of_binary(body, length)
            if reason:
                await _refuse(send, 400, f"malformed binary tensors: {reason}")
                return

        async def replay() -> Any:
            return parts.pop(0) if parts else await receive()

        await self._app(scope, replay, send)


def _fault_of_binary(body: bytes, length: bytes) -> str:
    """Returns what is wrong with JSON and the binary tensors after it.

    KServe 0.21 reads them unchecked: it would answer with status 500, and close
    the connection.
    """
    try:
        header = orjson.loads(body[: int(length)])
        inputs = [{"data": [], **one} for one in header["inputs"]]
        InferenceRequest.model_validate(
            {**header, "inputs": inputs}, strict=True
        )
        kserve.InferRequest.from_bytes(body, int(length), "")
    except pydantic.ValidationError as err:
        return _first(err.errors())
    except Exception as err:  # As it reads what it finds.
        return _short(f"{type(err).__name__}: {err}")
    return ""


async def answer_invalid(
    request: fastapi.Request, err: RequestValidationError
) -> fastapi.responses.JSONResponse:
    """Answers what is no request of V2, without repeating its values.

    FastAPI's own answer does, which fails for NaN.
    """
    return fastapi.responses.JSONResponse(
        {"error": _first(err.errors())}, status_code=400
    )


def _first(errors: Sequence[Any]) -> str:
    """Returns the first of the errors that Pydantic has found."""
    place = ".".join(map(str, errors[0]["loc"]))
    return f"{place}: {errors[0]['msg']}"


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
