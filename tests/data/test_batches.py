# SPDX-License-Identifier: Apache-2.0
"""Tests of the seeded streams of shuffled batches."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests.data import shuffled
from tfvae.data import batches_with, indexed_batches


class IndexedBatchesTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters((10, 3), (10, 5), (10, 10), (10, 64), (1, 1))
    def test_each_epoch_visits_every_point_once(self, num_data, batch_size):
        points = shuffled.points(num_data)
        batches = indexed_batches(points, batch_size, seed=5)
        shuffled.check_epochs(self, batches, points, batch_size)

    def test_parts_of_the_data_have_shares_of_the_same_batches(self):
        shuffled.check_parts(self, lambda x: indexed_batches(x, 4, 0, 0, 10))

    def test_types_and_cardinality_are_known_to_keras(self):
        shuffled.check_spec(self, indexed_batches(shuffled.points(5), 2))

    def test_epochs_differ_and_seeds_differ(self):
        points = shuffled.points(50)

        def order(seed, epoch):
            dataset = indexed_batches(points, 50, seed, epoch)
            return tuple(shuffled.take(dataset, 1)[0][1])

        orders = {order(seed, epoch) for seed in range(4) for epoch in range(4)}
        self.assertLen(orders, 16)

    @parameterized.parameters(1, 2, 7)
    def test_starting_later_continues_an_unbroken_run_exactly(self, epoch):
        points = shuffled.points(11)
        unbroken = shuffled.take(indexed_batches(points, 4, seed=2), 3 * 9)
        resumed = shuffled.take(indexed_batches(points, 4, 2, epoch), 6)
        for expected, batch in zip(
            unbroken[3 * epoch :], resumed, strict=False
        ):
            self.assertAllEqual(expected[0], batch[0])
            self.assertAllEqual(expected[1], batch[1])

    def test_orders_are_uniform(self):
        # The first of 6 points over 3000 epochs: chi-square with 5 degrees
        # of freedom exceeds 20.5 with probability 0.001.
        batches = shuffled.take(
            indexed_batches(shuffled.points(6), 6, seed=1), 3000
        )
        counts = np.bincount([index[0] for _, index in batches], minlength=6)
        self.assertLess(((counts - 500) ** 2 / 500).sum(), 20.5)

    def test_missing_entries_are_kept(self):
        points = shuffled.points(4)
        points[2, 1] = np.nan
        values, index = shuffled.take(indexed_batches(points, 4), 1)[0]
        self.assertAllEqual(np.isnan(values), np.isnan(points[index]))

    @parameterized.named_parameters(
        ("rank", np.zeros(3), 2, 0, r"`points` must have shape.*\(3,\)"),
        ("batch", np.zeros((3, 1)), 0, 0, r"`batch_size` must be at least 1"),
        ("epoch", np.zeros((3, 1)), 1, -1, r"`start_epoch` at least 0"),
    )
    def test_refuses(self, points, batch_size, start_epoch, message):
        with self.assertRaisesRegex(ValueError, message):
            indexed_batches(points, batch_size, 0, start_epoch)


class BatchesWithTest(tf.test.TestCase, parameterized.TestCase):
    def _on_disk(self, features):
        path = self.create_tempfile().full_path
        mapped = np.memmap(path, features.dtype, "w+", shape=features.shape)
        mapped[:] = features
        mapped.flush()
        return np.memmap(path, features.dtype, "r", shape=features.shape)

    @parameterized.product(shape=((), (5,), (2, 3)), in_memory=(True, False))
    def test_order_is_that_of_indexed_batches(self, shape, in_memory):
        points = shuffled.points(11)
        features = np.random.default_rng(1).normal(size=(11, *shape))
        features = features.astype(np.float32)
        source_of_rows = features if in_memory else self._on_disk(features)
        batches = shuffled.take(batches_with(points, source_of_rows, 4, 7), 9)
        for (values, rows), (expected, index) in zip(
            batches,
            shuffled.take(indexed_batches(points, 4, 7), 9),
            strict=True,
        ):
            self.assertAllEqual(values, expected)
            self.assertAllEqual(rows, features[index])

    @parameterized.product(epoch=(1, 5), in_memory=(True, False))
    def test_starting_later_continues_exactly(self, epoch, in_memory):
        points = shuffled.points(10)
        features = np.arange(20, dtype=np.float32).reshape(10, 2)
        features = features if in_memory else self._on_disk(features)
        unbroken = shuffled.take(batches_with(points, features, 4, 2), 3 * 7)
        resumed = shuffled.take(batches_with(points, features, 4, 2, epoch), 6)
        for expected, batch in zip(
            unbroken[3 * epoch :], resumed, strict=False
        ):
            self.assertAllEqual(expected[0], batch[0])
            self.assertAllEqual(expected[1], batch[1])

    def test_rows_are_read_from_disk_in_ascending_order(self):
        read = []

        class Spy(np.memmap):
            def __getitem__(self, key):
                if isinstance(key, np.ndarray):
                    read.append(key.copy())
                return super().__getitem__(key)

        features = self._on_disk(np.arange(40.0)).view(Spy)
        shuffled.take(batches_with(shuffled.points(40), features, 16), 3)
        self.assertGreaterEqual(len(read), 3)
        for rows in read:
            self.assertAllEqual(rows, np.sort(rows))

    @parameterized.product(
        dtype=(np.uint8, np.int64, np.float16, np.float64),
        in_memory=(True, False),
    )
    def test_types_and_shapes_are_known_to_keras(self, dtype, in_memory):
        features = np.arange(10).reshape(5, 2).astype(dtype)
        features = features if in_memory else self._on_disk(features)
        dataset = batches_with(shuffled.points(5), features, 5)
        values, rows = dataset.element_spec
        self.assertEqual((values.dtype, rows.dtype), (tf.float32, tf.float32))
        self.assertEqual(values.shape.as_list(), [None, 3])
        self.assertEqual(rows.shape.as_list(), [None, 2])
        found = shuffled.take(dataset, 1)[0][1]
        self.assertAllEqual(np.sort(found, axis=None), np.arange(10))

    @parameterized.named_parameters(
        (
            "count",
            np.zeros((2, 1)),
            1,
            r"`features` must have the 3 rows.*2, 1",
        ),
        ("scalar", np.array(1.0), 1, r"`features` must have.*got shape \(\)"),
        ("batch", np.zeros((3, 1)), 0, r"`batch_size` must be at least 1"),
    )
    def test_refuses(self, features, batch_size, message):
        with self.assertRaisesRegex(ValueError, message):
            batches_with(shuffled.points(3), features, batch_size)


if __name__ == "__main__":
    tf.test.main()
