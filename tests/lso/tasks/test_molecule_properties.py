# SPDX-License-Identifier: Apache-2.0
"""Tests of properties of molecules against published and RDKit's values."""

from __future__ import annotations

import importlib
import pathlib
import pickle
import sys
from unittest import mock

import numpy as np
import pytest
from absl.testing import absltest, parameterized

from tfvae.data import molecules as data_molecules
from tfvae.data.selfies import canonical_smiles, parse_smiles
from tfvae.lso.tasks import molecule_properties as properties

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


class PenalisedLogPTest(parameterized.TestCase):
    @parameterized.parameters(*PUBLISHED.items())
    def test_score_is_the_published_one(self, smiles, expected):
        score = properties.penalised_log_p(smiles)
        self.assertAlmostEqual(score, expected, delta=1e-4)

    @parameterized.parameters((6, 0), (7, 1), (12, 6))
    def test_atoms_of_a_ring_beyond_six_cost_alike(self, size, excess):
        ring = "C1" + "C" * (size - 2) + "C1"
        # The same with a scorer of rings that sees none.
        with mock.patch.object(properties, "_longest_cycle", return_value=0):
            without = properties.penalised_log_p(ring)
        score = properties.penalised_log_p(ring)
        self.assertAlmostEqual(without - score, excess / 0.28746695, places=6)

    @parameterized.parameters(
        ("CCCC", 0), ("C1CC1", 3), ("c1ccc2ccccc2c1", 6), ("C1CCC1C2CCCC2", 5)
    )
    def test_longest_ring_is_that_of_a_cycle_basis(self, smiles, expected):
        molecule = parse_smiles(smiles)
        self.assertEqual(properties._longest_cycle(molecule), expected)

    @parameterized.parameters("", "C1CC", "no molecule", "CC.O")
    def test_no_molecule_is_an_error(self, smiles):
        with self.assertRaisesRegex(ValueError, "must be one molecule"):
            properties.penalised_log_p(smiles)

    def test_pickle_finds_it(self):
        again = pickle.loads(pickle.dumps(properties.penalised_log_p))
        self.assertIs(again, properties.penalised_log_p)


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
            largest = max(6, properties._longest_cycle(molecule))
            expected = (
                (log_p(molecule) - 2.45777691) / 1.43341767
                - (difficulty(molecule) - 3.05352042) / 0.83460587
                - (smallest - 6 - 0.04861121) / 0.28746695
            )
            difference = properties.penalised_log_p(one) - expected
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
        score = properties.drug_likeness("CC(=O)Oc1ccccc1C(=O)O")
        self.assertAlmostEqual(score, 0.55, delta=0.01)


class BoundsTest(parameterized.TestCase):
    @parameterized.parameters(
        ("CCO", 3, 46.069), ("c1ccccc1", 6, 78.114), ("O=C(O)CN", 5, 75.067)
    )
    def test_sizes_are_those_of_the_formula(self, smiles, atoms, weight):
        self.assertEqual(properties.heavy_atoms(smiles), atoms)
        found = properties.molecular_weight(smiles)
        self.assertAlmostEqual(found, weight, delta=2e-3)

    @parameterized.parameters(
        ("c1ccccc1CCO", "c1ccccc1CCN"), ("CCO", "c1ccccc1"), ("CCO", "OCC")
    )
    def test_similarity_is_that_of_the_sets_of_bits(self, one, other):
        chem = importlib.import_module("rdkit.Chem")
        morgan = importlib.import_module("rdkit.Chem.rdMolDescriptors")
        sets = [
            {
                *morgan.GetMorganFingerprintAsBitVect(
                    chem.MolFromSmiles(smiles), 2, 2048
                ).GetOnBits()
            }
            for smiles in (one, other)
        ]
        expected = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        found = properties.Similarity(other)(one)
        self.assertAlmostEqual(found, expected)
        self.assertEqual(properties.Similarity(one)(one), 1.0)

    @parameterized.parameters(
        ("C(=O)[OH]", "OC(=O)CC(=O)O", 2),
        ("C(=O)[OH]", "CCO", 0),
        ("c1ccccc1", "c1ccc2ccccc2c1", 2),
    )
    def test_matches_are_counted(self, smarts, smiles, expected):
        self.assertEqual(properties.Matches(smarts)(smiles), expected)

    @parameterized.parameters(
        (2, 1.0, False), (3, 0.0, True), (4, -1.0, True), (6, 1.0, False)
    )
    def test_bounds_hold_up_to_zero(self, count, excess, holds):
        rule = properties.Bounded(properties.heavy_atoms, 3, 5)
        smiles = "C" * count
        self.assertEqual(rule(smiles), excess)
        broken = properties.broken_rule([rule], smiles)
        named = "heavy atoms must be at least 3 and at most 5"
        self.assertEqual(broken, None if holds else named)

    def test_first_broken_rule_is_named(self):
        def odd(smiles):
            return float("nan") if smiles == "CC" else -1.0

        acid = properties.Bounded(properties.Matches("C(=O)[OH]"), at_least=1)
        near = properties.Bounded(properties.Similarity("CCO"), at_least=0.5)
        found = [
            properties.broken_rule([odd, near, acid], one)
            for one in ("CC", "c1ccccc1", "CCO")
        ]
        self.assertEqual(
            found,
            [
                "odd must be at most 0",
                "similarity to CCO must be at least 0.5",
                "matches of C(=O)[OH] must be at least 1",
            ],
        )
        self.assertIsNone(properties.broken_rule([odd, near], "CCO"))

    @parameterized.parameters(
        (lambda: properties.Similarity("C1CC"), "`lead` must be one molecule"),
        (lambda: properties.Similarity("CC.O"), "`lead` must be .*'CC.O'"),
        (lambda: properties.Matches("C(("), "`smarts` must be .*, got 'C"),
        (lambda: properties.Matches(""), "`smarts` must be a substructure"),
        (lambda: properties.Bounded(len), "`at_least` or `at_most` must be"),
        (lambda: properties.Bounded(len, np.nan), "must be a finite number"),
        (lambda: properties.Bounded(len, "0.4"), "finite number, got '0.4'"),
        (lambda: properties.Bounded(len, 2, 1), "no more than .* 2 and 1"),
    )
    def test_wrong_values_are_refused_at_once(self, make, message):
        with self.assertRaisesRegex(ValueError, message):
            make()

    def test_a_quantity_must_be_a_function(self):
        with self.assertRaisesRegex(TypeError, "`quantity` must be a function"):
            properties.Bounded(properties.Similarity, at_least=0.4)

    def test_pickled_rules_are_the_same(self):
        rule = properties.Bounded(properties.Similarity("CCO"), at_least=0.5)
        self.assertEqual(pickle.loads(pickle.dumps(rule)), rule)


if __name__ == "__main__":
    absltest.main()
