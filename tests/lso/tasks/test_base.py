# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
from absl.testing import absltest, parameterized

from tfvae.lso import ScoredData, Task

POINTS = np.arange(6.0).reshape(3, 2)
SCORES = np.arange(3.0)


class ScoredDataTest(parameterized.TestCase):
    @parameterized.parameters(np.float16, np.float64, np.int64, bool, object)
    def test_takes_any_real_numbers(self, dtype):
        data = ScoredData(POINTS.astype(dtype), SCORES.astype(dtype).tolist())
        np.testing.assert_array_equal(data.points, POINTS.astype(dtype))
        self.assertEqual(data.points.dtype, np.float32)
        self.assertEqual(data.scores.dtype, np.float64)

    def test_bytes_stay_bytes(self):
        data = ScoredData(POINTS.astype(np.uint8), SCORES)
        self.assertEqual(data.points.dtype, np.uint8)
        np.testing.assert_array_equal(data.points, POINTS)

    def test_entries_may_be_missing(self):
        points = np.where(POINTS == 3.0, np.nan, POINTS)
        data = ScoredData(points, SCORES)
        np.testing.assert_array_equal(data.points, points)

    @parameterized.parameters(
        (np.inf, "got inf"), (-np.inf, "got -inf"), (1e300, "got inf")
    )
    def test_refuses_infinite_points(self, value, got):
        points = np.where(POINTS >= 3.0, value, POINTS)
        with self.assertRaisesRegex(
            ValueError, rf"`points` must be finite.*{got} at \(1, 1\) and 3"
        ):
            ScoredData(points, SCORES)

    @parameterized.parameters(
        ("scores", 1j * SCORES, "complex128"),
        ("scores", SCORES.astype(str), "<U"),
        ("points", POINTS + 0j, "complex128"),
    )
    def test_refuses_what_is_no_real_number(self, name, value, got):
        given = {"points": POINTS, "scores": SCORES, name: value}
        with self.assertRaisesRegex(
            TypeError, f"`{name}` must be real numbers, got values of {got}"
        ):
            ScoredData(**given)

    def test_constraints_have_a_value_for_each_point(self):
        values = np.full(len(SCORES), np.nan)
        data = ScoredData(POINTS, SCORES, constraints={"cost": values})
        np.testing.assert_array_equal(data.constraints["cost"], values)
        for wrong in (values[1:], np.full(len(SCORES), np.inf)):
            with self.assertRaisesRegex(ValueError, r"`constraints\['cost'\]`"):
                ScoredData(POINTS, SCORES, constraints={"cost": wrong})


class TaskTest(absltest.TestCase):
    def test_data_are_made_once_for_each_seed(self):
        made = []

        def data(seed):
            made.append(seed)
            return ScoredData(POINTS, SCORES)

        task = Task("one", data=data, objective=np.sum)
        again = dataclasses.replace(task, name="two")
        for one in (task, again, task):
            self.assertIs(one.data(3), task.data(3))
            one.data(4)
        self.assertEqual(made, [3, 4])


if __name__ == "__main__":
    absltest.main()
