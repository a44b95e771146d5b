# SPDX-License-Identifier: Apache-2.0
"""Decodes image files in their own dtype, with their metadata.

What a file says of itself is applied (orientation, white-is-zero, palettes,
colour keys, planar layout) or kept for writing (alpha, ICC profile,
resolution). What can not be interpreted with certainty is refused by name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import os
import pathlib
import re
import struct
import tokenize
import zlib
from collections.abc import Iterator, Sequence
from typing import Literal

import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageCms
import tifffile

from tfvae.data import openexr
from tfvae.data.formats import Image, Resolution, from_array, load_npy

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG_2000_SIGNATURES = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xffO\xffQ")
_EXR_SIGNATURE = b"\x76\x2f\x31\x01"
_ORIENTATION = 0x0112
# Exceptions that the decoders raise on damaged files.
_DECODING_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    MemoryError,
    RuntimeError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    PIL.Image.DecompressionBombError,
    PIL.ImageCms.PyCMSError,
)


def read(path: str | os.PathLike[str]) -> Image:
    """Reads an image file; see `tfvae.data.read_image`."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be an image file, got {path!s}")
    with explained(path):
        image = _decoded(path)
    check_finite(image, path)
    return image


@contextlib.contextmanager
def explained(path: pathlib.Path) -> Iterator[None]:
    """Converts what decoders raise on a damaged file.

    Raises:
      ValueError: With the name of the file.
    """
    try:
        yield
    except _DECODING_ERRORS as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ValueError(
            f"`path` must be a readable image, got {path!s}: {reason}"
        ) from error


def check_finite(image: Image, path: str | os.PathLike[str]) -> None:
    """Raises a ValueError if an image of a file has infinite values."""
    if np.isinf(image.values).any():
        raise ValueError(
            "`path` must hold finite values (NaN marks a missing entry), got "
            f"infinite ones in {path!s}"
        )


def is_tiff(path: pathlib.Path) -> bool:
    """Returns whether a file begins as TIFF files do."""
    with open(path, "rb") as file:
        return file.read(4) in _TIFF_SIGNATURES


def _decoded(path: pathlib.Path) -> Image:
    with open(path, "rb") as file:
        head = file.read(64)
    if path.suffix.lower() == ".npy":
        return from_array(load_npy(path))
    if head.startswith(_TIFF_SIGNATURES):
        return _read_tiff(path)
    if head.startswith(_EXR_SIGNATURE):
        return openexr.read(path)
    if re.match(rb"P[36]\s", head) and _maximum_of_ppm(path) > 255:
        raise ValueError(
            "PPM of more than 8 bits is not supported; convert it to PNG or "
            "TIFF"
        )
    array = None
    if head.startswith(_PNG_SIGNATURE) and head[24:25] == b"\x10":
        # Pillow reads 16-bit colour PNGs with 8 bits only.
        array = imagecodecs.png_decode(path.read_bytes())
    elif head.startswith(_JPEG_2000_SIGNATURES):
        array = imagecodecs.jpeg2k_decode(path.read_bytes())
        if array.dtype == np.uint8:
            array = None
        elif array.ndim == 3 and array.shape[2] != 3:
            raise ValueError(
                f"JPEG 2000 of {array.shape[2]} channels of more than 8 bits "
                "is not supported"
            )
    return _read_with_pillow(path, array)


def _maximum_of_ppm(path: pathlib.Path) -> int:
    with open(path, "rb") as file:
        text = re.sub(rb"#[^\n]*", b"", file.read(4096))
    return int(text.split(maxsplit=4)[3])


def _read_with_pillow(
    path: pathlib.Path, array: np.ndarray | None, frame: int = 0
) -> Image:
    """Reads a file; `array` has its pixels if Pillow can not hold them."""
    with PIL.Image.open(path) as picture:
        picture.seek(frame)
        picture.load()
        notes = []
        num_frames = getattr(picture, "n_frames", 1)
        if num_frames > 1:
            notes.append(f"frame {frame + 1} of {num_frames}")
        profile = picture.info.get("icc_profile") or None
        if array is None:
            array, alpha, profile = _pillow_values(picture, profile, notes)
        else:
            array, alpha = _split_alpha(array)
        dpi = picture.info.get("dpi")
        orientation = picture.getexif().get(_ORIENTATION, 1)
        is_lossy = picture.format in ("JPEG", "MPO")
    resolution = None
    if dpi is not None and min(dpi) > 0:
        resolution = Resolution(float(dpi[0]), float(dpi[1]), "inch")
    return _oriented(
        Image(
            array,
            alpha,
            icc_profile=fitting_profile(profile, array.shape[2], notes),
            resolution=resolution,
            is_lossy=is_lossy,
            notes=tuple(notes),
        ),
        orientation,
    )


def _split_alpha(
    array: np.ndarray,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Splits grey, grey + alpha, RGB or RGBA into values and alpha."""
    array = array[..., None] if array.ndim == 2 else array
    if array.shape[2] in (2, 4):
        return array[..., :-1], array[..., -1]
    return array, None


def _pillow_values(
    picture: PIL.Image.Image, profile: bytes | None, notes: list[str]
) -> tuple[np.ndarray, np.ndarray | None, bytes | None]:
    """Returns values, alpha and ICC profile of what Pillow has loaded."""
    mode = picture.mode
    if mode == "1" or mode in ("L", "RGB"):
        array = np.asarray(picture.convert("L") if mode == "1" else picture)
        if mode == "1":
            notes.append("1 bit, written with 8")
        values, _ = _split_alpha(array)
        key = picture.info.get("transparency")
        alpha = None
        if key is not None:
            bits = 8 if mode == "1" else _bits_of_png(picture)
            alpha = _alpha_of_key(values, key, bits)
            notes.append("its transparent colour as alpha")
        return values, alpha, profile
    if mode in ("LA", "RGBA"):
        return *_split_alpha(np.asarray(picture)), profile
    if mode in ("P", "PA"):
        return *_palette_values(picture, notes), profile
    if mode == "F" or mode == "I" or mode.startswith("I;16"):
        array = np.asarray(picture)
        if mode == "I" and picture.format in ("PNG", "PPM"):
            array = array.astype(np.uint16)
        values = array.astype(array.dtype.newbyteorder("="), copy=False)
        return values[..., None], None, profile
    if mode in ("CMYK", "YCbCr"):
        return *_as_rgb(picture, profile, notes), None, _srgb(profile, mode)
    raise ValueError(f"colour mode {mode} is not supported; convert it to RGB")


def _bits_of_png(picture: PIL.Image.Image) -> int:
    """Returns the bits in which a file states its transparent colour."""
    path = getattr(picture, "filename", None)
    if picture.format != "PNG" or not path:
        return 8
    with open(path, "rb") as file:
        return file.read(25)[24]


def _alpha_of_key(
    values: np.ndarray, key: int | bytes | tuple[int, ...], bits: int
) -> np.ndarray:
    if isinstance(key, bytes):
        raise ValueError("a transparency table without palette is not allowed")
    steps = 255 // (2**bits - 1)
    is_clear = (values == np.atleast_1d(key) * steps).all(axis=-1)
    return np.where(is_clear, np.uint8(0), np.uint8(255))


def _palette_values(
    picture: PIL.Image.Image, notes: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    array = np.asarray(picture.convert("RGBA"))
    values, alpha = array[..., :3], array[..., 3]
    is_grey = bool((values == values[..., :1]).all())
    notes.append(f"its palette as {'grey' if is_grey else 'RGB'}")
    return (
        values[..., :1] if is_grey else values,
        alpha if picture.has_transparency_data else None,
    )


def _as_rgb(
    picture: PIL.Image.Image, profile: bytes | None, notes: list[str]
) -> tuple[np.ndarray]:
    """Converts CMYK or YCbCr to RGB, by its profile if it has one."""
    mode = picture.mode
    if mode == "CMYK" and profile is not None:
        converted = PIL.ImageCms.profileToProfile(
            picture,
            PIL.ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            PIL.ImageCms.createProfile("sRGB"),
            outputMode="RGB",
        )
        if converted is None:
            raise ValueError("its ICC profile does not apply")
        notes.append("CMYK converted to sRGB by its ICC profile")
        return (np.asarray(converted),)
    without = " without an ICC profile" if mode == "CMYK" else ""
    notes.append(f"{mode}{without} converted to RGB")
    return (np.asarray(picture.convert("RGB")),)


def _srgb(profile: bytes | None, mode: str) -> bytes | None:
    """Returns the profile of what was converted to RGB."""
    if profile is None or mode != "CMYK":
        return profile
    created = PIL.ImageCms.createProfile("sRGB")
    return PIL.ImageCms.ImageCmsProfile(created).tobytes()


def fitting_profile(
    profile: bytes | None, num_channels: int, notes: list[str]
) -> bytes | None:
    """Returns the profile if it is of this number of channels."""
    if profile is None:
        return None
    space = {1: b"GRAY", 3: b"RGB "}.get(num_channels)
    if profile[16:20] == space:
        return profile
    found = profile[16:20].decode("latin-1").strip()
    notes.append(f"without its ICC profile, which is for {found}")
    return None


def _read_tiff(path: pathlib.Path) -> Image:
    with tifffile.TiffFile(path) as file:
        notes = []
        if len(file.pages) > 1:
            notes.append(f"page 1 of {len(file.pages)}")
        return tiff_image(path, file.pages.first, None, notes)


def tiff_image(
    path: pathlib.Path,
    page: tifffile.TiffPage,
    array: np.ndarray | None = None,
    notes: Sequence[str] = (),
    index: int | None = None,
) -> Image:
    """Decodes one page of a TIFF file.

    Args:
      path: The file.
      page: The page, or one of the same tags.
      array: The samples in the axes of the page; None to read them.
      notes: What to note of the image first.
      index: Number of its directory in the file, where `page` is another one.

    Raises:
      ValueError: If the page is of a kind that is not supported.
    """
    notes = list(notes)
    kind = page.photometric
    if kind == tifffile.PHOTOMETRIC.YCBCR or (
        kind == tifffile.PHOTOMETRIC.SEPARATED and page.dtype == np.uint8
    ):
        index = page.index if index is None else index
        image = _read_with_pillow(path, None, index)  # Turned already.
        kept = [one for one in image.notes if not one.startswith("frame ")]
        return dataclasses.replace(image, notes=(*notes, *kept))
    array = page.asarray() if array is None else array
    if page.axes in ("SYX", "YXS"):
        array = np.moveaxis(array, 0, -1) if page.axes[0] == "S" else array
    elif page.axes != "YX":
        raise ValueError(f"TIFF pages of axes {page.axes} are not an image")
    array = array[..., None] if array.ndim == 2 else array
    array = _by_photometric(page, array, notes)
    array, alpha, is_premultiplied = _split_extra_samples(page, array, notes)
    profile = page.tags.valueof(34675)
    return _oriented(
        Image(
            array.astype(array.dtype.newbyteorder("="), copy=False),
            alpha,
            is_premultiplied,
            fitting_profile(profile, array.shape[2], notes),
            _tiff_resolution(page),
            notes=tuple(notes),
        ),
        page.tags.valueof(_ORIENTATION, 1),
    )


def _by_photometric(
    page: tifffile.TiffPage, array: np.ndarray, notes: list[str]
) -> np.ndarray:
    """Returns `[height, width, samples]` with black at zero, full 8 bits."""
    kind, bits = page.photometric, page.bitspersample
    if isinstance(bits, tuple):
        raise ValueError("samples of different bit depths are not supported")
    if kind == tifffile.PHOTOMETRIC.PALETTE:
        table = np.asarray(page.colormap)
        if table.ndim != 2:
            raise ValueError("a TIFF of palette colours has no palette")
        table = (table >> 8 if table.max() > 255 else table).astype(np.uint8)
        array = np.moveaxis(table[:, array[..., 0]], 0, -1)
        is_grey = bool((array == array[..., :1]).all())
        notes.append(f"its palette as {'grey' if is_grey else 'RGB'}")
        return array[..., :1] if is_grey else array
    if kind not in (
        tifffile.PHOTOMETRIC.MINISBLACK,
        tifffile.PHOTOMETRIC.MINISWHITE,
        tifffile.PHOTOMETRIC.RGB,
    ):
        name = tifffile.PHOTOMETRIC(kind).name
        raise ValueError(
            f"TIFF of photometric interpretation {name} and dtype "
            f"{page.dtype} is not supported; convert it to RGB"
        )
    if array.dtype.kind not in "buif":
        raise ValueError(f"dtype {array.dtype} is not a number")
    if bits < 8:
        steps = 255 // (2**bits - 1)
        array = array.astype(np.uint8) * np.uint8(steps)
        notes.append(f"{bits} bit{'s' if bits > 1 else ''}, written with 8")
        bits = 8
    if kind == tifffile.PHOTOMETRIC.MINISWHITE:
        if array.dtype.kind != "u":
            raise ValueError(
                f"white-is-zero with dtype {array.dtype} is not supported, "
                "as its black is not known"
            )
        notes.append("white-is-zero turned into black-is-zero")
        largest = array.dtype.type(2**bits - 1)
        array = np.concatenate(
            [largest - array[..., :1], array[..., 1:]], axis=-1
        )
    return array


def _split_extra_samples(
    page: tifffile.TiffPage, array: np.ndarray, notes: list[str]
) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Returns values, alpha, and whether the values are premultiplied."""
    num_colours = 3 if page.photometric == tifffile.PHOTOMETRIC.RGB else 1
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        return array, None, False
    num_extra = array.shape[2] - num_colours
    if num_extra < 0:
        raise ValueError(f"RGB of {array.shape[2]} samples is not an image")
    extra = [int(one) for one in page.extrasamples][:num_extra]
    extra += [0] * (num_extra - len(extra))
    alphas = [num_colours + i for i, one in enumerate(extra) if one in (1, 2)]
    if len(alphas) > 1:
        raise ValueError("more than one alpha channel is not supported")
    if extra.count(0):
        notes.append(
            f"{array.shape[2] - len(alphas)} channels, of which the file says "
            f"{extra.count(0)} to be unspecified"
        )
    if not alphas:
        return array, None, False
    is_premultiplied = extra[alphas[0] - num_colours] == 1
    notes.append(
        "premultiplied (associated) alpha"
        if is_premultiplied
        else "straight (unassociated) alpha"
    )
    values = np.delete(array, alphas[0], axis=2)
    return values, array[..., alphas[0]], is_premultiplied


def _tiff_resolution(page: tifffile.TiffPage) -> Resolution | None:
    found = []
    for code in (282, 283):
        numerator, denominator = page.tags.valueof(code, (0, 0))
        found.append(numerator / denominator if denominator else 0.0)
    if min(found) <= 0.0 or not all(map(math.isfinite, found)):
        return None
    units: dict[int, Literal["none", "inch", "cm"]] = {1: "none", 3: "cm"}
    unit = units.get(int(page.tags.valueof(296, 2)), "inch")
    return Resolution(found[0], found[1], unit)


# Quarter turns counter-clockwise of the array that is mirrored first, by EXIF
# orientation, such that the result is as it is to be viewed.
_TURNS = {
    1: (False, 0),
    2: (True, 0),
    3: (False, 2),
    4: (True, 2),
    5: (True, 1),
    6: (False, 3),
    7: (True, 3),
    8: (False, 1),
}


def _oriented(image: Image, orientation: int) -> Image:
    """Turns an image as its EXIF or TIFF orientation says."""
    if orientation not in _TURNS or orientation == 1:
        return image
    mirrored, turns = _TURNS[orientation]

    def turned(array: np.ndarray) -> np.ndarray:
        array = array[:, ::-1] if mirrored else array
        return np.ascontiguousarray(np.rot90(array, turns))

    resolution = image.resolution
    if resolution is not None and turns % 2:
        resolution = Resolution(
            resolution.vertical, resolution.horizontal, resolution.unit
        )
    return dataclasses.replace(
        image,
        values=turned(image.values),
        alpha=None if image.alpha is None else turned(image.alpha),
        resolution=resolution,
        notes=(*image.notes, f"turned by its orientation {orientation}"),
    )
