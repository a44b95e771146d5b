# SPDX-License-Identifier: Apache-2.0
"""Tests of the task of molecules against published scores."""

from __future__ import annotations

import importlib
import pathlib
import pickle
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tfvae.data import molecules as data_molecules
from tfvae.data.selfies import canonical_smiles
from tfvae.lso.tasks import molecules

# From the published results: queries of the baselines and their scores.
PUBLISHED = {
    "O=CCl": -1.75782,
    "C=C(C(=C)N(C=C(C)c1cccc(Br)c1)Cc1ccccc1)c1cccc(Cl)c1": 4.52254,
    "ClCC(Nc1cc(Cl)ccc1Cl)c1ccc(Br)cc1": 3.35286,
    "COc1cc(-n2cccn2)ccc1Nc1ccc(-c2cc(Cl)ccc2Cl)c(Cl)c1": 4.4617,
    "Clc1ccc(Nc2cc(Cl)cc(Nc3ccc(Cl)cc3)c2)cc1": 5.08366,
    "O=C(Nc1cccc2ccccc12)c1ccc(Cl)cc1": 3.73012,
    "Clc1ccc(C(Cl)(Cl)Nc2ccc(CNc3ccccc3Cl)cc2)cc1": 4.46866,
    "O=C(Cc1ccc(Sc2ccccc2)cc1)Oc1ccc(-c2nc3ccccc3s2)cc1": 4.59864,
    "Cc1ccc(Cl)c2c(OCc3ccccc3-c3nc4ccccc4s3)cccc12": 4.78185,
    "Cc1ccc(S(=O)(=O)CNC(=O)c2ccncc2)cc1": 0.85927,
}
LINES = ["OCC", "c1ccccc1", "CC(C)C", "CCN", "CCCCO", "C1CCCCC1"]


class PenalisedLogPTest(parameterized.TestCase):
    @parameterized.parameters(*PUBLISHED.items())
    def test_score_is_the_published_one(self, smiles, expected):
        score = molecules.penalised_log_p(smiles)
        self.assertAlmostEqual(score, expected, delta=1e-4)

    @parameterized.parameters((6, 0), (7, 1), (12, 6))
    def test_atoms_of_a_ring_beyond_six_cost_alike(self, size, excess):
        ring = "C1" + "C" * (size - 2) + "C1"
        # The same with a scorer of rings that sees none.
        with mock.patch.object(molecules, "_longest_cycle", return_value=0):
            without = molecules.penalised_log_p(ring)
        score = molecules.penalised_log_p(ring)
        self.assertAlmostEqual(without - score, excess / 0.28746695, places=6)

    @parameterized.parameters(
        ("CCCC", 0), ("C1CC1", 3), ("c1ccc2ccccc2c1", 6), ("C1CCC1C2CCCC2", 5)
    )
    def test_longest_ring_is_that_of_a_cycle_basis(self, smiles, expected):
        molecule = molecules.parse_smiles(smiles)
        self.assertEqual(molecules._longest_cycle(molecule), expected)

    @parameterized.parameters("", "C1CC", "no molecule", "CC.O")
    def test_no_molecule_is_an_error(self, smiles):
        with self.assertRaisesRegex(ValueError, "must be one molecule"):
            molecules.penalised_log_p(smiles)

    def test_pickle_finds_it(self):
        again = pickle.loads(pickle.dumps(molecules.penalised_log_p))
        self.assertIs(again, molecules.penalised_log_p)


class AgainstRdkitTest(parameterized.TestCase):
    """The terms of the score by RDKit's own functions, one by one."""

    def _differences(self, smiles):
        """Returns those of whole scores, and of scores without rings."""
        log_p = importlib.import_module("rdkit.Chem.Crippen").MolLogP
        chem = importlib.import_module("rdkit.Chem")
        config = importlib.import_module("rdkit.RDConfig")
        folder = str(pathlib.Path(config.RDContribDir, "SA_Score"))
        with mock.patch.object(sys, "path", [folder, *sys.path]):
            difficulty = importlib.import_module("sascorer").calculateScore
        whole, without = [], []
        for one in smiles:
            molecule = chem.MolFromSmiles(one)
            rings = molecule.GetRingInfo().AtomRings()
            smallest = max([6, *map(len, rings)])
            largest = max(6, molecules._longest_cycle(molecule))
            expected = (
                (log_p(molecule) - 2.45777691) / 1.43341767
                - (difficulty(molecule) - 3.05352042) / 0.83460587
                - (smallest - 6 - 0.04861121) / 0.28746695
            )
            difference = molecules.penalised_log_p(one) - expected
            whole.append(difference)
            without.append(difference + (largest - smallest) / 0.28746695)
        return np.abs(whole), np.abs(without)

    def test_score_of_twenty_molecules(self):
        with data_molecules._shipped_path().open() as file:
            lines = [next(file).split(",")[0].strip('"') for _ in range(400)]
        found = [canonical_smiles(one) for one in lines[::20]]
        whole, _ = self._differences(found)
        self.assertLen(whole, 20)
        self.assertLess(whole.max(), 1e-9)

    @pytest.mark.slow  # Some seconds, and the whole file is read.
    def test_score_of_a_thousand_molecules(self):
        found = list(data_molecules.molecule_file().sequences)[::9][:1000]
        whole, without = self._differences(found)
        print(
            f"largest difference {whole.max():.3g}, of {np.sum(whole > 1e-9)} "
            f"bridged systems alone; of all other terms {without.max():.3g}"
        )
        self.assertLess(without.max(), 1e-9)
        # RDKit has smallest rings, a cycle basis may have larger ones.
        self.assertLess(np.mean(whole > 1e-9), 0.02)

    def test_drug_likeness_is_that_of_a_drug(self):
        # Bickerton et al. give 0.55 to 0.56 for aspirin.
        score = molecules.drug_likeness("CC(=O)Oc1ccccc1C(=O)O")
        self.assertAlmostEqual(score, 0.55, delta=0.01)


class MoleculesTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(self.create_tempdir().full_path) / "a.smi"
        self.path.write_text("\n".join(LINES), encoding="utf-8")

    def test_data_are_all_molecules_and_their_scores(self):
        data = molecules.molecules(self.path).data(0)
        self.assertEqual(
            data.inputs,
            ["CCO", "c1ccccc1", "CC(C)C", "CCN", "CCCCO", "C1CCCCC1"],
        )
        expected = [molecules.penalised_log_p(one) for one in LINES]
        self.assertAllClose(data.scores, expected, rtol=0, atol=1e-12)

    def test_points_are_read_and_written_again(self):
        task = molecules.molecules(self.path, num_steps=12)
        data = task.data(0)
        self.assertEqual(task.read(data.points, 0), data.inputs)
        self.assertAllEqual(task.write(data.inputs), data.points)
        self.assertEqual(
            [task.from_json(task.to_json(one)) for one in data.inputs],
            data.inputs,
        )

    def test_scores_are_those_of_the_file_or_of_ones_own_function(self):
        path = self.path.with_name("a.csv")
        path.write_text("smiles,pKi\nOCC,7.5\nCCN,6\nCCC,bad\n")
        task = molecules.molecules(
            path, objective=len, score_column="pKi", invalid_score=None
        )
        data = task.data(0)
        self.assertEqual(data.inputs, ["CCO", "CCN"])
        self.assertAllEqual(data.scores, [7.5, 6.0])
        self.assertEqual(task.objective("CCCC"), 4)
        data = molecules.molecules(path, objective=len).data(0)
        self.assertEqual(data.inputs, ["CCO", "CCN", "CCC"])
        self.assertAllEqual(data.scores, [3.0, 3.0, 3.0])

    def test_merged_symbols_change_no_input(self):
        task = molecules.molecules(self.path, num_symbols=10)
        data = task.data(0)
        self.assertEqual(task.read(data.points, 0), data.inputs)
        self.assertAllEqual(task.write(data.inputs), data.points)

    def test_settings_are_the_published_ones(self):
        task = molecules.molecules(self.path)
        self.assertTrue(task.maximise)
        self.assertFalse(task.keep_duplicates)
        self.assertEqual(task.invalid_score, -4.0)
        self.assertIs(task.objective, molecules.penalised_log_p)

    def test_seed_draws_the_data_but_not_the_symbols(self):
        task = molecules.molecules(self.path, num_data=3)
        draws = [task.data(seed) for seed in (0, 0, 1, 2, 3)]
        for data in draws:
            self.assertEqual(task.read(data.points, 0), data.inputs)
            self.assertLen(set(data.inputs), 3)
        self.assertEqual(draws[0].inputs, draws[1].inputs)
        self.assertGreater(len({tuple(one.inputs) for one in draws}), 1)
        self.assertLen({one.points.shape for one in draws}, 1)

    def test_symbols_are_drawn_if_asked_for(self):
        outputs = np.full_like(molecules.molecules(self.path).data(0).points, 1)
        drawn = molecules.molecules(self.path, is_sampled=True)
        self.assertNotEqual(drawn.read(outputs, 1), drawn.read(outputs, 2))
        self.assertEqual(drawn.read(outputs, 1), drawn.read(outputs, 1))
        likeliest = molecules.molecules(self.path)
        self.assertEqual(likeliest.read(outputs, 1), [None] * len(LINES))

    @parameterized.parameters(0, 7)
    def test_more_molecules_than_there_are_is_an_error(self, num_data):
        with self.assertRaisesRegex(ValueError, "`num_data` .* 1 to 6"):
            molecules.molecules(self.path, num_data=num_data)

    def test_missing_library_is_said_with_what_installs_it(self):
        with mock.patch.dict(sys.modules, {"rdkit.Chem": None}):
            with self.assertRaisesRegex(ImportError, r"\[molecules\]"):
                molecules.molecules(self.path)


if __name__ == "__main__":
    tf.test.main()
