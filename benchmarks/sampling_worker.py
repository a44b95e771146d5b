# SPDX-License-Identifier: Apache-2.0
"""Worker process of `sampling`: draws weighted batches by `WeightedBatches`.

`python -m benchmarks.sampling_worker '{"num_points": ..., ...}'` creates the
data, prints a JSON line with "facts", and then runs the measurement that each
line of standard input names:

  graph    seconds per data point, iterating over batches in a graph, as `fit`
  python   seconds per data point, iterating over batches in Python
  draws    seconds per drawn index, without data points
  replace  seconds to replace all weights
  ready    seconds to replace all weights and to return the first batch

Batches are drawn continuously, without epochs, so the time to the first batch
of an iterator only counts for "ready".
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfvae.data import WeightedBatches

_STEPS = 256
_DRAWN_BATCHES = 64


def main(argv: Sequence[str]) -> int:
    """Runs the worker and returns its exit code."""
    try:
        settings = json.loads(argv[0])
        tf.config.threading.set_intra_op_parallelism_threads(
            settings["threads"]
        )
        measures = Measures(settings)
        _print_json({"facts": {"tensorflow": tf.__version__}})
        for line in sys.stdin:
            _print_json({"seconds": measures.named(line.strip())()})
        return 0
    except Exception as err:
        print("error:", " ".join(str(err).split()), file=sys.stderr)
        return 2


class Measures:
    """The measurements of one data set."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Creates data and weights.

        Args:
          settings: "num_points", "num_observed", "batch_size", "k" of rank
            weights, "seed" and "limit" (seconds per measurement).
        """
        self._num_points = settings["num_points"]
        self._limit = settings["limit"]
        generator = np.random.default_rng(settings["seed"])
        offset = settings["k"] * self._num_points
        self._weights = [
            1.0 / (offset + generator.permutation(self._num_points))
            for _ in range(2)
        ]
        shape = (self._num_points, settings["num_observed"])
        self._batches = WeightedBatches(
            generator.random(shape, np.float32),
            self._weights[0],
            settings["batch_size"],
        )
        self._dataset = self._batches.dataset(infinite=True)
        self._draw = tf.function(
            lambda step: self._batches.draw(step, _DRAWN_BATCHES)
        )

    def named(self, name: str) -> Callable[[], float]:
        """Returns a measurement, a function that returns seconds."""
        measures = {
            "graph": self._graph,
            "python": self._python,
            "draws": self._draws,
            "replace": self._replace,
            "ready": self._ready,
        }
        return measures[name]

    def _graph(self) -> float:
        batches = iter(self._dataset)

        def many() -> None:
            _take(batches, tf.constant(_STEPS)).numpy()

        return self._seconds_a_point(many, _STEPS)

    def _python(self) -> float:
        batches = iter(self._dataset)

        def many() -> None:
            for _ in range(_STEPS):
                next(batches)

        return self._seconds_a_point(many, _STEPS)

    def _draws(self) -> float:
        step = 0

        def many() -> None:
            nonlocal step
            self._draw(tf.constant(step, tf.int64)).numpy()
            step += _DRAWN_BATCHES

        return self._seconds_a_point(many, _DRAWN_BATCHES)

    def _replace(self) -> float:
        self._weights.reverse()
        started = time.perf_counter()
        self._batches.replace(self._weights[0])
        return time.perf_counter() - started

    def _ready(self) -> float:
        seconds = self._replace()
        started = time.perf_counter()
        next(iter(self._dataset)).numpy()
        return seconds + time.perf_counter() - started

    def _seconds_a_point(
        self, many: Callable[[], None], num_batches: int
    ) -> float:
        """Returns the seconds per data point.

        Args:
          many: Takes `num_batches` batches.
          num_batches: Number of batches of a call of `many`.
        """
        many()
        started = now = time.perf_counter()
        count = 0
        while now - started < self._limit:
            many()
            count += num_batches * self._batches.batch_size
            now = time.perf_counter()
        return (now - started) / count


@tf.function
def _take(batches: Any, count: tf.Tensor) -> tf.Tensor:
    """Takes batches as a training loop does; returns a value that uses each."""
    total = tf.zeros([])
    for _ in tf.range(count):
        total += next(batches)[0, 0]
    return total


def _print_json(row: Mapping[str, Any]) -> None:
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
