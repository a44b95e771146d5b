# SPDX-License-Identifier: Apache-2.0
"""Tests of learning-rate schedules against piecewise linear interpolation."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae import schedules


class TriangularCyclicalTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(1, 4, 7, 40)
    def test_rate_climbs_and_falls_in_straight_lines(self, half_cycle_steps):
        schedule = schedules.TriangularCyclical(0.1, 0.5, half_cycle_steps)
        steps = np.arange(6 * half_cycle_steps)
        corners = half_cycle_steps * np.arange(7)
        expected = np.interp(steps, corners, [0.1, 0.5] * 3 + [0.1])
        self.assertAllClose([schedule(step) for step in steps], expected)

    def test_rate_is_exact_after_billions_of_steps(self):
        schedule = schedules.TriangularCyclical(1e-4, 0.05, 1000)
        for step in (3, 999, 1000, 1700):
            late = schedule(tf.constant(2000 * 10**6 + step, tf.int64))
            self.assertAllEqual(late, schedule(step))

    def test_rate_is_the_same_in_graphs_and_under_xla(self):
        schedule = schedules.TriangularCyclical(1e-4, 0.05, 10)
        for jit in (False, True):
            compiled = tf.function(schedule.__call__, jit_compile=jit)
            for step in (0, 3, 10, 14):
                self.assertAllClose(
                    compiled(tf.constant(step, tf.int64)), schedule(step)
                )

    def test_equal_rates_are_a_constant_rate(self):
        schedule = schedules.TriangularCyclical(0.2, 0.2, 3)
        self.assertAllClose([schedule(s) for s in range(8)], [0.2] * 8)

    def test_optimizer_steps_with_the_rate_of_its_iteration(self):
        schedule = schedules.TriangularCyclical(0.1, 0.5, 4)
        optimizer = keras.optimizers.SGD(schedule)
        variable = keras.Variable(0.0)
        optimizer.build([variable])
        for step in range(10):
            before = float(variable.value)
            optimizer.apply([tf.constant(1.0)], [variable])
            self.assertAllClose(
                before - float(variable.value), schedule(step), atol=1e-6
            )

    def test_configuration_survives_a_round_trip(self):
        schedule = schedules.TriangularCyclical(0.01, 0.3, 17)
        copy = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(schedule)
        )
        self.assertIsInstance(copy, schedules.TriangularCyclical)
        self.assertEqual(copy.get_config(), schedule.get_config())
        self.assertEqual(
            copy.get_config(),
            {
                "min_learning_rate": 0.01,
                "max_learning_rate": 0.3,
                "half_cycle_steps": 17,
            },
        )

    @parameterized.parameters((0.0, 0.1), (-0.1, 0.1), (0.2, 0.1))
    def test_rates_that_do_not_climb_from_above_0_are_reported(self, low, high):
        with self.assertRaisesRegex(
            ValueError, f"`min_learning_rate` must be .*got {low} and {high}"
        ):
            schedules.TriangularCyclical(low, high, 5)

    @parameterized.parameters(0, -3)
    def test_half_cycles_without_a_step_are_reported(self, steps):
        with self.assertRaisesRegex(
            ValueError, f"`half_cycle_steps` must be an integer .* got {steps}"
        ):
            schedules.TriangularCyclical(0.1, 0.2, steps)


if __name__ == "__main__":
    tf.test.main()
