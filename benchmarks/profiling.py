# SPDX-License-Identifier: Apache-2.0
"""Profile of a training step: time by operation, and the roofline limit."""

from __future__ import annotations

import collections
import math
import pathlib
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfvae.networks.binary import MIN_SPARSE_INPUTS, BinaryDense
from tfvae.ops import densities
from tfvae.tvae import TVAE

_MATMUL_SIZE = 2048
_MATMULS = 9
_WARM_UP = 3
# `name:type`, the profiler's format of the names of TensorFlow operations.
_OPERATION = re.compile(r"[^:\s]+:(_?[A-Z]\w*)")
# Operations that contain other ones.
_CONTAINERS = re.compile(r"_?(Stateful|Stateless)?(PartitionedCall|While|If)")

Batch = tuple[tf.Tensor, tf.Tensor]
"""Data points `[B, D]` and their indices, int32 `[B]`."""


class Decoded(NamedTuple):
    """Mean numbers of states that are decoded in a step."""

    e_states: float
    """States decoded by the E-step."""
    m_states: float
    """States decoded by the M-step, forward and backward."""
    ones: float
    """Mean number of ones of a state."""


def profile(
    model: TVAE, points: np.ndarray, batch_size: int, num_steps: int
) -> dict[str, Any]:
    """Profiles the training step of a trained, compiled model.

    The model is trained further by the profiled steps.

    Args:
      model: The model.
      points: `[N, D]`, its training data.
      batch_size: Data points of a batch, B.
      num_steps: Number of steps of the medians.

    Returns:
      Median milliseconds of a step ("step_ms") and of its E-step ("e_step_ms"),
      milliseconds by type of operation ("operations"), floating-point
      operations of a step ("flops", None unless the decoder only has dense
      layers) and their rate as a fraction of the measured rate of matrix
      products ("roofline_share").
    """
    batches = _batches(points, batch_size, num_steps + _WARM_UP)
    step = tf.function(lambda x, index: model.train_step((x, index)))
    step_seconds = _median_seconds(step, batches)
    e_step_seconds = 0.0
    if not model.is_exhaustive:
        e_step_seconds = _median_seconds(_e_step(model), batches)
    operations = operation_times(step, batches[_WARM_UP:])
    decoded = _decoded(model, batches[:2])
    matmul_rate = measured_matmul_rate()
    flops = _arithmetic(model, min(batch_size, len(points)), decoded)
    found = {
        "step_ms": 1e3 * step_seconds,
        "e_step_ms": 1e3 * e_step_seconds,
        "operations": operations,
        "decoded": decoded._asdict(),
        "matmul_gflops": matmul_rate / 1e9,
        "flops": flops,
        "roofline_share": None,
    }
    if flops is not None:
        ideal = sum(flops.values()) / matmul_rate
        found["ideal_ms"] = 1e3 * ideal
        found["roofline_share"] = ideal / step_seconds
    return found


def measured_matmul_rate(size: int = _MATMUL_SIZE) -> float:
    """Returns the median FLOP/s of float32 matrix products.

    Args:
      size: Rows and columns of the matrices.
    """
    matrix = tf.random.stateless_uniform([size, size], seed=[0, 0])
    product = tf.function(lambda a: tf.reduce_sum(tf.matmul(a, a)))
    product(matrix)
    seconds = [_seconds(product, matrix) for _ in range(_MATMULS)]
    return 2.0 * size**3 / statistics.median(seconds)


def _batches(points: np.ndarray, batch_size: int, count: int) -> list[Batch]:
    """Returns `count` whole batches of repeatedly shuffled data."""
    rng = np.random.default_rng(0)
    size = min(batch_size, len(points))
    found: list[Batch] = []
    while len(found) < count:
        order = rng.permutation(len(points)).astype(np.int32)
        for index in order[: len(order) // size * size].reshape(-1, size):
            found.append((tf.constant(points[index]), tf.constant(index)))
    return found[:count]


def _e_step(model: TVAE) -> Callable[..., tf.Tensor]:
    """Returns a function that runs only the E-step, on a batch."""

    def e_step(x: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        x, observed = densities.split_missing(x)
        return model._e_step(x, observed, index).log_joints

    return tf.function(e_step)


def _seconds(function: Callable[..., Any], *arguments: tf.Tensor) -> float:
    started = time.perf_counter()
    tf.nest.map_structure(lambda result: result.numpy(), function(*arguments))
    return time.perf_counter() - started


def _median_seconds(
    function: Callable[..., Any], batches: Sequence[Batch]
) -> float:
    seconds = [_seconds(function, *batch) for batch in batches]
    return statistics.median(seconds[_WARM_UP:])


def operation_times(
    step: Callable[..., Any], batches: Sequence[Batch]
) -> list[dict[str, Any]]:
    """Returns milliseconds and calls per step by type, the longest first.

    Threads run in parallel, so the sum may exceed the time of the step.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2)
        tf.profiler.experimental.start(folder, options)
        try:
            for batch in batches:
                step(*batch)
        finally:
            tf.profiler.experimental.stop()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        content = path.read_bytes()
    seconds: dict[str, float] = collections.defaultdict(float)
    calls: collections.Counter[str] = collections.Counter()
    for kind, duration in _events(content):
        seconds[kind] += duration
        calls[kind] += 1
    return [
        {
            "type": kind,
            "ms": 1e3 * total / len(batches),
            "calls": calls[kind] / len(batches),
        }
        for kind, total in sorted(seconds.items(), key=lambda one: -one[1])
    ]


def _events(content: bytes) -> Iterator[tuple[str, float]]:
    """Yields the type and the seconds of each operation that was run."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(content)
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                match = _OPERATION.fullmatch(name)
                if match and not _CONTAINERS.fullmatch(match.group(1)):
                    yield match.group(1), event.duration_ps / 1e12


def _decoded(model: TVAE, batches: Sequence[Batch]) -> Decoded:
    """Counts the decoded states of steps, which it runs eagerly."""
    num_states = {False: 0.0, True: 0.0}
    num_ones = 0.0
    decode = model._joint.decode

    def counting(states: tf.Tensor, training: bool = False) -> tf.Tensor:
        nonlocal num_ones
        num_states[training] += math.prod(states.shape[:-1])
        num_ones += float(tf.reduce_sum(states))
        return decode(states, training)

    model._joint.decode = counting  # type: ignore[method-assign]
    try:
        for batch in batches:
            model.train_step(batch)
    finally:
        del model._joint.decode
    return Decoded(
        num_states[False] / len(batches),
        num_states[True] / len(batches),
        num_ones / max(sum(num_states.values()), 1.0),
    )


def _arithmetic(
    model: TVAE, batch_size: int, decoded: Decoded
) -> dict[str, float] | None:
    """Returns the floating-point operations of a step by purpose.

    A product of an m x k and a k x n matrix takes 2 m k n operations, and its
    gradient twice as many; a squared error of D entries takes 3 D, and its
    gradient the same number.
    """
    per_state = _decoder_flops(model, decoded.ones)
    if per_state is None:
        return None
    width = model.num_observed
    num_m = model.num_m_states or model.num_states
    if model.is_exhaustive or model.evolution.shared:
        scores = 2.0 * batch_size * decoded.e_states * width
    else:
        evolution = model.evolution
        children = evolution.children_per_generation * evolution.num_generations
        scores = 3.0 * batch_size * (model.num_states + children) * width
    return {
        "E-step: decoder": decoded.e_states * per_state,
        "E-step: log-joints": scores,
        "M-step: decoder and its gradient": 3.0 * decoded.m_states * per_state,
        "M-step: log-joints and their gradient": 6.0
        * batch_size
        * num_m
        * width,
    }


def _decoder_flops(model: TVAE, num_ones: float) -> float | None:
    """Returns the floating-point operations that decode one state."""
    total = 0.0
    for variable in model.decoder.trainable_variables:
        if len(variable.shape) == 1:
            continue  # The cost of adding biases is negligible.
        if len(variable.shape) != 2:
            return None
        total += 2.0 * math.prod(variable.shape)
    for layer in model.decoder._flatten_layers():
        if not isinstance(layer, BinaryDense):
            continue
        num_inputs, num_outputs = layer.kernel.shape
        if num_inputs >= MIN_SPARSE_INPUTS:  # It adds the rows of the ones.
            total += (num_ones - 2.0 * num_inputs) * num_outputs
    return total
