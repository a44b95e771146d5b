# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pathlib

import numpy as np
import pyarrow
from absl.testing import absltest, parameterized
from pyarrow import parquet

from tfvae.lso import read_table


def _lengths(texts):
    return np.array([[len(text), text.count("C")] for text in texts], float)


class ReadTableTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(self.create_tempdir().full_path) / "m.csv"

    def _write(self, text, encoding="utf-8"):
        self.path.write_text(text, encoding=encoding)
        return self.path

    def test_texts_are_encoded_and_scores_read(self):
        self._write(
            'smiles,yield,constraint:cost\nCCO,0.5,\n"C,N",-1e-3,0.25\n',
            "utf-8-sig",
        )
        data = read_table(
            self.path, score="yield", input="smiles", write=_lengths
        )(7)
        self.assertEqual(data.inputs, ["CCO", "C,N"])
        np.testing.assert_array_equal(data.points, [[3, 2], [3, 1]])
        np.testing.assert_array_equal(data.scores, [0.5, -1e-3])
        np.testing.assert_array_equal(data.constraints["cost"], [np.nan, 0.25])

    def test_points_are_columns(self):
        self._write("a,score,b\n1,2,3\n4,5,6\n")
        data = read_table(self.path, points=["b", "a"])(0)
        np.testing.assert_array_equal(data.points, [[3, 1], [6, 4]])
        self.assertIsNone(data.inputs)

    def test_rows_that_a_spreadsheet_leaves_empty_are_none(self):
        self._write("a,score,\r\n\r\n1,2,\r\n,,\r\n3,4,\r\n,,\r\n", "utf-8-sig")
        data = read_table(self.path, points=["a"])(0)
        np.testing.assert_array_equal(data.points, [[1], [3]])
        self._write("a,score\n1,2\n,\n3,x\n")
        with self.assertRaisesRegex(ValueError, "'x' in line 4 of m.csv"):
            read_table(self.path, points=["a"])(0)

    def test_parquet_keeps_types(self):
        path = self.path.with_suffix(".parquet")
        columns = {"x": [[1, 2], [3]], "score": [1.0, 2.0]}
        parquet.write_table(pyarrow.table(columns), path)
        data = read_table(
            path, input="x", write=lambda x: np.array([[sum(one)] for one in x])
        )(0)
        self.assertEqual(data.inputs, [[1, 2], [3]])
        np.testing.assert_array_equal(data.points, [[3], [3]])

    @parameterized.parameters(
        (
            "a,score\n1,high\n",
            "`score` must be a finite number, got 'high' in l",
        ),
        ("a,score\n1,2\n1,1_0\n", "'1_0' in line 3 of m.csv"),
        ("a,score\n1,nan\n", "`score` must be a finite number, got 'nan'"),
        ("a,score\n,2\n", "`a` must be a finite number, got '' in line 2"),
        ("a,score\n1\n", "line 2 of m.csv must have 2 values"),
        ("a,score\n1,2,3\n", "line 2 of m.csv must have 2 values"),
        ("b,score\n1,2\n", "`a` must be a column, got 'b', 'score' in l"),
        ("a,score\n", "must be a file with rows, got m.csv without"),
        ("", "must be a file with rows, got m.csv without"),
        ("a,score\n,\n", "must be a file with rows, got m.csv without"),
        ("a;score\n1;2\n", "with commas between values.*got semicolons in l"),
        ("a\tscore\n1\t2\n", "with commas between values.*got tabs in line 1"),
        ("a,score,score\n1,2,3\n", "different names, got 'score' twice in l"),
        ("a, score\n1,2\n", "`score` must be a column, got 'a', ' score' in"),
        ("a,score,constraint:c\n1,2,x\n", "`constraint:c` must be a finite"),
    )
    def test_wrong_rows_are_named(self, text, message):
        self._write(text)
        with self.assertRaisesRegex(ValueError, message):
            read_table(self.path, points=["a"])(0)

    def test_rows_without_an_input_are_named(self):
        data = {"input": "name", "write": _lengths}
        path = self._write("name,score\nC,1\n,2\n")
        with self.assertRaisesRegex(
            ValueError, "`name` must be given, got none in line 3 of m.csv"
        ):
            read_table(path, **data)(0)
        path = self.path.with_suffix(".parquet")
        columns = {"name": ["C", None], "score": [1.0, 2.0]}
        parquet.write_table(pyarrow.table(columns), path)
        with self.assertRaisesRegex(ValueError, "`name` must be given, got no"):
            read_table(path, **data)(0)

    def test_other_files_are_refused(self):
        self.path.write_bytes(b"\xff\xfe\x00a")
        with self.assertRaisesRegex(ValueError, "CSV file in UTF-8"):
            read_table(self.path, points=["a"])(0)
        path = self.path.with_suffix(".parquet")
        path.write_text("a,score\n1,2\n")
        with self.assertRaisesRegex(ValueError, "must be a Parquet file"):
            read_table(path, points=["a"])(0)
        with self.assertRaisesRegex(FileNotFoundError, "which does not exist"):
            read_table(self.path.with_name("other.csv"), points=["a"])(0)

    @parameterized.parameters({}, {"input": "a"}, {"write": _lengths})
    def test_what_data_points_are_must_be_said(self, **given):
        with self.assertRaisesRegex(TypeError, "`points`, or `input` and"):
            read_table(self.path, **given)

    def test_points_may_have_inputs_beside_them(self):
        self._write("a,score,name\n1,2,x\n")
        data = read_table(self.path, points=["a"], input="name")(0)
        self.assertEqual(data.inputs, ["x"])


if __name__ == "__main__":
    absltest.main()
