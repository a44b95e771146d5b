# SPDX-License-Identifier: Apache-2.0
"""Reads and writes OpenEXR files of one part with colours, grey and alpha.

The values are linear light and premultiplied by alpha, as OpenEXR prescribes.
"""

from __future__ import annotations

import os
from types import ModuleType

import numpy as np

from tfvae.data.formats import Image

SUFFIX = ".exr"
"""Ending of OpenEXR files."""

DTYPES = (np.dtype(np.float16), np.dtype(np.float32))
"""The types of values that are read and written."""

_COLOURS = (("R", "G", "B"), ("Y",))
_ALPHA = "A"
_KINDS = ("scanlineimage", "tiledimage")


def _library() -> ModuleType:
    try:
        import OpenEXR
    except ImportError as error:
        raise ImportError(
            "`OpenEXR` must be installed for .exr files: pip install "
            "'tfvae[exr]'"
        ) from error
    return OpenEXR


def read(path: str | os.PathLike[str]) -> Image:
    """Reads an OpenEXR file.

    Args:
      path: The file: one part with the channels R, G and B, or Y, and perhaps
        A, all of them float16 or float32.

    Returns:
      The image, premultiplied if it has alpha. Its notes name the attributes
      that are not kept.

    Raises:
      ImportError: If the package `OpenEXR` is not installed.
      ValueError: If the file is of another kind, which the message names.
    """
    library = _library()
    with library.File(os.fspath(path), separate_channels=True) as file:
        if len(file.parts) != 1:
            raise ValueError(
                f"OpenEXR of {len(file.parts)} parts is not supported; write "
                "one part alone"
            )
        header, channels = file.header(), file.channels()
        kind = getattr(header["type"], "name", str(header["type"]))
        if kind not in _KINDS:
            raise ValueError(
                f"OpenEXR of type {kind} (deep data) is not supported"
            )
        names = _names(channels)
        planes = [np.array(channels[name].pixels) for name in names]
        notes = []
        if "chromaticities" in header:
            notes.append("without its chromaticities")
    dtypes = {plane.dtype for plane in planes}
    if len(dtypes) > 1 or planes[0].dtype not in DTYPES:
        found = ", ".join(sorted(map(str, dtypes)))
        raise ValueError(
            "OpenEXR must have channels that are all float16 or all float32, "
            f"not {found}"
        )
    has_alpha = names[-1] == _ALPHA
    if has_alpha:
        notes.append("premultiplied (associated) alpha")
    colours = planes[:-1] if has_alpha else planes
    return Image(
        np.stack(colours, axis=-1),
        planes[-1] if has_alpha else None,
        is_premultiplied=has_alpha,
        notes=tuple(notes),
    )


def _names(channels: dict) -> list[str]:
    """Returns the channels of an image in their order, alpha last."""
    subsampled = [
        name
        for name, one in channels.items()
        if (one.xSampling, one.ySampling) != (1, 1)
    ]
    if subsampled:
        raise ValueError(
            f"OpenEXR of subsampled channels ({', '.join(subsampled)}) is not "
            "supported; convert it to RGB"
        )
    for colours in _COLOURS:
        if set(channels) - {_ALPHA} == set(colours):
            return [*colours, *([_ALPHA] if _ALPHA in channels else [])]
    raise ValueError(
        "OpenEXR must have the channels R, G, B or Y, and perhaps A, not "
        f"{', '.join(sorted(channels))}"
    )


def write(path: str | os.PathLike[str], image: Image) -> None:
    """Writes an OpenEXR file with ZIP compression, which is lossless.

    Args:
      path: The file.
      image: One or three channels of float16 or float32. Straight alpha is
        multiplied in.

    Raises:
      ImportError: If the package `OpenEXR` is not installed.
    """
    library = _library()
    values, alpha = image.values, image.alpha
    if alpha is not None and not image.is_premultiplied:
        values = values * alpha[..., None]
    names = _COLOURS[0] if values.shape[2] == 3 else _COLOURS[1]
    channels = {
        name: np.ascontiguousarray(values[..., i])
        for i, name in enumerate(names)
    }
    if alpha is not None:
        channels[_ALPHA] = np.ascontiguousarray(alpha)
    header = {
        "compression": library.ZIP_COMPRESSION,
        "type": library.scanlineimage,
    }
    with library.File(header, channels) as file:
        file.write(os.fspath(path))
