# SPDX-License-Identifier: Apache-2.0
"""Random feature layers ("random kitchen sinks").

Reference: Rahimi and Recht, 2007, "Random features for large-scale kernel
machines"; Morrow et al., 2017, "Convolutional kitchen sinks for transcription
factor binding site prediction" (patches of a sequence).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfvae import typed_gin
from tfvae.arguments import check_counts, check_positive
from tfvae.networks.conv import (
    channel_by_channel,
    check_image_shape,
    check_multiple,
)

_KERNELS = ("linear", "gaussian", "laplacian")


@typed_gin.register
def random_features(
    num_outputs: int,
    num_observed: int,
    kernel: str = "linear",
    scale: float = 1.0,
    seed: int | None = None,
) -> keras.Model:
    """Returns a layer of random features, `[b, D]` to `[b, num_outputs]`.

    Args:
      num_outputs: Number of features.
      num_observed: D.
      kernel: See `RandomFeatures`.
      scale: See `RandomFeatures`.
      seed: See `RandomFeatures`.
    """
    features = RandomFeatures(num_outputs, kernel, scale, seed, name="features")
    inputs = keras.layers.Input((num_observed,), dtype=features.phase_dtype)
    # Not sequential: under a policy of half precision, sequential models round
    # their inputs.
    return keras.Model(inputs, features(inputs), name="random_features")


@typed_gin.register
def random_conv_features(
    num_outputs: int,
    image_shape: Sequence[int],
    kernel: str = "linear",
    scale: float = 1.0,
    seed: int | None = None,
) -> keras.Model:
    """Returns random features of the four quarters of flat images.

    A single convolution whose kernel and stride are half the image's sides:
    16 x 16 pixels for 32 x 32. Its output is a 2 x 2 feature map, which is
    flattened channel by channel.

    Args:
      num_outputs: Size of the output, a multiple of 4.
      image_shape: (h, w, c) of the images, pixels; odd sides are zero-padded
        at the bottom and on the right.
      kernel: See `RandomFeatures`; a kernel of the quarters.
      scale: See `RandomFeatures`.
      seed: See `RandomFeatures`.

    Raises:
      ValueError: If `num_outputs` is not a multiple of 4, or a side is shorter
        than 2 pixels.
    """
    height, width, channels = check_image_shape(image_shape)
    if min(height, width) < 2:
        raise ValueError(
            "`image_shape` must have sides of at least 2 pixels, got "
            f"{tuple(image_shape)!r}"
        )
    check_multiple(num_outputs, 4, "the pixels of its 2 x 2 map")
    features = RandomConvFeatures(
        num_outputs // 4,
        (math.ceil(height / 2), math.ceil(width / 2)),
        kernel,
        scale,
        seed,
        name="features",
    )
    dtype = features.phase_dtype
    inputs = keras.layers.Input((height * width * channels,), dtype=dtype)
    image = keras.layers.Reshape(
        (height, width, channels), dtype=dtype, name="image"
    )
    outputs = features(image(inputs))
    for layer in channel_by_channel():
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name="random_conv_features")


@keras.saving.register_keras_serializable("tfvae")
class RandomFeatures(keras.layers.Layer):
    """Random features, `[..., D]` to `[..., n]`.

    With random weights w and offsets b for every feature, the kernels are:

    * "linear": w.x / scale, Xavier uniform w and b = 0, as published with
      random encoders;
    * "gaussian": sqrt(2 / n) cos(w.x / scale + b), normal w and b uniform on
      [0, 2 pi), whose inner products approximate exp(-|x - y|_2**2 / (2
      scale**2)), with a standard error of at most sqrt(1.5 / n);
    * "laplacian": the same with Cauchy w, for exp(-|x - y|_1 / scale).

    The argument of the cosine is computed in float32 at least, from weights in
    float32, whatever the dtype policy: half precision has no digits left of a
    large one. It is as precise as the inputs, which a `keras.Sequential` around
    the layer rounds to the policy's compute dtype.

    Like any layer, it is trained unless its `trainable` is set to False.

    Attributes:
      phase_dtype: Dtype of what the inputs are projected to.
    """

    def __init__(
        self,
        num_features: int,
        kernel: str = "linear",
        scale: float = 1.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        """Creates the layer.

        Args:
          num_features: n.
          kernel: "linear", "gaussian" or "laplacian".
          scale: Length scale of the kernel, in units of the inputs.
          seed: Seed of the weights; None for Keras's global seed.
          **kwargs: Keyword arguments of `keras.layers.Layer`.

        Raises:
          ValueError: If `kernel` is unknown, or `num_features` or `scale` is
            not positive.
        """
        super().__init__(**kwargs)
        check_counts(num_features=num_features)
        if kernel not in _KERNELS:
            raise ValueError(
                f"`kernel` must be one of {', '.join(_KERNELS)}, got {kernel!r}"
            )
        check_positive(scale=scale)
        self.num_features = num_features
        self.kernel = kernel
        self.scale = scale
        self.seed = seed
        self.autocast = False  # Inputs and weights are cast in `call`.
        self.phase_dtype = self.compute_dtype
        if kernel != "linear" and self.compute_dtype != "float64":
            self.phase_dtype = "float32"

    def build(self, input_shape: Sequence[int | None]) -> None:
        # One generator for both: with equal seeds, offsets and weights would
        # be dependent.
        generator = keras.random.SeedGenerator(self.seed)
        weights = {
            "linear": keras.initializers.GlorotUniform(generator),
            "gaussian": keras.initializers.RandomNormal(0.0, 1.0, generator),
            "laplacian": _Cauchy(generator),
        }
        offsets = keras.initializers.RandomUniform(
            0.0, 2.0 * math.pi, generator
        )
        is_linear = self.kernel == "linear"
        self.projection = self.add_weight(
            name="projection",
            shape=self._projection_shape(input_shape),
            initializer=weights[self.kernel],
            dtype=None if is_linear else self.phase_dtype,
            autocast=False,
        )
        self.offsets = self.add_weight(
            name="offsets",
            shape=(self.num_features,),
            initializer="zeros" if is_linear else offsets,
            dtype=None if is_linear else self.phase_dtype,
            autocast=False,
        )
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        scaled = tf.cast(inputs, self.phase_dtype) / self.scale
        weights = tf.cast(self.projection, self.phase_dtype)
        offsets = tf.cast(self.offsets, self.phase_dtype)
        projected = self._project(scaled, weights) + offsets
        if self.kernel == "linear":
            return projected
        features = math.sqrt(2.0 / self.num_features) * tf.cos(projected)
        return tf.cast(features, self.compute_dtype)

    def compute_output_shape(
        self, input_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.num_features)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_features": self.num_features,
            "kernel": self.kernel,
            "scale": self.scale,
            "seed": self.seed,
        }

    def _projection_shape(
        self, input_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        return (input_shape[-1], self.num_features)

    def _project(self, inputs: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return tf.tensordot(inputs, weights, 1)


@keras.saving.register_keras_serializable("tfvae")
class RandomConvFeatures(RandomFeatures):
    """Random features of image patches, `[b, h, w, c]` to `[b, h', w', n]`.

    Patches do not overlap; h' and w' are the numbers of patches along each
    side, ceil(h / patch height) and ceil(w / patch width).
    """

    def __init__(
        self,
        num_features: int,
        patch_size: Sequence[int],
        kernel: str = "linear",
        scale: float = 1.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        """Creates the layer.

        Args:
          num_features: n, features per patch.
          patch_size: Height and width of a patch, pixels: kernel and stride of
            a convolution, padded to whole patches.
          kernel: See `RandomFeatures`; a kernel of patches.
          scale: See `RandomFeatures`.
          seed: See `RandomFeatures`.
          **kwargs: Keyword arguments of `keras.layers.Layer`.
        """
        super().__init__(num_features, kernel, scale, seed, **kwargs)
        self.patch_size = tuple(patch_size)

    def compute_output_shape(
        self, input_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        sides = [
            None if side is None else math.ceil(side / patch)
            for side, patch in zip(
                input_shape[1:3], self.patch_size, strict=True
            )
        ]
        return (input_shape[0], *sides, self.num_features)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "patch_size": list(self.patch_size)}

    def _projection_shape(
        self, input_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        return (*self.patch_size, input_shape[-1], self.num_features)

    def _project(self, inputs: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(inputs, weights, self.patch_size, "SAME")


class _Cauchy(keras.initializers.Initializer):
    """Draws from the standard Cauchy distribution."""

    def __init__(self, generator: keras.random.SeedGenerator):
        self._generator = generator

    def __call__(
        self, shape: Sequence[int], dtype: str | None = None
    ) -> tf.Tensor:
        uniform = keras.random.uniform(shape, dtype=dtype, seed=self._generator)
        return tf.tan(math.pi * (uniform - 0.5))
