# SPDX-License-Identifier: Apache-2.0
"""The examples with Optuna and BoTorch, where these are installed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import unittest
from unittest import mock

import numpy as np
import pytest
from absl.testing import absltest

from benchmarks.queries import IdentityModel
from tfvae.lso import (
    AggregateSampling,
    LatentSpaceOptimizer,
    Plan,
    Unweighted,
    read_ledger,
)
from tfvae.lso.strategies import Context


def _needs(name):
    return unittest.skipIf(
        importlib.util.find_spec(name) is None, f"{name} is not installed"
    )


@_needs("optuna")
class OptunaTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.example = importlib.import_module("examples.with_optuna")
        self.optuna = self.example.optuna
        self.optuna.logging.set_verbosity(self.optuna.logging.WARNING)
        self.study = self.optuna.create_study(direction="maximize")
        self.enter_context(mock.patch.object(os, "fsync"))
        model = IdentityModel(200)
        self.optimizer = LatentSpaceOptimizer(
            self.create_tempdir().full_path,
            self.example.task,
            model,
            model,
            Plan(8, queries_per_round=4),
            strategy=AggregateSampling(),
            weighting=Unweighted(),
        )
        self.addCleanup(self.optimizer.close)

    def agree(self):
        """Returns state and score of the trials, by query."""
        self.example.agree(self.study, self.optimizer)
        return {
            one.user_attrs["query"]: (one.state.name, one.value)
            for one in self.study.trials
        }

    def test_queries_are_trials_with_their_number_and_input(self):
        queries = self.optimizer.ask(2)
        self.assertEqual(
            self.agree(), {0: ("RUNNING", None), 1: ("RUNNING", None)}
        )
        for trial, query in zip(self.study.trials, queries, strict=True):
            facts = {"query": query.number, "input": query.input}
            self.assertEqual(trial.user_attrs, facts)
        self.assertEqual(self.agree(), self.agree())
        self.assertLen(self.study.trials, 2)

    def test_what_is_told_here_is_told_in_the_study(self):
        self.optimizer.ask(3)
        self.agree()
        self.optimizer.tell(1, 0.5)
        self.optimizer.tell(2, failure="no")
        self.assertEqual(
            self.agree(),
            {0: ("RUNNING", None), 1: ("COMPLETE", 0.5), 2: ("FAIL", None)},
        )

    def test_what_is_told_in_the_study_is_told_here(self):
        self.optimizer.ask(3)
        self.agree()
        self.study.tell(2, 0.25)
        self.study.tell(0, state=self.optuna.trial.TrialState.FAIL)
        self.agree()
        found = {
            one.query: (one.score, one.failure)
            for one in self.optimizer.ledger.entries
        }
        self.assertEqual(
            found, {0: (None, "the trial failed"), 2: (0.25, None)}
        )
        waiting = [one.number for one in self.optimizer.ledger.waiting]
        self.assertEqual(waiting, [1])

    def test_a_study_that_is_lost_is_made_anew(self):
        self.optimizer.ask(2)
        self.optimizer.tell(0, 1.5)
        before = self.agree()
        self.study = self.optuna.create_study(direction="maximize")
        self.assertEqual(self.agree(), before)

    @pytest.mark.slow
    def test_a_run_goes_on_where_it_ended(self):
        folder = self.create_tempdir().full_path
        self.example.main(folder, budget=3, epochs=1)
        self.example.main(folder, budget=5, epochs=1)
        study = self.optuna.load_study(
            study_name="peptides", storage=f"sqlite:///{folder}/study.db"
        )
        found = {one.user_attrs["query"]: one.value for one in study.trials}
        entries = read_ledger(f"{folder}/ledger.jsonl").entries
        self.assertEqual(found, {one.query: one.score for one in entries})
        self.assertLen(study.trials, 5)


@pytest.mark.filterwarnings("ignore")  # Those of PyTorch.
@_needs("botorch")
class BoTorchTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.example = importlib.import_module("examples.with_botorch")

    def test_batches_are_near_the_best_and_apart_from_what_is_pending(self):
        rng = np.random.default_rng(0)
        latents = rng.uniform(-1.0, 1.0, (30, 2)).astype(np.float32)
        scores = -np.sum((latents - 0.3) ** 2, 1).astype(np.float64)
        strategy = self.example.NoisyImprovement()
        context = Context(IdentityModel(2), latents, scores)
        context = context._replace(pending=np.zeros((0, 2), np.float32))
        first = strategy.propose(context, 2, seed=3)
        self.assertEqual((first.shape, first.dtype), ((2, 2), np.float32))
        self.assertLess(np.min(np.abs(first - 0.3).max(1)), 0.1)
        again = strategy.propose(context, 2, seed=3)
        np.testing.assert_array_equal(first, again)
        context = context._replace(pending=first)
        (other,) = strategy.propose(context, 1, seed=3)
        self.assertGreater(np.min(np.abs(other - first).max(1)), 1e-3)

    @pytest.mark.slow
    def test_a_run_goes_on_where_it_ended(self):
        folder = self.create_tempdir().full_path
        self.example.main(folder, budget=2, epochs=1)
        self.example.main(folder, budget=4, epochs=1)
        entries = read_ledger(f"{folder}/ledger.jsonl").entries
        self.assertLen([one for one in entries if one.score is not None], 4)


if __name__ == "__main__":
    absltest.main()
