# SPDX-License-Identifier: Apache-2.0
"""Data of any scale: training, bounds of far points, standardisation."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests import grids
from tfvae import likelihoods, networks, priors, serving, tvae, vae
from tfvae.ops import densities, limits, moments

N, D, M = 96, 5, 2
INDEX = np.arange(N)


def _unit(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, M)) @ rng.normal(size=(M, D))
    return x + 0.1 * rng.normal(size=(N, D))


def _counts():
    return np.random.default_rng(1).poisson(np.exp(2.0 * _unit()))


def _constant(value):
    return np.c_[_unit()[:, :-1], np.full((N, 1), value)]


DATA = {
    "pixels": lambda: np.clip(127.0 + 40.0 * _unit(), 0.0, 255.0),
    "counts": _counts,
    "offset": lambda: 1e6 + 3.0 * _unit(),
    "constant_columns": lambda: _constant(3.0),
    "far_columns": lambda: _constant(500.0),
    "constant": lambda: np.full((N, D), -7.0),
    "huge": lambda: 1e30 * _unit(),
    "tiny": lambda: 1e-30 * _unit(),
    "outlier": lambda: np.r_[_unit()[:-1], np.full((1, D), 1e9)],
}
LIKELIHOODS = {
    "gaussian": likelihoods.GaussianLikelihood,
    "diagonal": likelihoods.DiagonalGaussianLikelihood,
}


def _model(kind, likelihood="gaussian", prior=None):
    keras.utils.set_random_seed(1)
    observation_model = LIKELIHOODS[likelihood]()
    decoder = networks.FullyConnectedDecoder(
        observation_model.num_outputs(D), (8,)
    )
    if kind == "TVAE":
        return tvae.TVAE(
            decoder, 4, N, likelihood=observation_model, num_states=6
        )
    encoder = vae.learnable(
        functools.partial(
            networks.fully_connected_encoder, num_observed=D, hidden=(8,)
        ),
        M,
    )
    prior = prior or priors.StandardNormalPrior(M)
    return vae.VAE(encoder, decoder, prior, observation_model)


def _trained(kind, x, epochs=8, **settings):
    model = _model(kind, **settings)
    model.adapt(x)
    # Tracing graphs would take longer than the few steps.
    model.compile(keras.optimizers.Adam(5e-3), run_eagerly=True)
    y = INDEX if kind == "TVAE" else None
    logs = model.fit(
        x, y, batch_size=32, epochs=epochs, shuffle=False, verbose=0
    )
    return model, np.array(logs.history["bound"])


@functools.cache
def _fitted(kind):
    return _trained(kind, _unit().astype(np.float32))[0]


class TrainingTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.product(kind=["VAE", "TVAE"], name=list(DATA))
    @grids.by_default(8)
    def test_training_on_data_of_any_units_raises_a_finite_bound(
        self, kind, name
    ):
        x = DATA[name]().astype(np.float32)
        model, bounds = _trained(kind, x)
        self.assertAllInRange(bounds, -1e9, 1e9)
        if name != "outlier":  # Of 95 data points of no variance beside one.
            self.assertGreater(bounds[-1], bounds[0])
        logs = model.evaluate(x, verbose=0, return_dict=True)
        self.assertTrue(np.isfinite(logs["bound"]))
        self.assertTrue(np.isfinite(model.reconstruct(x[:4])).all())

    @parameterized.product(
        kind=["VAE", "TVAE"],
        likelihood=list(LIKELIHOODS),
        scale=[2.0**90, 2.0**-90],
    )
    @grids.by_default(0)
    def test_bounds_are_in_the_units_of_the_data(self, kind, likelihood, scale):
        # Powers of two change no mantissa: both are standardised to the same
        # numbers, which train to the same weights; densities of scaled data
        # are divided by the scale.
        x = (100.0 * _unit()).astype(np.float32)
        _, bounds = _trained(kind, x, 3, likelihood=likelihood)
        scaled = x * np.float32(scale)
        model, found = _trained(kind, scaled, 3, likelihood=likelihood)
        shift = D * np.log(scale)
        self.assertAllClose(found + shift, bounds, atol=2e-3, rtol=1e-4)
        if likelihood == "gaussian":
            noise = float(model.likelihood.monitored()["noise_std"])
            self.assertBetween(noise / scale, 1.0, 400.0)

    @parameterized.parameters((0.3, 0.25), (1.0, 0.0), (2.0, 0.5), (0.1, 0.5))
    def test_encoders_see_data_of_unit_scale_as_they_are(self, scale, offset):
        x = (np.clip(_unit(), -4.0, 4.0) * scale + offset).astype(np.float32)
        model = _model("VAE")
        model.adapt(x)
        self.assertAllEqual(model.encoder.standardize(x), x)
        binary = (x > offset).astype(np.float32)
        model.adapt(binary)
        self.assertAllEqual(model.encoder.standardize(binary), binary)

    def test_encoders_see_other_data_standardised(self):
        x = DATA["offset"]().astype(np.float32) + 50.0 * np.arange(D)
        x[3, 2] = np.nan
        model = _model("VAE")
        model.adapt(x)
        found = model.encoder.standardize(tf.constant(x, tf.float32)).numpy()
        self.assertEqual(found[3, 2], 0.0)  # the mean
        self.assertAllClose(found.mean(0), np.zeros(D), atol=0.05)
        self.assertAllClose(found.std(), 1.0, atol=0.02)

    def test_pseudo_inputs_live_in_the_units_that_the_encoder_sees(self):
        x = DATA["offset"]().astype(np.float32)
        model = _model("VAE", prior=priors.VampPrior(M, 7))
        model.adapt(x)
        self.assertAllInRange(model.prior.pseudo_inputs.numpy(), -6.0, 6.0)
        unit = model.encoder.standardize(x).numpy()
        row = model.prior.pseudo_inputs.numpy()[0]
        place = np.abs(unit - row).sum(1).argmin()
        self.assertAllClose(unit[place], row)
        self.assertAllClose(
            model.prior.components().mean[0], model.encode(x).mean[place]
        )

    def test_columns_far_apart_are_reported(self):
        with self.assertWarnsRegex(UserWarning, "subtract each column's mean"):
            _model("VAE").adapt(_constant(1e6).astype(np.float32))


class FarPointsTest(tf.test.TestCase, parameterized.TestCase):
    DISTANCES = (0.0, 1e1, 1e2, 1e3, 1e5, 1e8, 1e11, 1e13, 1e18, 1e28, 3e38)

    def _rows(self):
        direction = np.linspace(1.0, -0.5, D)
        far = np.outer(self.DISTANCES, direction) + _unit()[0]
        return np.clip(far, -3.4e38, 3.4e38).astype(np.float32)

    @parameterized.product(kind=["VAE", "TVAE"], likelihood=list(LIKELIHOODS))
    @grids.by_default(2)
    def test_bounds_fall_with_distance_and_stay_finite(self, kind, likelihood):
        x = _unit().astype(np.float32)
        model, _ = _trained(kind, x, likelihood=likelihood)
        # One by one, as draws depend on the place in a batch.
        bounds = np.concatenate(
            [
                model.log_likelihood_bound(row[None], seed=0)
                for row in self._rows()
            ]
        )
        self.assertTrue(np.isfinite(bounds).all())
        self.assertTrue(np.all(np.diff(bounds) <= 0.0), bounds)
        self.assertTrue(np.all(np.diff(bounds[:7]) < 0.0), bounds)
        self.assertAllEqual(bounds[-2], bounds[-1])
        self.assertTrue(np.isfinite(model.reconstruct(self._rows())).all())
        logs = model.evaluate(self._rows(), verbose=0, return_dict=True)
        self.assertTrue(np.isfinite(logs["bound"]))

    @parameterized.parameters("VAE", "TVAE")
    @grids.by_default(0)
    def test_far_point_leaves_the_others_of_its_batch_as_they_are(self, kind):
        model = _fitted(kind)
        x = _unit().astype(np.float32)[:3]
        alone = model.log_likelihood_bound(x, seed=0)
        far = np.full((1, D), -1e25, np.float32)
        beside = model.log_likelihood_bound(np.r_[x, far], seed=0)
        # A TVAE's search ends for all at once.
        self.assertAllClose(alone, beside[:3], rtol=1e-4, atol=1e-3)

    @pytest.mark.slow  # Others show parts of it.
    @parameterized.parameters("VAE", "TVAE")
    @grids.by_default()
    def test_served_bounds_are_finite(self, kind):
        model = _fitted(kind)
        folder = self.create_tempdir().full_path
        serving.export_saved_model(model, folder)
        loaded = tf.saved_model.load(folder).signatures["serving_default"]
        found = loaded(data=tf.constant(self._rows()))
        self.assertTrue(np.isfinite(found["bound"]).all())
        self.assertTrue(np.isfinite(found["mean"]).all())

    @parameterized.parameters(*LIKELIHOODS)
    def test_features_keep_their_precision_beside_a_far_point(self, name):
        likelihood = LIKELIHOODS[name]()
        x = _unit().astype(np.float32)
        likelihood.adapt(x)
        outputs = np.random.default_rng(0).normal(
            size=(6, likelihood.num_outputs(D))
        )
        outputs = tf.constant(outputs, tf.float32)
        rows = np.r_[x[:4], np.full((1, D), 1e20, np.float32)]
        observed = tf.ones_like(rows)
        of_data, of_outputs = likelihood.features(rows, observed)
        pairs = tf.matmul(of_data, of_outputs(outputs), transpose_b=True)
        expected = likelihood.log_prob(
            rows[:, None], observed[:, None], outputs[None]
        )
        self.assertTrue(np.isfinite(pairs).all())
        self.assertAllClose(pairs[:4], expected[:4], rtol=1e-4, atol=1e-3)


class CompressTest(tf.test.TestCase):
    def test_usual_values_stay_and_others_grow_logarithmically(self):
        values = np.array(
            [0.0, -0.0, 3.0, -10.0, 10.0, 11.0, -1e6, 1e20, 3.4e38, np.inf],
            np.float32,
        )
        found = limits.compress(tf.constant(values), 10.0).numpy()
        self.assertAllEqual(found[:5], values[:5])
        beyond = np.sign(values) * (
            10.0 + np.log1p(np.maximum(np.abs(values.astype(float)) - 10, 0))
        )
        self.assertAllClose(found[5:9], beyond[5:9], rtol=1e-6)
        self.assertAllClose(found[9], found[8], atol=1e-3)

    def test_gradient_is_continuous_and_never_vanishes(self):
        values = tf.constant([-1e9, -12.0, -10.0, 0.0, 5.0, 10.0, 1e30])
        with tf.GradientTape() as tape:
            tape.watch(values)
            found = tf.reduce_sum(limits.compress(values, 10.0))
        gradient = tape.gradient(found, values).numpy()
        self.assertAllClose(
            gradient[:5], [1e-9, 1.0 / 3.0, 1.0, 1.0, 1.0], rtol=1e-3
        )
        self.assertAllGreater(gradient, 0.0)


class MomentsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(1.0, 1e-35, 1e35)
    def test_moments_are_those_of_float64(self, scale):
        x = (scale * (_unit() + 2.0)).astype(np.float32)
        x[::7, 1] = np.nan
        found = moments.of_columns(x)
        exact = x.astype(np.float64)
        self.assertAllClose(found.mean / scale, np.nanmean(exact, 0) / scale)
        self.assertAllClose(
            found.variance / scale**2, np.nanvar(exact, 0) / scale**2
        )
        pooled = found.pooled()
        self.assertAllClose(pooled.mean / scale, np.nanmean(exact) / scale)
        self.assertAllClose(
            pooled.variance / scale**2, np.nanvar(exact) / scale**2
        )
        within = np.nanmean((exact - np.nanmean(exact, 0)) ** 2)
        self.assertAllClose(
            found.within_columns().variance / scale**2, within / scale**2
        )

    def test_column_without_values_counts_for_nothing(self):
        x = _unit()
        x[:, 2] = np.nan
        found = moments.of_columns(x)
        self.assertEqual((found.mean[2], found.variance[2]), (0.0, 0.0))
        self.assertAllClose(found.pooled().variance, np.nanvar(x))


class CenterTest(tf.test.TestCase):
    def test_centre_is_near_the_data_and_not_moved_by_a_far_row(self):
        x = tf.constant(1e6 + _unit(), tf.float32)
        observed = tf.ones_like(x)
        self.assertBetween(
            float(densities._center(x, observed)), 1e6 - 3, 1e6 + 3
        )
        rows = tf.concat([x, tf.fill([40, D], 1e19)], 0)
        centre = float(densities._center(rows, tf.ones_like(rows)))
        self.assertBetween(centre, 1e6 - 3.0, 1e6 + 3.0)


if __name__ == "__main__":
    tf.test.main()
