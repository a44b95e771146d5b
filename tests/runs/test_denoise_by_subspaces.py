# SPDX-License-Identifier: Apache-2.0
"""Tests of restorations by local subspaces, of pictures of 32 x 32 pixels."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests.runs import small
from tfvae.data import images
from tfvae.runs import config
from tfvae.runs.denoise import denoise
from tfvae.runs.denoise_many import Configuration, denoise_many

_PICTURE = (
    "IMAGE = 'camera'",
    "corrupted_image.crop = (90, 200, 32, 32)",
    "corrupted_image.noise_std = 25.0",
)
_FEW = ("LocalSubspaces.quality = 'fast'", "LocalSubspaces.radius = 6")


def _load(*params, picture=_PICTURE):
    given = {one.partition(" = ")[0]: one for one in (*picture, *_FEW, *params)}
    config.load(
        ["runs/denoise_subspaces.gin"], [*given.values()], function="denoise"
    )


class DenoiseBySubspacesTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)

    def _denoise(self, *params, name="run", picture=_PICTURE):
        _load(*params, picture=picture)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            summary = denoise(self.folder / name)
        self.out = out.getvalue()
        return summary

    def _file(self, values):
        path = self.folder / "picture.npy"
        np.save(path, values)
        return (f"IMAGE = {str(path)!r}",)

    def test_restores_and_reports_how_well(self):
        output = self.folder / "out.png"
        summary = self._denoise(f"denoise.output = {str(output)!r}")
        run = self.folder / "run"
        self.assertGreater(summary["psnr"], summary["corrupted_psnr"] + 4.0)
        self.assertEqual(summary["rounds"], 4)
        self.assertNotIn("epochs", summary)
        self.assertBetween(summary["noise_std"], 15.0, 35.0)
        self.assertBetween(summary["within_2_std"], 0.85, 1.0)
        self.assertEqual(
            {path.name for path in (run / "figures").iterdir()},
            {
                "residual.npy",
                "residual.png",
                "restoration.png",
                "restored.png",
                "restored_latest.png",
                "uncertainty.png",
            },
        )
        restored = images.read_image(run / "figures/restored.png").values
        for path in (output, run / "figures/restored_latest.png"):
            self.assertAllEqual(images.read_image(path).values, restored)
        self.assertEqual(np.load(run / "uncertainty.npy").shape, (32, 32))
        rows = small.metrics(run)
        self.assertEqual([row["round"] for row in rows], ["1", "2", "3", "4"])
        self.assertEqual(float(rows[-1]["psnr"]), summary["psnr"])
        page = (run / "report.html").read_text(encoding="utf-8")
        self.assertIn(f"{summary['psnr']:.2f} dB", page)
        self.assertIn("4 rounds", page)
        self.assertNotIn("not used", self.out)
        # Once more: nothing is computed again.
        again = self.folder / "again.png"
        self._denoise(f"denoise.output = {str(again)!r}")
        self.assertIn("already finished", self.out)
        self.assertEqual(again.read_bytes(), output.read_bytes())

    def test_resumed_run_restores_the_same_picture(self):
        self._denoise(name="unbroken")

        def broken(*arguments, rounds=[]):  # noqa: B006 (counts the calls)
            rounds.append(arguments)
            if len(rounds) == 3:
                raise KeyboardInterrupt
            return write(*arguments)

        write = images.write_image
        with self.subTest("killed"), self.assertRaises(KeyboardInterrupt):
            images.write_image = lambda *a, **k: broken(*a)
            try:
                self._denoise(name="broken")
            finally:
                images.write_image = write
        self._denoise(name="broken")
        self.assertIn("resuming after round 3", self.out)
        self.assertEqual(
            small.metrics(self.folder / "broken"),
            small.metrics(self.folder / "unbroken"),
        )
        for file in ("figures/restored.png", "uncertainty.npy"):
            one, two = (
                (self.folder / name / file).read_bytes()
                for name in ("unbroken", "broken")
            )
            self.assertEqual(one, two)

    def test_damaged_rounds_are_made_anew(self):
        summary = self._denoise()
        run = self.folder / "run"
        (run / "summary.json").unlink()
        (run / "checkpoints/round-000004.npz").write_bytes(b"PK")
        self.assertEqual(self._denoise()["psnr"], summary["psnr"])
        self.assertIn("is damaged", self.out)

    def test_another_configuration_in_the_folder_is_refused(self):
        self._denoise()
        with self.assertRaisesRegex(ValueError, "LocalSubspaces.radius"):
            self._denoise("LocalSubspaces.radius = 7")
        small.load_picture("denoise.export = False", "fit.epochs = 1")
        with self.assertRaisesRegex(ValueError, "run_dir|folder"):
            denoise(self.folder / "run")

    def test_noise_that_is_given_is_not_estimated(self):
        picture = (*_PICTURE, "GaussianNoise.std = 25.0")
        summary = self._denoise(
            "corrupted_image.noise = @GaussianNoise()", picture=picture
        )
        self.assertNotIn("noise_std", summary)
        self.assertIn("25, as given", summary["noise"])

    def test_counts_are_restored_in_their_transform(self):
        rng = np.random.default_rng(0)
        rates = 20.0 + 60.0 * (np.arange(40) > 19) * np.ones((40, 1))
        picture = self._file(rng.poisson(rates).astype(np.float32))
        self._denoise(
            "corrupted_image.noise = @PoissonGaussianNoise()",
            "PoissonGaussianNoise.gain = 1.0",
            "PoissonGaussianNoise.read_noise_std = 0.0",
            picture=picture,
        )
        found = images.read_image(
            self.folder / "run/figures/restored.tif"
        ).values[..., 0]
        self.assertAllClose(found.mean(), rates.mean(), rtol=0.02)
        self.assertLess(np.mean((found - rates) ** 2), 0.15 * rates.mean())

    def test_strength_and_colours(self):
        rng = np.random.default_rng(0)
        values = rng.integers(90, 110, (24, 26, 3)).astype(np.uint8)
        path = self.folder / "colours.png"
        images.write_image(path, values)
        self._denoise(
            "corrupted_image.strength = 0.0",
            picture=(f"IMAGE = {str(path)!r}",),
        )
        found = images.read_image(self.folder / "run/figures/restored.png")
        self.assertAllEqual(found.values, values)
        self.assertAllEqual(
            np.load(self.folder / "run/uncertainty.npy"), 0 * values
        )

    def test_missing_values_are_filled_in_and_others_stay(self):
        given = (
            "IMAGE = 'camera'",
            _PICTURE[1],
            "LocalSubspaces.num_rounds = 5",
        )
        missing = "corrupted_image.missing_fraction = 0.4"
        summary = self._denoise(missing, picture=given)
        self.assertGreater(summary["psnr"], 24.0)
        # Of the missing values alone, whose errors others have shown.
        self.assertBetween(summary["within_2_std"], 0.85, 0.99)
        run = self.folder / "run"
        found = images.read_image(run / "figures/restored.png").values
        clean = images.embedded_image("camera")[90:122, 200:232]
        std = np.load(run / "uncertainty.npy")
        is_kept = found == clean
        self.assertBetween(np.mean(std == 0.0), 0.5, 0.7)
        self.assertTrue(is_kept[..., 0][std == 0.0].all())
        # It goes on where it has ended.
        (run / "summary.json").unlink()
        self.assertEqual(
            self._denoise(missing, picture=given)["psnr"], summary["psnr"]
        )
        self.assertIn("resuming after round 5", self.out)

    def test_what_can_not_be_restored_is_refused(self):
        values = np.full((30, 30), 100.0, np.float32)
        values[3, 4] = np.nan
        with self.assertRaisesRegex(
            ValueError, "must be complete.*--method=tvae"
        ):
            self._denoise(picture=self._file(values))
        with self.assertRaisesRegex(ValueError, "at least 2 x 2 .*got 1 x 9"):
            self._denoise(picture=self._file(np.ones((1, 9), np.float32)))
        with self.assertRaisesRegex(ValueError, "`--known_noise_std` gives it"):
            self._denoise(picture=self._file(np.ones((9, 9), np.float32)))
        with self.assertRaisesRegex(
            ValueError, "`by_likelihood` must be False"
        ):
            self._denoise(
                "corrupted_image.noise = @PoissonGaussianNoise()",
                "PoissonGaussianNoise.gain = 1.0",
                "PoissonGaussianNoise.read_noise_std = 0.0",
                "PoissonGaussianNoise.by_likelihood = True",
                picture=self._file(np.ones((30, 30), np.float32)),
            )

    def test_a_constant_picture_stays_as_it_is(self):
        self._denoise(picture=self._file(np.full((30, 30), 7.0, np.float32)))
        found = images.read_image(self.folder / "run/figures/restored.tif")
        self.assertAllClose(found.values, np.full((30, 30, 1), 7.0), atol=1e-3)

    def test_pictures_of_a_folder_are_restored_each_by_itself(self):
        source = self.folder / "in"
        source.mkdir()
        rng = np.random.default_rng(0)
        for name in ("a", "b"):
            images.write_image(
                source / f"{name}.png", rng.normal(100.0, 10.0, (20, 20, 1))
            )
        configuration = Configuration(
            ["runs/denoise_subspaces.gin"], [f"IMAGE = {str(source)!r}", *_FEW]
        )
        denoise_many(self.folder / "run", configuration)
        content = json.loads((self.folder / "run/pictures.json").read_text())
        self.assertEqual([*content["pictures"]], ["a.png", "b.png"])
        with self.assertRaisesRegex(ValueError, "`joint` needs a model"):
            denoise_many(self.folder / "joint", configuration, joint=True)


if __name__ == "__main__":
    tf.test.main()
