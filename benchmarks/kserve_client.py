# SPDX-License-Identifier: Apache-2.0
"""Clients of `examples/kserve_server.py`: good, malformed, and many requests.

Needs KServe and nothing of tfvae; `serving_load` runs it in the Python of the
server. Its argument is a JSON object of the fields of `Settings`; it prints
lines of JSON.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import httpx
import numpy as np
import psutil
from kserve import InferInput, InferRequest
from kserve.protocol.grpc import grpc_predict_v2_pb2, grpc_predict_v2_pb2_grpc

Inputs = dict[str, Any]
"""Arrays, numbers or lists by the names of a signature's inputs."""

Answer = tuple[str, str, dict[str, Any]]
"""Status, reason, and the outputs by name."""

_DATATYPES = {"f": "FP32", "i": "INT32", "U": "BYTES"}
_SCALARS = ("max_steps", "num_samples", "seed")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to send.

    Attributes:
      kind: "TVAE" or "VAE".
      http_port: Port of the V1 and V2 protocols.
      grpc_port: Port of gRPC.
      pid: Process of the server.
      data: NumPy file of `[n, D]` data, all observed.
      num_latents: H or M.
      seconds: Duration of the load.
      batch_size: Rows of a request.
      clients: Concurrent requests by each protocol.
      limit_bytes: The largest body that the server reads.
    """

    kind: str
    http_port: int
    grpc_port: int
    pid: int
    data: str
    num_latents: int
    seconds: float = 0.0
    batch_size: int = 16
    clients: int = 2
    limit_bytes: int = 8 * 2**20


class Client:
    """Sends requests by any of the protocols."""

    def __init__(self, settings: Settings, http: Any, channel: Any):
        """Uses connections that are open."""
        base = f"http://127.0.0.1:{settings.http_port}"
        self._v1 = f"{base}/v1/models/model:predict"
        self._v2 = f"{base}/v2/models/model/infer"
        self._http = http
        self._stub = grpc_predict_v2_pb2_grpc.GRPCInferenceServiceStub(channel)
        self.protocols = {"V1": self.v1, "V2": self.v2, "gRPC": self.grpc}

    async def v1(self, signature: str, inputs: Inputs) -> Answer:
        """Sends columns."""
        columns = {key: np.asarray(v).tolist() for key, v in inputs.items()}
        body = {"signature_name": signature, "inputs": columns}
        status, text = await self.post(self._v1, _json(body))
        if status != 200:
            return str(status), text, {}
        return str(status), "", json.loads(text)["outputs"]

    async def v2(self, signature: str, inputs: Inputs) -> Answer:
        """Sends named tensors as JSON."""
        tensors = []
        for key, value in inputs.items():
            array = np.asarray(value)
            tensors.append(
                {
                    "name": key,
                    "datatype": _DATATYPES[array.dtype.kind],
                    "shape": array.shape,
                    "data": array.ravel().tolist(),
                }
            )
        parameters = {"signature_name": signature}
        body = {"parameters": parameters, "inputs": tensors}
        status, text = await self.post(self._v2, _json(body))
        if status != 200:
            return str(status), text, {}
        outputs = {
            one["name"]: np.reshape(one["data"], one["shape"])
            for one in json.loads(text)["outputs"]
        }
        return str(status), "", outputs

    async def grpc(self, signature: str, inputs: Inputs) -> Answer:
        """Sends named tensors as bytes."""
        tensors = []
        for key, value in inputs.items():
            array = np.asarray(value)
            kind = _DATATYPES[array.dtype.kind]
            if kind == "BYTES":
                array = array.astype(object)
            else:
                array = array.astype({"FP32": "f4", "INT32": "i4"}[kind])
            tensor = InferInput(key, list(array.shape), kind)
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        request = InferRequest("model", tensors).to_grpc()
        request.parameters["signature_name"].string_param = signature
        status, reason, response = await self._infer(request)
        if response is None:
            return status, reason, {}
        types = {"FP32": "f4", "INT32": "i4", "UINT8": "u1"}
        outputs = {
            one.name: np.frombuffer(raw, types[one.datatype]).reshape(one.shape)
            for one, raw in zip(
                response.outputs, response.raw_output_contents, strict=True
            )
        }
        return status, reason, outputs

    async def _infer(self, request: Any) -> tuple[str, str, Any]:
        try:
            return "OK", "", await self._stub.ModelInfer(request)
        except grpc.aio.AioRpcError as err:
            return err.code().name, err.details() or "", None

    def grpc_cases(self) -> dict[str, Callable[[], Awaitable[Any]]]:
        """Returns malformed requests that `grpc` can not send."""
        raw = np.ones(64, np.float32).tobytes()
        tensor = {"name": "data", "datatype": "FP32", "shape": [1, 64]}
        requests = {
            "negative shape": ([{**tensor, "shape": [-1, 64]}], {}),
            "an input twice": ([tensor, tensor], {}),
            "long name": ([{**tensor, "name": "x" * 100_000}], {}),
            "long signature": ([tensor], {"string_param": "x" * 100_000}),
            "empty signature": ([tensor], {"string_param": ""}),
            "signature 3": ([tensor], {"int64_param": 3}),
            "strings cut short": (
                [{**tensor, "datatype": "BYTES", "shape": [1]}],
                {},
            ),
        }

        async def send(tensors: list[Any], parameter: Any) -> tuple[str, str]:
            request = grpc_predict_v2_pb2.ModelInferRequest(
                model_name="model",
                inputs=tensors,
                raw_input_contents=[raw] * len(tensors),
                parameters={"signature_name": parameter} if parameter else {},
            )
            status, reason, _ = await self._infer(request)
            return status, reason

        return {
            f"{name}, gRPC": functools.partial(send, *request)
            for name, request in requests.items()
        }

    async def post(
        self,
        url: str,
        body: Any,
        content_type: str = "application/json",
        **headers: str,
    ) -> tuple[int, str]:
        """Posts a body, and returns the status and the response."""
        headers = {"content-type": content_type, **headers}
        response = await self._http.post(url, content=body, headers=headers)
        return response.status_code, response.text

    def raw_cases(self, limit: int) -> dict[str, Callable[[], Awaitable[Any]]]:
        """Returns malformed bodies, which only HTTP can carry."""

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(2 * limit // 2**16):
                yield b" " * 2**16

        bodies: dict[str, Callable[[], Any]] = {
            "no body": lambda: b"",
            "no JSON": lambda: b"{",
            "NaN in JSON": lambda: b'{"instances": [[NaN]]}',
            "deep JSON": lambda: b"[" * 100_000,
            "a list": lambda: b"[]",
            "no inputs": lambda: b"{}",
            "nothing in it": lambda: b'{"instances": [], "inputs": []}',
            "no rows": lambda: b'{"instances": []}',
            "ragged rows": lambda: b'{"instances": [[1, 2], [3]]}',
            "huge": lambda: b" " * (limit + 1),
            "huge, in chunks": chunks,
        }
        binary = functools.partial(
            self.post, self._v2, b"{}", content_type="application/octet-stream"
        )
        header = "Inference-Header-Content-Length"
        tensor = {"name": "data", "datatype": "FP32", "shape": [1, 64]}
        ones = [1] * 64
        v2_inputs: dict[str, list[Any]] = {
            "numbers as strings": [{**tensor, "data": ["1"] * 64}],
            "null": [{**tensor, "data": [None, *ones[1:]]}],
            "fractions as INT32": [
                {**tensor, "datatype": "INT32", "data": [0.5] * 64}
            ],
            "unknown datatype": [{**tensor, "datatype": "F32", "data": ones}],
            "negative shape": [{**tensor, "shape": [-1, 64], "data": ones}],
            "an input twice": [{**tensor, "data": ones}] * 2,
        }
        raw = np.ones(64, np.float32).tobytes()
        sized = {"parameters": {"binary_data_size": len(raw)}}
        of_bytes = {"datatype": "BYTES", "shape": [1]}
        binary_requests: dict[str, Any] = {
            "binary of a list": [],
            "binary of numbers": {"inputs": [1]},
            "binary of negative shape": {
                "inputs": [{**tensor, **sized, "shape": [-1, 64]}]
            },
            "binary of strings cut short": {
                "inputs": [{**tensor, **sized, **of_bytes}]
            },
            "binary of a list of parameters": {
                "inputs": [{**tensor, **sized}],
                "parameters": [1],
            },
        }

        async def post_binary(request: Any) -> tuple[int, str]:
            head = _json(request)
            return await self.post(
                self._v2,
                head + raw,
                content_type="application/octet-stream",
                **{header: str(len(head))},
            )

        return {
            **{
                f"{name}, V2": functools.partial(
                    self.post, self._v2, _json({"inputs": inputs})
                )
                for name, inputs in v2_inputs.items()
            },
            "empty signature, V2": functools.partial(
                self.post,
                self._v2,
                _json(
                    {
                        "parameters": {"signature_name": ""},
                        "inputs": [{**tensor, "data": ones}],
                    }
                ),
            ),
            **{
                f"{name}, V2": functools.partial(post_binary, request)
                for name, request in binary_requests.items()
            },
            **{
                f"{name}, {protocol}": functools.partial(
                    self._post_new, url, body
                )
                for protocol, url in (("V1", self._v1), ("V2", self._v2))
                for name, body in bodies.items()
            },
            "binary without a length, V2": binary,
            "binary of a length x, V2": functools.partial(
                binary, **{header: "x"}
            ),
            "binary without inputs, V2": functools.partial(
                binary, **{header: "2"}
            ),
        }

    async def _post_new(
        self, url: str, body: Callable[[], Any]
    ) -> tuple[int, str]:
        return await self.post(url, body())


def malformed(settings: Settings) -> dict[str, tuple[str, Inputs]]:
    """Returns requests that a model refuses: signature and inputs."""
    x = np.load(settings.data)[:2]
    width = x.shape[1]
    repeats = "max_steps" if settings.kind == "TVAE" else "num_samples"

    def bound(number: Any, data: Any = x) -> tuple[str, Inputs]:
        inputs = {"data": data, repeats: number, "seed": 0}
        return "log_likelihood_bound", inputs

    cases = {
        "too narrow": ("serving_default", {"data": x[:, 1:]}),
        "one row, flat": ("serving_default", {"data": x[0]}),
        "infinite": ("serving_default", {"data": np.full_like(x, np.inf)}),
        "outside the support": ("serving_default", {"data": x + 300.0}),
        "strings": ("serving_default", {"data": np.full((2, width), "a")}),
        "empty": ("serving_default", {"data": x[:0]}),
        "too many rows": (
            "serving_default",
            {"data": np.zeros((10_001, width), np.float32)},
        ),
        f"{repeats} -1": bound(-1),
        f"{repeats} 2e9": bound(2_000_000_000),
        f"{repeats} 2.5": bound(2.5),
        "rows times too many": bound(900, np.zeros((9_000, width), np.float32)),
        "sample -1": ("sample", {"num_samples": -1, "seed": 0}),
        "sample 2e9": ("sample", {"num_samples": 2_000_000_000, "seed": 0}),
        "nothing observed": (
            "serving_observed",
            {"data": x, "observed": np.zeros_like(x)},
        ),
        "observed 0.5": (
            "serving_observed",
            {"data": x, "observed": np.full_like(x, 0.5)},
        ),
        "observed of other shape": (
            "serving_observed",
            {"data": x, "observed": x[:1]},
        ),
        "unknown signature": ("denoise", {"data": x}),
        "unknown input": ("serving_default", {"pixels": x}),
        "no input": ("serving_default", {}),
    }
    latents = np.zeros((2, settings.num_latents), np.float32)
    if settings.kind == "TVAE":
        cases["states 0.5"] = ("decode", {"states": latents + 0.5})
        cases["states 2"] = ("decode", {"states": latents + 2.0})
    else:
        cases["infinite latents"] = ("decode", {"latents": latents + np.inf})
    return cases


def good(settings: Settings) -> dict[str, tuple[str, Inputs]]:
    """Returns requests that a model answers: signature and inputs."""
    x = np.load(settings.data)[: settings.batch_size]
    observed = np.ones_like(x)
    observed[:, ::3] = 0.0
    repeats = "max_steps" if settings.kind == "TVAE" else "num_samples"
    return {
        "default": ("serving_default", {"data": x}),
        "observed": ("serving_observed", {"data": x, "observed": observed}),
        "bound": ("log_likelihood_bound", {"data": x, repeats: 3, "seed": 1}),
        "sample": ("sample", {"num_samples": 4, "seed": 1}),
    }


async def check(settings: Settings, client: Client) -> None:
    """Sends each good and each malformed request once; prints the answers."""
    name, alive = "", good(settings)["default"]
    for name, request in good(settings).items():
        for protocol, send in client.protocols.items():
            status, reason, outputs = await send(*request)
            outputs = {k: np.asarray(v).tolist() for k, v in outputs.items()}
            _print("good", name, protocol, status, reason, outputs=outputs)
    for name, request in malformed(settings).items():
        for protocol, send in client.protocols.items():
            start = time.perf_counter()
            status, reason, _ = await send(*request)
            seconds = time.perf_counter() - start
            after = await send(*alive)
            _print(
                *("malformed", name, protocol, status, reason),
                seconds=seconds,
                after=after[0],
            )
    cases = {**client.raw_cases(settings.limit_bytes), **client.grpc_cases()}
    for title, case in cases.items():
        name, _, protocol = title.rpartition(", ")
        status, reason = await case()
        after = await client.protocols[protocol](*alive)
        _print("malformed", name, protocol, str(status), reason, after=after[0])
    huge = {"data": np.zeros((settings.limit_bytes // 4, 1), np.float32)}
    status, reason, _ = await client.grpc("serving_default", huge)
    after = await client.grpc(*alive)
    _print("malformed", "huge", "gRPC", status, reason, after=after[0])


async def load(settings: Settings, client: Client) -> None:
    """Sends requests for some time, a malformed one each second; prints rates.

    The first second, in which graphs are optimised, does not count.
    """
    process = psutil.Process(settings.pid)
    request = good(settings)["default"]
    bad = itertools.cycle(malformed(settings).values())
    latencies: dict[str, list[float]] = {key: [] for key in client.protocols}
    failures: list[str] = []
    codes: dict[str, int] = {}
    for send in client.protocols.values():
        await send(*request)
    start = time.perf_counter()
    end = start + settings.seconds

    async def repeat(protocol: str) -> None:
        while (before := time.perf_counter()) < end:
            status, reason, _ = await client.protocols[protocol](*request)
            latencies[protocol].append(time.perf_counter() - before)
            if status not in ("200", "OK"):
                failures.append(f"{status}: {reason}")

    async def disturb() -> None:
        for protocol in itertools.cycle(client.protocols):
            if time.perf_counter() >= end:
                return
            status, _, _ = await client.protocols[protocol](*next(bad))
            codes[status] = codes.get(status, 0) + 1
            await asyncio.sleep(1.0)

    async def watch() -> None:
        for number in itertools.count():
            rest = min(start + 60.0 * number, end) - time.perf_counter()
            await asyncio.sleep(max(rest, 0.0))
            now = time.perf_counter() - start
            rss = process.memory_info().rss
            print(json.dumps({"at_s": now, "rss_bytes": rss}), flush=True)
            if now >= settings.seconds:
                return

    repeated = [
        repeat(protocol)
        for protocol in client.protocols
        for _ in range(settings.clients)
    ]
    await asyncio.gather(*repeated, disturb(), watch())
    seconds = time.perf_counter() - start
    result = {
        protocol: {
            "requests": len(values),
            "per_second": len(values) / seconds,
            "p50_ms": 1e3 * float(np.percentile(values, 50)),
            "p99_ms": 1e3 * float(np.percentile(values, 99)),
        }
        for protocol, values in latencies.items()
    }
    print(
        json.dumps(
            {
                "load": result,
                "seconds": seconds,
                "failures": failures[:10],
                "num_failures": len(failures),
                "malformed_codes": codes,
            }
        ),
        flush=True,
    )


async def main(settings: Settings) -> None:
    """Sends each request once, or a load if `seconds` is positive."""
    options = [("grpc.max_send_message_length", 2**30)]
    address = f"127.0.0.1:{settings.grpc_port}"
    async with (
        httpx.AsyncClient(timeout=120.0) as http,
        grpc.aio.insecure_channel(address, options) as channel,
    ):
        client = Client(settings, http, channel)
        await (load if settings.seconds else check)(settings, client)


def _json(body: Any) -> bytes:
    """Returns JSON with numbers that are infinite as doubles for infinity."""
    return json.dumps(body).replace("Infinity", "1e999").encode()


def _print(
    kind: str,
    name: str,
    protocol: str,
    status: str,
    reason: str,
    **rest: Any,
) -> None:
    line = {"kind": kind, "name": name, "protocol": protocol, "status": status}
    print(json.dumps({**line, "reason": reason[:500], **rest}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Settings(**json.loads(sys.argv[1]))))
