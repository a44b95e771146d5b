# SPDX-License-Identifier: Apache-2.0
"""Benchmark: an exported model under load, served by KServe.

`examples/kserve_server.py` serves a small model in a Python with TensorFlow and
KServe, without tfvae. `kserve_client` first sends each good and each malformed
request once by each protocol, then many good ones at a time for some minutes,
with a malformed one each second.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import pathlib
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from benchmarks.tables import print_table
from tfvae import (
    likelihoods,
    networks,
    priors,
    processes,
    serving,
    typed_gin,
    vae,
)
from tfvae.runs.run_directory import RunDirectory, versions
from tfvae.tvae import TVAE, Evolution

_ROOT = pathlib.Path(__file__).parents[1]
_SERVER = _ROOT / "examples" / "kserve_server.py"
_CLIENT = pathlib.Path(__file__).with_name("kserve_client.py")
_D, _M = 64, 16
_NUM_DATA = 256
# Seconds that a server may take to be ready.
_PATIENCE = 120.0
_MB = 2**20


class Server(NamedTuple):
    """A server that is ready."""

    http_port: int
    grpc_port: int
    pid: int


@typed_gin.configurable
def serving_load(
    run_dir: str | os.PathLike[str],
    *,
    kserve_python: str | None = None,
    kind: str = "TVAE",
    seconds: float = 600.0,
    batch_size: int = 16,
    clients: int = 2,
) -> dict[str, Any]:
    """Serves a model, and measures it under load.

    Args:
      run_dir: Folder for benchmark_serving.json.
      kserve_python: A Python interpreter with TensorFlow and KServe; None for
        this one.
      kind: The kind of the model, "TVAE" or "VAE".
      seconds: Duration of the load.
      batch_size: Data points of a request.
      clients: Concurrent requests by each of the three protocols.

    Returns:
      The settings and the measurements, as in the JSON file.

    Raises:
      ValueError: If `kind` is unknown, or a number is not positive, or
        `batch_size` is larger than the data.
      RuntimeError: If the server does not start, or a client fails.
    """
    if not (seconds > 0.0 and clients >= 1 and 1 <= batch_size <= _NUM_DATA):
        raise ValueError(
            "`seconds` and `clients` must be positive, and `batch_size` in 1 "
            f"to {_NUM_DATA}, got {seconds!r}, {clients!r} and {batch_size!r}"
        )
    python = kserve_python or sys.executable
    run = RunDirectory(run_dir)
    with run.locked(), tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model = make_model(kind)
        serving.export_saved_model(model, folder / "model")
        settings = {
            "kind": kind,
            "data": str(save_data(folder)),
            "num_latents": _M,
            "batch_size": batch_size,
            "clients": clients,
        }
        with server(python, folder / "model", folder / "server.log") as ready:
            settings.update(ready._asdict())
            checks = client(python, settings, folder)
            load = client(python, {**settings, "seconds": seconds}, folder)
        result = {
            **{key: settings[key] for key in ("kind", "batch_size", "clients")},
            "checks": [row for row in checks if row["kind"] == "malformed"],
            "memory": load[:-1],
            **load[-1],
            "versions": versions(),
        }
        path = run.write_json("benchmark_serving.json", result)
    _print(result)
    print(f"wrote {path}")
    return result


def make_model(kind: str) -> TVAE | vae.VAE:
    """Returns a small model of binary data, `[N, 64]`, with 16 latents."""
    keras.utils.set_random_seed(1)
    decoder = networks.FullyConnectedDecoder(_D)
    if kind == "TVAE":
        evolution = Evolution(num_parents=4, num_children=4, num_generations=1)
        return TVAE(
            decoder,
            num_latents=_M,
            likelihood=likelihoods.BernoulliLikelihood(),
            num_states=32,
            evolution=evolution,
            inference_steps=20,
        )
    if kind == "VAE":
        return vae.VAE(
            vae.learnable(
                lambda outputs: networks.fully_connected_encoder(outputs, _D),
                _M,
            ),
            decoder,
            priors.StandardNormalPrior(_M),
            likelihoods.BernoulliLikelihood(),
        )
    raise ValueError(f'`kind` must be "TVAE" or "VAE", got {kind!r}')


def save_data(folder: pathlib.Path) -> pathlib.Path:
    """Writes binary data `[256, 64]` to a file, and returns its path."""
    path = folder / "data.npy"
    rng = np.random.default_rng(1)
    np.save(path, (rng.random((_NUM_DATA, _D)) < 0.4).astype(np.float32))
    return path


@contextlib.contextmanager
def server(
    python: str, model: pathlib.Path, log: pathlib.Path
) -> Iterator[Server]:
    """Serves a SavedModel, and ends the server on exit.

    Args:
      python: A Python interpreter with TensorFlow and KServe.
      model: Folder of the SavedModel.
      log: File for what the server writes to its standard error.

    Yields:
      Its ports and process, once it is ready.

    Raises:
      RuntimeError: If it does not get ready.
    """
    http_port, grpc_port = _free_ports(2)
    argv = [python, str(_SERVER), f"--model_dir={model}"]
    argv += [f"--http_port={http_port}", f"--grpc_port={grpc_port}"]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    # Nobody reads the access log that it prints.
    quiet = ["sh", "-c", 'exec "$0" "$@" > /dev/null']
    process = processes.Process(
        [*quiet, *argv], log=log, environment=environment
    )
    try:
        _wait_until_ready(f"http://127.0.0.1:{http_port}", process, log)
        yield Server(http_port, grpc_port, process.pid)
    finally:
        process.end()


def client(
    python: str, settings: Mapping[str, Any], folder: pathlib.Path
) -> list[dict[str, Any]]:
    """Runs `kserve_client`, and returns what it prints.

    Args:
      python: A Python interpreter with KServe.
      settings: Of the client.
      folder: Folder for its log.

    Raises:
      RuntimeError: If it fails.
    """
    log = folder / "client.log"
    argv = [python, str(_CLIENT), json.dumps(settings)]
    process = processes.Process(argv, log=log)
    rows = []
    try:
        for line in process.lines():
            rows.append(json.loads(line))
            if "rss_bytes" in rows[-1]:
                row = rows[-1]
                print(
                    f"after {row['at_s']:.0f} s: "
                    f"{row['rss_bytes'] / _MB:.1f} MB",
                    flush=True,
                )
    finally:
        ended = process.end(timeout=10.0)
    if ended.code:
        raise RuntimeError(
            f"the client {ended.how}: {processes.last_line(log)}"
        )
    return rows


def _free_ports(number: int) -> list[int]:
    """Returns ports that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_until_ready(
    url: str, process: processes.Process, log: pathlib.Path
) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and not process.has_ended:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"{url}/v2/models/model/ready"):
                return
        time.sleep(0.2)
    raise RuntimeError(f"the server must start: {processes.last_line(log)}")


def _print(result: Mapping[str, Any]) -> None:
    """Prints the measurements."""
    print_table(
        ["", "requests/s", "p50 ms", "p99 ms"],
        [
            [
                protocol,
                f"{one['per_second']:.1f}",
                f"{one['p50_ms']:.1f}",
                f"{one['p99_ms']:.1f}",
            ]
            for protocol, one in result["load"].items()
        ],
    )
    answers = collections.Counter(
        (row["protocol"], row["status"], row["after"])
        for row in result["checks"]
    )
    print("\nmalformed requests, and a good one after each:")
    print_table(
        ["protocol", "status", "after", "requests"],
        [
            [*map(str, key), str(number)]
            for key, number in sorted(answers.items())
        ],
    )
    print(f"\nunder load: {result['malformed_codes']}")
    print(f"good requests that failed: {result['num_failures']}")
