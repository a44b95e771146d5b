# SPDX-License-Identifier: Apache-2.0
"""Tests of shards: writing, reading, damage."""

from __future__ import annotations

import json
import pathlib
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae import data, likelihoods
from tfvae.data import shard_writing, shards
from tfvae.data.shard_writing import Arrays


def _points(num_data: int = 23, num_observed: int = 3) -> np.ndarray:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(num_data, num_observed))
    points = points.astype(np.float32)
    points[4, 1] = np.nan
    return points


class _Folder(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path) / "new"

    def _write(self, *arrays, **settings):
        return data.write_shards(self.folder, Arrays(arrays), **settings)


class ShardedRowsTest(_Folder):
    @parameterized.parameters(1, 5, 23, 100)
    def test_rows_are_those_of_the_arrays_in_order(self, rows_per_shard):
        points = _points()
        manifest = self._write(
            points[:9], points[9:], rows_per_shard=rows_per_shard
        )
        self.assertLen(manifest.shards, -(-23 // rows_per_shard))
        rows = data.ShardedRows(self.folder)
        self.assertEqual(rows.shape, points.shape)
        self.assertAllEqual(np.asarray(rows), points)
        for index in ([22, 0, 7, 7, 5], [3, 4, 5], [0, 0, 2], [], [9]):
            index = np.array(index, np.int32)
            self.assertAllEqual(rows.take(index), points[index])

    @parameterized.parameters((0, 2**23), (2**14, 1), (0, 1), (30, 36))
    def test_rows_do_not_depend_on_how_they_are_read(self, gap, piece):
        points = _points()
        self._write(points, rows_per_shard=8)
        rows = data.ShardedRows(self.folder)
        with mock.patch.multiple(shards, _GAP_BYTES=gap, _READ_BYTES=piece):
            for index in (np.arange(23), np.arange(0, 23, 3), [5, 1, 20, 1]):
                index = np.asarray(index)
                self.assertAllEqual(rows.take(index), points[index])

    def test_manifest_describes_the_data(self):
        points = _points(12, 6).reshape(12, 2, 3)
        self._write(points, rows_per_shard=5)
        content = json.loads((self.folder / shards.MANIFEST).read_text())
        self.assertEqual(content["num_rows"], 12)
        self.assertEqual(content["num_columns"], 6)
        self.assertEqual(content["event_shape"], [2, 3])
        self.assertEqual(content["dtype"], "float32")
        self.assertEqual([one["rows"] for one in content["shards"]], [5, 5, 2])
        self.assertEqual(sum(one["missing"] for one in content["shards"]), 1)
        limits = [np.nanmin(points), np.nanmax(points)]
        self.assertAllEqual(np.float32(content["value_range"]), limits)

    @parameterized.parameters(
        ("uint8", None, "uint8"),
        ("bool", None, "uint8"),
        ("int64", None, "float32"),
        ("float64", None, "float32"),
        ("float64", "float16", "float16"),
        ("float64", "uint8", "uint8"),
    )
    def test_values_are_kept_in_the_type_asked_for(self, of, asked, stored):
        points = np.arange(8).reshape(4, 2).astype(of)
        manifest = self._write(points, dtype=asked)
        self.assertEqual(manifest.dtype, stored)
        self.assertEqual(
            np.load(self.folder / "shard-000000.npy").dtype, stored
        )
        rows = data.ShardedRows(self.folder, scale=0.5)
        self.assertEqual(rows[:].dtype, np.float32)
        self.assertAllEqual(rows[:], 0.5 * points.astype(np.float32))
        self.assertEqual(rows.limits, (0.0, 0.5 * float(points.max())))

    def test_source_is_what_a_model_trains_on(self):
        self._write(_points(40, 4), rows_per_shard=16)
        test = self.folder.with_name("test")
        data.write_shards(test, Arrays([_points(300, 4)]))
        found = data.shard_files(
            str(self.folder), test_path=str(test), num_test=128, scale=2.0
        )
        self.assertIsInstance(found.train, data.ShardedRows)
        self.assertEqual((found.num_data, found.num_observed), (40, 4))
        self.assertEqual(found.test.shape, (128, 4))
        self.assertEqual(found.event_shape, (4,))
        self.assertEqual(found.value_range, found.train.limits)

    @parameterized.parameters(
        (likelihoods.BernoulliLikelihood(), [[0.0], [2.0]], "must be in .0, 1"),
        (likelihoods.SequenceLikelihood(1, 2), [[0.5, 0.4]], "one-hot or prob"),
    )
    def test_values_outside_of_the_support_are_refused(
        self, likelihood, points, message
    ):
        self._write(np.array(points))
        with self.assertRaisesRegex(ValueError, message):
            likelihood.validate(data.ShardedRows(self.folder))

    def test_sample_is_of_distinct_rows_or_all(self):
        self._write(np.arange(1000.0)[:, None], rows_per_shard=300)
        rows = data.ShardedRows(self.folder)
        self.assertAllEqual(data.sample_rows(rows, 1000), rows[:])
        found = data.sample_rows(rows, 256, seed=1)[:, 0]
        self.assertLen(found, 256)
        self.assertLen(set(found), len(found))
        self.assertNotAllEqual(found, data.sample_rows(rows, 256, seed=2)[:, 0])

    @parameterized.parameters(
        ("rm {}/shard-000001.npy", FileNotFoundError, "all shards"),
        ("cut {}/shard-000001.npy", ValueError, "as manifest.json describes"),
        ("flip {}/shard-000001.npy", ValueError, "undamaged shards, got .*001"),
        ("rm {}/manifest.json", FileNotFoundError, "with manifest.json"),
        ("cut {}/manifest.json", ValueError, "manifest.json of format 1"),
    )
    def test_damage_is_found(self, command, error, message):
        self._write(_points(), rows_per_shard=10)
        action, path = command.format(self.folder).split()
        path = pathlib.Path(path)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        if action == "rm":
            path.unlink()
        else:
            path.write_bytes(content if action == "flip" else content[:-1])
        with self.assertRaisesRegex(error, f"`path` must.*{message}"):
            data.shard_files(str(self.folder), verify=True)

    def test_data_are_told_apart_without_reading_them(self):
        points = _points()
        self._write(points)
        rows = data.ShardedRows(self.folder)
        other = self.folder.with_name("other")
        points[3, 2] += 1.0
        data.write_shards(other, Arrays([points]))
        sums = {
            rows.crc32,
            data.ShardedRows(self.folder, scale=2.0).crc32,
            data.ShardedRows(other).crc32,
        }
        self.assertLen(sums, 3)
        self.assertEqual(rows.crc32, data.ShardedRows(self.folder).crc32)


class _Interrupted(Exception):
    pass


class WriteShardsTest(_Folder):
    @parameterized.parameters(0, 1, 2, 3, 4)
    def test_interrupted_writing_continues_to_the_same_files(self, num_written):
        points = _points(40)
        arrays = [points[:7], points[7:31], points[31:]]
        whole = self.folder.with_name("whole")
        data.write_shards(whole, Arrays(arrays), rows_per_shard=9)
        written = []
        original = shard_writing.crc32_of_file

        def interrupting(path):
            if len(written) == num_written:
                raise _Interrupted  # The shard has its name, but no record.
            written.append(path)
            return original(path)

        with (
            mock.patch.object(shard_writing, "crc32_of_file", interrupting),
            self.assertRaises(_Interrupted),
        ):
            self._write(*arrays, rows_per_shard=9)
        (self.folder / "shard-000009.npy.partial").write_text("killed")
        with mock.patch.object(
            shard_writing, "crc32_of_file", side_effect=original
        ) as counted:
            self._write(*arrays, rows_per_shard=9)
        self.assertEqual(counted.call_count, 5 - num_written)
        names = {path.name for path in self.folder.iterdir()}
        self.assertEqual(names, {path.name for path in whole.iterdir()})
        for name in names:
            self.assertEqual(
                (self.folder / name).read_bytes(), (whole / name).read_bytes()
            )
        # Once complete, there is nothing to do.
        with mock.patch.object(shard_writing._Writer, "write") as write:
            self._write(*arrays, rows_per_shard=9)
        write.assert_not_called()

    def test_folder_of_other_shards_is_refused(self):
        points = _points()
        self._write(points, rows_per_shard=9)
        for arrays, settings in (
            ([points], {"rows_per_shard": 8}),
            ([points + 1.0], {"rows_per_shard": 9}),
        ):
            with self.assertRaisesRegex(
                ValueError, "must be empty, or the inp"
            ):
                self._write(*arrays, **settings)
        (self.folder / shard_writing.PROGRESS).unlink()
        with self.assertRaisesRegex(ValueError, "must be empty, or have those"):
            self._write(points, rows_per_shard=9)

    @parameterized.parameters(
        ([np.array(["a"])], {}, TypeError, "must be numbers, got dtype <U1"),
        ([np.zeros((0, 2))], {}, ValueError, "must have a data point"),
        ([np.zeros((3, 0))], {}, ValueError, "at least one entry"),
        (
            [np.zeros((2, 3)), np.zeros((2, 4))],
            {},
            ValueError,
            r"shape \(3,\) of the first ones, got \(4,\) in array 1",
        ),
        (
            [np.zeros((2, 1)), [[0.0], [np.inf]]],
            {},
            ValueError,
            "finite, got an infinite value in row 1 of array 1",
        ),
        ([[[np.nan, np.nan]]], {}, ValueError, "observed entry.*row 0"),
        (
            [[[0.0, np.nan]]],
            {"allow_missing": False},
            ValueError,
            "no missing entries .* row 0 of array 0",
        ),
        ([[[1e39]]], {}, ValueError, "holds all values, got float32 for 1e"),
        ([[[2**24 + 1]]], {}, ValueError, "got float32 for 16777217"),
        ([[[0.5]]], {"dtype": "uint8"}, ValueError, "got uint8 for 0.5 in"),
        ([[[np.nan, 1.0]]], {"dtype": "uint8"}, ValueError, "uint8 for nan"),
        ([[[1.0]]], {"dtype": "int8"}, ValueError, "`dtype` must be one of"),
        ([[[1.0]]], {"rows_per_shard": 0}, ValueError, "`rows_per_shard`"),
    )
    def test_wrong_data_are_refused(self, arrays, settings, error, message):
        arrays = [np.asarray(one) for one in arrays]
        with self.assertRaisesRegex(error, message):
            self._write(*arrays, **settings)
        self.assertFalse((self.folder / shards.MANIFEST).exists())


if __name__ == "__main__":
    tf.test.main()
