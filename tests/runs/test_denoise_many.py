# SPDX-License-Identifier: Apache-2.0
"""Tests of stacks and folders, most of them with a restoration by hand."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
from unittest import mock

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tifffile
from absl.testing import parameterized

from tests.runs import small
from tfvae.data import images
from tfvae.runs import config, denoise_many, evaluate
from tfvae.runs.run_directory import RunDirectory

_RUN = "tfvae.runs.denoise_many.denoise"


def _random(shape, dtype=np.uint8, seed=0):
    high = min(np.iinfo(dtype).max, 4000)
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def _halved(run_dir):
    """Restores the configured picture as one of half its values."""
    restoration = config.evaluated("experiment.data")
    run = RunDirectory(run_dir)
    run.figures.mkdir(parents=True, exist_ok=True)
    values = restoration.source.values // 2
    restored = restoration.value_range.to_pixels(values)
    picture = restoration.picture(restored)
    images.write_values(run.figures / "restored.tif", picture)
    output = config.value("denoise.output")
    if output is not None:
        images.write_values(output, picture)
    run.write_json("task.json", {"description": restoration.describe()})
    summary = {"epochs": 1, "noise_std": 1.0}
    run.write_json("summary.json", summary)
    return summary


class DenoiseManyTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        self.output = self.folder / "out.tif"

    def _run(self, image, *params, restore=_halved, output=None, **settings):
        """Restores pictures; returns what is printed."""
        output = self.output if output is None else output
        configuration = small.pictures(
            image, f"denoise.output = {str(output)!r}", *params
        )
        printed = io.StringIO()
        with (
            contextlib.redirect_stdout(printed),
            mock.patch(_RUN, side_effect=restore) as self.calls,
        ):
            denoise_many.denoise_many(
                self.folder / "run", configuration, **settings
            )
        return printed.getvalue()

    def _stack(self, array, **settings):
        path = self.folder / "in.tif"
        settings = {"photometric": "minisblack"} | settings
        tifffile.imwrite(path, array, **settings)
        return path

    def _description(self, name):
        path = self.folder / "run" / name / "task.json"
        return json.loads(path.read_text())["description"]

    def test_pages_that_are_not_chosen_are_copied(self):
        array = _random((2, 3, 9, 8), np.uint16)
        axes = {"axes": "TZYX", "spacing": 2.5}
        path = self._stack(array, imagej=True, metadata=axes)
        printed = self._run(path, pages=[1, 4])
        self.assertStartsWith(
            printed,
            "in.tif: ImageJ stack of 2 x 3 pages (time x depth) of 9 x 8 "
            "pixels, uint16; 2 pages restored, 4 copied unchanged"
            "\n2 pictures, a model for each\n",
        )
        self.assertEndsWith(printed, "\n2 of 2 restored\n")
        expected = array.reshape(6, 9, 8).copy()
        expected[[1, 4]] //= 2
        for written in (self.output, self.folder / "run/restored.tif"):
            with tifffile.TiffFile(written) as file:
                self.assertEqual(file.series[0].axes, "TZYX")
                self.assertEqual(file.imagej_metadata["spacing"], 2.5)
                self.assertDTypeEqual(file.asarray(), np.uint16)
                self.assertAllEqual(file.asarray().reshape(6, 9, 8), expected)
        folders = [call.args[0].name for call in self.calls.mock_calls]
        self.assertEqual(folders, ["page_0001", "page_0004"])

    def test_pages_have_the_range_of_all_pages_of_their_channel(self):
        array = _random((3, 2, 9, 8), np.uint16) % 200
        array[2, 1, 0, 0] = 1000
        path = self._stack(array, imagej=True, metadata={"axes": "TCYX"})
        self._run(path)
        for page in range(6):
            line = self._description(f"page_{page:04d}")
            end = 1023 if page % 2 else 255
            self.assertIn(f"on a range of 0 to {end}", line)

    def test_noise_of_pages_is_drawn_anew(self):
        path = self._stack(np.full((2, 9, 8), 100, np.uint8))
        seen = []

        def restore(run_dir):
            seen.append(config.evaluated("experiment.data").image)
            return _halved(run_dir)

        self._run(path, "corrupted_image.noise_std = 9.0", restore=restore)
        self.assertNotAllClose(seen[0], seen[1])

    def test_channels_first_and_alone_come_out_as_they_were(self):
        array = _random((3, 9, 8))
        path, output = self.folder / "in.npy", self.folder / "out.npy"
        np.save(path, array)
        axes = "corrupted_image.axes = 'SYX'"
        printed = self._run(path, axes, output=output)
        self.assertIn("array of one page of 9 x 8 pixels", printed)
        self.assertIn("its 3 channels together", printed)
        self.assertAllEqual(np.load(output), array // 2)
        self.assertEqual(self.calls.call_count, 1)
        alone = "corrupted_image.channels = 'alone'"
        printed = self._run(path, axes, alone, output=output, pages=[2])
        self.assertIn("each channel alone", printed)
        array[2] //= 2
        self.assertAllEqual(np.load(output), array)

    def test_animation_keeps_its_durations(self):
        first, *others = map(PIL.Image.fromarray, _random((3, 9, 8)))
        path, output = self.folder / "in.gif", self.folder / "out.gif"
        first.save(
            path, save_all=True, append_images=others, duration=[50, 90, 40]
        )
        self._run(path, output=output)
        with PIL.Image.open(output) as picture:
            found = []
            for number in range(3):
                picture.seek(number)
                found.append(picture.info["duration"])
        self.assertEqual(found, [50, 90, 40])
        self.assertTrue((self.folder / "run/restored.png").exists())

    def test_mask_with_pages_is_that_of_each_page(self):
        masks = np.zeros((2, 9, 8), np.uint8)
        masks[0, 2, 3] = masks[1, 4:6, 5] = 1
        np.save(self.folder / "mask.npy", masks)
        path = self._stack(_random((2, 9, 8)))
        axes = "corrupted_image.axes = 'TYX'"
        mask = f"corrupted_image.mask = '{self.folder / 'mask.npy'}'"
        self._run(path, axes, mask)
        self.assertIn("1.39 % of the values", self._description("page_0000"))
        self.assertIn("2.78 % of the values", self._description("page_0001"))

    def test_interrupted_command_goes_on_with_the_next_page(self):
        path = self._stack(_random((3, 9, 8)))

        def interrupted(run_dir):
            if run_dir.name == "page_0001":
                raise KeyboardInterrupt
            return _halved(run_dir)

        with self.assertRaises(KeyboardInterrupt):
            self._run(path, restore=interrupted)
        self.assertFalse(self.output.exists())
        self._run(path)
        self.assertAllEqual(
            tifffile.imread(self.output), tifffile.imread(path) // 2
        )

    def test_page_that_fails_is_reported_and_copied(self):
        array = _random((3, 9, 8)).astype(np.float32)
        array[1] = np.nan
        path = self._stack(array)
        with self.assertRaisesRegex(
            RuntimeError,
            "^2 of 3 restored; failed: in.tif page 1: `image`.*only missing",
        ):
            self._run(path)
        found = tifffile.imread(self.output)
        self.assertAllEqual(np.isnan(found), np.isnan(array))
        self.assertAllClose(found[[0, 2]], array[[0, 2]] // 2, atol=1e-3)
        listed = json.loads((self.folder / "run/pictures.json").read_text())
        self.assertEqual(list(listed["failed"]), ["in.tif page 1"])
        self.assertLen(listed["pictures"], 2)

    def _photos(self):
        """Writes a folder of four pictures, one of them broken, and a text."""
        photos = self.folder / "photos"
        photos.mkdir()
        arrays = {
            "a.png": _random((9, 8)),
            "b.bmp": _random((7, 8, 3), seed=1),
            "stack.tif": _random((2, 8, 8), np.uint16),
        }
        for name in ("a.png", "b.bmp"):
            PIL.Image.fromarray(arrays[name]).save(photos / name)
        tifffile.imwrite(photos / "stack.tif", arrays["stack.tif"])
        (photos / "broken.png").write_bytes(b"no picture")
        (photos / "notes.txt").write_text("not a picture")
        return photos, arrays

    def test_folder_keeps_names_and_kinds_and_reports_what_is_broken(self):
        photos, arrays = self._photos()
        output = self.folder / "restored"
        with self.assertRaisesRegex(
            RuntimeError, "^4 of 5 restored; failed: broken.png: `image` must"
        ):
            self._run(photos, output=output)
        self.assertEqual(
            sorted(path.name for path in output.iterdir()), sorted(arrays)
        )
        for name, array in arrays.items():
            found = images.read_image(output / name).values
            if name == "stack.tif":
                found = tifffile.imread(output / name)
            self.assertDTypeEqual(found, array.dtype)
            self.assertAllEqual(found, array.reshape(found.shape) // 2)
        (photos / "broken.png").unlink()
        printed = self._run(photos, output=output)
        self.assertIn("1 other file left out", printed)
        self.assertEndsWith(printed, "4 of 4 restored\n")

    def test_file_that_its_ending_can_not_hold_gets_another_one(self):
        photos, output = self.folder / "photos", self.folder / "restored"
        photos.mkdir()
        colours = PIL.Image.fromarray(_random((9, 8, 3)))
        colours.quantize(8).save(photos / "a.gif")
        deep = _random((9, 8), np.uint16)
        (photos / "b.jp2").write_bytes(imagecodecs.jpeg2k_encode(deep, level=0))
        PIL.Image.fromarray(_random((9, 8))).save(photos / "c.gif")
        printed = self._run(photos, output=output)
        self.assertIn("a.gif becomes a.gif.png, as .gif can not hold", printed)
        self.assertEqual(
            sorted(path.name for path in output.iterdir()),
            ["a.gif.png", "b.jp2.png", "c.gif"],
        )
        found = images.read_image(output / "b.jp2.png").values
        self.assertDTypeEqual(found, np.uint16)

    def test_reasons_are_explained(self):
        photos, _ = self._photos()
        with self.assertRaisesRegex(RuntimeError, "broken.png: The image must"):
            self._run(
                photos,
                output=self.folder / "restored",
                explain=lambda text: text.replace("`image`", "The image"),
            )

    def test_folder_of_masks_has_files_of_the_same_names(self):
        photos, masks = self.folder / "photos", self.folder / "masks"
        for folder, names in ((photos, "ab"), (masks, "a")):
            folder.mkdir()
            for name in names:
                array = _random((9, 8))
                if folder == masks:
                    array = np.zeros((9, 8), np.uint8)
                    array[2, 2] = 255
                suffix = "bmp" if folder == masks else "png"
                PIL.Image.fromarray(array).save(folder / f"{name}.{suffix}")
        with self.assertRaisesRegex(
            RuntimeError, "1 of 2 restored; failed: b.png:.*masks/b.png"
        ):
            self._run(
                photos,
                f"corrupted_image.mask = '{masks}'",
                output=self.folder / "restored",
            )
        self.assertIn("1.39 % of the values are", self._description("a.png"))

    @parameterized.parameters(
        ({"pages": [4]}, "out.tif", "`--pages` must be from 0 to 3.*got 4"),
        (
            {},
            "out.jpg",
            "in .tif or .npy or .png, as .jpg can not hold sev",
        ),
        ({}, "out.exr", "as .exr can not hold values of dtype uint8"),
        ({}, "in.tif", "`output` must not be `image` unless"),
        ({"pages": [1], "joint": True}, "out.tif", "two pictures.*got 1"),
    )
    def test_wrong_demand_is_refused_before_any_work(
        self, settings, output, message
    ):
        path = self._stack(_random((4, 9, 8)))
        with self.assertRaisesRegex(ValueError, message):
            self._run(path, output=self.folder / output, **settings)
        self.calls.assert_not_called()

    def test_folder_without_images_and_output_without_folder_are_refused(self):
        empty = self.folder / "empty"
        empty.mkdir()
        with self.assertRaisesRegex(ValueError, "of images, got the folder"):
            self._run(empty)
        PIL.Image.new("L", (9, 9)).save(empty / "a.png")
        with self.assertRaisesRegex(ValueError, "`output` must be a folder"):
            self._run(empty, output=self.folder / "gone/out")
        with self.assertRaisesRegex(ValueError, "another folder than `image`"):
            self._run(empty, output=empty)
        self.calls.assert_not_called()

    def test_joint_model_of_other_channels_is_refused(self):
        photos, _ = self._photos()
        with self.assertRaisesRegex(
            ValueError, "same number of channels.*got 1 of a and 3 of b"
        ):
            self._run(photos, output=self.folder / "restored", joint=True)

    def test_run_folder_of_another_kind_is_refused(self):
        path = self._stack(_random((2, 9, 8)))
        self._run(path)
        small.load_picture("fit.epochs = 1")
        with self.assertRaisesRegex(ValueError, "restorations of several"):
            denoise_many.denoise(self.folder / "run")

    @parameterized.parameters(
        ("in.tif", True),
        ("folder", True),
        ("one.png", False),
        ("camera", False),
    )
    def test_what_has_pages_is_found_by_its_file(self, name, expected):
        self._stack(_random((2, 9, 8)))
        (self.folder / "folder").mkdir()
        PIL.Image.new("L", (9, 9)).save(self.folder / "one.png")
        path = name if name == "camera" else self.folder / name
        small.pictures(path).load(None)
        self.assertEqual(denoise_many.has_many(), expected)
        if expected and name == "in.tif":
            small.pictures(path, "corrupted_image.page = 1").load(None)
            self.assertFalse(denoise_many.has_many())

    def _train(self, path, *params, **settings):
        configuration = small.pictures(path, *params)
        with mock.patch("tfvae.runs.summaries.draw"):
            denoise_many.denoise_many(
                self.folder / "run", configuration, **settings
            )

    def _two_pages(self):
        """Writes a clean stack; returns it, its path and parameters."""
        clean = images.embedded_image("camera", crop=(90, 200, 16, 16))
        clean = np.stack([clean[..., 0], clean[::-1, :, 0]]).astype(np.uint8)
        params = (
            "corrupted_image.noise_std = 25.0",
            f"denoise.output = {str(self.output)!r}",
        )
        return clean, self._stack(clean), params

    def test_one_model_restores_all_pages(self):
        clean, path, params = self._two_pages()
        with self.assertRaisesRegex(ValueError, "`std_factor` must be pos"):
            self._train(path, *params, "denoise.std_factor = 0.0", joint=True)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self._train(path, *params, joint=True)
        run = RunDirectory(self.folder / "run")
        summary = run.read_summary()
        self.assertIn(
            f"noise: standard deviation {summary['noise_std']:.4g} (",
            printed.getvalue(),
        )
        each = summary["pictures"]
        self.assertEqual(list(each), ["in.tif page 0", "in.tif page 1"])
        self.assertAllClose(
            summary["psnr"], np.mean([one["psnr"] for one in each.values()])
        )
        for one in each.values():
            self.assertGreater(one["psnr"], one["corrupted_psnr"] - 3.0)
            self.assertEqual(one["noise_std"], summary["noise_std"])
        found = tifffile.imread(self.output)
        self.assertEqual(found.shape, clean.shape)
        for page in range(2):
            own = run.path / f"pictures/page_{page:04d}/figures/restored.png"
            picture = images.read_image(own)
            self.assertAllEqual(picture.values[..., 0], found[page])
        self.output.unlink()
        self._train(path, *params, joint=True)  # It is finished.
        self.assertAllEqual(tifffile.imread(self.output), found)
        tifffile.imwrite(path, clean ^ 1, photometric="minisblack")
        with self.assertRaisesRegex(ValueError, "with other values than the"):
            self._train(path, *params, joint=True)

    @pytest.mark.slow
    def test_one_model_of_all_resumes_and_is_evaluated(self):
        _, path, params = self._two_pages()
        params += ("fit.epochs = 2",)
        with mock.patch(
            "tfvae.runs.denoise_jointly.write_restored",
            side_effect=KeyboardInterrupt,
        ):
            with self.assertRaises(KeyboardInterrupt):
                self._train(path, *params, joint=True)
        run = RunDirectory(self.folder / "run")
        before = small.metrics(run.path)
        self._train(path, *params, joint=True)
        self.assertEqual(small.metrics(run.path), before)
        config.load_run(run.path, function="evaluate")
        found = evaluate.evaluate(run.path, num_points=4)
        self.assertAllClose(found["psnr"], run.read_summary()["psnr"])

    @pytest.mark.slow
    def test_killed_stack_and_folder_end_as_unbroken_ones(self):
        path = self._stack(_random((3, 16, 16)))
        to_output = f"denoise.output = {str(self.output)!r}"
        started = []

        def killed(*args, **kwargs):
            started.append(args)
            if len(started) == 2:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        original = denoise_many.denoise
        with mock.patch(_RUN, side_effect=killed):
            with self.assertRaises(KeyboardInterrupt):
                self._train(path, to_output)
        self._train(path, to_output)
        broken = tifffile.imread(self.output)
        (self.folder / "run").rename(self.folder / "broken")
        self._train(path, to_output)
        self.assertAllEqual(tifffile.imread(self.output), broken)
        # Of other values the run folder answers nothing.
        self._stack(_random((3, 16, 16), seed=1))
        with self.assertRaisesRegex(
            RuntimeError, "0 of 3 restored; failed: .*with other values"
        ):
            self._train(path, to_output)
        # More epochs go on from those there are.
        self._stack(_random((3, 16, 16)))
        self._train(path, to_output, "fit.epochs = 2")
        for page in range(3):
            rows = small.metrics(self.folder / f"run/page_{page:04d}")
            self.assertLen(rows, 2)


if __name__ == "__main__":
    tf.test.main()
