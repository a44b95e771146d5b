# SPDX-License-Identifier: Apache-2.0
"""The task of making a white area large, from images of squares."""

from __future__ import annotations

import base64
import functools
import math
from collections.abc import Callable, Sequence

import gin
import numpy as np

from tfvae.data import Observations, squares
from tfvae.lso.tasks.base import ScoredData, Task


def area(image: np.ndarray) -> float:
    """Returns the number of pixels that are 1."""
    return float(np.count_nonzero(np.asarray(image) == 1))


@gin.register
def shapes(
    data: Callable[[], Observations] = squares,
    image_shape: Sequence[int] = (64, 64),
) -> Task:
    """Returns the task of finding images of the largest area.

    An input is an image, `[h, w]` uint8 of zeros and ones. A decoder's means
    become one by rounding: pixels of more than a half are 1. All inputs are
    valid, the area is exact, and the most is an image all of ones. Every run
    begins with the same data, whatever its seed, for they are what the model
    was trained on before.

    Reference: Tripp, Daxberger and Hernandez-Lobato, 2020, "Sample-efficient
    optimization in the latent space of deep generative models via weighted
    retraining".

    Args:
      data: Called without arguments; its training points are the data, zeros
        and ones, and its validation points are left out.
      image_shape: (h, w) of the images, pixels.
    """
    shape = tuple(image_shape)
    return Task(
        name="shapes",
        data=functools.partial(_scored, data, shape),
        objective=area,
        read=functools.partial(_rounded, shape),
        write=_flattened,
        optimum=float(math.prod(shape)),
        to_json=_to_text,
        from_json=functools.partial(_from_text, shape),
        score_label="area / pixels",
        to_picture=np.asarray,
    )


def _scored(
    data: Callable[[], Observations], shape: tuple[int, ...], seed: int
) -> ScoredData:
    """Returns the training points and their areas."""
    del seed
    points = data().train
    if points.shape[1] != math.prod(shape):
        raise ValueError(
            f"`image_shape` must have the {points.shape[1]} pixels of `data`, "
            f"got {shape!r}"
        )
    return ScoredData(points, np.count_nonzero(points == 1, axis=1))


def _rounded(
    shape: tuple[int, ...], outputs: np.ndarray, seed: int
) -> list[np.ndarray]:
    """Rounds decoder means `[n, D]` to n images."""
    del seed
    images = np.round(outputs).astype(np.uint8)
    return list(images.reshape(-1, *shape))


def _flattened(images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns n images as points `[n, D]`."""
    return np.stack(images).reshape(len(images), -1).astype(np.float32)


def _to_text(image: np.ndarray) -> str:
    """Packs eight pixels in a byte, and four characters for three bytes."""
    return base64.b64encode(np.packbits(image).tobytes()).decode("ascii")


def _from_text(shape: tuple[int, ...], text: str) -> np.ndarray:
    bits = np.frombuffer(base64.b64decode(text), np.uint8)
    return np.unpackbits(bits, count=math.prod(shape)).reshape(shape)
