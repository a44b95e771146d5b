# SPDX-License-Identifier: Apache-2.0
"""What training a TVAE takes, by formulas: bytes, and operations a data point.

`benchmarks/beyond_memory.py` compares them with what is measured.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

import tensorflow as tf

from tfvae.tvae.states import DiskStateStore, state_bytes

if TYPE_CHECKING:
    from tfvae.tvae.model import TVAE

# Rows and columns of the matrices by which the rate is measured, and how often.
_SIZE, _REPEATS = 512, 5
# Fraction of the rate of matrix products at which the operations that are
# counted are done, with shared and with own candidates; the rest of the time is
# for selection, hashing and random numbers. Measured on a core with AVX-512:
# 0.24 and 0.37, and 0.06 and 0.09.
_SHARED_EFFICIENCY, _OWN_EFFICIENCY = 0.3, 0.08
# Seconds that a step takes to start its two thousand operations, whatever their
# sizes: 0.006 to 0.045 on a core that was shared with other programs.
_STEP_SECONDS = 0.01


class Work(NamedTuple):
    """What decides about the operations for a data point.

    Attributes:
      products: Entries of the decoder's matrices.
      num_observed: D.
      num_states: S.
      num_children: States that an E-step makes for a data point.
      num_m_states: M.
      num_sharing: Data points that share their states, B or 1.
    """

    products: int
    num_observed: int
    num_states: int
    num_children: int
    num_m_states: int
    num_sharing: int


def operations(work: Work) -> float:
    """Returns the floating-point operations for a data point, at most.

    A matrix product takes two for each product of entries, and its gradient
    twice as many as itself. Each state of the E-step is decoded once and
    compared with all data points that share it, in 2 D operations, or 3 D with
    its own alone; states of the M-step are decoded with gradients, and compared
    in 6 D. States that several data points have in common are counted for each
    of them, and selection, hashing and random numbers not at all.
    """
    num_e_states = work.num_states + work.num_children
    compared = 3.0 * work.num_observed
    if work.num_sharing > 1:
        compared = 2.0 * work.num_observed * work.num_sharing
    of_e_step = num_e_states * (2.0 * work.products + compared)
    of_m_step = work.num_m_states * (
        6.0 * work.products + 6.0 * work.num_observed
    )
    return of_e_step + of_m_step


def work_of(model: TVAE, batch_size: int) -> Work | None:
    """Returns the work of a model.

    Args:
      model: The model, built.
      batch_size: Data points of a batch of this process.

    Returns:
      None where the decoder has other layers than dense ones, or all states are
      enumerated.
    """
    shapes = [one.shape for one in model.decoder.trainable_variables]
    if model.is_exhaustive or max(map(len, shapes)) > 2:
        return None
    evolution = model.evolution
    return Work(
        products=sum(math.prod(one) for one in shapes if len(one) == 2),
        num_observed=model.num_observed,
        num_states=model.num_states,
        num_children=evolution.children_per_generation
        * evolution.num_generations,
        num_m_states=model.num_m_states or model.num_states,
        num_sharing=batch_size if evolution.shared else 1,
    )


def expected_speed(work: Work, batch_size: int, rate: float) -> float:
    """Returns the data points a second to expect, without other programs.

    Args:
      work: What decides about it.
      batch_size: Data points of a batch of this process.
      rate: That of `matrix_rate`.
    """
    is_shared = work.num_sharing > 1
    efficiency = _SHARED_EFFICIENCY if is_shared else _OWN_EFFICIENCY
    seconds = operations(work) / (efficiency * rate)
    return 1.0 / (seconds + _STEP_SECONDS / batch_size)


class Room(NamedTuple):
    """Bytes that a process needs for the states of its data points."""

    memory: int
    disk: int


def room_for_states(model: TVAE) -> Room:
    """Returns where the states of a model are, by their bytes."""
    if model.states is None:
        return Room(0, 0)
    num_bytes = state_bytes(model.num_data, model.num_states, model.num_latents)
    if isinstance(model.states, DiskStateStore):
        return Room(model.num_data, num_bytes - model.num_data)
    return Room(num_bytes, 0)


def matrix_rate() -> float:
    """Measures the float32 matrix products of this machine, operations/s.

    It takes a few hundredths of a second; the fastest of several counts.
    """
    matrix = tf.ones([_SIZE, _SIZE])
    seconds = []
    for _ in range(_REPEATS + 1):
        start = time.perf_counter()
        tf.linalg.matmul(matrix, matrix).numpy()
        seconds.append(time.perf_counter() - start)
    return 2.0 * _SIZE**3 / min(seconds[1:])
