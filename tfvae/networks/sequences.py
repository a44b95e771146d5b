# SPDX-License-Identifier: Apache-2.0
"""Convolutional encoder and recurrent decoder for one-hot sequences.

A sequence of T symbols out of K is a flat row of T K entries.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tfvae import typed_gin
from tfvae.networks.conv import check_multiple
from tfvae.networks.fc import Activation


@typed_gin.register
def sequence_encoder(
    num_outputs: int,
    num_steps: int,
    num_symbols: int,
    filters: Sequence[int] = (2, 3, 4),
    kernel_sizes: Sequence[int] = (2, 3, 4),
    hidden: int = 100,
    activation: Activation = "relu",
) -> keras.Sequential:
    """Returns 1-D convolutions over steps, `[b, T K]` to `[b, num_outputs]`.

    Convolutions are unpadded, so each shortens the sequence by its kernel size
    minus one; batch normalisation follows its activation, as published for
    grammar VAEs. A dense layer follows, then a linear one.

    Reference: Kusner, Paige and Hernandez-Lobato, 2017, "Grammar variational
    autoencoder"; the sizes are those for arithmetic expressions of Tripp,
    Daxberger and Hernandez-Lobato, 2020, "Sample-efficient optimization in the
    latent space of deep generative models via weighted retraining".

    Args:
      num_outputs: Size of the output.
      num_steps: T.
      num_symbols: K.
      filters: Channels of the convolutions, data side first.
      kernel_sizes: Kernel size of each convolution, steps.
      hidden: Size of the dense layer.
      activation: Activation of all but the last layer.

    Raises:
      ValueError: If the kernels are together too long for T steps, or there
        are not as many as `filters`.
    """
    if len(filters) != len(kernel_sizes) or not filters:
        raise ValueError(
            "`kernel_sizes` must have one entry for each of `filters`, at "
            f"least one, got {kernel_sizes!r} and {filters!r}"
        )
    if sum(kernel_sizes) - len(kernel_sizes) >= num_steps:
        raise ValueError(
            f"`kernel_sizes` must leave at least one of the {num_steps} steps, "
            f"got {kernel_sizes!r}"
        )
    convolutions: list[keras.layers.Layer] = []
    sizes = zip(filters, kernel_sizes, strict=True)
    for i, (size, kernel_size) in enumerate(sizes):
        convolutions += [
            keras.layers.Conv1D(
                size, kernel_size, activation=activation, name=f"conv_{i}"
            ),
            keras.layers.BatchNormalization(name=f"normalized_{i}"),
        ]
    return keras.Sequential(
        [
            keras.layers.Input((num_steps * num_symbols,)),
            keras.layers.Reshape((num_steps, num_symbols), name="steps"),
            *convolutions,
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(hidden, activation, name="hidden"),
            keras.layers.Dense(num_outputs, name="outputs"),
        ],
        name="sequence_encoder",
    )


@typed_gin.register
def sequence_decoder(
    num_outputs: int,
    num_steps: int,
    num_latents: int,
    recurrent: Sequence[int] = (100, 100, 100),
    activation: Activation = "relu",
) -> keras.Sequential:
    """Returns a GRU decoder, from `[b, M]` to flat logits `[b, T K]`.

    Latents are batch-normalised and go through a dense layer of M units, whose
    output is the input of the first recurrent layer in every step; a linear
    layer makes the logits of each step. The reset gate is applied before the
    recurrent matrix product. As published for grammar VAEs, see
    `sequence_encoder`.

    Args:
      num_outputs: T K, a multiple of `num_steps`.
      num_steps: T.
      num_latents: M.
      recurrent: Sizes of the recurrent layers, latent side first.
      activation: Activation of the dense layer.

    Raises:
      ValueError: If `num_outputs` is not a multiple of `num_steps`, or under
        the dtype policy "bfloat16", in which TensorFlow has no initial weights
        of recurrent layers.
    """
    check_multiple(num_outputs, num_steps, "the number of steps")
    policy = keras.config.dtype_policy()
    if policy.variable_dtype == "bfloat16":
        raise ValueError(
            "the dtype policy must not have bfloat16 variables for a "
            "`sequence_decoder`, whose initial weights TensorFlow cannot "
            f"orthogonalise in it; 'mixed_bfloat16' can, got {policy.name!r}"
        )
    return keras.Sequential(
        [
            keras.layers.Input((num_latents,)),
            keras.layers.BatchNormalization(name="normalized"),
            keras.layers.Dense(num_latents, activation, name="hidden"),
            keras.layers.RepeatVector(num_steps, name="repeated"),
            *(
                keras.layers.GRU(
                    size,
                    return_sequences=True,
                    reset_after=False,
                    unroll=True,
                    name=f"gru_{i}",
                )
                for i, size in enumerate(recurrent)
            ),
            keras.layers.Dense(num_outputs // num_steps, name="logits"),
            keras.layers.Flatten(name="flat"),
        ],
        name="sequence_decoder",
    )
