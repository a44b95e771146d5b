# SPDX-License-Identifier: Apache-2.0
"""Random train/validation/test splits of images, with padding and upscaling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.data.source import Observations

# Images copied at a time; bounds the memory beside the result.
_CHUNK = 1024


@typed_gin.register
def resplit_images(
    data: Observations,
    *,
    num_train: int,
    num_validation: int = 0,
    num_test: int | None = None,
    size: tuple[int, int] | None = None,
    upscale: int = 1,
    seed: int = 0,
) -> Observations:
    """Draws a new split of all images of a source, both training and test.

    With the same seed and `num_train`, the training images do not depend on
    the sizes of the other parts.

    Args:
      data: Images whose shape is `(height, width)` or
        `(height, width, channels)`; without `size` and `upscale`, points
        of any shape.
      num_train: Number of training images.
      num_validation: Number of validation images.
      num_test: Number of test images; all that remain if None.
      size: Height and width to pad images to with zeros, half of them on
        each side; None leaves their size alone.
      upscale: Factor of height and width before padding; each pixel becomes
        a square of pixels.
      seed: Chooses which images go where.

    Returns:
      The images, in random order. Labels are kept if all images have them.

    Raises:
      ValueError: If there are not that many images, they do not fit into
        `size`, or `data` was split for validation already.
    """
    if data.validation is not None:
        raise ValueError(
            "`data` must be split into training and test images only, got "
            f"{len(data.validation)} validation images"
        )
    parts = [data.train] if data.test is None else [data.train, data.test]
    num_images = sum(len(part) for part in parts)
    counts = _counts(num_images, num_train, num_validation, num_test)
    shape, window = _placement(data.event_shape, size, upscale)
    labels = _all_labels(data)

    def images_and_labels(index: np.ndarray) -> tuple[Any, Any]:
        if not index.size:
            return None, None
        images = _gather(parts, index, data.event_shape, shape, window, upscale)
        return images, None if labels is None else labels[index]

    order = np.random.default_rng(seed).permutation(num_images)
    for_train, for_validation, for_test, _ = np.split(order, np.cumsum(counts))
    train, train_labels = images_and_labels(for_train)
    test, test_labels = images_and_labels(for_test)
    return Observations(
        name=data.name,
        train=train,
        test=test,
        event_shape=shape,
        value_range=data.value_range,
        train_labels=train_labels,
        test_labels=test_labels,
        validation=images_and_labels(for_validation)[0],
    )


def _counts(
    num_images: int, num_train: int, num_validation: int, num_test: int | None
) -> list[int]:
    """Returns the number of images of each part."""
    rest = num_images - num_train - num_validation
    counts = [num_train, num_validation, rest if num_test is None else num_test]
    if num_train < 1 or min(counts) < 0 or sum(counts) > num_images:
        raise ValueError(
            "`num_train` must be at least 1, `num_validation` and `num_test` "
            f"at least 0, and together at most {num_images}, the number of "
            f"images, got {num_train!r}, {num_validation!r} and {num_test!r}"
        )
    return counts


def _placement(
    event_shape: tuple[int, ...], size: Sequence[int] | None, upscale: int
) -> tuple[tuple[int, ...], tuple[slice, ...]]:
    """Returns the shape of the new images, and the window of the old ones."""
    if size is None and upscale == 1:
        return event_shape, (slice(None),) * len(event_shape)
    if len(event_shape) not in (2, 3):
        raise ValueError(
            "`data` must be images of shape (height, width) or (height, "
            "width, channels) to be padded or enlarged, got shape "
            f"{event_shape!r}"
        )
    check_counts(upscale=upscale)
    sides = [side * upscale for side in event_shape[:2]]
    target = tuple(sides if size is None else size)
    if len(target) != 2 or any(
        new < side for new, side in zip(target, sides, strict=False)
    ):
        raise ValueError(
            f"`size` must be a height and a width of at least {sides[0]} and "
            f"{sides[1]}, those of the enlarged images, got {size!r}"
        )
    starts = [
        (new - side) // 2 for new, side in zip(target, sides, strict=True)
    ]
    window = tuple(
        slice(start, start + side)
        for start, side in zip(starts, sides, strict=True)
    )
    return (*target, *event_shape[2:]), window


def _gather(
    parts: list[np.ndarray],  # [N_i, D]
    index: np.ndarray,  # [n], rows of the parts as if they were one array
    event_shape: tuple[int, ...],
    shape: tuple[int, ...],
    window: tuple[slice, ...],
    upscale: int,
) -> np.ndarray:
    """Gathers, upscales and pads images; returns `[n, D']` float32.

    Apart from the result it needs little memory.
    """
    placed = np.zeros((len(index), math.prod(shape)), np.float32)
    inner = placed.reshape(-1, *shape)[(slice(None), *window)]
    offset = 0
    for part in parts:
        rows = np.flatnonzero((index >= offset) & (index < offset + len(part)))
        for start in range(0, rows.size, _CHUNK):
            chunk = rows[start : start + _CHUNK]
            images = part[index[chunk] - offset].reshape(-1, *event_shape)
            inner[chunk] = enlarge(images, upscale)
        offset += len(part)
    return placed


def enlarge(images: np.ndarray, factor: int) -> np.ndarray:
    """Upscales images by an integer factor, repeating pixels.

    Args:
      images: `[N, height, width, ...]`; with factor 1, of any shape.
      factor: At least 1.

    Returns:
      `[N, height * factor, width * factor, ...]`.
    """
    if factor == 1:
        return images
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def _all_labels(data: Observations) -> np.ndarray | None:
    """Returns labels of training, then test points; None if some have none."""
    if data.train_labels is None:
        return None
    if data.test is None:
        return data.train_labels
    if data.test_labels is None:
        return None
    return np.concatenate([data.train_labels, data.test_labels])
