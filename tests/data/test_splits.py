# SPDX-License-Identifier: Apache-2.0
"""Tests of new splits of images."""

from __future__ import annotations

import tracemalloc

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae.data import source, splits


def _images(num_train=9, num_test=4, shape=(3, 2, 1), **fields):
    """Random images; the label of each is its number."""
    count = num_train + num_test
    points = np.random.default_rng(0).uniform(size=(count, *shape))
    points = points.reshape(count, -1).astype(np.float32)
    return source.Observations(
        name="x",
        event_shape=shape,
        train=points[:num_train],
        **{
            "train_labels": np.arange(num_train),
            "test": points[num_train:] if num_test else None,
            "test_labels": np.arange(num_train, count) if num_test else None,
        }
        | fields,
    )


def _merged(data):
    parts = [data.train, data.validation, data.test]
    return np.concatenate([part for part in parts if part is not None])


class ResplitImagesTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(0, 4)
    def test_parts_are_disjoint_and_complete(self, num_test):
        data = _images(num_test=num_test)
        new = splits.resplit_images(data, num_train=5, num_validation=3)
        self.assertLen(new.train, 5)
        self.assertLen(new.validation, 3)
        self.assertLen(new.test, 1 + num_test)
        self.assertAllEqual(
            np.unique(_merged(new), axis=0), np.unique(_merged(data), axis=0)
        )
        self.assertEqual((new.name, new.event_shape), ("x", (3, 2, 1)))

    def test_labels_follow_their_images(self):
        data = _images()
        numbered = _merged(data)
        new = splits.resplit_images(data, num_train=6, num_validation=2)
        self.assertAllEqual(new.train, numbered[new.train_labels])
        self.assertAllEqual(new.test, numbered[new.test_labels])

    @parameterized.parameters("train_labels", "test_labels")
    def test_labels_are_left_out_where_some_are_unknown(self, unknown):
        data = _images(**{unknown: None})
        new = splits.resplit_images(data, num_train=6)
        self.assertIsNone(new.train_labels)
        self.assertIsNone(new.test_labels)

    def test_seed_alone_decides_what_to_train_on(self):
        data = _images(60, 40)

        def train(seed, **numbers):
            new = splits.resplit_images(data, seed=seed, **numbers)
            return new.train[:20]

        first = train(0, num_train=20)
        other = train(0, num_train=30, num_validation=10, num_test=5)
        self.assertAllEqual(first, other)
        self.assertNotAllEqual(first, train(1, num_train=20))

    def test_places_are_uniform(self):
        # How often each of 10 images is trained on in 400 splits of 5: with
        # probability 1/2 each, so the chi-square statistic below has 9
        # degrees of freedom and exceeds 27.9 with probability 0.001.
        data = _images(6, 4)
        counts = np.zeros(10)
        for seed in range(400):
            new = splits.resplit_images(data, num_train=5, seed=seed)
            counts[new.train_labels] += 1
        # Counts of draws without replacement: variance n p q, and 10 / 9
        # makes up for their fixed sum.
        statistic = ((counts - 200) ** 2 / 100).sum() * 9 / 10
        self.assertLess(statistic, 27.9)

    def test_numbers_may_leave_nothing_or_leave_images_out(self):
        data = _images()
        whole = splits.resplit_images(data, num_train=13)
        self.assertIsNone(whole.test)
        self.assertIsNone(whole.test_labels)
        self.assertIsNone(whole.validation)
        some = splits.resplit_images(data, num_train=3, num_test=2)
        self.assertEqual((len(some.train), len(some.test)), (3, 2))

    @parameterized.parameters(
        ((3, 2, 1), (7, 7), 1),
        ((3, 2), (6, 5), 1),
        ((3, 2, 3), (8, 9), 2),
        ((3, 2, 3), None, 4),
        ((28, 28, 1), (32, 32), 1),
        ((8, 8, 1), (32, 32), 4),
    )
    def test_images_are_enlarged_and_padded_as_by_numpy(
        self, shape, size, upscale
    ):
        data = _images(shape=shape)
        new = splits.resplit_images(
            data, num_train=13, size=size, upscale=upscale
        )
        square = np.ones((upscale, upscale))
        for image, label in zip(new.train, new.train_labels, strict=True):
            old = _merged(data)[label].reshape(*shape[:2], -1)
            channels = [
                np.kron(old[..., c], square) for c in range(3)[: old.shape[2]]
            ]
            expected = np.stack(channels, -1)
            if size is not None:
                extra = np.subtract(size, expected.shape[:2])
                widths = [(e // 2, e - e // 2) for e in extra]
                expected = np.pad(expected, [*widths, (0, 0)])
            self.assertAllEqual(image, expected.reshape(-1))
        self.assertLen(new.event_shape, len(shape))

    def test_points_of_any_shape_may_be_split(self):
        data = _images(shape=(6,))
        new = splits.resplit_images(data, num_train=5)
        self.assertEqual(new.event_shape, (6,))

    def test_missing_entries_are_kept(self):
        data = _images()
        data.train[0, 2] = np.nan
        new = splits.resplit_images(data, num_train=13, size=(4, 4))
        self.assertEqual(np.isnan(new.train).sum(), 1)

    def test_memory_beside_the_result_is_a_fraction_of_it(self):
        data = _images(6000, 2000, (14, 14, 1))
        tracemalloc.start()
        new = splits.resplit_images(data, num_train=7000, size=(16, 16))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        result = new.train.nbytes + new.test.nbytes
        # What a check for finite values takes, a byte an entry, comes atop.
        self.assertLess(peak, 1.5 * result)

    @parameterized.named_parameters(
        ("no_train", {"num_train": 0}, r"`num_train` must be at least 1"),
        ("negative", {"num_train": 3, "num_test": -1}, r"3, 0 and -1"),
        ("many", {"num_train": 14}, r"at most 13, the number.*14, 0 and None"),
        (
            "sum",
            {"num_train": 6, "num_validation": 6, "num_test": 2},
            r"at most 13.*6, 6 and 2",
        ),
        ("small", {"num_train": 3, "size": (3, 1)}, r"`size`.*3 and 2.*3, 1"),
        (
            "enlarged",
            {"num_train": 3, "size": (5, 5), "upscale": 2},
            r"`size`.*6 and 4.*5, 5",
        ),
        ("sides", {"num_train": 3, "size": (3, 2, 1)}, r"`size` must be a"),
        ("upscale", {"num_train": 3, "upscale": 0}, r"`upscale` must.*0"),
    )
    def test_refuses(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            splits.resplit_images(_images(), **arguments)

    def test_refuses_to_pad_what_is_no_image(self):
        with self.assertRaisesRegex(ValueError, r"`data` must be images.*6,"):
            splits.resplit_images(_images(shape=(6,)), num_train=3, size=(8, 8))

    def test_refuses_data_that_was_split_for_validation(self):
        data = splits.resplit_images(_images(), num_train=3, num_validation=2)
        with self.assertRaisesRegex(ValueError, r"`data` must.*got 2 valid"):
            splits.resplit_images(data, num_train=3)


if __name__ == "__main__":
    tf.test.main()
