# SPDX-License-Identifier: Apache-2.0
"""Tests of the files that shards are written from."""

from __future__ import annotations

import pathlib
from unittest import mock

import numpy as np
import pyarrow
from absl.testing import absltest, parameterized
from pyarrow import parquet

from tfvae import data
from tfvae.data import shard_inputs
from tfvae.data.shard_inputs import (
    ArrayFiles,
    ImageFiles,
    TableFiles,
    matching_files,
)
from tfvae.ops.patches import extract_patches

_POINTS = np.arange(36.0, dtype=np.float32).reshape(12, 3)


def _all(source, item=0, offset=0):
    """Returns all data points, and the places that they say they have."""
    values, places = [], []
    for part in source.parts(item, offset):
        values.append(part.values)
        places += [(part.item, part.offset + i) for i in range(len(values[-1]))]
    return np.concatenate(values), places


class ShardInputsTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)

    def _files(self, kind):
        """Writes two files of 12 points in all; returns an input of them."""
        first, second = _POINTS[:7], _POINTS[7:]
        paths = [str(self.folder / f"{name}.{kind}") for name in "ab"]
        for path, points in zip(paths, (first, second), strict=True):
            if kind == "npy":
                np.save(path, points)
            elif kind == "npz":
                np.savez(path, x=points, y=points[:0])
            elif kind == "csv":
                np.savetxt(path, points, "%g", ",", header="u,v,w", comments="")
            else:
                columns = dict(zip("uvw", points.T, strict=True))
                parquet.write_table(pyarrow.table(columns), path)
        if kind in ("csv", "parquet"):
            return TableFiles(paths)
        return ArrayFiles(paths, key="x" if kind == "npz" else None)

    @parameterized.parameters("npy", "npz", "csv", "parquet")
    def test_reading_goes_on_from_any_point(self, kind):
        source = self._files(kind)
        with mock.patch.multiple(shard_inputs, INPUT_BYTES=48, _ROWS=4):
            values, places = _all(source)
            np.testing.assert_array_equal(values, _POINTS)
            self.assertEqual(
                places, [(0, i) for i in range(7)] + [(1, i) for i in range(5)]
            )
            for skipped in (1, 6, 7, 9):
                rest, _ = _all(source, *places[skipped])
                np.testing.assert_array_equal(rest, _POINTS[skipped:])

    def test_table_may_have_no_names_and_empty_fields(self):
        path = self.folder / "a.csv"
        # Integers, until they are none, and a column that begins empty.
        path.write_text("1,,3\n4,5,6.5\n nan,8,9\n")
        with mock.patch.object(shard_inputs, "INPUT_BYTES", 8):
            values, _ = _all(TableFiles([str(path)]))
        nan = np.nan
        np.testing.assert_array_equal(
            values, [[1, nan, 3], [4, 5, 6.5], [nan, 8, 9]]
        )

    @parameterized.parameters("\ufeff", "\n", "\ufeffa,b\n", "\na,b\n")
    def test_no_row_is_lost_to_a_byte_order_mark_or_an_empty_line(self, begin):
        path = self.folder / "a.csv"
        path.write_text(begin + "1,2\n3,4.5\n", encoding="utf-8")
        values, _ = _all(TableFiles([str(path)]))
        np.testing.assert_array_equal(values, [[1, 2], [3, 4.5]])

    @parameterized.parameters(
        ("a,b\n1,2\n3\n", "same number of columns in each row, got .*a.csv"),
        ("a,b\n1,x\n3,4\n", "tables of numbers .*'x'"),
        ("", "tables of numbers.*[Ee]mpty"),
    )
    def test_other_tables_are_refused(self, text, message):
        path = self.folder / "a.csv"
        path.write_text(text)
        with self.assertRaisesRegex(ValueError, f"`inputs` must.*{message}"):
            _all(TableFiles([str(path)]))

    def test_columns_of_text_are_refused(self):
        path = self.folder / "a.parquet"
        parquet.write_table(pyarrow.table({"u": [1, 2], "v": ["x", "y"]}), path)
        with self.assertRaisesRegex(
            ValueError, "the column 'v' of type string"
        ):
            _all(TableFiles([str(path)]))

    @parameterized.parameters(
        (np.float64(1.0), "got a number in"), (None, "readable .npy or .npz")
    )
    def test_other_arrays_are_refused(self, content, message):
        path = self.folder / "a.npy"
        path.write_bytes(b"nothing")
        if content is not None:
            np.save(path, content)
        with self.assertRaisesRegex(ValueError, f"`inputs` must.*{message}"):
            _all(ArrayFiles([str(path)]))

    @parameterized.parameters(None, "z")
    def test_array_has_to_be_named_where_there_are_several(self, key):
        source = self._files("npz")
        source._key = key
        with self.assertRaisesRegex(ValueError, r"`key` must.*\['x', 'y'\]"):
            _all(source)

    def _images(self):
        pictures = np.random.default_rng(0).integers(0, 256, (2, 9, 8, 3))
        paths = []
        for name, picture in zip("ab", pictures, strict=True):
            paths.append(str(self.folder / f"{name}.png"))
            data.write_image(paths[-1], picture)
        return paths, pictures

    def test_images_are_whole_or_patches(self):
        paths, pictures = self._images()
        values, places = _all(ImageFiles(paths))
        np.testing.assert_array_equal(values, pictures)
        self.assertEqual(values.dtype, np.uint8)
        self.assertEqual(places, [(0, 0), (1, 0)])
        source = ImageFiles(paths, patch=(4, 4), stride=3)
        with mock.patch.object(shard_inputs, "INPUT_BYTES", 4 * 48 * 2):
            values, places = _all(source)
        expected = [extract_patches(one, (4, 4), 3) for one in pictures]
        expected = np.concatenate(expected).reshape(-1, 4, 4, 3)
        np.testing.assert_array_equal(values, expected)
        rest, _ = _all(source, *places[10])
        np.testing.assert_array_equal(rest, expected[10:])

    def test_images_are_resized_and_converted(self):
        paths, pictures = self._images()
        values, _ = _all(ImageFiles(paths, size=(4, 5), channels=1))
        self.assertEqual(values.shape, (2, 4, 5, 1))
        self.assertEqual(values.dtype, np.float32)
        for one, picture in zip(values, pictures, strict=True):
            self.assertLess(abs(one.mean() - picture.mean()), 20.0)

    def test_patch_that_does_not_fit_is_refused_by_the_name_of_the_image(self):
        paths, _ = self._images()
        with self.assertRaisesRegex(ValueError, "`patch` must.*a.png"):
            _all(ImageFiles(paths, patch=(10, 10)))
        pathlib.Path(paths[1]).write_bytes(b"nothing")
        with self.assertRaisesRegex(ValueError, "`inputs` must.*image.*b.png"):
            _all(ImageFiles(paths))

    def test_files_are_found_in_the_order_of_their_names(self):
        self._files("npy")
        (self.folder / "c.txt").write_text("")
        a, b = str(self.folder / "a.npy"), str(self.folder / "b.npy")
        for inputs, expected in (
            ([str(self.folder)], [a, b]),
            ([b, a], [b, a]),
            ([str(self.folder / "*.npy")], [a, b]),
        ):
            self.assertEqual(matching_files(inputs), expected)
        for wrong in ("none.npy", "*.npz"):
            with self.assertRaisesRegex(FileNotFoundError, "`inputs` must be"):
                matching_files([a, str(self.folder / wrong)])

    def test_changed_files_are_another_input(self):
        source = self._files("npy")
        before = source.identity()
        self.assertEqual(before, self._files("npy").identity() | {
            "files": before["files"]})  # fmt: skip
        np.save(self.folder / "b.npy", _POINTS)
        self.assertNotEqual(source.identity(), before)


if __name__ == "__main__":
    absltest.main()
