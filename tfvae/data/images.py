# SPDX-License-Identifier: Apache-2.0
"""Reads, writes and corrupts images; a file's bit depth stays with its pixels.

Images are float32 arrays `[height, width, channels]` with one (grey) or three
(RGB) channels and values on 0..255 whatever the file's bit depth; a 16-bit
value v becomes v / 257, which float32 holds precisely enough to restore v.
NaN marks a missing entry.
"""

from __future__ import annotations

import math
import os
import pathlib
import struct
import tempfile
import tokenize
import zlib
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps
import skimage.data
import skimage.transform
import tensorflow as tf
import tifffile

WHITE = 255.0
"""Largest value of an entry; black is zero."""

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

IMAGE_SUFFIXES = (
    ".bmp",
    ".gif",
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
"""Endings by which images in a folder are recognised."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PER_16_BIT_STEP = 257.0  # 65535 / 255

# Exceptions that the decoders raise on damaged files.
_DECODING_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    PIL.Image.DecompressionBombError,
    tf.errors.OpError,
)


class Image(NamedTuple):
    """Pixels, and how many bits it takes to write them without loss.

    Attributes:
      pixels: `[height, width, 1 or 3]` float32 on 0..255, NaN where missing.
      bits: Bits per channel, 8 or 16, as `write_image` takes them. Floating
        point values have 16, the most that is written.
    """

    pixels: np.ndarray
    bits: int


def read_image(path: str | os.PathLike[str]) -> Image:
    """Reads an image file.

    Any format that Pillow reads, TIFF, and PNG with 8 or 16 bits per
    channel; palettes are resolved, other colour spaces become RGB, a
    camera's orientation tag is applied, and transparent parts are laid over
    white. Float TIFF and `.npy` files (`[height, width]` or
    `[height, width, channels]`) are taken as they are, on 0..255, and may
    hold NaN.

    Args:
      path: The file.

    Returns:
      The pixels and the bit depth of the file.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If the file is not a readable image.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be an image file, got {path!s}")
    with open(path, "rb") as file:
        head = file.read(32)
    try:
        if path.suffix.lower() == ".npy":
            image = _from_array(_load_npy(path))
        elif head.startswith(_PNG_SIGNATURE) and head[24:25] == b"\x10":
            # Pillow reads 16-bit colour PNGs with 8 bits only.
            decoded = tf.io.decode_png(path.read_bytes(), dtype=tf.uint16)
            image = _from_integers(decoded.numpy())
        elif head.startswith(_TIFF_SIGNATURES):
            image = _read_tiff(path)
        else:
            image = _read_with_pillow(path)
    except _DECODING_ERRORS as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ValueError(
            f"`path` must be a readable image, got {path!s}: {reason}"
        ) from error
    if np.isinf(image.pixels).any():
        raise ValueError(
            "`path` must hold finite values (NaN marks a missing entry), got "
            f"infinite ones in {path!s}"
        )
    return image


def _load_npy(path: pathlib.Path) -> np.ndarray:
    with open(path, "rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _read_with_pillow(path: pathlib.Path) -> Image:
    with PIL.Image.open(path) as picture:
        picture.load()
        oriented = PIL.ImageOps.exif_transpose(picture)
        mode = oriented.mode
        if mode == "F" or mode == "I" or mode.startswith("I;"):
            array = np.asarray(oriented)
            return _from_integers(array) if mode != "F" else _from_array(array)
        if mode == "1":
            oriented = oriented.convert("L")
        elif mode in ("P", "PA"):
            oriented = oriented.convert("RGBA")
            array = np.asarray(oriented)
            if (array[..., :3] == array[..., :1]).all():
                array = array[..., [0, 3]]  # a palette of greys
            return _from_integers(array)
        elif mode not in ("L", "LA", "RGB", "RGBA"):
            has_alpha = oriented.has_transparency_data
            oriented = oriented.convert("RGBA" if has_alpha else "RGB")
        return _from_integers(np.asarray(oriented))


def _read_tiff(path: pathlib.Path) -> Image:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        plain = page.photometric in (
            tifffile.PHOTOMETRIC.MINISBLACK,
            tifffile.PHOTOMETRIC.RGB,
        )
        if plain and page.dtype in (np.uint16, np.float32, np.float64):
            array = page.asarray()
            if page.axes.startswith("S"):  # colour planes one after another
                array = np.moveaxis(array, 0, -1)
            is_float = array.dtype.kind == "f"
            return _from_array(array) if is_float else _from_integers(array)
    return _read_with_pillow(path)


def _from_integers(array: np.ndarray) -> Image:
    """Reads grey, grey + alpha, RGB or RGBA of 8 or 16 bits."""
    if array.dtype == np.uint8:
        scale, bits = 1.0, 8
    elif array.min() >= 0 and array.max() <= 65535:
        scale, bits = 1.0 / _PER_16_BIT_STEP, 16
    else:
        raise ValueError("values outside 16 bits are not supported")
    array = array.astype(np.float64) * scale
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise ValueError(f"an array of shape {array.shape} is not an image")
    if array.shape[2] in (2, 4):
        opacity = array[..., -1:] / WHITE
        array = opacity * array[..., :-1] + (1.0 - opacity) * WHITE
    return Image(array.astype(np.float32), bits)


def _from_array(array: np.ndarray) -> Image:
    """Takes a numeric array whose values are already on 0..255."""
    if array.dtype.kind not in "uif":
        raise ValueError(f"dtype {array.dtype} is not a number")
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        raise ValueError(
            "an image must have shape [height, width] or "
            f"[height, width, 1 or 3], not {array.shape}"
        )
    bits = 16 if array.dtype.kind == "f" else 8
    return Image(array.astype(np.float32), bits)


def write_image(
    path: str | os.PathLike[str],
    image: np.ndarray,
    *,
    bits: int = 8,
    missing_value: float = 0.0,
) -> None:
    """Writes an image file atomically.

    Values are clipped to 0..255 and rounded here, and only here. A `.npy`
    file keeps them as they are, NaN included.

    Args:
      path: The file; its ending chooses the format.
      image: `[height, width]` or `[height, width, 1 or 3]` on 0..255.
      bits: Bits per channel, 8 or 16 (16 for PNG and TIFF only).
      missing_value: What NaN entries are drawn as.

    Raises:
      ValueError: If the image's shape, `bits` or the format do not fit.
    """
    path = pathlib.Path(path)
    suffix = path.suffix.lower()
    image = _from_array(np.asarray(image)).pixels
    allowed = (".png", ".tif", ".tiff") if bits == 16 else IMAGE_SUFFIXES
    if bits not in (8, 16) or suffix not in allowed:
        raise ValueError(
            "`bits` must be 8, or 16 for PNG and TIFF, and `path` must end "
            f"in an image suffix, got {bits!r} and {path!s}"
        )
    # In the same directory, so that the replacement is one atomic step.
    handle, temporary = tempfile.mkstemp(suffix=suffix, dir=path.parent)
    os.close(handle)
    try:
        _encode(temporary, suffix, image, bits, missing_value)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _encode(
    path: str, suffix: str, image: np.ndarray, bits: int, missing: float
) -> None:
    if suffix == ".npy":
        np.save(path, image)
        return
    filled = np.where(np.isnan(image), missing, image).astype(np.float64)
    scaled = np.clip(filled, 0.0, WHITE)
    if bits == 16:
        pixels = np.rint(scaled * _PER_16_BIT_STEP).astype(np.uint16)
        if suffix == ".png":
            encoded = tf.io.encode_png(tf.constant(pixels)).numpy()
            pathlib.Path(path).write_bytes(encoded)
        else:
            grey = pixels.shape[2] == 1
            tifffile.imwrite(
                path,
                pixels[..., 0] if grey else pixels,
                photometric="minisblack" if grey else "rgb",
            )
        return
    pixels = np.rint(scaled).astype(np.uint8)
    PIL.Image.fromarray(
        pixels[..., 0] if pixels.shape[2] == 1 else pixels
    ).save(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_mask(
    path: str | os.PathLike[str], shape: tuple[int, int, int]
) -> np.ndarray:
    """Reads which entries of an image are missing.

    Args:
      path: An image or `.npy` file; non-zero entries are missing. Prefer
        lossless formats: compression noise counts as non-zero.
      shape: Height, width and channels of the image to be masked.

    Returns:
      `shape` bool, True where missing. A grey mask holds for all channels;
      a colour mask for each channel, or, on a grey image, wherever any
      of its channels is set.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If it is unreadable or of another height or width.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() == ".npy" and path.is_file():
        values = _load_mask_array(path)
    else:
        values = read_image(path).pixels
    if values.shape[:2] != tuple(shape[:2]):
        raise ValueError(
            f"`mask` must be as large as the image ({shape[0]} x {shape[1]}), "
            f"got {values.shape[0]} x {values.shape[1]} in {path!s}"
        )
    missing = (values != 0.0) | np.isnan(values)
    if missing.shape[2] != shape[2]:
        missing = missing.any(axis=-1, keepdims=True)
    return np.ascontiguousarray(np.broadcast_to(missing, shape))


def _load_mask_array(path: pathlib.Path) -> np.ndarray:
    try:
        array = _load_npy(path)
        return _from_array(
            array.astype(np.float32) if array.dtype == bool else array
        ).pixels
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
    image = read_image(
        pathlib.Path(skimage.data.__file__).parent / EMBEDDED_IMAGES[name]
    ).pixels
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


def load_image(image: str | os.PathLike[str] | np.ndarray) -> Image:
    """An image from a file, an embedded picture's name, or an array.

    Args:
      image: A path; or a name in `EMBEDDED_IMAGES`; or an array
        `[height, width]` or `[height, width, 1 or 3]` on 0..255, of
        8 bits where its dtype is an integer.

    Returns:
      The pixels and their bit depth.

    Raises:
      FileNotFoundError: If it is neither a file nor an embedded name.
      ValueError: If it is not an image.
    """
    if isinstance(image, np.ndarray):
        taken = _from_array(image)
        if np.isinf(taken.pixels).any():
            raise ValueError("`image` must be finite, got infinite values")
        return taken
    if str(image) in EMBEDDED_IMAGES and not os.path.exists(image):
        return Image(embedded_image(str(image)), 8)
    if not os.path.isfile(image):
        raise FileNotFoundError(
            "`image` must be an image file or one of the embedded pictures "
            f"{sorted(EMBEDDED_IMAGES)}, got {str(image)!r}"
        )
    return read_image(image)


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
