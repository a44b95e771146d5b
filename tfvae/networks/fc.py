# SPDX-License-Identifier: Apache-2.0
"""Fully connected networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gin
import keras
import tensorflow as tf

from tfvae.networks.binary import BinaryDense


@gin.register
@keras.saving.register_keras_serializable("tfvae")
class FullyConnectedDecoder(keras.layers.Layer):
    """Dense layers from `[b, H]` to `[b, num_outputs]`.

    Weights start Xavier normal and biases at zero, as published for TVAE.
    """

    def __init__(
        self,
        num_outputs: int,
        hidden: Sequence[int] = (64,),
        activation: str = "relu",
        output_activation: str | None = None,
        **kwargs: Any,
    ):
        """Creates the layers.

        Args:
          num_outputs: Size of the output.
          hidden: Sizes of the hidden layers, latent side first.
          activation: Keras name of the hidden layers' activation.
          output_activation: Keras name of the last layer's; None for linear.
          **kwargs: Of `keras.layers.Layer`.

        Raises:
          ValueError: If a size is not a positive integer.
        """
        super().__init__(**kwargs)
        sizes = [*hidden, num_outputs]
        if any(not isinstance(n, int) or n < 1 for n in sizes):
            raise ValueError(
                "`hidden` and `num_outputs` must be positive integers, got "
                f"{list(hidden)!r} and {num_outputs!r}"
            )
        self.num_outputs = num_outputs
        self.hidden = tuple(hidden)
        self.activation = activation
        self.output_activation = output_activation
        activations = [activation] * len(self.hidden) + [output_activation]
        kinds = [BinaryDense] + [keras.layers.Dense] * len(self.hidden)
        self.layers = [
            dense(
                size,
                act,
                kernel_initializer="glorot_normal",
                dtype=self.dtype_policy,
                name=f"dense_{i}",
            )
            for i, (dense, size, act) in enumerate(
                zip(kinds, sizes, activations, strict=True)
            )
        ]

    def build(self, input_shape: Sequence[int | None]) -> None:
        for layer in self.layers:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        self.built = True

    def call(self, states: tf.Tensor) -> tf.Tensor:
        for layer in self.layers:
            states = layer(states)
        return states

    def compute_output_shape(
        self, input_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.num_outputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "hidden": list(self.hidden),
            "activation": self.activation,
            "output_activation": self.output_activation,
        }
