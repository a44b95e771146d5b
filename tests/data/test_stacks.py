# SPDX-License-Identifier: Apache-2.0
"""Tests of stacks: what is refused, pages of masks, crops, notes.

What comes out of each kind of stack is in tests/test_picture_kinds.py.
"""

from __future__ import annotations

import os

import imagecodecs
import numpy as np
import PIL.Image
import tensorflow as tf
import tifffile
from absl.testing import parameterized

from tfvae import restoration
from tfvae.data import formats, images, stacks
from tfvae.data.stack_encoding import why_unwritable, write_stack


def _random(shape, dtype=np.uint8):
    high = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


class StacksTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path

    def _path(self, name):
        return os.path.join(self.folder, name)

    def _tiff(self, array, name="x.tif", **settings):
        path = self._path(name)
        settings = {"metadata": None, "photometric": "minisblack"} | settings
        tifffile.imwrite(path, array, **settings)
        return path

    @parameterized.parameters(
        ((3, 20, 21), "such as CYX for channels first or QYX for pages"),
        ((20, 21, 4), "of RGBA, give the first three channels"),
        ((2, 3, 20, 21), r"`--axes`\), such as TCYX"),
        ((2, 2, 3, 20, 21), "such as TZCYX"),
    )
    def test_array_of_several_readings_is_refused(self, shape, message):
        np.save(self._path("x.npy"), np.zeros(shape))
        for image in (self._path("x.npy"), np.zeros(shape)):
            with self.assertRaisesRegex(ValueError, message):
                stacks.open_stack(image)

    def test_a_page_that_is_read_once_is_loaded_no_second_time(self):
        path = self._tiff(_random((3, 9, 9)))
        with stacks.read_once(path, 1) as page:
            os.rename(path, self._path("moved.tif"))
            found, count = stacks.load_page(path, 1)
            self.assertIs(found, page)
            self.assertEqual(count, 3)
            for other in (2, None):
                with self.assertRaises(FileNotFoundError):
                    stacks.load_page(path, other)
        with self.assertRaises(FileNotFoundError):
            stacks.load_page(path, 1)

    @parameterized.parameters("YX", "CYY", "CYW", "XCS", "CCYX")
    def test_axes_must_be_those_of_the_array(self, axes):
        with self.assertRaisesRegex(
            ValueError, f"`axes` must have a letter.*3 axes.*got '{axes}'"
        ):
            stacks.open_stack(np.zeros((3, 9, 9)), axes=axes)

    def test_axes_of_a_tiff_file_can_be_named(self):
        path = self._tiff(_random((3, 9, 9)))
        stack = stacks.open_stack(path, axes="ZYX")
        self.assertEqual(stack.axes, "Z")
        with self.assertRaisesRegex(
            ValueError, r"1 letters for pages of shape \(3,\), then YX"
        ):
            stacks.open_stack(path, axes="TZYX")
        PIL.Image.new("L", (9, 9)).save(self._path("x.png"))
        with self.assertRaisesRegex(ValueError, "for an array or TIFF"):
            stacks.open_stack(self._path("x.png"), axes="YX")

    @parameterized.parameters(
        ({}, "from 0 to 3; `corrupted_images`.*got None"),
        ({"page": 4}, "`page` must be from 0 to 3.*got 4"),
        ({"page": -1}, "got -1"),
        ({"page": 1, "clean": np.zeros((5, 9, 9))}, "`clean` must have one pa"),
        (
            {"page": 1, "mask": np.zeros((6, 9, 9))},
            "`mask` must.*or 4, .*got 6",
        ),
        (
            {"page": 0, "channels": "apart"},
            "'together' or 'alone', got 'apart'",
        ),
    )
    def test_pages_must_be_there(self, settings, message):
        path = self._tiff(_random((4, 9, 9)))
        with self.assertRaisesRegex(ValueError, message):
            restoration.corrupted_image(path, patch=4, **settings)

    def test_image_of_one_page_has_page_0_only(self):
        path = self._tiff(_random((9, 9)))
        task = restoration.corrupted_image(path, page=0, patch=4)
        self.assertEqual(task.name, "x")
        with self.assertRaisesRegex(ValueError, "to 0 for an image of 1 page,"):
            restoration.corrupted_image(path, page=1, patch=4)

    def test_array_of_pages_needs_a_page(self):
        with self.assertRaisesRegex(ValueError, "give one, as in page=0"):
            restoration.corrupted_image(np.zeros((8, 9, 9)))
        array = _random((8, 9, 9))
        task = restoration.corrupted_image(array, page=7, patch=4)
        self.assertAllEqual(task.source.values[..., 0], array[7])
        with self.assertRaisesRegex(ValueError, "finite, got infinite"):
            restoration.corrupted_image(np.full((8, 9, 9), np.inf), page=0)

    def test_mask_and_clean_have_pages_or_one_for_all(self):
        noisy, clean = _random((4, 9, 9)), _random((4, 9, 9)) // 2
        masks = np.zeros((4, 9, 9), bool)
        masks[2, 3, 5] = True
        path = self._tiff(noisy)
        masked = self._tiff(masks.astype(np.uint8), "mask.tif")
        for mask in (masks.astype(np.uint8), masked):
            task = restoration.corrupted_image(
                path, page=2, clean=clean, mask=mask, patch=4, axes="TYX"
            )
            self.assertAllEqual(np.isnan(task.image[..., 0]), masks[2])
            self.assertAllEqual(task.clean[..., 0], clean[2])
        task = restoration.corrupted_image(
            path, page=1, clean=clean[3], mask=masks[2], patch=4
        )
        self.assertAllEqual(np.isnan(task.image[..., 0]), masks[2])
        self.assertAllEqual(task.clean[..., 0], clean[3])

    def test_pages_of_several_sizes_are_refused(self):
        path = self._path("x.tif")
        with tifffile.TiffWriter(path) as file:
            file.write(_random((9, 9)), metadata=None)
            file.write(_random((9, 8)), metadata=None)
        with self.assertRaisesRegex(
            ValueError, r"several sizes or kinds.*\(9, 8\), \(9, 9\)"
        ):
            stacks.open_stack(path)

    def test_pages_of_lower_resolution_are_left_out(self):
        path, array = self._path("x.tif"), _random((9, 9))
        with tifffile.TiffWriter(path) as file:
            file.write(array, metadata=None)
            file.write(array[::2, ::2], metadata=None, subfiletype=1)
        stack = stacks.open_stack(path)
        self.assertLen(stack, 1)
        self.assertIn("without its pages of lower resol", stack.describe())
        self.assertAllEqual(stack.read(0).values[..., 0], array)

    def test_description_says_what_axes_and_channels_are(self):
        path = self._tiff(
            _random((2, 3, 9, 8), np.uint16),
            imagej=True,
            metadata={"axes": "TCYX"},
        )
        self.assertEqual(
            stacks.open_stack(path).describe(),
            "ImageJ stack of 2 x 3 pages (time x channel) of 9 x 8 pixels, "
            "uint16, each channel alone",
        )
        self.assertEqual(
            stacks.open_stack(path, channels="together").describe(),
            "ImageJ stack of 2 pages (time) of 9 x 8 pixels, uint16, its 3 "
            "channels together",
        )

    @parameterized.parameters("together", "alone")
    def test_crop_is_that_of_each_page_with_its_alpha(self, channels):
        array = _random((3, 9, 9, 4))
        path = self._tiff(array, photometric="rgb", extrasamples=["unassalpha"])
        stack = stacks.open_stack(path, channels=channels, crop=(1, 2, 4, 5))
        written = self._path("out.tif")
        write_stack(written, stack, list(stack))
        self.assertAllEqual(tifffile.imread(written), array[:, 1:5, 2:7])

    def test_channels_of_colours_can_not_be_joined_again(self):
        path = self._tiff(_random((2, 9, 9, 3)), photometric="rgb")
        stack = stacks.open_stack(path, axes="CYXS", channels="together")
        with self.assertRaisesRegex(ValueError, "must be 'alone' where pages"):
            stack.read(0)

    @parameterized.parameters(
        (np.uint8, ".jpg", "several pages"),
        (np.uint8, ".exr", "values of dtype uint8"),
        (np.uint16, ".png", "several pages of dtype uint16"),
        (np.uint16, ".webp", "values of dtype uint16"),
    )
    def test_kind_that_holds_no_pages_is_named(self, dtype, suffix, reason):
        stack = stacks.open_stack(_random((5, 9, 9), dtype))
        self.assertEqual(why_unwritable(suffix, stack), reason)
        with self.assertRaisesRegex(ValueError, f"able to hold {reason}"):
            write_stack(self._path(f"x{suffix}"), stack, list(stack))

    def test_gif_of_colours_is_not_written(self):
        stack = stacks.open_stack(_random((5, 9, 9, 3)))
        self.assertEqual(why_unwritable(".gif", stack), "3 channels")
        self.assertIsNone(why_unwritable(".png", stack))

    def test_still_picture_before_an_animation_is_kept(self):
        first, *others = map(PIL.Image.fromarray, _random((3, 9, 9)))
        path, written = self._path("x.png"), self._path("out.png")
        first.save(
            path,
            save_all=True,
            append_images=others,
            default_image=True,
            duration=[70, 90],
        )
        stack = stacks.open_stack(path)
        write_stack(written, stack, list(stack))
        again = stacks.open_stack(written)
        self.assertTrue(again.form.metadata["default_image"])
        self.assertEqual(again.form, stack.form)
        self.assertEqual(again.form.metadata["duration"][1:], [70.0, 90.0])

    def test_animation_of_16_bits_is_refused(self):
        path = self._path("x.png")
        with open(path, "wb") as file:
            file.write(imagecodecs.apng_encode(_random((3, 9, 9), np.uint16)))
        with self.assertRaisesRegex(ValueError, "animated PNG of 16 bits"):
            stacks.open_stack(path)

    def test_damaged_page_is_named(self):
        path = self._tiff(_random((3, 64, 64)), compression="deflate")
        with tifffile.TiffFile(path) as file:
            offset = file.pages[1].dataoffsets[0]
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(b"\xff" * 64)
        stack = stacks.open_stack(path)
        stack.read(0)
        with self.assertRaisesRegex(ValueError, "`image` must be a readable"):
            stack.read(1)

    def test_axes_of_a_tiff_that_are_given_are_checked(self):
        path = self._tiff(_random((3, 9, 8)))
        for axes in ("AYX", "YX", "SYX", "TXY"):
            with self.assertRaisesRegex(ValueError, "`axes` must be 1 lett"):
                stacks.open_stack(path, axes=axes)
        path = self._tiff(_random((2, 3, 9, 8)), imagej=True)
        with self.assertRaisesRegex(ValueError, "`axes` must be 2 letters"):
            stacks.open_stack(path, axes="ZZYX")

    @parameterized.parameters("CZYX", "QTYX", "TCYX")
    def test_axes_given_for_an_imagej_stack_can_be_written(self, axes):
        array = _random((2, 3, 9, 8), np.uint16)
        path = self._tiff(array, imagej=True, metadata={"axes": "TZYX"})
        stack = stacks.open_stack(path, axes=axes)
        written = self._path("out.tif")
        write_stack(written, stack, list(stack))
        self.assertAllEqual(tifffile.imread(written), array)
        again = stacks.open_stack(written)
        self.assertEqual(again.shape, (2, 3))
        if "Q" not in axes:
            self.assertEqual(again.axes, axes[:2])

    @parameterized.parameters("ycbcr", "separated")
    def test_pages_that_are_converted_are_those_of_the_file(self, photometric):
        values = np.array([20, 90, 200], np.uint8)[:, None, None, None]
        is_jpeg = photometric == "ycbcr"
        array = np.broadcast_to(values, (3, 16, 16, 3 if is_jpeg else 4))
        compression = "jpeg" if is_jpeg else "deflate"
        settings = {"photometric": photometric, "compression": compression}
        path = self._tiff(array, metadata={"axes": "TYXS"}, **settings)
        for number, image in enumerate(stacks.open_stack(path)):
            alone = self._tiff(array[number], "alone.tif", **settings)
            expected = images.read_image(alone).values
            self.assertAllEqual(image.values, expected)

    def test_pages_stored_as_colours_say_how_to_write_them(self):
        path = self._path("planes.tif")
        tifffile.imwrite(
            path,
            _random((3, 64, 64)),
            photometric="rgb",
            planarconfig="separate",
            metadata={"axes": "TYX"},
        )
        with self.assertRaisesRegex(ValueError, "TYX,.*SYX; write.*minisblack"):
            stacks.open_stack(path)

    def test_number_of_images_must_be_that_of_pages(self):
        stack = stacks.open_stack(_random((5, 9, 9)))
        image = formats.Image(_random((9, 9, 1)))
        with self.assertRaisesRegex(ValueError, "hold 5 pages.*and 1 images"):
            write_stack(self._path("x.tif"), stack, [image])


if __name__ == "__main__":
    tf.test.main()
