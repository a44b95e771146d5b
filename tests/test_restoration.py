# SPDX-License-Identifier: Apache-2.0
"""Tests of corruption, patches, merging and scores of one image."""

from __future__ import annotations

import math
import os
import re
from unittest import mock

import numpy as np
import PIL.Image
import skimage.metrics
import tensorflow as tf
from absl.testing import parameterized

from tests import rank_threads
from tfvae import restoration
from tfvae.data import images
from tfvae.ops import patches, rows
from tfvae.ranks import ONE_PROCESS


def _picture(shape=(12, 14, 1), seed=0):
    return np.random.default_rng(seed).uniform(0, 255, shape)


def _eight_bits(shape=(12, 14, 1)):
    return np.rint(_picture(shape)).astype(np.uint8)


class RestorationTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.product(
        channels=(1, 3), stride=(1, 2, 3), merge_method=patches.MERGE_METHODS
    )
    def test_perfect_estimates_give_the_clean_image(
        self, channels, stride, merge_method
    ):
        clean = _picture((11, 13, channels))
        task = restoration.corrupted_image(
            clean,
            noise_std=50.0,
            patch=(4, 5),
            stride=stride,
            merge_method=merge_method,
        )
        estimates = patches.extract_patches(clean, (4, 5), stride)
        restored = task.restore(estimates)
        self.assertAllClose(restored, clean, rtol=1e-6, atol=1e-4)
        self.assertGreater(task.score(restored)["psnr"], 120.0)

    @parameterized.parameters(1.0, 1 / 255, 10.0)
    def test_scale_applies_to_patches_and_is_undone(self, scale):
        task = restoration.corrupted_image(_picture(), scale=scale)
        data = task.observations()
        expected = patches.extract_patches(task.image, (8, 8)) * scale
        self.assertAllClose(data.train, expected, rtol=1e-6)
        self.assertAllClose(data.value_range, (0.0, 255.0 * scale))
        self.assertEqual(data.event_shape, (8, 8, 1))
        self.assertAllClose(task.merge(data.train), task.image, rtol=1e-6)

    @parameterized.parameters(0.0, 0.25, 1.0)
    def test_strength_goes_from_the_observed_picture_to_the_estimate(self, s):
        observed = np.full((9, 9, 1), 80.0)
        observed[2, 3] = np.nan
        task = restoration.corrupted_image(observed, patch=(3, 3), strength=s)
        estimates = np.full(task.observations().train.shape, 40.0)
        restored = task.restore(estimates)
        expected = np.full((9, 9, 1), 80.0 - s * 40.0)
        expected[2, 3] = 40.0  # There is nothing else to go by.
        self.assertAllClose(restored, expected)
        residual = np.where(np.isnan(observed), np.nan, s * 40.0)
        self.assertAllClose(task.residual(restored), residual)

    def test_no_strength_leaves_integers_as_they_are(self):
        observed = _eight_bits((12, 14, 3)).astype(np.int32) * 12345671
        task = restoration.corrupted_image(observed, strength=0.0)
        restored = task.restore(np.zeros(task.observations().train.shape))
        self.assertAllEqual(task.picture(restored).values, observed)
        self.assertAllEqual(task.residual(restored), np.zeros((12, 14, 3)))
        self.assertIn("denoised at a strength of 0", task.describe())

    @parameterized.parameters(-0.1, 1.1, math.nan)
    def test_strength_beyond_its_ends_is_refused(self, strength):
        with self.assertRaisesRegex(ValueError, "`strength` must be from 0 to"):
            restoration.corrupted_image(_picture(), strength=strength)

    def test_strength_that_would_not_act_is_refused(self):
        mask = np.eye(12, 14)
        with self.assertRaisesRegex(
            ValueError, "`strength` must be 1 where .*`--denoise`.* got 0.5"
        ):
            restoration.corrupted_image(_picture(), mask=mask, strength=0.5)
        task = restoration.corrupted_image(
            _picture(), mask=mask, strength=0.5, keep_observed=False
        )
        self.assertEqual(task.strength, 0.5)

    @parameterized.parameters(np.uint8, np.uint16, np.int16, np.int32, float)
    def test_residual_and_written_picture_add_up_to_the_observed(self, dtype):
        observed = (_picture() * 20.0 - 1000.0).astype(dtype)
        task = restoration.corrupted_image(observed)
        x = task.observations().train
        restored = task.restore(np.full_like(x, 100.0))
        residual = task.residual(restored)
        total = task.picture(restored).values + residual
        if dtype is float:
            self.assertAllClose(total, observed, rtol=1e-14)
        else:
            self.assertAllEqual(total, observed)
        wide = dtype in (np.int32, float)
        self.assertDTypeEqual(residual, np.float64 if wide else np.float32)

    @parameterized.product(
        method=("mean", "gaussian", "median"), is_missing=(False, True)
    )
    def test_ranks_merge_their_patches_as_one_process_does(
        self, method, is_missing
    ):
        image = _picture((9, 11, 1)).astype(np.float32)
        if is_missing:
            image[:5, 2:8] = np.nan  # No patch of 4 pixels there is informed.
        source = restoration.Restoration(
            image, patch=(4, 4), merge_method=method
        )
        rng = np.random.default_rng(0)
        means = rng.normal(120.0, 9.0, (source.num_patches, 16))
        variances = rng.uniform(1.0, 3.0, means.shape)

        def merged(ranks):
            mine = ranks.rows(len(means))
            parts = [means[mine][:5], means[mine][5:]]
            moments = [(means[mine], variances[mine])]
            return (
                source.merge(parts, ranks),
                *source.merge_moments(moments, ranks),
            )

        expected = merged(ONE_PROCESS)
        for found in rank_threads.run(3, merged):
            self.assertAllClose(found, expected, rtol=1e-6)

    def test_clipping_happens_in_restore_but_not_in_merge(self):
        task = restoration.Restoration(_picture())
        estimates = np.full(task.observations().train.shape, 300.0)
        estimates[0] = -100.0
        merged, restored = task.merge(estimates), task.restore(estimates)
        self.assertEqual(merged.max(), 300.0)
        self.assertEqual(merged[0, 0, 0], -100.0)
        self.assertAllEqual(restored, np.clip(merged, 0.0, 255.0))

    def test_kept_entries_are_those_of_the_image(self):
        clean = _picture((12, 12, 3))
        task = restoration.corrupted_image(
            clean, missing_fraction=0.5, patch=(5, 5)
        )
        self.assertTrue(task.keep_observed)
        restored = task.restore(np.zeros(task.observations().train.shape))
        missing = np.isnan(task.image)
        self.assertAllEqual(restored[missing], np.zeros(missing.sum()))
        self.assertAllClose(restored[~missing], clean[~missing], rtol=1e-6)

    def test_entirely_missing_patches_are_left_out_yet_filled_in(self):
        image = np.full((9, 9, 1), 80.0)
        image[2:5, 2:5] = np.nan  # exactly one 3 x 3 patch sees nothing
        task = restoration.Restoration(image, patch=(3, 3), keep_observed=True)
        data = task.observations()
        self.assertEqual(data.num_data, 7 * 7 - 1)
        restored = task.restore(np.full(data.train.shape, 50.0))
        self.assertAllEqual(restored == 50.0, np.isnan(image))
        self.assertAllEqual(restored == 80.0, ~np.isnan(image))

    def test_holes_out_of_reach_are_refused_before_any_work(self):
        image = np.full((15, 15, 1), 80.0)
        image[4:10, 4:10] = np.nan
        # Patches of side 3 reach two pixels into the hole of side six.
        with self.assertRaisesRegex(
            ValueError, r"`patch` must be large enough.*\(3, 3\) and 4 pixels"
        ):
            restoration.Restoration(image, patch=(3, 3))
        restoration.Restoration(image, patch=(4, 4))

    @parameterized.product(stride=(1, 2, 3), seed=(0, 1, 2, 3))
    def test_patch_that_an_error_suggests_reaches_all_holes(self, stride, seed):
        image = np.full((41, 43, 1), 80.0)
        top, left, side = np.random.default_rng(seed).integers(5, 14, 3)
        image[top : top + 12, left : left + 7 + side] = np.nan
        settings = {"stride": stride}
        with self.assertRaisesRegex(ValueError, "`--patch=[0-9]+` would") as e:
            restoration.Restoration(image, patch=(3, 3), **settings)
        found = int(re.search(r"--patch=(\d+)", str(e.exception))[1])
        restoration.Restoration(image, patch=(found, found), **settings)
        if stride == 1:  # The least.
            with self.assertRaisesRegex(ValueError, "out of reach"):
                restoration.Restoration(image, patch=(found - 1, found - 1))

    def test_mostly_missing_picture_asks_whether_the_mask_is_inverted(self):
        mask = np.ones((20, 20))
        mask[4:10, 4:8] = 0
        with self.assertRaisesRegex(
            ValueError, "94 % of the picture is missing: is the mask inverted"
        ):
            restoration.corrupted_image(
                _picture((20, 20, 1)), mask=mask, patch=(4, 4)
            )
        mask[:15] = 0
        task = restoration.corrupted_image(
            _picture((20, 20, 1)), mask=1 - mask, patch=(16, 16)
        )
        self.assertEqual(
            task.describe().splitlines()[-1],
            "75 % of the picture is missing: is the mask inverted "
            "(`--mask_invert`)?",
        )
        task = restoration.corrupted_image(
            _picture((20, 20, 1)), mask=1 - mask, mask_invert=True
        )
        self.assertNotIn("inverted", task.describe())
        self.assertAllClose(task.missing_fraction, 0.25)

    def test_entries_are_missing_per_channel(self):
        image = np.full((9, 9, 3), 80.0)
        image[..., 1] = np.nan
        task = restoration.Restoration(image, patch=(3, 3), keep_observed=True)
        self.assertAllClose(task.missing_fraction, 1 / 3)
        self.assertEqual(task.observations().num_data, 49)
        restored = task.restore(np.full((49, 27), 7.0))
        self.assertAllEqual(restored[0, 0], [80.0, 7.0, 80.0])

    @parameterized.named_parameters(
        ("few", (34, 64), np.float32, r"shape \(35, 64\), got shape \(34, 64"),
        ("narrow", (35, 63), np.float32, r"shape \(35, 64\)"),
    )
    def test_refuses_estimates(self, shape, dtype, message):
        task = restoration.Restoration(_picture())
        with self.assertRaisesRegex(ValueError, message):
            task.merge(np.zeros(shape, dtype))

    def test_refuses_estimates_that_are_not_finite(self):
        task = restoration.Restoration(_picture())
        with self.assertRaisesRegex(ValueError, "`estimates` must be finite"):
            task.merge(np.full((35, 64), np.nan))

    @parameterized.named_parameters(
        ("rank", {"image": np.zeros(5)}, ValueError, r"`image` must have sha"),
        (
            "text",
            {"image": np.array([["a"]])},
            TypeError,
            "`image` must be num",
        ),
        (
            "infinite",
            {"image": np.full((9, 9), np.inf)},
            ValueError,
            "infinite",
        ),
        (
            "missing",
            {"image": np.full((9, 9), np.nan)},
            ValueError,
            "only missing",
        ),
        ("clean", {"clean": np.zeros((9, 8))}, ValueError, r"`clean` must be"),
        ("holes", {"clean": np.full((9, 9), np.nan)}, ValueError, "`clean`"),
        ("patch", {"patch": (10, 3)}, ValueError, "`patch` must not exceed"),
        ("tuple", {"patch": (3, 3, 3)}, ValueError, r"`patch` must be \(heig"),
        ("stride", {"stride": 0}, ValueError, "`stride` must be at least 1"),
        ("gaps", {"stride": 9}, ValueError, "`stride` must not exceed"),
        ("merge", {"merge_method": "max"}, ValueError, "`merge_method`.*'max'"),
        ("scale", {"scale": 0.0}, ValueError, "`scale` must be positive"),
    )
    def test_refuses(self, arguments, error, message):
        with self.assertRaisesRegex(error, message):
            restoration.Restoration(**{"image": np.zeros((9, 9)), **arguments})


class ScoreTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(((40, 30, 1),), ((40, 30, 3),))
    def test_equals_scikit_image(self, shape):
        clean = _eight_bits(shape)
        task = restoration.corrupted_image(clean, noise_std=20.0)
        image = np.clip(task.image, 0, 255).astype(np.float64)
        clean = task.clean.astype(np.float64)
        score = task.score(task.image)
        expected = skimage.metrics.peak_signal_noise_ratio(
            clean, image, data_range=255
        )
        self.assertAllClose(score["psnr"], expected, rtol=1e-9)
        expected = skimage.metrics.structural_similarity(
            clean, image, data_range=255, channel_axis=-1
        )
        self.assertAllClose(score["ssim"], expected, rtol=1e-9)

    def test_uniform_error_has_known_psnr(self):
        task = restoration.Restoration(
            np.zeros((9, 9)), clean=np.full((9, 9), 100.0)
        )
        score = task.score(np.full((9, 9, 1), 105.1))
        self.assertAllClose(score["psnr"], 20 * math.log10(50), rtol=1e-5)

    def test_same_image_is_perfect(self):
        task = restoration.Restoration(_picture(), clean=_picture())
        score = task.score(task.clean)
        self.assertEqual(score["psnr"], math.inf)
        self.assertAllClose(score["ssim"], 1.0)

    def test_corrupted_score_is_not_clipped(self):
        black = np.zeros((200, 200, 1), np.uint8)
        task = restoration.corrupted_image(black, noise_std=25.0)
        expected = 20 * math.log10(255 / 25)
        # The mean of 40000 squared normals is within 5 sqrt(2 / 4e4) = 3.5 %,
        # that is 0.15 dB. Clipping removes the negative half of the noise.
        psnr = task.corrupted_score()["psnr"]
        self.assertAllClose(psnr, expected, atol=0.15)
        clipped = task.score(task.image)["psnr"]
        self.assertAllClose(clipped, expected + 10 * math.log10(2), atol=0.2)

    def test_ssim_of_tiny_images_is_not_defined(self):
        task = restoration.Restoration(
            np.zeros((5, 9)), clean=np.ones((5, 9)), patch=(2, 2)
        )
        self.assertTrue(math.isnan(task.score(task.image)["ssim"]))

    def test_needs_clean_image(self):
        task = restoration.Restoration(_picture())
        self.assertIsNone(task.corrupted_score())
        with self.assertRaisesRegex(RuntimeError, "`clean` must be set"):
            task.score(task.image)

    def test_refuses_other_shapes_and_missing_entries(self):
        task = restoration.Restoration(_picture(), clean=_picture())
        with self.assertRaisesRegex(ValueError, r"\(12, 14, 1\), got.*\(3, 3"):
            task.score(np.zeros((3, 3, 1)))
        with self.assertRaisesRegex(ValueError, "with 168 missing entries"):
            task.score(np.full((12, 14, 1), np.nan))


class CorruptedImageTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path

    def _write(self, name, image):
        path = os.path.join(self.folder, name)
        images.write_image(path, image)
        return path

    def test_noise_on_a_region_of_an_embedded_picture(self):
        task = restoration.corrupted_image(
            "camera", noise_std=25.0, crop=(100, 200, 64, 32), seed=3
        )
        expected = images.embedded_image("camera", crop=(100, 200, 64, 32))
        self.assertAllEqual(task.clean, expected)
        self.assertAllEqual(task.image, images.add_noise(expected, 25.0, 3))
        self.assertEqual(task.name, "camera")
        self.assertFalse(task.keep_observed)

    def test_noisy_file_without_reference(self):
        path = self._write("noisy.png", np.rint(_picture()))
        task = restoration.corrupted_image(path)
        self.assertIsNone(task.clean)
        self.assertAllEqual(task.image, np.rint(_picture()))
        self.assertEqual(task.name, "noisy")

    def test_reference_from_another_file(self):
        noisy, clean = np.rint(_picture()), np.rint(_picture(seed=1))
        task = restoration.corrupted_image(
            self._write("a.png", noisy), clean=self._write("b.png", clean)
        )
        self.assertAllEqual(task.clean, clean)

    def test_missing_entries_of_the_image_are_kept_and_leave_no_reference(self):
        image = _picture()
        image[3, 4] = np.nan
        task = restoration.corrupted_image(
            self._write("a.npy", image), missing_fraction=0.2
        )
        self.assertIsNone(task.clean)
        self.assertTrue(np.isnan(task.image[3, 4]).all())
        self.assertTrue(task.keep_observed)

    @parameterized.parameters(True, False)
    def test_mask_hides_entries_also_from_the_reference(self, from_file):
        image = np.rint(_picture((12, 14, 3)))
        missing = np.zeros((12, 14, 1), bool)
        missing[2:4, 5:9] = True
        mask = self._write("m.png", missing * 255.0) if from_file else missing
        task = restoration.corrupted_image(image, mask=mask)
        expected = np.broadcast_to(missing, image.shape)
        self.assertAllEqual(np.isnan(task.image), expected)
        self.assertIsNone(task.clean)
        self.assertTrue(task.keep_observed)
        task = restoration.corrupted_image(image, mask=mask, clean=image)
        self.assertAllEqual(task.clean, image)

    @parameterized.named_parameters(
        ("complete", False, {}, "all values are denoised"),
        ("nan", True, {}, "0.595 % .* filled in; the others are denoised"),
        ("mask", False, {"mask": True}, "the others stay exactly as they are"),
        ("both", True, {"mask": True}, "the others stay exactly as they are"),
        (
            "mask_and_denoise",
            False,
            {"mask": True, "keep_observed": False},
            "the others are denoised",
        ),
        (
            "nan_and_keep",
            True,
            {"keep_observed": True},
            "the others stay exactly as they are",
        ),
        (
            "dropped",
            False,
            {"missing_fraction": 0.1},
            "the others stay exactly as they are",
        ),
        (
            "dropped_and_noisy",
            False,
            {"missing_fraction": 0.1, "noise_std": 5.0},
            "the others are denoised",
        ),
    )
    def test_observed_values_stay_only_where_it_is_said_what_is_missing(
        self, has_nan, arguments, line
    ):
        image = _picture().astype(np.float32)
        if has_nan:
            image[3, 4] = np.nan
        if "mask" in arguments:
            mask = np.zeros((12, 14))
            mask[5, 6] = 1
            arguments = {**arguments, "mask": mask}
        task = restoration.corrupted_image(image, patch=(4, 4), **arguments)
        self.assertRegex(task.describe().splitlines()[-1], line + "$")
        points = task.observations().train
        picture = task.picture(task.restore(np.full(points.shape, 7.0)))
        observed = ~np.isnan(task.image)
        is_same = picture.values[observed] == image[observed]
        self.assertAllEqual(is_same, np.full(is_same.shape, "stay" in line))
        self.assertFalse(np.isnan(picture.values).any())

    def test_kept_values_are_the_same_bits_in_any_units(self):
        image = _picture().astype(np.float32) * np.float32(1e7 / 3.0) - 1e8
        task = restoration.corrupted_image(image, missing_fraction=0.2)
        points = task.observations().train
        picture = task.picture(task.restore(np.zeros(points.shape)))
        observed = ~np.isnan(task.image)
        self.assertAllEqual(
            picture.values[observed].view(np.uint32),
            image[observed].view(np.uint32),
        )

    def test_transparent_parts_may_be_the_mask_and_become_opaque(self):
        pixels = np.full((12, 14, 4), 255, np.uint8)
        pixels[..., :3] = _eight_bits((12, 14, 3))
        pixels[4:6, 5:9, 3] = 0
        pixels[7, 7, 3] = 10
        path = os.path.join(self.folder, "holes.png")
        PIL.Image.fromarray(pixels).save(path)
        task = restoration.corrupted_image(path, mask="alpha")
        expected = np.broadcast_to(pixels[..., 3:] == 0, (12, 14, 3))
        self.assertAllEqual(np.isnan(task.image), expected)
        points = task.observations().train
        picture = task.picture(task.restore(np.full(points.shape, 7.0)))
        self.assertAllEqual(picture.values[4:6, 5:9], np.full((2, 4, 3), 7))
        self.assertAllEqual(
            picture.alpha, np.where(pixels[..., 3] == 10, 10, 255)
        )
        task = restoration.corrupted_image(
            path, mask="alpha", mask_threshold=10
        )
        self.assertAllEqual(np.isnan(task.image[..., 0]), pixels[..., 3] <= 10)
        with self.assertRaisesRegex(ValueError, "'alpha' for an image without"):
            restoration.corrupted_image("camera", mask="alpha")

    def test_mask_is_cropped_with_the_image(self):
        mask = np.zeros((12, 14))
        mask[5, 6] = 1
        task = restoration.corrupted_image(
            _picture(), mask=mask, crop=(4, 4, 8, 8)
        )
        self.assertTrue(np.isnan(task.image[1, 2, 0]))
        self.assertEqual(np.isnan(task.image).sum(), 1)

    def test_noise_is_the_same_whatever_is_dropped(self):
        both = restoration.corrupted_image(
            _picture(), noise_std=9.0, missing_fraction=0.3
        )
        noisy = restoration.corrupted_image(_picture(), noise_std=9.0)
        observed = ~np.isnan(both.image)
        self.assertAllEqual(both.image[observed], noisy.image[observed])
        self.assertFalse(both.keep_observed)
        self.assertAllEqual(both.clean, noisy.clean)

    def test_seed_decides_the_corruption(self):
        first, again, other = (
            restoration.corrupted_image(
                _picture(), missing_fraction=0.3, seed=seed
            ).image
            for seed in (0, 0, 1)
        )
        self.assertAllEqual(np.isnan(first), np.isnan(again))
        self.assertNotAllEqual(np.isnan(first), np.isnan(other))

    def test_16_bit_image_keeps_its_depth(self):
        image = np.arange(65536).reshape(256, 256, 1) / 257.0
        path = os.path.join(self.folder, "deep.png")
        images.write_image(path, image, bits=16)
        task = restoration.corrupted_image(path, noise_std=257.0)
        self.assertAllClose(task.clean, image, rtol=1e-6, atol=1e-6)
        self.assertDTypeEqual(task.picture(task.clean).values, np.uint16)
        # Values that 8 bits hold make a file of 16 bits no flatter one.
        images.write_image(path, np.rint(image), bits=16)
        task = restoration.corrupted_image(path)
        self.assertDTypeEqual(task.picture(task.image).values, np.uint16)

    def test_8_bit_image_with_transparency_keeps_its_depth_and_alpha(self):
        pixels = np.full((12, 14, 4), 100, np.uint8)
        pixels[..., 3] = np.arange(14)
        path = os.path.join(self.folder, "clear.png")
        PIL.Image.fromarray(pixels, mode="RGBA").save(path)
        task = restoration.corrupted_image(path, noise_std=1.0)
        self.assertAllEqual(task.clean, np.full((12, 14, 3), 100.0))
        picture = task.picture(task.clean)
        self.assertAllEqual(picture.values, pixels[..., :3])
        self.assertDTypeEqual(picture.values, np.uint8)
        self.assertAllEqual(picture.alpha, pixels[..., 3])

    @parameterized.parameters(
        ("camera", np.uint8), (np.ones((12, 14)), np.float64)
    )
    def test_dtype_is_that_of_the_picture(self, image, dtype):
        task = restoration.corrupted_image(image, noise_std=1.0, stride=4)
        self.assertDTypeEqual(task.picture(task.clean).values, dtype)

    @parameterized.named_parameters(
        ("bytes", np.uint8, 3, 200, (0, 255)),
        ("dark_words", np.uint16, 3, 200, (0, 255)),
        ("10_bits", np.uint16, 3, 1000, (0, 1023)),
        ("12_bits", np.uint16, 3, 4093, (0, 4095)),
        ("14_bits", np.uint16, 3, 4096, (0, 16383)),
        ("16_bits", np.uint16, 3, 60000, (0, 65535)),
        ("positive_integers", np.int16, 3, 4093, (0, 4095)),
        ("hounsfield", np.int16, -1024, 3071, (-1024, 3071)),
        ("signed", np.int8, -100, 50, (-100, 50)),
        ("large", np.int32, -70000, 90000, (-70000, 90000)),
        ("unsigned", np.uint32, 5, 90000, (5, 90000)),
        ("half", np.float16, -2.5, 7.5, (-2.5, 7.5)),
        ("unit", np.float32, 0.01, 0.99, (0, 1)),
        ("as_bytes", np.float32, 0.5, 254.5, (0, 255)),
        ("ct", np.float32, -1319, 5132, (-1319, 5132)),
        ("double", np.float64, 1e6, 1e6 + 1, (1e6, 1e6 + 1)),
    )
    def test_range_is_found_and_undone(self, dtype, low, high, expected):
        values = np.linspace(low, high, 12 * 14).reshape(12, 14, 1)
        values = values.astype(dtype)
        task = restoration.corrupted_image(values)
        self.assertEqual(task.value_range, expected)
        self.assertBetween(task.image.min(), 0.0, 1e-3 + task.image.max())
        self.assertLessEqual(task.image.max(), 255.0 + 1e-3)
        estimates = patches.extract_patches(task.image, (8, 8))
        picture = task.picture(task.restore(estimates))
        self.assertDTypeEqual(picture.values, dtype)
        tolerance = 1e-6 * (expected[1] - expected[0])
        if np.dtype(dtype).kind == "f":
            tolerance += float(np.spacing(np.asarray(high, dtype)))
        self.assertAllClose(
            picture.values.astype(np.float64),
            values.astype(np.float64),
            rtol=0.0,
            atol=tolerance,
        )

    def test_range_may_be_given_and_psnr_refers_to_it(self):
        values = np.full((12, 14), 900, np.uint16)
        task = restoration.corrupted_image(
            values + np.uint16(10), clean=values, value_range=(800, 1000)
        )
        self.assertEqual(task.value_range, (800.0, 1000.0))
        self.assertAllClose(
            task.corrupted_score()["psnr"], 20 * math.log10(200 / 10)
        )

    def test_range_is_that_of_the_clean_image(self):
        clean = np.linspace(0.0, 1.0, 12 * 14).reshape(12, 14)
        task = restoration.corrupted_image(3.0 * clean - 1.0, clean=clean)
        self.assertEqual(task.value_range, (0.0, 1.0))

    def test_noise_is_added_and_converted_in_the_units_of_the_image(self):
        clean = np.full((200, 200), 2000, np.uint16)
        clean[0, 0] = 4000
        task = restoration.corrupted_image(clean, noise_std=41.0, scale=0.5)
        noise = task.value_range.from_pixels(task.image - task.clean)
        # Standard error 41 / sqrt(2 * 4e4) = 0.145, five of it.
        self.assertAllClose(noise.std(), 41.0, atol=0.75)
        found, share = task.in_units(0.5 * 255.0 * 41.0 / 4095.0)
        self.assertAllClose((found, share), (41.0, 41.0 / 4095.0))

    def test_floats_are_never_clipped_and_integers_to_their_range(self):
        for values, expected in (
            (np.array([[-1000.0, 3000.0]]), (-17000.0, 19000.0)),
            (np.array([[0, 4000]], np.uint16), (0, 4095)),
            (np.array([[-1000, 3000]], np.int16), (-1000, 3000)),
        ):
            task = restoration.corrupted_image(
                np.tile(values, (8, 4)), patch=(4, 4)
            )
            estimates = np.full(task.observations().train.shape, -4.0 * 255.0)
            low = task.picture(task.restore(estimates)).values
            high = task.picture(task.restore(4.5 * -estimates / 4.0)).values
            if values.dtype.kind == "f":
                low_high = -1000.0 - 4.0 * 4000.0, -1000.0 + 4.5 * 4000.0
                self.assertAllClose((low[0, 0, 0], high[0, 0, 0]), low_high)
                self.assertAllClose(low_high[0], expected[0])
            else:
                self.assertEqual((low[0, 0, 0], high[0, 0, 0]), expected)

    def test_given_range_does_not_clip_what_is_observed_beyond_it(self):
        values = np.array([[0, 4000]], np.uint16).repeat(8, 0).repeat(4, 1)
        task = restoration.corrupted_image(values, value_range=(100, 200))
        estimates = patches.extract_patches(task.image, (8, 8))
        self.assertAllEqual(
            task.picture(task.restore(estimates)).values[..., 0], values
        )

    def test_first_line_states_kind_and_range(self):
        values = np.linspace(12, 4093, 12 * 14).reshape(12, 14)
        task = restoration.corrupted_image(
            values.astype(np.uint16), noise_std=41.0
        )
        lines = task.describe().splitlines()
        self.assertEqual(
            lines,
            [
                "image: 12 x 14 pixels, grey, uint16, values 12 to 4093, on a "
                "range of 0 to 4095",
                "adding Gaussian noise of standard deviation 41 (1 % of the "
                "range)",
                "all values are denoised",
            ],
        )

    @parameterized.named_parameters(
        ("noise", {"noise_std": -1.0}, "`noise_std` must be finite"),
        ("nan", {"noise_std": float("nan")}, "`noise_std` must be finite"),
        ("fraction", {"missing_fraction": 1.0}, "`missing_fraction` must be"),
        (
            "mask",
            {"mask": np.zeros((12, 13))},
            r"`mask` must be as large.*12 x",
        ),
        ("ranks", {"mask": np.zeros(12)}, r"`mask` must be as large"),
        ("grown", {"mask_grow": 2}, "`mask` must be given with `mask_thresho"),
        ("inverted", {"mask_invert": True}, "`mask` must be given with"),
        ("all", {"mask": np.ones((12, 14))}, "only missing"),
        ("clean", {"clean": np.zeros((2, 2))}, r"`clean` must have the shape"),
        ("crop", {"crop": (0, 0, 13, 14)}, r"`crop` must be.*12 x 14"),
        ("range", {"value_range": (3, 3)}, r"`value_range` must be.*\(3, 3\)"),
        ("text", {"value_range": "low"}, "`value_range` must be.*'low'"),
        ("open", {"value_range": (0, math.nan)}, "`value_range` must be.*nan"),
    )
    def test_refuses(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            restoration.corrupted_image(_picture(), **arguments)

    @parameterized.parameters(
        ((5, 9), (8, 8), 1, (5, 8), 1, "5 x 8 pixels instead of 8 x 8"),
        ((5, 3), (8, 8), 4, (5, 3), 3, "5 x 3 pixels .*smaller; stride 3"),
        ((1, 2), (8, 8), 1, (1, 2), 1, "1 x 2 pixels instead of 8 x 8"),
        ((8, 8), (8, 8), 1, (8, 8), 1, None),
    )
    def test_picture_smaller_than_the_patch_reduces_it(
        self, shape, patch, stride, expected, expected_stride, line
    ):
        image = 10.0 + np.arange(float(np.prod(shape))).reshape(shape)
        task = restoration.corrupted_image(
            image, value_range=(0, 255), patch=patch, stride=stride
        )
        self.assertEqual((task.patch, task.stride), (expected, expected_stride))
        self.assertEqual(task.observations().event_shape, (*expected, 1))
        last = task.describe().splitlines()[-1]
        self.assertRegex(last, line or "all values are denoised")
        points = task.observations().train
        self.assertAllClose(task.restore(points)[..., 0], image)

    def test_large_picture_has_lazy_patches_of_the_same_values(self):
        image = _picture((12, 14, 1))
        image[4:8, 4:8] = np.nan  # One patch sees nothing.
        task = restoration.corrupted_image(image, patch=4, scale=0.1)
        points = task.observations().train
        self.assertIsInstance(points, np.ndarray)
        with mock.patch.object(restoration, "PATCHES_IN_MEMORY", 0):
            lazy = task.observations().train
        self.assertIsInstance(lazy, rows.LazyRows)
        self.assertAllEqual(np.asarray(lazy), points)
        estimates = np.nan_to_num(points)
        parts = [estimates[:7], estimates[7:50], estimates[50:]]
        self.assertAllEqual(task.merge(iter(parts)), task.merge(estimates))

    def test_refuses_more_patches_than_memory_holds(self):
        with mock.patch("psutil.virtual_memory") as memory:
            memory.return_value.available = 10**5
            with self.assertRaisesRegex(ValueError, "`stride`.*`crop`"):
                restoration.corrupted_image("camera")
            restoration.corrupted_image(_picture(), stride=4)

    def test_refuses_absent_files(self):
        with self.assertRaisesRegex(FileNotFoundError, "`image` must be.*'no'"):
            restoration.corrupted_image("no")
        with self.assertRaisesRegex(FileNotFoundError, "gone.png"):
            restoration.corrupted_image("camera", mask="gone.png")


if __name__ == "__main__":
    tf.test.main()
