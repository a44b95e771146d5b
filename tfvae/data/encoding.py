# SPDX-License-Identifier: Apache-2.0
"""Encodes images in their own dtype, with their metadata."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import PIL.Image
import tifffile

from tfvae.data import openexr
from tfvae.data.formats import SUFFIXES, Image, alpha_limit

JPEG_QUALITY = 95
"""Quality of the JPEG files written, without subsampling of colours."""

TIFF_SUFFIXES = (".tif", ".tiff")
"""Endings of TIFF files."""

# Kinds that hold another number of channels than grey or RGB.
_CHANNELS = {".gif": (1,), ".pbm": (), ".pgm": (1,), ".ppm": (3,)}
_PNG_HEADER_BYTES = 33  # The signature and the chunk IHDR.


def why_unsuitable(
    suffix: str, dtype: np.dtype, num_channels: int, has_alpha: bool
) -> str | None:
    """Returns why a kind of file can not hold an image, or None.

    Args:
      suffix: Ending of the file, such as ".png".
      dtype: Of the values.
      num_channels: Number of channels without alpha.
      has_alpha: Whether there is an alpha channel.
    """
    suffix, dtype = suffix.lower(), np.dtype(dtype)
    if suffix in TIFF_SUFFIXES:
        return None
    if suffix == ".npy":
        if num_channels > 3:  # They may be taken for RGBA.
            return f"{num_channels} channels"
        return "an alpha channel" if has_alpha else None
    held: tuple[Any, ...] = (np.uint8,)
    if suffix == ".png":
        held = np.uint8, np.uint16
    elif suffix == openexr.SUFFIX:
        held = openexr.DTYPES
    if dtype not in held:
        return f"values of dtype {dtype}"
    if num_channels not in _CHANNELS.get(suffix, (1, 3)):
        return f"{num_channels} channels"
    if has_alpha and suffix not in (".png", ".webp", openexr.SUFFIX):
        return "an alpha channel"
    return None


def as_array(values: np.ndarray) -> np.ndarray:
    """Returns `[height, width]` of grey values, others as they are."""
    return values[..., 0] if values.shape[-1] == 1 else values


def write(path: str | os.PathLike[str], image: Image, suffix: str) -> None:
    """Writes an image file with its metadata; not atomic.

    Args:
      path: The file.
      image: The image, of a kind that the format holds.
      suffix: Ending that chooses the format.

    Raises:
      ValueError: If the format can not hold the image.
    """
    suffix = suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"`path` must end in an image suffix, {', '.join(SUFFIXES)}, got "
            f"{path!s}"
        )
    reason = why_unsuitable(
        suffix,
        image.values.dtype,
        image.values.shape[2],
        image.alpha is not None,
    )
    if reason is not None:
        raise ValueError(f"`path` must be able to hold {reason}, got {path!s}")
    if suffix == ".npy":
        np.save(path, as_array(image.values))
    elif suffix in TIFF_SUFFIXES:
        _write_tiff(path, image)
    elif suffix == openexr.SUFFIX:
        openexr.write(path, image)
    elif image.values.dtype == np.uint16:
        pathlib.Path(path).write_bytes(_deep_png(image))
    else:
        _write_with_pillow(path, image, suffix)


def _write_tiff(path: str | os.PathLike[str], image: Image) -> None:
    samples, settings = tiff_samples(image)
    tifffile.imwrite(path, samples, metadata=None, **settings)


def tiff_samples(image: Image) -> tuple[np.ndarray, dict[str, Any]]:
    """Returns what a TIFF page holds of an image.

    Returns:
      The samples, `[height, width]` or `[height, width, samples]`, alpha last,
      and the settings of `tifffile.imwrite` that say what they are.
    """
    values = image.values
    num_colours = 3 if values.shape[2] >= 3 else 1
    extra = ["unspecified"] * (values.shape[2] - num_colours)
    if image.alpha is not None:
        values = np.concatenate([values, image.alpha[..., None]], axis=-1)
        extra.append("assocalpha" if image.is_premultiplied else "unassalpha")
    settings: dict[str, Any] = {
        "photometric": "rgb" if num_colours == 3 else "minisblack",
        "planarconfig": None if values.shape[2] == 1 else "contig",
        "iccprofile": image.icc_profile,
    }
    if image.resolution is not None:
        horizontal, vertical, unit = image.resolution
        code = {"none": 1, "inch": 2, "cm": 3}[unit]
        settings["resolution"] = horizontal, vertical
        settings["resolutionunit"] = code
    if extra:
        settings["extrasamples"] = extra
    return values[..., 0] if values.shape[2] == 1 else values, settings


def straight(image: Image) -> Image:
    """Divides premultiplied values by the opacity."""
    if not image.is_premultiplied:
        return image
    opacity = image.opacity()[..., None]
    limit = alpha_limit(image.values.dtype)
    values = np.divide(
        image.values,
        opacity,
        out=np.zeros(image.values.shape),
        where=opacity > 0,
    )
    return dataclasses.replace(
        image,
        values=np.rint(np.clip(values, 0, limit)).astype(image.values.dtype),
        is_premultiplied=False,
    )


def interleaved(image: Image) -> np.ndarray:
    """Returns colours and straight alpha as one array.

    Returns:
      `[height, width]` or `[height, width, 2 to 4]`, contiguous.
    """
    image = straight(image)
    array = image.values
    if image.alpha is not None:
        array = np.concatenate([array, image.alpha[..., None]], axis=-1)
    array = array[..., 0] if array.shape[2] == 1 else array
    return np.ascontiguousarray(array)


def _deep_png(image: Image) -> bytes:
    """Encodes a 16-bit PNG, and inserts its metadata after the header."""
    encoded = bytes(imagecodecs.png_encode(interleaved(image)))
    chunks = b""
    if image.icc_profile is not None:
        content = b"ICC Profile\0\0" + zlib.compress(image.icc_profile)
        chunks += _png_chunk(b"iCCP", content)
    dpi = None if image.resolution is None else image.resolution.per_inch()
    if dpi is not None:
        per_metre = [round(one / 0.0254) for one in dpi]
        chunks += _png_chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    start = encoded[:_PNG_HEADER_BYTES]
    return start + chunks + encoded[_PNG_HEADER_BYTES:]


def _png_chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def _write_with_pillow(
    path: str | os.PathLike[str], image: Image, suffix: str
) -> None:
    settings: dict[str, Any] = {}
    if suffix in (".jpg", ".jpeg"):
        settings = {"quality": JPEG_QUALITY, "subsampling": 0}
    elif suffix == ".webp":
        settings = {"lossless": True, "exact": True}
    elif suffix == ".jp2":
        settings = {"irreversible": False}
    if image.icc_profile is not None:
        settings["icc_profile"] = image.icc_profile
    dpi = None if image.resolution is None else image.resolution.per_inch()
    if dpi is not None:
        settings["dpi"] = dpi
    PIL.Image.fromarray(interleaved(image)).save(path, **settings)
