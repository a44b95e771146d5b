# SPDX-License-Identifier: Apache-2.0
"""Strided convolutional encoder and decoder, padded as in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.networks.conv import check_image_shape, check_multiple
from tfvae.networks.fc import (
    Activation,
    Initializer,
    as_config,
)
from tfvae.networks.upsampling import flat_images

Convolutions = Sequence[Sequence[int]]
"""(channels, kernel side in pixels, stride) of each layer, input side first."""

PUBLISHED_ENCODER = (
    *((4, 3, 1), (8, 5, 2), (8, 3, 1), (16, 5, 2), (16, 3, 1), (16, 3, 1)),
    *((16, 5, 2), (16, 3, 1), (16, 3, 1), (16, 5, 2), (16, 3, 1)),
)
PUBLISHED_DECODER = (
    *((32, 3, 1), (32, 5, 2), (32, 3, 1), (16, 5, 2), (16, 3, 1)),
    *((16, 3, 1), (16, 5, 2), (8, 3, 1), (8, 3, 1), (8, 5, 2)),
)


@typed_gin.register
def strided_conv_encoder(
    num_outputs: int,
    image_shape: Sequence[int],
    convolutions: Convolutions = PUBLISHED_ENCODER,
    hidden: Sequence[int] = (32,),
    activation: Activation = "relu",
    kernel_initializer: Initializer | None = None,
) -> keras.Sequential:
    """Returns convolutions and dense layers, flat images to `[b, outputs]`.

    The defaults are those of weighted retraining for 64 x 64 pixels. Padding
    is symmetric, as in PyTorch. (TensorFlow's padding "same" adds more zeros
    at the bottom and on the right where the stride is 2, which shifts feature
    maps by half a pixel in each convolution.)

    Reference: Tripp, Daxberger and Hernandez-Lobato, 2020, "Sample-efficient
    optimization in the latent space of deep generative models via weighted
    retraining".

    Args:
      num_outputs: Size of the output.
      image_shape: (h, w, c) of the images, pixels.
      convolutions: (channels, kernel side in pixels, stride) of each.
      hidden: Sizes of the dense layers between the last feature map and the
        output.
      activation: Activation of all layers but the last.
      kernel_initializer: Initializer of all kernels, with biases that start
        at zero. None draws kernels and biases uniformly from +-1 /
        sqrt(fan-in), PyTorch's default and as published.

    Raises:
      ValueError: If an argument is not as described.
    """
    height, width, channels = check_image_shape(image_shape)
    _check_convolutions(convolutions)
    (num_outputs,) = check_counts(num_outputs=num_outputs)
    layers = [
        keras.layers.Input((height * width * channels,)),
        keras.layers.Reshape((height, width, channels), name="image"),
    ]
    for i, (size, kernel, stride) in enumerate(convolutions):
        if stride > 1:
            around = ((kernel - 1) // 2, kernel // 2)
            layers.append(
                keras.layers.ZeroPadding2D((around, around), name=f"pad_{i}")
            )
        layers.append(
            keras.layers.Conv2D(
                size,
                kernel,
                stride,
                padding="valid" if stride > 1 else "same",
                activation=activation,
                name=f"conv_{i}",
                **_start(kernel_initializer, channels * kernel**2),
            )
        )
        height, width = math.ceil(height / stride), math.ceil(width / stride)
        channels = size
    layers.append(keras.layers.Flatten(name="features"))
    layers += _dense(
        height * width * channels,
        [*hidden, num_outputs],
        [activation] * len(hidden) + [None],
        kernel_initializer,
    )
    return keras.Sequential(layers, name="strided_conv_encoder")


@typed_gin.register
def strided_conv_decoder(
    num_outputs: int,
    image_shape: Sequence[int],
    num_latents: int | None = None,
    convolutions: Convolutions = PUBLISHED_DECODER,
    hidden: Sequence[int] = (32,),
    map_channels: int = 16,
    last_kernel: int = 3,
    activation: Activation = "relu",
    kernel_initializer: Initializer | None = None,
) -> keras.Sequential:
    """Returns dense layers and transposed convolutions to flat images.

    Dense layers make a small feature map, each transposed convolution
    multiplies its sides by the stride, and a last one of stride 1 makes the
    channels; the result is cropped to the image at the bottom and on the right.
    The defaults are those of weighted retraining for 64 x 64 pixels, see
    `strided_conv_encoder`.

    Transposed convolutions of stride 1 are implemented as convolutions.

    Args:
      num_outputs: Size of the flattened output: h w c, or a multiple of it
        for likelihoods with several outputs per entry, which are concatenated.
      image_shape: (h, w, c) of the images, pixels.
      num_latents: M. None builds the network at its first call, for the
        inputs' size.
      convolutions: (channels, kernel side in pixels, stride) of each but the
        last, latent side first.
      hidden: Sizes of the dense layers before the one that makes the map.
      map_channels: Channels of the small feature map.
      last_kernel: Side of the last kernel, pixels.
      activation: Activation of all layers but the last.
      kernel_initializer: Initializer of all kernels, with biases that start
        at zero. None for the published one, see `strided_conv_encoder`, which
        needs `num_latents`.

    Raises:
      ValueError: If an argument is not as described.
    """
    height, width, channels = check_image_shape(image_shape)
    per_image = height * width * channels
    check_multiple(
        num_outputs, per_image, f"the size of {tuple(image_shape)} images"
    )
    num_heads = num_outputs // per_image
    convolutions = [
        *convolutions,
        (channels * num_heads, last_kernel, 1),
    ]
    _check_convolutions(convolutions)
    scale = math.prod(stride for _, _, stride in convolutions)
    small = (math.ceil(height / scale), math.ceil(width / scale))
    if num_latents is None and kernel_initializer is None:
        raise ValueError(
            "`num_latents` must be given where `kernel_initializer` is None, "
            "got None"
        )
    inputs = []
    if num_latents is not None:
        inputs = [keras.layers.Input((num_latents,))]
    sizes = [*hidden, math.prod(small) * map_channels]
    activations = [activation] * len(sizes)
    return keras.Sequential(
        [
            *inputs,
            *_dense(num_latents or 1, sizes, activations, kernel_initializer),
            keras.layers.Reshape((*small, map_channels), name="map"),
            *_transposed(convolutions, activation, kernel_initializer),
            *flat_images((height, width, channels), num_heads, scale),
        ],
        name="strided_conv_decoder",
    )


def _transposed(
    convolutions: Convolutions,
    activation: Activation,
    kernel_initializer: Initializer | None,
) -> list[keras.layers.Layer]:
    """Returns transposed convolutions, the last one linear."""
    layers = []
    for i, (size, kernel, stride) in enumerate(convolutions):
        is_last = i == len(convolutions) - 1
        kind = keras.layers.Conv2D
        if stride > 1:
            kind = keras.layers.Conv2DTranspose
        layers.append(
            kind(
                size,
                kernel,
                stride,
                padding="valid" if stride > 1 else "same",
                activation=None if is_last else activation,
                name="channels" if is_last else f"transposed_{i}",
                # PyTorch counts the outputs of an input where the convolution
                # is transposed.
                **_start(kernel_initializer, size * kernel**2),
            )
        )
        if stride > 1 and kernel > stride:
            excess = kernel - stride
            before = min((kernel - 1) // 2, excess)
            around = (before, excess - before)
            layers.append(
                keras.layers.Cropping2D((around, around), name=f"crop_{i}")
            )
    return layers


def _dense(
    num_inputs: int,
    sizes: Sequence[int],
    activations: Sequence[Activation | None],
    kernel_initializer: Initializer | None,
) -> list[keras.layers.Layer]:
    """Returns a chain of dense layers."""
    return [
        keras.layers.Dense(
            size,
            activation,
            name=f"dense_{i}",
            **_start(kernel_initializer, before),
        )
        for i, (before, size, activation) in enumerate(
            zip([num_inputs, *sizes], sizes, activations, strict=False)
        )
    ]


def _start(kernel_initializer: Initializer | None, fan: int) -> dict[str, Any]:
    """Returns the initializer arguments of a layer."""
    if kernel_initializer is not None:
        return {"kernel_initializer": as_config(kernel_initializer)}
    limit = fan**-0.5
    uniform = keras.initializers.RandomUniform
    return {
        "kernel_initializer": uniform(-limit, limit),
        "bias_initializer": uniform(-limit, limit),
    }


def _check_convolutions(convolutions: Convolutions) -> None:
    """Raises a ValueError if they are not triples of positive integers."""
    for one in convolutions:
        if len(one) != 3 or any(not isinstance(n, int) or n < 1 for n in one):
            raise ValueError(
                "`convolutions` must be (channels, kernel, stride) triples of "
                f"positive integers, got {one!r}"
            )
