# SPDX-License-Identifier: Apache-2.0
"""Tests of the benchmark of models of molecules, without a model."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from absl.testing import absltest, parameterized

from benchmarks import molecule_models
from tfvae.data.selfies import PADDING, SelfiesCode

CODE = SelfiesCode((PADDING, "[C]", "[O]"), 4, (("[C]", "[O]"),))


class MoleculeModelsTest(parameterized.TestCase):
    @parameterized.parameters(
        ([1, 3, 0, 0], True),
        ([1, 1, 1, 1], True),
        ([0, 1, 1, 1], False),  # Ends before it begins.
    )
    def test_draws_are_molecules_up_to_the_padding(self, tokens, expected):
        probs = 0.9 * np.eye(CODE.num_symbols)[tokens] + 0.02
        self.assertEqual(molecule_models._is_molecule(CODE, probs), expected)

    def test_missing_file_is_named(self):
        err = io.StringIO()
        with contextlib.redirect_stderr(err), self.assertRaises(SystemExit):
            molecule_models.main(["runs/a", "--unseen=/nowhere.txt"])
        self.assertIn("`--unseen` must be a file", err.getvalue())


if __name__ == "__main__":
    absltest.main()
