# SPDX-License-Identifier: Apache-2.0
"""Pictures as text, for HTML pages that need no other file.

They become data URIs, scaled down past a stated size.
"""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
import PIL.Image

MAX_SIDE = 1280
"""Longest side of an embedded picture in pixels."""
MAX_EXACT = 2**20
"""Values, of all channels, up to which an embedded picture is exact."""
JPEG_QUALITY = 90

_MID_GREY = 0.5


class Embedded(NamedTuple):
    """A picture as a data URI, with 8 bits per channel."""

    uri: str
    width: int
    height: int
    is_reduced: bool
    """Whether it is smaller than the original."""
    is_lossy: bool
    """Whether it is JPEG."""


def embedded(picture: np.ndarray) -> Embedded:
    """Encodes a picture as a data URI.

    Sides beyond `MAX_SIDE` are scaled down, averaging pixels, in the same
    proportion. PNG up to `MAX_EXACT` values, JPEG beyond.

    Args:
      picture: `[height, width, 1 or 3]` on 0..1, without NaN; values are
        clipped.
    """
    if picture.shape[-1] == 3 and (picture == picture[..., :1]).all():
        picture = picture[..., :1]
    values = np.rint(255.0 * np.clip(picture, 0.0, 1.0)).astype(np.uint8)
    if values.shape[-1] == 1:
        image = PIL.Image.fromarray(values[..., 0])
    else:
        image = PIL.Image.fromarray(values)
    longest = max(image.size)
    if longest > MAX_SIDE:
        width, height = (
            max(1, round(side * MAX_SIDE / longest)) for side in image.size
        )
        image = image.resize((width, height), PIL.Image.Resampling.BOX)
    is_lossy = image.width * image.height * values.shape[-1] > MAX_EXACT
    buffer = io.BytesIO()
    if is_lossy:
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(buffer, "PNG")
    kind = "jpeg" if is_lossy else "png"
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Embedded(
        f"data:image/{kind};base64,{content}",
        image.width,
        image.height,
        longest > MAX_SIDE,
        is_lossy,
    )


def signed_limit(values: np.ndarray, share: float = 0.999) -> float:
    """Returns the magnitude below which a share of the values is.

    Args:
      values: Any shape; NaN is left out.
      share: The share, from 0 to 1.

    Returns:
      The magnitude, 0 if all values are 0 or there are none.
    """
    magnitudes = np.abs(values[np.isfinite(values)])
    if not magnitudes.size:
        return 0.0
    # Of mostly zeros it would be zero, too.
    return float(np.quantile(magnitudes, share)) or float(magnitudes.max())


def signed(values: np.ndarray, limit: float) -> np.ndarray:
    """Returns signed values on 0..1, where 0 is mid-grey.

    Args:
      values: Any shape; NaN is drawn as 0.
      limit: The magnitude that is drawn black or white, positive.

    Returns:
      The same shape, float64.
    """
    shown = np.nan_to_num(values.astype(np.float64) / limit)
    return np.clip(_MID_GREY * (1.0 + shown), 0.0, 1.0)
