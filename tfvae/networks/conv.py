# SPDX-License-Identifier: Apache-2.0
"""Convolutional networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gin
import keras
import tensorflow as tf

from tfvae.networks.binary import BinaryDense


@gin.register
@keras.saving.register_keras_serializable("tfvae")
class ConvDecoder(keras.layers.Layer):
    """Transposed convolutions from `[b, H]` to flattened images `[b, h*w*c]`.

    A dense layer makes a small map, each transposed convolution doubles its
    sides, and a last convolution makes the channels; where the doubled sides
    exceed the image, the map is cropped.
    """

    def __init__(
        self,
        num_outputs: int,
        image_shape: Sequence[int],
        filters: Sequence[int] = (32, 16),
        dense_filters: int = 32,
        kernel_size: int = 3,
        activation: str = "leaky_relu",
        **kwargs: Any,
    ):
        """Creates the layers.

        Args:
          num_outputs: Size of the flattened output: h w c, or a multiple of
            h w for likelihoods with several outputs an entry.
          image_shape: (h, w, c) of the images, pixels.
          filters: Channels after each doubling, latent side first.
          dense_filters: Channels of the map that the dense layer makes.
          kernel_size: Side of all kernels, pixels.
          activation: Keras name of the activation of all but the last layer.
          **kwargs: Of `keras.layers.Layer`.

        Raises:
          ValueError: If the outputs do not make whole images.
        """
        super().__init__(**kwargs)
        height, width, channels = image_shape
        per_image = height * width * channels
        if num_outputs % per_image:
            raise ValueError(
                f"`num_outputs` must be a multiple of {per_image}, the size "
                f"of `image_shape` = {tuple(image_shape)!r}, got "
                f"{num_outputs!r}"
            )
        self.num_outputs = num_outputs
        self.image_shape = tuple(image_shape)
        self.filters = tuple(filters)
        self.dense_filters = dense_filters
        self.kernel_size = kernel_size
        self.activation = activation
        self._num_heads = num_outputs // per_image
        scale = 2 ** len(self.filters)
        small = (math.ceil(height / scale), math.ceil(width / scale))
        self.layers = [
            BinaryDense(
                small[0] * small[1] * dense_filters,
                activation,
                dtype=self.dtype_policy,
                name="dense",
            ),
            keras.layers.Reshape((*small, dense_filters), name="map"),
            *(
                keras.layers.Conv2DTranspose(
                    size,
                    kernel_size,
                    strides=2,
                    padding="same",
                    activation=activation,
                    dtype=self.dtype_policy,
                    name=f"double_{i}",
                )
                for i, size in enumerate(self.filters)
            ),
            keras.layers.Conv2D(
                channels * self._num_heads,
                kernel_size,
                padding="same",
                dtype=self.dtype_policy,
                name="channels",
            ),
        ]

    def build(self, input_shape: Sequence[int | None]) -> None:
        for layer in self.layers:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        self.built = True

    def call(self, states: tf.Tensor) -> tf.Tensor:
        for layer in self.layers:
            states = layer(states)
        height, width, channels = self.image_shape
        maps = states[:, :height, :width]
        # One head after the other, each a flattened image.
        heads = tf.split(maps, self._num_heads, axis=-1)
        size = height * width * channels
        return tf.concat([tf.reshape(h, [-1, size]) for h in heads], -1)

    def compute_output_shape(
        self, input_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        return (input_shape[0], self.num_outputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "image_shape": list(self.image_shape),
            "filters": list(self.filters),
            "dense_filters": self.dense_filters,
            "kernel_size": self.kernel_size,
            "activation": self.activation,
        }
