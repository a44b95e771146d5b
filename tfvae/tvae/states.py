# SPDX-License-Identifier: Apache-2.0
"""Storage of the latent states of all training data points."""

from __future__ import annotations

import contextlib
import contextvars
import os
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tqdm

from tfvae import resources
from tfvae.ops import bits, random, truncated

STATE_NAMES = ("packed", "visited")
"""Name suffixes of variables with one row per data point, for checkpoints."""

# Bits of initial states that are drawn at a time; bounds the memory.
_BITS_PER_DRAW = 2**24
# Data points whose states are copied at a time.
_ROWS_AT_ONCE = 2**14


_are_drawn = contextvars.ContextVar("are_drawn", default=True)


@contextlib.contextmanager
def undrawn_states() -> Iterator[None]:
    """Makes models without first states, which take minutes for large data.

    It is for models that are restored from a checkpoint, which has states of
    all data points; others need `TVAE.draw_first_states` before training.
    """
    token = _are_drawn.set(False)
    try:
        yield
    finally:
        _are_drawn.reset(token)


def are_drawn() -> bool:
    """Returns whether a model that is made now draws its first states."""
    return _are_drawn.get()


class Stored(NamedTuple):
    """The states of some data points.

    Attributes:
      packed: uint8 `[B, S, W]`, the best state first.
      visited: bool `[B]`, whether training has visited the data point.
    """

    packed: tf.Tensor
    visited: tf.Tensor


@keras.saving.register_keras_serializable("tfvae")
class StateStore(keras.layers.Layer):
    """S distinct packed states per data point.

    Its weights take N S ceil(H / 8) + N bytes and are saved with the model.
    Rows are addressed by data index, eagerly or in graphs. Log-joints are not
    stored: they change with the parameters, so nothing could use them.

    Attributes:
      packed: uint8 weight `[N, S, W]`, each data point's best state first.
      visited: bool weight `[N]`, whether training has visited a data point.
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
        self.visited = self.add_weight(
            shape=(num_data,),
            initializer="zeros",
            dtype="bool",
            trainable=False,
            name="visited",
        )
        self.built = True

    def load_own_variables(self, store: Any) -> None:
        """Loads what Keras has saved, also of versions with log-joints."""
        self.packed.assign(store["0"])
        visited = np.asarray(store["1"])
        if visited.ndim == 2:  # Log-joints, -inf before the first visit.
            visited = visited[:, 0] > -np.inf
        self.visited.assign(visited)

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

    def gather(self, index: tf.Tensor) -> Stored:
        """Returns the states of the data points `index`, int `[B]`."""
        return Stored(
            tf.gather(self.packed.value, index),
            tf.gather(self.visited.value, index),
        )

    def scatter(
        self, index: tf.Tensor, states: truncated.StateSet | Stored
    ) -> None:
        """Replaces the states of the data points `index`, int `[B]`.

        They are visited then, unless `states` say otherwise.
        """
        self.packed.value.scatter_update(tf.IndexedSlices(states.packed, index))
        self.visited.value.scatter_update(
            tf.IndexedSlices(_visited(states), index)
        )


class DiskStateStore:
    """As `StateStore`, with the states in a temporary file.

    The file has no name, and so goes away with the process. The states are no
    weights: Keras's files do not have them, checkpoints do, as a copy. The
    system takes back the memory that it caches the file in when it is needed;
    data points that are visited in blocks (`block_rows` of
    `LatentModel.batches`) read each page once an epoch.

    Attributes:
      packed: uint8 `np.memmap` `[N, S, W]`, each data point's best state first.
      visited: bool array `[N]`, in memory; see `StateStore`.
    """

    weights: tuple[()] = ()

    def __init__(
        self,
        num_data: int,
        num_states: int,
        num_latents: int,
        folder: str | os.PathLike[str] | None = None,
    ):
        """Creates the file; `initialize` draws the initial states.

        Args:
          num_data: N.
          num_states: S.
          num_latents: H.
          folder: Where the file is; None for `tempfile.gettempdir()`, which
            the environment variable TMPDIR chooses.

        Raises:
          FileNotFoundError: If there is no such folder.
          OSError: If the states do not fit on the disk.
        """
        self.num_data = num_data
        self.num_states = num_states
        self.num_latents = num_latents
        folder = tempfile.gettempdir() if folder is None else folder
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                "`states_folder` must be an existing folder, got "
                f"{os.fspath(folder)!r}"
            )
        num_bytes = state_bytes(num_data, num_states, num_latents)
        resources.check_disk_space(
            folder,
            num_bytes,
            f"a temporary file for {num_states} states of {num_data:,} data "
            f"points in {folder}",
        )
        shape = (num_data, num_states, bits.packed_size(num_latents))
        with tempfile.TemporaryFile(dir=folder) as file:
            # Other ranks of the machine reserve theirs at the same time, and a
            # mapped file that the disk has no room for kills the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, num_bytes - num_data)
            self.packed = np.memmap(file, np.uint8, "w+", shape=shape)
        self.visited = np.zeros(num_data, bool)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by the names of `STATE_NAMES`."""
        return {"packed": self.packed, "visited": self.visited}

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

    def gather(self, index: tf.Tensor) -> Stored:
        """Returns the states of the data points `index`, int `[B]`."""
        packed, visited = tf.numpy_function(
            self._read, [index], (tf.uint8, tf.bool)
        )
        shape = [index.shape[0], *self.packed.shape[1:]]
        return Stored(
            tf.ensure_shape(packed, shape),
            tf.ensure_shape(visited, shape[:1]),
        )

    def scatter(
        self, index: tf.Tensor, states: truncated.StateSet | Stored
    ) -> None:
        """Replaces the states of the data points `index`, int `[B]`.

        They are visited then, unless `states` say otherwise.
        """
        tf.numpy_function(
            self._write, [index, states.packed, _visited(states)], []
        )

    def _read(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # A disk reads ahead, so ascending order is what it does best.
        order = np.argsort(index)
        packed = np.empty((len(index), *self.packed.shape[1:]), np.uint8)
        packed[order] = self.packed[index[order]]
        return packed, self.visited[index]

    def _write(
        self, index: np.ndarray, packed: np.ndarray, visited: np.ndarray
    ) -> None:
        order = np.argsort(index)
        self.packed[index[order]] = packed[order]
        self.visited[index] = visited


def _visited(states: truncated.StateSet | Stored) -> tf.Tensor:
    """Returns which data points are visited once they have these states."""
    if isinstance(states, Stored):
        return states.visited
    return tf.ones(tf.shape(states.packed)[:1], tf.bool)


def _copy_rows(
    source: StateStore | DiskStateStore, target: StateStore | DiskStateStore
) -> None:
    """Copies the states of as many data points as both stores have."""
    count = min(source.num_data, target.num_data)
    for start in range(0, count, _ROWS_AT_ONCE):
        index = tf.range(start, min(start + _ROWS_AT_ONCE, count))
        target.scatter(index, source.gather(index))


def most_used(store: StateStore | DiskStateStore, count: int) -> np.ndarray:
    """Returns the states that most visited data points have, the first ones.

    A state counts 1 / (1 + r) for each data point whose r-th best it is, from
    0, which needs neither data nor log-joints.

    Args:
      store: The states of the data points.
      count: Largest number of them.

    Returns:
      uint8 `[n, W]`, distinct, the most used first; n is `count`, or the number
      of distinct states if that is less.
    """
    keys: np.ndarray = np.zeros(0, "V1")
    uses: np.ndarray = np.zeros(0)
    each = 1.0 / (1.0 + np.arange(store.num_states))
    for start in range(0, store.num_data, _ROWS_AT_ONCE):
        index = tf.range(start, min(start + _ROWS_AT_ONCE, store.num_data))
        packed, visited = (one.numpy() for one in store.gather(index))
        packed = packed[visited]
        width = packed.shape[-1]
        new = np.ascontiguousarray(packed).reshape(-1, width).view(f"V{width}")
        found = np.concatenate([keys.astype(new.dtype), new[:, 0]])
        weights = np.concatenate([uses, np.tile(each, len(packed))])
        keys, place = np.unique(found, return_inverse=True)
        uses = np.bincount(place, weights, len(keys))
    order = np.argsort(-uses, kind="stable")[:count]
    width = bits.packed_size(store.num_latents)
    return keys[order].view(np.uint8).reshape(-1, width)


def state_bytes(num_data: int, num_states: int, num_latents: int) -> int:
    """Returns the bytes of the states of all data points."""
    return num_data * (num_states * bits.packed_size(num_latents) + 1)


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
