# SPDX-License-Identifier: Apache-2.0
"""Convolutional encoder, and decoder of transposed convolutions."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfvae import typed_gin
from tfvae.networks.binary import BinaryDense
from tfvae.networks.fc import Activation, Initializer, as_config


@typed_gin.register
def conv_encoder(
    num_outputs: int,
    image_shape: Sequence[int],
    filters: Sequence[int] | None = None,
    activation: Activation = "leaky_relu",
    kernel_initializer: Initializer = "glorot_uniform",
) -> keras.Sequential:
    """Returns a convolutional network from flat images to `[b, num_outputs]`.

    Each 3 x 3 convolution is followed by max-pooling that halves the sides;
    the last convolution is linear and without padding: 32 x 32 pixels become
    16 x 16, 8 x 8, 4 x 4, and 2 x 2 with `num_outputs / 4` channels, which are
    flattened channel by channel. So the first half of the outputs is the first
    half of the channels, as means and log-variances require.

    The activation follows the pooling. For increasing functions the network is
    the same, and the activations cost a quarter.

    Args:
      num_outputs: Size of the output, a multiple of the pixels of the last
        feature map.
      image_shape: (h, w, c) of the images, pixels. Zero padding at the bottom
        and on the right makes the sides multiples of 2 to the number of
        poolings.
      filters: Channels before each pooling, image side first. None for 4, 8,
        16 and so on, until 3 or 4 pixels of the shorter side are left.
      activation: Activation of all but the last convolution.
      kernel_initializer: Initializer of all kernels; biases start at zero.

    Raises:
      ValueError: If the images are too small for the poolings, or
        `num_outputs` is not a multiple of the pixels of the last feature map.
    """
    height, width, channels = check_image_shape(image_shape)
    kernel_initializer = as_config(kernel_initializer)
    if filters is None:
        filters = [4 * 2**i for i in range(num_halvings(image_shape))]
    last_map = _last_map(image_shape, len(filters))
    pixels = last_map[0] * last_map[1]
    check_multiple(num_outputs, pixels, f"the pixels of its {last_map} map")
    scale = 2 ** len(filters)
    excess = ((0, -height % scale), (0, -width % scale))
    layers = [
        keras.layers.Input((height * width * channels,)),
        keras.layers.Reshape((height, width, channels), name="image"),
    ]
    if excess != ((0, 0), (0, 0)):
        layers.append(keras.layers.ZeroPadding2D(excess, name="pad"))
    for i, size in enumerate(filters):
        layers += [
            keras.layers.Conv2D(
                size,
                3,
                padding="same",
                kernel_initializer=kernel_initializer,
                name=f"conv_{i}",
            ),
            keras.layers.MaxPooling2D(2, name=f"halve_{i}"),
            keras.layers.Activation(activation, name=f"activation_{i}"),
        ]
    last = keras.layers.Conv2D(
        num_outputs // pixels,
        3,
        kernel_initializer=kernel_initializer,
        name="channels",
    )
    return keras.Sequential(
        [*layers, last, *channel_by_channel()], name="conv_encoder"
    )


def channel_by_channel() -> list[keras.layers.Layer]:
    """Returns layers that flatten feature maps, one channel after another."""
    return [
        keras.layers.Permute((3, 1, 2), name="channels_first"),
        keras.layers.Flatten(name="outputs"),
    ]


def _last_map(image_shape: Sequence[int], num_halvings: int) -> tuple[int, int]:
    """Returns the sides of the output of the last, unpadded convolution."""
    scale = 2**num_halvings
    height, width = (math.ceil(side / scale) - 2 for side in image_shape[:2])
    if min(height, width) < 1:
        raise ValueError(
            f"`image_shape` must have sides of more than {2 * scale} pixels "
            f"to be halved {num_halvings} times, got {tuple(image_shape)!r}"
        )
    return height, width


def num_halvings(image_shape: Sequence[int]) -> int:
    """Returns how many halvings bring the shorter side to at most 4 pixels."""
    return max(1, math.ceil(math.log2(min(image_shape[:2]) / 4)))


def check_image_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    """Returns (h, w, c); raises a ValueError for anything else."""
    shape = tuple(image_shape)
    if len(shape) != 3 or not all(map(_is_positive_integer, shape)):
        raise ValueError(
            "`image_shape` must be (height, width, channels), positive "
            f"integers, got {image_shape!r}"
        )
    height, width, channels = map(int, shape)
    return height, width, channels


def check_multiple(
    value: int, unit: int, meaning: str, name: str = "num_outputs"
) -> None:
    """Raises a ValueError unless `value` is a positive multiple of `unit`."""
    if not _is_positive_integer(value) or value % unit:
        raise ValueError(
            f"`{name}` must be a positive multiple of {unit}, {meaning}, got "
            f"{value!r}"
        )


def _is_positive_integer(value: object) -> bool:
    return isinstance(value, numbers.Integral) and int(value) > 0


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class ConvDecoder(keras.layers.Layer):
    """Decoder of transposed convolutions, `[b, H]` to flat images `[b, h*w*c]`.

    A dense layer makes a small feature map, each transposed convolution doubles
    its sides, and a last convolution makes the channels; where the doubled
    sides exceed the image, the map is cropped.
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
            it for likelihoods with several outputs per entry.
          image_shape: (h, w, c) of the images, pixels.
          filters: Channels after each doubling, latent side first.
          dense_filters: Channels of the output of the dense layer.
          kernel_size: Side of all kernels, pixels.
          activation: Keras name of the activation of all but the last layer.
          **kwargs: Keyword arguments of `keras.layers.Layer`.

        Raises:
          ValueError: If `num_outputs` is not a multiple of h w c.
        """
        super().__init__(**kwargs)
        self.image_shape = check_image_shape(image_shape)
        height, width, channels = self.image_shape
        per_image = height * width * channels
        check_multiple(
            num_outputs, per_image, f"the size of {self.image_shape} images"
        )
        self.num_outputs = num_outputs
        self.filters = tuple(filters)
        self.dense_filters = dense_filters
        self.kernel_size = kernel_size
        self.activation = activation
        self._num_heads = num_outputs // per_image
        scale = 2 ** len(self.filters)
        small = (math.ceil(height / scale), math.ceil(width / scale))
        # A tuple: TensorFlow checkpoints do not track layers in lists.
        self.layers = (
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
        )

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
