# SPDX-License-Identifier: Apache-2.0
"""Table of picture files: what comes out of each kind that goes in.

Each cell is a generated file of one kind and dtype, which is read, restored by
the identity and written in every format that holds it. No model is trained.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import imagecodecs
import numpy as np
import OpenEXR
import PIL.Image
import PIL.ImageCms
import tensorflow as tf
import tifffile
from absl.testing import parameterized

from tfvae import restoration
from tfvae.data import encoding, formats, images, stack_encoding, stacks
from tfvae.ops import patches

SRGB = PIL.ImageCms.ImageCmsProfile(
    PIL.ImageCms.createProfile("sRGB")
).tobytes()
SIZE = (9, 11)
ALL = ("uint8", "uint16", "float32")
DEEP = ("uint8", "uint16")
TIFF_ONLY = ("int8", "int16", "int32", "uint32", "float16", "float64")


class Cell(NamedTuple):
    """What a file holds, as it is to be viewed."""

    values: np.ndarray
    alpha: np.ndarray | None = None
    is_premultiplied: bool = False
    icc_profile: bytes | None = None
    dpi: tuple[float, float] | None = None


def _ranges(dtype):
    """Smallest and largest value of test pictures, and the range expected."""
    if dtype in ("uint8", "uint16"):
        return 0, np.iinfo(dtype).max, (0, np.iinfo(dtype).max)
    if dtype in ("int8",):
        return -100, 100, (-100, 100)
    if dtype == "uint32":
        return 0, 90000, (0, 90000)
    return -1319, 5132, (-1319, 5132)


def _values(dtype, channels=1, seed=0):
    """Values that are asymmetric, and hold both ends of the range."""
    low, high, _ = _ranges(dtype)
    values = np.random.default_rng(seed).uniform(low, high, (*SIZE, channels))
    values[0, 0], values[-1, 2] = low, high
    values = np.rint(values).astype(dtype)
    return values


def _alpha(dtype):
    alpha = np.random.default_rng(5).uniform(0, 1, SIZE)
    if dtype.startswith("float"):
        return alpha.astype(dtype)
    return np.rint(alpha * np.iinfo(dtype).max).astype(dtype)


def _tiff(path, array, **settings):
    tifffile.imwrite(path, array, **({"metadata": None} | settings))


def _grey_tiff(path, dtype, **settings):
    values = _values(dtype)
    _tiff(path, values[..., 0], photometric="minisblack", **settings)
    return Cell(values)


def _rgb_tiff(path, dtype, **settings):
    values = _values(dtype, 3)
    _tiff(path, values, photometric="rgb", **settings)
    return Cell(values)


def _planar_tiff(path, dtype):
    values = _values(dtype, 3)
    planes = np.moveaxis(values, -1, 0)
    _tiff(path, planes, photometric="rgb", planarconfig="separate")
    return Cell(values)


def _extra(channels, kind):
    def write(path, dtype):
        values, alpha = _values(dtype, channels), _alpha(dtype)
        if kind == "assocalpha" and dtype != "float32":
            opacity = alpha[..., None] / np.iinfo(dtype).max
            values = np.rint(values * opacity).astype(dtype)
        _tiff(
            path,
            np.concatenate([values, alpha[..., None]], axis=-1),
            photometric="rgb" if channels == 3 else "minisblack",
            planarconfig="contig",
            extrasamples=[kind],
        )
        if kind == "unspecified":
            return Cell(np.concatenate([values, alpha[..., None]], axis=-1))
        return Cell(values, alpha, kind == "assocalpha")

    return write


def _white_is_zero(path, dtype):
    values = _values(dtype)
    stored = np.iinfo(dtype).max - values[..., 0]
    _tiff(path, stored, photometric="miniswhite")
    return Cell(values)


def _turned(orientation, expected):
    def write(path, dtype):
        values = _values(dtype, 3)
        tag = (0x0112, 3, 1, orientation, True)
        _tiff(path, values, photometric="rgb", extratags=[tag])
        return Cell(expected(values))

    return write


def _with_metadata(path, dtype):
    values, alpha = _values(dtype, 3), _alpha(dtype)
    _tiff(
        path,
        np.concatenate([values, alpha[..., None]], axis=-1),
        photometric="rgb",
        extrasamples=["unassalpha"],
        iccprofile=SRGB,
        resolution=(300, 300),
        resolutionunit=2,
    )
    return Cell(values, alpha, icc_profile=SRGB, dpi=(300.0, 300.0))


def _with_nan(path, dtype):
    values = _values(dtype)
    values[4, 5] = np.nan
    _tiff(path, values[..., 0])
    return Cell(values)


def _npy(channels):
    def write(path, dtype):
        values = _values(dtype, channels)
        np.save(path, values if channels > 1 else values[..., 0])
        return Cell(values)

    return write


def _png(channels, has_alpha):
    def write(path, dtype):
        values, alpha = _values(dtype, channels), _alpha(dtype)
        array = values
        if has_alpha:
            array = np.concatenate([values, alpha[..., None]], axis=-1)
        array = array[..., 0] if array.shape[2] == 1 else array
        with open(path, "wb") as file:
            file.write(imagecodecs.png_encode(np.ascontiguousarray(array)))
        return Cell(values, alpha if has_alpha else None)

    return write


def _jpeg_2000(channels):
    def write(path, dtype):
        values = _values(dtype, channels)
        array = values[..., 0] if channels == 1 else values
        array = np.ascontiguousarray(array)
        with open(path, "wb") as file:
            file.write(
                imagecodecs.jpeg2k_encode(array, level=0, codecformat="jp2")
            )
        return Cell(values)

    return write


def _exr(channels, has_alpha):
    def write(path, dtype):
        values = _values(dtype, channels)
        alpha = _alpha(dtype) if has_alpha else None
        names = "RGB" if channels == 3 else "Y"
        planes = {
            name: np.ascontiguousarray(values[..., i])
            for i, name in enumerate(names)
        }
        if has_alpha:
            planes["A"] = alpha
        header = {
            "compression": OpenEXR.ZIP_COMPRESSION,
            "type": OpenEXR.scanlineimage,
        }
        with OpenEXR.File(header, planes) as file:
            file.write(path)
        return Cell(values, alpha, has_alpha)

    return write


def _pgm(path, dtype):
    values = _values(dtype)
    order = values.astype(np.dtype(dtype).newbyteorder(">"))
    header = f"P5\n{SIZE[1]} {SIZE[0]}\n{np.iinfo(dtype).max}\n"
    with open(path, "wb") as file:
        file.write(header.encode() + order.tobytes())
    return Cell(values)


def _pillow(channels, **settings):
    def write(path, dtype):
        values = _values(dtype, channels)
        array = values[..., 0] if channels == 1 else values
        PIL.Image.fromarray(array).save(path, **settings)
        return Cell(values)

    return write


def _palette(path, dtype):
    index = (np.arange(SIZE[0] * SIZE[1]) % 3).reshape(SIZE).astype(dtype)
    colours = np.array([[0, 0, 0], [255, 10, 20], [7, 255, 9]], dtype)
    picture = PIL.Image.fromarray(index).convert("P")
    picture.putpalette(colours.ravel().tolist())
    picture.save(path, transparency=1)
    alpha = np.where(index == 1, 0, 255).astype(dtype)
    return Cell(colours[index], alpha)


def _one_bit(path, dtype):
    values = (_values(dtype) > 127).astype(dtype) * 255
    PIL.Image.fromarray(values[..., 0] > 0).save(path)
    return Cell(values.astype(dtype))


# Kind of file -> its suffix, the dtypes there are, and what writes it.
KINDS = {
    "grey": ("tif", (*ALL, *TIFF_ONLY), _grey_tiff),
    "rgb": ("tif", (*ALL, *TIFF_ONLY), _rgb_tiff),
    "planar": ("tif", ALL, _planar_tiff),
    "grey_straight_alpha": ("tif", ALL, _extra(1, "unassalpha")),
    "rgb_straight_alpha": ("tif", ALL, _extra(3, "unassalpha")),
    "grey_premultiplied": ("tif", ALL, _extra(1, "assocalpha")),
    "rgb_premultiplied": ("tif", ALL, _extra(3, "assocalpha")),
    "two_channels": ("tif", ALL, _extra(1, "unspecified")),
    "four_channels": ("tif", ALL, _extra(3, "unspecified")),
    "white_is_zero": ("tif", DEEP, _white_is_zero),
    "mirrored": ("tif", ALL, _turned(2, lambda x: x[:, ::-1])),
    "upside_down": ("tif", ALL, _turned(3, lambda x: x[::-1, ::-1])),
    "transposed": ("tif", ALL, _turned(5, lambda x: x.swapaxes(0, 1))),
    "on_its_side": ("tif", ALL, _turned(6, lambda x: np.rot90(x, -1))),
    "metadata": ("tif", ALL, _with_metadata),
    "nan": ("tif", ("float16", "float32", "float64"), _with_nan),
    "big_endian": ("tif", ALL, lambda *x: _grey_tiff(*x, byteorder=">")),
    "big_tiff": ("tif", ALL, lambda *x: _rgb_tiff(*x, bigtiff=True)),
    "tiled": ("tif", ALL, lambda *x: _rgb_tiff(*x, tile=(16, 16))),
    **{
        name: (
            "tif",
            ALL,
            lambda *x, name=name: _rgb_tiff(
                *x, compression=name, predictor=name != "packbits"
            ),
        )
        for name in ("lzw", "deflate", "packbits", "zstd")
    },
    "array": ("npy", (*ALL, *TIFF_ONLY), _npy(1)),
    "array_of_two": ("npy", ALL, _npy(2)),
    "array_of_three": ("npy", ALL, _npy(3)),
    "png_grey": ("png", DEEP, _png(1, False)),
    "png_rgb": ("png", DEEP, _png(3, False)),
    "png_grey_alpha": ("png", DEEP, _png(1, True)),
    "png_rgba": ("png", DEEP, _png(3, True)),
    "png_palette": ("png", ("uint8",), _palette),
    "png_one_bit": ("png", ("uint8",), _one_bit),
    "jp2_grey": ("jp2", DEEP, _jpeg_2000(1)),
    "jp2_rgb": ("jp2", DEEP, _jpeg_2000(3)),
    "exr_grey": ("exr", ("float16", "float32"), _exr(1, False)),
    "exr_rgb": ("exr", ("float16", "float32"), _exr(3, False)),
    "exr_rgba": ("exr", ("float16", "float32"), _exr(3, True)),
    "pgm": ("pgm", DEEP, _pgm),
    "bmp": ("bmp", ("uint8",), _pillow(3)),
    "gif": ("gif", ("uint8",), _pillow(1)),
    "webp": ("webp", ("uint8",), _pillow(3, lossless=True)),
}
CELLS = [
    (f"{kind}_{dtype}", kind, dtype)
    for kind, (_, dtypes, _) in KINDS.items()
    for dtype in dtypes
]


class PictureKindsTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path

    def test_grey_array_comes_out_with_as_many_axes(self):
        path = os.path.join(self.folder, "grey.npy")
        np.save(path, np.eye(9))
        task = restoration.corrupted_image(path)
        images.write_values(path, task.source)
        self.assertAllEqual(np.load(path), np.eye(9))

    @parameterized.parameters(
        (3.6, (0.0, 3.6)), (63.5, (0.0, 255.0)), (1.0, (0.0, 1.0))
    )
    def test_floats_have_a_range_that_they_fill(self, largest, expected):
        values = largest * np.eye(9)
        task = restoration.corrupted_image(values)
        self.assertEqual(task.value_range, expected)

    def test_there_are_at_least_sixty_cells(self):
        self.assertGreaterEqual(len(CELLS), 60)

    @parameterized.named_parameters(*CELLS)
    def test_same_kind_of_picture_comes_out(self, kind, dtype):
        suffix, _, write = KINDS[kind]
        path = os.path.join(self.folder, f"in.{suffix}")
        cell = write(path, dtype)
        task = restoration.corrupted_image(path, patch=(4, 4))
        if cell.values.shape[2] in (1, 3) and not cell.is_premultiplied:
            self.assertEqual(task.value_range, _ranges(dtype)[2])
        self.assertIn(f"{dtype}, values ", task.describe())
        whole = np.nan_to_num(task.image, nan=127.0)
        estimates = patches.extract_patches(whole, (4, 4))
        picture = task.picture(task.restore(estimates))
        formats_tried = []
        for ending in (".tif", ".png", ".npy", ".exr"):
            if (
                ending == ".exr"
                and not cell.is_premultiplied
                and cell.alpha is not None
            ):
                continue  # It becomes premultiplied.
            reason = encoding.why_unsuitable(
                ending,
                picture.values.dtype,
                picture.values.shape[2],
                picture.alpha is not None,
            )
            if reason is None:
                formats_tried.append(ending)
                self._assert_written(picture, cell, dtype, ending)
        self.assertIn(".tif", formats_tried)
        self.assertEqual(
            ".png" in formats_tried,
            dtype in DEEP and cell.values.shape[2] in (1, 3),
        )

    @parameterized.parameters(
        ("bmp", 1),
        ("bmp", 3),
        ("gif", 1),
        ("jp2", 1),
        ("jp2", 3),
        ("pgm", 1),
        ("ppm", 3),
        ("webp", 3),
    )
    def test_other_outputs_of_8_bits_are_lossless(self, suffix, channels):
        path = os.path.join(self.folder, f"out.{suffix}")
        values = _values("uint8", channels)
        images.write_values(path, formats.Image(values))
        self.assertAllEqual(images.read_image(path).values, values)

    @parameterized.parameters(("gif", 3), ("pgm", 3), ("ppm", 1), ("pbm", 1))
    def test_output_of_other_channels_is_refused(self, suffix, channels):
        path = os.path.join(self.folder, f"out.{suffix}")
        with self.assertRaisesRegex(ValueError, f"hold {channels} channels"):
            images.write_values(path, formats.Image(_values("uint8", channels)))

    def _assert_written(self, picture, cell, dtype, ending):
        path = os.path.join(self.folder, f"out{ending}")
        images.write_values(path, picture)
        read = images.read_image(path)
        self.assertDTypeEqual(read.values, dtype)
        self.assertEqual(read.values.shape, cell.values.shape)
        self.assertEqual(read.alpha is None, cell.alpha is None)
        expected = formats.Image(cell.values, cell.alpha, cell.is_premultiplied)
        if ending == ".png" and cell.is_premultiplied:
            expected = encoding.straight(expected)
        # Patches of 4 x 4 are averaged in float32: a few units in its last
        # place, of a range of 6451, and those of float16.
        low, high, _ = _ranges(dtype)
        tolerance = 0 if np.dtype(dtype).kind in "iu" else 4e-7 * (high - low)
        tolerance += 4.0 if dtype == "float16" else 0.0
        known = ~np.isnan(cell.values)
        self.assertFalse(np.isnan(read.values).any())
        difference = np.abs(
            read.values.astype(np.float64) - expected.values.astype(np.float64)
        )
        self.assertLessEqual(difference[known].max(), tolerance)
        if cell.alpha is not None:
            self.assertAllEqual(read.alpha, cell.alpha)
        self.assertEqual(
            read.is_premultiplied,
            cell.is_premultiplied and ending in (".tif", ".exr"),
        )
        if ending in (".tif", ".png"):
            self.assertEqual(read.icc_profile, cell.icc_profile)
            if cell.dpi is not None:
                found = read.resolution.per_inch()
                self.assertAllClose(found, cell.dpi, atol=0.02)


def _pages(dtype, *shape):
    """Pages as different as their numbers."""
    values = _values(dtype, int(np.prod(shape)), seed=1)
    return np.moveaxis(values, -1, 0).reshape(*shape, *SIZE)


def _tiff_stack(axes, shape, **settings):
    def write(path, dtype):
        array = _pages(dtype, *shape)
        if "S" in axes:
            array = np.moveaxis(array, -3, -1)
        metadata = {"axes": axes} | settings.pop("extra", {})
        settings.setdefault("metadata", metadata)
        tifffile.imwrite(path, array, **settings)
        return array

    return write


def _array_stack(shape, order):
    def write(path, dtype):
        array = _pages(dtype, *shape).transpose(order)
        np.save(path, array)
        return array

    return write


def _animation(channels, **settings):
    def write(path, dtype):
        array = np.moveaxis(_pages(dtype, 4, channels), 1, -1)
        array = array[..., 0] if channels == 1 else array
        first, *others = map(PIL.Image.fromarray, array)
        durations = {"duration": [30, 250, 40, 1000], "loop": 2}
        first.save(
            path,
            save_all=True,
            append_images=others,
            **durations,
            **settings,
        )
        return array

    return write


class StackCell(NamedTuple):
    """A kind of stack, and what its pages are taken to be."""

    name: str
    suffix: str
    dtypes: tuple[str, ...]
    write: Callable[[str, str], np.ndarray]
    axes: str
    shape: tuple[int, ...]
    channels: int = 1
    settings: dict = {}


_IMAGEJ = {"imagej": True, "resolution": (4.0, 4.0)}
_IJ_EXTRA = {"spacing": 2.5, "unit": "um", "finterval": 0.5}
_OME_EXTRA = {
    "PhysicalSizeX": 0.25,
    "PhysicalSizeXUnit": "\u00b5m",
    "PhysicalSizeZ": 2.0,
}
_TOGETHER = {"channels": "together"}
_ALONE = {"channels": "alone"}
STACKS = [
    StackCell(*one)
    for one in (
        (
            *("imagej_hyperstack", "tif", ALL),
            _tiff_stack("TZCYX", (2, 3, 2), **_IMAGEJ, extra=_IJ_EXTRA),
            *("TZC", (2, 3, 2)),
        ),
        (
            *("imagej_channels_together", "tif", ALL),
            _tiff_stack("TCYX", (2, 3), **_IMAGEJ),
            *("T", (2,), 3, _TOGETHER),
        ),
        (
            *("imagej_rgb", "tif", ("uint8",)),
            _tiff_stack("ZYXS", (2, 3), **_IMAGEJ),
            *("Z", (2,), 3),
        ),
        (
            *("ome", "ome.tif", ALL),
            _tiff_stack("CTZYX", (2, 3, 2), ome=True, extra=_OME_EXTRA),
            *("CTZ", (2, 3, 2)),
        ),
        (
            *("ome_channels_together", "ome.tif", ALL),
            _tiff_stack("CZYX", (2, 3), ome=True),
            *("Z", (3,), 2, _TOGETHER),
        ),
        (
            *("named_axes", "tif", (*ALL, *TIFF_ONLY)),
            _tiff_stack("ZTYX", (2, 3), photometric="minisblack"),
            *("ZT", (2, 3)),
        ),
        (
            *("one_directory", "tif", ALL),
            _tiff_stack("ZYX", (4,), truncate=True, photometric="minisblack"),
            *("Z", (4,)),
        ),
        (
            *("pages", "tif", (*ALL, *TIFF_ONLY)),
            _tiff_stack("IYX", (4,), metadata=None, photometric="minisblack"),
            *("I", (4,)),
        ),
        (
            *("pages_of_rgb", "tif", ALL),
            _tiff_stack("IYXS", (3, 3), metadata=None, photometric="rgb"),
            *("I", (3,), 3),
        ),
        (
            *("pages_of_rgb_alone", "tif", ALL),
            _tiff_stack("IYXS", (2, 3), metadata=None, photometric="rgb"),
            *("IS", (2, 3), 1, _ALONE),
        ),
        (
            *("rgb_alone", "tif", ALL),
            _tiff_stack("YXS", (3,), metadata=None, photometric="rgb"),
            *("S", (3,), 1, _ALONE),
        ),
        (
            *("array_of_pages", "npy", (*ALL, *TIFF_ONLY)),
            _array_stack((5,), (0, 1, 2)),
            *("Q", (5,)),
        ),
        (
            *("array_of_rgb_pages", "npy", ALL),
            _array_stack((5, 3), (0, 2, 3, 1)),
            *("Q", (5,), 3),
        ),
        (
            *("array_channels_first", "npy", ALL),
            _array_stack((3,), (0, 1, 2)),
            *("", (), 3, {"axes": "SYX"}),
        ),
        (
            *("array_pages_last", "npy", ALL),
            _array_stack((4,), (1, 2, 0)),
            *("Z", (4,), 1, {"axes": "YXZ"}),
        ),
        ("gif_grey", "gif", ("uint8",), _animation(1), "T", (4,)),
        ("apng_rgb", "png", ("uint8",), _animation(3), "T", (4,), 3),
        (
            *("webp_rgb", "webp", ("uint8",), _animation(3, lossless=True)),
            *("T", (4,), 3),
        ),
    )
]


class StackKindsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.named_parameters(
        (f"{cell.name}_{dtype}", cell, dtype)
        for cell in STACKS
        for dtype in cell.dtypes
    )
    def test_same_kind_of_stack_comes_out(self, cell, dtype):
        folder = self.create_tempdir().full_path
        path = os.path.join(folder, f"in.{cell.suffix}")
        array = cell.write(path, dtype)
        stack = stacks.open_stack(path, **cell.settings)
        self.assertEqual((stack.axes, stack.shape), (cell.axes, cell.shape))
        pages = list(stack)
        for page in pages:
            self.assertDTypeEqual(page.values, dtype)
            self.assertEqual(page.values.shape, (*SIZE, cell.channels))
        number = len(stack) - 1
        task = restoration.corrupted_image(
            path,
            page=number,
            patch=(4, 4),
            value_range=(-3000, 70000),
            keep_observed=True,
            **cell.settings,
        )
        estimates = patches.extract_patches(task.image, (4, 4))
        pages[number] = task.picture(task.restore(estimates))
        written = os.path.join(folder, f"out.{cell.suffix}")
        stack_encoding.write_stack(written, stack, pages)
        again = stacks.open_stack(written, **cell.settings)
        self.assertEqual(again.form, stack.form)
        self.assertEqual(again.describe(), stack.describe())
        for one, page in zip(again, stack, strict=True):
            self.assertDTypeEqual(one.values, dtype)
            self.assertAllEqual(one.values, page.values)
            self.assertEqual(one.resolution, page.resolution)
        if cell.suffix == "npy":
            self.assertAllEqual(np.load(written), array)
        elif cell.suffix.endswith("tif"):
            self.assertAllEqual(tifffile.imread(written), array)
        else:
            expected = {"duration": [30.0, 250.0, 40.0, 1000.0], "loop": 2}
            for name, value in expected.items():
                self.assertEqual(stack.form.metadata[name], value)


if __name__ == "__main__":
    tf.test.main()
