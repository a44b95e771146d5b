# SPDX-License-Identifier: Apache-2.0
"""What every data source must do; a new source needs a row here."""

from __future__ import annotations

import inspect
import os

import gin
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae import data

# Bindings by which gin builds a small instance of each source from files in
# the folder that `setUp` writes.
SOURCES = {
    "array_file": {"path": "points.npy", "test_fraction": 0.2},
    "bars": {"num_data": 20},
    "idx_images": {"directory": "."},
    "image_files": {"path": "*.png"},
    "image_patches": {"num_patches": 20, "patch": (4, 4)},
    "molecule_sequences": {
        "path": "molecules.smi",
        "num_steps": 4,
        "num_symbols": 4,
    },
    "resplit_images": {
        "data": data.Observations(
            name="x", train=np.eye(16), event_shape=(4, 4)
        ),
        "num_train": 8,
        "size": (5, 6),
    },
    "shard_files": {"path": "sharded"},
    "sklearn_digits": {},
    "squares": {"side": 8, "max_size": 3, "columns": (1, 2)},
    "tfds_images": {"name": "prepared", "data_dir": "."},
}


class ConformanceTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        folder = self.create_tempdir().full_path
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder)
        np.save("points.npy", np.random.default_rng(0).normal(size=(20, 3)))
        points = np.load("points.npy")
        data.write_shards("sharded", data.shard_writing.Arrays([points]))
        data.write_image("a.png", np.zeros((4, 4)))
        data.write_image("b.png", np.ones((4, 4)))
        with open("molecules.smi", "w") as file:
            file.write("CCO\nCCN\nCO\n")
        with open("train-images-idx3-ubyte", "wb") as file:
            sizes = np.array([2, 3, 4], ">u4").tobytes()
            file.write(bytes([0, 0, 8, 3]) + sizes + bytes(range(24)))

    def test_every_source_is_listed(self):
        sources = {
            name
            for name in data.__all__
            if inspect.isfunction(getattr(data, name))
            and inspect.signature(getattr(data, name)).return_annotation
            == "Observations"
        }
        self.assertEqual(sources, set(SOURCES))

    def _build(self, name):
        for parameter, value in SOURCES[name].items():
            gin.bind_parameter(f"{name}.{parameter}", value)
        return gin.get_configurable(name)()

    @parameterized.parameters(*(set(SOURCES) - {"tfds_images"}))
    def test_gin_builds_the_same_data_each_time(self, name):
        first, again = self._build(name), self._build(name)
        self.assertIsInstance(first, data.Observations)
        train = np.asarray(first.train)
        self.assertAllEqual(train, np.asarray(again.train))
        direct = getattr(data, name)(**SOURCES[name])
        self.assertAllEqual(train, np.asarray(direct.train))

    @parameterized.parameters(*(set(SOURCES) - {"tfds_images"}))
    def test_values_lie_mostly_in_the_stated_range(self, name):
        points = self._build(name)
        low, high = points.value_range
        margin = 0.25 * (high - low)
        train = np.asarray(points.train)
        inside = (train > low - margin) & (train < high + margin)
        self.assertGreater(inside.mean(), 0.95)
        self.assertNotEmpty(points.name)

    def test_tfds_is_reachable_by_gin(self):
        with self.assertRaisesRegex(ValueError, "`name` must be a data set"):
            self._build("tfds_images")


if __name__ == "__main__":
    tf.test.main()
