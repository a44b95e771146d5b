# SPDX-License-Identifier: Apache-2.0
"""Storage of the latent states of all training data points."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
import tqdm

from tfvae import resources
from tfvae.ops import bits, random, truncated

STATE_NAMES = ("packed", "joints")
"""Name suffixes of variables with one row per data point, for checkpoints."""

# Bits of initial states that are drawn at a time; bounds the memory.
_BITS_PER_DRAW = 2**24


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
            num_data * num_states * (packed_bytes + 4),
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

        If it takes longer than a second, there is a progress bar on a terminal.

        Args:
          seed: `[2]` int32.
        """
        num_bits = self.num_states * self.num_latents
        num_drawn = min(max(1, _BITS_PER_DRAW // num_bits), self.num_data)
        with tqdm.tqdm(
            total=self.num_data,
            desc="first states",
            disable=None,  # tqdm: disable unless on a terminal.
            delay=1.0,
            leave=False,
            unit="point",
        ) as bar:
            for start in range(0, self.num_data, num_drawn):
                stop = min(start + num_drawn, self.num_data)
                packed = truncated.initial_states(
                    random.make_seed(seed, start),
                    stop - start,
                    self.num_states,
                    self.num_latents,
                )
                self.packed.value.scatter_update(
                    tf.IndexedSlices(packed, tf.range(start, stop))
                )
                bar.update(stop - start)

    def copy_rows(self, other: StateStore) -> None:
        """Takes over the states of as many data points as both stores have.

        Args:
          other: A store of as many states and latents.
        """
        count = min(self.num_data, other.num_data)
        for source, target in zip(other.weights, self.weights, strict=True):
            target.value[:count].assign(source.value[:count])

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
