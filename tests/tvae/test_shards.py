# SPDX-License-Identifier: Apache-2.0
"""Tests of training a TVAE on shards."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tvae import tiny
from tfvae import data
from tfvae.data.shard_writing import Arrays
from tfvae.ops.rows import part_of


class TrainingOnShardsTest(tf.test.TestCase):
    def _fitted(self, points, **settings):
        model = tiny.make(**settings)
        model.compile(keras.optimizers.SGD(0.01))
        history = model.fit(
            model.batches(points, 4, seed=1, block_rows=2),
            steps_per_epoch=3,
            epochs=2,
            shuffle=False,
            verbose=0,
        )
        states = model.states.gather(tf.range(tiny.NUM_DATA)).packed
        return history.history, model.decoder.get_weights(), states

    @pytest.mark.slow  # Two graphs; its parts are tested by default.
    def test_shards_and_disk_give_what_arrays_and_memory_give(self):
        folder = self.create_tempdir().full_path
        points = tiny.data()
        data.write_shards(folder, Arrays([points]), rows_per_shard=3)
        in_memory = self._fitted(points)
        beyond = self._fitted(data.ShardedRows(folder), states_in_memory=0)
        for one, other in zip(
            *map(tf.nest.flatten, (in_memory, beyond)), strict=True
        ):
            self.assertAllEqual(one, other)

    def test_ranks_have_their_rows_of_the_same_batches(self):
        folder = self.create_tempdir().full_path
        points = np.arange(22.0, dtype=np.float32).reshape(11, 2)
        data.write_shards(folder, Arrays([points]), rows_per_shard=3)
        rows = data.ShardedRows(folder)
        seen = []
        for rank in range(2):
            mine = part_of(rows, slice(rank, 11, 2))
            batches = data.indexed_batches(mine, 4, 0, 0, 11)
            found = list(itertools.islice(batches.as_numpy_iterator(), 3))
            for values, index in found:
                self.assertAllEqual(values, points[rank::2][index])
            seen += [values for values, _ in found]
        self.assertAllEqual(np.sort(np.concatenate(seen)[:, 0]), points[:, 0])


if __name__ == "__main__":
    tf.test.main()
