# SPDX-License-Identifier: Apache-2.0
"""The loop with VAEs and TVAEs: what `test_loop.py` cannot try with fakes."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests import grids
from tests.lso import fakes, tiny
from tests.lso.fakes import Count, Walk, sequence
from tfvae import networks, priors, vae
from tfvae.lso import (
    EnsembleRegressor,
    EvolutionaryExpectedImprovement,
    ExpectedImprovement,
    LatentSpaceOptimizer,
    Plan,
    PriorSampling,
    Rank,
    Retraining,
    SparseGaussianProcess,
)

PLAN = Plan(budget=7, queries_per_round=3, num_best=4, num_random=6, seed=5)
RETRAINING = Retraining(first_epochs=2, epochs=1, batch_size=8)


class ModelsTest(tf.test.TestCase, parameterized.TestCase):
    def _open(self, folder, **kwargs):
        values = {
            "task": tiny.task(),
            "model": tiny.model(),
            "plan": PLAN,
            "strategy": Walk(),
            "surrogate": Count(),
            "weighting": Rank(0.1),
            "retraining": RETRAINING,
        } | kwargs
        return LatentSpaceOptimizer.of_model(folder, **values)

    @parameterized.parameters("sampling", "loss", "replication")
    @grids.by_default(0)
    def test_run_that_stops_now_and_then_goes_on_the_same(self, use):
        retraining = dataclasses.replace(RETRAINING, use=use)
        self._assert_goes_on_the_same(lambda: {"retraining": retraining})

    @pytest.mark.slow  # Half a minute.
    def test_tvae_that_stops_now_and_then_goes_on_the_same(self):
        self._assert_goes_on_the_same(
            lambda: {
                "model": tiny.binary_model().with_capacity(
                    tiny.NUM_DATA + PLAN.budget
                ),
                "strategy": EvolutionaryExpectedImprovement(
                    num_states=4, num_steps=3
                ),
                "surrogate": EnsembleRegressor(num_trees=3),
            }
        )

    def _assert_goes_on_the_same(self, options):
        whole, parted = (self.create_tempdir().full_path for _ in range(2))
        with self._open(whole, **options()) as optimizer:
            optimizer.run()
            expected = sequence(optimizer.ledger.entries)
            num_data = len(optimizer.collection.points)
        # Amid a round, and between two; each process has another model, until
        # that of the run is restored.
        for moment in (2, 3, 6):
            with self._open(parted, **options()) as optimizer:
                for _ in optimizer.steps():
                    if optimizer.num_done >= moment:
                        break
        with self._open(parted, **options()) as optimizer:
            optimizer.run()
            self.assertEqual(sequence(optimizer.ledger.entries), expected)
            self.assertLen(optimizer.collection.points, num_data)

    @pytest.mark.slow  # Half a minute.
    def test_budget_of_whole_rounds_of_a_tvae_may_grow(self):
        folder = self.create_tempdir().full_path
        for budget in (6, 9):
            plan = dataclasses.replace(PLAN, budget=budget)
            model = tiny.binary_model().with_capacity(tiny.NUM_DATA + budget)
            with self._open(
                folder, model=model, plan=plan, strategy=PriorSampling()
            ) as optimizer:
                optimizer.run()
                self.assertEqual(optimizer.num_done, budget)
                kept = optimizer.collection.num_kept
        self.assertEqual(kept, tiny.NUM_DATA + 6)

    def test_surrogate_and_acquisition_take_the_largest_scores(self):
        scores = iter([9e99, -9e99, 1.0, 2.0])
        space = fakes.Space()
        with LatentSpaceOptimizer(
            self.create_tempdir().full_path,
            tiny.task(objective=lambda point: next(scores)),
            space,
            fakes.Retrainer(space),
            Plan(4, queries_per_round=1, num_best=4, num_random=6),
            strategy=ExpectedImprovement(num_starts=2, max_iterations=10),
            surrogate=SparseGaussianProcess(5, num_kernel_steps=3, num_steps=2),
            weighting=Rank(0.1),
        ) as optimizer:
            optimizer.run()
            entries = optimizer.ledger.entries
        self.assertEqual([e.score for e in entries], [9e99, -9e99, 1.0, 2.0])
        self.assertAllInRange([e.latent for e in entries], -1e6, 1e6)

    def test_later_rounds_trace_nothing(self):
        model, traced = tiny.model(), []
        step = model.train_step

        def counted(data):
            traced.append(len(traced))
            return step(data)

        model.train_step = counted
        folder = self.create_tempdir().full_path
        numbers = []
        with self._open(folder, model=model) as optimizer:
            for _ in optimizer.steps():
                numbers.append(len(traced))
        self.assertGreater(numbers[0], 0)
        self.assertEqual(numbers[0], numbers[-1])

    def test_tvae_without_rows_for_what_is_found_is_an_error(self):
        with self.assertRaisesRegex(ValueError, "with_capacity"):
            self._open(
                self.create_tempdir().full_path,
                model=tiny.binary_model(),
                strategy=PriorSampling(),
            )

    @parameterized.parameters("flow prior", "random encoder")
    @grids.by_default(0)
    def test_other_vaes_go_through_the_same_loop(self, kind):
        plain = tiny.model()
        if kind == "flow prior":
            prior = priors.RealNVPPrior(tiny.NUM_LATENTS, hidden=(4,))
            encoder = plain.encoder
        else:
            prior = priors.StandardNormalPrior(tiny.NUM_LATENTS)
            network = functools.partial(
                networks.fully_connected_encoder,
                num_observed=tiny.NUM_OBSERVED,
            )
            encoder = vae.non_learnable(network, tiny.NUM_LATENTS)
        model = vae.VAE(encoder, plain.decoder, prior)
        model.adapt(tiny.data().points)
        frozen = [np.array(one) for one in encoder.non_trainable_weights]
        folder = self.create_tempdir().full_path
        with self._open(folder, model=model) as optimizer:
            optimizer.run()
            self.assertLen(optimizer.ledger.entries, 7)
        for before, after in zip(
            frozen, encoder.non_trainable_weights, strict=True
        ):
            self.assertAllEqual(before, after)

    def test_binary_latents_go_through_the_same_loop(self):
        folder = self.create_tempdir().full_path
        model = tiny.binary_model()
        grown = model.with_capacity(tiny.NUM_DATA + PLAN.budget)
        with self._open(
            folder, model=grown, strategy=PriorSampling()
        ) as optimizer:
            optimizer.run()
            entries = optimizer.ledger.entries
        self.assertLen(entries, PLAN.budget)
        for entry in entries:
            self.assertContainsSubset(entry.latent, [0.0, 1.0])

    @pytest.mark.slow
    def test_growing_keeps_parameters_and_states(self):
        model = tiny.binary_model()
        grown = model.with_capacity(30)
        x = tiny.data().points
        index = np.arange(len(x))
        self.assertAllEqual(
            grown.states.packed[: tiny.NUM_DATA], model.states.packed
        )
        self.assertAllClose(
            grown.stored_reconstruction(x, index),
            model.stored_reconstruction(x, index),
        )
        shrunk = grown.with_capacity(10)
        self.assertAllEqual(shrunk.states.packed, model.states.packed[:10])


if __name__ == "__main__":
    tf.test.main()
