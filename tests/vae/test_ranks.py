# SPDX-License-Identifier: Apache-2.0
"""Several ranks train a VAE as one process does."""

from __future__ import annotations

import functools
from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from tests import rank_threads
from tests.vae import tiny
from tfvae import likelihoods, priors, vae
from tfvae.ops.distributions import DiagonalGaussian
from tfvae.ranks import ONE_PROCESS, MPIRanks

# For each step and rank, the rows of the data: unequal, and once none.
_STEPS = (([0, 5, 2, 9], [3]), ([1, 4, 7], []), ([8], [6, 10, 12, 11]))


def _data() -> np.ndarray:
    x = tiny.data()
    x[1, 0] = x[4, 2] = x[5, :2] = np.nan
    return x


def _network(num_outputs: int) -> keras.Model:
    return tiny.sinks(num_outputs)


def make(**kwargs: Any) -> vae.VAE:
    model = tiny.make(
        "learnable",
        encoder=vae.learnable(_network, tiny.NUM_LATENTS),
        prior=priors.RealNVPPrior(tiny.NUM_LATENTS, hidden=(4,)),
        **kwargs,
    )
    model.compile(keras.optimizers.SGD(0.05), run_eagerly=True)
    return model


@functools.cache
def _shared() -> list[vae.VAE]:
    """Models that tests share, the last one of a process alone."""
    return [make() for _ in range(4)]


def _models() -> list[vae.VAE]:
    """The shared models, with the weights that they started with."""
    models = _shared()
    if not _START:
        _START.extend(_values(models[-1]))
    for model in models:
        for variable, value in zip(model.variables, _START, strict=True):
            variable.assign(value)
        model.set_ranks(ONE_PROCESS)
    return models


_START: list[np.ndarray] = []


def _values(model: vae.VAE) -> list[np.ndarray]:
    return [one.numpy() for one in model.variables]


def modes() -> Any:
    """Makes all draws the mode: ranks have seeds of their own."""
    return mock.patch.object(
        DiagonalGaussian, "sample", lambda self, *_: self.mode
    )


def trained(
    model: vae.VAE, ranks: MPIRanks | None, has_latent_loss: bool = False
) -> tuple[list[np.ndarray], dict[str, float]]:
    """Trains a model as one of two ranks, or on the data of both."""
    x, weights = _data(), np.linspace(0.5, 1.5, 13, dtype=np.float32)
    if ranks:
        model.set_ranks(ranks)
    for step in _STEPS:
        rows = np.array(step[ranks.rank] if ranks else sum(step, []))
        rows = rows.astype(int)
        y = rows if has_latent_loss else x[rows]
        model.train_step((x[rows], y, weights[rows]))
    names = [one.name for one in model.metrics]
    logs = model._get_metrics_result_or_logs(
        dict.fromkeys(names) if ranks else model.get_metrics_result()
    )
    return _values(model), {k: float(v) for k, v in logs.items()}


class RanksTest(tf.test.TestCase, parameterized.TestCase):
    def test_ranks_train_as_one_process_does(self):
        self._assert_trains_as_one_process(None)

    @pytest.mark.slow  # Has a faster twin.
    def test_ranks_train_with_a_latent_loss_as_one_process_does(self):
        self._assert_trains_as_one_process(
            lambda z, y: tf.square(z[:, 0] - tf.cast(y, tf.float32) / 13.0)
        )

    def _assert_trains_as_one_process(self, latent_loss):
        models = _models()
        for model in models:
            model.compile(
                keras.optimizers.SGD(0.05),
                run_eagerly=True,
                latent_loss=latent_loss,
            )
        with modes():
            of_ranks = rank_threads.run(
                2,
                lambda ranks: trained(
                    models[ranks.rank], ranks, bool(latent_loss)
                ),
            )
        self.assert_is_of_one_process(models[-1], of_ranks, bool(latent_loss))

    def assert_is_of_one_process(self, model, of_ranks, has_latent_loss=False):
        first, second = of_ranks
        start = _values(model)
        with modes():
            values, logs = trained(model, None, has_latent_loss)
        self.assertEqual(set(first[1]), set(logs))
        moved = 0
        for found, other, expected, before in zip(
            first[0], second[0], values, start, strict=True
        ):
            # Metrics and seeds are each rank's own.
            if found.dtype != np.float32 or not found.ndim:
                continue
            self.assertAllClose(found, expected, rtol=1e-4, atol=1e-6)
            self.assertAllEqual(found, other)
            moved += not np.array_equal(expected, before)
        self.assertGreater(moved, 8)
        for name, value in logs.items():
            self.assertAllClose(first[1][name], value, rtol=1e-4, atol=1e-6)
        for found in (first, second):
            noise = found[1]["noise_std"]
            self.assertAllClose(noise, logs["noise_std"], rtol=1e-6)

    def test_adapt_and_calibrate_see_the_data_of_all_ranks(self):
        x = 20.0 * _data()

        def adapted(ranks: MPIRanks | None) -> list[np.ndarray]:
            model = models[ranks.rank if ranks else -1]
            mine = x
            if ranks:
                model.set_ranks(ranks)
                mine = x[ranks.rows(len(x))]
            model.adapt(mine)
            model.calibrate(mine)
            parts = model.encoder, model.likelihood
            return [one.numpy() for part in parts for one in part.variables]

        models = _models()
        with modes():
            of_ranks = rank_threads.run(2, adapted)
            alone = adapted(None)
        for found in of_ranks:
            self.assertAllClose(found, alone, rtol=1e-5)

    def test_pseudo_inputs_are_those_of_rank_0(self):
        def adapted(ranks: MPIRanks) -> np.ndarray:
            prior = priors.VampPrior(tiny.NUM_LATENTS, num_pseudo_inputs=3)
            model = vae.VAE(
                vae.learnable(_network, tiny.NUM_LATENTS),
                tiny.decoder(),
                prior,
            )
            model.set_ranks(ranks)
            model.adapt(_data()[ranks.rows(13)])
            return prior.pseudo_inputs.numpy()

        first, second = rank_threads.run(2, adapted)
        self.assertAllEqual(first, second)

    def test_evaluation_is_that_of_all_parts_also_of_none(self):
        x, weights = _data(), np.linspace(0.5, 1.5, 13, dtype=np.float32)
        models = _models()

        def evaluated(ranks: MPIRanks) -> Any:
            model = models[ranks.rank]
            model.set_ranks(ranks)
            rows = (slice(0, 5), slice(5, 13), slice(13, 13))[ranks.rank]
            return model.evaluate(
                x[rows],
                batch_size=4,
                sample_weight=weights[rows],
                verbose=0,
                return_dict=True,
            )

        with modes():
            found = rank_threads.run(3, evaluated)
            expected = models[3].evaluate(
                x, sample_weight=weights, verbose=0, return_dict=True
            )
        for of_rank in found:
            self.assertAllClose(of_rank, expected, rtol=1e-5)

    def test_what_works_in_one_process_only_is_refused(self):
        model = tiny.make()
        with self.assertRaisesRegex(
            ValueError, "must not normalize by its batch .* got the layer"
        ):
            rank_threads.run(2, model.set_ranks)

        def step(ranks: MPIRanks) -> None:
            model = models[ranks.rank]
            model.set_ranks(ranks)
            model.train_step((_data(), None, np.ones(13, np.float32)))

        objective = vae.Elbo(weighs_distortion=False)
        models = [make(objective=objective) for _ in range(2)]
        with self.assertRaisesRegex(
            ValueError, "`objective` must weigh the distortion .* got Elbo"
        ):
            rank_threads.run(2, step)

    def test_frozen_normalization_is_not_refused(self):
        def share(ranks: MPIRanks) -> int:
            model = tiny.make("non_learnable")
            model.set_ranks(ranks)
            return model.ranks.size

        self.assertEqual(rank_threads.run(2, share), [2, 2])

    def test_fixed_likelihood_exchanges_gradients_alone(self):
        def step(ranks: MPIRanks) -> list[int]:
            model = make(likelihood=likelihoods.BernoulliLikelihood())
            model.set_ranks(ranks)
            sizes = []
            all_sum = ranks._all_sum
            with mock.patch.object(
                ranks,
                "_all_sum",
                lambda *flats: (
                    sizes.append(sum(one.size for one in flats))
                    or all_sum(*flats)
                ),
            ):
                model.train_step(_data())
            of_gradient = sum(
                np.prod(one.shape) for one in model.trainable_variables
            )
            self.assertEqual(sizes, [of_gradient + 1])
            return sizes

        rank_threads.run(2, step)


if __name__ == "__main__":
    absltest.main()
