# SPDX-License-Identifier: Apache-2.0
"""Tests of patch extraction and merging against slow loops."""

from __future__ import annotations

import itertools

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae.ops import patches

# Height, width, channels, patch, stride: grey and colour, square and not,
# strides that do and do not divide the image, patches as large as the image.
GEOMETRIES = (
    ((7, 9, 1), (3, 3), 1),
    ((7, 9, 3), (3, 4), 1),
    ((8, 8, 1), (4, 4), 4),
    ((11, 10, 3), (4, 3), 2),
    ((13, 7, 1), (5, 2), 2),
    ((10, 17, 2), (6, 5), 3),
    ((5, 6, 3), (5, 6), 2),
    ((5, 6, 1), (1, 1), 1),
    ((9, 5, 1), (4, 5), 4),
)


def _starts(image_size: int, patch_size: int, stride: int) -> list[int]:
    last = image_size - patch_size
    return sorted({*range(0, last + 1, stride), last})


def _loop_extract(image, patch, stride):
    return np.stack(
        [
            image[top : top + patch[0], left : left + patch[1]].reshape(-1)
            for top in _starts(image.shape[0], patch[0], stride)
            for left in _starts(image.shape[1], patch[1], stride)
        ]
    )


def _loop_merge(estimates, image_shape, patch, stride, method):
    """Collects the estimates of each entry one by one, then merges them."""
    values = {index: [] for index in np.ndindex(*image_shape)}
    corners = itertools.product(
        _starts(image_shape[0], patch[0], stride),
        _starts(image_shape[1], patch[1], stride),
    )
    for row, (top, left) in zip(estimates, corners, strict=True):
        block = row.reshape(*patch, image_shape[2])
        for (i, j, channel), value in np.ndenumerate(block):
            # A window over [-1, 1] with unit standard deviation.
            y = (2 * i + 1) / patch[0] - 1
            x = (2 * j + 1) / patch[1] - 1
            weight = np.exp(-0.5 * (x**2 + y**2))
            if not np.isnan(value):
                values[top + i, left + j, channel].append((value, weight))
    image = np.full(image_shape, np.nan)
    for index, pairs in values.items():
        if pairs:
            estimates, weights = np.array(pairs, dtype=np.float64).T
            weights = weights if method == "gaussian" else None
            image[index] = (
                np.median(estimates)
                if method == "median"
                else np.average(estimates, weights=weights)
            )
    return image


class PatchesTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(*GEOMETRIES)
    def test_extract_equals_loop_over_positions(self, shape, patch, stride):
        image = np.random.default_rng(0).normal(size=shape)
        self.assertAllEqual(
            patches.extract_patches(image, patch, stride),
            _loop_extract(image, patch, stride),
        )

    @parameterized.parameters(
        *(
            (*geometry, method)
            for geometry in GEOMETRIES
            for method in patches.MERGE_METHODS
        )
    )
    def test_merge_inverts_extract(self, shape, patch, stride, method):
        image = np.random.default_rng(1).uniform(0, 255, shape)
        image = image.astype(np.float32)
        cut = patches.extract_patches(image, patch, stride)
        merged = patches.merge_patches(cut, shape, patch, stride, method)
        # Gaussian weights are rounded in float64, below float32's resolution.
        tolerance = 1e-5 if method == "gaussian" else 0.0
        self.assertAllClose(merged, image, rtol=0.0, atol=tolerance)
        self.assertDTypeEqual(merged, np.float32)

    @parameterized.parameters(
        *(
            (*geometry, method)
            for geometry in GEOMETRIES
            for method in patches.MERGE_METHODS
        )
    )
    def test_merge_equals_loop_over_estimates(
        self, shape, patch, stride, method
    ):
        generator = np.random.default_rng(2)
        cut = _loop_extract(np.zeros(shape), patch, stride)
        estimates = generator.normal(size=cut.shape).astype(np.float32)
        estimates[generator.random(cut.shape) < 0.2] = np.nan
        estimates[0] = np.nan
        self.assertAllClose(
            patches.merge_patches(estimates, shape, patch, stride, method),
            _loop_merge(estimates, shape, patch, stride, method),
            rtol=1e-6,
            atol=1e-6,
        )

    def test_median_does_not_depend_on_how_rows_are_chunked(self):
        estimates = np.random.default_rng(3).normal(size=(7 * 8, 4 * 3 * 3))
        arguments = (estimates, (10, 10, 3), (4, 3), 1, "median")
        whole = patches.merge_patches(*arguments)
        original = patches._MEDIAN_BYTES
        self.addCleanup(setattr, patches, "_MEDIAN_BYTES", original)
        patches._MEDIAN_BYTES = 1
        self.assertAllEqual(patches.merge_patches(*arguments), whole)

    def test_missing_entries_survive_the_round_trip(self):
        image = np.random.default_rng(4).normal(size=(6, 7, 3))
        image[2, 3] = image[0, 0, 1] = np.nan
        cut = patches.extract_patches(image, (3, 3), 2)
        for method in patches.MERGE_METHODS:
            merged = patches.merge_patches(cut, (6, 7, 3), (3, 3), 2, method)
            self.assertAllEqual(np.isnan(merged), np.isnan(image))

    def test_gaussian_merge_trusts_patch_centres_more_than_borders(self):
        # Two patches of three pixels overlap in pixel 2 of four: the border
        # of the first, the centre of the second.
        estimates = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
        merged = patches.merge_patches(
            estimates, (1, 4, 1), (1, 3), 1, "gaussian"
        )
        border, centre = np.exp(-0.5 * (2 / 3) ** 2), 1.0
        expected = centre / (border + centre)
        self.assertAllClose(merged[0, :, 0], [0, 1 - expected, expected, 1])

    @parameterized.named_parameters(
        ("image_rank", np.zeros((4, 4)), (2, 2), 1, r"`image` must have shape"),
        ("patch_rank", np.zeros((4, 4, 1)), (2,), 1, r"`patch` \(height, wid"),
        ("too_large", np.zeros((4, 4, 1)), (5, 2), 1, r"exceed the image.*5"),
        ("empty", np.zeros((4, 4, 1)), (0, 2), 1, r"at least 1, got 0"),
        ("no_stride", np.zeros((4, 4, 1)), (2, 2), 0, r"at least 1.*and 0"),
        ("gaps", np.zeros((4, 4, 1)), (2, 2), 3, r"`stride` must not exceed"),
    )
    def test_extract_refuses(self, image, patch, stride, message):
        with self.assertRaisesRegex(ValueError, message):
            patches.extract_patches(image, patch, stride)

    def test_merge_refuses_wrong_number_of_patches(self):
        with self.assertRaisesRegex(ValueError, r"shape \(9, 4\).*\(8, 4\)"):
            patches.merge_patches(np.zeros((8, 4)), (4, 4, 1), (2, 2))

    def test_merge_refuses_unknown_method(self):
        with self.assertRaisesRegex(ValueError, "`method` must be.*'mode'"):
            patches.merge_patches(
                np.zeros((9, 4)), (4, 4, 1), (2, 2), 1, "mode"
            )


class LazyPatchesTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(*GEOMETRIES)
    def test_cut_patches_are_those_of_all(self, shape, patch, stride):
        image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        image[0, 0] = np.nan
        expected = _loop_extract(image, patch, stride)
        is_kept = np.random.default_rng(1).random(len(expected)) < 0.7
        is_kept[0] = True
        for kept in (None, is_kept, np.ones_like(is_kept)):
            lazy = patches.ImagePatches(image, patch, stride, is_kept=kept)
            rows = expected if kept is None else expected[kept]
            self.assertEqual(lazy.shape, rows.shape)
            self.assertAllEqual(np.asarray(lazy), rows)
            index = np.arange(len(rows))[::-2]
            found = lazy[index]
            self.assertAllEqual(found, rows[index])
            self.assertTrue(found.flags.c_contiguous)

    @parameterized.product(
        geometry=GEOMETRIES, method=patches.MERGE_METHODS, size=(1, 5, 1000)
    )
    def test_parts_merge_into_the_same_image_to_the_bit(
        self, geometry, method, size
    ):
        shape, patch, stride = geometry
        rng = np.random.default_rng(0)
        whole = patches.extract_patches(np.zeros(shape), patch, stride)
        estimates = rng.normal(size=whole.shape).astype(np.float32)
        is_kept = rng.random(len(whole)) < 0.7
        merged = np.where(is_kept[:, None], estimates, np.float32(np.nan))
        expected = patches.merge_patches(merged, shape, patch, stride, method)
        merger = patches.PatchMerger(
            shape, patch, stride, method, is_kept=is_kept
        )
        kept = estimates[is_kept]
        self.assertEqual(merger.shape, kept.shape)
        for start in range(0, len(kept), size):
            merger.add(kept[start : start + size])
        self.assertAllEqual(merger.image(), expected)

    @parameterized.product(
        geometry=GEOMETRIES[:4], method=patches.MERGE_METHODS
    )
    def test_variances_are_those_of_mixtures_of_patches(self, geometry, method):
        shape, patch, stride = geometry
        rng = np.random.default_rng(0)
        whole = patches.extract_patches(np.zeros(shape), patch, stride)
        means, variances = 100.0 + rng.normal(size=(2, *whole.shape))
        merger = patches.PatchMerger(
            shape, patch, stride, method, with_variances=True
        )
        merger.add(means[:3], variances[:3])
        merger.add(means[3:], variances[3:])
        merger.image()
        found = merger.variances()
        window = np.ones(patch)
        if method == "gaussian":
            window = patches._gaussian_window(patch)
        # What each patch says of each pixel, pixel by pixel.
        places = patches.extract_patches(
            np.arange(np.prod(shape)).reshape(shape), patch, stride
        ).ravel()
        weights = np.broadcast_to(window[..., None], (*patch, shape[2]))
        weights = np.tile(weights.ravel(), len(whole))
        expected = np.zeros((2, np.prod(shape)))
        for pixel in range(np.prod(shape)):
            at = places == pixel
            share = weights[at] / weights[at].sum()
            values = means.ravel()[at]
            expected[:, pixel] = (
                share @ variances.ravel()[at],
                share @ np.square(values - share @ values),
            )
        for one, other in zip(found, expected, strict=True):
            self.assertAllClose(one.ravel(), other, rtol=1e-5, atol=1e-6)

    def test_numbers_of_estimates_are_checked(self):
        merger = patches.PatchMerger((4, 4, 1), (2, 2), 2)
        merger.add(np.zeros((3, 4)))
        with self.assertRaisesRegex(ValueError, "must be 4, got 3"):
            merger.image()
        merger.add(np.zeros((2, 4)))
        with self.assertRaisesRegex(ValueError, "must be 4, got 5"):
            merger.image()


if __name__ == "__main__":
    tf.test.main()
