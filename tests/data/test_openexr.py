# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import sys
from unittest import mock

import numpy as np
import OpenEXR
import tensorflow as tf
from absl.testing import parameterized

from tfvae.data import formats, images

_HEADER = {
    "compression": OpenEXR.ZIP_COMPRESSION,
    "type": OpenEXR.scanlineimage,
}


def _plane(dtype="float32"):
    return np.random.default_rng(0).uniform(0, 3, (8, 10)).astype(dtype)


class OpenExrTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.create_tempdir().full_path, "x.exr")

    def _write(self, channels, **header):
        with OpenEXR.File({**_HEADER, **header}, {**channels}) as file:
            file.write(self.path)

    def test_file_of_another_program_is_read_in_its_order(self):
        planes = {
            name: _plane() + i for i, name in enumerate(("G", "A", "R", "B"))
        }
        self._write(planes, displayWindow=((0, 0), (19, 19)))
        image = images.read_image(self.path)
        self.assertAllEqual(
            image.values, np.stack([planes[name] for name in "RGB"], axis=-1)
        )
        self.assertAllEqual(image.alpha, planes["A"])
        self.assertTrue(image.is_premultiplied)
        self.assertIn("premultiplied (associated) alpha", image.notes)

    def test_what_is_not_kept_is_noted(self):
        primaries = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329)
        self._write({"Y": _plane()}, chromaticities=primaries)
        notes = images.read_image(self.path).notes
        self.assertEqual(notes, ("without its chromaticities",))

    def test_straight_alpha_is_multiplied_in(self):
        values, alpha = _plane()[..., None], _plane() / 3.0
        images.write_values(self.path, formats.Image(values, alpha))
        read = images.read_image(self.path)
        self.assertAllEqual(read.values, values * alpha[..., None])
        self.assertAllEqual(read.alpha, alpha)

    @parameterized.named_parameters(
        ("depth", {"Z": _plane()}, "channels R, G, B or Y.*not Z"),
        (
            "layers",
            {"R": _plane(), "G": _plane(), "B": _plane(), "albedo.R": _plane()},
            "not B, G, R, albedo.R",
        ),
        (
            "mixed",
            {"R": _plane(), "G": _plane("float16"), "B": _plane()},
            "all float16 or all float32, not float16, float32",
        ),
        ("integers", {"Y": _plane("uint32")}, "or all float32, not uint32"),
    )
    def test_other_channels_are_refused_by_name(self, channels, message):
        self._write(channels)
        with self.assertRaisesRegex(ValueError, message):
            images.read_image(self.path)

    def test_several_parts_are_refused(self):
        parts = [
            OpenEXR.Part({"name": name}, {"Y": _plane()})
            for name in ("left", "right")
        ]
        with OpenEXR.File(parts) as file:
            file.write(self.path)
        with self.assertRaisesRegex(ValueError, "OpenEXR of 2 parts"):
            images.read_image(self.path)

    def test_deep_data_are_refused(self):
        samples = np.empty((2, 2), dtype=object)
        for place in np.ndindex(2, 2):
            samples[place] = np.ones(1, np.float32)
        self._write(
            {"Y": samples},
            type=OpenEXR.deepscanline,
            compression=OpenEXR.ZIPS_COMPRESSION,
        )
        with self.assertRaisesRegex(ValueError, r"deepscanline \(deep data\)"):
            images.read_image(self.path)

    @parameterized.parameters(np.uint8, np.uint16, np.float64)
    def test_other_dtypes_can_not_be_written(self, dtype):
        image = formats.Image(np.zeros((4, 4, 1), dtype))
        with self.assertRaisesRegex(ValueError, "hold values of dtype"):
            images.write_values(self.path, image)
        self.assertFalse(os.path.exists(self.path))

    def test_missing_package_is_named_with_its_extra(self):
        self._write({"Y": _plane()})
        with mock.patch.dict(sys.modules, {"OpenEXR": None}):
            with self.assertRaisesRegex(ImportError, r"'tfvae\[exr\]'"):
                images.read_image(self.path)


if __name__ == "__main__":
    tf.test.main()
