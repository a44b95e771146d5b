# SPDX-License-Identifier: Apache-2.0
"""Tests of priors at extreme latents and weights, and after training."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests.priors import small
from tfvae import priors

SIZES = (0.0, 1e-42, 1e3, 1e10, 1e19, 1e30, 3e38)
# Flows with all the bounds there are, and with none.
FLOWS = {
    "bounded flow": {"num_flows": 6, "hidden": (8, 8)},
    "unbounded flow": {
        "num_flows": 6,
        "hidden": (8, 8),
        "log_scale_bound": None,
        "shift_bound": None,
    },
}


# Latents of the others are codes, none of which is far from all.
CODES = (*small.CATEGORICAL, priors.QuantizedPrior)
CASES = {cls.__name__: cls for cls in small.CASES if cls not in CODES} | FLOWS
NAMES = [(name.replace(" ", "_"), name) for name in CASES]


def _model(name):
    """Returns a model of a prior, all weights drawn."""
    case = CASES[name]
    if isinstance(case, type):
        return small.model(case)
    prior = priors.RealNVPPrior(2, **case)
    rng = np.random.default_rng(1)
    for weight in prior.trainable_weights:
        weight.assign(0.5 * rng.normal(size=weight.shape))
    return small.Model(small.Encoder(2), prior)


def _latents():
    """Returns all pairs of sizes with all signs, `[n, 2]`."""
    axis = np.array([*SIZES, *(-size for size in SIZES)])
    return np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)


def _scales(model, name):
    """Returns log-scales, means and logits, or what makes them."""
    if name.endswith(("flow", "RealNVPPrior")):
        nets = (*model.prior.scale_nets, *model.prior.shift_nets)
        return [net.layers[-1].bias for net in nets]
    if name == "VampPrior":
        return [model.encoder.dense.bias]
    return model.prior.trainable_weights


class ExtremesTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.named_parameters(*NAMES)
    def test_log_prob_and_its_gradients_are_finite_at_any_latents(self, name):
        self._assert_finite(_model(name))

    @parameterized.named_parameters(*NAMES)
    def test_they_are_finite_after_training_to_extremes(self, name):
        for size in (1e4, 3e38):
            model = _model(name)
            for weight in _scales(model, name):
                weight.assign(size * np.resize([1.0, -1.0, 0.0], weight.shape))
            self._assert_finite(model)

    @parameterized.named_parameters(*NAMES)
    def test_they_are_finite_with_large_weights(self, name):
        model = _model(name)
        for weight in model.weights:
            weight.assign(1e3 * weight)
        self._assert_finite(model)

    def _assert_finite(self, model):
        latents = tf.constant(_latents(), tf.float32)
        weights = model.trainable_weights
        with tf.GradientTape() as tape:
            tape.watch(latents)
            log_prob = model.prior.log_prob(latents)
        gradients = tape.gradient(log_prob, [latents, *weights])
        self.assertTrue(np.isfinite(log_prob).all(), log_prob)
        for weight, gradient in zip(["z", *weights], gradients, strict=True):
            if gradient is not None:
                self.assertTrue(np.isfinite(gradient).all(), weight)

    # An unbounded flow may map what is far away to what is near.
    @parameterized.named_parameters(
        one
        for one in NAMES
        if one[1] not in ("IndependentBernoulliPrior", "unbounded flow")
    )
    def test_farther_latents_are_less_likely(self, name):
        prior = _model(name).prior
        sizes = np.float32([30.0, 1e3, 1e6, 1e10, 1e15, 1e19, 1e30, 3e38])
        for direction in ((1.0, 0.0), (0.0, -1.0), (0.7, -0.9), (-1.0, -1.0)):
            latents = sizes[:, np.newaxis] * np.float32(direction)
            log_probs = prior.log_prob(latents).numpy()
            self.assertAllLess(np.diff(np.float64(log_probs)), -1.0)


if __name__ == "__main__":
    tf.test.main()
