# SPDX-License-Identifier: Apache-2.0
"""Tests of the formulas for what training takes."""

from __future__ import annotations

import tensorflow as tf

from tests.tvae import tiny
from tfvae import tvae
from tfvae.tvae import costs


class CostsTest(tf.test.TestCase):
    def test_operations_are_counted_by_hand(self):
        own = costs.Work(
            products=100,
            num_observed=10,
            num_states=4,
            num_children=3,
            num_m_states=2,
            num_sharing=1,
        )
        e_step = 7 * (2 * 100 + 3 * 10)
        m_step = 2 * (6 * 100 + 6 * 10)
        self.assertEqual(costs.operations(own), e_step + m_step)
        shared = own._replace(num_sharing=8)
        e_step = 7 * (2 * 100 + 2 * 10 * 8)
        self.assertEqual(costs.operations(shared), e_step + m_step)

    def test_speed_is_in_proportion_to_rate_and_operations(self):
        work = costs.Work(100, 10, 4, 3, 2, 1)
        speed = costs.expected_speed(work, 10**12, 1e9)
        self.assertGreater(speed, 0.01 * 1e9 / costs.operations(work))
        self.assertLess(speed, 1e9 / costs.operations(work))
        found = costs.expected_speed(work, 10**12, 2e9)
        self.assertAllClose(found, 2.0 * speed)
        twice = costs.Work(200, 20, 4, 3, 2, 1)
        found = costs.expected_speed(twice, 10**12, 1e9)
        self.assertAllClose(found, speed / 2.0)

    def test_small_steps_take_the_time_of_a_step(self):
        work = costs.Work(1, 1, 4, 3, 2, 1)
        one, ten = (costs.expected_speed(work, n, 1e12) for n in (1, 10))
        self.assertAllClose(ten, 10.0 * one, rtol=1e-3)

    def test_work_and_room_are_those_of_the_model(self):
        model = tiny.shared()
        work = costs.work_of(model, 5)
        decoder = tiny.NUM_LATENTS * 5 + 5 * tiny.NUM_OBSERVED
        self.assertEqual(
            work,
            costs.Work(
                products=decoder,
                num_observed=tiny.NUM_OBSERVED,
                num_states=tiny.NUM_STATES,
                num_children=3 * 4,
                num_m_states=tiny.NUM_STATES,
                num_sharing=5,
            ),
        )
        self.assertEqual(
            costs.room_for_states(model),
            costs.Room(
                sum(w.value.numpy().nbytes for w in model.states.weights), 0
            ),
        )

    def test_states_on_disk_take_no_memory_but_for_visits(self):
        model = tiny.make(states_in_memory=0)
        self.assertIsInstance(model.states, tvae.DiskStateStore)
        arrays = model.arrays_on_disk()
        self.assertEqual(
            costs.room_for_states(model),
            costs.Room(arrays["visited"].nbytes, arrays["packed"].nbytes),
        )

    def test_all_states_and_convolutions_have_no_estimate(self):
        model = tiny.shared(num_states=2**tiny.NUM_LATENTS)
        self.assertIsNone(costs.work_of(model, 5))

    def test_rate_of_matrix_products_is_plausible(self):
        self.assertBetween(costs.matrix_rate(), 1e7, 1e15)


if __name__ == "__main__":
    tf.test.main()
