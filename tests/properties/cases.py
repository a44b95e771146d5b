# SPDX-License-Identifier: Apache-2.0
"""Strategies that draw small models of every kind, with data that fit them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

from tests.properties import drawn
from tfvae import likelihoods, networks, priors, tvae, vae

STEPS, SYMBOLS, GROUPS = 2, 3, (0, 1, 0)
LIKELIHOODS = {
    "gaussian": likelihoods.GaussianLikelihood,
    "diagonal": likelihoods.DiagonalGaussianLikelihood,
    "bernoulli": likelihoods.BernoulliLikelihood,
    "sequence": lambda: likelihoods.SequenceLikelihood(STEPS, SYMBOLS, GROUPS),
}
REAL = ("gaussian", "diagonal")
ENCODERS = {
    "gaussian": vae.learnable,
    "mean": functools.partial(
        vae.learnable, posterior=vae.GaussianPosterior(sampling_scale=0.0)
    ),
    "frozen": functools.partial(vae.non_learnable, variance=1e-2),
    "partly": vae.partially_non_learnable,
    "binary": functools.partial(
        vae.learnable, posterior=vae.RelaxedBernoulliPosterior()
    ),
    "disarm": functools.partial(
        vae.learnable, posterior=vae.BernoulliPosterior()
    ),
    "vimco": functools.partial(
        vae.learnable, posterior=vae.BernoulliPosterior(vae.VIMCO(2))
    ),
    "categorical": functools.partial(
        vae.learnable,
        posterior=vae.RelaxedCategoricalPosterior(num_variables=1),
    ),
}
BINARY = ("binary", "disarm", "vimco")
PRIORS = {
    "normal": priors.StandardNormalPrior,
    "flow": functools.partial(priors.RealNVPPrior, hidden=(3,)),
    "mixture": functools.partial(priors.GaussianMixturePrior, num_components=3),
    "vamp": functools.partial(priors.VampPrior, num_pseudo_inputs=4),
    "bernoulli": priors.IndependentBernoulliPrior,
    "categorical": functools.partial(
        priors.IndependentCategoricalPrior, num_variables=1
    ),
}
OBJECTIVES = {
    "elbo": vae.Elbo(),
    "warm_up": vae.Elbo(beta=2.0, warm_up_steps=2, weighs_distortion=False),
    "geometric": vae.GeometricBeta(constant_steps=1, growth_steps=1),
}
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(1e-3),
    "adam": lambda: keras.optimizers.Adam(1e-2),
}


class VAECase(NamedTuple):
    """Settings of a VAE, and data `[N, D]`."""

    x: np.ndarray
    likelihood: str = "gaussian"
    encoder: str = "gaussian"
    prior: str = "normal"
    objective: str = "elbo"
    optimizer: str = "adam"
    seed: int = 0

    @property
    def y(self) -> None:
        """What `fit` takes beside the data."""
        return None

    def make(self) -> vae.VAE:
        """A model, adapted to the data and compiled."""
        keras.utils.set_random_seed(self.seed)
        likelihood = LIKELIHOODS[self.likelihood]()
        num_observed = self.x.shape[1]
        network = functools.partial(
            networks.fully_connected_encoder,
            num_observed=num_observed,
            hidden=(4,),
        )
        model = vae.VAE(
            ENCODERS[self.encoder](network, 2),
            networks.FullyConnectedDecoder(
                likelihood.num_outputs(num_observed), (4,)
            ),
            PRIORS[self.prior](2),
            likelihood,
            objective=OBJECTIVES[self.objective],
            seed=self.seed,
        )
        return _compiled(model, self)


class TVAECase(NamedTuple):
    """Settings of a TVAE, and data `[N, D]`."""

    x: np.ndarray
    likelihood: str = "gaussian"
    num_latents: int = 2
    num_states: int = 4
    shared: bool = True
    settings: dict[str, Any] = {}
    optimizer: str = "adam"
    seed: int = 0

    @property
    def y(self) -> np.ndarray:
        """What `fit` takes beside the data: their indices."""
        return np.arange(len(self.x))

    def make(self, num_data: int | None = None) -> tvae.TVAE:
        """A model, adapted to the data and compiled."""
        keras.utils.set_random_seed(self.seed)
        likelihood = LIKELIHOODS[self.likelihood]()
        evolution = tvae.Evolution(
            num_parents=min(2, self.num_states),
            num_children=min(2, self.num_latents),
            num_generations=1,
            shared=self.shared,
        )
        model = tvae.TVAE(
            networks.FullyConnectedDecoder(
                likelihood.num_outputs(self.x.shape[1]), (4,)
            ),
            self.num_latents,
            num_data or len(self.x),
            likelihood,
            self.num_states,
            evolution,
            inference_steps=1,
            seed=self.seed,
            **self.settings,
        )
        return _compiled(model, self)


def _compiled(model: Any, case: VAECase | TVAECase) -> Any:
    model.adapt(case.x)
    model.compile(OPTIMIZERS[case.optimizer](), run_eagerly=True)
    return model


@st.composite
def points(draw, likelihood: str, **kwargs: Any) -> np.ndarray:
    """Draws data in a likelihood's support."""
    if likelihood == "sequence":
        return draw(drawn.sequences(STEPS, SYMBOLS))
    num_observed = draw(st.integers(1, 4))
    if likelihood == "bernoulli":
        return draw(drawn.unit(num_observed))
    return draw(drawn.reals(num_observed, **kwargs))


@st.composite
def vaes(
    draw,
    names=tuple(LIKELIHOODS),
    encoders=tuple(ENCODERS),
    real_priors=("normal", "mixture", "vamp"),  # A flow takes thrice as long.
    **kwargs,
):
    """Draws a `VAECase`."""
    likelihood = draw(st.sampled_from(names))
    encoder = draw(st.sampled_from(encoders))
    priors_of = ("bernoulli",) if encoder in BINARY else real_priors
    if encoder == "categorical":
        priors_of = ("categorical",)
    objectives = set(OBJECTIVES)
    if encoder == "vimco":  # It has no bound of several draws.
        objectives.remove("warm_up")
    return VAECase(
        draw(points(likelihood, **kwargs)),
        likelihood,
        encoder,
        draw(st.sampled_from(priors_of)),
        draw(st.sampled_from(sorted(objectives))),
        draw(st.sampled_from(tuple(OPTIMIZERS))),
        draw(st.integers(0, 99)),
    )


@st.composite
def tvaes(draw, names=tuple(LIKELIHOODS), exhaustive=None, **kwargs):
    """Draws a `TVAECase`."""
    likelihood = draw(st.sampled_from(names))
    num_latents = draw(st.integers(1, 4))
    is_exhaustive = draw(st.booleans()) if exhaustive is None else exhaustive
    num_states = 2**num_latents
    settings = {"m_batch_size": draw(st.sampled_from([None, 2]))}
    if not is_exhaustive:
        num_states = draw(st.integers(1, num_states - 1))
        settings["max_dropped_mass"] = draw(st.sampled_from([None, 0.1]))
    return TVAECase(
        draw(points(likelihood, **kwargs)),
        likelihood,
        num_latents,
        num_states,
        draw(st.booleans()),
        settings,
        draw(st.sampled_from(tuple(OPTIMIZERS))),
        draw(st.integers(0, 99)),
    )


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Runs functions without graphs, which would be traced for each model."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
