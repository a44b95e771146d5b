# SPDX-License-Identifier: Apache-2.0
"""`Stack`: the pages of an image file or array, read one by one.

Pages are numbered from 0, in the order of the file, with the last axis of
pages changing fastest. What an axis is comes from the metadata of a TIFF file
or is given; it is never guessed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import math
import os
import pathlib
import xml.etree.ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import PIL.Image
import tifffile

from tfvae.data import decoding, formats
from tfvae.data.formats import Image
from tfvae.data.images import crop_picture, load_image, naming

Channels = Literal["together", "alone"]
"""Whether a page has all channels of a pixel, or one."""

ARRAY_AXES = "TZCQYXS"
"""Letters of the axes of arrays: time, depth, channels, other pages, rows,
columns, samples of a pixel such as red, green and blue."""

# What Pillow converts to RGB, by the directory in the file.
_CONVERTED = tifffile.PHOTOMETRIC.YCBCR, tifffile.PHOTOMETRIC.SEPARATED
_PAGE_AXES = "TZCQ"
_WORDS = {"T": "time", "Z": "depth", "C": "channel", "S": "sample"}
_MAX_SAMPLES = 3
# Of what the description and the tags of ImageJ's files say, what follows
# from the array or is written by tifffile itself.
_IMAGEJ_DERIVED = frozenset(
    ("ImageJ", "images", "channels", "slices", "frames", "hyperstack", "axes")
)
_OME_PIXELS = (
    "PhysicalSizeX",
    "PhysicalSizeXUnit",
    "PhysicalSizeY",
    "PhysicalSizeYUnit",
    "PhysicalSizeZ",
    "PhysicalSizeZUnit",
    "TimeIncrement",
    "TimeIncrementUnit",
)
_ANIMATIONS = ("GIF", "PNG", "WEBP")


class Kind(enum.Enum):
    """Kind of file or array, as it is described."""

    PICTURE = "picture"
    PAGES = "TIFF"
    SHAPED = "TIFF with named axes"
    IMAGEJ = "ImageJ stack"
    OME = "OME-TIFF"
    ANIMATION = "animation"
    ARRAY = "array"


@dataclasses.dataclass(frozen=True)
class Form:
    """What a file is, as far as its pages do not say it.

    Attributes:
      kind: The kind of file.
      axes: Letters of the axes of pages; of an array those of all axes.
      shape: Sizes of the axes of pages.
      metadata: What the writer of this kind takes: tags and descriptions, or
        the durations of frames.
    """

    kind: Kind
    axes: str = ""
    shape: tuple[int, ...] = ()
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Stack:
    """Pages of an image file or array, all of one size, dtype and channels.

    Attributes:
      axes: Letter of each axis of pages, such as "TZ"; none for a picture.
      shape: Number of pages along each of them.
      read: From the number of a page to its image.
      form: What the file is.
      file_stack: The pages of the file, where `channels` has made others of
        them; None where they are the same.
      undo: From the images of all pages to those of the file, if these are
        others.
      notes: What was done in reading, as short texts.
    """

    axes: str
    shape: tuple[int, ...]
    read: Callable[[int], Image]
    form: Form
    file_stack: Stack | None = None
    undo: Callable[[Sequence[Image]], list[Image]] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of pages."""
        return math.prod(self.shape)

    def __iter__(self) -> Iterator[Image]:
        """Reads one page after the other."""
        return map(self.read, range(len(self)))

    def channel_of(self, page: int) -> int:
        """Returns which channel a page has, 0 where it has all of them."""
        letter = next((one for one in "CS" if one in self.axes), None)
        if letter is None:
            return 0
        return int(np.unravel_index(page, self.shape)[self.axes.index(letter)])

    def describe(self) -> str:
        """Says what the pages are taken to be."""
        image = self.read(0)
        height, width, count = image.values.shape
        sizes = " x ".join(map(str, self.shape))
        words = [_WORDS[one] for one in self.axes if one in _WORDS]
        named = f" ({' x '.join(words)})" if words else ""
        what = f"{self.form.kind.value} of one page"
        if self.axes:
            what = f"{self.form.kind.value} of {sizes} pages{named}"
        channels = ""
        if {"C", "S"} & set(self.axes):
            channels = ", each channel alone"
        elif count > 1:
            channels = f", its {count} channels together"
        return "; ".join(
            [
                f"{what} of {height} x {width} pixels, {image.values.dtype}"
                f"{channels}",
                *self.notes,
            ]
        )

    @property
    def is_plain(self) -> bool:
        """Whether it is one picture, written as any other."""
        is_ordered = self.form.axes in ("", "YX", "YXS")
        return not self.form.shape and not self.axes and is_ordered


def open_stack(
    image: str | os.PathLike[str] | np.ndarray,
    *,
    axes: str | None = None,
    channels: Channels | None = None,
    crop: tuple[int, int, int, int] | None = None,
    name: str = "image",
) -> Stack:
    """Opens an image file or array as a stack of pages.

    Multi-page TIFF, ImageJ and OME stacks; animated GIF, PNG and WebP, whose
    frames are as they are shown; `.npy` files and arrays. Any other image is a
    stack of one page without axes.

    Args:
      image: The file or the array, `[height, width]`, `[height, width, 1 to
        3]`, `[pages, height, width]`, `[pages, height, width, 1 to 3]`, or
        any other with `axes`.
      axes: A letter of `ARRAY_AXES` for each axis of an array, such as "CYX"
        for channels that come first; of a TIFF file, instead of what it says.
      channels: "alone" makes a page of each channel, "together" takes the
        channels of axis C into a page. None leaves the samples of a pixel (S)
        together and channels (C) alone.
      crop: Region of each page, see `crop_image`; None for all of it.
      name: Name of the argument, for messages.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If it is not an image, its axes are not known, or pages are
        of several sizes or kinds.
    """
    if channels not in (None, "together", "alone"):
        raise ValueError(
            f"`channels` must be 'together' or 'alone', got {channels!r}"
        )
    if isinstance(image, np.ndarray):
        try:
            stack = _of_array(image, axes)
            stack.read(0)
        except ValueError as error:
            raise ValueError(
                f"`{name}` must be an image, got an array: {error}"
            ) from error
    else:
        path = pathlib.Path(image)
        if not path.is_file():
            raise FileNotFoundError(
                f"`{name}` must be an image file, got {path!s}"
            )
        with naming(name), decoding.explained(path):
            stack = _of_file(path, axes)
        stack = _with_name(stack, name)
    if crop is not None:
        stack = _cropped(stack, crop)
    if channels == "alone":
        return _with_channels_alone(stack)
    if channels == "together":
        return _with_channels_together(stack)
    return stack


class _Reading(NamedTuple):
    """A page that `read_once` has loaded."""

    request: tuple[Any, ...]
    page: tuple[Image, int]


_reading: _Reading | None = None


@contextlib.contextmanager
def read_once(
    image: str | os.PathLike[str] | np.ndarray,
    page: int | None = None,
    *,
    axes: str | None = None,
    channels: Channels | None = None,
) -> Iterator[Image]:
    """Loads a page; within, `load_page` returns it and does not read it again.

    Args:
      image: See `load_page`.
      page: Likewise.
      axes: Likewise.
      channels: Likewise.

    Yields:
      The page, which must not be changed.
    """
    global _reading
    found = load_page(image, page, axes=axes, channels=channels)
    _reading = _Reading((image, page, axes, channels), found)
    try:
        yield found[0]
    finally:
        _reading = None


def load_page(
    image: str | os.PathLike[str] | np.ndarray,
    page: int | None = None,
    *,
    axes: str | None = None,
    channels: Channels | None = None,
    num_pages: int | None = None,
    name: str = "image",
) -> tuple[Image, int]:
    """Loads a page of an image; of an image of one page, that page.

    Args:
      image: See `load_image`; also what has several pages.
      page: Number of the page from 0. None only for an image of one.
      axes: See `open_stack`.
      channels: See `open_stack`.
      num_pages: Number of pages there must be, if not one for all of these,
        and `axes` are used only if they fit; None for any.
      name: Name of the argument, for messages.

    Returns:
      The page, and the number of pages.

    Raises:
      FileNotFoundError: See `load_image`.
      ValueError: If there is no such page, or another number of them.
    """
    is_plain = page is None and axes is None and channels is None
    is_file = not isinstance(image, np.ndarray)
    if is_file and num_pages is None and _reading is not None:
        if _reading.request == (image, page, axes, channels):
            return _reading.page
    if isinstance(image, np.ndarray):
        is_one = is_plain
    else:
        is_one = not os.path.isfile(image)
    if is_one:
        return load_image(image, argument=name), 1
    if num_pages is not None:
        axes = _fitting_axes(image, axes)
    stack = open_stack(image, axes=axes, channels=channels, name=name)
    count = len(stack)
    if count == 1 and num_pages is not None:
        return stack.read(0), 1
    if num_pages not in (None, count):
        raise ValueError(
            f"`{name}` must have one page or {num_pages}, as many as `image`, "
            f"got {count}"
        )
    if page is None and count > 1:
        raise ValueError(
            f"`page` must be given for an image of {count} pages, from 0 to "
            f"{count - 1}; `corrupted_images` restores several of them with "
            "one model, `tfvae denoise` all, got None"
        )
    if page is not None and not 0 <= page < count:
        raise ValueError(
            f"`page` must be from 0 to {count - 1} for an image of {count} "
            f"page{'s' if count > 1 else ''}, got {page!r}"
        )
    found = stack.read(page or 0)
    if np.isinf(found.values).any():
        raise ValueError(f"`{name}` must be finite, got infinite values")
    return found, count


def load_mask_page(
    mask: str | os.PathLike[str] | np.ndarray,
    page: int | None,
    *,
    axes: str | None = None,
    channels: Channels | None = None,
    num_pages: int = 1,
) -> str | os.PathLike[str] | np.ndarray:
    """Returns the page of a mask that has as many pages as an image.

    Args:
      mask: See `read_mask`; also with one page for each of the image.
      page: Number of the page from 0.
      axes: See `open_stack`.
      channels: See `open_stack`.
      num_pages: Number of pages of the image.

    Returns:
      The page, or a mask of one page as it is.

    Raises:
      ValueError: If it has another number of pages.
    """
    if page is None or num_pages == 1:
        return mask
    if isinstance(mask, np.ndarray):
        mask = mask.astype(np.uint8) if mask.dtype == bool else mask
    elif not os.path.isfile(mask):
        return mask
    found, count = load_page(
        mask,
        page,
        axes=axes,
        channels=channels,
        num_pages=num_pages,
        name="mask",
    )
    return mask if count == 1 else found.values


def _fitting_axes(
    image: str | os.PathLike[str] | np.ndarray, axes: str | None
) -> str | None:
    """Returns axes that are given for an image, if they fit another one."""
    if isinstance(image, np.ndarray):
        found = image.ndim
    elif pathlib.Path(image).suffix.lower() == ".npy":
        with decoding.explained(pathlib.Path(image)):
            found = formats.load_npy(pathlib.Path(image)).ndim
    else:
        return None
    return axes if axes is not None and len(axes) == found else None


def _of_file(path: pathlib.Path, axes: str | None) -> Stack:
    if path.suffix.lower() == ".npy":
        return _of_array(formats.load_npy(path), axes)
    if decoding.is_tiff(path):
        return _of_tiff(path, axes)
    if axes is not None:
        raise ValueError(f"`axes` must be for an array or TIFF, got {axes!r}")
    try:
        with PIL.Image.open(path) as picture:
            is_animated = getattr(picture, "n_frames", 1) > 1
            if is_animated and picture.format in _ANIMATIONS:
                return _of_animation(path, picture)
    except PIL.UnidentifiedImageError:
        pass  # Another decoder may know it.
    return Stack("", (), lambda _: decoding.read(path), Form(Kind.PICTURE))


def _of_array(array: np.ndarray, axes: str | None) -> Stack:
    order = _array_axes(array.shape) if axes is None else axes.upper()
    if (
        len(order) != array.ndim
        or len(set(order)) != len(order)
        or not {"Y", "X"} <= set(order) <= set(ARRAY_AXES)
    ):
        raise ValueError(
            f"`axes` must have a letter of {ARRAY_AXES} for each of the "
            f"{array.ndim} axes of shape {array.shape}, among them Y and X, "
            f"got {axes!r}"
        )
    pages = "".join(one for one in order if one not in "YXS")
    last = "YXS" if "S" in order else "YX"
    moved = array.transpose([order.index(one) for one in pages + last])
    shape = moved.shape[: len(pages)]
    flat = moved.reshape(-1, *moved.shape[len(pages) :])
    return Stack(
        pages,
        shape,
        lambda page: formats.from_array(flat[page]),
        Form(Kind.ARRAY, order, shape),
    )


def _array_axes(shape: tuple[int, ...]) -> str:
    """Returns the axes of an array of which only one reading is possible."""
    if len(shape) == 2:
        return "YX"
    has_samples = shape[-1] <= _MAX_SAMPLES
    if len(shape) in (3, 4) and has_samples:
        return "YXS" if len(shape) == 3 else "QYXS"
    if len(shape) == 3 and min(shape[0], shape[-1]) > _MAX_SAMPLES + 1:
        return "QYX"
    hint = ""
    if len(shape) == 3 and shape[-1] == _MAX_SAMPLES + 1:
        hint = "; of RGBA, give the first three channels"
    example = {3: "CYX for channels first or QYX for pages", 4: "TCYX"}
    raise ValueError(
        "an image must have shape [height, width] or [height, width, 1 to 3], "
        f"or its axes given, as `axes` (`--axes`), such as "
        f"{example.get(len(shape), 'TZCYX')}, not {shape}{hint}"
    )


def _of_tiff(path: pathlib.Path, axes: str | None) -> Stack:
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        page = series.keyframe
        others = [
            one.keyframe for one in file.series[1:] if not _is_reduced(one)
        ]
        found = series.axes
        if others:
            sizes = {one.shape for one in [page, *others]}
            raise ValueError(
                "TIFF pages of several sizes or kinds are not one stack: "
                f"{', '.join(map(str, sorted(sizes)))}; write them to a file "
                "each"
            )
        notes: tuple[str, ...] = ()
        if len(file.pages) > len(series.pages):
            notes = ("without its pages of lower resolution",)
        if found == page.axes and axes is None:
            form = Form(Kind.PICTURE)
            return Stack(
                "", (), lambda _: decoding.read(path), form, notes=notes
            )
        if not found.endswith(page.axes):
            raise ValueError(
                f"its axes are {found}, those of each of its pages {page.axes};"
                " write pages as grey pictures (photometric 'minisblack')"
            )
        leading = len(found) - len(page.axes)
        kind, metadata = _tiff_metadata(file, series)
        letters = found[:leading]
        if axes is not None:
            letters = axes.upper()[:leading]
            if (
                axes.upper() != letters + page.axes
                or len(set(letters)) != leading
                or not set(letters) <= set(_PAGE_AXES)
            ):
                raise ValueError(
                    f"`axes` must be {leading} letters for pages of shape "
                    f"{series.shape[:leading]}, then {page.axes}, each of "
                    f"{_PAGE_AXES} at most once, got {axes!r}"
                )
        shape = tuple(series.shape[:leading])
    return Stack(
        letters,
        shape,
        lambda number: _tiff_page(path, number),
        Form(kind, letters, shape, metadata),
        notes=notes,
    )


def _is_reduced(series: tifffile.TiffPageSeries) -> bool:
    return bool(series.keyframe.is_reduced)


def _tiff_page(path: pathlib.Path, number: int) -> Image:
    """Reads a page of the first series of a TIFF file."""
    with decoding.explained(path), tifffile.TiffFile(path) as file:
        series = file.series[0]
        frame = series.keyframe
        count = math.prod(series.shape[: len(series.axes) - len(frame.axes)])
        if len(series.pages) != count:  # Several in one directory.
            if frame.photometric in _CONVERTED:
                raise ValueError("pages of CMYK or YCbCr need a directory each")
            array = series.asarray().reshape(count, *frame.shape)[number]
            image = decoding.tiff_image(path, frame, array)
        else:
            page = series.pages[number]
            if page is None:
                raise ValueError(f"its page {number} is missing")
            if isinstance(page, tifffile.TiffPage):
                frame = page
            image = decoding.tiff_image(
                path, frame, page.asarray(), index=page.index
            )
    decoding.check_finite(image, path)
    return image


def _tiff_metadata(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries
) -> tuple[Kind, dict[str, Any]]:
    """Returns the kind of a TIFF file, and what its writer takes."""
    if series.kind == "imagej":
        found = file.imagej_metadata or {}
        return Kind.IMAGEJ, {
            name: value
            for name, value in found.items()
            if name not in _IMAGEJ_DERIVED
        }
    if series.kind == "ome":
        return Kind.OME, _ome_metadata(file.ome_metadata or "")
    if series.kind == "shaped":
        described = file.shaped_metadata or ({},)
        return Kind.SHAPED, {
            name: value
            for name, value in described[0].items()
            if name not in ("axes", "shape", "truncated")
        }
    is_named = not set(series.axes) <= set("IQYXS")
    return Kind.SHAPED if is_named else Kind.PAGES, {}


def _ome_metadata(text: str) -> dict[str, Any]:
    """Returns physical sizes and names of channels of OME-XML."""
    root = xml.etree.ElementTree.fromstring(text)
    pixels = root.find(".//{*}Pixels")
    if pixels is None:
        return {}
    kept: dict[str, Any] = {
        name: float(value) if not name.endswith("Unit") else value
        for name in _OME_PIXELS
        if (value := pixels.get(name)) is not None
    }
    names = [one.get("Name") for one in pixels.findall("{*}Channel")]
    if all(names) and names:
        kept["Channel"] = {"Name": names}
    return kept


def _of_animation(path: pathlib.Path, picture: PIL.Image.Image) -> Stack:
    """Reads all frames, as they are shown one after the other."""
    if picture.format == "PNG":
        with open(path, "rb") as file:
            if file.read(25)[24] > 8:
                raise ValueError(
                    "animated PNG of 16 bits is not supported; convert it to "
                    "multi-page TIFF"
                )
    frames, durations, has_alpha = [], [], False
    num_frames: int = picture.n_frames  # type: ignore[attr-defined]
    for number in range(num_frames):
        picture.seek(number)
        picture.load()
        frames.append(np.asarray(picture.convert("RGBA")))
        durations.append(float(picture.info.get("duration", 0)))
        has_alpha |= picture.has_transparency_data
    pixels = np.stack(frames)
    is_grey = bool((pixels[..., :3] == pixels[..., :1]).all())
    colours = pixels[..., :1] if is_grey else pixels[..., :3]
    has_alpha &= bool((pixels[..., 3] < 255).any())
    notes: list[str] = []
    profile = decoding.fitting_profile(
        picture.info.get("icc_profile") or None, colours.shape[-1], notes
    )

    def read(page: int) -> Image:
        alpha = pixels[page, ..., 3] if has_alpha else None
        return Image(colours[page], alpha, icc_profile=profile)

    shape = (len(frames),)
    metadata = {"duration": durations, "loop": picture.info.get("loop")}
    metadata["default_image"] = picture.info.get("default_image", False)
    form = Form(Kind.ANIMATION, "T", shape, metadata)
    return Stack("T", shape, read, form, notes=tuple(notes))


def _with_name(stack: Stack, name: str) -> Stack:
    """Lets errors of reading pages name an argument."""

    def read(page: int) -> Image:
        with naming(name):
            return stack.read(page)

    return dataclasses.replace(stack, read=read)


def _cropped(stack: Stack, crop: tuple[int, int, int, int]) -> Stack:
    def read(page: int) -> Image:
        return crop_picture(stack.read(page), crop)

    return dataclasses.replace(stack, read=read)


def _with_channels_alone(stack: Stack) -> Stack:
    """Makes a page of each channel; alpha and ICC profile are kept."""
    count = stack.read(0).values.shape[2]
    if count == 1:
        return stack

    def read(page: int) -> Image:
        whole = stack.read(page // count)
        channel = page % count
        return dataclasses.replace(
            whole,
            values=np.ascontiguousarray(
                whole.values[..., channel : channel + 1]
            ),
            alpha=None,
            is_premultiplied=False,
            icc_profile=None,
        )

    def undo(images: Sequence[Image]) -> list[Image]:
        return [
            dataclasses.replace(
                whole,
                values=np.concatenate(
                    [
                        one.values
                        for one in images[number * count : (number + 1) * count]
                    ],
                    axis=-1,
                ),
            )
            for number, whole in enumerate(stack)
        ]

    return dataclasses.replace(
        stack,
        axes=f"{stack.axes}S",
        shape=(*stack.shape, count),
        read=read,
        file_stack=stack,
        undo=undo,
    )


def _with_channels_together(stack: Stack) -> Stack:
    """Makes one page of the channels along axis C."""
    if "C" not in stack.axes:
        return stack
    place = stack.axes.index("C")
    table = np.arange(len(stack)).reshape(stack.shape)
    table = np.moveaxis(table, place, -1).reshape(-1, stack.shape[place])

    def read(page: int) -> Image:
        images = [stack.read(int(one)) for one in table[page]]
        first = images[0]
        if first.values.shape[2] > 1 or first.alpha is not None:
            raise ValueError(
                "`channels` must be 'alone' where pages have colours or "
                "alpha, got 'together'"
            )
        values = np.concatenate([one.values for one in images], axis=-1)
        return dataclasses.replace(first, values=values)

    def undo(images: Sequence[Image]) -> list[Image]:
        pages: dict[int, Image] = {}
        for row, image in zip(table, images, strict=True):
            for channel, number in enumerate(row):
                values = image.values[..., channel : channel + 1]
                pages[int(number)] = dataclasses.replace(image, values=values)
        return [pages[number] for number in range(len(stack))]

    return dataclasses.replace(
        stack,
        axes=stack.axes.replace("C", ""),
        shape=stack.shape[:place] + stack.shape[place + 1 :],
        read=read,
        file_stack=stack,
        undo=undo,
    )
