# SPDX-License-Identifier: Apache-2.0
"""Writes the pages of a stack as a file of its kind, axes and metadata."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import tifffile

from tfvae import files
from tfvae.data import encoding
from tfvae.data.formats import Image
from tfvae.data.stacks import Form, Kind, Stack

# ImageJ opens stacks of these only.
_IMAGEJ_DTYPES = ("uint8", "uint16", "float32")
_ANIMATIONS = (".gif", ".png", ".webp")


def why_unwritable(suffix: str, stack: Stack) -> str | None:
    """Returns why a kind of file can not hold the pages of a stack, or None.

    Args:
      suffix: Ending of the file, such as ".tif".
      stack: The stack.
    """
    suffix = suffix.lower()
    image = (stack.file_stack or stack).read(0)
    kind = image.values.dtype, image.values.shape[2], image.alpha is not None
    reason = encoding.why_unsuitable(suffix, *kind)
    if reason is not None or suffix in (*encoding.TIFF_SUFFIXES, ".npy"):
        return reason
    if math.prod(stack.form.shape) == 1:
        return None
    if suffix not in _ANIMATIONS:
        return "several pages"
    if image.values.dtype != np.uint8:
        return f"several pages of dtype {image.values.dtype}"
    return None


def write_stack(
    path: str | os.PathLike[str],
    stack: Stack,
    images: Sequence[Image],
) -> None:
    """Writes images as a file of the kind and axes of a stack, atomically.

    TIFF files of ImageJ and OME stay that, with axes, resolution, spacing and
    names of channels. PNG, WebP and grey GIF are animated, with the durations
    and the loop of the stack. A `.npy` file has the axes of the array read.

    Args:
      path: The file; its ending chooses the format.
      stack: The stack that the images are pages of.
      images: An image for each page, all of one kind.

    Raises:
      ValueError: If the format can not hold them.
    """
    suffix = pathlib.Path(path).suffix.lower()
    reason = why_unwritable(suffix, stack)
    if reason is not None or len(images) != len(stack):
        raise ValueError(
            f"`path` must be able to hold {reason or f'{len(stack)} pages'}, "
            f"got {path!s} and {len(images)} images"
        )
    pages = list(images) if stack.undo is None else stack.undo(images)
    form = stack.form
    with files.replacing_path(path) as temporary:
        if suffix == ".npy":
            np.save(temporary, _as_array(pages, form))
        elif form.shape and suffix in encoding.TIFF_SUFFIXES:
            _write_tiff(temporary, pages, form)
        elif len(pages) == 1:
            encoding.write(temporary, pages[0], suffix)
        else:
            _write_animation(temporary, pages, form, suffix)


def _as_array(pages: Sequence[Image], form: Form) -> np.ndarray:
    """Returns all pages with the axes of the array that was read."""
    values = np.stack([one.values for one in pages])
    has_samples = values.shape[-1] > 1
    if form.kind is Kind.ARRAY:
        has_samples = "S" in form.axes
    values = values if has_samples else values[..., 0]
    values = values.reshape(*form.shape, *values.shape[1:])
    if form.kind is not Kind.ARRAY:
        return values
    found = "".join(one for one in form.axes if one not in "YXS")
    found += "YXS" if has_samples else "YX"
    return np.ascontiguousarray(
        values.transpose([found.index(one) for one in form.axes])
    )


def _write_tiff(
    path: str | os.PathLike[str], pages: Sequence[Image], form: Form
) -> None:
    samples, settings = zip(*map(encoding.tiff_samples, pages), strict=True)
    array = np.stack(samples)
    array = array.reshape(*form.shape, *array.shape[1:])
    axes = form.axes
    if form.kind is Kind.ARRAY:
        axes = "".join(one for one in axes if one not in "YXS")
    axes += "YXS" if samples[0].ndim == 3 else "YX"
    metadata: dict[str, Any] | None = {**form.metadata, "axes": axes}
    special: dict[str, Any] = {}
    if form.kind is Kind.IMAGEJ and not _suits_imagej(axes):
        metadata = {"axes": axes}
    elif form.kind is Kind.IMAGEJ and array.dtype.name in _IMAGEJ_DTYPES:
        special["imagej"] = True
    elif form.kind is Kind.OME:
        special["ome"] = True
    elif form.kind in (Kind.PAGES, Kind.ANIMATION):
        metadata = None
    if not special and metadata is not None and "Q" in axes:
        del metadata["axes"]  # No name is better than a made-up one.
    if special.get("imagej"):  # It has no place for these.
        keys = "planarconfig", "iccprofile", "extrasamples"
        special |= {
            name: value
            for name, value in settings[0].items()
            if name not in keys
        }
    else:
        special |= settings[0]
    tifffile.imwrite(path, array, metadata=metadata, **special)


def _suits_imagej(axes: str) -> bool:
    """Whether axes are in the order that ImageJ has."""
    return axes == "".join(one for one in "TZCYXS" if one in axes)


def _write_animation(
    path: str | os.PathLike[str],
    pages: Sequence[Image],
    form: Form,
    suffix: str,
) -> None:
    first, *others = (
        PIL.Image.fromarray(encoding.interleaved(one)) for one in pages
    )
    settings: dict[str, Any] = {}
    if form.kind is Kind.ANIMATION:
        durations = [round(one) for one in form.metadata["duration"]]
        settings["duration"] = durations
        if form.metadata["loop"] is not None:
            settings["loop"] = form.metadata["loop"]
        if suffix == ".png" and form.metadata["default_image"]:
            # It is not among the frames that are shown.
            settings |= {"default_image": True, "duration": durations[1:]}
    if suffix == ".webp":
        settings |= {"lossless": True, "exact": True}
    elif suffix == ".gif":
        settings |= {"optimize": False, "disposal": 1}
    if pages[0].icc_profile is not None and suffix != ".gif":
        settings["icc_profile"] = pages[0].icc_profile
    first.save(path, save_all=True, append_images=others, **settings)
