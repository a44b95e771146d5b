# SPDX-License-Identifier: Apache-2.0
r"""Measures weighted batches in PyTorch, for the sampling benchmark.

PyTorch is not a dependency of tfvae; install it in a separate environment:

  python3 -m venv torch_env && torch_env/bin/pip install numpy torch==2.13.0
  echo batched | torch_env/bin/python benchmarks/torch_sampler.py \
      '{"num_points": 10000, "num_observed": 64, "batch_size": 256, "k": 1e-3,
        "seed": 0, "limit": 2.0, "threads": 2}'

Prints a JSON line with "facts", and then one with "seconds" for each line of
standard input, which names a measurement:

  default  seconds per data point, DataLoader with WeightedRandomSampler
  batched  seconds per data point, indexing a TensorDataset by whole batches,
           which is faster
  single   the same in one thread, which is faster on a busy machine
  draws    seconds per index of torch.multinomial, which the sampler calls
  replace  seconds to create a WeightedRandomSampler with other weights
  ready    seconds to create it and to return the first batch of "batched"

Seconds per data point are the time of an epoch of N draws, divided by N. If an
epoch takes longer than the limit, its time is extrapolated from its start,
which draws all indices, and its first batches.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the requested measurements and returns an exit code."""
    settings = json.loads((sys.argv[1:] if argv is None else argv)[0])
    try:
        torch = importlib.import_module("torch")
    except ModuleNotFoundError:
        print(
            "error: torch is not installed for this Python; "
            "pip install numpy torch==2.13.0",
            file=sys.stderr,
        )
        return 2
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    measures = Measures(torch, settings)
    _print_json({"facts": {"torch": torch.__version__}})
    for line in sys.stdin:
        _print_json({"seconds": measures.named(line.strip())()})
    return 0


class Measures:
    """The measurements of one data set."""

    def __init__(self, torch: Any, settings: Mapping[str, Any]) -> None:
        """Creates data and weights.

        Args:
          torch: The module `torch`.
          settings: "num_points", "num_observed", "batch_size", "k" of rank
            weights and "limit" (seconds per measurement).
        """
        self._torch = torch
        self._loading = importlib.import_module("torch.utils.data")
        self._num_points = settings["num_points"]
        self._batch_size = settings["batch_size"]
        self._limit = settings["limit"]
        offset = settings["k"] * self._num_points
        self._weights = [
            1.0 / (offset + torch.randperm(self._num_points).double())
            for _ in range(2)
        ]
        self._points = self._loading.TensorDataset(
            torch.rand(self._num_points, settings["num_observed"])
        )

    def named(self, name: str) -> Callable[[], float]:
        """Returns a measurement, a function that returns seconds."""
        measures = {
            "default": lambda: self._seconds_a_point(self._default),
            "batched": lambda: self._seconds_a_point(self._batched),
            "single": self._single,
            "draws": self._draws,
            "replace": self._replace,
            "ready": self._ready,
        }
        return measures[name]

    def _sampler(self) -> Any:
        return self._loading.WeightedRandomSampler(
            self._weights[0], self._num_points
        )

    def _default(self) -> Iterator[Any]:
        return iter(
            self._loading.DataLoader(
                self._points,
                batch_size=self._batch_size,
                sampler=self._sampler(),
            )
        )

    def _batched(self) -> Iterator[Any]:
        batches = self._loading.BatchSampler(
            self._sampler(), self._batch_size, False
        )
        return iter(
            self._loading.DataLoader(
                self._points, batch_size=None, sampler=batches
            )
        )

    def _single(self) -> float:
        num_threads = self._torch.get_num_threads()
        self._torch.set_num_threads(1)
        try:
            return self._seconds_a_point(self._batched)
        finally:
            self._torch.set_num_threads(num_threads)

    def _seconds_a_point(self, begin: Callable[[], Iterator[Any]]) -> float:
        """Returns the seconds of an epoch, per data point."""
        begun = rest = 0.0
        epochs = count = 0
        while begun + rest < self._limit or not count:
            started = time.perf_counter()
            batches = begin()
            next(batches)
            first = now = time.perf_counter()
            for (points,) in batches:
                count += len(points)
                now = time.perf_counter()
                # The start of an epoch does not count for the limit here, so
                # that it leaves time for batches.
                if rest + now - first >= self._limit:
                    break
            begun += first - started
            rest += now - first
            epochs += 1
            if not count:  # An epoch of a single batch.
                return begun / self._num_points
        return rest / count + begun / epochs / self._num_points

    def _draws(self) -> float:
        started = time.perf_counter()
        self._torch.multinomial(self._weights[0], self._num_points, True)
        return (time.perf_counter() - started) / self._num_points

    def _replace(self) -> float:
        self._weights.reverse()
        started = time.perf_counter()
        self._sampler()
        return time.perf_counter() - started

    def _ready(self) -> float:
        self._weights.reverse()
        started = time.perf_counter()
        next(self._batched())
        return time.perf_counter() - started


def _print_json(row: Mapping[str, Any]) -> None:
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    sys.exit(main())
