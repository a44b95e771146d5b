# SPDX-License-Identifier: Apache-2.0
"""One small prior of each class, connected and with weights of its own."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tfvae import priors
from tfvae.ops.distributions import DiagonalGaussian, Quantized

NUM_OBSERVED = 3

# Every prior: a configuration without one default in it.
CASES = {
    priors.StandardNormalPrior: {},
    priors.RealNVPPrior: {
        "num_flows": 3,
        "hidden": (5,),
        "log_scale_bound": 0.5,
        "shift_bound": None,
        "permutation": "random",
        "seed": 4,
    },
    priors.GaussianMixturePrior: {"num_components": 3},
    priors.VampPrior: {"num_pseudo_inputs": 4},
    priors.IndependentBernoulliPrior: {},
    priors.IndependentCategoricalPrior: {"num_variables": 1},
    priors.AutoregressiveCategoricalPrior: {"num_variables": 1, "hidden": 4},
    priors.QuantizedPrior: {"num_variables": 1, "num_codes": 4, "hidden": 3},
}
# Those of binary and of one-hot latents; the others' are real.
BINARY = (priors.IndependentBernoulliPrior,)
CATEGORICAL = (
    priors.IndependentCategoricalPrior,
    priors.AutoregressiveCategoricalPrior,
)


@keras.saving.register_keras_serializable("tests.priors")
class Encoder(keras.layers.Layer):
    """Gaussians of latents with means and log-variances linear in x."""

    def __init__(self, num_latents, **kwargs):
        super().__init__(**kwargs)
        self.num_latents = num_latents
        self.dense = keras.layers.Dense(
            2 * num_latents, dtype=self.dtype_policy
        )
        self.dense.build((None, NUM_OBSERVED))
        self.built = True

    def call(self, x):
        return DiagonalGaussian(*tf.split(self.dense(x), 2, -1))

    def get_config(self):
        return {**super().get_config(), "num_latents": self.num_latents}


@keras.saving.register_keras_serializable("tests.priors")
class QuantizingEncoder(Encoder):
    """Quantises the means, by a codebook of 4 vectors."""

    def __init__(self, num_latents, **kwargs):
        super().__init__(num_latents, **kwargs)
        self.codebook = self.add_weight(
            shape=(4, num_latents), initializer="normal", autocast=False
        )

    def call(self, x):
        return Quantized(super().call(x).mean, self.codebook.value)


@keras.saving.register_keras_serializable("tests.priors")
class Model(keras.Model):
    """What of a model priors meet: it connects them in its constructor."""

    def __init__(self, encoder, prior, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.prior = prior
        prior.connect(encoder, NUM_OBSERVED)
        self.built = True

    def call(self, latents):
        return self.prior.log_prob(latents)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "encoder": serialize(self.encoder),
            "prior": serialize(self.prior),
        }

    @classmethod
    def from_config(cls, config):
        for name in ("encoder", "prior"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


def model(cls, num_latents=2, seed=0, encoder_dtype=None):
    """Returns a model with that prior, all weights drawn anew."""
    is_quantized = cls is priors.QuantizedPrior
    kind = QuantizingEncoder if is_quantized else Encoder
    encoder = kind(num_latents, dtype=encoder_dtype)
    made = Model(encoder, cls(num_latents, **CASES[cls]))
    rng = np.random.default_rng(seed)
    for weight in made.weights:
        weight.assign(0.7 * rng.normal(size=weight.shape))
    if cls is priors.RealNVPPrior:
        made.prior.scale.assign(np.linspace(0.8, 1.3, num_latents))
    return made


def latents(cls, shape, seed=0):
    """Returns latents that the prior may have, not drawn from it."""
    values = np.random.default_rng(seed).normal(size=shape)
    values = values > 0.0 if cls in BINARY else values
    if cls in CATEGORICAL:
        values = np.eye(shape[-1])[values.argmax(-1)]
    return tf.constant(values, tf.float32)
