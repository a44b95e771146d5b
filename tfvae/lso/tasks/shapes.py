# SPDX-License-Identifier: Apache-2.0
"""Task: maximise the white area of binary images, from images of squares."""

from __future__ import annotations

import base64
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from tfvae import typed_gin
from tfvae.data import Observations, squares
from tfvae.lso.tasks.base import ScoredData, Task


def area(image: np.ndarray) -> float:
    """Returns the number of pixels that are 1."""
    return float(np.count_nonzero(np.asarray(image) == 1))


@typed_gin.register
@typed_gin.uses(passes={"data": typed_gin.arguments()})
def shapes(
    data: Callable[[], Observations] = squares,
    image_shape: Sequence[int] = (64, 64),
) -> Task:
    """Returns the task of finding images of the largest white area.

    An input is an image, `[h, w]` uint8 of zeros and ones. Decoder means are
    rounded: pixels above one half are 1. All inputs are valid, the score has no
    noise, and the optimum is an image of ones. The initial data do not depend
    on the seed, as they are what the model was pretrained on.

    Reference: Tripp, Daxberger and Hernandez-Lobato, 2020, "Sample-efficient
    optimization in the latent space of deep generative models via weighted
    retraining".

    Args:
      data: Data source of binary images; its training points are the initial
        data, its validation points are not used.
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
    """Packs eight pixels in a byte and encodes the bytes in base64."""
    return base64.b64encode(np.packbits(image).tobytes()).decode("ascii")


def _from_text(shape: tuple[int, ...], text: str) -> np.ndarray:
    bits = np.frombuffer(base64.b64decode(text), np.uint8)
    return np.unpackbits(bits, count=math.prod(shape)).reshape(shape)
