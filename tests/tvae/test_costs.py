# SPDX-License-Identifier: Apache-2.0
"""Tests of the formulas for what training takes."""

from __future__ import annotations

import tensorflow as tf

from tests.tvae import tiny
from tfvae import tvae
from tfvae.ops import truncated
from tfvae.tvae import costs


class CostsTest(tf.test.TestCase):
    def test_seconds_are_counted_by_hand(self):
        own = costs.Work(
            products=100,
            num_observed=10,
            num_states=4,
            num_children=3,
            num_m_states=2,
            num_sharing=1,
            distinct=0.5,
        )
        decoded = 0.5 * (0.4 * 7 * 2 * 100 + 2 * 6 * 100) / 1e9
        others = 4e-9 * (7 * 10 + 2 * 2 * 10) + 1e-7 * (7 + 2)
        self.assertAllClose(costs.point_seconds(own, 1e9), decoded + others)
        shared = own._replace(num_sharing=8)
        decoded += 0.5 * 0.4 * 7 * 2 * 10 * 8 / 1e9
        others = 4e-9 * (2 * 2 * 10 + 0.5 * 7 * 8) + 1e-7 * (7 + 2)
        self.assertAllClose(costs.point_seconds(shared, 1e9), decoded + others)

    def test_large_decoders_are_as_fast_as_matrix_products(self):
        work = costs.Work(10**9, 10, 4, 3, 2, 1, 1.0)
        one, two = (costs.expected_speed(work, 64, n) for n in (1e9, 2e9))
        self.assertAllClose(two, 2.0 * one, rtol=1e-3)

    def test_small_steps_take_the_time_of_a_step(self):
        work = costs.Work(1, 1, 4, 3, 2, 1, 1.0)
        one, ten = (costs.expected_speed(work, n, 1e12) for n in (1, 10))
        self.assertAllClose(ten, 10.0 * one, rtol=1e-2)

    def test_states_that_differ_are_those_of_visited_points(self):
        model = tiny.make()
        num_states, most = tiny.NUM_STATES, 2**tiny.NUM_LATENTS
        self.assertEqual(
            costs.distinct_fraction(model, 8), most / (8 * num_states)
        )
        states = model.states.gather(tf.range(2))
        packed = tf.repeat(states.packed[:1], 2, 0)  # The same for two.
        log_joints = tf.zeros([2, num_states])
        model.states.scatter(
            tf.range(2), truncated.StateSet(packed, log_joints)
        )
        self.assertEqual(costs.distinct_fraction(model, 8), 0.5)

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
                distinct=2**tiny.NUM_LATENTS / (5 * tiny.NUM_STATES),
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
