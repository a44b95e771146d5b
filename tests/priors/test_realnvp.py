# SPDX-License-Identifier: Apache-2.0
"""Tests of the flow against a transcription, autodiff and its limits."""

from __future__ import annotations

import math

import numpy as np
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized

from tests import oracles
from tfvae import priors
from tfvae.ops import random

EVERY_SHAPE = parameterized.parameters(
    (2, 1, "swap"), (5, 3, "swap"), (6, 2, "random")
)


def _prior(num_latents=5, num_flows=3, permutation="swap", **kwargs):
    """A flow with weights of its own, that is far from the identity."""
    prior = priors.RealNVPPrior(
        num_latents,
        num_flows,
        **{"hidden": (6, 5), "permutation": permutation, **kwargs},
    )
    rng = np.random.default_rng(0)
    for weight in prior.trainable_variables:
        weight.assign(0.5 * rng.normal(size=weight.shape))
    prior.adapt(rng.normal(0.4, 1.7, (9, num_latents)))
    return prior


def _latents(num_latents, num_rows=7, seed=1):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=(num_rows, num_latents)), tf.float32)


def _network(net, values, bound):
    weights = [np.float64(weight) for weight in net.get_weights()]
    for i in range(0, len(weights), 2):
        values = values @ weights[i] + weights[i + 1]
        if i + 2 < len(weights):
            values = np.where(values > 0.0, values, 0.2 * values)
    return values if bound is None else bound * np.tanh(values / bound)


def _transcription(prior, latents):
    """Equations 2.2.1 and 2.2.2 of the thesis, one after the other."""
    z = (latents - np.float64(prior.offset)) / np.float64(prior.scale)
    log_det = np.full(len(z), -np.log(np.float64(prior.scale)).sum())
    half = prior.num_latents // 2
    nets = zip(prior.scale_nets, prior.shift_nets, strict=True)
    for scale_net, shift_net in nets:
        z_a, z_b = z[:, :half], z[:, half:]
        s = _network(scale_net, z_a, prior.log_scale_bound)
        t = _network(shift_net, z_a, prior.shift_bound)
        z = np.concatenate([np.exp(s) * z_b + t, z_a], -1)
        log_det += s.sum(-1)
    base = scipy.stats.norm.logpdf(z).sum(-1)
    return z, base, log_det


class MapTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        (2, 1.0, 1.0), (5, 0.5, None), (8, 1.0, 1.0), (8, None, 2.0)
    )
    def test_equals_the_published_equations(
        self, num_latents, log_scale_bound, shift_bound
    ):
        prior = _prior(
            num_latents,
            log_scale_bound=log_scale_bound,
            shift_bound=shift_bound,
        )
        latents = _latents(num_latents)
        z, base, log_det = _transcription(prior, np.float64(latents))
        self.assertAllClose(prior.bijector().forward(latents), z, rtol=1e-4)
        parts = prior.log_prob_parts(latents)
        self.assertAllClose(parts.base_log_prob, base, rtol=1e-4)
        self.assertAllClose(parts.log_det, log_det, rtol=1e-4, atol=1e-4)

    @EVERY_SHAPE
    def test_inverse_undoes_forward_and_the_other_way_round(self, *config):
        # Each map has a bijector of its own: one remembers what it mapped.
        prior, points = _prior(*config), _latents(config[0])
        base = prior.bijector().forward(points)
        self.assertAllClose(prior.bijector().inverse(base), points, rtol=1e-4)
        latents = prior.bijector().inverse(points)
        self.assertAllClose(
            prior.bijector().forward(latents), points, rtol=1e-4, atol=1e-5
        )

    @EVERY_SHAPE
    def test_log_det_is_that_of_the_jacobian(self, *config):
        prior, latents = _prior(*config), _latents(config[0])
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(latents)
            base = prior.bijector().forward(latents)
        jacobian = tape.batch_jacobian(
            base, latents, experimental_use_pfor=False
        )
        _, expected = np.linalg.slogdet(np.float64(jacobian))
        parts = prior.log_prob_parts(latents)
        self.assertAllClose(parts.log_det, expected, rtol=1e-4, atol=1e-4)
        self.assertAllClose(
            parts.base_log_prob,
            scipy.stats.norm.logpdf(base).sum(-1),
            rtol=1e-5,
        )

    def test_draws_are_mapped_to_the_normals_they_were_made_of(self):
        prior = _prior()
        seed = random.make_seed(3)
        self.assertAllClose(
            prior.bijector().forward(prior.sample(seed, 50)),
            random.normal(seed, [50, 5]),
            rtol=1e-3,
            atol=1e-4,
        )

    def test_networks_are_evaluated_once_a_density(self):
        prior = _prior(num_flows=3, hidden=(6, 5))
        graph = tf.function(prior.log_prob).get_concrete_function(_latents(5))
        kinds = [op.type for op in graph.graph.get_operations()]
        num_layers = 3 * 2 * 3  # Of 3 flows with 2 networks of 3 layers.
        self.assertEqual(kinds.count("MatMul"), num_layers)


class BoundTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        (1, 2, 0.25), (2, 16, 1.0), (3, 6, 0.25), (6, 16, 1.0)
    )
    def test_log_det_of_saturated_networks_is_their_number(
        self, num_flows, num_latents, bound
    ):
        # The thesis's regularisation terms run into this limit, which is
        # 16 for 2 flows of 16 latents.
        prior = priors.RealNVPPrior(
            num_latents, num_flows, log_scale_bound=bound
        )
        for sign in (1.0, -1.0):
            for net in prior.scale_nets:
                net.layers[-1].bias.assign(
                    tf.fill([num_latents // 2], sign * 100.0)
                )
            parts = prior.log_prob_parts(_latents(num_latents))
            limit = sign * bound * num_flows * num_latents / 2.0
            self.assertAllClose(parts.log_det, [limit] * 7, rtol=1e-6)

    def test_longer_half_of_an_odd_number_is_the_one_that_is_scaled(self):
        prior = priors.RealNVPPrior(5, 2)
        for net in prior.scale_nets:
            net.layers[-1].bias.assign([100.0] * 3)
        log_det = prior.log_prob_parts(_latents(5)).log_det
        self.assertAllClose(log_det, [2 * 3.0] * 7)

    def test_bounds_hold_if_and_only_if_they_are_given(self):
        half = tf.zeros([1, 2])
        for bound, expected in ((None, 5.0), (1.0, math.tanh(5.0))):
            prior = priors.RealNVPPrior(
                4, 1, log_scale_bound=bound, shift_bound=bound
            )
            for net in (*prior.scale_nets, *prior.shift_nets):
                net.layers[-1].bias.assign([5.0] * 2)
            base = prior.bijector().forward(tf.concat([half, half + 1.0], -1))
            moved = math.exp(expected) + expected
            self.assertAllClose(base, [[moved, moved, 0.0, 0.0]])


class StartTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters("swap", "random")
    def test_prior_starts_as_a_standard_normal(self, permutation):
        prior = priors.RealNVPPrior(5, 3, permutation=permutation)
        latents = _latents(5)
        parts = prior.log_prob_parts(latents)
        expected = scipy.stats.norm.logpdf(latents).sum(-1)
        self.assertAllClose(parts.base_log_prob, expected, rtol=1e-5)
        self.assertAllEqual(parts.log_det, [0.0] * 7)

    def test_adapted_prior_starts_with_mean_and_deviation_of_the_data(self):
        prior = priors.RealNVPPrior(3, 2)
        rng = np.random.default_rng(0)
        data = rng.normal([-5.0, 0.0, 80.0], [0.01, 1.0, 30.0], (200, 3))
        prior.adapt(data)
        expected = [
            oracles.gaussian_log_prob(row, data.mean(0), data.var(0))
            for row in data
        ]
        found = prior.log_prob(tf.constant(data, tf.float32))
        self.assertAllClose(found, expected, rtol=1e-3, atol=1e-3)

    def test_latents_that_do_not_vary_leave_it_finite(self):
        prior = priors.RealNVPPrior(2)
        prior.adapt(np.full((5, 2), 3.0))
        log_prob = prior.log_prob(tf.constant([[3.0, 3.0]]))
        self.assertAllInRange(log_prob, 20.0, 30.0)

    # The thesis counts, over tensors, the sum of their dimensions: its tables
    # 5.6 and 5.10 differ by these numbers between priors.
    @parameterized.parameters(
        (16, 2, 64, 11888 - 10256),
        (16, 6, 64, 15152 - 10256),
        (16, 2, 128, 3689 - 521),
        (16, 6, 128, 10025 - 521),
        (32, 6, 128, 10196 - 404),
    )
    def test_weights_are_as_many_as_published(
        self, num_latents, num_flows, width, expected
    ):
        prior = priors.RealNVPPrior(
            num_latents, num_flows, hidden=(width, width)
        )
        shapes = [weight.shape for weight in prior.trainable_variables]
        self.assertEqual(sum(sum(shape) for shape in shapes), expected)


class PermutationTest(tf.test.TestCase):
    def test_random_orders_are_those_of_the_seed(self):
        latents = _latents(16)
        orders = []
        for seed in (0, 0, 1):
            prior = priors.RealNVPPrior(16, 2, permutation="random", seed=seed)
            orders.append(prior.bijector().forward(latents).numpy())
            self.assertAllClose(np.sort(orders[-1]), np.sort(latents))
        self.assertAllEqual(orders[0], orders[1])
        self.assertNotAllClose(orders[0], orders[2])

    def test_random_orders_stay_as_they_are(self):
        # Saved priors rely on it.
        prior = priors.RealNVPPrior(6, 2, permutation="random", seed=3)
        latents = tf.range(6.0)[tf.newaxis]
        self.assertAllEqual(
            prior.bijector().forward(latents), [[2.0, 0.0, 5.0, 4.0, 1.0, 3.0]]
        )


class ArgumentsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        ({"num_latents": 1}, "`num_latents` must be .* at least 2, got 1"),
        ({"num_flows": 0}, "`num_flows` must be .* at least 1, got 0"),
        ({"hidden": (8, 0)}, "`hidden` must be .* at least 1, got .8, 0."),
        (
            {"log_scale_bound": 0.0},
            "`log_scale_bound` must be positive or None, got 0.0",
        ),
        (
            {"shift_bound": -1.0},
            "`shift_bound` must be positive or None, got -1.0",
        ),
        (
            {"permutation": "reverse"},
            "`permutation` must be 'swap' or 'random', got 'reverse'",
        ),
    )
    def test_wrong_argument_is_reported(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            priors.RealNVPPrior(**{"num_latents": 4, **arguments})


if __name__ == "__main__":
    tf.test.main()
