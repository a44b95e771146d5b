# SPDX-License-Identifier: Apache-2.0
"""Encoders and decoders for one-hot sequences.

A sequence of T symbols out of K is a flat row of T K entries. The residual
networks have latents of their own for each of the T positions; flattened, they
are ordered by position: `[b, T, c]` as `[b, T c]`.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tfvae import typed_gin
from tfvae.arguments import check_counts
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


@typed_gin.register
def residual_sequence_encoder(
    num_outputs: int,
    num_steps: int,
    num_symbols: int,
    num_channels: int,
    filters: int = 80,
    num_blocks: int = 2,
    kernel_size: int = 3,
    activation: Activation = "relu",
) -> keras.Model:
    """Returns an encoder to latents per position, `[b, T K]` to outputs.

    A dense layer for each position is followed by residual blocks of two
    convolutions each, padded with zeros. A linear layer makes the outputs of
    each position, which are those of its c latents: first all means, ordered by
    position, then all log-variances, as posteriors take them.

    Args:
      num_outputs: Size of the output, a multiple of T c.
      num_steps: T, the number of positions.
      num_symbols: K.
      num_channels: c, the latents of a position.
      filters: Channels of the blocks.
      num_blocks: Number of blocks.
      kernel_size: Steps that a convolution sees.
      activation: Activation before each convolution.

    Raises:
      ValueError: If `num_outputs` is not a multiple of T c, or a size is not
        positive.
    """
    num_steps, num_symbols, num_channels, filters = check_counts(
        num_steps=num_steps,
        num_symbols=num_symbols,
        num_channels=num_channels,
        filters=filters,
    )
    size = num_steps * num_channels
    check_multiple(num_outputs, size, "the steps times `num_channels`")
    inputs = keras.layers.Input((num_steps * num_symbols,))
    hidden = keras.layers.Reshape((num_steps, num_symbols), name="steps")(
        inputs
    )
    hidden = keras.layers.Dense(filters, name="embedded")(hidden)
    hidden = _residual(hidden, filters, num_blocks, kernel_size, activation)
    outputs = keras.layers.Dense(num_outputs // num_steps, name="outputs")(
        hidden
    )
    parts = (num_steps, num_outputs // size, num_channels)
    outputs = keras.layers.Reshape(parts, name="parts")(outputs)
    outputs = keras.layers.Permute((2, 1, 3), name="parts_first")(outputs)
    outputs = keras.layers.Flatten(name="flat")(outputs)
    return keras.Model(inputs, outputs, name="residual_sequence_encoder")


@typed_gin.register
def residual_sequence_decoder(
    num_outputs: int,
    num_steps: int,
    num_channels: int,
    filters: int = 80,
    num_blocks: int = 3,
    kernel_size: int = 3,
    activation: Activation = "relu",
) -> keras.Model:
    """Returns a decoder of latents per position, `[b, T c]` to `[b, T K]`.

    All positions are decoded at once, each from the latents close to it, by the
    blocks of `residual_sequence_encoder`.

    Args:
      num_outputs: T K, a multiple of `num_steps`.
      num_steps: T, the number of positions.
      num_channels: c, the latents of a position.
      filters: Channels of the blocks.
      num_blocks: Number of blocks.
      kernel_size: Steps that a convolution sees.
      activation: Activation before each convolution, and before the logits.

    Raises:
      ValueError: If `num_outputs` is not a multiple of `num_steps`, or a size
        is not positive.
    """
    num_steps, num_channels, filters = check_counts(
        num_steps=num_steps, num_channels=num_channels, filters=filters
    )
    check_multiple(num_outputs, num_steps, "the number of steps")
    inputs = keras.layers.Input((num_steps * num_channels,))
    hidden = keras.layers.Reshape((num_steps, num_channels), name="steps")(
        inputs
    )
    hidden = keras.layers.Dense(filters, name="embedded")(hidden)
    hidden = _residual(hidden, filters, num_blocks, kernel_size, activation)
    hidden = keras.layers.Activation(activation, name="last_active")(hidden)
    logits = keras.layers.Dense(num_outputs // num_steps, name="logits")(hidden)
    outputs = keras.layers.Flatten(name="flat")(logits)
    return keras.Model(inputs, outputs, name="residual_sequence_decoder")


def _residual(
    hidden: keras.KerasTensor,
    filters: int,
    num_blocks: int,
    kernel_size: int,
    activation: Activation,
) -> keras.KerasTensor:
    """Adds residual blocks to `[b, T, filters]`."""
    num_blocks, kernel_size = check_counts(
        num_blocks=num_blocks, kernel_size=kernel_size
    )
    for i in range(num_blocks):
        change = hidden
        for j in range(2):
            change = keras.layers.Activation(
                activation, name=f"active_{i}_{j}"
            )(change)
            change = keras.layers.Conv1D(
                filters, kernel_size, padding="same", name=f"conv_{i}_{j}"
            )(change)
        hidden = keras.layers.Add(name=f"block_{i}")([hidden, change])
    return hidden
