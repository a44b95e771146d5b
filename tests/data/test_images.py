# SPDX-License-Identifier: Apache-2.0
"""Tests of image files, masks, embedded pictures and corruption."""

from __future__ import annotations

import os
import socket
from unittest import mock

import numpy as np
import PIL.Image
import skimage.data
import tensorflow as tf
import tifffile
from absl.testing import parameterized

from tfvae.data import images

GREY = (5, 7, 1)
COLOUR = (5, 7, 3)


def _pixels(shape, dtype=np.uint8, seed=0):
    limits = np.iinfo(dtype)
    generator = np.random.default_rng(seed)
    return generator.integers(limits.max + 1, size=shape).astype(dtype)


class FolderTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path

    def path(self, name):
        return os.path.join(self.folder, name)


class ReadImageTest(FolderTest):
    @parameterized.product(
        shape=(GREY, COLOUR), suffix=("png", "bmp", "tif", "tiff", "gif")
    )
    def test_lossless_8_bit_files_are_read_exactly(self, shape, suffix):
        if suffix == "gif" and shape == COLOUR:
            self.skipTest("GIF has palettes only; tested below")
        pixels = _pixels(shape)
        PIL.Image.fromarray(pixels.squeeze()).save(self.path(f"x.{suffix}"))
        image = images.read_image(self.path(f"x.{suffix}")).pixels
        self.assertAllEqual(image, pixels)
        self.assertDTypeEqual(image, np.float32)

    @parameterized.product(shape=(GREY, COLOUR), suffix=("png", "tif", "tiff"))
    def test_16_bit_files_keep_every_value(self, shape, suffix):
        every = np.arange(65536).astype(np.uint16)
        pixels = every.reshape(256, 256, 1)
        if shape == COLOUR:
            pixels = np.stack([every, every[::-1], np.roll(every, 9)], axis=-1)
            pixels = pixels.reshape(256, 256, 3)
        path = self.path(f"x.{suffix}")
        if suffix == "png":
            encoded = tf.io.encode_png(tf.constant(pixels)).numpy()
            with open(path, "wb") as file:
                file.write(encoded)
        else:
            kind = "rgb" if shape == COLOUR else "minisblack"
            tifffile.imwrite(path, pixels.squeeze(), photometric=kind)
        image = images.read_image(path).pixels
        self.assertEqual(image.shape, pixels.shape)
        self.assertEqual((image.min(), image.max()), (0.0, 255.0))
        self.assertAllEqual(np.rint(image.astype(np.float64) * 257), pixels)

    def test_16_bit_grey_from_pillow_keeps_every_value(self):
        pixels = np.arange(65536).astype(np.uint16).reshape(256, 256)
        PIL.Image.fromarray(pixels).save(self.path("x.png"))
        image = images.read_image(self.path("x.png")).pixels
        self.assertAllEqual(
            np.rint(image[..., 0].astype(np.float64) * 257), pixels
        )

    def test_16_bit_with_alpha_is_laid_over_white(self):
        pixels = np.zeros((1, 3, 4), np.uint16)
        pixels[0, :, 3] = 0, 32768, 65535
        with open(self.path("x.png"), "wb") as file:
            file.write(tf.io.encode_png(tf.constant(pixels)).numpy())
        image = images.read_image(self.path("x.png")).pixels
        expected = [255.0, 255.0 * (1 - 32768 / 65535), 0.0]
        self.assertAllClose(image[0], np.tile(np.c_[expected], 3))

    def test_colour_planes_of_16_bit_tiff_are_interleaved(self):
        pixels = _pixels(COLOUR, np.uint16)
        tifffile.imwrite(
            self.path("x.tif"),
            np.moveaxis(pixels, -1, 0),
            photometric="rgb",
            planarconfig="separate",
        )
        image = images.read_image(self.path("x.tif")).pixels
        self.assertAllClose(image, pixels / 257.0)

    def test_float_tiff_and_npy_are_taken_as_they_are(self):
        pixels = np.linspace(-3, 300, 35).astype(np.float32).reshape(5, 7)
        pixels[2, 3] = np.nan
        tifffile.imwrite(self.path("x.tif"), pixels)
        np.save(self.path("x.npy"), pixels)
        np.save(self.path("y.npy"), np.stack([pixels] * 3, axis=-1))
        self.assertAllEqual(
            images.read_image(self.path("x.tif")).pixels, pixels[..., None]
        )
        self.assertAllEqual(
            images.read_image(self.path("x.npy")).pixels, pixels[..., None]
        )
        self.assertEqual(
            images.read_image(self.path("y.npy")).pixels.shape, COLOUR
        )

    def test_palettes_are_resolved(self):
        pixels = np.zeros((2, 2, 3), np.uint8)
        pixels[0, 0] = 255, 0, 0
        pixels[1, 1] = 1, 2, 3
        picture = PIL.Image.fromarray(pixels).quantize(4)
        self.assertEqual(picture.mode, "P")
        for suffix in ("png", "gif", "tif"):
            picture.save(self.path(f"x.{suffix}"))
            image = images.read_image(self.path(f"x.{suffix}")).pixels
            self.assertAllEqual(image, pixels)

    def test_palette_of_greys_is_grey(self):
        pixels = _pixels((5, 7))
        PIL.Image.fromarray(pixels).convert("P").save(self.path("x.png"))
        image = images.read_image(self.path("x.png")).pixels
        self.assertAllEqual(image, pixels[..., None])

    def test_transparent_palette_entry_is_white(self):
        picture = PIL.Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
        picture.putpalette([0, 0, 0, 10, 20, 30])
        picture.save(self.path("x.png"), transparency=0)
        image = images.read_image(self.path("x.png")).pixels
        self.assertAllEqual(image, [[[255, 255, 255], [10, 20, 30]]])

    @parameterized.parameters("LA", "RGBA")
    def test_alpha_is_laid_over_white(self, mode):
        channels = len(mode)
        pixels = np.full((1, 3, channels), 100, np.uint8)
        pixels[0, :, -1] = 0, 51, 255
        PIL.Image.fromarray(pixels, mode=mode).save(self.path("x.png"))
        image = images.read_image(self.path("x.png")).pixels
        # opacity * 100 + (1 - opacity) * 255, at opacity 0, 0.2 and 1
        expected = np.tile(np.c_[[255.0, 224.0, 100.0]], channels - 1)
        self.assertAllClose(image[0], expected)

    @parameterized.parameters("1", "CMYK", "YCbCr")
    def test_other_modes_are_converted(self, mode):
        pixels = np.full(COLOUR, 255, np.uint8)
        picture = PIL.Image.fromarray(pixels).convert(mode)
        suffix = "jpg" if mode != "1" else "png"
        picture.save(self.path(f"x.{suffix}"))
        image = images.read_image(self.path(f"x.{suffix}")).pixels
        self.assertEqual(image.shape, GREY if mode == "1" else COLOUR)
        self.assertAllClose(image, np.full(image.shape, 255.0), atol=2.0)

    def test_jpeg_is_close(self):
        pixels = np.broadcast_to(np.arange(64)[:, None, None] * 4, (64, 64, 3))
        PIL.Image.fromarray(pixels.astype(np.uint8)).save(
            self.path("x.jpg"), quality=95
        )
        image = images.read_image(self.path("x.jpg")).pixels
        self.assertAllClose(image, pixels, atol=6.0)

    def test_orientation_tag_is_applied(self):
        pixels = _pixels((5, 7))
        exif = PIL.Image.Exif()
        exif[0x0112] = 6  # rotate by 90 degrees clockwise to view
        PIL.Image.fromarray(pixels).save(self.path("x.png"), exif=exif)
        image = images.read_image(self.path("x.png")).pixels
        self.assertAllEqual(image[..., 0], np.rot90(pixels, -1))

    @parameterized.named_parameters(
        ("grey_8", "png", GREY, np.uint8),
        ("colour_8", "tif", COLOUR, np.uint8),
        ("transparent_8", "png", (5, 7, 4), np.uint8),
        ("jpeg", "jpg", COLOUR, np.uint8),
        ("array_of_integers", "npy", GREY, np.int64),
        ("grey_16", "png", GREY, np.uint16),
        ("colour_16", "png", COLOUR, np.uint16),
        ("tiff_16", "tif", COLOUR, np.uint16),
        ("tiff_of_floats", "tif", GREY, np.float32),
        ("array_of_floats", "npy", GREY, np.float64),
    )
    def test_dtype_is_that_of_the_file_whatever_its_values(
        self, suffix, shape, dtype
    ):
        # Whole numbers on 0..255 would do with 8 bits.
        pixels = (_pixels(shape) // 2).astype(dtype)
        if dtype == np.uint16:
            pixels *= 257
        path = self.path(f"x.{suffix}")
        if suffix == "npy":
            np.save(path, pixels)
        elif suffix == "tif":
            kind = "rgb" if shape == COLOUR else "minisblack"
            tifffile.imwrite(path, pixels.squeeze(), photometric=kind)
        elif dtype == np.uint16:
            with open(path, "wb") as file:
                file.write(tf.io.encode_png(tf.constant(pixels)).numpy())
        else:
            PIL.Image.fromarray(pixels.squeeze()).save(path)
        image = images.read_image(path)
        self.assertEqual(image.values.dtype, dtype)
        is_whole = bool((image.pixels % 1.0 == 0.0).all())
        self.assertEqual(is_whole, shape[2] != 4)

    def test_refuses_absent_file(self):
        with self.assertRaisesRegex(FileNotFoundError, "`path` must.*gone.png"):
            images.read_image("gone.png")
        with self.assertRaisesRegex(FileNotFoundError, "`path` must be"):
            images.read_image(self.folder)

    @parameterized.named_parameters(
        ("text", "x.png", b"not an image"),
        ("empty", "x.jpg", b""),
        ("npy", "x.npy", b"not an array"),
        ("16_bit_png", "x.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 16 + b"\x10"),
        ("tiff", "x.tif", b"II*\0 and no more"),
    )
    def test_refuses_unreadable_file(self, name, content):
        with open(self.path(name), "wb") as file:
            file.write(content)
        with self.assertRaisesRegex(
            ValueError, rf"`path` must be a readable image, got .*{name}: .+"
        ):
            images.read_image(self.path(name))

    @parameterized.parameters("png", "jpg", "tif", "gif", "bmp", "webp")
    def test_refuses_truncated_file(self, suffix):
        path = self.path(f"x.{suffix}")
        PIL.Image.fromarray(_pixels((64, 64))).save(path)
        os.truncate(path, os.path.getsize(path) // 2)
        with self.assertRaisesRegex(ValueError, "`path` must be a readable"):
            images.read_image(path)

    @parameterized.parameters("png", "tif")
    def test_refuses_truncated_16_bit_file(self, suffix):
        path = self.path(f"x.{suffix}")
        images.write_image(path, np.zeros((64, 64, 3)) + 7.3, bits=16)
        os.truncate(path, os.path.getsize(path) // 2)
        with self.assertRaisesRegex(ValueError, "`path` must be a readable"):
            images.read_image(path)

    @parameterized.named_parameters(
        ("rank", np.zeros((2, 2, 2, 2)), "shape"),
        ("channels", np.zeros((2, 2, 4)), "shape"),
        ("empty", np.zeros((0, 2)), "shape"),
        ("type", np.zeros((2, 2), complex), "dtype"),
        ("infinite", np.full((2, 2), np.inf), "finite"),
    )
    def test_refuses_array(self, array, message):
        np.save(self.path("x.npy"), array)
        with self.assertRaisesRegex(ValueError, message):
            images.read_image(self.path("x.npy"))


class WriteImageTest(FolderTest):
    @parameterized.product(shape=(GREY, COLOUR), suffix=("png", "tif", "bmp"))
    def test_8_bit_round_trip(self, shape, suffix):
        pixels = _pixels(shape).astype(np.float32)
        images.write_image(self.path(f"x.{suffix}"), pixels)
        self.assertAllEqual(
            images.read_image(self.path(f"x.{suffix}")).pixels, pixels
        )

    @parameterized.product(shape=(GREY, COLOUR), suffix=("png", "tif"))
    def test_16_bit_round_trip_is_bit_exact(self, shape, suffix):
        written = _pixels((200, 300, shape[2]), np.uint16)
        path = self.path(f"x.{suffix}")
        images.write_image(path, written / np.float32(257.0), bits=16)
        image = images.read_image(path).pixels
        self.assertAllEqual(np.rint(image.astype(np.float64) * 257), written)

    def test_values_are_rounded_and_clipped(self):
        image = np.array([[-7.0, 0.4, 0.6, 254.6, 300.0]])
        images.write_image(self.path("x.png"), image)
        self.assertAllEqual(
            images.read_image(self.path("x.png")).pixels[0, :, 0],
            [0, 0, 1, 255, 255],
        )

    def test_npy_keeps_values_and_missing_entries(self):
        image = np.array([[-7.0, np.nan, 300.0]])
        images.write_image(self.path("x.npy"), image)
        self.assertAllEqual(
            images.read_image(self.path("x.npy")).pixels, image[..., None]
        )

    def test_missing_entries_are_drawn_as_asked(self):
        image = np.array([[np.nan, 9.0]])
        images.write_image(self.path("x.png"), image, missing_value=200.0)
        self.assertAllEqual(
            images.read_image(self.path("x.png")).pixels[0, :, 0], [200, 9]
        )

    def test_failure_leaves_the_former_file_alone(self):
        path = self.path("x.png")
        images.write_image(path, np.ones((2, 2)))
        with mock.patch.object(
            images.encoding,
            "write",
            side_effect=OSError("No space left on device"),
        ):
            with self.assertRaisesRegex(OSError, "No space left"):
                images.write_image(path, np.zeros((2, 2)))
        self.assertAllEqual(images.read_image(path).pixels, np.ones((2, 2, 1)))
        self.assertEqual(os.listdir(self.folder), ["x.png"])

    def test_permissions_are_those_of_a_new_file(self):
        images.write_image(self.path("x.png"), np.ones((2, 2)))
        with open(self.path("y"), "w"):
            pass
        modes = [os.stat(self.path(name)).st_mode for name in ("x.png", "y")]
        self.assertEqual(*modes)

    @parameterized.named_parameters(
        ("bits", "x.png", GREY, 12, "`bits` must be 8, or 16.*12"),
        ("format", "x.jpg", GREY, 16, "16 for PNG and TIFF"),
        ("suffix", "x.txt", GREY, 8, "image suffix.*x.txt"),
        ("shape", "x.png", (2, 2, 2), 8, "must have shape"),
    )
    def test_refuses(self, name, shape, bits, message):
        with self.assertRaisesRegex(ValueError, message):
            images.write_image(self.path(name), np.zeros(shape), bits=bits)


class ReadMaskTest(FolderTest):
    @parameterized.parameters(
        (GREY, GREY), (GREY, COLOUR), (COLOUR, COLOUR), (COLOUR, GREY)
    )
    def test_non_zero_is_missing(self, mask_shape, image_shape):
        missing = np.random.default_rng(0).random(mask_shape) < 0.3
        images.write_image(self.path("m.png"), missing * 1.0)
        np.save(self.path("m.npy"), missing)
        expected = missing
        if mask_shape != image_shape:
            expected = missing.any(axis=-1, keepdims=True)
        expected = np.broadcast_to(expected, image_shape)
        for name in ("m.png", "m.npy"):
            mask = images.read_mask(self.path(name), image_shape)
            self.assertAllEqual(mask, expected)
            self.assertDTypeEqual(mask, np.bool_)

    @parameterized.named_parameters(
        ("bool", bool, 1),
        ("zero_one", np.uint8, 1),
        ("labels", np.uint16, 300),
        ("soft", np.float32, 0.01),
        ("white", np.uint8, 255),
    )
    def test_mask_of_any_kind_is_missing_where_it_is_not_zero(self, dtype, one):
        missing = np.random.default_rng(0).random((5, 7)) < 0.3
        values = (missing * one).astype(dtype)
        expected = np.broadcast_to(missing[..., None], COLOUR)
        self.assertAllEqual(images.read_mask(values, COLOUR), expected)
        np.save(self.path("m.npy"), values)
        mask = images.read_mask(self.path("m.npy"), COLOUR)
        self.assertAllEqual(mask, expected)
        if dtype is not bool:
            tifffile.imwrite(self.path("m.tif"), values)
            mask = images.read_mask(self.path("m.tif"), COLOUR)
            self.assertAllEqual(mask, expected)

    def test_one_bit_mask_is_read(self):
        missing = np.random.default_rng(0).random((5, 7)) < 0.3
        PIL.Image.fromarray(missing).save(self.path("m.png"))
        mask = images.read_mask(self.path("m.png"), GREY)
        self.assertAllEqual(mask[..., 0], missing)

    def test_threshold_is_in_the_units_of_the_mask(self):
        values = np.array([[0, 100, 101, 65535]], np.uint16)
        mask = images.read_mask(values, (1, 4, 1), threshold=100)
        self.assertAllEqual(mask[0, :, 0], [False, False, True, True])

    def test_mask_may_be_inverted_and_grown(self):
        values = np.zeros((7, 9), np.uint8)
        values[3, 4] = 1
        rows, columns = np.indices((7, 9))
        distance = np.hypot(rows - 3, columns - 4)
        for grow in (0, 1, 2):
            mask = images.read_mask(values, (7, 9, 1), grow=grow)
            self.assertAllEqual(mask[..., 0], distance <= grow)
        mask = images.read_mask(values, (7, 9, 1), invert=True)
        self.assertAllEqual(mask[..., 0], distance > 0)
        # What is missing grows, not what is set in the file.
        values[2:5, 3:6] = 1
        mask = images.read_mask(values, (7, 9, 1), invert=True, grow=1)
        self.assertAllEqual(mask[..., 0], distance > 0)
        nothing = images.read_mask(0 * values, (7, 9, 1), grow=3)
        self.assertFalse(nothing.any())

    def test_jpeg_needs_a_threshold(self):
        missing = np.zeros((16, 16), bool)
        missing[4:9, 3:12] = True
        PIL.Image.fromarray(missing.astype(np.uint8) * 255).save(
            self.path("m.jpg"), quality=60
        )
        with self.assertRaisesRegex(ValueError, "`mask` must be of a lossless"):
            images.read_mask(self.path("m.jpg"), (16, 16, 1))
        mask = images.read_mask(self.path("m.jpg"), (16, 16, 1), threshold=127)
        self.assertAllEqual(mask[..., 0], missing)

    def test_opaque_strokes_of_one_colour_on_nothing_are_missing(self):
        pixels = np.zeros((5, 7, 4), np.uint8)
        pixels[1:3, 2:5] = 0, 0, 0, 255  # black strokes
        PIL.Image.fromarray(pixels).save(self.path("m.png"))
        mask = images.read_mask(self.path("m.png"), GREY)
        self.assertAllEqual(mask[..., 0], pixels[..., 3] > 0)
        pixels[..., 3] = 255  # all opaque: the colours count
        pixels[0, 0, :3] = 9
        PIL.Image.fromarray(pixels).save(self.path("m.png"))
        mask = images.read_mask(self.path("m.png"), GREY)
        self.assertAllEqual(mask[..., 0], pixels[..., 0] > 0)
        pixels[1, 1, 3] = 0  # both
        PIL.Image.fromarray(pixels).save(self.path("m.png"))
        with self.assertRaisesRegex(ValueError, "or several colours, got both"):
            images.read_mask(self.path("m.png"), GREY)

    @parameterized.parameters(
        ({"grow": -1}, "`grow` must be an integer from 0, got -1"),
        ({"grow": 1.5}, "`grow` must be an integer"),
        ({"threshold": float("nan")}, "`threshold` must be finite"),
    )
    def test_refuses_settings(self, settings, message):
        with self.assertRaisesRegex(ValueError, message):
            images.read_mask(np.zeros((5, 7)), GREY, **settings)

    def test_missing_entries_of_an_array_are_missing(self):
        np.save(self.path("m.npy"), np.array([[np.nan, 0.0]]))
        mask = images.read_mask(self.path("m.npy"), (1, 2, 1))
        self.assertAllEqual(mask[..., 0], [[True, False]])

    def test_refuses_other_size(self):
        images.write_image(self.path("m.png"), np.zeros((5, 8)))
        with self.assertRaisesRegex(
            ValueError, r"as large as the image \(5 x 7\), got 5 x 8"
        ):
            images.read_mask(self.path("m.png"), COLOUR)

    def test_refuses_unreadable(self):
        with self.assertRaisesRegex(FileNotFoundError, "gone.png"):
            images.read_mask("gone.png", GREY)
        with self.assertRaisesRegex(FileNotFoundError, "gone.npy"):
            images.read_mask("gone.npy", GREY)
        with open(self.path("m.npy"), "wb") as file:
            file.write(b"no")
        with self.assertRaisesRegex(ValueError, "`mask` must be a readable"):
            images.read_mask(self.path("m.npy"), GREY)


class EmbeddedImageTest(FolderTest):
    def setUp(self):
        super().setUp()
        refused = AssertionError("no network in tests")
        self.enter_context(
            mock.patch.object(socket, "getaddrinfo", side_effect=refused)
        )

    @parameterized.parameters(*sorted(images.EMBEDDED_IMAGES))
    def test_every_picture_is_there_without_network(self, name):
        image = images.embedded_image(name)
        self.assertEqual(image.ndim, 3)
        self.assertIn(image.shape[2], (1, 3))
        self.assertGreaterEqual(min(image.shape[:2]), 128)
        self.assertGreater(image.std(), 5.0)

    def test_equals_what_scikit_image_gives(self):
        self.assertAllEqual(
            images.embedded_image("camera")[..., 0], skimage.data.camera()
        )
        self.assertAllEqual(
            images.embedded_image("astronaut"), skimage.data.astronaut()
        )

    def test_region_and_size(self):
        whole = images.embedded_image("camera")
        region = images.embedded_image("camera", crop=(10, 20, 128, 64))
        self.assertAllEqual(region, whole[10:138, 20:84])
        small = images.embedded_image("astronaut", size=(32, 48))
        self.assertEqual(small.shape, (32, 48, 3))

    def test_refuses_unknown_name(self):
        with self.assertRaisesRegex(ValueError, "'astronaut'.*got 'lena'"):
            images.embedded_image("lena")

    @parameterized.parameters(
        ((-1, 0, 5, 5),), ((0, 0, 0, 5),), ((510, 0, 5, 5),), ((0, 9, 5, 512),)
    )
    def test_refuses_region(self, crop):
        with self.assertRaisesRegex(ValueError, "`crop` must.*512 x 512"):
            images.embedded_image("camera", crop=crop)


class LoadImageTest(FolderTest):
    def test_names_files_and_arrays(self):
        camera = images.load_image("camera").values
        self.assertDTypeEqual(camera, np.uint8)
        self.assertEqual(camera.shape, (512, 512, 1))
        images.write_image(self.path("x.png"), np.ones(COLOUR))
        self.assertAllEqual(
            images.load_image(self.path("x.png")).pixels, np.ones(COLOUR)
        )
        self.assertEqual(
            images.load_image(np.ones((2, 3))).pixels.shape, (2, 3, 1)
        )

    def test_refuses_what_is_neither(self):
        with self.assertRaisesRegex(FileNotFoundError, "embedded.*'gone.png'"):
            images.load_image("gone.png")
        with self.assertRaisesRegex(ValueError, "infinite"):
            images.load_image(np.full((2, 2), np.inf))


class TransformTest(FolderTest):
    def test_resize_keeps_aspect_by_cutting_the_longer_side(self):
        image = np.zeros((4, 8, 1), np.float32)
        image[:, :2] = image[:, 6:] = 255.0  # outside the central square
        small = images.resize_image(image, (2, 2))
        self.assertAllEqual(small, np.zeros((2, 2, 1)))

    def test_resize_to_own_size_is_identity(self):
        image = _pixels(COLOUR).astype(np.float32)
        self.assertAllEqual(images.resize_image(image, (5, 7)), image)

    def test_shrinking_averages(self):
        # A checkerboard finer than the result has no structure left in it.
        board = np.indices((64, 64)).sum(axis=0)[..., None] % 2 * 255.0
        small = images.resize_image(board.astype(np.float32), (8, 8))
        self.assertAllClose(small, np.full((8, 8, 1), 127.5), atol=4.0)

    def test_refuses_to_resize(self):
        with self.assertRaisesRegex(ValueError, "`size` must be at least"):
            images.resize_image(np.zeros(GREY), (0, 3))
        with self.assertRaisesRegex(ValueError, "no missing entries"):
            images.resize_image(np.full(GREY, np.nan), (2, 2))

    def test_grey_is_luma_and_rgb_repeats(self):
        colour = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.float32)
        grey = images.convert_channels(colour, 1)
        self.assertAllClose(grey[0, :, 0], [76.245, 149.685, 29.07])
        back = images.convert_channels(grey, 3)
        self.assertAllEqual(back, np.repeat(grey, 3, axis=2))
        with self.assertRaisesRegex(ValueError, "`channels` must be 1 or 3"):
            images.convert_channels(colour, 2)


class CorruptionTest(FolderTest):
    def test_noise_has_the_asked_moments_and_is_not_clipped(self):
        image = np.zeros((100, 100, 3), np.float32)
        noise = images.add_noise(image, 25.0, seed=1)
        # Standard errors over 30000 values: mean 25 / sqrt(3e4) = 0.14,
        # standard deviation 25 / sqrt(6e4) = 0.10; five of each.
        self.assertAllClose(noise.mean(), 0.0, atol=0.7)
        self.assertAllClose(noise.std(), 25.0, atol=0.5)
        self.assertLess(noise.min(), 0.0)
        self.assertAllEqual(noise, images.add_noise(image, 25.0, seed=1))
        self.assertNotAllEqual(noise, images.add_noise(image, 25.0, seed=2))

    def test_noise_keeps_missing_entries(self):
        noise = images.add_noise(np.array([[[np.nan], [1.0]]]), 3.0)
        self.assertAllEqual(np.isnan(noise[0, :, 0]), [True, False])

    def test_each_colour_value_is_dropped_on_its_own(self):
        image = np.ones((100, 100, 3), np.float32)
        missing = np.isnan(images.drop_pixels(image, 0.5))
        # Binomial(30000, 1/2): five standard errors are 0.0145. A pixel has
        # all three values missing with probability 1/8, 5 s.e. 0.0166.
        self.assertAllClose(missing.mean(), 0.5, atol=0.0145)
        self.assertAllClose(missing.all(axis=-1).mean(), 0.125, atol=0.0166)

    def test_whole_pixels_are_dropped_together(self):
        image = np.ones((100, 100, 3), np.float32)
        missing = np.isnan(images.drop_pixels(image, 0.8, whole_pixels=True))
        self.assertAllEqual(missing.any(axis=-1), missing.all(axis=-1))
        # Binomial(10000, 0.8): five standard errors.
        self.assertAllClose(missing.mean(), 0.8, atol=0.02)

    def test_observed_entries_are_untouched(self):
        image = _pixels(COLOUR).astype(np.float32)
        dropped = images.drop_pixels(image, 0.4)
        observed = ~np.isnan(dropped)
        self.assertAllEqual(dropped[observed], image[observed])
        self.assertAllEqual(images.drop_pixels(image, 0.0), image)

    @parameterized.parameters(-1.0, float("nan"), float("inf"))
    def test_refuses_noise(self, noise_std):
        with self.assertRaisesRegex(ValueError, "`noise_std` must be finite"):
            images.add_noise(np.zeros(GREY), noise_std)

    @parameterized.parameters(-0.1, 1.0, float("nan"))
    def test_refuses_fraction(self, fraction):
        with self.assertRaisesRegex(ValueError, "`missing_fraction` must be"):
            images.drop_pixels(np.zeros(GREY), fraction)


if __name__ == "__main__":
    tf.test.main()
