# SPDX-License-Identifier: Apache-2.0
"""Tests of the store of latent states."""

from __future__ import annotations

from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests import oracles
from tests.tvae import tiny
from tfvae import tvae
from tfvae.ops import random, truncated
from tfvae.tvae import states as states_lib


def _new_states(num_data, num_states, num_bits, seed):
    packed = truncated.initial_states(
        random.make_seed(seed), num_data, num_states, num_bits
    )
    values = np.random.default_rng(seed).normal(size=(num_data, num_states))
    return truncated.StateSet(packed, tf.constant(values, tf.float32))


class StateStoreTest(tf.test.TestCase, parameterized.TestCase):
    def test_weights_are_packed_bytes_and_visits(self):
        store = tvae.StateStore(5, 4, 11)
        self.assertEqual(store.packed.shape, (5, 4, 2))
        self.assertEqual(store.packed.dtype, "uint8")
        self.assertEqual(store.visited.dtype, "bool")
        self.assertAllEqual(store.visited, [False] * 5)
        self.assertEmpty(store.trainable_variables)
        self.assertLen(store.variables, 2)

    @parameterized.parameters((5, 4), (12, 3), (1, 4))
    def test_first_states_are_distinct_whatever_is_drawn_at_once(
        self, num_data, num_drawn
    ):
        original = states_lib._BITS_PER_DRAW
        self.addCleanup(setattr, states_lib, "_BITS_PER_DRAW", original)
        states_lib._BITS_PER_DRAW = num_drawn * 15 * 5
        store = tvae.StateStore(num_data, 15, 5)
        store.initialize(random.make_seed(0))
        packed = store.packed.numpy()
        for row in packed:
            self.assertEqual(oracles.count_distinct(row), 15)
        self.assertEqual(oracles.count_distinct(packed), num_data)

    def test_more_states_than_memory_holds_are_refused(self):
        with self.assertRaisesRegex(ValueError, "`num_states`"):
            tvae.StateStore(10**9, 1000, 64)

    def test_seed_decides_the_first_states(self):
        first, same, other = (tvae.StateStore(6, 9, 20) for _ in range(3))
        for store, seed in ((first, 1), (same, 1), (other, 2)):
            store.initialize(random.make_seed(seed))
        self.assertAllEqual(first.packed, same.packed)
        self.assertNotAllEqual(first.packed, other.packed)

    @parameterized.parameters(None, False, True)
    def test_scattered_states_are_gathered_and_others_stay(self, jit):
        store = tvae.StateStore(6, 4, 11)
        store.initialize(random.make_seed(0))
        before = store.packed.numpy()
        new = _new_states(3, 4, 11, seed=5)
        index = tf.constant([4, 0, 2])

        def update():
            store.scatter(index, new)
            return store.gather(tf.reverse(index, [0]))

        if jit is not None:
            update = tf.function(update, jit_compile=jit)
        found = update()
        self.assertAllEqual(found.packed, new.packed[::-1])
        self.assertAllEqual(found.visited, [True] * 3)
        others = [1, 3, 5]
        self.assertAllEqual(store.packed.numpy()[others], before[others])
        self.assertAllEqual(
            store.visited, [True, False, True, False, True, False]
        )

    def test_every_argument_survives_a_round_trip(self):
        store = tvae.StateStore(6, 4, 11, name="given")
        copy = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(store)
        )
        self.assertEqual(
            (copy.num_data, copy.num_states, copy.num_latents, copy.name),
            (6, 4, 11, "given"),
        )
        store.initialize(random.make_seed(0))
        store.scatter(tf.constant([2]), _new_states(1, 4, 11, seed=5))
        copy.set_weights(store.get_weights())
        self.assertAllEqual(copy.packed, store.packed)
        self.assertAllEqual(copy.visited, store.visited)
        self.assertFalse(copy.trainable)

    @parameterized.parameters(None, 0)
    def test_model_draws_its_first_states_when_told_to(self, in_memory):
        second = mock.Mock(
            rank=1, size=2, gather=lambda n: [n, n], broadcast=lambda one: one
        )
        drawn = tiny.make(states_in_memory=in_memory)
        drawn.set_ranks(second)
        with mock.patch.object(states_lib, "_first_states") as draw:
            with tvae.undrawn_states():
                model = tiny.make(states_in_memory=in_memory)
            model.set_ranks(second)
            draw.assert_not_called()
        model.draw_first_states()
        self.assertAllEqual(
            np.array(model.states.packed), np.array(drawn.states.packed)
        )

    def test_files_with_log_joints_are_loaded(self):
        store = tvae.StateStore(3, 4, 11)
        new = _new_states(3, 4, 11, seed=5)
        log_joints = np.full((3, 4), -np.inf, np.float32)
        log_joints[1] = new.log_joints[1]
        saved = {"0": new.packed.numpy(), "1": log_joints}
        store.load_own_variables(saved)
        self.assertAllEqual(store.packed, new.packed)
        self.assertAllEqual(store.visited, [False, True, False])


class DiskStateStoreTest(tf.test.TestCase):
    def test_states_are_those_of_a_store_in_memory(self):
        stores = tvae.StateStore(6, 4, 11), tvae.DiskStateStore(6, 4, 11)
        new = _new_states(3, 4, 11, seed=5)
        index = tf.constant([4, 0, 2])

        found = []
        for store in stores:
            store.initialize(random.make_seed(0))

            @tf.function
            def update(store=store):
                store.scatter(index, new)
                return store.gather(tf.reverse(index, [0]))

            first = store.gather(tf.range(6))
            update()
            found.append([*first, *store.gather(tf.range(6))])
            self.assertAllEqual(update().packed, new.packed[::-1])
        for one, other in zip(*found, strict=True):
            self.assertAllEqual(one, other)

    def test_rows_are_copied_from_memory_and_back(self):
        first, second = tvae.StateStore(6, 4, 11), tvae.DiskStateStore(4, 4, 11)
        first.initialize(random.make_seed(0))
        first.scatter(tf.constant([1, 5]), _new_states(2, 4, 11, seed=5))
        second.copy_rows(first)
        self.assertAllEqual(second.packed, first.packed[:4])
        self.assertAllEqual(second.visited, [False, True, False, False])
        third = tvae.StateStore(6, 4, 11)
        third.copy_rows(second)
        self.assertAllEqual(third.packed[:4], first.packed[:4])
        self.assertAllEqual(third.packed[4:], np.zeros((2, 4, 2)))
        self.assertAllEqual(third.visited, [False, True] + 4 * [False])

    def test_more_states_than_the_disk_holds_are_refused(self):
        with self.assertRaisesRegex(OSError, "64 states of 1,000,000,000,000"):
            tvae.DiskStateStore(10**12, 64, 64)

    def test_file_has_its_room_from_the_start(self):
        with mock.patch(
            "os.posix_fallocate", side_effect=OSError("full")
        ) as one:
            with self.assertRaisesRegex(OSError, "full"):
                tvae.DiskStateStore(6, 4, 11)
        self.assertEqual(one.call_args.args[1:], (0, 6 * 4 * 2))

    def test_file_is_where_it_is_asked_for(self):
        folder = self.create_tempdir().full_path
        with mock.patch("tempfile.TemporaryFile") as opened:
            opened.side_effect = InterruptedError
            with self.assertRaises(InterruptedError):
                tiny.make(states_in_memory=0, states_folder=folder)
            opened.assert_called_once_with(dir=folder)
        with self.assertRaisesRegex(FileNotFoundError, "`states_folder` must"):
            tiny.make(states_in_memory=0, states_folder=f"{folder}/none")

    def test_model_holds_on_disk_what_is_over_its_limit(self):
        # 11 points, 6 states of one byte, and whether there was a visit.
        self.assertEqual(states_lib.state_bytes(11, 6, 4), 77)
        for limit, is_on_disk in ((76, True), (77, False), (None, False)):
            model = tiny.make(states_in_memory=limit)
            self.assertEqual(
                isinstance(model.states, tvae.DiskStateStore), is_on_disk
            )
            self.assertEqual(bool(model.arrays_on_disk()), is_on_disk)
        with self.assertRaisesRegex(ValueError, "`exploration` must be None"):
            tiny.make(states_in_memory=0, exploration=tvae.Exploration())


if __name__ == "__main__":
    tf.test.main()
