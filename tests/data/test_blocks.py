# SPDX-License-Identifier: Apache-2.0
"""Tests of orders that visit rows in blocks."""

from __future__ import annotations

import itertools
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests.data import shuffled
from tfvae.data import indexed_batches
from tfvae.data.blocks import BlockOrder, block_batches


class BlockOrderTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters((10, 3), (10, 1), (10, 10), (10, 64), (12, 4))
    def test_order_has_every_row_once_and_blocks_whole(self, num_rows, block):
        order = BlockOrder(num_rows, block, (0, 1))
        rows = np.concatenate(
            [order.rows(i, min(i + 1, num_rows)) for i in range(num_rows)]
        )
        self.assertAllEqual(np.sort(rows), np.arange(num_rows))
        of_blocks = [key for key, _ in itertools.groupby(rows // block)]
        self.assertLen(of_blocks, -(-num_rows // block))
        self.assertAllEqual(order.rows(2, 9), np.sort(rows[2:9]))

    def test_blocks_come_first_equally_often(self):
        first = [
            BlockOrder(8, 2, (3, epoch)).rows(0, 1)[0] // 2
            for epoch in range(400)
        ]
        counts = np.bincount(first, minlength=4)
        # Four standard deviations of a binomial count.
        self.assertLess(np.abs(counts - 100).max(), 4 * np.sqrt(400 * 3 / 16))


class BlockBatchesTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        (10, 3, 2, 1), (10, 5, 3, 60), (10, 10, 4, 24), (10, 64, 3, 1),
        (1, 1, 1, 1), (50, 4, 7, 100),
    )  # fmt: skip
    def test_each_epoch_visits_every_point_once(
        self, num_data, batch_size, block_rows, window_bytes
    ):
        points = shuffled.points(num_data)
        batches = block_batches(
            points, block_rows, batch_size, 5, window_bytes=window_bytes
        )
        shuffled.check_epochs(self, batches, points, batch_size)

    def test_window_has_few_blocks_and_mixes_their_rows(self):
        batches = block_batches(
            shuffled.points(1000, 1), 10, 4, window_bytes=4 * 40
        )  # Windows of ten batches, and so of at most five blocks.
        index = [rows for _, rows in shuffled.take(batches, 250)]
        mixed = []
        for start in range(0, 250, 10):
            window = np.concatenate(index[start : start + 10])
            self.assertLessEqual(len(set(window // 10)), 5)
            mixed.append(np.mean(np.diff(window) == 1))
        # Of consecutive rows in random order one in 40 or so remain.
        self.assertLess(np.mean(mixed), 0.1)

    def test_parts_of_the_data_have_shares_of_the_same_batches(self):
        shuffled.check_parts(
            self, lambda x: block_batches(x, 2, 4, 0, 0, 10, window_bytes=1)
        )

    def test_types_and_cardinality_are_known_to_keras(self):
        shuffled.check_spec(self, block_batches(shuffled.points(5), 2, 2))

    def test_starting_later_continues_an_unbroken_run_exactly(self):
        points = shuffled.points(11)

        def batches(epoch):
            return block_batches(points, 2, 4, 2, epoch, window_bytes=1)

        unbroken = [index for _, index in shuffled.take(batches(0), 3 * 4)]
        self.assertLen({tuple(np.concatenate(unbroken[i : i + 3]))
                        for i in range(0, 12, 3)}, 4)  # fmt: skip
        resumed = [index for _, index in shuffled.take(batches(2), 6)]
        for one, other in zip(unbroken[6:], resumed, strict=True):
            self.assertAllEqual(one, other)

    def test_iterators_at_once_do_not_disturb_each_other(self):
        dataset = block_batches(shuffled.points(40), 4, 4, window_bytes=1)
        expected = [index for _, index in shuffled.take(dataset, 40)]
        first, second = (dataset.as_numpy_iterator() for _ in range(2))
        next(second)
        for step in range(1, 39):
            self.assertAllEqual(next(second)[1], expected[step])
            self.assertAllEqual(next(first)[1], expected[step - 1])

    def test_rows_of_files_are_visited_in_their_blocks(self):
        points = shuffled.points(20)
        with mock.patch("tfvae.data.batches.block_batches") as made:
            indexed_batches(points, 4)
            made.assert_not_called()
            indexed_batches(points, 4, block_rows=5)
            made.assert_called_once_with(points, 5, 4, 0, 0, None)

    @parameterized.parameters((0, 1, 0), (1, 0, 0), (1, 1, -1))
    def test_impossible_sizes_are_refused(self, block_rows, batch, epoch):
        with self.assertRaisesRegex(
            ValueError, "`batch_size` and `block_rows`"
        ):
            block_batches(shuffled.points(3), block_rows, batch, 0, epoch)

    def test_more_rows_than_numbers_are_refused(self):
        with self.assertRaisesRegex(
            ValueError, "`points` must have at most 2,"
        ):
            block_batches(np.broadcast_to(np.float32(0), (2**31, 1)), 1, 1)


if __name__ == "__main__":
    tf.test.main()
