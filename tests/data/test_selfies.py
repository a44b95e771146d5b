# SPDX-License-Identifier: Apache-2.0
"""Tests of molecules as sequences against RDKit and the package selfies."""

from __future__ import annotations

import dataclasses
import json
import pickle
import sys
from unittest import mock

import numpy as np
import selfies as oracle
import tensorflow as tf
from absl.testing import parameterized

from tfvae.data import byte_pairs, selfies
from tfvae.data.selfies import SelfiesCode

SYMBOLS = ("[nop]", "[C]", "[O]", "[=C]", "[Ring1]", "[=Branch1]")
BENZENE = ("[C]", "[=C]", "[C]", "[=C]", "[C]", "[=C]", "[Ring1]", "[=Branch1]")


class CanonicalSmilesTest(parameterized.TestCase):
    @parameterized.parameters(
        ("OCC", "CCO"),
        ("C1=CC=CC=C1", "c1ccccc1"),
        ("C[C@H](N)C(=O)O", "CC(N)C(=O)O"),
        ("F/C=C/F", "FC=CF"),
        ("[2H]OC", "CO"),
    )
    def test_is_without_stereochemistry(self, smiles, expected):
        self.assertEqual(selfies.canonical_smiles(smiles), expected)

    @parameterized.parameters("", "C1CC", "water", "CC.O", "c1cccc1", None)
    def test_no_molecule_is_refused_quietly(self, smiles):
        with mock.patch.object(sys, "stderr") as stderr:
            with self.assertRaisesRegex(ValueError, "must be one molecule"):
                selfies.canonical_smiles(smiles)
        stderr.write.assert_not_called()


class SelfiesCodeTest(tf.test.TestCase, parameterized.TestCase):
    def test_point_is_one_hot_and_padded(self):
        points = SelfiesCode(SYMBOLS, 4).write(["OCC", "O"])
        expected = np.zeros((2, 4, 6))
        expected[0, [0, 1, 2, 3], [1, 1, 2, 0]] = 1.0
        expected[1, [0, 1, 2, 3], [2, 0, 0, 0]] = 1.0
        self.assertAllEqual(points, expected.reshape(2, 24))
        self.assertEqual(points.dtype, np.uint8)

    def test_agrees_with_the_encoding_of_the_package(self):
        code = SelfiesCode(SYMBOLS, 10)
        flat = oracle.batch_selfies_to_flat_hot(
            ["".join(BENZENE)], {s: i for i, s in enumerate(SYMBOLS)}, 10
        )
        self.assertAllEqual(code.write(["c1ccccc1"]), flat)

    def test_likeliest_symbols_are_read_up_to_the_padding(self):
        code = SelfiesCode(SYMBOLS, 4)
        outputs = np.full((1, 4, 6), 0.1)
        outputs[0, [0, 1, 2, 3], [1, 2, 0, 1]] = 0.5
        self.assertEqual(code.read(outputs.reshape(1, -1)), ["CO"])

    def test_nothing_before_the_padding_is_none(self):
        code = SelfiesCode(SYMBOLS, 2)
        self.assertEqual(code.read(code.one_hot([[], ["[O]"]])), [None, "O"])

    def test_random_outputs_are_molecules_that_can_be_written(self):
        # Carbon, oxygen and rings only: always in symbols that are known.
        symbols = (*SYMBOLS, "[=O]", "[#C]", "[Branch1]", "[=Ring1]")
        code = SelfiesCode(symbols, 12)
        outputs = np.random.default_rng(0).random((100, 120))
        found = [one for one in code.read(outputs) if one is not None]
        self.assertGreater(len(found), 70)
        for smiles in found:
            self.assertEqual(selfies.canonical_smiles(smiles), smiles)
        self.assertEqual(code.read(code.write(found)), found)

    def test_another_spelling_is_found_for_lack_of_a_symbol(self):
        # RDKit writes [SH], for which there is no symbol; SELFIES means it.
        code = SelfiesCode(("[nop]", "[C]", "[=C]", "[S]", "[=S]"), 4)
        smiles = "C=[SH]C"
        self.assertIn("[=SH1]", selfies.split_symbols(smiles))
        self.assertEqual(code.read(code.write([smiles])), [smiles])

    def test_another_beginning_is_found_for_lack_of_steps(self):
        smiles = "CCC(C)O"
        shortest = min(
            len(selfies.split_symbols(one))
            for one in ("CCC(C)O", "CC(CC)O", "CC(O)CC", "OC(C)CC")
        )
        symbols = ("[nop]", "[C]", "[O]", "[Branch1]", "[Ring1]")
        code = SelfiesCode(symbols, shortest)
        self.assertEqual(code.read(code.write([smiles])), [smiles])

    def test_molecule_that_cannot_be_said_is_named(self):
        with self.assertRaisesRegex(ValueError, "3 steps of the 6 .*'CCCC'"):
            SelfiesCode(SYMBOLS, 3).write(["CO", "CCCC"])
        with self.assertRaisesRegex(ValueError, "'CN'"):
            SelfiesCode(SYMBOLS, 3).write(["CN"])

    def test_symbols_are_drawn_in_proportion(self):
        code = SelfiesCode(("[nop]", "[C]", "[O]", "[N]"), 1)
        probs = np.tile([0.1, 0.6, 0.3, 0.0], (2000, 1))
        found = code.read(probs, seed=3)
        for smiles, expected in ((None, 0.1), ("C", 0.6), ("O", 0.3)):
            share = found.count(smiles) / 2000
            error = np.sqrt(expected * (1 - expected) / 2000)
            self.assertLess(abs(share - expected), 4 * error)
        self.assertNotIn("N", found)

    def test_draw_depends_on_the_seed_alone(self):
        code = SelfiesCode(SYMBOLS, 5)
        outputs = np.full((20, 30), 1 / 6)
        self.assertEqual(code.read(outputs, 1), code.read(outputs, 1))
        self.assertNotEqual(code.read(outputs, 1), code.read(outputs, 2))

    def test_wrong_outputs_are_refused(self):
        code = SelfiesCode(SYMBOLS, 2)
        with self.assertRaisesRegex(ValueError, r"\[n, 12\].*\(3, 5\)"):
            code.read(np.zeros((3, 5)))
        with self.assertRaisesRegex(ValueError, "finite"):
            code.read(np.full((1, 12), np.nan))
        with self.assertRaisesRegex(ValueError, "probabilities"):
            code.read(np.zeros((1, 12)), seed=0)

    def test_merged_symbols_are_steps(self):
        merges = (("[C]", "[C]"), ("[C][C]", "[O]"))
        code = SelfiesCode(("[nop]", "[C]", "[O]"), 2, merges)
        self.assertEqual(code.num_symbols, 5)
        points = code.write(["CCO", "CC", "O"])
        chosen = points.reshape(3, 2, 5).argmax(-1)
        self.assertAllEqual(chosen, [[4, 0], [3, 0], [2, 0]])
        self.assertEqual(code.read(points), ["CCO", "CC", "O"])

    @parameterized.parameters(0, 1, 2)
    def test_merges_change_no_molecule_that_symbols_can_spell(self, seed):
        symbols = (*SYMBOLS, "[=O]", "[#C]", "[Branch1]", "[=Ring1]")
        plain = SelfiesCode(symbols, 12)
        outputs = np.random.default_rng(seed).random((60, 120))
        found = [one for one in plain.read(outputs) if one is not None]
        # Learnt from others, and longer than any of these.
        learnt = np.random.default_rng(seed + 10).choice(symbols[1:], (50, 12))
        merges = byte_pairs.learn_merges(learnt.tolist(), 20)
        code = SelfiesCode(symbols, 12, merges)
        self.assertLen(merges, 20)
        self.assertEqual(code.read(code.write(found)), found)

    def test_code_that_was_used_is_pickled(self):
        code = SelfiesCode(SYMBOLS, 4)
        points = code.write(["CO"])
        again = pickle.loads(pickle.dumps(code))
        self.assertEqual(again, code)
        self.assertEqual(again.read(points), ["CO"])

    def test_json_holds_a_code(self):
        code = SelfiesCode(
            ("[nop]", "[C]", "[O]"), 3, (("[C]", "[C]"),), keeps_stereo=True
        )
        text = json.dumps(dataclasses.asdict(code))
        self.assertEqual(SelfiesCode(**json.loads(text)), code)

    @parameterized.parameters(
        ((("[C]", "[N]"),), "pairs of symbols.*'\\[N\\]'"),
        ((("[C]",),), "pairs of symbols"),
        ((("[C]", "[C]"), ("[C]", "[C]")), "a new token each"),
    )
    def test_wrong_merges_are_refused(self, merges, message):
        with self.assertRaisesRegex(ValueError, "`merges` must .*" + message):
            SelfiesCode(("[nop]", "[C]", "[O]"), 3, merges)

    @parameterized.parameters(
        (("[C]", "[nop]"), 2, "`symbols`"),
        (("[nop]", "[C]", "[C]"), 2, "`symbols`"),
        (("[nop]",), 0, "`num_steps`"),
    )
    def test_wrong_code_is_refused(self, symbols, num_steps, message):
        with self.assertRaisesRegex(ValueError, message):
            SelfiesCode(symbols, num_steps)


if __name__ == "__main__":
    tf.test.main()
