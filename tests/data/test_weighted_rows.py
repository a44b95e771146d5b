# SPDX-License-Identifier: Apache-2.0
"""Tests of weighted draws in two levels."""

from __future__ import annotations

import itertools

import numpy as np
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized

from tfvae import data
from tfvae.data import weighted, weighted_rows
from tfvae.data.shard_writing import Arrays
from tfvae.data.weighted_rows import TwoLevelTable, WeightedRows


def _probabilities(table):
    """Returns the probability of each column of an alias table `[n, 2]`."""
    accept = np.float64(table[:, 0].copy().view(np.float32))
    found = accept.copy()
    np.add.at(found, table[:, 1], 1.0 - accept)
    return found / len(table)


def _weights(num_data=40):
    weights = np.random.default_rng(0).exponential(size=num_data) ** 3
    weights[[3, 17]] = 0.0
    weights[20:24] = 0.0  # A group, in the tests below.
    return weights


class TwoLevelTableTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters([[40]], [[20, 4, 16]], [[1] * 40])
    def test_probabilities_are_those_of_the_weights_and_of_one_level(
        self, sizes
    ):
        weights = _weights()
        table = TwoLevelTable(weights, sizes)
        groups = _probabilities(table.groups)
        found = np.zeros(40)
        for group, (start, size) in enumerate(
            zip(table.starts, table.sizes, strict=True)
        ):
            if groups[group] > 0.0:
                rows = slice(start, start + size)
                found[rows] = groups[group] * _probabilities(table.rows[rows])
        expected = weights / weights.sum()
        # Tables have float32 probabilities.
        self.assertAllClose(found, expected, rtol=1e-5, atol=1e-7)
        flat = weighted.packed_table(weighted.alias_table(weights))
        self.assertAllClose(found, _probabilities(flat), atol=1e-7)

    def test_frequencies_pass_a_chi_square_test(self):
        weights = _weights()
        table = TwoLevelTable(weights, [20, 4, 16])
        numbers = np.random.default_rng(1).random((200_000, 2))
        counts = np.bincount(table.draw(numbers), minlength=40)
        self.assertAllEqual(counts[weights == 0.0], np.zeros(6))
        expected = len(numbers) * weights / weights.sum()
        some = expected >= 5.0  # As the test needs; the others together.
        rest = counts[~some].sum(), expected[~some].sum()
        result = scipy.stats.chisquare(
            [*counts[some], rest[0]], [*expected[some], rest[1]]
        )
        self.assertGreater(result.pvalue, 1e-3)

    def test_last_number_is_of_the_last_row(self):
        table = TwoLevelTable(np.ones(8), [4, 4])
        last = np.nextafter(1.0, 0.0)
        self.assertAllEqual(table.draw(np.array([[last, last]])), [7])
        self.assertAllEqual(table.draw(np.array([[0.0, 0.0]])), [0])


class WeightedRowsTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        folder = self.create_tempdir().full_path
        self.points = np.arange(80.0, dtype=np.float32).reshape(40, 2)
        data.write_shards(folder, Arrays([self.points]), rows_per_shard=16)
        self.rows = data.ShardedRows(folder)

    def _take(self, batches, count, start=0):
        dataset = batches.dataset(start)
        return list(itertools.islice(dataset.as_numpy_iterator(), count))

    @parameterized.parameters(1, 24, 2**20)
    def test_batches_do_not_depend_on_how_many_are_read_at_once(
        self, num_bytes
    ):
        self.addCleanup(
            setattr, weighted_rows, "_CHUNK_BYTES", weighted_rows._CHUNK_BYTES
        )
        weighted_rows._CHUNK_BYTES = num_bytes
        batches = WeightedRows(self.rows, _weights(), 3, 5, with_index=True)
        found = self._take(batches, 6)
        for step, (points, index) in enumerate(found):
            self.assertAllEqual(index, batches.indices(step))
            self.assertAllEqual(points, self.points[index])
        resumed = self._take(batches, 4, start=2)
        for (_, one), (_, other) in zip(found[2:], resumed, strict=True):
            self.assertAllEqual(one, other)
        self.assertEqual(
            batches.dataset().element_spec,
            (tf.TensorSpec([3, 2], tf.float32), tf.TensorSpec([3], tf.int32)),
        )

    def test_seeds_differ_and_weights_are_replaced(self):
        one, other = (
            WeightedRows(self.rows, np.ones(40), 20, seed) for seed in (0, 1)
        )
        self.assertNotAllEqual(one.indices(0), other.indices(0))
        one.replace(np.arange(40) == 21)
        self.assertAllEqual(one.indices(0), [21] * 20)
        self.assertAllEqual(self._take(one, 1)[0], self.points[[21] * 20])
        for wrong, message in (
            (np.ones(39), "shape"),
            (-np.ones(40), "not negative"),
            (np.zeros(40), "not all be zero"),
        ):
            with self.assertRaisesRegex(
                ValueError, f"`weights` must.*{message}"
            ):
                one.replace(wrong)
        self.assertAllEqual(one.indices(0), [21] * 20)
        with self.assertRaisesRegex(ValueError, "`batch_size` must"):
            WeightedRows(self.rows, np.ones(40), 0)

    def test_source_has_weights_of_a_file(self):
        path = f"{self.create_tempdir().full_path}/weights.npy"
        np.save(path, _weights())
        folder = str(self.rows._files[0].parent)
        found = data.shard_files(folder, weights_path=path)
        self.assertAllEqual(found.weights, _weights())
        with self.assertRaisesRegex(
            FileNotFoundError, "`weights_path` must be"
        ):
            data.shard_files(folder, weights_path="none.npy")


if __name__ == "__main__":
    tf.test.main()
