# SPDX-License-Identifier: Apache-2.0
"""Tests of the task of molecules: data, codes, rules."""

from __future__ import annotations

import itertools
import pathlib
import sys
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae.lso.evaluation_worker import Score
from tfvae.lso.reading import (
    as_picture,
    checked_additions,
    read,
    resolved,
)
from tfvae.lso.records import Addition
from tfvae.lso.tasks import molecule_properties, molecules
from tfvae.lso.tasks.molecule_properties import Bounded, heavy_atoms
from tfvae.lso.tasks.molecule_reports import drawn

LINES = ["OCC", "c1ccccc1", "CC(C)C", "CCN", "CCCCO", "C1CCCCC1"]


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
        expected = [molecule_properties.penalised_log_p(one) for one in LINES]
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

    def test_additions_are_the_same_molecules_however_they_are_spelt(self):
        task = molecules.molecules(self.path)
        given = [Addition(1.0, one) for one in ("OCC", "C1=CC=CC=C1")]
        num_observed = task.data(0).points.shape[1]
        found = checked_additions(task, given, num_observed)
        self.assertEqual([one.input for one in found], ["CCO", "c1ccccc1"])

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

    def test_what_became_no_data_has_its_line_and_reason(self):
        def objective(smiles):
            if "N" in smiles:
                raise ArithmeticError("no force field")
            return float(len(smiles))

        self.path.write_text("CCO\nnothing\nCCN\nCC.O\nCCC\n")
        task = molecules.molecules(self.path, objective=objective)
        with self.assertLogs("tfvae", "WARNING") as logged:
            data = task.data(0)
        self.assertEqual(data.inputs, ["CCO", "CCC"])
        self.assertAllEqual(data.scores, [3.0, 3.0])
        self.assertEqual(
            data.left_out,
            [
                (2, "nothing", "no molecule"),
                (3, "CCN", "no score: ArithmeticError: no force field"),
                (4, "CC.O", "several components, such as a salt"),
            ],
        )
        self.assertIn("Left out 1 molecules without a score", logged.output[0])

    def test_objective_that_scores_none_is_an_error(self):
        task = molecules.molecules(self.path, objective=lambda one: 1 / 0)
        with self.assertRaisesRegex(
            ValueError, "got 6 without a score, the first CCO: ZeroDivision"
        ):
            task.data(0)

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
        self.assertIs(task.objective, molecule_properties.penalised_log_p)

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

    def test_constraints_of_scores_are_those_of_the_data(self):
        def objective(smiles):
            if smiles == "CCN":
                return float(len(smiles))
            return Score(len(smiles), {"rings": smiles.count("1") - 1.0})

        data = molecules.molecules(self.path, objective=objective).data(0)
        self.assertAllEqual(data.scores, [3, 8, 6, 3, 5, 8])
        self.assertAllEqual(
            data.constraints["rings"], [-1, 1, -1, np.nan, -1, 1]
        )

    def test_molecules_that_break_a_rule_are_data_but_no_inputs(self):
        task = molecules.molecules(
            self.path, constraints=[Bounded(heavy_atoms, at_most=4)]
        )
        data = task.data(0)
        rule = "heavy atoms must be at most 4"
        self.assertEqual(data.inputs[1], "c1ccccc1")
        self.assertLen(data.scores, 6)
        self.assertEqual(data.refusals, [None, rule, None, None, rule, rule])
        found = read(task, data.points, 0)
        self.assertEqual(
            [one.input for one in found],
            ["CCO", None, "CC(C)C", "CCN", None, None],
        )
        self.assertEqual(
            [one.is_refused for one in found], data.is_refused.tolist()
        )
        self.assertEqual(task.decodes.refused, {rule: 3})
        self.assertEqual((task.decodes.num, task.decodes.num_invalid), (6, 0))

    def test_rules_that_no_molecule_keeps_are_an_error(self):
        task = molecules.molecules(
            self.path,
            constraints=[
                Bounded(heavy_atoms, at_most=4),
                Bounded(heavy_atoms, at_least=5),
            ],
        )
        with self.assertRaisesRegex(
            ValueError,
            "at least one of its data, .* got 6 that are all refused "
            r"\(3 x heavy atoms must be at least 5; 3 x heavy atoms must be at",
        ):
            resolved(task, task.data(0))

    @parameterized.parameters(
        (Bounded(heavy_atoms, at_most=4),), ([Bounded],), ("CCO",), ([4],)
    )
    def test_what_is_no_list_of_rules_is_an_error(self, constraints):
        with self.assertRaisesRegex(TypeError, "`constraints` must be a list"):
            molecules.molecules(self.path, constraints=constraints)

    @parameterized.parameters(0, 7)
    def test_more_molecules_than_there_are_is_an_error(self, num_data):
        with self.assertRaisesRegex(ValueError, "`num_data` .* 1 to 6"):
            molecules.molecules(self.path, num_data=num_data)

    def test_formulas_are_drawn_on_white(self):
        task = molecules.molecules(self.path)
        picture = as_picture(task, "CCO")
        self.assertEqual(picture.shape, (260, 360, 3))
        self.assertEqual(picture[[0, 0, -1, -1], [0, -1, 0, -1]].min(), 1.0)
        # Oxygen is red, the bonds between carbons are black.
        is_red = (picture[..., 0] > 0.9) & (picture[..., 1] < 0.1)
        is_black = picture.max(-1) < 0.1
        self.assertBetween(is_red.sum(), 50, 5000)
        self.assertBetween(is_black.sum(), 50, 5000)

    def test_overlapping_atoms_are_not_marked_in_drawings(self):
        smiles = "C" + "Sc1ccccc1" * 20  # Sulfur is yellow, carbon black.
        picture = drawn(smiles)
        is_red = (picture[..., 0] > 0.9) & (picture[..., 1] < 0.1)
        self.assertFalse(is_red.any())

    def test_features_count_the_environments_of_atoms(self):
        features = molecules.molecules(self.path).features
        found = features(["C" * 300, "CC", "OCC", "C(O)C"]).astype(np.int64)
        self.assertEqual(found.shape, (4, 1024))
        # Two atoms, alone and with their neighbour: alike, whose environment is
        # counted once for the bond.
        self.assertEqual(found[1].sum(), 3)
        self.assertAllEqual(found[2], found[3])
        self.assertEqual(found.max(), 255)  # Of some 300 in the chain.

    def test_sets_have_a_diversity_and_scaffolds(self):
        summarize = molecules.molecules(self.path).summarize
        similarity = molecule_properties.Similarity
        # Toluene and phenol share benzene, ethanol has no scaffold.
        inputs = ["Cc1ccccc1", "Oc1ccccc1", "CCO", "C1CCCCC1"]
        pairs = list(itertools.combinations(inputs, 2))
        close = [similarity(one)(other) for one, other in pairs]
        self.assertLen(pairs, 6)
        for rows in (512, 3):
            with mock.patch.object(molecule_properties, "_ROWS", rows):
                found = summarize(inputs)
            self.assertAlmostEqual(
                found["internal diversity"], 1.0 - np.mean(close)
            )
            self.assertEqual(found["scaffolds"], 2)
        self.assertEqual(summarize(["CCO"]), {"scaffolds": 0})

    def test_missing_library_of_drawings_is_a_warning(self):
        without = {"rdkit.Chem.Draw.rdMolDraw2D": None}
        with mock.patch.dict(sys.modules, without):
            with self.assertLogs("tfvae", "WARNING") as logged:
                task = molecules.molecules(self.path)
        self.assertIsNone(task.to_picture)
        self.assertIn("no pictures of molecules", logged.output[0])

    def test_missing_library_is_said_with_what_installs_it(self):
        with mock.patch.dict(sys.modules, {"rdkit.Chem": None}):
            with self.assertRaisesRegex(ImportError, r"\[molecules\]"):
                molecules.molecules(self.path)


if __name__ == "__main__":
    tf.test.main()
