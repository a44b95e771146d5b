# SPDX-License-Identifier: Apache-2.0
"""Moments of columns against NumPy, of any number of parts."""

from __future__ import annotations

from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae.ops import moments


class OfColumnsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters((3, 2**24), (2**14, 1), (2**14, 12), (5, 20))
    def test_parts_do_not_matter(self, rows, entries):
        x = np.random.default_rng(0).normal(3.0, 2.0, (11, 4))
        x = x.astype(np.float32)
        x[[0, 3, 10], [1, 1, 2]] = np.nan
        with mock.patch.multiple(moments, _ROWS=rows, _ENTRIES=entries):
            found = moments.of_columns(x)
        exact = x.astype(np.float64)
        self.assertAllEqual(found.size, np.sum(~np.isnan(x), 0))
        self.assertAllClose(found.mean, np.nanmean(exact, 0), 1e-14)
        self.assertAllClose(found.variance, np.nanvar(exact, 0), 1e-14)
        self.assertAllEqual(found.low, np.nanmin(exact, 0))
        self.assertAllEqual(found.high, np.nanmax(exact, 0))

    def test_parts_of_the_rows_merge_to_the_whole(self):
        x = np.random.default_rng(0).normal(3.0, 2.0, (11, 4)) * 1e12
        x = x.astype(np.float32)
        x[[0, 3, 10], [1, 1, 2]] = x[:3, 3] = np.nan
        parts = [moments.of_columns(part) for part in (x[:3], x[3:4], x[4:])]
        for found, expected in zip(
            moments.merged(parts), moments.of_columns(x), strict=True
        ):
            self.assertAllClose(found, expected, rtol=1e-12)


if __name__ == "__main__":
    tf.test.main()
