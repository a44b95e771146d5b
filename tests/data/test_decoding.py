# SPDX-License-Identifier: Apache-2.0
"""Tests of what files of every kind say of themselves."""

from __future__ import annotations

import io
import os
import struct
import zlib

import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
import tensorflow as tf
import tifffile
from absl.testing import parameterized

from tfvae.data import formats, images

SRGB = PIL.ImageCms.ImageCmsProfile(
    PIL.ImageCms.createProfile("sRGB")
).tobytes()
DTYPES = (np.uint8, np.uint16, np.float32)


def _values(shape, dtype=np.uint8, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, shape)
    if np.dtype(dtype).kind == "f":
        return (values / 64.0 - 1.0).astype(dtype)
    return (values * (np.iinfo(dtype).max // 255)).astype(dtype)


def _png_with(array, name, content):
    """A PNG with one more chunk after its header."""
    encoded = bytes(imagecodecs.png_encode(np.ascontiguousarray(array)))
    checksum = zlib.crc32(name + content)
    chunk = struct.pack(">I", len(content)) + name + content
    chunk += struct.pack(">I", checksum)
    return encoded[:33] + chunk + encoded[33:]


class DecodingTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, content):
        with open(self.path(name), "wb") as file:
            file.write(content)

    def read(self, name):
        return images.read_image(self.path(name))

    def tiff(self, array, **settings):
        tifffile.imwrite(
            self.path("x.tif"), array, **({"metadata": None} | settings)
        )
        return self.read("x.tif")


class OrientationTest(DecodingTest):
    @parameterized.product(
        orientation=tuple(range(1, 9)),
        kind=("png", "jpg", "png16", "tif", "tif16"),
    )
    def test_image_is_as_it_is_viewed(self, orientation, kind):
        dtype = np.uint16 if kind.endswith("16") else np.uint8
        stored = np.zeros((8, 16, 3), dtype)
        stored[:4, :8] = np.iinfo(dtype).max
        stored[:4, 8:, 1] = np.iinfo(dtype).max
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        if kind == "png16":
            content = exif.tobytes().removeprefix(b"Exif\0\0")
            self.write("x.png16", _png_with(stored, b"eXIf", content))
        elif kind.startswith("tif"):
            self.tiff(
                stored,
                photometric="rgb",
                extratags=[(0x0112, 3, 1, orientation, True)],
            )
            os.rename(self.path("x.tif"), self.path(f"x.{kind}"))
        else:
            picture = PIL.Image.fromarray(stored)
            picture.save(
                self.path(f"x.{kind}"), exif=exif, quality=100, subsampling=0
            )
        flat = PIL.Image.fromarray((stored > 0).astype(np.uint8) * 255)
        flat.getexif()[0x0112] = orientation
        expected = np.asarray(PIL.ImageOps.exif_transpose(flat)) > 127
        image = self.read(f"x.{kind}")
        self.assertDTypeEqual(image.values, dtype)
        self.assertAllEqual(image.values > np.iinfo(dtype).max // 2, expected)
        noted = [one for one in image.notes if "orientation" in one]
        self.assertLen(noted, int(orientation > 1))

    def test_alpha_and_resolution_are_turned_too(self):
        stored = _values((5, 7, 4), np.uint16)
        image = self.tiff(
            stored,
            photometric="rgb",
            extrasamples=["unassalpha"],
            resolution=(100, 200),
            resolutionunit=2,
            extratags=[(0x0112, 3, 1, 6, True)],
        )
        self.assertAllEqual(image.alpha, np.rot90(stored[..., 3], -1))
        self.assertEqual(image.resolution, (200.0, 100.0, "inch"))


class PhotometricTest(DecodingTest):
    @parameterized.parameters(
        (np.uint8, None, 255), (np.uint16, None, 65535), (np.uint16, 12, 4095)
    )
    def test_white_is_zero_is_turned(self, dtype, bits, white):
        stored = _values((5, 7), np.uint8).astype(dtype)
        settings = {} if bits is None else {"bitspersample": bits}
        image = self.tiff(stored, photometric="miniswhite", **settings)
        self.assertAllEqual(image.values[..., 0], white - stored)
        self.assertDTypeEqual(image.values, dtype)
        self.assertIn("white-is-zero turned into black-is-zero", image.notes)

    def test_one_bit_is_black_and_white(self):
        stored = _values((5, 7)) > 127
        for kind in ("minisblack", "miniswhite"):
            image = self.tiff(stored, photometric=kind)
            expected = stored if kind == "minisblack" else ~stored
            self.assertAllEqual(image.values[..., 0], 255 * expected)

    @parameterized.parameters(*DTYPES)
    def test_planes_one_after_another_are_interleaved(self, dtype):
        values = _values((5, 7, 3), dtype)
        image = self.tiff(
            np.moveaxis(values, -1, 0),
            photometric="rgb",
            planarconfig="separate",
        )
        self.assertAllEqual(image.values, values)

    def test_palette_of_a_tiff_is_resolved(self):
        table = np.zeros((3, 256), np.uint16)
        table[:, 1] = 65535, 256 * 7, 0
        index = np.array([[0, 1, 0], [1, 1, 0]], np.uint8)
        image = self.tiff(index, photometric="palette", colormap=table)
        self.assertAllEqual(
            image.values, index[..., None] * np.array([255, 7, 0])
        )

    @parameterized.parameters(
        ("miniswhite", np.float32, 1, "white-is-zero with dtype float32"),
        ("miniswhite", np.int16, 1, "white-is-zero with dtype int16"),
        ("separated", np.uint16, 4, "SEPARATED and dtype uint16"),
        ("cielab", np.uint8, 3, "CIELAB and dtype uint8"),
        ("cielab", np.uint16, 3, "CIELAB and dtype uint16"),
        ("cfa", np.uint16, 1, "CFA"),
        ("linear_raw", np.uint16, 1, "LINEAR_RAW"),
        ("minisblack", np.complex64, 1, "dtype complex64"),
    )
    def test_other_kinds_are_refused_by_name(
        self, photometric, dtype, samples, message
    ):
        shape = (5, 7, samples) if samples > 1 else (5, 7)
        settings = {"planarconfig": "contig"} if samples > 1 else {}
        with self.assertRaisesRegex(ValueError, message):
            self.tiff(
                np.zeros(shape, dtype), photometric=photometric, **settings
            )

    @parameterized.parameters("CMYK", "YCbCr")
    def test_cmyk_and_ycbcr_are_converted_and_that_is_noted(self, mode):
        picture = PIL.Image.fromarray(np.full((16, 16, 3), 255, np.uint8))
        picture.convert(mode).save(self.path("x.tif"))
        image = self.read("x.tif")
        self.assertAllClose(image.values, np.full((16, 16, 3), 255), atol=2)
        self.assertIn(mode, image.notes[0])
        self.assertIn("converted to RGB", image.notes[0])

    def test_lab_of_pillow_is_refused_by_name(self):
        picture = PIL.Image.new("LAB", (7, 5))
        picture.save(self.path("x.tif"))
        with self.assertRaisesRegex(ValueError, "CIELAB"):
            self.read("x.tif")

    def test_profile_of_another_colour_space_is_left_out(self):
        picture = PIL.Image.fromarray(_values((5, 7)))
        picture.save(self.path("x.png"), icc_profile=SRGB)
        image = self.read("x.png")
        self.assertIsNone(image.icc_profile)
        self.assertIn("without its ICC profile, which is for RGB", image.notes)


class AlphaTest(DecodingTest):
    @parameterized.product(
        dtype=DTYPES,
        num_colours=(1, 3),
        kind=("unassalpha", "assocalpha", "unspecified"),
    )
    def test_extra_samples_are_what_the_file_says(
        self, dtype, num_colours, kind
    ):
        stored = _values((5, 7, num_colours + 1), dtype)
        image = self.tiff(
            stored,
            photometric="rgb" if num_colours == 3 else "minisblack",
            planarconfig="contig",
            extrasamples=[kind],
        )
        if kind == "unspecified":
            self.assertIsNone(image.alpha)
            self.assertAllEqual(image.values, stored)
            self.assertRegex(image.notes[0], "1 to be unspecified")
            return
        self.assertAllEqual(image.values, stored[..., :-1])
        self.assertAllEqual(image.alpha, stored[..., -1])
        self.assertEqual(image.is_premultiplied, kind == "assocalpha")

    def test_two_alpha_channels_are_refused(self):
        with self.assertRaisesRegex(ValueError, "more than one alpha"):
            self.tiff(
                _values((5, 7, 5)),
                photometric="rgb",
                extrasamples=["unassalpha", "assocalpha"],
            )

    def test_premultiplied_values_are_laid_over_white_once(self):
        stored = np.zeros((5, 7, 4), np.uint8)
        stored[..., 0], stored[..., 3] = 100, 100
        image = self.tiff(
            stored, photometric="rgb", extrasamples=["assocalpha"]
        )
        expected = [100 + 155, 155, 155]
        self.assertAllClose(image.pixels[0, 0], expected)

    @parameterized.parameters(
        (np.uint8, 1), (np.uint8, 3), (np.uint16, 1), (np.uint16, 3)
    )
    def test_colour_key_of_a_png_is_alpha(self, dtype, channels):
        values = _values((5, 7, channels), dtype)
        key = values[2, 3].astype(">u2").tobytes()
        array = values[..., 0] if channels == 1 else values
        self.write("x.png", _png_with(array, b"tRNS", key))
        image = self.read("x.png")
        self.assertAllEqual(image.values, values)
        is_key = (values == values[2, 3]).all(axis=-1)
        self.assertAllEqual(image.alpha == 0, is_key)
        self.assertAllEqual(image.alpha == np.iinfo(dtype).max, ~is_key)

    @parameterized.parameters(1, 2, 4)
    def test_colour_key_of_few_bits_is_alpha(self, bits):
        levels = np.arange(2**bits, dtype=np.uint8)
        packed = np.packbits(
            ((levels[:, None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8)
        ).tobytes()

        def chunk(name, content):
            checksum = struct.pack(">I", zlib.crc32(name + content))
            return struct.pack(">I", len(content)) + name + content + checksum

        header = struct.pack(">IIBBBBB", len(levels), 1, bits, 0, 0, 0, 0)
        self.write(
            "x.png",
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"tRNS", struct.pack(">H", 1))
            + chunk(b"IDAT", zlib.compress(b"\0" + packed))
            + chunk(b"IEND", b""),
        )
        image = self.read("x.png")
        self.assertAllEqual(
            image.values[0, :, 0], levels * (255 // (2**bits - 1))
        )
        self.assertAllEqual(image.alpha[0], np.where(levels == 1, 0, 255))


class KeptMetadataTest(DecodingTest):
    @parameterized.product(dtype=(np.uint8, np.uint16), suffix=("png", "tif"))
    def test_profile_resolution_and_alpha_go_through(self, dtype, suffix):
        written = images.Image(
            _values((5, 7, 3), dtype),
            _values((5, 7), dtype, seed=1),
            icc_profile=SRGB,
            resolution=formats.Resolution(300.0, 150.0, "inch"),
        )
        path = self.path(f"x.{suffix}")
        images.write_values(path, written)
        read = images.read_image(path)
        self.assertAllEqual(read.values, written.values)
        self.assertAllEqual(read.alpha, written.alpha)
        self.assertEqual(read.icc_profile, SRGB)
        self.assertAllClose(read.resolution[:2], (300.0, 150.0), atol=0.02)
        with PIL.Image.open(path) as picture:  # Others see them, too.
            self.assertEqual(picture.info["icc_profile"], SRGB)
            self.assertAllClose(
                [float(one) for one in picture.info["dpi"]],
                (300.0, 150.0),
                atol=0.02,
            )

    @parameterized.parameters("none", "cm", "inch")
    def test_unit_of_a_tiff_is_kept(self, unit):
        written = images.Image(
            _values((5, 7, 1), np.float32),
            resolution=formats.Resolution(9.5, 8.0, unit),
        )
        images.write_values(self.path("x.tif"), written)
        self.assertEqual(self.read("x.tif").resolution, (9.5, 8.0, unit))

    def test_premultiplied_values_are_divided_for_png_and_kept_for_tiff(self):
        alpha = np.array([[0, 128, 255]], np.uint8)
        values = np.array([[[0], [64], [200]]], np.uint8)
        written = images.Image(values, alpha, is_premultiplied=True)
        images.write_values(self.path("x.tif"), written)
        images.write_values(self.path("x.png"), written)
        kept, straight = self.read("x.tif"), self.read("x.png")
        self.assertTrue(kept.is_premultiplied)
        self.assertAllEqual(kept.values, values)
        self.assertFalse(straight.is_premultiplied)
        self.assertAllEqual(straight.values[..., 0], [[0, 128, 200]])
        self.assertAllEqual(straight.alpha, alpha)

    def test_jpeg_keeps_profile_and_resolution_at_high_quality(self):
        ramp = np.linspace(0, 255, 64).astype(np.uint8)
        values = np.stack([np.tile(ramp, (64, 1))] * 3, axis=-1)
        written = images.Image(
            values,
            icc_profile=SRGB,
            resolution=formats.Resolution(300.0, 300.0, "inch"),
        )
        images.write_values(self.path("x.jpg"), written)
        read = self.read("x.jpg")
        self.assertAllClose(read.values, values, atol=3)
        self.assertEqual(read.icc_profile, SRGB)
        self.assertEqual(read.resolution, (300.0, 300.0, "inch"))
        self.assertTrue(read.is_lossy)


class CompressionTest(DecodingTest):
    @parameterized.product(
        dtype=(np.uint8, np.uint16, np.int16, np.float16, np.float32),
        compression=("lzw", "deflate", "packbits", "zstd"),
        predictor=(False, True),
    )
    def test_compressed_tiff_is_read_exactly(
        self, dtype, compression, predictor
    ):
        if compression == "packbits" and predictor:
            predictor = False  # There is none.
        values = _values((33, 47), np.uint8).astype(dtype) - dtype(3)
        image = self.tiff(values, compression=compression, predictor=predictor)
        self.assertAllEqual(image.values[..., 0], values)
        self.assertDTypeEqual(image.values, dtype)

    @parameterized.parameters(">", "<")
    def test_byte_order_is_that_of_the_machine_afterwards(self, order):
        values = _values((5, 7), np.uint16)
        image = self.tiff(values, byteorder=order)
        self.assertAllEqual(image.values[..., 0], values)
        self.assertTrue(image.values.dtype.isnative)

    @parameterized.parameters(10, 12, 14)
    def test_packed_bits_are_read(self, bits):
        values = _values((5, 8)).astype(np.uint16)
        image = self.tiff(values, bitspersample=bits)
        self.assertAllEqual(image.values[..., 0], values)

    @parameterized.product(dtype=DTYPES, planar=("contig", "separate"))
    def test_two_channels_are_read(self, dtype, planar):
        values = _values((5, 7, 2), dtype)
        stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
        image = self.tiff(stored, photometric="minisblack", planarconfig=planar)
        self.assertAllEqual(image.values, values)
        self.assertIsNone(image.alpha)

    @parameterized.product(dtype=(np.uint8, np.uint16), channels=(1, 3))
    def test_jpeg_2000_is_read_exactly(self, dtype, channels):
        values = _values((40, 50, channels), dtype)
        array = values[..., 0] if channels == 1 else values
        for codec in ("jp2", "j2k"):
            self.write(
                f"x.{codec}",
                imagecodecs.jpeg2k_encode(
                    np.ascontiguousarray(array), level=0, codecformat=codec
                ),
            )
            image = self.read(f"x.{codec}")
            self.assertAllEqual(image.values, values)
            self.assertDTypeEqual(image.values, dtype)

    def test_several_pages_or_frames_are_noted(self):
        image = self.tiff(_values((3, 5, 7)), photometric="minisblack")
        self.assertAllEqual(image.values[..., 0], _values((3, 5, 7))[0])
        self.assertIn("page 1 of 3", image.notes)
        frames = [PIL.Image.fromarray(one) for one in _values((2, 5, 7))]
        frames[0].save(
            self.path("x.gif"), save_all=True, append_images=frames[1:]
        )
        self.assertIn("frame 1 of 2", self.read("x.gif").notes)

    @parameterized.named_parameters(
        ("exr", b"\x76\x2f\x31\x01" + b"\0" * 60, "for read"),
        (
            "deep_ppm",
            b"P6\n# made by hand\n1 1\n65535\n\0\0\0\0\0\0",
            "PPM of more than 8 bits",
        ),
    )
    def test_other_formats_are_refused_by_name(self, content, message):
        self.write("x.any", content)
        with self.assertRaisesRegex(ValueError, message):
            self.read("x.any")

    def test_deep_pgm_is_read(self):
        values = _values((5, 7), np.uint16)
        header = b"P5\n7 5\n65535\n"
        self.write("x.pgm", header + values.astype(">u2").tobytes())
        image = self.read("x.pgm")
        self.assertAllEqual(image.values[..., 0], values)
        self.assertDTypeEqual(image.values, np.uint16)

    def test_cmyk_with_a_profile_that_does_not_apply_is_refused(self):
        picture = PIL.Image.new("CMYK", (7, 5))
        content = io.BytesIO()
        picture.save(content, format="jpeg", icc_profile=SRGB)
        self.write("x.jpg", content.getvalue())
        with self.assertRaisesRegex(ValueError, "`path` must be a readable"):
            self.read("x.jpg")


if __name__ == "__main__":
    tf.test.main()
