# SPDX-License-Identifier: Apache-2.0
"""What tasks' functions do wrong, one input at a time."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests.lso import tiny
from tfvae.lso import reading

MEANS = np.arange(12.0).reshape(3, 4)


def _picky(means, seed):
    """Reads rows, but those that begin with 4."""
    if np.any(means[:, 0] == 4.0):
        raise ArithmeticError("four\nis not to be read")
    return [row + seed for row in means]


class ReadTest(tf.test.TestCase, parameterized.TestCase):
    def test_inputs_and_what_json_has_of_them_go_together(self):
        task = tiny.task(
            read=lambda means, seed: [None, (1, 2), np.ones(2)],
            to_json=lambda one: np.asarray(one).tolist(),
        )
        none, pair, array = reading.read(task, MEANS, 0)
        self.assertEqual(none, (None, None, reading.NO_INPUT))
        self.assertEqual(pair, ((1, 2), [1, 2], None))
        self.assertAllEqual(array.input, np.ones(2))
        self.assertEqual(array.content, [1.0, 1.0])

    def test_rows_are_read_by_themselves_where_all_can_not(self):
        task = tiny.task(read=_picky)
        first, second, third = reading.read(task, MEANS, 5)
        self.assertAllEqual(first.input, MEANS[0] + 5)
        self.assertAllEqual(third.input, MEANS[2] + 5)
        self.assertEqual(
            second, (None, None, "reading fails: ArithmeticError: four")
        )

    @parameterized.parameters(
        (None, "must return an input or None for each row, got NoneType"),
        ([1.0], "for each of 3 rows, got 1"),
        ([1.0] * 4, "for each of 3 rows, got 4"),
    )
    def test_another_number_of_inputs_is_an_error(self, found, message):
        task = tiny.task(read=lambda means, seed: found)
        with self.assertRaisesRegex((TypeError, ValueError), message):
            reading.read(task, MEANS, 0)

    def test_what_json_can_not_hold_is_an_error(self):
        task = tiny.task(
            read=lambda means, seed: list(means), to_json=lambda one: one
        )
        with self.assertRaisesRegex(TypeError, "`to_json` .* got ndarray"):
            reading.read(task, MEANS, 0)

    def test_each_input_is_of_its_own(self):
        content = [[1.0, 2.0]]
        task = tiny.task(from_json=lambda one: one)
        reading.from_json(task, content)[0][0] = 7.0
        self.assertEqual(content, [[1.0, 2.0]])


if __name__ == "__main__":
    tf.test.main()
