# SPDX-License-Identifier: Apache-2.0
"""Whole training steps of a TVAE against the slow and obvious ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests import grids, oracles
from tests.tvae.plain import PlainTVAE
from tfvae import likelihoods, networks, tvae

NUM_DATA = 13


@dataclasses.dataclass(frozen=True)
class Case:
    """A random model and its data."""

    num_latents: int
    num_observed: int
    hidden: tuple[int, ...] = (6,)
    activation: str = "tanh"
    likelihood: type = likelihoods.GaussianLikelihood
    share_missing: float = 0.0
    evolution: dict[str, Any] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    optimizer: Any = keras.optimizers.Adam
    scale: float = 1.0


CASES = {
    "small": Case(5, 3),
    "linear": Case(9, 4, (), optimizer=keras.optimizers.SGD),
    "deep": Case(9, 7, (12, 8), "leaky_relu", share_missing=0.3),
    "more_than_64_latents": Case(
        70, 5, (10,), share_missing=0.2, settings={"num_states": 20}
    ),
    "sparse_first_layer": Case(260, 4, (7,), settings={"num_states": 10}),
    "pixels": Case(9, 16, (10,), scale=255.0, share_missing=0.4),
    "bernoulli": Case(
        9, 5, likelihood=likelihoods.BernoulliLikelihood, share_missing=0.2
    ),
    "diagonal": Case(9, 4, likelihood=likelihoods.DiagonalGaussianLikelihood),
    "crossover": Case(
        9,
        4,
        evolution={
            "parents": tvae.Elite(),
            "variation": tvae.Crossover(tvae.SparseFlip()),
            "num_generations": 3,
        },
    ),
    "few_m_states": Case(9, 4, settings={"num_m_states": 3}),
    "little_dropped_mass": Case(
        9, 4, share_missing=0.3, settings={"max_dropped_mass": 0.05}
    ),
    "m_step_batches": Case(
        9, 4, (8,), settings={"m_batch_size": 2, "max_dropped_mass": 0.2}
    ),
    "all_states": Case(
        4, 3, settings={"num_states": 16, "m_batch_size": 3}, share_missing=0.2
    ),
}


def _data(case):
    rng = np.random.default_rng(3)
    x = case.scale * rng.random((NUM_DATA, case.num_observed))
    missing = rng.random(x.shape) < case.share_missing
    missing[:, 0] = False  # something is observed in every row
    x[missing] = np.nan
    return x.astype(np.float32)


def _trained(cls, case, shared, epochs=3):
    """Trains in batches of 5, 5 and 3 data points."""
    keras.utils.set_random_seed(5)
    likelihood = case.likelihood()
    decoder = networks.FullyConnectedDecoder(
        likelihood.num_outputs(case.num_observed), case.hidden, case.activation
    )
    evolution = {
        "num_parents": 4,
        "num_children": 3,
        "num_generations": 2,
        **case.evolution,
    }
    model = cls(
        decoder,
        case.num_latents,
        NUM_DATA,
        likelihood,
        evolution=tvae.Evolution(shared=shared, **evolution),
        **{"num_states": 8, **case.settings},
    )
    model.adapt(_data(case))
    rng = np.random.default_rng(1)
    for weight in decoder.weights:
        weight.assign(rng.normal(0.0, 0.7, weight.shape))
    # The slow form is as quick without a graph, which takes long to trace.
    model.compile(case.optimizer(0.02), run_eagerly=cls is PlainTVAE)
    history = model.fit(
        _data(case),
        np.arange(NUM_DATA),
        batch_size=5,
        epochs=epochs,
        shuffle=False,
        verbose=0,
    ).history
    return model, history


# Cases that are tested by default, together of every kind; the rest is slow.
SHARED_BY_DEFAULT = ("bernoulli", "m_step_batches")
OWN_BY_DEFAULT = ("more_than_64_latents",)


class PlainTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.named_parameters(
        (name, CASES[name]) for name in SHARED_BY_DEFAULT
    )
    def test_training_equals_the_slow_form(self, case):
        self._assert_training_equals_the_slow_form(case, shared=True)

    @parameterized.named_parameters(
        item for item in CASES.items() if item[0] not in SHARED_BY_DEFAULT
    )
    @pytest.mark.slow  # Half a minute for what the cases before stand for.
    def test_training_equals_the_slow_form_elsewhere(self, case):
        self._assert_training_equals_the_slow_form(case, shared=True)

    @parameterized.named_parameters(
        (name, CASES[name]) for name in OWN_BY_DEFAULT
    )
    def test_training_with_own_candidates_equals_the_slow_form(self, case):
        self._assert_training_equals_the_slow_form(case, shared=False)

    @parameterized.named_parameters(
        item
        for item in CASES.items()
        if item[0] not in ("all_states", *OWN_BY_DEFAULT)
    )
    @pytest.mark.slow  # A minute for what the cases before are samples of.
    def test_training_with_own_candidates_equals_the_slow_form_elsewhere(
        self, case
    ):
        self._assert_training_equals_the_slow_form(case, shared=False)

    def _assert_training_equals_the_slow_form(self, case, shared):
        model, history = _trained(tvae.TVAE, case, shared)
        plain, expected = _trained(PlainTVAE, case, shared)
        self.assertEqual(set(history), set(expected))
        for name in history:
            self.assertAllClose(
                history[name], expected[name], rtol=1e-4, atol=1e-5, msg=name
            )
        # Decoder, optimizer, pi, variance, states, log-joints and counters.
        for found, other in zip(model.variables, plain.variables, strict=True):
            if found.dtype == "uint8":
                self.assertAllEqual(found, other, msg=found.path)
            else:
                self.assertAllClose(
                    found, other, rtol=1e-3, atol=1e-4, msg=found.path
                )

    @parameterized.parameters(True, False)
    @grids.by_default(0)
    def test_slow_form_improves_distinct_states(self, shared):
        # Else the equality above would say little.
        model, history = _trained(PlainTVAE, CASES["deep"], shared)
        self.assertGreater(history["bound"][-1], history["bound"][0] + 0.1)
        self.assertGreater(min(history["replaced"]), 0.0)
        for row in model.states.packed.numpy():
            self.assertEqual(oracles.count_distinct(row), 8)


if __name__ == "__main__":
    tf.test.main()
