# SPDX-License-Identifier: Apache-2.0
"""What training a TVAE takes, by formulas: bytes, and seconds a data point.

`python -m benchmarks.beyond_memory --case=costs` compares them with what is
measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from tfvae.ops import bits
from tfvae.tvae.states import DiskStateStore, state_bytes

if TYPE_CHECKING:
    from tfvae.tvae.model import TVAE

# Rows and columns of the matrices by which the rate is measured, and how often.
_SIZE, _REPEATS = 512, 20
# The constants below are fitted to the processor time of one thread on settings
# of H from 8 to 512, S from 16 to 200, B from 32 to 512, and decoders of 192 to
# 442,000 products. The former two are times relative to
# those of the products that are measured: larger ones are faster, and
# gradients are not products alone.
_FORWARD, _GRADIENT = 0.4, 1.0
# Seconds for an entry of a comparison of a state with a data point (differences
# and squares, which memory limits), or for a pair of them among which the best
# are selected, and for a state, which is drawn, hashed and
# selected; whatever the threads.
_ENTRY_SECONDS, _STATE_SECONDS = 4e-9, 1e-7
# Seconds that a step takes to start its two thousand operations, whatever their
# sizes.
_STEP_SECONDS = 0.0035
# Of data points whose distinct states are counted.
_MOST_COUNTED = 512


class Work(NamedTuple):
    """What decides about the time for a data point.

    Attributes:
      products: Entries of the decoder's matrices.
      num_observed: D.
      num_states: S.
      num_children: States that an E-step makes for a data point.
      num_m_states: M.
      num_sharing: Data points that share their states, B or 1.
      distinct: Fraction of the states of a batch that differ; each of them is
        decoded once.
    """

    products: int
    num_observed: int
    num_states: int
    num_children: int
    num_m_states: int
    num_sharing: int
    distinct: float


def point_seconds(work: Work, rate: float) -> float:
    """Returns the time for a data point, without that to start a step.

    Distinct states of the E-step are decoded, in 2 operations for each product
    of entries, and those of the M-step with gradients, in 6. Where data points
    share their states, each of these is compared with all of them by products
    of 2 D operations; else a state is compared entry by entry.

    Args:
      work: What decides about it.
      rate: That of `matrix_rate`.
    """
    num_e_states = work.num_states + work.num_children
    is_shared = work.num_sharing > 1
    compared = work.num_observed * work.num_sharing if is_shared else 0
    forward = 2.0 * num_e_states * (work.products + compared)
    gradient = 6.0 * work.num_m_states * work.products
    entries = 2.0 * work.num_m_states * work.num_observed
    if is_shared:  # Of all pairs the best are selected.
        entries += work.distinct * num_e_states * work.num_sharing
    else:
        entries += num_e_states * work.num_observed
    return (
        work.distinct * (_FORWARD * forward + _GRADIENT * gradient) / rate
        + _ENTRY_SECONDS * entries
        + _STATE_SECONDS * (num_e_states + work.num_m_states)
    )


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
        distinct=distinct_fraction(model, batch_size),
    )


def distinct_fraction(model: TVAE, batch_size: int) -> float:
    """Returns the fraction of the states of a batch that differ.

    It is that of the first data points as training has left them. Before
    training it is 1, or what 2**H states allow: states that are drawn first
    coincide, and those of trained models may all differ.

    Args:
      model: The model, built.
      batch_size: Data points of a batch of this process.
    """
    num_states = batch_size * model.num_states
    most = min(1.0, 2.0 ** min(model.num_latents, 64) / num_states)
    if model.states is None:
        return most
    first = min(model.num_data, batch_size, _MOST_COUNTED)
    found = model.states.gather(tf.range(first))
    packed = found.packed.numpy()[found.visited.numpy()]
    if not len(packed):
        return most
    keys = bits.keys(tf.constant(packed.reshape(-1, packed.shape[-1]))).numpy()
    return len(np.unique(keys)) / len(keys)


def expected_speed(work: Work, batch_size: int, rate: float) -> float:
    """Returns the data points a second to expect, without other programs.

    Args:
      work: What decides about it.
      batch_size: Data points of a batch of this process.
      rate: That of `matrix_rate`.
    """
    return 1.0 / (point_seconds(work, rate) + _STEP_SECONDS / batch_size)


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


def matrix_rate(clock: Callable[[], float] = time.perf_counter) -> float:
    """Measures the float32 matrix products of this machine, operations/s.

    It takes about a tenth of a second; the fastest of several counts, as other
    programs may interrupt the others.

    Args:
      clock: Returns seconds.
    """
    matrix = tf.ones([_SIZE, _SIZE])
    seconds = []
    for _ in range(_REPEATS + 1):
        start = clock()
        tf.linalg.matmul(matrix, matrix).numpy()
        seconds.append(clock() - start)
    return 2.0 * _SIZE**3 / min(seconds[1:])
