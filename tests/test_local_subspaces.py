# SPDX-License-Identifier: Apache-2.0
"""Tests of denoising by local subspaces against slow loops."""

from __future__ import annotations

import numpy as np
import skimage.data
import tensorflow as tf
from absl.testing import parameterized

from tfvae import local_subspaces
from tfvae.local_subspaces import LocalSubspaces
from tfvae.ops.image_quality import psnr


def _picture(height=17, width=14, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(100.0, 30.0, (height, width, channels)).astype(np.float32)


def _places(size, step):
    return sorted({*range(0, size, step), size - 1})


def _shrunk_slowly(group, variance, weight):
    """Estimates of a group and the posterior variance, by its SVD."""
    mean = group.mean(0)
    left, values, right = np.linalg.svd(group - mean, full_matrices=False)
    excess = values**2 - 4.0 * weight * np.sqrt(len(group)) * variance
    kept = np.where(
        excess > 0.0, 0.5 * (values + np.sqrt(np.maximum(excess, 0.0))), 0.0
    )
    share = np.sum(kept / values) / group.shape[1] + 1.0 / len(group)
    return mean + (left * kept) @ right, share


def _denoised_slowly(image, noise_std, settings, side):
    """A transcription of the module's text, for one size of patches."""
    height, width, channels = image.shape
    rows, columns = height - side + 1, width - side + 1
    window = min(2 * settings.radius + 1, rows, columns)
    mean = image.astype(np.float64)
    groups = {}
    for number in range(settings.count_rounds(noise_std)):
        num_similar = min(local_subspaces._group_size(side, number), window**2)
        for repeat in range(2):
            mean = mean + settings.feedback * (image - mean)

            def patch(picture, y, x):
                return picture[y : y + side, x : x + side].reshape(-1)

            total, squares, variances, count = (
                np.zeros(image.shape) for _ in range(4)
            )
            for y in _places(rows, settings.step):
                for x in _places(columns, settings.step):
                    top = int(np.clip(y - window // 2, 0, rows - window))
                    first = int(np.clip(x - window // 2, 0, columns - window))
                    ours = patch(mean, y, x)
                    if not repeat:
                        near = [
                            (np.sum((patch(mean, v, u) - ours) ** 2), v, u)
                            for v in range(top, top + window)
                            for u in range(first, first + window)
                        ]
                        groups[y, x] = sorted(near)[:num_similar]
                    left = noise_std**2
                    if number or repeat:
                        removed = np.mean((patch(image, y, x) - ours) ** 2)
                        left = settings.noise_factor**2 * abs(left - removed)
                    members = groups[y, x]
                    found, share = _shrunk_slowly(
                        np.stack([patch(mean, v, u) for _, v, u in members]),
                        left,
                        settings.weight,
                    )
                    for (_, v, u), one in zip(members, found, strict=True):
                        block = np.s_[v : v + side, u : u + side]
                        one = one.reshape(side, side, channels)
                        total[block] += one
                        squares[block] += one**2
                        variances[block] += noise_std**2 * share
                        count[block] += 1.0
            mean = total / count
            variance = squares / count - mean**2 + variances / count
    return mean, variance


class LocalSubspacesTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        ((17, 14, 1), 3, 2, 4),  # More patches than values of one.
        ((13, 15, 3), 3, 3, 2),  # Fewer.
        ((9, 8, 1), 4, 4, 30),  # Windows that are the whole picture.
        ((11, 6, 2), 2, 2, 2),
    )
    def test_is_what_slow_loops_find(self, shape, side, step, radius):
        image = _picture(*shape)
        settings = LocalSubspaces(
            patches=(side,), step=step, radius=radius, num_rounds=2
        )
        mean, variance = _denoised_slowly(image, 20.0, settings, side)
        found = settings.denoised(image, 20.0)
        self.assertAllClose(found.mean, mean, atol=2e-2)
        self.assertAllClose(found.variance, variance, rtol=2e-2, atol=0.5)

    def test_sizes_are_averaged_after_each_shrinking(self):
        image = _picture()
        once = {"step": 2, "radius": 3, "num_rounds": 1}
        both = LocalSubspaces(patches=(3, 4), **once)
        means = [
            local_subspaces._Cover(
                image.shape, side, both, local_subspaces._group_size(side, 0)
            ).shrunk(image, image, 20.0, True)
            for side in (3, 4)
        ]
        average = local_subspaces._averaged(means)
        self.assertAllClose(average.mean, 0.5 * (means[0].mean + means[1].mean))
        self.assertAllClose(
            average.variance,
            0.5 * (means[0].variance + means[1].variance)
            + 0.25 * (means[0].mean - means[1].mean) ** 2,
            rtol=1e-4,
        )

    def test_bands_do_not_matter(self):
        image = _picture(30, 20)
        settings = LocalSubspaces(patches=(4,), step=2, radius=3, num_rounds=2)
        whole = settings.denoised(image, 20.0)
        rows, local_subspaces._BAND_ROWS = local_subspaces._BAND_ROWS, 3
        try:
            parts = settings.denoised(image, 20.0)
        finally:
            local_subspaces._BAND_ROWS = rows
        self.assertAllClose(parts.mean, whole.mean, atol=1e-3)
        self.assertAllClose(parts.variance, whole.variance, rtol=1e-3)

    def test_every_pixel_has_an_estimate_where_patches_are_equal(self):
        image = np.full((40, 50, 1), 7.0, np.float32)
        image[20:] = 9.0
        settings = LocalSubspaces(patches=(4,), radius=5, num_rounds=2)
        found = settings.denoised(image, 0.01)
        self.assertAllClose(found.mean, image, atol=1e-3)

    @parameterized.parameters((3, 12), (2, 2), (11, 2))
    def test_tiny_pictures_are_covered(self, height, width):
        image = _picture(height, width)
        found = LocalSubspaces().denoised(image, 20.0)
        self.assertTrue(np.isfinite(found.mean).all())
        image[0, 0] = np.nan
        *_, filled = LocalSubspaces(num_rounds=2).filling_rounds(image)
        self.assertTrue(np.isfinite(filled).all())

    def test_a_run_goes_on_where_it_has_ended(self):
        image = _picture()
        settings = LocalSubspaces(patches=(3,), step=2, radius=4, num_rounds=3)
        rounds = [*settings.rounds(image, 20.0)]
        self.assertLen(rounds, 3)
        (last,) = settings.rounds(image, 20.0, rounds[1].mean, 2)
        self.assertAllEqual(last.mean, rounds[2].mean)
        self.assertAllEqual(last.variance, rounds[2].variance)

    def test_shrunk_values_minimise_the_penalised_distance(self):
        values = np.array([[9.0, 5.0, 1.0]], np.float32)
        found = local_subspaces.shrunk_values(
            tf.constant(values), tf.constant([0.5]), 16, 1.0
        ).numpy()
        # A fixed point of thresholding by c sqrt(m) s^2 / d, and 0 where there
        # is none.
        penalty = 4.0 * 0.5
        self.assertAllClose(
            found[0, :2], values[0, :2] - penalty / found[0, :2]
        )
        self.assertEqual(found[0, 2], 0.0)

    @parameterized.parameters(15.0, 50.0)
    def test_removes_noise_of_a_picture(self, std):
        clean = skimage.data.camera()[100:196, 180:276, None].astype(np.float32)
        noise = np.random.default_rng(0).normal(0.0, std, clean.shape)
        noisy = clean + noise.astype(np.float32)
        counts = []
        settings = LocalSubspaces(quality="fast", radius=10, num_rounds=2)
        *_, found = settings.rounds(
            noisy, std, on_step=lambda: counts.append(1)
        )
        self.assertLen(counts, 2 * settings.num_steps(std, clean.shape))
        gain = psnr(clean, found.mean, 255.0) - psnr(clean, noisy, 255.0)
        self.assertGreater(gain, 6.0)
        error = np.abs(found.mean - clean)
        within = np.mean(error < 2.0 * np.sqrt(found.variance))
        self.assertBetween(within, 0.9, 1.0)

    def test_fills_in_what_is_missing_and_leaves_the_rest(self):
        image = skimage.data.camera()[100:164, 180:244, None].astype(np.float32)
        rng = np.random.default_rng(0)
        is_missing = rng.random(image.shape) < 0.4
        damaged = np.where(is_missing, np.float32(np.nan), image)
        settings = LocalSubspaces(radius=10, num_rounds=5)
        rounds = [*settings.filling_rounds(damaged)]
        self.assertLen(rounds, 5)
        for one in rounds:
            self.assertAllEqual(one[~is_missing], image[~is_missing])
        nearest = local_subspaces._nearest_known(damaged)
        self.assertGreater(
            psnr(image, rounds[-1], 255.0), psnr(image, nearest, 255.0) + 4.0
        )
        (last,) = settings.filling_rounds(damaged, rounds[3], 4)
        self.assertAllEqual(last, rounds[4])
        variance = settings.filling_variance(damaged)
        self.assertAllEqual(variance[~is_missing], 0.0 * image[~is_missing])
        errors = np.square(rounds[-1] - image)[is_missing]
        self.assertAllClose(
            variance[is_missing].mean(), errors.mean(), rtol=0.35
        )

    def test_filling_goes_beyond_the_last_change_within_a_round(self):
        image = _picture(12, 11)
        image[::2, ::3] = np.nan
        is_missing = np.isnan(image)
        settings = LocalSubspaces(patches=(4,), radius=4, num_rounds=2)
        stds = np.exp(np.linspace(np.log(40.0), np.log(3.0), 8))
        means = [local_subspaces._nearest_known(image)]
        for i, std in enumerate(stds):
            if i in (0, 4):
                before = means[-1]
                cover = local_subspaces._Cover(
                    image.shape, 4, settings, local_subspaces._group_size(4, 0)
                )
            ahead = 1.5 * means[-1] - 0.5 * before
            found = cover.shrunk(ahead, ahead, std, True).mean
            before = means[-1]
            means.append(np.where(is_missing, found, image))
        rounds = [*settings.filling_rounds(image)]
        self.assertAllClose(rounds, [means[4], means[8]], atol=1e-2)

    @parameterized.parameters(("best", 10), ("fast", 4))
    def test_quality_chooses_the_number_of_rounds(self, quality, expected):
        settings = LocalSubspaces(quality=quality)
        self.assertEqual(settings.count_filling_rounds(), expected)

    def test_nearest_known_values_are_those_of_loops(self):
        image = _picture(9, 8, 2)
        rng = np.random.default_rng(0)
        is_missing = rng.random(image.shape) < 0.5
        damaged = np.where(is_missing, np.float32(np.nan), image)
        found = local_subspaces._nearest_known(damaged)
        for y, x, c in np.argwhere(is_missing):
            known = np.argwhere(~is_missing[..., c])
            squares = np.sum((known - [y, x]) ** 2, -1)
            nearest = known[squares == squares.min()]
            self.assertIn(found[y, x, c], [image[v, u, c] for v, u in nearest])

    @parameterized.parameters(2, 3, 40)
    def test_variance_is_found_from_few_observed_values(self, number):
        image = np.full((9, 7, 2), np.nan, np.float32)
        image.reshape(-1, 2)[:number] = np.arange(2.0 * number).reshape(-1, 2)
        variance = LocalSubspaces(num_rounds=1).filling_variance(image)
        self.assertAllEqual(variance[~np.isnan(image)], np.zeros(2 * number))
        self.assertAllGreater(variance[np.isnan(image)], 0.0)

    def test_wrong_arguments_are_refused(self):
        for wrong, message in (
            ({"quality": "good"}, "`quality` must be one of"),
            ({"step": 0}, "`step` must be an integer of at least 1"),
            ({"patches": ()}, "`patches` must be sides"),
            ({"patches": (1,)}, "`patches` must be integers of at least 2"),
            ({"patches": (5, 3)}, "`step` must be at most .* 3, got 4"),
            ({"feedback": 1.0}, "`feedback` must be in"),
            ({"weight": 0.0}, "`weight` must be positive"),
        ):
            with self.assertRaisesRegex(ValueError, message):
                LocalSubspaces(**wrong)
        settings = LocalSubspaces()
        for wrong in (np.inf, np.full((17, 14, 1), np.nan)):
            with self.assertRaisesRegex(ValueError, "observed somewhere"):
                next(settings.filling_rounds(_picture() * 0.0 + wrong))
        one = np.full((17, 14, 1), np.nan)
        one[3, 3] = 7.0
        with self.assertRaisesRegex(ValueError, "at least 2 observed .* got 1"):
            settings.filling_variance(one)
        missing = _picture()
        missing[3, 3] = np.nan
        for image, std, message in (
            (missing, 1.0, "complete and finite, got 1 other"),
            (_picture()[..., 0], 1.0, "must have shape"),
            (_picture(), 0.0, "`noise_std` must be positive"),
        ):
            with self.assertRaisesRegex(ValueError, message):
                settings.denoised(image, std)


if __name__ == "__main__":
    tf.test.main()
