# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
import pathlib
from unittest import mock

import numpy as np
import tensorflow as tf

from tests.runs import small
from tfvae import serving
from tfvae.data import images
from tfvae.runs.denoise import denoise


class DenoiseTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)

    def _denoise(self, *params, name="run"):
        """Denoises without the figures that `train` has as well."""
        small.load_picture("denoise.export = False", *params)
        with mock.patch("tfvae.runs.summaries.draw"):
            return denoise(self.folder / name)

    def test_restores_and_reports_how_well(self):
        small.load_picture("fit.epochs = 3")
        with mock.patch.object(serving, "export_saved_model") as export:
            summary = denoise(self.folder)
        self.assertGreater(summary["psnr"], summary["corrupted_psnr"])
        self.assertBetween(summary["ssim"], -1.0, 1.0)
        found = {path.name for path in (self.folder / "figures").iterdir()}
        self.assertEqual(
            found,
            {
                "bound.png",
                "features.png",
                "latent_usage.png",
                "psnr.png",
                "restoration.png",
                "restored.png",
                "restored_latest.png",
                "samples.png",
            },
        )
        export.assert_called_once_with(
            mock.ANY, self.folder / "saved_model", event_shape=(4, 4, 1)
        )
        rows = small.metrics(self.folder)
        self.assertEqual([row["psnr"] == "" for row in rows], [1, 0, 0])
        self.assertEqual(float(rows[-1]["psnr"]), summary["psnr"])
        restored = images.read_image(
            self.folder / "figures/restored.png"
        ).pixels
        self.assertEqual(restored.shape, (16, 16, 1))

    def test_resumed_run_restores_the_same_picture(self):
        self._denoise("fit.epochs = 2", name="unbroken")
        with mock.patch(
            "tfvae.restoration.Restoration.restore",
            side_effect=KeyboardInterrupt,
        ):
            with self.assertRaises(KeyboardInterrupt):
                self._denoise("fit.epochs = 2", name="broken")
        self._denoise("fit.epochs = 2", name="broken")
        self.assertEqual(
            small.metrics(self.folder / "broken"),
            small.metrics(self.folder / "unbroken"),
        )
        one, two = (
            (self.folder / name / "figures/restored.png").read_bytes()
            for name in ("unbroken", "broken")
        )
        self.assertEqual(one, two)

    def test_fills_in_and_keeps_what_was_observed(self):
        picture = images.embedded_image("camera", crop=(90, 200, 16, 16))
        mask = np.zeros((16, 16, 1), np.float32)
        mask[4:8, 4:6] = 255.0
        images.write_image(self.folder / "mask.png", mask)
        images.write_image(self.folder / "picture.png", picture)
        output = self.folder / "out.png"
        summary = self._denoise(
            f"IMAGE = '{self.folder / 'picture.png'}'",
            f"corrupted_image.mask = '{self.folder / 'mask.png'}'",
            "corrupted_image.crop = None",
            "corrupted_image.noise_std = 0.0",
            f"denoise.output = '{output}'",
            "fit.epochs = 1",
        )
        self.assertNotIn("psnr", summary)
        restored = images.read_image(output).pixels
        self.assertAllEqual(restored[mask == 0], picture[mask == 0])
        self.assertFalse(np.isnan(restored).any())

    def test_picture_of_16_bits_stays_as_deep(self):
        picture = images.embedded_image("camera", crop=(90, 200, 16, 16))
        picture[0, 0] = 100.0 + 1.0 / 257.0
        mask = np.zeros((16, 16, 1), np.float32)
        mask[4:8, 4:6] = 255.0
        images.write_image(self.folder / "mask.png", mask)
        images.write_image(self.folder / "deep.png", picture, bits=16)
        params = (
            f"IMAGE = '{self.folder / 'deep.png'}'",
            f"corrupted_image.mask = '{self.folder / 'mask.png'}'",
            "corrupted_image.crop = None",
            "corrupted_image.noise_std = 0.0",
            "fit.epochs = 1",
        )
        # At the end of the run, and of one that has ended.
        for name in ("first.tif", "again.png", "flat.jpg"):
            output = self.folder / name
            self._denoise(*params, f"denoise.output = '{output}'")
            pixels, bits = images.read_image(output)
            is_deep = name != "flat.jpg"
            self.assertEqual(bits, 16 if is_deep else 8)
            is_kept = bool((pixels[0, 0] == picture[0, 0]).all())
            self.assertEqual(is_kept, is_deep)
        for name in ("restored.png", "restored_latest.png"):
            drawn = images.read_image(self.folder / "run/figures" / name)
            self.assertEqual(drawn.bits, 16)

    def test_picture_that_needs_no_16_bits_stays_as_deep(self):
        deep = self.folder / "deep.png"
        picture = np.arange(256.0).reshape(16, 16, 1)
        images.write_image(deep, picture, bits=16)
        params = (
            f"IMAGE = '{deep}'",
            "corrupted_image.crop = None",
            "corrupted_image.noise_std = 0.0",
            "corrupted_image.keep_observed = True",
            "fit.epochs = 1",
        )
        self._denoise(*params)
        # All values are whole numbers, and a copy has the depth of the file.
        output = self.folder / "again.png"
        self._denoise(*params, f"denoise.output = '{output}'")
        pixels, bits = images.read_image(output)
        self.assertAllEqual(pixels, picture)
        self.assertEqual(bits, 16)

    def test_noise_of_counts_is_allowed_for_and_printed(self):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            summary = self._denoise(
                "corrupted_image.noise_std = 5.0",
                "corrupted_image.noise = @PoissonGaussianNoise()",
                "PoissonGaussianNoise.gain = 2.0",
                "PoissonGaussianNoise.read_noise_std = 5.0",
                "fit.epochs = 1",
            )
        self.assertRegex(
            out.getvalue(), "noise: Poisson of gain 2 .* read .* 5;"
        )
        row = small.metrics(self.folder / "run")[-1]
        self.assertEqual(float(row["noise_std"]), 1.0)  # Of the transform.
        self.assertGreater(summary["psnr"], 10.0)

    def test_data_points_are_refused_with_the_tool_to_use(self):
        small.load_bars("fit.epochs = 1")
        with self.assertRaisesRegex(ValueError, "use `tfvae train`"):
            denoise(self.folder / "run")

    def test_output_is_checked_before_training(self):
        for output, error, message in (
            ("out.xyz", ValueError, "`output` must end in .png"),
            ("missing/out.png", FileNotFoundError, "in an existing folder"),
        ):
            with self.assertRaisesRegex(error, message):
                self._denoise("fit.epochs = 1", f"denoise.output = '{output}'")
        self.assertFalse((self.folder / "run/config.gin").exists())

    def test_finished_run_writes_its_picture_elsewhere(self):
        summary = self._denoise("fit.epochs = 1")
        output = self.folder / "out.png"
        again = self._denoise("fit.epochs = 1", f"denoise.output = '{output}'")
        self.assertEqual(again, summary)
        self.assertAllEqual(
            images.read_image(output).pixels,
            images.read_image(self.folder / "run/figures/restored.png").pixels,
        )

    def test_unreadable_picture_is_reported(self):
        (self.folder / "broken.png").write_bytes(b"no picture")
        for name, error in (
            ("broken.png", ValueError),
            ("missing.png", FileNotFoundError),
        ):
            with self.assertRaisesRegex(error, name):
                self._denoise(
                    f"IMAGE = '{self.folder / name}'", "fit.epochs = 1"
                )


if __name__ == "__main__":
    tf.test.main()
