# SPDX-License-Identifier: Apache-2.0
"""Tests of the VAE against linear models, whose likelihood is known."""

from __future__ import annotations

import functools
import itertools

import keras
import numpy as np
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized

from tests import grids
from tests.vae import tiny
from tfvae import likelihoods, priors, vae

D, M = tiny.NUM_OBSERVED, tiny.NUM_LATENTS
# Without dropout, whose random state is in no file.
_still_network = functools.partial(tiny.network, dropout=0.0)
VARIANCE = 0.3


def _linear(units, num_inputs, kernel, bias):
    layer = keras.layers.Dense(units)
    network = keras.Sequential([keras.Input((num_inputs,)), layer])
    layer.set_weights([kernel, bias])
    return network


def _factor_model(is_exact=True):
    """X = W z + b + noise, W with orthogonal columns: q can be exact."""
    rng = np.random.default_rng(0)
    weights = np.linalg.qr(rng.normal(size=(D, M)))[0] * [1.5, 0.7]
    bias = rng.normal(size=D)
    # Posterior N(V W'(x - b) / variance, V), V = 1 / (1 + |w|^2 / variance).
    spread = 1.0 / (1.0 + np.sum(weights**2, 0) / VARIANCE)
    to_mean = weights * spread / VARIANCE  # [D, M]
    log_spread = np.log(spread) + (0.0 if is_exact else 0.8)
    encoder = _linear(
        2 * M,
        D,
        np.concatenate([to_mean, np.zeros((D, M))], 1),
        np.concatenate([-bias @ to_mean, log_spread]),
    )
    model = vae.VAE(
        vae.Encoder(None, encoder),
        _linear(D, M, weights.T, bias),
        priors.StandardNormalPrior(M),
        likelihoods.GaussianLikelihood(VARIANCE, standardize=False),
    )
    covariance = weights @ weights.T + VARIANCE * np.eye(D)
    return model, scipy.stats.multivariate_normal(bias, covariance)


class BoundTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(1, 7)
    def test_bound_is_the_log_likelihood_where_q_is_exact(self, num_samples):
        model, truth = _factor_model()
        x = tiny.data()
        found = model.log_likelihood_bound(x, num_samples)
        self.assertAllClose(found, truth.logpdf(x), rtol=1e-4)

    def test_bound_rises_with_the_number_of_draws_to_the_log_likelihood(self):
        model, truth = _factor_model(is_exact=False)
        x = np.repeat(tiny.data(), 400, 0)  # 400 bounds of each data point
        means = [
            np.mean(model.log_likelihood_bound(x, k)) for k in (1, 4, 32, 512)
        ]
        self.assertAllGreater(np.diff(means), 0.0)
        exact = np.mean(truth.logpdf(tiny.data()))
        self.assertLess(means[-1], exact)
        # The gap falls as 1 / K: below 0.3 / 512 of the first one's.
        self.assertLess(exact - means[-1], 0.02 * (exact - means[0]))

    def test_terms_are_those_of_the_closed_forms(self):
        model, _ = _factor_model(is_exact=False)
        x = tiny.data()
        posterior = model.encode(x)
        mean, variance = posterior.mean, np.exp(posterior.log_variance)
        kernel, bias = (w.numpy() for w in model.decoder.weights)
        center = mean.numpy() @ kernel + bias
        error = np.sum((x - center) ** 2, 1) + variance @ (kernel**2).sum(1)
        log_normaliser = D * np.log(2.0 * np.pi * VARIANCE)
        likelihood = -0.5 * (log_normaliser + error / VARIANCE)
        kl = 0.5 * np.sum(mean**2 + variance - 1.0 - np.log(variance), axis=1)
        draws = 4000
        model.compile()
        found = model.evaluate(
            np.repeat(x, draws, 0), batch_size=4096, verbose=0, return_dict=True
        )
        # One draw's standard deviation is below 8 nats, and 0.1 in squared
        # error over 2 variances; 52,000 draws: below 0.04, four errors 0.15.
        self.assertAllClose(found["kl"], kl.mean(), rtol=1e-4)
        self.assertAllClose(found["squared_error"], error.mean(), atol=0.09)
        self.assertAllClose(
            found["log_likelihood"], likelihood.mean(), atol=0.15
        )
        self.assertAllClose(
            found["bound"], found["log_likelihood"] - found["kl"], rtol=1e-4
        )

    def test_closed_form_of_the_kl_agrees_with_draws(self):
        closed, _ = _factor_model(is_exact=False)

        class Drawn(priors.StandardNormalPrior):
            def kl(self, posterior, samples, parts=None):
                return priors.Prior.kl(self, posterior, samples, parts)

        drawn = vae.VAE(closed.encoder, closed.decoder, Drawn(M))
        x = np.repeat(tiny.data(), 3000, 0)
        results = []
        for model in (closed, drawn):
            model.compile()
            results.append(
                model.evaluate(x, batch_size=4096, verbose=0, return_dict=True)
            )
        # log p(z) of a draw has a standard deviation below 1.5; 39,000 draws.
        self.assertAllClose(results[0]["kl"], results[1]["kl"], atol=0.03)

    @parameterized.parameters("normal", "flow")
    def test_logged_loss_is_distortion_plus_beta_times_rate(self, prior):
        model = tiny.make(prior=PRIORS[prior](), objective=vae.Elbo(beta=0.7))
        model.compile(keras.optimizers.Adam(0.01))
        history = model.fit(tiny.data(), epochs=2, verbose=0).history
        found = {name: np.float64(values) for name, values in history.items()}
        rate = found["kl"]
        self.assertAllClose(
            found["loss"], -found["log_likelihood"] + 0.7 * rate, rtol=1e-5
        )
        # The name of the column is the published one, with its sign.
        self.assertAllClose(found["regularization"], -0.7 * rate, rtol=1e-5)

    def test_missing_entries_do_not_count(self):
        model, _ = _factor_model()
        x = tiny.data()
        x[:, 2] = np.nan
        low = model.log_likelihood_bound(x, 64).numpy()
        self.assertTrue(np.isfinite(low).all())
        rest = np.delete(np.arange(D), 2)
        _, truth = _factor_model()
        marginal = scipy.stats.multivariate_normal(
            truth.mean[rest], truth.cov_object.covariance[np.ix_(rest, rest)]
        )
        exact = marginal.logpdf(x[:, rest])
        self.assertAllLess(low.mean() - exact.mean(), 0.0)


class BinaryTest(tf.test.TestCase):
    def test_bound_stays_below_the_enumerated_log_likelihood(self):
        keras.utils.set_random_seed(1)
        num_latents = 4
        prior = priors.IndependentBernoulliPrior(num_latents)
        model = vae.VAE(
            vae.learnable(
                tiny.network,
                num_latents,
                posterior=vae.RelaxedBernoulliPosterior(),
            ),
            tiny.decoder(),
            prior,
            likelihoods.GaussianLikelihood(0.1),
        )
        x = tiny.data()
        states = np.array(
            list(itertools.product((0.0, 1.0), repeat=num_latents)), np.float32
        )
        outputs = model.decode_outputs(tf.constant(states))
        ones = tf.ones_like(x)[:, None]
        log_joint = model.likelihood.log_prob(x[:, None], ones, outputs[None])
        log_joint += prior.log_prob(states)
        exact = tf.reduce_logsumexp(log_joint, 1)
        x_often = np.repeat(x, 200, 0)
        elbo = tf.reduce_mean(model.log_likelihood_bound(x_often, 1))
        tight = model.log_likelihood_bound(x, 5000)
        self.assertLess(elbo, tf.reduce_mean(exact))
        self.assertAllClose(tight, exact, atol=0.25)
        codes = model.encode(x).mode
        self.assertAllInSet(codes, [0.0, 1.0])

    def test_temperature_falls_to_its_last_value(self):
        posterior = vae.RelaxedBernoulliPosterior(1.0, 0.25, 100)
        found = [posterior.temperature(tf.constant(s)) for s in (0, 50, 100)]
        self.assertAllClose(found, [1.0, 0.5, 0.25])
        self.assertAllClose(posterior.temperature(tf.constant(999)), 0.25)


class TrainingTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        "partially_non_learnable", "non_learnable", "random_kitchen_sinks"
    )
    @grids.by_default(0)
    def test_cached_features_change_nothing_and_frozen_weights_stay(
        self, policy
    ):
        x = tiny.data()
        weights = []
        for is_cached in (False, True):
            model = tiny.make(policy)
            before = [v.numpy() for v in model.encoder.frozen.variables]
            model.compile(keras.optimizers.Adam(0.01))
            data = x
            if is_cached:
                data = (x, vae.frozen_features(model.encoder, x))
            model.fit(data, batch_size=5, epochs=3, shuffle=False, verbose=0)
            after = [v.numpy() for v in model.encoder.frozen.variables]
            for one, other in zip(before, after, strict=True):
                self.assertAllEqual(one, other)
            frozen = {v.path for v in model.encoder.frozen.variables}
            state = {v.path for v in model.optimizer.variables}
            self.assertEmpty({p for p in state if any(f in p for f in frozen)})
            weights.append([v.numpy() for v in model.trainable_variables])
        for one, other in zip(*weights, strict=True):
            self.assertAllClose(one, other, atol=1e-6)

    def test_none_for_features_is_data_alone(self):
        x = tiny.data()
        bounds = []
        for data in (x, (x, vae.frozen_features(tiny.make().encoder, x))):
            model = tiny.make()
            model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
            history = model.fit(data, batch_size=len(x), verbose=0)
            evaluated = model.evaluate(data, batch_size=len(x), verbose=0)
            bounds.append([*history.history["bound"], *evaluated])
        self.assertAllEqual(*bounds)

    def test_batches_carry_features_where_there_are_any(self):
        x = tiny.data()
        batch = next(iter(tiny.make().batches(x, 4)))
        self.assertEqual(batch.shape, [4, D])
        model = tiny.make("non_learnable")
        ((batch, features),) = next(iter(model.batches(x, 4)))
        self.assertAllClose(features, model.encode(batch).mean, atol=1e-6)

    def test_fit_raises_the_bound_and_learns_the_noise(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(500, 2)) @ rng.normal(size=(2, D))
        x = (x + 0.1 * rng.normal(size=x.shape)).astype(np.float32)
        keras.utils.set_random_seed(0)
        model = vae.VAE(
            vae.learnable(_still_network, M),
            tiny.decoder(),
            priors.StandardNormalPrior(M),
        )
        model.adapt(x)
        model.compile(keras.optimizers.Adam(0.02))
        before = np.mean(model.log_likelihood_bound(x, 16))
        model.fit(x, batch_size=50, epochs=80, verbose=0)
        self.assertGreater(
            np.mean(model.log_likelihood_bound(x, 16)), before + 3.0
        )
        noise = model.likelihood.monitored()["noise_std"]
        self.assertBetween(float(noise), 0.08, 0.6)

    def test_weight_zero_leaves_a_data_point_out(self):
        x = tiny.data()
        losses = []
        for half in (False, True):
            model = tiny.make()
            model.compile(keras.optimizers.SGD(0.0))
            weight = np.ones(len(x), np.float32)
            if half:
                weight[6:] = 0.0
            batches = tf.data.Dataset.from_tensors((x, None, weight))
            history = model.fit(batches, shuffle=False, verbose=0)
            losses.append(history.history["loss"][0])
        self.assertNotAlmostEqual(losses[0], losses[1], places=3)

    def test_compile_with_a_loss_is_reported(self):
        with self.assertRaisesRegex(ValueError, "own objective, got 'mse'"):
            tiny.make().compile("adam", loss="mse")

    def test_prior_of_another_size_is_reported(self):
        with self.assertRaisesRegex(ValueError, "2 latents, got 3"):
            tiny.make(prior=priors.StandardNormalPrior(3))

    def test_decoder_of_another_size_is_reported(self):
        encoder = vae.learnable(tiny.network, M)
        with self.assertRaisesRegex(ValueError, "6 observed dimensions"):
            vae.VAE(encoder, tiny.decoder(5), priors.StandardNormalPrior(M))


class ExPostTest(tf.test.TestCase):
    def test_prior_fitted_after_training_gives_latents_more_probability(self):
        rng = np.random.default_rng(0)
        x = rng.random((400, D)).astype(np.float32)
        model = tiny.make("non_learnable", objective=vae.Elbo(beta=0.0))
        fitted = model.with_fitted_prior(
            priors.GaussianMixturePrior(M, num_components=2), x, epochs=20
        )
        self.assertGreater(
            np.mean(fitted.log_likelihood_bound(x, 1)),
            np.mean(model.log_likelihood_bound(x, 1)) + 1.0,
        )
        self.assertIs(fitted.decoder, model.decoder)


PRIORS = {
    "normal": lambda: priors.StandardNormalPrior(M),
    "flow": lambda: priors.RealNVPPrior(M, num_flows=2, hidden=(4,)),
    "mixture": lambda: priors.GaussianMixturePrior(M, num_components=3),
    "vamp": lambda: priors.VampPrior(M, num_pseudo_inputs=3),
}


class SavingTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        ("partially_non_learnable", "normal"),
        ("non_learnable", "flow"),
        ("random_kitchen_sinks", "normal"),
    )
    @grids.by_default(0)
    def test_keras_file_holds_frozen_parts(self, policy, prior):
        self._check_file(tiny.make(policy, prior=PRIORS[prior]()))

    @parameterized.parameters("flow", "mixture", "vamp")
    @grids.by_default(2)
    def test_keras_file_holds_every_prior(self, prior):
        model = tiny.make(
            encoder=vae.learnable(_still_network, M),
            prior=PRIORS[prior](),
            objective=vae.Elbo(0.7, 5),
            seed=4,
        )
        self._check_file(model)

    def _check_file(self, model):
        x = tiny.data()
        # Of a graph of the step a file holds nothing.
        model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
        model.fit(x, batch_size=5, verbose=0)
        path = self.create_tempdir().full_path + "/model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
        self.assertEqual(loaded.objective, model.objective)
        self.assertEqual(loaded.seed, model.seed)
        self.assertLen(
            loaded.trainable_variables, len(model.trainable_variables)
        )
        for function in (
            lambda m: m.log_likelihood_bound(x, 3),
            lambda m: m.sample(4, 1),
            lambda m: m.reconstruct(x),
            lambda m: m.encode(x).mean,
        ):
            self.assertAllEqual(function(loaded), function(model))
        # Both go on alike.
        for one in (model, loaded):
            one.fit(x, batch_size=5, shuffle=False, verbose=0)
        self.assertAllClose(loaded.sample(4), model.sample(4), atol=1e-6)


if __name__ == "__main__":
    tf.test.main()
