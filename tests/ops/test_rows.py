# SPDX-License-Identifier: Apache-2.0
"""Tests of tables whose rows are computed when they are asked for."""

from __future__ import annotations

import numpy as np
from absl.testing import absltest, parameterized

from tfvae.ops import moments
from tfvae.ops.rows import JoinedRows, LazyRows, PartOfRows, part_of

_TABLE = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
_TABLE[2, 1] = np.nan


class _Rows(LazyRows):
    """Rows of a table, as any others."""

    def __init__(self, table):
        super().__init__(*table.shape)
        self._table = table

    def take(self, index):
        return self._table[index]


class LazyRowsTest(parameterized.TestCase):
    @parameterized.parameters(
        slice(None),
        slice(2, 5),
        slice(6, None, -2),
        slice(3, 3),
        0,
        -1,
        np.int64(4),
        [[3, 0, 3]],
        [[-1, 2]],
        [[True, False, True, False, False, False, True]],
    )
    def test_rows_are_those_of_the_array(self, key):
        key = np.array(key) if isinstance(key, list) else key
        found = _Rows(_TABLE)[key]
        np.testing.assert_array_equal(found, _TABLE[key])
        self.assertEqual(found.shape, _TABLE[key].shape)

    def test_part_has_its_rows(self):
        found = PartOfRows(_Rows(_TABLE), slice(2, 6))
        self.assertEqual(found.shape, (4, 3))
        np.testing.assert_array_equal(np.asarray(found), _TABLE[2:6])
        np.testing.assert_array_equal(found[[3, 0]], _TABLE[[5, 2]])

    @parameterized.parameters(
        slice(0, 7, 3), slice(1, None, 2), slice(2, 6), slice(5, 5)
    )
    def test_part_of_a_lazy_table_is_lazy(self, rows):
        table = _Rows(_TABLE)
        table.block_rows, table.limits = 5, (-1.0, 2.0)
        found = part_of(table, rows)
        self.assertIsInstance(found, LazyRows)
        self.assertEqual(found.shape, _TABLE[rows].shape)
        np.testing.assert_array_equal(np.asarray(found), _TABLE[rows])
        self.assertEqual(found.block_rows, 5 // (rows.step or 1))
        self.assertEqual(found.limits, (-1.0, 2.0))

    def test_all_rows_are_the_table_itself_and_arrays_stay_arrays(self):
        table = _Rows(_TABLE)
        self.assertIs(part_of(table, slice(0, 7, 1)), table)
        found = part_of(_TABLE, slice(1, 7, 2))
        np.testing.assert_array_equal(found, _TABLE[1::2])

    def test_array_and_parts_have_all_rows(self):
        rows = _Rows(_TABLE)
        np.testing.assert_array_equal(np.asarray(rows), _TABLE)
        starts, parts = zip(*rows.parts(3), strict=True)
        self.assertEqual(starts, (0, 3, 6))
        np.testing.assert_array_equal(np.concatenate(parts), _TABLE)
        self.assertLen(rows, 7)

    def test_joined_rows_are_those_of_the_arrays_in_order(self):
        tables = _TABLE[:3], _TABLE[3:4], _TABLE[4:]
        joined = JoinedRows([_Rows(one) for one in tables])
        self.assertEqual(joined.shape, _TABLE.shape)
        np.testing.assert_array_equal(np.asarray(joined), _TABLE)
        order = np.array([6, 0, 3, 3, 5, 2])
        np.testing.assert_array_equal(joined[order], _TABLE[order])

    @parameterized.parameters(7, -8, 1.5, [[0, 9]], [[True, False]])
    def test_other_rows_are_refused(self, key):
        key = np.array(key) if isinstance(key, list) else key
        with self.assertRaisesRegex(IndexError, "must (be int|have shape)"):
            _Rows(_TABLE)[key]

    def test_moments_are_those_of_the_array_to_the_bit(self):
        table = np.tile(_TABLE, (5000, 1)) * np.float32(3.7)
        for lazy, eager in zip(
            moments.of_columns(_Rows(table)),
            moments.of_columns(table),
            strict=True,
        ):
            np.testing.assert_array_equal(lazy, eager)


if __name__ == "__main__":
    absltest.main()
