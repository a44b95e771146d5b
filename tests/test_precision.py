# SPDX-License-Identifier: Apache-2.0
"""Loss scaling, and models under each dtype policy, against float32."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests import grids
from tests.lso import tiny
from tfvae import networks, priors, serving, tvae, vae

X = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
X += 2.0 * X[:, :1]
INDEX = np.arange(len(X))
OPTIMIZERS = {
    "sgd": lambda **kwargs: keras.optimizers.SGD(1e-3, **kwargs),
    "momentum": lambda **kwargs: keras.optimizers.SGD(1e-3, 0.9, **kwargs),
    "adam": lambda **kwargs: keras.optimizers.Adam(1e-3, **kwargs),
    "lion": lambda **kwargs: keras.optimizers.Lion(1e-3, **kwargs),
}
# Largest difference of bounds, nats: rounding of networks' outputs.
POLICIES = {"mixed_float16": 0.05, "mixed_bfloat16": 0.3, "float64": 1e-3}


def _vae():
    keras.utils.set_random_seed(1)

    def network(num_outputs):
        return keras.Sequential(
            [
                keras.Input((8,)),
                keras.layers.Reshape((2, 2, 2)),
                keras.layers.Conv2D(4, 2, activation="tanh"),
                keras.layers.Flatten(),
                keras.layers.Dense(num_outputs),
            ]
        )

    return vae.VAE(
        vae.learnable(network, 3),
        networks.FullyConnectedDecoder(8, (16,)),
        priors.RealNVPPrior(3),
    )


def _dense(num_outputs):
    return keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(num_outputs)]
    )


def _tvae(num_m=None):
    keras.utils.set_random_seed(1)
    return tvae.TVAE(
        networks.FullyConnectedDecoder(8, (16,)),
        num_latents=5,
        num_data=len(X),
        num_states=6,
        m_batch_size=num_m,
    )


MODELS = {"VAE": _vae, "TVAE": _tvae}


def _fit(model, optimizer, epochs=1):
    model.adapt(X)
    if model.needs_index:
        rng = np.random.default_rng(0)
        values = [rng.normal(0, 0.5, w.shape) for w in model.decoder.weights]
        model.decoder.set_weights(values)
    model.compile(optimizer)
    return model.fit(
        X,
        INDEX if model.needs_index else None,
        batch_size=16,
        epochs=epochs,
        shuffle=False,
        verbose=0,
    ).history["bound"]


class LossScalingTest(tf.test.TestCase, parameterized.TestCase):
    def _weights(self, make, optimizer):
        model = make()
        _fit(model, optimizer)
        return [v.numpy() for v in model.trainable_variables]

    @parameterized.parameters(*MODELS)
    @grids.by_default(1)
    def test_scaled_losses_train_the_same_weights(self, kind):
        self._assert_same("sgd", kind)

    @parameterized.product(name=["momentum", "adam", "lion"], kind=list(MODELS))
    @pytest.mark.slow  # What plain gradient descent is the strictest case of.
    def test_scaled_losses_train_the_same_with_others(self, name, kind):
        self._assert_same(name, kind)

    def _assert_same(self, name, kind):
        make, optimizer = MODELS[kind], OPTIMIZERS[name]
        plain = self._weights(make, optimizer())
        scaled = self._weights(
            make, keras.optimizers.LossScaleOptimizer(optimizer())
        )
        for one, other in zip(plain, scaled, strict=True):
            self.assertAllClose(one, other, rtol=1e-5, atol=1e-7)

    @pytest.mark.slow  # What the test before is a sample of.
    def test_every_gradient_step_of_a_batch_is_scaled(self):
        plain = self._weights(lambda: _tvae(4), OPTIMIZERS["sgd"]())
        for scaled in (
            keras.optimizers.LossScaleOptimizer(OPTIMIZERS["sgd"]()),
            OPTIMIZERS["sgd"](loss_scale_factor=1024.0),
        ):
            found = self._weights(lambda: _tvae(4), scaled)
            for one, other in zip(plain, found, strict=True):
                self.assertAllClose(one, other, rtol=1e-5, atol=1e-7)


class PolicyTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.addCleanup(keras.config.set_dtype_policy, "float32")

    @pytest.mark.slow  # Others show parts of it.
    def test_models_train_and_predict(self):
        self._assert_trains("mixed_float16", "TVAE")

    @parameterized.parameters(
        ("mixed_float16", "TVAE"),
        ("mixed_float16", "VAE"),
        ("mixed_bfloat16", "VAE"),
        ("mixed_bfloat16", "TVAE"),
        ("float64", "VAE"),
        ("float64", "TVAE"),
    )
    @pytest.mark.slow  # Half a minute.
    def test_models_train_predict_and_serve(self, policy, kind):
        model = self._assert_trains(policy, kind)
        folder = self.create_tempdir().full_path
        serving.export_saved_model(model, folder + "/served")
        model.save(folder + "/model.keras")
        loaded = keras.models.load_model(folder + "/model.keras")
        self.assertEqual(
            loaded.decoder.compute_dtype, model.decoder.compute_dtype
        )
        self.assertAllEqual(
            loaded.predict(X, verbose=0), model.predict(X, verbose=0)
        )

    def _assert_trains(self, policy, kind):
        reference = _fit(MODELS[kind](), keras.optimizers.Adam(1e-3), 2)
        keras.config.set_dtype_policy(policy)
        model = MODELS[kind]()
        if kind == "VAE":
            # Random weights depend on their type.
            keras.config.set_dtype_policy("float32")
            like = MODELS[kind]()
            keras.config.set_dtype_policy(policy)
            model.set_weights(like.get_weights())
        bounds = _fit(model, keras.optimizers.Adam(1e-3), 2)
        self.assertAllClose(bounds, reference, atol=POLICIES[policy])
        compute = keras.DTypePolicy(policy).compute_dtype
        self.assertEqual(model.decoder.compute_dtype, compute)
        for found in (
            model.predict(X, verbose=0),
            model(X),
            model.log_likelihood_bound(X),
            model.sample(2),
        ):
            self.assertEqual(tf.as_dtype(found.dtype), tf.float32)
            self.assertTrue(np.isfinite(found).all())
        return model

    @parameterized.product(kind=list(MODELS))
    @pytest.mark.slow  # Five seconds each.
    def test_layers_of_16_bits_are_served_in_a_float32_model(self, kind):
        half = {"dtype": "mixed_bfloat16"}
        decoder = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(16, "tanh", **half),
                keras.layers.Dense(8, bias_initializer="normal", **half),
            ]
        )
        if kind == "VAE":
            encoder = vae.learnable(_dense, 3)
            model = vae.VAE(encoder, decoder, priors.StandardNormalPrior(3))
        else:
            model = tvae.TVAE(decoder, 3, len(X), num_states=8)
        _fit(model, keras.optimizers.Adam(0.01))
        serving.export_saved_model(model, self.create_tempdir().full_path)

    @parameterized.product(kind=list(MODELS))
    def test_densities_see_data_of_full_precision(self, kind):
        # In float16 the two would be equal.
        x = np.stack([X[0], X[0] + 2e-4])
        reference = MODELS[kind]()
        reference.adapt(X)
        keras.config.set_dtype_policy("mixed_float16")
        model = MODELS[kind]()
        model.adapt(X)
        model.set_weights(reference.get_weights())
        outputs = tf.zeros([2, 8])
        observed = tf.ones([2, 8])
        found = model.likelihood.log_prob(x, observed, outputs)
        expected = reference.likelihood.log_prob(x, observed, outputs)
        self.assertAllEqual(found, expected)
        self.assertNotEqual(*found.numpy())
        seen = []
        original = model.likelihood.mean
        model.likelihood.mean = lambda o: seen.append(o.dtype) or original(o)
        self.assertEqual(model(x).dtype, "float32")
        self.assertEqual(seen, [tf.float32])

    @parameterized.product(kind=list(MODELS), policy=["float16", "bfloat16"])
    def test_weights_of_16_bits_are_refused_by_compile(self, kind, policy):
        keras.config.set_dtype_policy(policy)
        model = MODELS[kind]()
        with self.assertRaisesRegex(ValueError, f"'mixed_{policy}' computes"):
            model.compile("sgd")


class ResetTest(tf.test.TestCase):
    def test_reset_optimizer_is_a_fresh_one(self):
        from tfvae.lso import retraining

        model = tiny.model()
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.Adam(1e-3, use_ema=True)
        )
        model.compile(optimizer)
        optimizer.build(model.trainable_variables)
        fresh = [v.numpy() for v in optimizer.variables]
        model.fit(tiny.data().points, verbose=0)
        retraining._reset(optimizer, model.trainable_variables)
        for one, other in zip(optimizer.variables, fresh, strict=True):
            if "average" not in one.path:
                self.assertAllEqual(one, other)
        self.assertGreater(float(optimizer.dynamic_scale), 1.0)


if __name__ == "__main__":
    tf.test.main()
