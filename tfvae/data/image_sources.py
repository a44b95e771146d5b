# SPDX-License-Identifier: Apache-2.0
"""Data sources from image files, and from patches of images."""

from __future__ import annotations

import glob
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from tfvae import typed_gin
from tfvae.arguments import check_positive
from tfvae.data.images import (
    IMAGE_SUFFIXES,
    WHITE,
    Image,
    convert_channels,
    crop_image,
    load_image,
    read_image,
    resize_image,
)
from tfvae.data.source import Observations, split_test
from tfvae.ops.patches import extract_patches
from tfvae.ops.whitening import zca_whitening

_WHITENED_LIMIT = 3.0  # standard deviations, for figures


@typed_gin.register
def image_files(
    path: str,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    scale: float = 1.0 / WHITE,
    test_fraction: float = 0.0,
    seed: int = 0,
) -> Observations:
    """Whole images as data points, from a folder, a pattern or one file.

    Args:
      path: A folder (all images directly inside), a pattern such as
        "photos/*.png", or one file.
      size: Height and width all images are resized to; without it they
        must already agree.
      channels: 1 to convert all to grey, 3 to RGB; None if they agree.
      scale: Factor from 0..255 to the model's values.
      test_fraction: Fraction of the images held out for testing.
      seed: Chooses which images are held out.

    Returns:
      The images in the order of their file names.

    Raises:
      FileNotFoundError: If nothing matches `path`.
      ValueError: If an image is unreadable or shapes differ.
    """
    check_positive(scale=scale)
    files = _matching_files(path)
    images: list[np.ndarray] = []
    for file in files:
        image = _pixels(read_image(file), file)
        if channels is not None:
            image = convert_channels(image, channels)
        image = image if size is None else resize_image(image, size)
        if images and image.shape != images[0].shape:
            raise ValueError(
                "`path` must hold images of one shape unless `size` and "
                f"`channels` are given, got {images[0].shape} in {files[0]} "
                f"and {image.shape} in {file}"
            )
        images.append(image)
    points = np.stack(images) * np.float32(scale)
    train, test = split_test(
        points.reshape(len(points), -1), test_fraction, seed
    )
    return Observations(
        name=pathlib.Path(path).stem or "images",
        train=train,
        test=test,
        event_shape=points.shape[1:],
        value_range=(0.0, WHITE * scale),
    )


def _matching_files(path: str) -> list[str]:
    if os.path.isdir(path):
        found = [
            os.path.join(path, name)
            for name in os.listdir(path)
            if name.lower().endswith(IMAGE_SUFFIXES) and name[0] != "."
        ]
    elif os.path.isfile(path):
        found = [path]
    else:
        found = [file for file in glob.glob(path) if os.path.isfile(file)]
    if not found:
        raise FileNotFoundError(
            "`path` must be an image file, a folder with images or a pattern "
            f"that matches some, got {path!r}"
        )
    return sorted(found)


@typed_gin.register
def image_patches(
    images: str | np.ndarray | Sequence[str | np.ndarray] = "camera",
    *,
    patch: tuple[int, int] = (16, 16),
    stride: int = 1,
    num_patches: int | None = None,
    crop: tuple[int, int, int, int] | None = None,
    scale: float = 1.0,
    brightest_fraction: float = 0.0,
    whiten: bool = False,
    test_fraction: float = 0.0,
    seed: int = 0,
) -> Observations:
    """Patches of one or more pictures as data points.

    By default the pictures are those that come with scikit-image, so this
    works anywhere.

    Args:
      images: Files, embedded names or arrays (see `load_image`), one or a
        sequence; all grey or all RGB.
      patch: Height and width of a patch in pixels.
      stride: Distance of neighbouring patches in pixels.
      num_patches: Number of patches to draw at random without replacement
        out of all of them; None keeps all.
      crop: Region to cut out of every picture first, see `crop_image`.
      scale: Factor from 0..255 to the model's values.
      brightest_fraction: Fraction of each picture's values, the largest
        ones, to clip to the largest of the others; keeps highlights from
        dominating. Studies of natural images use 0.02.
      whiten: Whether to decorrelate the patches, see `zca_whitening`; the
        statistics are those of the training patches.
      test_fraction: Share of the patches held out for testing.
      seed: Chooses the drawn and the held-out patches.

    Returns:
      The patches, of shape `[*patch, channels]` each.

    Raises:
      FileNotFoundError: If a picture does not exist.
      ValueError: If an argument does not fit the pictures.
    """
    check_positive(scale=scale)
    if isinstance(images, (str, os.PathLike, np.ndarray)):
        images = [images]
    pictures = [_pixels(load_image(one), one) for one in images]
    if not pictures or len({one.shape[2] for one in pictures}) > 1:
        raise ValueError(
            "`images` must be at least one picture, all grey or all RGB, got "
            f"shapes {[one.shape for one in pictures]}"
        )
    if crop is not None:
        pictures = [crop_image(one, crop) for one in pictures]
    pictures = [_limit_brightness(one, brightest_fraction) for one in pictures]
    points = np.concatenate(
        [extract_patches(one, patch, stride) for one in pictures]
    )
    if num_patches is not None:
        points = _draw_rows(points, num_patches, seed)
    points = points * np.float32(scale)
    train, test = split_test(points, test_fraction, seed)
    value_range = (0.0, WHITE * scale)
    if whiten:
        mean, transform = zca_whitening(train)
        train = (train - mean) @ transform
        test = None if test is None else (test - mean) @ transform
        value_range = (-_WHITENED_LIMIT, _WHITENED_LIMIT)
    return Observations(
        name="image_patches",
        train=train,
        test=test,
        event_shape=(*patch, pictures[0].shape[2]),
        value_range=value_range,
    )


def _pixels(image: Image, origin: object) -> np.ndarray:
    """Returns grey or RGB on 0..255, see `Image.pixels`."""
    pixels = image.pixels
    if pixels.shape[2] not in (1, 3):
        name = "an array" if isinstance(origin, np.ndarray) else origin
        raise ValueError(
            f"images must have 1 or 3 channels, got {pixels.shape[2]} in {name}"
        )
    return pixels


def _draw_rows(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draws `count` rows without replacement, in random order."""
    if not 1 <= count <= len(points):
        raise ValueError(
            f"`num_patches` must be in [1, {len(points)}], the number of "
            f"patches, got {count!r}"
        )
    generator = np.random.default_rng([seed, 1])
    return points[generator.choice(len(points), count, replace=False)]


def _limit_brightness(image: np.ndarray, fraction: float) -> np.ndarray:
    if not 0.0 <= fraction < 1.0:
        raise ValueError(
            f"`brightest_fraction` must be in [0, 1), got {fraction!r}"
        )
    if fraction == 0.0:
        return image
    return np.minimum(image, np.nanquantile(image, 1.0 - fraction))
