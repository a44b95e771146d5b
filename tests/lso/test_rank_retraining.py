# SPDX-License-Identifier: Apache-2.0
"""Several ranks retrain the model of an optimisation as one process does."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests import grids, rank_threads
from tests.lso import tiny
from tfvae import vae
from tfvae.lso import (
    LatentSpaceOptimizer,
    Plan,
    PriorSampling,
    Rank,
    Retraining,
    SparseGaussianProcess,
    read_ledger,
)
from tfvae.lso.rank_retraining import LeadingRetrainer, follow, release
from tfvae.lso.retraining import ModelRetrainer
from tfvae.ops.distributions import DiagonalGaussian
from tfvae.ranks import MPIRanks

PLAN = Plan(budget=2, queries_per_round=1, seed=5)
# Of batches of four points three ranks have 2, 1 and 1, and of the last one of
# nine points 1, 0 and 0.
RETRAINING = Retraining(
    first_epochs=1, epochs=1, batch_size=4, keeps_optimizer=True
)


def _model() -> Any:
    made = tiny.model()
    # Draws, which are each rank's own, would have gradients of their own.
    made.compile(keras.optimizers.SGD(0.05), run_eagerly=True)
    return made


def _values(model: Any) -> list[np.ndarray]:
    return [one.numpy() for one in model.trainable_variables]


class RankRetrainingTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        # Makes all draws the mode: ranks have seeds of their own.
        self.enter_context(
            mock.patch.object(
                DiagonalGaussian, "sample", lambda self, *_: self.mode
            )
        )

    @parameterized.parameters("sampling", "loss", "replication")
    @grids.by_default(1)  # The optimisation below samples.
    def test_ranks_retrain_as_one_process_does(self, use):
        self._assert_retrains_as_one_process(
            dataclasses.replace(RETRAINING, use=use), None
        )

    @pytest.mark.slow  # Three fits of a Gaussian process.
    def test_ranks_retrain_jointly_as_one_process_does(self):
        self._assert_retrains_as_one_process(
            dataclasses.replace(RETRAINING, surrogate_weight=1.0),
            SparseGaussianProcess(5, num_kernel_steps=3, num_steps=2),
            1e-3,  # As the second fit begins from rounded weights.
        )

    def _assert_retrains_as_one_process(
        self, retraining, surrogate, tolerance=1e-5
    ):
        data = tiny.data()
        weights = np.arange(9.0) / 36.0
        points = data.points[:10].copy()
        points[1, 0] = points[7, :3] = np.nan
        few = np.eye(10)[5]
        rows = np.arange(0, 9, 2)
        scores = data.scores[:10]
        rounds = (
            (points[:9], weights, 9, True, scores[:9], rows),
            (points, few, 10, False, scores, rows),
        )

        def retrained(ranks: MPIRanks | None) -> Any:
            model = models[ranks.rank if ranks else -1]
            settings = (model, retraining, 3, surrogate)
            if ranks and ranks.rank:
                model.set_ranks(ranks)
                with mock.patch.object(Plan, "seed_of", lambda *_: 3):
                    follow(
                        model, PLAN, surrogate=surrogate, retraining=retraining
                    )
                return _values(model), None
            if ranks:
                model.set_ranks(ranks)
                retrainer = LeadingRetrainer(ModelRetrainer(*settings), ranks)
            else:
                retrainer = ModelRetrainer(*settings)
            model.run_eagerly = True  # Joint training compiles it anew.
            losses = [retrainer.retrain(*one) for one in rounds]
            if ranks:
                release(ranks)
            return _values(model), losses

        models = [_model() for _ in range(4)]
        start = _values(models[-1])
        of_ranks = rank_threads.run(3, retrained)
        values, losses = retrained(None)
        self.assertAllClose(of_ranks[0][1], losses, rtol=1e-4)
        for found, _ in of_ranks:
            for one, other, expected in zip(
                found, of_ranks[0][0], values, strict=True
            ):
                self.assertAllEqual(one, other)
                self.assertAllClose(one, expected, rtol=1e-4, atol=tolerance)
        for before, after in zip(start, values, strict=True):
            self.assertNotAllClose(before, after, rtol=1e-2, atol=1e-3)

    def test_optimisation_over_ranks_is_that_of_one_process(self):
        folders = [self.create_tempdir().full_path for _ in range(2)]

        def optimized(ranks: MPIRanks | None) -> None:
            model = models[ranks.rank if ranks else -1]
            if ranks:
                model.set_ranks(ranks)
            if ranks and ranks.rank:
                follow(model, PLAN, retraining=RETRAINING)
                return
            with LatentSpaceOptimizer.of_model(
                folders[0 if ranks else 1],
                tiny.task(),
                model,
                PLAN,
                strategy=PriorSampling(),
                weighting=Rank(0.1),
                retraining=RETRAINING,
            ) as optimizer:
                optimizer.run()
            if ranks:
                release(ranks)

        models = [_model() for _ in range(3)]
        rank_threads.run(2, optimized)
        optimized(None)
        # Any number of ranks resumes it: headers do not tell.
        by_ranks, by_one = (
            read_ledger(f"{one}/ledger.jsonl") for one in folders
        )
        self.assertEqual(by_ranks.header, by_one.header)
        self.assertLen(by_ranks.entries, 2)
        for found, expected in zip(
            by_ranks.entries, by_one.entries, strict=True
        ):
            self.assertAllClose(found.input, expected.input, rtol=1e-3)
            self.assertAllClose(found.score, expected.score, rtol=1e-3)

    def test_what_ranks_do_not_retrain_is_refused(self):
        model = tiny.binary_model()

        def make(ranks: MPIRanks) -> None:
            models[ranks.rank].ranks = ranks
            ModelRetrainer(models[ranks.rank], retraining, 0)

        models, retraining = [model, model], RETRAINING
        with self.assertRaisesRegex(ValueError, "be a VAE .* got a TVAE"):
            rank_threads.run(2, make)
        models = [tiny.model(), tiny.model()]
        for one in models:
            one.objective = vae.Elbo(weighs_distortion=False)
        retraining = dataclasses.replace(RETRAINING, use="loss")
        with self.assertRaisesRegex(ValueError, "must weigh the distortion"):
            rank_threads.run(2, make)


if __name__ == "__main__":
    tf.test.main()
