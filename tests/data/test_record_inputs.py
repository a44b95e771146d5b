# SPDX-License-Identifier: Apache-2.0
"""Tests of TFRecord files as what shards are written from."""

from __future__ import annotations

import pathlib
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from tests.data import records
from tfvae.data import record_inputs
from tfvae.data.record_inputs import RecordFiles
from tfvae.data.shard_inputs import matching_files

_POINTS = np.arange(30.0, dtype=np.float32).reshape(5, 6)
_PICTURES = np.arange(5 * 18, dtype=np.uint8).reshape(5, 2, 3, 3)


class RecordFilesTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)

    def _write(self, values, name="a.tfrecord"):
        examples = [{"x": one} for one in values]
        return str(records.write(self.folder / name, examples))

    def _all(self, source, item=0, offset=0):
        """Returns all data points, and the places that they say they have."""
        values, places = [], []
        for part in source.parts(item, offset):
            values.append(part.values)
            rows = range(part.offset, part.offset + len(part.values))
            places += [(part.item, row) for row in rows]
        return np.concatenate(values), places

    @parameterized.parameters("b.tfrecord-00001-of-00002", "b.tfrecord.gz")
    def test_reading_goes_on_from_any_record(self, second):
        self._write(_POINTS[:2])
        self._write(_POINTS[2:], second)
        (self.folder / "others.txt").write_text("x")
        source = RecordFiles(matching_files([str(self.folder)]))
        with mock.patch.object(record_inputs, "INPUT_BYTES", 48):
            values, places = self._all(source)
            np.testing.assert_array_equal(values, _POINTS)
            self.assertEqual(places, [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)])
            for skipped in (1, 2, 3):
                rest, _ = self._all(source, *places[skipped])
                np.testing.assert_array_equal(rest, _POINTS[skipped:])

    @parameterized.named_parameters(
        ("floats", list(_POINTS), {}, _POINTS),
        ("shaped", list(_POINTS), {"shape": (2, 3)}, _POINTS.reshape(5, 2, 3)),
        ("integers", list(np.int64(_POINTS)), {}, np.int64(_POINTS)),
        (
            "bytes_of_arrays",
            [one.tobytes() for one in _PICTURES],
            {"raw": "uint8", "shape": (2, 3, 3)},
            _PICTURES,
        ),
        (
            "floats_in_bytes",
            [one.tobytes() for one in _POINTS],
            {"raw": "float32"},
            _POINTS,
        ),
        (
            "encoded_pictures",
            [tf.io.encode_png(one).numpy() for one in _PICTURES],
            {},
            _PICTURES,
        ),
    )
    def test_features_are_numbers_bytes_or_pictures(
        self, features, settings, expected
    ):
        source = RecordFiles([self._write(features)], **settings)
        values, _ = self._all(source)
        np.testing.assert_array_equal(values, expected)
        self.assertEqual(values.dtype, expected.dtype)

    def test_one_of_several_features_has_to_be_named(self):
        path = records.write(
            self.folder / "a.tfrecord",
            [{"x": [1.0, 2.0], "y": [3]}, {"x": [4.0, 5.0]}],
        )
        values, _ = self._all(RecordFiles([str(path)], "x"))
        np.testing.assert_array_equal(values, [[1, 2], [4, 5]])
        for key, number in ((None, 0), ("z", 0), ("y", 1)):
            with self.assertRaisesRegex(
                ValueError, f"`key` must name .* in record {number} of"
            ):
                self._all(RecordFiles([str(path)], key))

    @parameterized.parameters(
        ([[1.0, 2.0], [3.0]], {}, r"shape \(2,\) .* \(1,\) in record 1 of"),
        ([[1.0, 2.0]], {"shape": (3,)}, r"`shape` .* \(3,\) for the 2 of rec"),
        ([b"abc"], {}, "bytes that are encoded pictures; `raw`.* record 0 of"),
        ([b"abc"], {"raw": "float32"}, "arrays of float32, got others in rec"),
    )
    def test_other_records_are_refused(self, values, settings, message):
        with self.assertRaisesRegex(ValueError, message):
            self._all(RecordFiles([self._write(values)], **settings))

    @parameterized.parameters(
        ({"shape": (0, 2)}, "`shape` must be positive sizes"),
        ({"raw": "str"}, "`raw` must be a type of numbers"),
        ({"raw": "jpeg"}, "`raw` must be a type of numbers"),
    )
    def test_settings_that_mean_nothing_are_refused(self, settings, message):
        with self.assertRaisesRegex(ValueError, message):
            RecordFiles(["a.tfrecord"], **settings)

    def test_damaged_files_are_refused(self):
        path = pathlib.Path(self._write(_POINTS))
        content = bytearray(path.read_bytes())
        content[-10] ^= 1
        path.write_bytes(content)
        with self.assertRaisesRegex(ValueError, "undamaged .*a.tfrecord"):
            self._all(RecordFiles([str(path)]))
        with tf.io.TFRecordWriter(str(path)) as file:
            file.write(b"no example")
        with self.assertRaisesRegex(ValueError, "tf.train.Example in their"):
            self._all(RecordFiles([str(path)]))


if __name__ == "__main__":
    absltest.main()
