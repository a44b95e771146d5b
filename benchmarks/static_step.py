# SPDX-License-Identifier: Apache-2.0
r"""Training steps of a TVAE in fixed shapes, compiled by XLA, and without.

Usage:
  PYTHONPATH=. python -m benchmarks.static_step \
      [--batches=512,2048,8192,32768] [--pool=6] [--steps=5]

Trains TVAEs as `tfvae denoise` does (H = 512, S = 16) on 8 x 8 patches of the
embedded picture "camera" with noise of standard deviation 25, one step of each
form after the other: operation by operation, `compile(jit_compile=True)`, and
the same with a pool of --pool distinct states a data point. On a machine with a
GPU all run there.

Prints, for each number of data points of a batch, the median of data points a
second; the seconds of the first step, which traces and compiles; the operations
of a step: TensorFlow's that the profiler sees, and XLA's after fusion, of which
those in loops run once an iteration (a GPU launches a kernel for each); and
the operations among TensorFlow's whose results a GPU copies to the host before
the step can go on. The last column is the mean number of states that a pool
left out.
"""

from __future__ import annotations

import argparse
import collections
import re
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import tfvae
from benchmarks import profiling
from benchmarks.tables import cell, print_table
from tfvae.data.images import embedded_image
from tfvae.ops.patches import extract_patches

_STD, _SIDE = 25.0, 8
# Kinds of operations that have their result, or its size, on the host of a GPU
# before the next can start.
_ON_HOST = ("Unique", "UniqueV2", "Where", "LoopCond", "If", "Assert")
# Instructions of XLA that run no kernel.
_FREE = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast"),
    *("after-all", "iota", "partition-id", "replica-id"),
)
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = .*? ([a-z][\w\-]*)\(")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")


class Kernels(NamedTuple):
    """Operations of a compiled step."""

    outside: int
    """Those that run once."""
    in_loops: int
    """Those of the bodies and conditions of loops."""


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, prints a table for each number of data points of a batch."""
    given = _options(argv)
    points = _patches()
    devices = tf.config.list_physical_devices("GPU")
    print(f"{len(points):,} patches; GPUs: {len(devices)}")
    for batch_size in (int(one) for one in given.batches.split(",")):
        print(f"\nbatch of {batch_size}")
        _compare(points, batch_size, given.pool * batch_size, given.steps)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batches", default="512,2048")
    parser.add_argument("--pool", type=int, default=6)
    parser.add_argument("--steps", type=int, default=5)
    return parser.parse_args(argv)


def _patches() -> np.ndarray:
    picture = embedded_image("camera")
    rng = np.random.default_rng(0)
    noisy = picture + rng.normal(0.0, _STD, picture.shape)
    patches = extract_patches(noisy.astype(np.float32), (_SIDE, _SIDE))
    return patches.reshape(-1, _SIDE**2)


def _model(
    points: np.ndarray, pool_size: int | None, is_compiled: bool
) -> tfvae.TVAE:
    keras.utils.set_random_seed(0)
    model = tfvae.TVAE(
        tfvae.FullyConnectedDecoder(_SIDE**2, (128,), "leaky_relu"),
        num_latents=512,
        num_data=len(points),
        num_states=16,
        evolution=tfvae.Evolution(
            num_parents=2,
            num_children=2,
            num_generations=1,
            pool_size=pool_size,
        ),
        m_batch_size=128,
    )
    model.adapt(points)
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=is_compiled)
    model.optimizer.build(model.trainable_variables)
    return model


def _compare(
    points: np.ndarray, batch_size: int, pool_size: int, num_steps: int
) -> None:
    """Trains the forms in turn, and prints a table."""
    points = points[: (num_steps + 1) * batch_size]
    models = {
        "operations": _model(points, None, False),
        "XLA": _model(points, None, True),
        f"XLA, pool of {pool_size}": _model(points, pool_size, True),
    }
    steps = {name: _step(model) for name, model in models.items()}
    rng = np.random.default_rng(1)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(num_steps + 1):
        index = rng.choice(len(points), batch_size, replace=False)
        batch = tf.constant(points[index]), tf.constant(index, tf.int32)
        for name, step in steps.items():
            start = time.perf_counter()
            float(step(*batch)["bound"])
            seconds[name].append(time.perf_counter() - start)
    rows = []
    for name, model in models.items():
        rate = batch_size / statistics.median(seconds[name][1:])
        calls = collections.Counter(
            {
                one["type"]: one["calls"]
                for one in profiling.operation_times(steps[name], [batch])
            }
        )
        kernels = kernels_of(model, batch) if model.is_static else None
        left_out = None
        if "left_out" in model._means:
            left_out = float(model._means["left_out"].result())
        rows.append(
            [
                name,
                f"{rate:,.0f}",
                f"{seconds[name][0]:.1f}",
                f"{calls.total():,.0f}",
                cell(kernels and kernels.outside, ",d"),
                cell(kernels and kernels.in_loops, ",d"),
                f"{sum(calls[kind] for kind in _ON_HOST):,.0f}",
                cell(left_out, ",.0f"),
            ]
        )
    print_table(
        [
            *("form", "points/s", "first s", "TensorFlow", "XLA", "in loops"),
            *("to host", "left out"),
        ],
        rows,
    )


def _step(model: tfvae.TVAE) -> Callable[..., dict[str, tf.Tensor]]:
    return tf.function(lambda x, index: model.train_step((x, index)))


def kernels_of(model: tfvae.TVAE, batch: tuple[Any, Any]) -> Kernels:
    """Counts the operations of a compiled step after fusion.

    Args:
      model: Compiled with `jit_compile=True`.
      batch: Data points `[B, D]` and their indices `[B]`.
    """
    step, states = model._compiled_step, model.states
    if step is None or states is None:
        raise ValueError("`model` must be compiled with jit_compile=True")
    drawn, _ = step.distinct(*batch, None)
    return count_kernels(step.hlo(drawn, states.gather(drawn.index).packed))


def count_kernels(text: str) -> Kernels:
    """Counts the operations of an HLO module, as XLA prints it.

    Args:
      text: The module, optimised: fused computations count as one operation.
    """
    counts: collections.Counter[str] = collections.Counter()
    loops: set[str] = set()
    entry = name = ""
    for line in text.splitlines():
        begins = _COMPUTATION.match(line)
        if begins:
            name = begins.group(2)
            entry = name if begins.group(1) else entry
            continue
        found = _INSTRUCTION.match(line)
        if not found:
            continue
        if found.group(1) not in _FREE:
            counts[name] += 1
        if found.group(1) == "while":
            loops.update(re.findall(r"(?:body|condition)=%?([\w.\-]+)", line))
    return Kernels(counts[entry], sum(counts[one] for one in loops))


if __name__ == "__main__":
    main()
