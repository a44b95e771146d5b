# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
import pathlib
import shutil
from unittest import mock

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tifffile

from tests.runs import small
from tfvae import serving
from tfvae.data import images
from tfvae.ops import residuals
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
                "residual.npy",
                "residual.png",
                "restoration.png",
                "restored.png",
                "restored_latest.png",
                "samples.png",
                "uncertainty.png",
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
        page = (self.folder / "report.html").read_text(encoding="utf-8")
        self.assertIn(f"{summary['psnr']:.2f} dB", page)
        self.assertEqual(page.count("<svg"), 3)  # PSNR, bound, noise

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

    def _denoise_large(self, name):
        """Denoises as if it was a large picture."""
        with mock.patch("tfvae.restoration.PATCHES_IN_MEMORY", 0):
            return self._denoise(
                "fit.epochs = 2", "TVAE.states_in_memory = 0", name=name
            )

    @pytest.mark.slow  # Seven runs; parts are tested by default.
    def test_large_picture_is_restored_as_a_small_one_also_after_a_kill(self):
        self._denoise("fit.epochs = 2", name="small")
        with mock.patch(
            "tfvae.restoration.Restoration.restore",
            side_effect=KeyboardInterrupt,
        ):
            with self.assertRaises(KeyboardInterrupt):
                self._denoise_large("large")
        self.assertTrue((self.folder / "large/checkpoints").exists())
        self._denoise_large("large")
        self.assertEqual(
            small.metrics(self.folder / "large"),
            small.metrics(self.folder / "small"),
        )
        for name in ("figures/restored.png", "uncertainty.npy"):
            one, two = (
                (self.folder / run / name).read_bytes()
                for run in ("large", "small")
            )
            self.assertEqual(one, two)

    @pytest.mark.slow  # Runs; test_uncertainty has parts.
    def test_standard_deviations_are_in_units_and_times_their_factor(self):
        output = self.folder / "std.npy"
        params = ("fit.epochs = 1", f"denoise.output_std = '{output}'")
        summary = self._denoise(*params, "denoise.std_factor = 1.0")
        std = np.load(output)
        self.assertEqual(std.shape, (16, 16))
        self.assertDTypeEqual(std, np.float32)
        self.assertAllGreater(std, 0.0)
        self.assertAllClose(summary["mean_std"], std.mean())
        self.assertBetween(
            summary["within_2_std"], summary["within_1_std"], 1.0
        )
        again = self.folder / "again.tif"
        self._denoise(
            "fit.epochs = 1",
            "denoise.std_factor = 1.0",
            f"denoise.output_std = '{again}'",
        )
        self.assertAllEqual(tifffile.imread(again), std)
        self._denoise(*params, "denoise.std_factor = 2.5", name="other")
        self.assertAllClose(np.load(output), 2.5 * std, rtol=1e-5)
        for wrong, message in (
            ("denoise.output_std = 'std.png'", "`output_std` must end in .npy"),
            (f"denoise.output = '{output}'", "`output_std` must be another"),
            ("denoise.std_factor = 0.0", "`std_factor` must be positive"),
        ):
            with self.assertRaisesRegex(ValueError, message):
                self._denoise(*params, wrong, name="wrong")

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
        for name in ("first.tif", "again.png"):
            output = self.folder / name
            self._denoise(*params, f"denoise.output = '{output}'")
            restored = images.read_image(output)
            self.assertDTypeEqual(restored.values, np.uint16)
            self.assertAllEqual(restored.pixels[0, 0], picture[0, 0])
        with self.assertRaisesRegex(
            ValueError, r"`output` must end in .png or .tif.*jpg can not hold"
        ):
            self._denoise(
                *params, f"denoise.output = '{self.folder / 'flat.jpg'}'"
            )
        for name in ("restored.png", "restored_latest.png"):
            drawn = images.read_image(self.folder / "run/figures" / name)
            self.assertDTypeEqual(drawn.values, np.uint16)

    @pytest.mark.slow  # Kinds are tested without a model by default.
    def test_float_picture_comes_out_in_its_own_units(self):
        values = np.linspace(-1319.0, 5132.0, 256).reshape(16, 16)
        tifffile.imwrite(self.folder / "ct.tif", values.astype(np.float32))
        params = (
            f"IMAGE = '{self.folder / 'ct.tif'}'",
            "corrupted_image.crop = None",
            "corrupted_image.noise_std = 600.0",
            "fit.epochs = 2",
        )
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            summary = self._denoise(*params)
        self.assertStartsWith(
            printed.getvalue(),
            "ct: 16 x 16 pixels, grey, float32, values -1319 to 5132, on a "
            "range of -1319 to 5132\nadding Gaussian noise of standard "
            "deviation 600 (9.3 % of the range)\n",
        )
        self.assertRegex(
            printed.getvalue(),
            rf"noise: standard deviation {summary['noise_std']:.4g} \(",
        )
        self.assertGreater(summary["noise_std"], 256.0)
        output = self.folder / "out.npy"
        self._denoise(*params, f"denoise.output = '{output}'")
        restored = np.load(output)
        self.assertDTypeEqual(restored, np.float32)
        # So few epochs find little more than the mean, 1906 in its units.
        self.assertAllClose(restored.mean(), 1906.5, atol=300.0)
        self.assertAllEqual(
            tifffile.imread(self.folder / "run/figures/restored.tif"),
            restored,
        )

    @pytest.mark.slow  # The test before is a sample.
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
        restored = images.read_image(output)
        self.assertAllEqual(restored.pixels, picture)
        self.assertDTypeEqual(restored.values, np.uint16)

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
        # Neither the summary nor the page takes it for a level of the picture.
        self.assertNotIn("noise_std", summary)
        page = (self.folder / "run/report.html").read_text(encoding="utf-8")
        self.assertNotIn("<dt>Noise</dt>", page)
        self.assertNotIn('id="noise-std"', page)

    def test_residual_is_written_and_strength_belongs_to_the_run(self):
        values = np.random.default_rng(0).uniform(1e3, 5e3, (16, 16))
        values = values.astype(np.uint16)
        path, output = self.folder / "deep.tif", self.folder / "out.tif"
        tifffile.imwrite(path, values)
        params = (
            f"IMAGE = '{path}'",
            "corrupted_image.crop = None",
            "corrupted_image.noise_std = 0.0",
            "corrupted_image.strength = 0.5",
            "fit.epochs = 1",
            f"denoise.output = '{output}'",
        )
        printed = io.StringIO()
        correlated = residuals.Autocorrelation(0.4, 0.51, 1000)
        with (
            contextlib.redirect_stdout(printed),
            mock.patch.object(
                residuals, "autocorrelation", return_value=correlated
            ) as measured,
        ):
            summary = self._denoise(*params)
        self.assertIn("denoised at a strength of 0.5\n", printed.getvalue())
        self.assertRegex(
            printed.getvalue(), r"warning: .* 0.40 down and 0.51 across; "
        )
        self.assertIn(
            f"--known_noise_std={2.0 * summary['noise_std']:.4g}, a picture",
            printed.getvalue(),
        )
        self.assertEqual(summary["noise_autocorrelation"], [0.4, 0.51])
        figures = self.folder / "run/figures"
        residual = np.load(figures / "residual.npy")
        self.assertAllEqual(tifffile.imread(output) + residual, values)
        # The noise is measured at full strength.
        observed, estimate = measured.call_args.args
        self.assertAllClose(
            (observed - estimate)[..., 0] * 16383.0 / 255.0,
            2.0 * residual,
            atol=2.0,
        )
        shown = images.read_image(figures / "residual.png").values[..., 0]
        self.assertAllEqual(shown > 128, residual > residual.std() / 100.0)
        self.assertEqual(np.abs(shown - 127.5).max(), 127.5)
        with self.assertRaisesRegex(
            ValueError, "corrupted_image.strength was 0.5, is now 0.7"
        ):
            self._denoise(*params, "corrupted_image.strength = 0.7")

    def test_data_points_are_refused_with_the_tool_to_use(self):
        small.load_bars("fit.epochs = 1")
        with self.assertRaisesRegex(ValueError, "use `tfvae train`"):
            denoise(self.folder / "run")

    def test_output_is_checked_before_training(self):
        picture = np.full((16, 16, 2), 7, np.uint16)
        deep, flat = self.folder / "deep.tif", self.folder / "flat.png"
        tifffile.imwrite(
            deep, picture, photometric="minisblack", planarconfig="contig"
        )
        images.write_image(flat, np.eye(16))
        clear = self.folder / "clear.png"
        PIL.Image.fromarray(np.full((16, 16, 4), 9, np.uint8)).save(clear)
        for image, output, error, message in (
            (flat, "out.xyz", ValueError, "`output` must end in .png"),
            (flat, "gone/out.png", FileNotFoundError, "in an existing folder"),
            (flat, self.folder, ValueError, "`output` must end in .png"),
            (flat, "/proc/out.png", OSError, "`output` must be writable"),
            (flat, flat, ValueError, "must not be `image` unless `--overwr"),
            (deep, "out.png", ValueError, "in .tif or .npy, as .png can.*2 ch"),
            (deep, "out.jpg", ValueError, "in .tif or .npy.*dtype uint16"),
            (clear, "out.jpg", ValueError, "in .png or .tif,.*an alpha chan"),
            (clear, "out.npy", ValueError, "in .png or .tif,.*an alpha chan"),
        ):
            with self.assertRaisesRegex(error, message):
                self._denoise(
                    f"IMAGE = '{image}'",
                    "corrupted_image.crop = None",
                    "fit.epochs = 1",
                    f"denoise.output = '{output}'",
                )
        self.assertFalse((self.folder / "run/config.gin").exists())

    def test_jpeg_and_files_that_are_read_must_be_asked_for(self):
        path, output = self.folder / "picture.png", self.folder / "out.jpg"
        images.write_image(path, np.random.default_rng(0).random((16, 16)))
        before = path.read_bytes()
        params = (
            f"IMAGE = '{path}'",
            "corrupted_image.crop = None",
            "corrupted_image.noise_std = 0.0",
            "corrupted_image.missing_fraction = 0.1",
            "fit.epochs = 1",
        )
        to_jpeg = f"denoise.output = '{output}'"
        with self.assertRaisesRegex(ValueError, "not be JPEG.*`--lossy`"):
            self._denoise(*params, to_jpeg)
        self._denoise(*params, to_jpeg, "denoise.lossy = True")
        exact = self.folder / "run/figures/restored.png"
        self.assertAllClose(
            images.read_image(output).pixels,
            images.read_image(exact).pixels,
            atol=10.0,
        )
        to_itself = f"denoise.output = '{path}'"
        with self.assertRaisesRegex(ValueError, "must not be `image` unless"):
            self._denoise(*params, to_itself)
        self.assertEqual(path.read_bytes(), before)
        self._denoise(*params, to_itself, "denoise.overwrite = True")
        self.assertEqual(path.read_bytes(), exact.read_bytes())
        # Of an earlier version, that did not say what picture a run is of.
        (self.folder / "run/inputs.json").unlink()
        with self.assertRaisesRegex(
            ValueError, "earlier version; choose anoth"
        ):
            self._denoise(*params)

    @pytest.mark.slow  # A run; other outputs are tested by default.
    def test_finished_run_writes_its_picture_elsewhere(self):
        summary = self._denoise("fit.epochs = 1")
        output = self.folder / "out.png"
        page = self.folder / "run/report.html"
        first = page.read_text(encoding="utf-8")
        page.unlink()
        again = self._denoise("fit.epochs = 1", f"denoise.output = '{output}'")
        self.assertEqual(again, summary)
        # Pictures may differ by the rounding of figures/restored.png.
        second = page.read_text(encoding="utf-8")
        parts = [one.partition('id="summary"')[2] for one in (first, second)]
        self.assertEqual(*parts)
        before = page.stat().st_mtime_ns
        self._denoise("fit.epochs = 1")
        self.assertEqual(page.stat().st_mtime_ns, before)
        self.assertAllEqual(
            images.read_image(output).pixels,
            images.read_image(self.folder / "run/figures/restored.png").pixels,
        )

    def _write_inputs(self):
        """Writes a picture, a mask and a reference; returns parameters."""
        pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 4))
        pixels[..., 3] = 255
        self._pixels = pixels.astype(np.uint8)
        self._mask = np.zeros((16, 16), np.uint8)
        self._mask[4:6, 5:9] = 1
        PIL.Image.fromarray(self._pixels).save(self.folder / "in.png")
        PIL.Image.fromarray(self._pixels).save(self.folder / "clean.png")
        PIL.Image.fromarray(self._mask).save(self.folder / "mask.png")
        return (
            f"IMAGE = '{self.folder / 'in.png'}'",
            f"corrupted_image.clean = '{self.folder / 'clean.png'}'",
            f"corrupted_image.mask = '{self.folder / 'mask.png'}'",
            "corrupted_image.crop = None",
            "corrupted_image.noise_std = 0.0",
            "fit.epochs = 1",
        )

    def _change_inputs(self):
        """Changes one input at a time; yields what."""
        for name, at in (
            ("in.png", (0, 0, 0)),  # a value
            ("in.png", (0, 0, 3)),  # alpha only
            ("in.png", (4, 5, 1)),  # a value under the mask
            ("clean.png", (0, 0, 0)),
            ("mask.png", (0, 0)),
        ):
            path = self.folder / name
            before = path.read_bytes()
            array = self._mask if name == "mask.png" else self._pixels
            array = array.copy()
            array[at] ^= 1
            PIL.Image.fromarray(array).save(path)
            try:
                yield f"{name} at {at}"
            finally:
                path.write_bytes(before)

    def test_finished_run_answers_for_its_own_files_only(self):
        params = self._write_inputs()
        summary = self._denoise(*params)
        output = self.folder / "out.png"
        for what in self._change_inputs():
            with self.subTest(what):
                with self.assertRaisesRegex(
                    ValueError, "with other values than the run was started"
                ):
                    self._denoise(*params, f"denoise.output = '{output}'")
                self.assertFalse(output.exists())
        # Flags, also where checkpoints have been deleted to save space.
        shutil.rmtree(self.folder / "run/checkpoints")
        for flag in (
            "corrupted_image.stride = 2",
            "corrupted_image.value_range = (0, 300)",
            "corrupted_image.mask_grow = 1",
            "corrupted_image.keep_observed = False",
        ):
            with self.assertRaisesRegex(
                ValueError, "of the same config.*is now"
            ):
                self._denoise(*params, flag)
        again = self._denoise(*params, f"denoise.output = '{output}'")
        self.assertEqual(again, summary)
        self.assertTrue(output.exists())

    def test_interrupted_run_resumes_with_its_own_files_only(self):
        params = self._write_inputs()
        with mock.patch(
            "tfvae.runs.denoise._draw", side_effect=KeyboardInterrupt
        ):
            with self.assertRaises(KeyboardInterrupt):
                self._denoise(*params)
        self.assertFalse((self.folder / "run/report.html").exists())
        changes = self._change_inputs()
        for what in ("in.png at (0, 0, 0)", "in.png at (0, 0, 3)"):
            self.assertEqual(next(changes), what)
            with self.assertRaisesRegex(
                ValueError, "with other values than the run was started"
            ):
                self._denoise(*params)
        next(changes)
        changes.close()
        self._denoise(*params)

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
