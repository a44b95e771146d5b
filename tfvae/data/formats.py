# SPDX-License-Identifier: Apache-2.0
"""`Image`: values in their own dtype and units, with a file's metadata."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal, NamedTuple

import numpy as np

WHITE = 255.0
"""Largest value of an entry of `Image.pixels`; black is zero."""

SUFFIXES = (
    ".bmp",
    ".exr",
    ".gif",
    ".jp2",
    ".jpeg",
    ".jpg",
    ".npy",
    ".pbm",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
"""Endings of image files that are read."""

_INCHES = {"inch": 1.0, "cm": 2.54}


class Resolution(NamedTuple):
    """Pixels for each unit of length."""

    horizontal: float
    vertical: float
    unit: Literal["none", "inch", "cm"]

    def per_inch(self) -> tuple[float, float] | None:
        """Returns pixels per inch, or None if the unit is unknown."""
        if self.unit == "none":
            return None
        factor = _INCHES[self.unit]
        return self.horizontal * factor, self.vertical * factor


@dataclasses.dataclass(frozen=True)
class Image:
    """Values of an image in its own dtype and units, and its metadata.

    Attributes:
      values: `[height, width, channels]`, any dtype of integers or floats;
        NaN marks a missing entry. Black is zero, and with three channels or
        more the first three are red, green and blue.
      alpha: `[height, width]` of the same dtype, the opacity; None if
        everything is opaque.
      is_premultiplied: Whether `values` have been multiplied by the opacity.
      icc_profile: The ICC profile, or None.
      resolution: The resolution, or None.
      is_lossy: Whether it was read from a JPEG file.
      notes: What was done in reading it, as short texts.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    is_premultiplied: bool = False
    icc_profile: bytes | None = None
    resolution: Resolution | None = None
    is_lossy: bool = False
    notes: tuple[str, ...] = ()

    @property
    def pixels(self) -> np.ndarray:
        """`[height, width, channels]` float32, transparent parts white.

        8 and 16 bits are on 0..255: a 16-bit value v becomes v / 257. Other
        dtypes are taken as they are.
        """
        step = 1.0 / 257.0 if self.values.dtype == np.uint16 else 1.0
        values = self.values
        if self.alpha is None:
            if step == 1.0:
                return values.astype(np.float32)
            return (values.astype(np.float64) * step).astype(np.float32)
        values = values.astype(np.float64) * step
        opacity = self.opacity()[..., None]
        shown = values if self.is_premultiplied else opacity * values
        return (shown + (1.0 - opacity) * WHITE).astype(np.float32)

    def opacity(self) -> np.ndarray:
        """Returns the opacity from 0 to 1, `[height, width]` float64."""
        if self.alpha is None:
            return np.ones(self.values.shape[:2])
        return self.alpha / alpha_limit(self.alpha.dtype)


def alpha_limit(dtype: np.dtype) -> float:
    """Returns the alpha value that is opaque."""
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0


def from_array(array: np.ndarray) -> Image:
    """Returns an image of an array, which has no metadata.

    Args:
      array: `[height, width]` or `[height, width, 1 to 3]`, integers or
        floats in their own units.

    Raises:
      ValueError: If it has another shape or dtype.
    """
    if array.dtype.kind not in "uif" or array.dtype.itemsize > 8:
        raise ValueError(
            f"dtype {array.dtype} is not a number of at most 64 bits"
        )
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3) or 0 in array.shape:
        hint = ""
        if array.ndim == 3 and array.shape[2] == 4:
            hint = " (of RGBA, give the first three channels)"
        elif array.ndim == 3 and array.shape[0] in (1, 2, 3, 4):
            hint = (
                " (channels come last: np.moveaxis(array, 0, -1); or give "
                "axes='SYX' for colours, 'QYX' for pages)"
            )
        elif array.ndim in (3, 4):
            hint = " (of several pages, give one, as in page=0)"
        raise ValueError(
            "an image must have shape [height, width] or "
            f"[height, width, 1 to 3], not {array.shape}{hint}"
        )
    return Image(array.astype(array.dtype.newbyteorder("="), copy=False))


def load_npy(path: pathlib.Path) -> np.ndarray:
    """Reads an array without pickled objects."""
    with open(path, "rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)
