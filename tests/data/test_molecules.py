# SPDX-License-Identifier: Apache-2.0
"""Tests of what is read from files of molecules."""

from __future__ import annotations

import logging
import pathlib
import sys
from unittest import mock

import tensorflow as tf
from absl.testing import parameterized

from tfvae.data import molecules

BENZENE = ("[C]", "[=C]", "[C]", "[=C]", "[C]", "[=C]", "[Ring1]", "[=Branch1]")


class MoleculeFileTest(tf.test.TestCase, parameterized.TestCase):
    def _file(self, *lines):
        path = pathlib.Path(self.create_tempdir().full_path) / "a.smi"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    @parameterized.parameters(
        ("OCC\t1", "C1=CC=CC=C1 benzene"),
        ('"OCC","1"', '"C1=CC=CC=C1","2"'),
        ("OCC", "", "c1ccccc1", "C(O)C"),
    )
    def test_first_columns_are_read_once_each(self, *lines):
        found = molecules.molecule_file(self._file(*lines))
        self.assertEqual(
            found.sequences,
            {"CCO": ("[C]", "[C]", "[O]"), "c1ccccc1": BENZENE},
        )
        self.assertEqual(found.code.num_steps, 8)
        self.assertEqual(
            found.code.symbols, ("[nop]", *sorted({*BENZENE, "[O]"}))
        )
        self.assertEqual(found.num_left_out, 0)

    def test_line_without_molecule_is_named(self):
        path = self._file("smiles", "CCO")
        with self.assertRaisesRegex(ValueError, "a.smi, line 1: .*'smiles'"):
            molecules.molecule_file(path)
        path = self._file("CCO", "", "C1CC 17")
        with self.assertRaisesRegex(ValueError, "line 3: .*'C1CC'.*leave_out"):
            molecules.molecule_file(path)

    def test_lines_left_out_are_counted(self):
        path = self._file("smiles", "CCO", "CC.O", "CCCCC")
        with self.assertLogs(level=logging.INFO) as logs:
            found = molecules.molecule_file(path, num_steps=4, leave_out=True)
        self.assertEqual(list(found.sequences), ["CCO"])
        self.assertEqual((found.num_left_out, found.code.num_steps), (3, 4))
        self.assertIn("Left out 3 lines", logs.output[0])

    def test_too_few_steps_are_said_with_the_right_number(self):
        path = self._file("CCO", "CCCCC", "CCCCCCC")
        with self.assertRaisesRegex(ValueError, "at least 7.*got 4.*line 2"):
            molecules.molecule_file(path, num_steps=4)

    def test_wrong_number_of_symbols_is_said_with_the_right_one(self):
        path = self._file("CCO")
        self.assertEqual(
            molecules.molecule_file(path, num_symbols=3).code.num_symbols, 3
        )
        with self.assertRaisesRegex(ValueError, "must be 3.*got 32"):
            molecules.molecule_file(path, num_symbols=32)

    def test_file_without_molecules_is_refused(self):
        with self.assertRaisesRegex(ValueError, "`path` must contain at least"):
            molecules.molecule_file(self._file(""), leave_out=True)
        with self.assertRaises(FileNotFoundError):
            molecules.molecule_file("nowhere.smi")

    def test_observations_are_what_is_read(self):
        path = self._file("CCO", "c1ccccc1")
        data = molecules.molecule_sequences(path, num_steps=9)
        self.assertEqual(data.event_shape, (9, 6))
        code = molecules.molecule_file(path, num_steps=9).code
        self.assertEqual(code.read(data.train), ["CCO", "c1ccccc1"])

    def test_shipped_set_begins_as_its_file_does(self):
        path = molecules._shipped_path()
        with path.open() as file:
            lines = [next(file) for _ in range(30)]
        found = molecules.molecule_file(self._file(*lines))
        self.assertEqual(
            list(found.sequences)[:2],
            ["CC(C)(C)c1ccc(NNC(=O)C2CCC2)cc1", "COc1cc(C)cc2c(=O)cc[nH]c12"],
        )
        points = found.code.one_hot(list(found.sequences.values()))
        self.assertEqual(found.code.read(points), list(found.sequences))

    @parameterized.parameters("rdkit.Chem", "selfies")
    def test_missing_library_is_said_with_what_installs_it(self, name):
        path = self._file("CCO")
        with mock.patch.dict(sys.modules, {name: None}):
            with self.assertRaisesRegex(ImportError, r"\[molecules\]"):
                molecules.molecule_file(path)


if __name__ == "__main__":
    tf.test.main()
