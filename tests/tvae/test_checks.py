# SPDX-License-Identifier: Apache-2.0
"""Tests of what a TVAE says about wrong inputs."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae.tvae import checks


class IndexTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(np.int32, np.int64, np.uint8)
    def test_integers_become_an_int32_vector(self, dtype):
        for index in ([2, 0, 1], [[2], [0], [1]]):
            found = checks.as_index(np.array(index, dtype), 3)
            self.assertEqual(found.dtype, tf.int32)
            self.assertAllEqual(found, [2, 0, 1])

    @parameterized.parameters(([0, 3],), ([-1, 0],))
    def test_indices_out_of_range_are_reported(self, index):
        with self.assertRaisesRegex(
            tf.errors.InvalidArgumentError,
            r"index must be in \[0, num_data = 3\), got",
        ):
            checks.as_index(np.array(index), 3)

    def test_indices_that_are_no_integers_are_reported(self):
        with self.assertRaisesRegex(
            TypeError, "`index` must be integers, got float32"
        ):
            checks.as_index(np.array([0.0, 1.0], np.float32), 3)


class SizesTest(tf.test.TestCase, parameterized.TestCase):
    def test_sizes_at_their_limits_fit(self):
        checks.check_sizes(3, 0, 8, 8, None, None)
        checks.check_sizes(1, 5, 1, None, 0.0, 1)
        checks.check_sizes(500, 10**6, 64, 1, 0.999, 10**9)

    @parameterized.parameters(
        ((0, 5, 1, None), "`num_latents` must be at least 1, got 0"),
        ((3, -1, 8, None), "`num_data` must not be negative, got -1"),
        (
            (3, 5, 9, None),
            r"`num_states` must be .* 2\*\*num_latents = 8, got 9",
        ),
        ((3, 5, 0, None), "`num_states` must be from 1 to .*got 0"),
        ((3, 5, 4, 5), "`num_m_states` must be .*`num_states` = 4, got 5"),
        ((3, 5, 4, 0), "`num_m_states` must be from 1 to .*got 0"),
        ((3, 5, 8, 2), "`num_m_states` must be None where the states are all"),
        ((3, -1, 9, None), "`num_data` .*; `num_states` "),
    )
    def test_sizes_that_do_not_fit_are_reported(self, sizes, message):
        with self.assertRaisesRegex(ValueError, message):
            checks.check_sizes(*sizes, None, None)

    @parameterized.parameters(-0.1, 1.0, 2.0, float("nan"))
    def test_mass_to_drop_that_is_no_share_is_reported(self, mass):
        with self.assertRaisesRegex(
            ValueError,
            rf"`max_dropped_mass` must be in \[0, 1\) or None, got {mass}",
        ):
            checks.check_sizes(3, 5, 4, 2, mass, None)

    @parameterized.parameters(0, -3)
    def test_m_step_batches_without_data_are_reported(self, size):
        with self.assertRaisesRegex(
            ValueError, f"`m_batch_size` must be at least 1 or None, got {size}"
        ):
            checks.check_sizes(3, 5, 4, 2, None, size)


if __name__ == "__main__":
    tf.test.main()
