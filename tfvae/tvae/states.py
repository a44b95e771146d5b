# SPDX-License-Identifier: Apache-2.0
"""Storage of the latent states of all training data points."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tqdm

from tfvae import resources
from tfvae.ops import bits, random, truncated

STATE_NAMES = ("packed", "joints")
"""Name suffixes of variables with one row per data point, for checkpoints."""

# Bits of initial states that are drawn at a time; bounds the memory.
_BITS_PER_DRAW = 2**24
# Data points whose states are copied at a time.
_ROWS_AT_ONCE = 2**14


@keras.saving.register_keras_serializable("tfvae")
class StateStore(keras.layers.Layer):
    """S distinct packed states and their log-joints per data point.

    Its weights take N S ceil(H / 8) + 4 N S bytes and are saved with the
    model. Rows are addressed by data index, eagerly or in graphs.

    Attributes:
      packed: uint8 weight `[N, S, W]`, each data point's best state first.
      log_joints: float32 weight `[N, S]`, descending; nats at the parameters
        when the data point was last visited, -inf before.
    """

    def __init__(
        self, num_data: int, num_states: int, num_latents: int, **kwargs: Any
    ):
        """Creates the store; `initialize` draws the initial states.

        Args:
          num_data: N.
          num_states: S.
          num_latents: H.
          **kwargs: Keyword arguments of `keras.layers.Layer`.

        Raises:
          ValueError: If the states do not fit into memory.
        """
        super().__init__(**{"trainable": False, **kwargs})
        self.num_data = num_data
        self.num_states = num_states
        self.num_latents = num_latents
        packed_bytes = bits.packed_size(num_latents)
        resources.check_memory(
            state_bytes(num_data, num_states, num_latents),
            f"{num_states} states of {num_data:,} data points",
            "take a smaller `num_states`, or fewer data points",
        )
        self.packed = self.add_weight(
            shape=(num_data, num_states, packed_bytes),
            initializer="zeros",
            dtype="uint8",
            trainable=False,
            name="packed",
        )
        self.log_joints = self.add_weight(
            shape=(num_data, num_states),
            initializer=keras.initializers.Constant(-float("inf")),
            dtype="float32",
            trainable=False,
            name="log_joints",
        )
        self.built = True

    def initialize(self, seed: tf.Tensor) -> None:
        """Draws distinct states for every data point.

        Args:
          seed: `[2]` int32.
        """
        for start, packed in _first_states(self, seed):
            stop = start + len(packed)
            self.packed.value.scatter_update(
                tf.IndexedSlices(packed, tf.range(start, stop))
            )

    def copy_rows(self, other: StateStore | DiskStateStore) -> None:
        """Takes over the states of as many data points as both stores have.

        Args:
          other: A store of as many states and latents.
        """
        _copy_rows(other, self)

    def gather(self, index: tf.Tensor) -> truncated.StateSet:
        """Returns the states of the data points `index`, int `[B]`."""
        return truncated.StateSet(
            tf.gather(self.packed.value, index),
            tf.gather(self.log_joints.value, index),
        )

    def scatter(self, index: tf.Tensor, states: truncated.StateSet) -> None:
        """Replaces the states of the data points `index`, int `[B]`."""
        self.packed.value.scatter_update(tf.IndexedSlices(states.packed, index))
        self.log_joints.value.scatter_update(
            tf.IndexedSlices(states.log_joints, index)
        )


class DiskStateStore:
    """As `StateStore`, with the states in a temporary file.

    The file is in the folder of `tempfile.gettempdir()`, which the environment
    variable TMPDIR chooses, has no name, and so goes away with the process. The
    states are no weights: Keras's files do not have them, checkpoints do. The
    system takes back the memory that it caches the file in when it is needed.

    Attributes:
      packed: uint8 `np.memmap` `[N, S, W]`, each data point's best state first.
      log_joints: float32 `np.memmap` `[N, S]`, see `StateStore`.
    """

    weights: tuple[()] = ()

    def __init__(self, num_data: int, num_states: int, num_latents: int):
        """Creates the file; `initialize` draws the initial states.

        Args:
          num_data: N.
          num_states: S.
          num_latents: H.

        Raises:
          OSError: If the states do not fit on the disk.
        """
        self.num_data = num_data
        self.num_states = num_states
        self.num_latents = num_latents
        resources.check_disk_space(
            tempfile.gettempdir(),
            state_bytes(num_data, num_states, num_latents),
            f"a temporary file for {num_states} states of {num_data:,} data "
            f"points in {tempfile.gettempdir()}",
        )
        shape = (num_data, num_states)
        packed_bytes = bits.packed_size(num_latents)
        self.packed = _temporary(np.uint8, (*shape, packed_bytes))
        self.log_joints = _temporary(np.float32, shape)
        self.log_joints[:] = -np.inf

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by the names of `STATE_NAMES`."""
        return {"packed": self.packed, "joints": self.log_joints}

    def initialize(self, seed: tf.Tensor) -> None:
        """Draws the states that a `StateStore` draws; seed `[2]` int32."""
        for start, packed in _first_states(self, seed):
            self.packed[start : start + len(packed)] = packed.numpy()

    def copy_rows(self, other: StateStore | DiskStateStore) -> None:
        """Takes over the states of as many data points as both stores have.

        Args:
          other: A store of as many states and latents.
        """
        _copy_rows(other, self)

    def gather(self, index: tf.Tensor) -> truncated.StateSet:
        """Returns the states of the data points `index`, int `[B]`."""
        packed, log_joints = tf.numpy_function(
            self._read, [index], (tf.uint8, tf.float32)
        )
        shape = [index.shape[0], *self.packed.shape[1:]]
        return truncated.StateSet(
            tf.ensure_shape(packed, shape),
            tf.ensure_shape(log_joints, shape[:2]),
        )

    def scatter(self, index: tf.Tensor, states: truncated.StateSet) -> None:
        """Replaces the states of the data points `index`, int `[B]`."""
        tf.numpy_function(self._write, [index, *states], [])

    def _read(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # A disk reads ahead, so ascending order is what it does best.
        order = np.argsort(index)
        packed = np.empty((len(index), *self.packed.shape[1:]), np.uint8)
        log_joints = np.empty((len(index), self.num_states), np.float32)
        packed[order] = self.packed[index[order]]
        log_joints[order] = self.log_joints[index[order]]
        return packed, log_joints

    def _write(
        self, index: np.ndarray, packed: np.ndarray, log_joints: np.ndarray
    ) -> None:
        order = np.argsort(index)
        self.packed[index[order]] = packed[order]
        self.log_joints[index[order]] = log_joints[order]


def _copy_rows(
    source: StateStore | DiskStateStore, target: StateStore | DiskStateStore
) -> None:
    """Copies the states of as many data points as both stores have."""
    count = min(source.num_data, target.num_data)
    for start in range(0, count, _ROWS_AT_ONCE):
        index = tf.range(start, min(start + _ROWS_AT_ONCE, count))
        target.scatter(index, source.gather(index))


def state_bytes(num_data: int, num_states: int, num_latents: int) -> int:
    """Returns the bytes of all states and log-joints."""
    return num_data * num_states * (bits.packed_size(num_latents) + 4)


def _temporary(dtype: Any, shape: tuple[int, ...]) -> np.memmap:
    """Returns an array of zeros in a temporary file without a name."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def _first_states(
    store: StateStore | DiskStateStore, seed: tf.Tensor
) -> Iterator[tuple[int, tf.Tensor]]:
    """Draws distinct states for every data point, some at a time.

    If it takes longer than a second, there is a progress bar on a terminal.

    Args:
      store: The store that they are for.
      seed: `[2]` int32.

    Yields:
      The first data point and the states, uint8 `[n, S, W]`.
    """
    num_bits = store.num_states * store.num_latents
    num_drawn = min(max(1, _BITS_PER_DRAW // num_bits), store.num_data)
    with tqdm.tqdm(
        total=store.num_data,
        desc="first states",
        disable=None,  # tqdm: disable unless on a terminal.
        delay=1.0,
        leave=False,
        unit="point",
    ) as bar:
        for start in range(0, store.num_data, num_drawn):
            count = min(num_drawn, store.num_data - start)
            yield (
                start,
                truncated.initial_states(
                    random.make_seed(seed, start),
                    count,
                    store.num_states,
                    store.num_latents,
                ),
            )
            bar.update(count)
