# SPDX-License-Identifier: Apache-2.0
"""Tests of objectives; those of the thesis against its published numbers."""

from __future__ import annotations

import functools

import keras
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests.vae import tiny
from tfvae import data, networks, priors, vae

M = 16
TERMS = vae.Terms(
    log_likelihood=tf.constant([-3.0, -5.0]),
    squared_error=tf.constant([2.0, 4.0]),
    kl=tf.constant([1.0, -8.0]),
    log_det=tf.constant([0.0, 16.0]),
)
# What makes means of images, and nothing else.
NETWORKS = {
    "fc": networks.fully_connected_encoder,
    "conv": networks.conv_encoder,
}


class FormulaTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        (vae.Elbo(), 0, [1.0, -8.0]),
        (vae.Elbo(beta=0.5), 0, [0.5, -4.0]),
        (vae.Elbo(warm_up_steps=10), 0, [0.0, 0.0]),
        (vae.Elbo(beta=2.0, warm_up_steps=10), 5, [1.0, -8.0]),
        (vae.Elbo(warm_up_steps=10), 50, [1.0, -8.0]),
    )
    def test_elbo_weighs_the_rate(self, objective, step, rate):
        distortion, found = objective(TERMS, M, tf.constant(step))
        self.assertAllClose(distortion, [3.0, 5.0])
        self.assertAllClose(found, rate)

    @parameterized.parameters(
        (vae.Elbo(), [0.5 * 4.0, 2.0 * -3.0]),
        # The mean weight is 1.25.
        (
            vae.Elbo(weighs_distortion=False),
            [1.25 * 3.0 + 0.5 * 1.0, 1.25 * 5.0 + 2.0 * -8.0],
        ),
    )
    def test_weights_apply_to_the_loss_or_to_the_rate_alone(
        self, objective, expected
    ):
        distortion, rate = objective(TERMS, M, tf.constant(0))
        found = objective.weighted_loss(
            distortion, rate, tf.constant([0.5, 2.0])
        )
        self.assertAllClose(found, expected)

    @parameterized.parameters(vae.Elbo(0.5, 3, False), vae.Thesis())
    def test_objective_is_saved_with_every_argument(self, objective):
        copy = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(objective)
        )
        self.assertIsInstance(copy, vae.Objective)
        self.assertEqual(copy, objective)

    def test_thesis_averages_the_gaussian_terms_alone(self):
        distortion, found = vae.Thesis()(TERMS, M, tf.constant(0))
        self.assertAllClose(distortion, [2.0, 4.0])
        # 1 / 16 without a flow; (-8 + 16) / 16 - 16 with one.
        self.assertAllClose(found, [0.0625, -15.5])

    def test_geometric_beta_grows_as_published(self):
        # The published loop, a step at a time.
        objective, beta = vae.GeometricBeta(), 1e-6
        expected = []
        for step in range(3000):
            if step > 1000 and step % 10 == 0:
                beta = min(beta * 1.1, 10.0)
            expected.append(beta)
        found = objective.beta(tf.range(3000, dtype=tf.int64))
        self.assertAllClose(found, expected, rtol=1e-6, atol=0.0)
        self.assertEqual(found[2690], tf.reduce_max(found[:2700]))
        self.assertAllEqual(found[2700:], [10.0] * 300)

    @parameterized.parameters((0, 0.5), (7, 0.5), (8, 1.5), (14, 4.0))
    def test_geometric_beta_weighs_the_rate(self, step, beta):
        objective = vae.GeometricBeta(0.5, 4.0, 3.0, 5, 3)
        distortion, found = objective(TERMS, M, tf.constant(step))
        self.assertAllClose(distortion, [3.0, 5.0])
        self.assertAllClose(found, [beta, -8.0 * beta])

    def test_geometric_beta_stays_finite_and_is_saved(self):
        objective = vae.GeometricBeta(0.5, 4.0, 3.0, 5, 3)
        self.assertEqual(objective.beta(tf.constant(2**40)), 4.0)
        copy = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(objective)
        )
        self.assertEqual(copy, objective)

    @parameterized.parameters(
        ({"first": 0.0}, "`first` must be positive .* got 0.0 and 10.0"),
        ({"last": 1e-7}, "`first` must be positive .* got 1e-06 and 1e-07"),
        ({"growth": 1.0}, "`growth` must be greater than 1, got 1.0"),
        ({"growth_steps": 0}, "`growth_steps` at least 1, got 1000 and 0"),
    )
    def test_wrong_geometric_beta_is_reported(self, settings, message):
        with self.assertRaisesRegex(ValueError, message):
            vae.GeometricBeta(**settings)

    def test_bound_is_the_difference(self):
        self.assertAllClose(TERMS.bound, [-4.0, 3.0])

    @parameterized.parameters({"beta": -1.0}, {"warm_up_steps": -1})
    def test_negative_settings_are_reported(self, **settings):
        with self.assertRaisesRegex(ValueError, "must not be negative"):
            vae.Elbo(**settings)


class PublishedTermsTest(tf.test.TestCase, parameterized.TestCase):
    """Table 5.2: -6.42 to -6.48 without a flow, 9.53 to 9.58 with two."""

    def _trained(self, network, prior, epochs):
        keras.utils.set_random_seed(0)
        # Digits with a margin, as those of the thesis have.
        images = data.resplit_images(
            data.sklearn_digits(), num_train=512, size=(32, 32), upscale=3
        )
        make = {
            "fc": functools.partial(NETWORKS["fc"], num_observed=1024),
            "conv": functools.partial(
                NETWORKS["conv"], image_shape=(32, 32, 1)
            ),
        }[network]
        model = vae.VAE(
            vae.non_learnable(make, M),
            keras.Sequential([keras.layers.Dense(1024)]),
            prior,
            objective=vae.Thesis(),
        )
        model.compile(keras.optimizers.Adam(3e-3), steps_per_execution=4)
        logs = model.fit(
            (
                images.train,
                vae.frozen_features(model.encoder, images.train),
            ),
            batch_size=128,
            epochs=epochs,
            verbose=0,
        ).history
        return {name: values[-1] for name, values in logs.items()}

    @parameterized.parameters(*NETWORKS)
    def test_frozen_means_under_a_normal_prior(self, network):
        prior = priors.StandardNormalPrior(M)
        found = self._trained(network, prior, 1)["regularization"]
        self.assertBetween(found, -6.5, -6.4)

    @pytest.mark.slow  # Eighty epochs; the tests before have no flow.
    def test_two_flows_saturate(self):
        prior = priors.RealNVPPrior(M, num_flows=2)
        found = self._trained("conv", prior, 80)
        self.assertBetween(found["regularization"], 9.3, 9.6)
        # From the two, log |det|: 2 flows x 8 latents x 1 would be its most.
        log_det = (found["regularization"] * M + found["kl"]) / (M - 1)
        self.assertBetween(log_det, 15.7, 16.0)


class InterfaceTest(tf.test.TestCase):
    def test_model_refuses_what_is_no_objective(self):
        def difference(terms, num_latents, step):
            return -terms.log_likelihood, -terms.kl

        with self.assertRaisesRegex(
            TypeError, "`objective` must be a tfvae.vae.Objective.*difference"
        ):
            tiny.make(objective=difference)


if __name__ == "__main__":
    tf.test.main()
