# SPDX-License-Identifier: Apache-2.0
"""Tests of what a run does with shards instead of arrays."""

from __future__ import annotations

import dataclasses
import pathlib
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from tests.data import records
from tfvae import data
from tfvae.data.shard_writing import Arrays
from tfvae.runs import config, experiment
from tfvae.runs import shard as shard_run
from tfvae.runs.shard import shard


class RunOnShardsTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        folder = self.create_tempdir().full_path
        self.points = np.arange(1000.0, dtype=np.float32).reshape(500, 2)
        data.write_shards(folder, Arrays([self.points]), rows_per_shard=64)
        self.rows = data.ShardedRows(folder)

    def test_model_is_adapted_to_a_sample(self):
        for num_bytes, expected in ((8 * 128, 128), (8 * 500, 500)):
            model = mock.Mock()
            with mock.patch.object(experiment, "_ADAPTED_BYTES", num_bytes):
                experiment._adapt(model, self.rows)
            (sample,) = model.adapt.call_args.args
            self.assertEqual(sample.shape, (expected, 2))
            self.assertLen(set(sample[:, 0]), expected)
            model.likelihood.validate.assert_called_once_with(self.rows)
        model = mock.Mock()
        experiment._adapt(model, self.points)
        self.assertIs(model.adapt.call_args.args[0], self.points)

    def test_checksum_reads_no_values(self):
        with mock.patch("os.pread") as read:
            self.assertEqual(experiment._checksum(self.rows), self.rows.crc32)
        read.assert_not_called()

    def test_thinned_data_are_read_when_they_are_needed(self):
        every = data.Observations("some", self.rows, weights=np.arange(1, 501))
        found = experiment._thinned(every, 100)
        self.assertNotIsInstance(found.train, np.ndarray)
        np.testing.assert_array_equal(found.train[:], self.points[::5])
        np.testing.assert_array_equal(found.weights, np.arange(1, 501)[::5])

    def test_what_thinned_data_have_for_each_point_is_thinned(self):
        labels = np.arange(500)
        every = data.Observations(
            "some",
            self.points,
            test=self.points[:7],
            features=self.points[:3],
            train_labels=labels,
            test_labels=labels[:7],
            validation=self.points[:9],
            weights=labels + 1.0,
            log_likelihood=-1.0,
        )
        thinned = {
            "train": self.points,
            "train_labels": labels,
            "weights": labels + 1.0,
        }
        for max_points, kept in (
            (100, slice(0, 500, 5)),
            (300, slice(300)),
            (999, slice(500)),
        ):
            found = experiment._thinned(every, max_points)
            for field in dataclasses.fields(data.Observations):
                value = getattr(found, field.name)
                expected = getattr(every, field.name)
                if field.name in thinned:
                    expected = thinned[field.name][kept]
                if field.name == "log_likelihood":  # That of all points.
                    expected = None
                np.testing.assert_array_equal(value, expected, field.name)


class ShardTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        np.save(self.folder / "a.npy", np.ones((3, 2), np.float32))
        (self.folder / "b.csv").write_text("1,2\n3,4\n")
        data.write_image(self.folder / "c.png", np.zeros((6, 6)))
        records.write(self.folder / "d.tfrecord", [{"x": [1.0, 2.0, 3.0, 4.0]}])

    def _shard(self, names, settings):
        inputs = [str(self.folder / name) for name in names]
        given = {"inputs": inputs, **settings}
        config.load(
            [],
            [f"shard.{name} = {value!r}" for name, value in given.items()],
            function="shard",
        )
        return shard(self.folder / "new")

    @parameterized.parameters(
        ("a.npy", {}, (3, 2)),
        ("b.csv", {}, (2, 2)),
        ("d.tfrecord", {"shape": (2, 2)}, (1, 4)),
        ("c.png", {}, (1, 36)),
        ("c.png", {"patch": 3, "stride": 3}, (4, 9)),
        ("c.png", {"patch": (2, 3), "size": 4}, (6, 6)),
    )
    def test_files_become_shards(self, name, settings, shape):
        found = self._shard([name], settings)
        self.assertEqual((found.num_rows, found.num_columns), shape)
        self.assertEqual(data.ShardedRows(self.folder / "new").shape, shape)

    @parameterized.parameters(
        (["a.npy", "b.csv"], {}, "`shard.inputs` must be all arrays, all"),
        (["a.npy", "d.tfrecord"], {}, "that end in .npy, .tfrecord"),
        (["d.tfrecord"], {"size": 3}, "`shard.size` must be None for TFRecord"),
        (["a.npy"], {"raw": "uint8"}, "`shard.raw` must be None for all but"),
        (["a.npy"], {"download": True}, "`shard.download` must be None for fi"),
        (
            ["a.npy"],
            {"tfds": "x:train"},
            "either `shard.inputs` or `shard.tfds",
        ),
        (["a.npy"], {"patch": 3}, "`shard.patch` must be None for arrays"),
        (["b.csv"], {"key": "x"}, "`shard.key` must be None but for .npz"),
        (["c.png"], {"stride": 3}, "`shard.patch` must be given with"),
        (
            ["c.png"],
            {"missing": "no"},
            "`shard.missing` must be of type .*'allow'",
        ),
    )
    def test_settings_that_do_not_fit_are_refused(self, names, given, message):
        with self.assertRaisesRegex(ValueError, message):
            self._shard(names, given)
        self.assertFalse((self.folder / "new").exists())

    @parameterized.parameters(
        ("mnist:train", "mnist", "train"),
        ("own/config:1.0.0:test", "own/config:1.0.0", "test"),
        ("mnist:train[:50%]+test[2:]", "mnist", "train[:50%]+test[2:]"),
    )
    def test_data_set_has_a_name_and_a_split(self, given, name, split):
        with mock.patch("tfvae.runs.shard.TfdsSplit") as made:
            found = shard_run._split(given, "u", None, {"download": None})
        self.assertIs(found, made.return_value)
        made.assert_called_once_with(
            name, split, feature="u", size=None, download=False
        )

    @parameterized.parameters("mnist", "mnist:", ":train", "mnist:train[:3")
    def test_data_set_without_a_split_is_refused(self, given):
        with self.assertRaisesRegex(ValueError, "`shard.tfds` must be a name"):
            shard_run._split(given, None, None, {"download": None})


if __name__ == "__main__":
    absltest.main()
