# SPDX-License-Identifier: Apache-2.0
"""Fully connected encoder and decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.networks.binary import BinaryDense

Activation: TypeAlias = str | Callable[[tf.Tensor], tf.Tensor]
"""Any activation that Keras accepts and can serialise.

`"leaky_relu"` has slope 0.2 below zero; PyTorch's default, 0.01, is
`keras.layers.LeakyReLU(0.01)`.
"""

Initializer: TypeAlias = str | dict[str, Any] | keras.Initializer
"""Any initializer that Keras accepts: a name, a configuration or an object.

Each layer has its own copy, so that without a seed they draw different weights.
"""


@typed_gin.register
def fully_connected_encoder(
    num_outputs: int,
    num_observed: int,
    hidden: Sequence[int] = (256, 128, 64),
    activation: Activation = "leaky_relu",
    kernel_initializer: Initializer = "glorot_uniform",
) -> keras.Sequential:
    """Returns a fully connected network from `[b, D]` to `[b, num_outputs]`.

    The last layer is linear.

    Args:
      num_outputs: Size of the output.
      num_observed: D.
      hidden: Sizes of the hidden layers, data side first.
      activation: Activation of the hidden layers.
      kernel_initializer: Initializer of all kernels; biases start at zero.

    Raises:
      ValueError: If a size is not a positive integer.
    """
    num_outputs, num_observed, hidden = check_counts(
        num_outputs=num_outputs, num_observed=num_observed, hidden=hidden
    )
    kernel_initializer = as_config(kernel_initializer)
    sizes = [*hidden, num_outputs]
    activations = [activation] * len(hidden) + [None]
    return keras.Sequential(
        [
            keras.layers.Input((num_observed,)),
            *(
                keras.layers.Dense(
                    size,
                    act,
                    kernel_initializer=kernel_initializer,
                    name=f"dense_{i}",
                )
                for i, (size, act) in enumerate(
                    zip(sizes, activations, strict=True)
                )
            ),
        ],
        name="fully_connected_encoder",
    )


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class FullyConnectedDecoder(keras.layers.Layer):
    """Fully connected decoder, `[b, H]` to `[b, num_outputs]`.

    By default weights are initialised Xavier normal and biases zero, as
    published for TVAE. The decoder published with random encoders has
    `hidden=(128, 256, 512, 1024), activation="leaky_relu",
    kernel_initializer="glorot_uniform"`.
    """

    def __init__(
        self,
        num_outputs: int,
        hidden: Sequence[int] = (64,),
        activation: Activation = "relu",
        output_activation: Activation | None = None,
        kernel_initializer: Initializer = "glorot_normal",
        **kwargs: Any,
    ):
        """Creates the layers.

        Args:
          num_outputs: Size of the output.
          hidden: Sizes of the hidden layers, latent side first.
          activation: Activation of the hidden layers.
          output_activation: Activation of the last layer; None for linear.
          kernel_initializer: Initializer of all kernels; biases start at zero.
          **kwargs: Keyword arguments of `keras.layers.Layer`.

        Raises:
          ValueError: If a size is not a positive integer.
        """
        super().__init__(**kwargs)
        self.num_outputs, self.hidden = check_counts(
            num_outputs=num_outputs, hidden=hidden
        )
        sizes = [*self.hidden, self.num_outputs]
        self.activation = keras.activations.get(activation)
        self.output_activation = keras.activations.get(output_activation)
        self.kernel_initializer = as_config(kernel_initializer)
        activations = [self.activation] * len(hidden) + [self.output_activation]
        kinds = [BinaryDense] + [keras.layers.Dense] * len(self.hidden)
        # A tuple: TensorFlow checkpoints do not track layers in lists.
        self.layers = tuple(
            dense(
                size,
                act,
                kernel_initializer=self.kernel_initializer,
                dtype=self.dtype_policy,
                name=f"dense_{i}",
            )
            for i, (dense, size, act) in enumerate(
                zip(kinds, sizes, activations, strict=True)
            )
        )

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
        serialize = keras.activations.serialize
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "hidden": list(self.hidden),
            "activation": serialize(self.activation),
            "output_activation": serialize(self.output_activation),
            "kernel_initializer": self.kernel_initializer,
        }


def as_config(initializer: Initializer) -> str | dict[str, Any]:
    """Returns a serialised initializer, from which Keras makes new ones."""
    if isinstance(initializer, (str, dict)):
        return initializer
    return keras.initializers.serialize(initializer)
