# SPDX-License-Identifier: Apache-2.0
"""What tasks' functions do wrong, one input at a time."""

from __future__ import annotations

import json

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests.lso import tiny
from tfvae.lso import ScoredData, reading

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
        self.assertEqual(none, (None, None, reading.NO_INPUT, False))
        self.assertEqual(pair, ((1, 2), [1, 2], None, False))
        self.assertAllEqual(array.input, np.ones(2))
        self.assertEqual(array.content, [1.0, 1.0])

    def test_rows_are_read_by_themselves_where_all_can_not(self):
        task = tiny.task(read=_picky)
        first, second, third = reading.read(task, MEANS, 5)
        self.assertAllEqual(first.input, MEANS[0] + 5)
        self.assertAllEqual(third.input, MEANS[2] + 5)
        self.assertEqual(
            second, (None, None, "reading fails: ArithmeticError: four", False)
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

    def test_other_types_need_both_functions(self):
        task = tiny.task(read=lambda means, seed: [object()] * len(means))
        with self.assertRaisesRegex(
            TypeError, "`to_json` and `from_json` .* inputs of type object"
        ):
            reading.read(task, MEANS, 0)

    def test_each_input_is_of_its_own(self):
        content = [[1.0, 2.0]]
        task = tiny.task(from_json=lambda one: one)
        reading.from_json(task, content)[0][0] = 7.0
        self.assertEqual(content, [[1.0, 2.0]])


class ResolvedTest(tf.test.TestCase, parameterized.TestCase):
    """A task's functions are tried before anything is paid for."""

    @parameterized.parameters(
        ("CCO",),
        ({"temperature": 60.0, "solvent": "water", "steps": [1, 2]},),
        ([[0, 1], [1, 2], [2]],),
        ([0.5, 1.5],),
        (("CCO", 2.5),),
        (7,),
        (np.arange(3, dtype=np.int64),),
        (np.array([True, False]),),
        (np.eye(2),),
    )
    def test_inputs_that_json_can_hold_need_no_functions(self, one):
        task = tiny.task(
            read=lambda means, seed: [one] * len(means),
            write=lambda inputs: np.zeros((len(inputs), 4)),
        )
        task = reading.resolved(task, tiny.data())
        content = reading.as_json(task, one)
        again = reading.from_json(task, json.loads(json.dumps(content)))
        self.assertIs(type(again), type(one))
        if isinstance(one, np.ndarray):
            self.assertAllEqual(again, one)
        else:
            self.assertEqual(again, one)
        self.assertEqual(
            getattr(again, "dtype", None), getattr(one, "dtype", None)
        )

    def test_decoder_means_stay_arrays_of_their_own_dtype(self):
        task = reading.resolved(tiny.task(), tiny.data())
        again = reading.from_json(task, [1.0, 2.0])
        self.assertEqual(again.dtype, np.float32)

    @parameterized.named_parameters(
        (
            "read",
            {"read": lambda means, seed: 1 / 0},
            "`read` .* fails .* Zero",
        ),
        ("text", {"read": lambda means, seed: "CCO"}, "`read` .* got str"),
        ("many", {"read": lambda means, seed: [1, 2]}, "`read` .* got 2"),
        (
            "shape",
            {"write": lambda x: np.zeros(3)},
            r"`write` .* \(1, 4\), got",
        ),
        ("write", {"write": lambda x: x[5]}, "`write` .* fails: IndexError"),
        (
            "infinite",
            {"write": lambda x: [[np.inf] * 4]},
            "`write` .* infinite",
        ),
        ("json", {"to_json": lambda x: {1, 2}}, "`to_json` .* got set"),
        (
            "back",
            {"from_json": lambda x: 1 / 0},
            "`from_json` .* fails .* Zero",
        ),
        ("other", {"from_json": lambda x: x[:1]}, "`from_json` .* for "),
        ("picture", {"to_picture": lambda x: x}, "`to_picture` .* fails"),
    )
    def test_what_fails_is_named(self, functions, message):
        with self.assertRaisesRegex((TypeError, ValueError), message):
            reading.resolved(tiny.task(**functions), tiny.data())

    def test_picture_that_can_not_be_drawn_is_a_warning(self):
        task = tiny.task(to_picture=lambda one: 1 / 0)
        with self.assertLogs("tfvae", "WARNING") as logged:
            reading.resolved(task, tiny.data())
        self.assertRegex(logged.output[0], "`to_picture` .* ZeroDivisionError")

    def test_read_is_tried_with_floats_where_points_are_bytes(self):
        data, seen = ScoredData(np.array([[1, 2]], np.uint8), [1.0]), []

        def read(means, seed):
            seen.append(-means)
            return [*means]

        task = reading.resolved(tiny.task(read=read), data)
        np.testing.assert_array_equal(seen, [[[-1.0, -2.0]]])
        self.assertEqual(task.from_json([0.5]).dtype, np.float32)

    def test_whole_numbers_of_the_data_do_not_round_queries(self):
        points = np.array([[1, 2, 3, 4]], np.uint8)
        task = reading.resolved(
            tiny.task(), ScoredData(points, [1.0], list(points))
        )
        self.assertAllEqual(reading.from_json(task, [0.5]), [0.5])

    def test_data_that_decode_to_nothing_decide_nothing(self):
        task = tiny.task(read=lambda means, seed: [None] * len(means))
        reading.resolved(task, tiny.data())

    def test_inputs_of_the_data_decide_where_they_are_given(self):
        data = ScoredData(
            tiny.data().points, tiny.data().scores, ["CCO"] * tiny.NUM_DATA
        )
        task = tiny.task(
            read=lambda means, seed: [None] * len(means),
            write=lambda texts: np.full((len(texts), 4), len(texts[0])),
        )
        task = reading.resolved(task, data)
        self.assertEqual(reading.from_json(task, "CC"), "CC")


if __name__ == "__main__":
    tf.test.main()
