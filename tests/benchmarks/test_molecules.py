# SPDX-License-Identifier: Apache-2.0
"""Tests of the benchmark of molecules, on few of them."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
import types
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from benchmarks import molecules
from tfvae import lso
from tfvae.lso.tasks.molecule_properties import heavy_atoms
from tfvae.runs import config, optimize, train

KNOWN = ["CCO", "c1ccccc1O", "CCN", "CC(C)C", "CCCCO", "C1CCCCC1"]
UNSEEN = ["CCOC", "CCCN", "CC(C)O", "CCCC", "OCC"]


def _start(score=heavy_atoms, largest=12):
    objective = molecules.Objective(
        score, (lambda one: heavy_atoms(one) - largest,), ""
    )
    known = {one: score(one) for one in KNOWN}
    symbols = ("[C]", "[N]", "[O]", "[=C]", "[Branch1]", "[Ring1]")
    return molecules.Start(objective, known, symbols, UNSEEN[:4])


class MethodsTest(parameterized.TestCase):
    @parameterized.parameters(("mutants", 30), ("genetic", 60), ("unseen", 4))
    def test_all_are_new_distinct_and_allowed(self, method, budget):
        start, calls = _start(), []

        def score(smiles):
            calls.append(smiles)
            return heavy_atoms(smiles)

        start = start._replace(objective=start.objective._replace(score=score))
        rng = np.random.default_rng(0)
        found = molecules.METHODS[method](start, budget, rng)
        self.assertEqual([*found], calls)
        self.assertLen(set(calls), budget)
        self.assertEmpty(set(calls) & set(KNOWN))
        self.assertLessEqual(max(found.values()), 12)
        again = molecules.METHODS[method](
            start, budget, np.random.default_rng(0)
        )
        self.assertEqual(again, found)

    def test_evolution_climbs_where_mutations_alone_do_not(self):
        start = _start(largest=40)
        best = [
            max(method(start, 100, np.random.default_rng(1)).values())
            for method in (molecules.mutants, molecules.genetic)
        ]
        self.assertGreater(best[1], best[0] + 3)

    def test_too_few_unseen_molecules_are_an_error(self):
        with self.assertRaisesRegex(ValueError, "at least 5 .* got 4"):
            molecules.unseen(_start(), 5, np.random.default_rng(0))

    def test_spellings_are_of_the_same_molecule(self):
        rng = np.random.default_rng(0)
        smiles = "COc1ccc(C(=O)NCCCCc2ccccc2)cc1"
        spellings = [molecules.spelling(smiles, rng) for _ in range(5)]
        self.assertGreater(len({*map(tuple, spellings)}), 3)
        for one in spellings:
            self.assertEqual(molecules.molecule_of(one), smiles)

    def test_mutations_change_one_symbol(self):
        rng, before = np.random.default_rng(0), list("abcdef")
        lengths = set()
        for _ in range(60):
            after = molecules.mutated(before, "xyz", rng)
            lengths.add(len(after) - len(before))
            new = [one for one in after if one in "xyz"]
            kept = [one for one in after if one not in "xyz"]
            self.assertEqual(kept, [one for one in before if one in kept])
            self.assertLen(new, len(after) - len(kept))
            self.assertGreaterEqual(len(kept), 5)
            self.assertLessEqual(len(new), 1)
        self.assertEqual(lengths, {-1, 0, 1})


class MainTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        self.smiles = self.folder / "known.smi"
        self.smiles.write_text("\n".join(KNOWN))
        self.others = self.folder / "unseen.smi"
        self.others.write_text("\n".join(UNSEEN))

    def main(self, *argv):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            molecules.main(
                [f"--run_dir={self.folder}", f"--smiles={self.smiles}", *argv]
            )
        return printed.getvalue()

    def test_table_is_that_of_finished_runs_which_are_not_repeated(self):
        argv = (f"--unseen={self.others}", "--budget=3", "--seeds", "1", "2")
        table = self.main(*argv)
        runs = (self.folder / "runs.jsonl").read_text().splitlines()
        self.assertLen(runs, 12)  # Two seeds, two objectives, three methods.
        # A kill has cut the last one, which is made again.
        (self.folder / "runs.jsonl").write_text(
            "\n".join(runs[:-1]) + "\n" + runs[-1][:20]
        )
        # What is finished is not made again.
        with mock.patch.dict(
            molecules.METHODS, {"unseen": None, "mutants": None}
        ):
            again = self.main(*argv)
        last = json.loads(
            (self.folder / "runs.jsonl").read_text().split("\n")[-2]
        )
        self.assertEqual(last["best"], json.loads(runs[-1])["best"])
        without_time = [
            [line.rsplit(None, 1)[0] for line in text.splitlines()]
            for text in (table, again)
        ]
        self.assertEqual(*without_time)
        first = json.loads(runs[0])
        self.assertRegex(table, rf"qed, unseen +{first['best_of_start']:.4f} ")

    def test_ours_trains_one_model_and_resumes_its_runs(self):
        entries = [
            types.SimpleNamespace(input=f"{'C' * n}", score=float(n))
            for n in (3, 5, 4)
        ]
        ledger = types.SimpleNamespace(entries=entries)
        with (
            mock.patch.object(train, "train") as trained,
            mock.patch.object(optimize, "optimize") as optimized,
            mock.patch.object(lso, "read_ledger", return_value=ledger),
        ):
            table = self.main(
                *("--methods", "tfvae", "--seeds", "4", "--budget=3"),
                *("--objectives", "logp38"),
            )
        trained.assert_called_once_with(self.folder / "model")
        optimized.assert_called_once_with(self.folder / "logp38" / "seed4")
        bindings = config.bindings(config.text())
        self.assertEqual(bindings["optimize.seed"], "4")
        self.assertEqual(bindings["optimize.budget"], "3")
        self.assertEqual(bindings["molecules.constraints"], "[@size/Bounded()]")
        self.assertEqual(bindings["MODEL"], repr(str(self.folder / "model")))
        self.assertRegex(table, "logp38, tfvae .* 5.0000 to 5.0000 ")

    def test_missing_file_is_said(self):
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), self.assertRaises(SystemExit):
            molecules.main([f"--run_dir={self.folder}", "--smiles=none.smi"])
        self.assertRegex(
            errors.getvalue(), "`--smiles` must be a file .* got 'none.smi'"
        )

    def test_score_is_compared_with_rdkit(self):
        self.assertRegex(
            self.main("--check=5"),
            "^5 molecules: the largest difference .* is [0-9.e-]+; 0 have",
        )


if __name__ == "__main__":
    absltest.main()
