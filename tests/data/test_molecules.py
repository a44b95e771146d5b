# SPDX-License-Identifier: Apache-2.0
"""Tests of what is read from files of molecules."""

from __future__ import annotations

import pathlib
import sys
from unittest import mock

import tensorflow as tf
from absl.testing import parameterized

from tfvae.data import molecules, selfies

BENZENE = ("[C]", "[=C]", "[C]", "[=C]", "[C]", "[=C]", "[Ring1]", "[=Branch1]")


class MoleculeFileTest(tf.test.TestCase, parameterized.TestCase):
    def _file(self, *lines, name="a.smi"):
        path = pathlib.Path(self.create_tempdir().full_path) / name
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

    @parameterized.parameters(
        ("a.csv", "SMILES,name", "OCC,alcohol", "c1ccccc1,"),
        ("a.csv", "id,smiles", '7,"OCC"', '8,"c1ccccc1"'),
        ("a.csv", '"name","Canonical_SMILES"', '"a, b",OCC', "c,c1ccccc1"),
        ("a.tsv", "name\tsmiles", "a, b\tOCC", "c\tc1ccccc1"),
        ("a.csv", "smiles,logP", '"OCC\n",1', '"c1ccccc1\n",2'),
        ("a.txt", "smiles score", "OCC 1", "c1ccccc1 2"),
    )
    def test_column_is_found_by_its_name(self, name, *lines):
        found = molecules.molecule_file(self._file(*lines, name=name))
        self.assertEqual(list(found.sequences), ["CCO", "c1ccccc1"])
        self.assertEmpty(found.refusals)

    def test_columns_and_scores_are_those_asked_for(self):
        path = self._file(
            "smiles,drug,Affinity",
            "C,OCC,-7.5",
            "C,CCO,1",
            "C,CCN,",
            "C,CCC,nan",
            "C,CCCC",
            name="a.csv",
        )
        found = molecules.molecule_file(
            path, smiles_column="drug", score_column="affinity"
        )
        self.assertEqual(found.scores, {"CCO": -7.5})
        self.assertEqual(
            [(one.line, one.reason) for one in found.refusals],
            [(4, "no score"), (5, "no score"), (6, "no score")],
        )
        for argument in ("smiles_column", "score_column"):
            with self.assertRaisesRegex(
                ValueError, f"`{argument}` must be .*drug.*got 'mass'"
            ):
                molecules.molecule_file(path, **{argument: "mass"})

    def test_line_without_molecule_is_named_where_none_is_left_out(self):
        path = self._file("name", "CCO")
        with self.assertRaisesRegex(ValueError, "a.smi, line 1: 'name'"):
            molecules.molecule_file(path, leave_out=False)
        path = self._file("CCO", "", "C1CC 17")
        with self.assertRaisesRegex(ValueError, "line 3: 'C1CC'.*leave_out"):
            molecules.molecule_file(path, leave_out=False)

    def test_every_line_that_is_no_use_is_left_out_with_its_reason(self):
        path = self._file(
            "water",
            "CCO",
            "CC.O",
            "[Na+].[Cl-]",
            "*CC",
            "C~C",
            "CCCCC",
            "\x00\x07",
            "[CH2]C",
            "C[N+](C)(C)C",
            "[2H]OC",
        )
        with self.assertLogs("tfvae.data.molecules", "WARNING") as logs:
            found = molecules.molecule_file(path, num_steps=4)
        self.assertEqual(list(found.sequences), ["CCO", "[CH2]C", "CO"])
        expected = {
            "no molecule": [1, 8],
            "several components, such as a salt": [3, 4],
            "not in the language of SELFIES": [5, 6],
            "longer than 4 steps": [7, 10],
        }
        for reason, lines in expected.items():
            kind = [o.line for o in found.refusals if o.reason == reason]
            self.assertEqual(kind, lines)
        self.assertEqual(
            found.summary(), {k: len(v) for k, v in expected.items()}
        )
        self.assertEqual(found.num_left_out, 8)
        self.assertIn("Left out 8 lines", logs.output[0])
        self.assertIn("2 no molecule", logs.output[0])

    def test_molecule_that_selfies_changes_is_left_out(self):
        path = self._file("CCO", "CCN")
        with mock.patch.object(
            selfies, "_smiles", lambda text: text.replace("[N]", "S")
        ):
            with self.assertRaisesRegex(ValueError, "changed by SELFIES"):
                molecules.molecule_file(path, leave_out=False)

    def test_stereochemistry_is_kept_if_asked_for(self):
        path = self._file("C[C@H](N)O", "C[C@@H](N)O", "[13CH4]")
        found = molecules.molecule_file(path)
        self.assertEqual(list(found.sequences), ["CC(N)O", "C"])
        found = molecules.molecule_file(path, keeps_stereo=True)
        self.assertEqual(
            list(found.sequences), ["C[C@H](N)O", "C[C@@H](N)O", "[13CH4]"]
        )
        points = found.code.write(list(found.sequences))
        self.assertEqual(found.code.read(points), list(found.sequences))

    def test_longest_molecule_is_said_where_steps_are_too_few(self):
        path = self._file("CCO", "CCCCC", "CCCCCCC")
        with self.assertRaisesRegex(
            ValueError, "line 2: .*4 steps.*`num_steps` of 7"
        ):
            molecules.molecule_file(path, num_steps=4, leave_out=False)
        self.assertEqual(molecules.molecule_file(path, num_steps=4).longest, 7)

    def test_as_many_pairs_are_merged_as_symbols_are_wanted(self):
        path = self._file("CCCO", "CCCN", "CCN")
        found = molecules.molecule_file(path, num_symbols=6)
        self.assertEqual(
            found.code.tokens,
            ("[nop]", "[C]", "[N]", "[O]", "[C][C]", "[C][C][C]"),
        )
        self.assertEqual(found.code.num_steps, 2)
        points = found.code.one_hot(list(found.sequences.values()))
        self.assertEqual(found.code.read(points), ["CCCO", "CCCN", "CCN"])
        for number, bound in ((3, "at least 4"), (32, "from 4 to 6")):
            with self.assertRaisesRegex(
                ValueError, f"`num_symbols` must be {bound}.*got {number}"
            ):
                molecules.molecule_file(path, num_symbols=number)

    def test_held_out_molecules_are_read_with_a_code(self):
        code = molecules.molecule_file(self._file("CCCO", "CCO")).code
        path = self._file("OC", "CCF", "CCCCCC", "CO")
        found = molecules.molecule_file(path, code=code)
        self.assertIs(found.code, code)
        self.assertEqual(list(found.sequences), ["CO"])
        self.assertEqual(
            [one.reason for one in found.refusals],
            ["symbols that the code lacks", "longer than 4 steps"],
        )
        with self.assertRaisesRegex(ValueError, "`code` must be None where"):
            molecules.molecule_file(path, code=code, num_steps=3)

    def test_file_without_molecules_is_refused(self):
        with self.assertRaisesRegex(ValueError, "`path` must contain at least"):
            molecules.molecule_file(self._file(""))
        with self.assertRaisesRegex(FileNotFoundError, "got 'nowhere.smi'"):
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
