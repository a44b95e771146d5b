# SPDX-License-Identifier: Apache-2.0
"""Data sources from array files: `.npy`, `.npz` and idx (MNIST)."""

from __future__ import annotations

import gzip
import math
import os
import pathlib
import struct
import tokenize
import zipfile
import zlib

import numpy as np

from tfvae import typed_gin
from tfvae.arguments import check_positive
from tfvae.data.source import Observations, occurring_range, split_test

_GZIP_SIGNATURE = b"\x1f\x8b"
_IDX_UNSIGNED_BYTE = 0x08

# Exceptions that NumPy and the modules it uses raise on damaged files.
_LOADING_ERRORS = (
    EOFError,
    MemoryError,
    RuntimeError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@typed_gin.register
def array_file(
    path: str,
    key: str | None = None,
    *,
    test_path: str | None = None,
    test_key: str | None = None,
    test_fraction: float = 0.0,
    event_shape: tuple[int, ...] | None = None,
    value_range: tuple[float, float] | None = None,
    scale: float = 1.0,
    seed: int = 0,
) -> Observations:
    """Data points from a `.npy` or `.npz` file.

    Args:
      path: File with an array `[N, ...]` of integers, booleans or floats;
        NaN marks a missing entry.
      key: Name of the array in a `.npz` file; may be left out if the file
        holds only one.
      test_path: File with held-out points; `path` itself if only
        `test_key` is given.
      test_key: Name of their array in a `.npz` file.
      test_fraction: Share of the points held out for testing instead.
      event_shape: Shape of one point; that of the array if None.
      value_range: See `Observations`; the smallest and largest value that
        occurs in the training points if None.
      scale: Factor from the stored values to the model's.
      seed: Chooses the points that `test_fraction` holds out.

    Returns:
      The flattened, scaled data points.

    Raises:
      FileNotFoundError: If a file does not exist.
      TypeError: If an array is not numeric.
      ValueError: If a file is unreadable or arguments do not fit it.
    """
    check_positive(scale=scale)
    points = _load_array("path", path, key)
    has_test_array = test_path is not None or test_key is not None
    if has_test_array and test_fraction:
        raise ValueError(
            "`test_fraction` must be 0 if `test_path` or `test_key` is given, "
            f"got {test_fraction!r}"
        )
    shape = points.shape[1:] if event_shape is None else event_shape
    train: np.ndarray = points
    test: np.ndarray | None
    if has_test_array:
        test = _load_array("test_path", test_path or path, test_key)
    else:
        train, test = split_test(points, test_fraction, seed)
    train = _flatten(train, scale)
    return Observations(
        name=pathlib.Path(path).stem,
        train=train,
        test=None if test is None else _flatten(test, scale),
        event_shape=shape or (1,),
        value_range=occurring_range(train)
        if value_range is None
        else value_range,
    )


def _load_array(argument: str, path: str, key: str | None) -> np.ndarray:
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"`{argument}` must be a .npy or .npz file, got {path!r}"
        )
    try:
        array = _read_array(path, key)
    except LookupError as error:
        raise ValueError(
            f"`{argument.replace('path', 'key')}` must name one of the arrays "
            f"{error.args[0]!r} in {path!r}, got {key!r}"
        ) from error
    except _LOADING_ERRORS as error:
        raise ValueError(
            f"`{argument}` must be a readable .npy or .npz file, got "
            f"{path!r}: {error}"
        ) from error
    if array.dtype.kind not in "buif":
        raise TypeError(
            f"`{argument}` must hold numbers, got dtype {array.dtype} in "
            f"{path!r}"
        )
    if array.ndim < 1 or 0 in array.shape:
        raise ValueError(
            f"`{argument}` must hold an array [points, ...] that is not "
            f"empty, got shape {array.shape!r} in {path!r}"
        )
    return array


def _read_array(path: str, key: str | None) -> np.ndarray:
    # Opened here, since NumPy leaves a broken archive open.
    with open(path, "rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            if key is not None:
                raise LookupError([])  # a .npy file has no names
            return loaded
        names = sorted(loaded.files)
        if key is None and len(names) == 1:
            key = names[0]
        if key not in names:
            raise LookupError(names)
        return loaded[key]


def _flatten(points: np.ndarray, scale: float) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinite values are refused later
        flat = points.reshape(len(points), -1).astype(np.float32)
    return flat if scale == 1.0 else flat * np.float32(scale)


@typed_gin.register
def idx_images(
    directory: str,
    *,
    num_train: int | None = None,
    num_test: int | None = None,
    scale: float = 1.0 / 255.0,
) -> Observations:
    """Images in the idx file format of MNIST and Fashion-MNIST.

    Args:
      directory: Folder with `train-images-idx3-ubyte` and, for testing,
        `t10k-images-idx3-ubyte`, each with or without `.gz`. Labels, in
        files with `labels-idx1` in place of `images-idx3`, are read if
        they exist.
      num_train: Use only the first `num_train` training images.
      num_test: Use only the first `num_test` test images.
      scale: Factor from 0..255 to the model's values.

    Returns:
      The images, of shape `[height, width, 1]` each, and their labels.

    Raises:
      FileNotFoundError: If the training images are not there.
      ValueError: If a file is not in this format or cut short, or there are
        not as many labels as images.
    """
    train_file = _find_idx(directory, "train-images-idx3-ubyte")
    test_file = _find_idx(directory, "t10k-images-idx3-ubyte")
    if train_file is None:
        raise FileNotFoundError(
            "`directory` must contain train-images-idx3-ubyte or "
            f"train-images-idx3-ubyte.gz, got {directory!r}"
        )
    check_positive(scale=scale)
    train, train_labels = _read_part(train_file, "num_train", num_train)
    test, test_labels = None, None
    if test_file is not None and num_test != 0:
        test, test_labels = _read_part(test_file, "num_test", num_test)
    return Observations(
        name=pathlib.Path(directory).resolve().name,
        train=_flatten(train, scale),
        test=None if test is None else _flatten(test, scale),
        event_shape=(*train.shape[1:], 1),
        value_range=(0.0, 255.0 * scale),
        train_labels=train_labels,
        test_labels=test_labels,
    )


def _read_part(
    image_file: str, argument: str, count: int | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Images `[n, height, width]` and, if there are any, labels `[n]`."""
    images = read_idx(image_file)
    first = _first(argument, images, count)
    directory, name = os.path.split(image_file.removesuffix(".gz"))
    path = _find_idx(directory, name.replace("images-idx3", "labels-idx1"))
    if path is None:
        return first, None
    labels = read_idx(path)
    if labels.shape != (len(images),):
        raise ValueError(
            f"`directory` must have as many labels as images ({len(images)}), "
            f"got shape {labels.shape!r} in {path!r}"
        )
    return first, labels[: len(first)]


def _find_idx(directory: str, name: str) -> str | None:
    for suffix in ("", ".gz"):
        path = os.path.join(directory, name + suffix)
        if os.path.isfile(path):
            return path
    return None


def _first(name: str, images: np.ndarray, count: int | None) -> np.ndarray:
    if images.ndim != 3:
        raise ValueError(
            "`directory` must have idx files of images [count, height, "
            f"width], got shape {images.shape!r}"
        )
    if count is None:
        return images
    if not 1 <= count <= len(images):
        raise ValueError(
            f"`{name}` must be in [1, {len(images)}], the number of images, "
            f"got {count!r}"
        )
    return images[:count]


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads an idx file of unsigned bytes, compressed with gzip or not.

    The format: two zero bytes, the type 0x08, the number of dimensions, each
    dimension as a big-endian 32-bit integer, and the values, last dimension
    fastest.

    Args:
      path: The file.

    Returns:
      The array, uint8.

    Raises:
      ValueError: If the file is not in this format or cut short.
    """
    content = pathlib.Path(path).read_bytes()
    if content.startswith(_GZIP_SIGNATURE):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"`path` must be a whole gzip file, got {path!s}: {error}"
            ) from error
    if len(content) < 4 or content[:3] != bytes([0, 0, _IDX_UNSIGNED_BYTE]):
        raise ValueError(
            "`path` must be an idx file of unsigned bytes, got "
            f"{path!s} that begins with {content[:4]!r}"
        )
    num_dimensions = content[3]
    header = 4 + 4 * num_dimensions
    shape: tuple[int, ...] = ()
    if len(content) >= header:
        shape = struct.unpack(f">{num_dimensions}I", content[4:header])
    if not shape or len(content) != header + math.prod(shape):
        raise ValueError(
            f"`path` must hold {shape!r} values, as its header declares, "
            f"got {max(0, len(content) - header)} in {path!s}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
