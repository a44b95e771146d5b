# SPDX-License-Identifier: Apache-2.0
"""One small network of each kind, without one default in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfvae import networks


class Case(NamedTuple):
    """A network and the shapes of one data point's inputs and outputs."""

    make: Callable[..., keras.layers.Layer]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    # Without one default in it.
    config: dict[str, Any]


INITIALIZER = keras.initializers.serialize(keras.initializers.HeUniform(5))
CASES = (
    Case(
        networks.FullyConnectedDecoder,
        (6,),
        (24,),
        {
            "num_outputs": 24,
            "hidden": [7, 3],
            "activation": "leaky_relu",
            "output_activation": "sigmoid",
            "kernel_initializer": INITIALIZER,
        },
    ),
    Case(
        networks.ConvDecoder,
        (6,),
        (24,),
        {
            "num_outputs": 24,
            "image_shape": [3, 4, 2],
            "filters": [5],
            "dense_filters": 6,
            "kernel_size": 2,
            "activation": "tanh",
        },
    ),
    Case(
        networks.UpsampledConv2D,
        (2, 3, 4),
        (4, 6, 5),
        {
            "filters": 5,
            "activation": "tanh",
            "kernel_initializer": INITIALIZER,
        },
    ),
    Case(
        networks.RandomFeatures,
        (6,),
        (5,),
        {"num_features": 5, "kernel": "gaussian", "scale": 2.0, "seed": 3},
    ),
    Case(
        networks.RandomConvFeatures,
        (5, 4, 2),
        (3, 2, 5),
        {
            "num_features": 5,
            "patch_size": [2, 3],
            "kernel": "laplacian",
            "scale": 2.0,
            "seed": 3,
        },
    ),
    Case(
        networks.fully_connected_encoder,
        (6,),
        (4,),
        {
            "num_outputs": 4,
            "num_observed": 6,
            "hidden": (5, 3),
            "activation": "tanh",
            "kernel_initializer": INITIALIZER,
        },
    ),
    Case(
        networks.conv_encoder,
        (9 * 14 * 2,),
        (8,),
        {
            "num_outputs": 8,
            "image_shape": (9, 14, 2),
            "filters": (3, 2),
            "activation": "tanh",
            "kernel_initializer": INITIALIZER,
        },
    ),
    Case(
        networks.upsampling_decoder,
        (12,),
        (2 * 3 * 5 * 2,),
        {
            "num_outputs": 2 * 3 * 5 * 2,
            "image_shape": (3, 5, 2),
            "num_latents": 12,
            "filters": (3,),
            "activation": "tanh",
            "kernel_initializer": INITIALIZER,
        },
    ),
    Case(
        networks.strided_conv_encoder,
        (9 * 6 * 2,),
        (4,),
        {
            "num_outputs": 4,
            "image_shape": (9, 6, 2),
            "convolutions": ((3, 3, 1), (4, 5, 2)),
            "hidden": (5,),
            "activation": "tanh",
            "kernel_initializer": INITIALIZER,
        },
    ),
    Case(
        networks.strided_conv_decoder,
        (3,),
        (2 * 3 * 5 * 2,),
        {
            "num_outputs": 2 * 3 * 5 * 2,
            "image_shape": (3, 5, 2),
            "num_latents": 3,
            "convolutions": ((3, 3, 1), (4, 5, 2)),
            "hidden": (5,),
            "map_channels": 2,
            "last_kernel": 1,
            "activation": "tanh",
            "kernel_initializer": INITIALIZER,
        },
    ),
    Case(
        networks.sequence_encoder,
        (5 * 3,),
        (4,),
        {
            "num_outputs": 4,
            "num_steps": 5,
            "num_symbols": 3,
            "filters": (3, 2),
            "kernel_sizes": (2, 3),
            "hidden": 7,
            "activation": "tanh",
        },
    ),
    Case(
        networks.sequence_decoder,
        (6,),
        (5 * 3,),
        {
            "num_outputs": 5 * 3,
            "num_steps": 5,
            "num_latents": 6,
            "recurrent": (4, 3),
            "activation": "tanh",
        },
    ),
    Case(
        networks.residual_sequence_encoder,
        (5 * 3,),
        (2 * 5 * 2,),
        {
            "num_outputs": 2 * 5 * 2,
            "num_steps": 5,
            "num_symbols": 3,
            "num_channels": 2,
            "filters": 4,
            "num_blocks": 1,
            "kernel_size": 2,
            "activation": "tanh",
        },
    ),
    Case(
        networks.residual_sequence_decoder,
        (5 * 2,),
        (5 * 3,),
        {
            "num_outputs": 5 * 3,
            "num_steps": 5,
            "num_channels": 2,
            "filters": 4,
            "num_blocks": 2,
            "kernel_size": 3,
            "activation": "tanh",
        },
    ),
    Case(
        networks.random_features,
        (6,),
        (4,),
        {
            "num_outputs": 4,
            "num_observed": 6,
            "kernel": "laplacian",
            "scale": 2.0,
            "seed": 3,
        },
    ),
    Case(
        networks.random_conv_features,
        (3 * 4 * 2,),
        (8,),
        {
            "num_outputs": 8,
            "image_shape": (3, 4, 2),
            "kernel": "gaussian",
            "scale": 2.0,
            "seed": 3,
        },
    ),
)


def inputs(case, num_rows=10):
    """Returns binary inputs."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (num_rows, *case.inputs))
    return tf.constant(values, tf.float32)


def built(case, **kwargs):
    """Returns a network with its weights."""
    network = case.make(**case.config, **kwargs)
    if not network.built:
        network.build((None, *case.inputs))
    return network
