# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import pathlib

from absl.testing import absltest, parameterized

from tfvae.runs import identity, train  # noqa: F401 # gin knows all names.

_FOLDER = pathlib.Path("some/run")


class IdentityTest(parameterized.TestCase):
    def test_differences_name_both_values(self):
        model = "experiment.model = @TVAE\n"
        saved = "fit.batch_size = 32\nfit.epochs = 3\nTVAE.num_states = 5\n"
        current = "fit.batch_size = 64\nfit.epochs = 5\n"
        self.assertEqual(
            identity.differences(
                model + saved, model + current, identity.TRAINING
            ),
            [
                "TVAE.num_states was 5, is now not set",
                "fit.batch_size was 32, is now 64",
            ],
        )

    @parameterized.parameters(
        ("fit.epochs = %EPOCHS\nEPOCHS = 4\n",),
        ("fit.epochs = %LONG\nLONG = 4\n",),
        ("fit.epochs = 4\n",),
    )
    def test_epochs_of_a_training_may_differ_through_a_macro(self, current):
        saved = "EPOCHS = 3\nfit.epochs = %EPOCHS\n"
        found = identity.differences(saved, current, identity.TRAINING)
        self.assertEmpty(found)
        self.assertEqual(
            identity.differences(saved, current, identity.CELL),
            ["fit.epochs was 3, is now 4"],
        )

    def test_same_epochs_of_a_cell_are_the_same_through_a_macro(self):
        saved = "EPOCHS = 3\nfit.epochs = %EPOCHS\n"
        found = identity.differences(saved, "fit.epochs = 3\n", identity.CELL)
        self.assertEmpty(found)

    @parameterized.parameters(
        ("optimize.budget", True),
        ("optimize.budgets", False),
        ("optimize.seed", False),
        ("optimize.num_samples", True),
        ("ProcessPool.num_workers", True),
        ("ProcessPools.num_workers", False),
        ("fit.keep_checkpoints", True),
    )
    def test_budget_and_evaluator_of_an_optimisation_may_differ(
        self, name, may_differ
    ):
        found = identity.differences(
            f"{name} = 3\n", f"{name} = 4\n", identity.OPTIMIZATION
        )
        self.assertEqual(not found, may_differ)

    @parameterized.parameters(
        ("'a.py'", "'./a.py'", True),
        ("'a.py'", '"b/../a.py"', True),
        (f"'{os.path.abspath('a.py')}'", "'a.py'", True),
        ("'a.py'", "'b.py'", False),
        ("'a.py'", "%FILE", False),
        ("'a.py'", None, False),
    )
    def test_paths_are_compared_as_a_whole(self, before, after, are_same):
        for name in ("own_task.path", "optimize.warm_start"):
            task = "optimize.task = @own_task()\n"
            saved = f"{task}{name} = {before}\n"
            current = task if after is None else f"{task}{name} = {after}\n"
            found = identity.differences(saved, current, identity.TRAINING)
            self.assertLen(found, 0 if are_same else 1)
        other = identity.differences(
            f"a.b = {before}\n", f"a.b = {after}\n", identity.TRAINING
        )
        self.assertLen(other, 1)

    def test_what_can_not_act_makes_no_difference(self):
        run = "experiment.model = @TVAE\nTVAE.num_latents = 3\n"
        idle = "RealNVPPrior.num_flows = 7\nFLOWS = 3\n"
        for saved, current in ((run + idle, run), (run, run + idle)):
            found = identity.differences(saved, current, identity.TRAINING)
            self.assertEmpty(found)
        vae = "experiment.model = @vae\nvae.prior = @RealNVPPrior\n"
        self.assertLen(
            identity.differences(vae + idle, vae, identity.TRAINING), 1
        )

    def test_layout_of_the_text_makes_no_difference(self):
        saved = "a.b = [1, 2]\n\n# a comment\nc.d = 'e'\n"
        current = 'c.d = \\\n    "e"\na.b = [\n    1,\n    2,\n]\n'
        found = identity.differences(saved, current, identity.CELL)
        self.assertEmpty(found)

    def test_another_run_is_refused_with_what_may_be_raised(self):
        arguments = _FOLDER, "a.b = 1\n", "a.b = 2\n"
        same = "`run_dir` some/run must be empty or of the same configuration"
        with self.assertRaisesRegex(
            ValueError,
            f"{same}, got other values: a.b was 1, is now 2. Only `fit.epochs` "
            "may be raised",
        ):
            identity.check(*arguments, identity.TRAINING)
        with self.assertRaisesRegex(
            ValueError, "values for cell one: a.b was 1, is now 2.$"
        ):
            identity.check(*arguments, identity.CELL, "cell one")

    def test_other_data_are_refused(self):
        identity.check_data(_FOLDER, 1, 1, "bars")
        with self.assertRaisesRegex(
            ValueError, "`experiment.data` must be.*got bars with other values"
        ):
            identity.check_data(_FOLDER, 1, 2, "bars")


if __name__ == "__main__":
    absltest.main()
