# SPDX-License-Identifier: Apache-2.0
"""Reads, writes and corrupts images, and finds the range of their values.

An `Image` has the values of a file in its own dtype and units; its `pixels`,
and what the functions here take, are float32 arrays `[height, width, channels]`
whose black is 0 and whose white is 255. NaN marks a missing entry.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.ndimage
import skimage.data
import skimage.transform

from tfvae import files
from tfvae.data import decoding, encoding, formats
from tfvae.data.formats import SUFFIXES as IMAGE_SUFFIXES
from tfvae.data.formats import WHITE, Image

EMBEDDED_IMAGES = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "cell": "cell.png",
    "chelsea": "chelsea.png",
    "clock": "clock_motion.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "hubble": "hubble_deep_field.jpg",
    "immunohistochemistry": "ihc.png",
    "moon": "moon.png",
    "motorcycle": "motorcycle_left.png",
    "page": "page.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "text": "text.png",
}
"""Pictures whose files are part of scikit-image's installation."""


class ValueRange(NamedTuple):
    """The values of an image that stand for black and white, in its units.

    Models see values on 0..255, on which they have been tuned. For 8 bits that
    is the image itself.
    """

    low: float
    high: float

    def to_pixels(self, values: np.ndarray) -> np.ndarray:
        """Returns values in the image's units on 0..255, float32."""
        values = np.asarray(values).astype(np.float64)
        return ((values - self.low) * self._factor).astype(np.float32)

    def from_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Returns values on 0..255 in the image's units, float64."""
        return np.asarray(pixels, np.float64) / self._factor + self.low

    @property
    def width(self) -> float:
        """Distance of white from black, in the image's units."""
        return self.high - self.low

    @property
    def _factor(self) -> float:
        return WHITE / self.width

    def __str__(self) -> str:
        """`low to high`, with up to seven digits."""
        return f"{self.low:.7g} to {self.high:.7g}"


# Floats of which none is above have no 8 bits, as integers have none of 10.
_LEAST_OF_8_BITS = 63.0
_BIT_DEPTHS = (8, 10, 12, 14, 16)


def value_range_of(values: np.ndarray) -> ValueRange:
    """Returns the range that dtype and values of an image suggest.

    | dtype | values | range |
    |---|---|---|
    | uint8 | any | 0 to 255 |
    | other integers | in 0 to 65535 | 0 to 2^b - 1, the least that holds them for b = 8, 10, 12, 14, 16 |
    | floats | in 0 to 1 | 0 to 1 |
    | floats | in 0 to 255, the largest above 63 | 0 to 255 |
    | all | others | the smallest to the largest value |

    Args:
      values: Any shape, with at least one value that is not NaN.
    """  # noqa: E501
    values = np.asarray(values)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if values.dtype.kind != "f":
        limits = [2.0**bits - 1.0 for bits in _BIT_DEPTHS]
        limits = limits[:1] if values.dtype == np.uint8 else limits
    else:
        # Of less, 255 would make a picture that is nearly black.
        limits = [1.0, WHITE] if high > _LEAST_OF_8_BITS else [1.0]
    for limit in limits:
        if 0.0 <= low and high <= limit:
            return ValueRange(0.0, limit)
    return ValueRange(low, high if high > low else low + 1.0)


def read_image(path: str | os.PathLike[str]) -> Image:
    """Reads an image file in its own dtype and units, with its metadata.

    `.npy` files (`[height, width]` or `[height, width, 1 to 3]`), TIFF of any
    dtype and compression, PNG and JPEG 2000 of 8 or 16 bits, and all else that
    Pillow reads. Orientation, white-is-zero, palettes, colour keys and planar
    layouts are applied; alpha, ICC profile and resolution are kept. CMYK and
    YCbCr are converted to RGB. Floats may hold NaN, which is missing. Of
    several pages or frames it is the first.

    Args:
      path: The file.

    Returns:
      The image; its `notes` say what was done.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If the file is not a readable image, or of a kind that is
        not supported, which the message names.
    """
    return decoding.read(path)


def write_values(path: str | os.PathLike[str], image: Image) -> None:
    """Writes an image file atomically, in its own dtype, with its metadata.

    JPEG has a quality of 95 without subsampling; WebP is lossless.

    Args:
      path: The file; its ending chooses the format.
      image: The image.

    Raises:
      ValueError: If the format can not hold the image.
    """
    with files.replacing_path(path) as temporary:
        encoding.write(temporary, image, temporary.suffix)


def write_image(
    path: str | os.PathLike[str],
    image: np.ndarray,
    *,
    bits: int = 8,
    missing_value: float = 0.0,
) -> None:
    """Draws an image on 0..255 to a file, atomically.

    Values are clipped to 0..255 and rounded. A `.npy` file keeps them as they
    are, NaN included. `write_values` writes images in their own units.

    Args:
      path: The file; its ending chooses the format.
      image: `[height, width]` or `[height, width, 1 or 3]` on 0..255.
      bits: Bits per channel, 8 or 16 (16 for PNG and TIFF only).
      missing_value: What NaN entries are drawn as.

    Raises:
      ValueError: If the image's shape, `bits` or the format do not fit.
    """
    suffix = pathlib.Path(path).suffix.lower()
    image = formats.from_array(np.asarray(image)).values.astype(np.float32)
    if image.shape[2] == 2:
        raise ValueError(
            "`image` must have shape [height, width] or [height, width, 1 or "
            f"3], got {image.shape}"
        )
    allowed = (".png", ".tif", ".tiff") if bits == 16 else IMAGE_SUFFIXES
    if bits not in (8, 16) or suffix not in allowed:
        raise ValueError(
            "`bits` must be 8, or 16 for PNG and TIFF, and `path` must end "
            f"in an image suffix, got {bits!r} and {path!s}"
        )
    if suffix != ".npy":
        filled = np.where(np.isnan(image), missing_value, image)
        scaled = np.clip(filled.astype(np.float64), 0.0, WHITE)
        if bits == 16:
            image = np.rint(scaled * 257.0).astype(np.uint16)
        else:
            image = np.rint(scaled).astype(np.uint8)
    write_values(path, Image(image))


def shown_channels(image: np.ndarray) -> np.ndarray:
    """Returns what a picture can show: the first three channels, or one.

    Args:
      image: `[height, width, channels]`.
    """
    return image[..., : 3 if image.shape[-1] >= 3 else 1]


def read_mask(
    mask: str | os.PathLike[str] | np.ndarray,
    shape: tuple[int, ...],
    *,
    threshold: float | None = None,
    invert: bool = False,
    grow: int = 0,
) -> np.ndarray:
    """Reads which entries of an image are missing.

    Args:
      mask: An image or `.npy` file, or an array. Entries are missing that
        are not zero: 1 or 255, labels, and the soft edges of a brush. Of a
        file with transparent parts and one colour, the opaque parts are.
      shape: Height, width and channels of the image to be masked.
      threshold: Entries above it, in the mask's own values, are missing
        instead; must be given for JPEG, whose compression leaves noise.
      invert: Whether the other entries are missing instead.
      grow: Missing parts are extended to all within this distance, in pixels.

    Returns:
      `shape` bool, True where missing. A grey mask holds for all channels;
      a colour mask for each channel, or, on an image of another number of
      channels, wherever any of its channels is set.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If it is unreadable or of another height or width, or says
        two things.
    """
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"`threshold` must be finite, got {threshold!r}")
    if not isinstance(grow, int) or grow < 0:
        raise ValueError(f"`grow` must be an integer from 0, got {grow!r}")
    origin = "" if isinstance(mask, np.ndarray) else f" in {mask!s}"
    values = _mask_values(mask, threshold)
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[:2] != tuple(shape[:2]):
        found = " x ".join(map(str, values.shape[:2]))
        raise ValueError(
            f"`mask` must be as large as the image ({shape[0]} x {shape[1]}), "
            f"got {found}{origin}"
        )
    is_set = values != 0 if threshold is None else values > threshold
    missing = is_set | np.isnan(values)
    if missing.shape[2] != shape[2]:
        missing = missing.any(axis=-1, keepdims=True)
    missing = ~missing if invert else missing
    if grow:
        missing = np.stack(
            [_grown(missing[..., i], grow) for i in range(missing.shape[2])],
            axis=-1,
        )
    return np.ascontiguousarray(np.broadcast_to(missing, shape))


def _grown(missing: np.ndarray, distance: int) -> np.ndarray:
    """Extends a mask, `[height, width]` bool, by a distance in pixels."""
    if not missing.any():
        return missing
    return scipy.ndimage.distance_transform_edt(~missing) <= distance


def _mask_values(
    mask: str | os.PathLike[str] | np.ndarray, threshold: float | None
) -> np.ndarray:
    """Returns what a mask says, of its own dtype, bool as 0 and 1."""
    if isinstance(mask, np.ndarray):
        return mask.astype(np.uint8) if mask.dtype == bool else mask
    path = pathlib.Path(mask)
    if path.suffix.lower() == ".npy" and path.is_file():
        return _load_mask_array(path)
    with naming("mask"):
        image = read_image(path)
    if image.is_lossy and threshold is None:
        raise ValueError(
            "`mask` must be of a lossless format such as PNG, or "
            "`--mask_threshold` given, such as 127, as compression makes few "
            f"values exactly zero, got {path!s}"
        )
    if image.alpha is None or (image.alpha == image.alpha[0, 0]).all():
        return image.values
    visible = image.values[image.alpha > 0]
    if (visible != visible[:1]).any():
        raise ValueError(
            "`mask` must have either transparent parts or several colours, "
            f"got both in {path!s}"
        )
    return image.alpha[..., None]


def _load_mask_array(path: pathlib.Path) -> np.ndarray:
    try:
        array = formats.load_npy(path)
        return formats.from_array(
            array.astype(np.float32) if array.dtype == bool else array
        ).values
    except (OSError, ValueError) as error:
        raise ValueError(
            f"`mask` must be a readable array, got {path!s}: {error}"
        ) from error


def embedded_image(
    name: str = "camera",
    *,
    crop: tuple[int, int, int, int] | None = None,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Returns a photograph bundled with scikit-image; downloads nothing.

    Args:
      name: One of `EMBEDDED_IMAGES`, such as "camera" (grey, 512 x 512)
        or "astronaut" (RGB, 512 x 512).
      crop: See `crop_image`.
      size: Height and width to resize to after cropping.

    Returns:
      `[height, width, 1 or 3]` float32 on 0..255; the files have 8 bits.

    Raises:
      ValueError: If the name or the region is unknown to the picture.
      FileNotFoundError: If the installed scikit-image lacks the file.
    """
    if name not in EMBEDDED_IMAGES:
        raise ValueError(
            f"`name` must be one of {sorted(EMBEDDED_IMAGES)}, got {name!r}"
        )
    image = read_image(_embedded_path(name)).pixels
    image = crop_image(image, crop) if crop is not None else image
    return resize_image(image, size) if size is not None else image


def crop_image(
    image: np.ndarray, crop: tuple[int, int, int, int]
) -> np.ndarray:
    """Cuts a region out of an image.

    Args:
      image: `[height, width, channels]`.
      crop: Top row, left column, height and width of the region.

    Returns:
      `[crop height, crop width, channels]`.

    Raises:
      ValueError: If the region is empty or leaves the image.
    """
    top, left, height, width = crop
    if (
        min(top, left) < 0
        or min(height, width) < 1
        or top + height > image.shape[0]
        or left + width > image.shape[1]
    ):
        raise ValueError(
            "`crop` must be (top, left, height, width) inside the "
            f"{image.shape[0]} x {image.shape[1]} image, got {crop!r}"
        )
    return image[top : top + height, left : left + width].copy()


def crop_picture(image: Image, crop: tuple[int, int, int, int]) -> Image:
    """Cuts a region out of an image and its alpha, with its metadata.

    Args:
      image: The image.
      crop: See `crop_image`.
    """
    alpha = image.alpha
    if alpha is not None:
        alpha = crop_image(alpha[..., None], crop)[..., 0]
    return dataclasses.replace(
        image, values=crop_image(image.values, crop), alpha=alpha
    )


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an image, with low-pass filtering where it shrinks.

    The largest centred region of the target's aspect ratio is used, so
    nothing is distorted.

    Args:
      image: `[height, width, channels]` without NaN.
      size: Height and width of the result.

    Returns:
      `[*size, channels]` float32.

    Raises:
      ValueError: If `size` is not positive or entries are missing.
    """
    if min(size) < 1:
        raise ValueError(f"`size` must be at least 1 x 1, got {size!r}")
    if np.isnan(image).any():
        raise ValueError("`image` must have no missing entries to be resized")
    height, width = image.shape[:2]
    scale = min(height / size[0], width / size[1])
    region = (
        max(1, min(height, round(size[0] * scale))),
        max(1, min(width, round(size[1] * scale))),
    )
    top, left = (height - region[0]) // 2, (width - region[1]) // 2
    image = crop_image(image, (top, left, *region))
    if region == tuple(size):
        return image
    resized = skimage.transform.resize(
        image, tuple(size), order=1, mode="edge", anti_aliasing=True
    )
    return resized.astype(np.float32)


def convert_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Turns an image grey (ITU-R BT.601 luma) or into equal RGB channels.

    Args:
      image: `[height, width, 1 or 3]`.
      channels: 1 or 3.

    Returns:
      `[height, width, channels]`.

    Raises:
      ValueError: If `channels` is neither.
    """
    if channels not in (1, 3):
        raise ValueError(f"`channels` must be 1 or 3, got {channels!r}")
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=2)
    luma = np.array([[0.299], [0.587], [0.114]], dtype=np.float32)
    return image @ luma


def load_image(
    image: str | os.PathLike[str] | np.ndarray, *, argument: str = "image"
) -> Image:
    """An image from a file, an embedded picture's name, or an array.

    Args:
      image: A path; or a name in `EMBEDDED_IMAGES`; or an array
        `[height, width]` or `[height, width, 1 to 3]`, integers or floats in
        units of its own.
      argument: What errors call it.

    Returns:
      The image.

    Raises:
      FileNotFoundError: If it is neither a file nor an embedded name.
      ValueError: If it is not an image.
    """
    if isinstance(image, np.ndarray):
        try:
            taken = formats.from_array(image)
        except ValueError as error:
            raise ValueError(
                f"`{argument}` must be an image, got an array: {error}"
            ) from error
        if np.isinf(taken.values).any():
            raise ValueError(
                f"`{argument}` must be finite, got infinite values"
            )
        return taken
    if str(image) in EMBEDDED_IMAGES and not os.path.exists(image):
        return read_image(_embedded_path(str(image)))
    if not os.path.isfile(image):
        raise FileNotFoundError(
            f"`{argument}` must be an image file or one of the embedded "
            f"pictures {sorted(EMBEDDED_IMAGES)}, got {str(image)!r}"
        )
    with naming(argument):
        return read_image(image)


@contextlib.contextmanager
def naming(argument: str) -> Iterator[None]:
    """Lets errors of reading a file name an argument, not its `path`.

    Args:
      argument: The name.
    """
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        text = str(error).replace("`path`", f"`{argument}`")
        raise type(error)(text) from error


def _embedded_path(name: str) -> pathlib.Path:
    return pathlib.Path(skimage.data.__file__).parent / EMBEDDED_IMAGES[name]


def add_noise(image: np.ndarray, noise_std: float, seed: int = 0) -> np.ndarray:
    """Adds white Gaussian noise, neither clipped nor rounded.

    Args:
      image: `[height, width, channels]`; NaN stays NaN.
      noise_std: Standard deviation on the image's own scale.
      seed: Seed of the draws.

    Returns:
      The noisy image, float32.

    Raises:
      ValueError: If `noise_std` is negative or not finite.
    """
    if noise_std < 0.0 or not math.isfinite(noise_std):
        raise ValueError(
            f"`noise_std` must be finite and at least 0, got {noise_std!r}"
        )
    noise = np.random.default_rng(seed).standard_normal(image.shape)
    return (image + noise_std * noise).astype(np.float32)


def drop_pixels(
    image: np.ndarray,
    missing_fraction: float,
    *,
    whole_pixels: bool = False,
    seed: int = 0,
) -> np.ndarray:
    """Makes entries missing (NaN), each independently of all others.

    Args:
      image: `[height, width, channels]`.
      missing_fraction: Probability of an entry to go missing, in [0, 1).
      whole_pixels: Whether all channels of a pixel go missing together.
        By default each colour value of a pixel is drawn on its own, as
        in the published in-painting benchmarks.
      seed: Seed of the draws.

    Returns:
      The incomplete image, float32.

    Raises:
      ValueError: If `missing_fraction` is out of range.
    """
    if not 0.0 <= missing_fraction < 1.0:
        raise ValueError(
            f"`missing_fraction` must be in [0, 1), got {missing_fraction!r}"
        )
    shape = (*image.shape[:2], 1) if whole_pixels else image.shape
    dropped = np.random.default_rng(seed).random(shape) < missing_fraction
    return np.where(dropped, np.nan, image).astype(np.float32)
