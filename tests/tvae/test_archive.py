# SPDX-License-Identifier: Apache-2.0
"""Tests of inference that starts from the training data's states."""

from __future__ import annotations

import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests.tvae import tiny
from tfvae import tvae
from tfvae.ops import bits, densities, truncated
from tfvae.tvae import states as states_lib

_EVERY = 2**tiny.NUM_LATENTS


def _unpacked(packed):
    return np.asarray(bits.unpack(tf.constant(packed), tiny.NUM_LATENTS))


class MostUsedTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters((3, 2), (40, 1), (40, 3))
    def test_counts_by_rank_over_visited_points(self, count, at_once):
        rng = np.random.default_rng(0)
        store = states_lib.StateStore(11, 3, 4)
        store.initialize(tf.constant([0, 1]))
        store.visited.assign(rng.random(11) < 0.7)
        uses: dict[bytes, float] = {}
        for packed, visited in zip(
            store.packed.numpy(), store.visited.numpy(), strict=True
        ):
            for rank, state in enumerate(packed if visited else []):
                key = state.tobytes()
                uses[key] = uses.get(key, 0.0) + 1.0 / (1.0 + rank)
        rows, states_lib._ROWS_AT_ONCE = states_lib._ROWS_AT_ONCE, at_once
        try:
            found = states_lib.most_used(store, count)
        finally:
            states_lib._ROWS_AT_ONCE = rows
        keys = [row.tobytes() for row in found]
        self.assertLen(keys, min(count, len(uses)))
        self.assertLen({*keys}, len(keys))
        best = sorted(uses.values(), reverse=True)[: len(keys)]
        self.assertAllClose([uses[key] for key in keys], best)

    def test_none_are_used_before_training(self):
        store = states_lib.DiskStateStore(5, 3, 10)
        store.initialize(tf.constant([0, 1]))
        self.assertEqual(states_lib.most_used(store, 4).shape, (0, 2))


class ArchiveTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters("gaussian", "poisson")
    def test_of_all_states_is_exact_after_one_step(self, likelihood):
        model = tiny.make(likelihood, num_archived=_EVERY)
        x = tiny.data(1)
        found = model.infer(x, max_steps=1)
        batch = densities.split_missing(tf.constant(x))
        every = tf.constant(bits.all_states(tiny.NUM_LATENTS))
        log_joints = model._joint.log_prob_pairs(*batch, every)
        best = tf.math.top_k(log_joints, tiny.NUM_STATES).values
        self.assertAllClose(found.bound, truncated.free_energy(best), rtol=1e-5)

    def test_is_never_worse_than_its_best_states(self):
        model = tiny.make(num_archived=8, seed=3)
        x = tiny.data(1)
        states = tf.constant(_unpacked(model.archive.numpy()))
        batch = densities.split_missing(tf.constant(x))
        log_joints = model._joint.log_prob_pairs(*batch, states)
        best = tf.math.top_k(log_joints, tiny.NUM_STATES).values
        first = truncated.free_energy(best).numpy()
        self.assertAllGreaterEqual(
            model.infer(x, max_steps=1).bound - first, -1e-4
        )

    def test_has_the_states_of_the_training_data_after_training(self):
        model = tiny.make(num_archived=10)
        before = model.archive.numpy()
        self.assertLen({row.tobytes() for row in before}, 10)
        model.compile(keras.optimizers.Adam(1e-3))
        (callback,) = (
            one
            for one in model.training_callbacks()
            if isinstance(one, tvae.UpdateArchive)
        )
        model.fit(
            tiny.data(),
            tiny.INDEX,
            batch_size=4,
            epochs=2,
            verbose=0,
            callbacks=[callback],
        )
        after = model.archive.numpy()
        self.assertLen({row.tobytes() for row in after}, 10)
        used = states_lib.most_used(model.states, 10)
        self.assertAllEqual(after[: len(used)], used)
        # Others stay where the data have fewer.
        others = {row.tobytes() for row in after[len(used) :]}
        self.assertTrue(others <= {row.tobytes() for row in before})

    def test_is_saved_with_the_model(self):
        model = tiny.make(num_archived=9)
        model.archive.assign(model.archive.numpy()[::-1])
        path = pathlib.Path(self.create_tempdir().full_path) / "model.keras"
        model.save(path)
        loaded = keras.saving.load_model(path)
        self.assertAllEqual(loaded.archive, model.archive)
        x = tiny.data(1)
        self.assertAllEqual(
            loaded.infer(x, max_steps=1).packed,
            model.infer(x, max_steps=1).packed,
        )

    def test_goes_with_a_model_of_more_data(self):
        model = tiny.make(num_archived=9)
        model.archive.assign(model.archive.numpy()[::-1])
        self.assertAllEqual(model.with_capacity(20).archive, model.archive)

    def test_wrong_use_is_refused(self):
        for number in (tiny.NUM_STATES - 1, _EVERY + 1):
            with self.assertRaisesRegex(ValueError, "`num_archived` must be"):
                tiny.make(num_archived=number)
        with self.assertRaisesRegex(ValueError, "`num_archived` must be 0 wh"):
            tiny.make(num_states=_EVERY, num_archived=_EVERY)
        with self.assertRaisesRegex(RuntimeError, "`num_archived` must be pos"):
            tiny.make().update_archive()


if __name__ == "__main__":
    tf.test.main()
