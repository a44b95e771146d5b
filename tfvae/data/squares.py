# SPDX-License-Identifier: Apache-2.0
"""Synthetic binary images of one filled square each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.data.source import Observations


def square_images(
    side: int = 64,
    min_size: int = 1,
    max_size: int = 20,
    columns: Sequence[int] | None = (32,),
) -> np.ndarray:
    """Draws every image of one filled square, parallel to the axes.

    Args:
      side: Side of the images, pixels.
      min_size: Side of the smallest square, pixels.
      max_size: Side of the largest square, pixels.
      columns: Columns allowed for the left edge of a square; None for all
        that keep it inside the image. Its top edge may be in any row.

    Returns:
      `[n, side, side]` uint8 of zeros and ones, all different, ordered by
      size, then left edge, then top edge.

    Raises:
      ValueError: If an argument is out of range.
    """
    if not 1 <= min_size <= max_size <= side:
        raise ValueError(
            "`min_size`, `max_size` and `side` must be at least 1 and in "
            f"ascending order, got {min_size!r}, {max_size!r} and {side!r}"
        )
    columns = range(side) if columns is None else sorted(set(columns))
    if len(columns) == 0 or columns[0] < 0 or columns[-1] >= side:
        raise ValueError(
            f"`columns` must be in [0, {side - 1}], got {list(columns)!r}"
        )
    corners = [
        (size, column, row)
        for size in range(min_size, max_size + 1)
        for column in columns
        for row in range(side - size + 1)
        if column + size <= side
    ]
    if not corners:
        raise ValueError(
            "`columns` must leave room for a square of `min_size` = "
            f"{min_size} on their right, got {list(columns)!r}"
        )
    images = np.zeros((len(corners), side, side), np.uint8)
    for image, (size, column, row) in zip(images, corners, strict=True):
        image[row : row + size, column : column + size] = 1
    return images


@typed_gin.register
def squares(
    side: int = 64,
    min_size: int = 1,
    max_size: int = 20,
    columns: Sequence[int] | None = (32,),
    *,
    copies: int = 10,
    validation_fraction: float = 0.05,
    seed: int = 0,
) -> Observations:
    """Shuffled data set of images of one square, several copies of each.

    The defaults are the published data of weighted retraining: 1,090 different
    images of 64 x 64 pixels, 10 copies of each, the first 545 for validation
    and the other 10,355 for training.

    Reference: Tripp, Daxberger and Hernandez-Lobato, 2020, "Sample-efficient
    optimization in the latent space of deep generative models via weighted
    retraining".

    Args:
      side: Side of the images, pixels.
      min_size: Side of the smallest square, pixels.
      max_size: Side of the largest square, pixels.
      columns: Columns of the left edge of a square, see `square_images`.
      copies: Number of copies of every image.
      validation_fraction: Fraction of the shuffled images that is held out,
        rounded down.
      seed: Seed of the order.

    Returns:
      The data, zeros and ones.

    Raises:
      ValueError: If an argument is out of range.
    """
    check_counts(copies=copies)
    if not 0.0 <= validation_fraction < 1.0:
        raise ValueError(
            "`validation_fraction` must be at least 0 and below 1, got "
            f"{validation_fraction!r}"
        )
    images = square_images(side, min_size, max_size, columns)
    order = np.random.default_rng(seed).permutation(copies * len(images))
    points = images.reshape(len(images), -1).astype(np.float32)
    points = points[order % len(images)]
    num_validation = int(validation_fraction * len(points))
    return Observations(
        name="squares",
        train=points[num_validation:],
        validation=points[:num_validation] if num_validation else None,
        event_shape=(side, side, 1),
    )
