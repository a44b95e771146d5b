# SPDX-License-Identifier: Apache-2.0
"""Tests of the comparison on real pictures, with a stand-in for the run."""

from __future__ import annotations

import contextlib
import io
import pathlib
import sys
from unittest import mock

import numpy as np
import PIL.Image
import scipy.ndimage
import tensorflow as tf

from benchmarks import real_pictures


class RealPicturesTest(tf.test.TestCase):
    def test_noise_of_flat_parts_is_found_white_or_not(self):
        picture = np.zeros((120, 100))
        picture[:60, ::4] = 1000.0
        white = np.random.default_rng(0).normal(0.0, 8.0, picture.shape)
        blurred = scipy.ndimage.uniform_filter(white, (1, 3), mode="wrap")
        for noise in (white, blurred * np.sqrt(3.0)):
            found = real_pictures.noise_std(picture + noise)
            # The flattest windows of 64 pixels have less than the average.
            self.assertBetween(found, 0.75 * 8.0, 8.0)

    def test_draws_all_restorations_of_a_picture_in_its_own_units(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        rng = np.random.default_rng(0)
        clean = np.repeat([-1000, 400], 24)[:, None].repeat(40, axis=1)
        noisy = (clean + rng.normal(0.0, 50.0, clean.shape)).astype(np.int16)
        given = {}

        def restore(command):
            given.update(one[2:].split("=") for one in command[1:])
            self.assertEqual(command[0], "denoise")
            np.save(given["output"], np.load(given["image"])[..., None] + 1)
            return 0

        shown = {}

        def draw(pictures, labels, region, path):
            shown.update(zip(labels, pictures, strict=True))
            PIL.Image.new("L", (1, 1)).save(path)

        printed = io.StringIO()
        with (
            mock.patch.dict(real_pictures.PICTURES, {"ct": lambda: noisy}),
            mock.patch.object(real_pictures.cli, "main", restore),
            mock.patch.object(real_pictures.plots, "comparison", draw),
            mock.patch.object(real_pictures, "_BM3D", "no_such_module"),
            mock.patch.object(sys, "argv", ["python"]),
            contextlib.redirect_stdout(printed),
        ):
            real_pictures.main(
                [f"--run_dir={folder}", "--only=ct", "--epochs=3"]
            )
        self.assertEqual(given["epochs"], "3")
        self.assertIn("$ tfvae denoise --image=", printed.getvalue())
        self.assertIn("left out: BM3D", printed.getvalue())
        self.assertEqual([*shown], ["noisy", "tfvae", "non-local means"])
        # One scale for all of them.
        low, high = np.percentile(noisy, (0.5, 99.0))
        step = 255.0 / (high - low)
        difference = shown["tfvae"] - shown["noisy"]
        self.assertAllClose(difference, np.full((48, 40, 1), step))
        error = {
            name: np.std(one[..., 0] - step * (clean - low))
            for name, one in shown.items()
        }
        self.assertLess(error["non-local means"], 0.5 * error["noisy"])
        self.assertTrue((folder / "ct.png").exists())


if __name__ == "__main__":
    tf.test.main()
