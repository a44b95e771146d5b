# SPDX-License-Identifier: Apache-2.0
"""Networks for sequences of symbols, flat rows of T times K entries."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import keras

from tfvae.networks.conv import check_multiple
from tfvae.networks.fc import Activation


@gin.register
def sequence_encoder(
    num_outputs: int,
    num_steps: int,
    num_symbols: int,
    filters: Sequence[int] = (2, 3, 4),
    kernel_sizes: Sequence[int] = (2, 3, 4),
    hidden: int = 100,
    activation: Activation = "relu",
) -> keras.Sequential:
    """Returns convolutions over steps, from `[b, T K]` to `[b, num_outputs]`.

    Each convolution shortens the sequence by its kernel less one, and is
    normalised over the batch after its activation, as published for grammar
    VAEs. A dense layer follows, then a linear one.

    Reference: Kusner, Paige and Hernandez-Lobato, 2017, "Grammar variational
    autoencoder"; the sizes are those for arithmetic expressions of Tripp,
    Daxberger and Hernandez-Lobato, 2020, "Sample-efficient optimization in the
    latent space of deep generative models via weighted retraining".

    Args:
      num_outputs: Size of the output.
      num_steps: T.
      num_symbols: K.
      filters: Channels of the convolutions, data side first.
      kernel_sizes: Their steps.
      hidden: Size of the dense layer.
      activation: Of all but the last layer.

    Raises:
      ValueError: If the kernels do not fit, or are not as many as `filters`.
    """
    if len(filters) != len(kernel_sizes) or not filters:
        raise ValueError(
            "`kernel_sizes` must be one for each of `filters`, at least one, "
            f"got {kernel_sizes!r} and {filters!r}"
        )
    if sum(kernel_sizes) - len(kernel_sizes) >= num_steps:
        raise ValueError(
            f"`kernel_sizes` must leave a step of the {num_steps}, got "
            f"{kernel_sizes!r}"
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


@gin.register
def sequence_decoder(
    num_outputs: int,
    num_steps: int,
    num_latents: int,
    recurrent: Sequence[int] = (100, 100, 100),
    activation: Activation = "relu",
) -> keras.Sequential:
    """Returns gated recurrent units, from `[b, M]` to flat logits.

    Latents, normalised over the batch, go through a dense layer of their own
    number; each step of the first recurrent layer sees the result, and a
    linear layer makes the logits of each step. Gates reset states before they
    are multiplied. As published for grammar VAEs, see `sequence_encoder`.

    Args:
      num_outputs: T K, a multiple of the steps.
      num_steps: T.
      num_latents: M.
      recurrent: Sizes of the recurrent layers, latent side first.
      activation: Of the dense layer.

    Raises:
      ValueError: If the outputs are no multiple of the steps.
    """
    check_multiple(num_outputs, num_steps, "the number of steps")
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
