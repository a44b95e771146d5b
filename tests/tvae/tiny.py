# SPDX-License-Identifier: Apache-2.0
"""TVAEs so small that everything about them can be enumerated in float64."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tests import oracles
from tfvae import likelihoods, networks, tvae
from tfvae.likelihoods import base

NUM_DATA, NUM_OBSERVED, NUM_LATENTS, NUM_STATES = 11, 3, 4, 6
INDEX = np.arange(NUM_DATA)

# How to make each likelihood, with parameters that are not the default.
LIKELIHOODS = {
    "gaussian": lambda: likelihoods.GaussianLikelihood(initial_variance=0.1),
    "diagonal": likelihoods.DiagonalGaussianLikelihood,
    "bernoulli": likelihoods.BernoulliLikelihood,
    "poisson": likelihoods.PoissonLikelihood,
}


def data(seed: int = 0) -> np.ndarray:
    """Data `[N, D]` in every likelihood's support, some entries missing."""
    rng = np.random.default_rng(seed)
    x = rng.random((NUM_DATA, NUM_OBSERVED)).astype(np.float32)
    x[1, 0] = x[4, 2] = x[5, :2] = np.nan
    return x


def make(
    likelihood: str = "gaussian", decoder: Any = None, **kwargs: Any
) -> tvae.TVAE:
    """A TVAE with weights, prior and units that are not the default."""
    observation_model = LIKELIHOODS[likelihood]()
    if decoder is None:
        decoder = networks.FullyConnectedDecoder(
            observation_model.num_outputs(NUM_OBSERVED), (5,), "tanh"
        )
    settings = {
        "num_latents": NUM_LATENTS,
        "num_data": NUM_DATA,
        "num_states": NUM_STATES,
        "evolution": tvae.Evolution(num_parents=3, num_generations=1),
        **kwargs,
    }
    model = tvae.TVAE(decoder, likelihood=observation_model, **settings)
    model.adapt(data())
    rng = np.random.default_rng(7)
    decoder.set_weights([rng.normal(0, 0.7, w.shape) for w in decoder.weights])
    model.prior_probs.assign(np.linspace(0.2, 0.6, model.num_latents))
    return model


@functools.cache
def shared(likelihood: str = "gaussian", num_states: int = NUM_STATES) -> Any:
    """A model that tests share, with its graphs, as long as none changes it."""
    return make(likelihood, num_states=num_states)


def _units(model: tvae.TVAE) -> tuple[float, float]:
    """Offset and scale of the decoder's means."""
    if not isinstance(model.likelihood, base.StandardizedLikelihood):
        return 0.0, 1.0
    return float(model.likelihood.offset), float(model.likelihood.scale)


def log_likelihood(model: tvae.TVAE) -> oracles.LogLikelihood:
    """The oracle of the model's likelihood at its present parameters."""
    likelihood = model.likelihood
    if isinstance(likelihood, likelihoods.BernoulliLikelihood):
        return oracles.bernoulli()
    if isinstance(likelihood, likelihoods.PoissonLikelihood):
        return oracles.poisson(float(likelihood.shift), float(likelihood.scale))
    offset, scale = _units(model)
    if isinstance(likelihood, likelihoods.GaussianLikelihood):
        return oracles.gaussian(float(likelihood.variance), offset, scale)
    return oracles.diagonal_gaussian(offset, scale)


class Parameters:
    """A model's parameters at one time, in float64.

    Attributes:
      weights: The decoder's.
      prior_probs: pi.
      log_likelihood: The likelihood's oracle.
      offset: Of means that are offset + scale * output.
      scale: See `offset`.
    """

    def __init__(self, model: tvae.TVAE):
        self.weights = [np.float64(w) for w in model.decoder.get_weights()]
        self.prior_probs = np.float64(model.prior_probs)
        self.log_likelihood = log_likelihood(model)
        self.offset, self.scale = _units(model)

    def log_joints(self, x: np.ndarray, states: Any) -> np.ndarray:
        """Returns log p(x, s), `[N, K]`, of `[K, H]` or `[N, K, H]`."""
        outputs = oracles.perceptron(self.weights, states)
        shape = (len(x), *outputs.shape[-2:])
        states = np.broadcast_to(states, (*shape[:2], len(self.prior_probs)))
        return np.array(
            [
                oracles.log_joints(*row, self.prior_probs, self.log_likelihood)
                for row in zip(
                    x, states, np.broadcast_to(outputs, shape), strict=True
                )
            ]
        )

    def bounds(self, x: np.ndarray, states: Any) -> np.ndarray:
        """Returns F on the states, `[N]`."""
        values = self.log_joints(x, states)
        return np.array([oracles.free_energy(row) for row in values])

    def posterior(self, x: np.ndarray, states: Any) -> np.ndarray:
        """Returns q, `[N, K]`."""
        values = self.log_joints(x, states)
        return np.array([oracles.posterior(row) for row in values])


def log_joints(model: tvae.TVAE, x: np.ndarray, states: Any) -> np.ndarray:
    """Returns log p(x, s), `[N, K]`, at the model's present parameters."""
    return Parameters(model).log_joints(x, states)


def exact(model: tvae.TVAE, x: np.ndarray) -> np.ndarray:
    """Returns log p(x), `[N]`, by enumeration."""
    every = oracles.enumerate_states(model.num_latents)
    return Parameters(model).bounds(x, every)


def means(model: tvae.TVAE, states: np.ndarray) -> np.ndarray:
    """E[x | s], `[..., D]`."""
    outputs = oracles.perceptron(model.decoder.get_weights(), states)
    if isinstance(model.likelihood, likelihoods.BernoulliLikelihood):
        return 1.0 / (1.0 + np.exp(-outputs))
    if isinstance(model.likelihood, likelihoods.PoissonLikelihood):
        rate = np.logaddexp(0.0, float(model.likelihood.shift) + outputs)
        return float(model.likelihood.scale) * rate
    offset, scale = _units(model)
    return offset + scale * outputs[..., :NUM_OBSERVED]


def stored_states(model: tvae.TVAE) -> np.ndarray:
    """The training data's states, `[N, S, H]`."""
    return oracles.unpack(model.states.packed.numpy(), model.num_latents)
