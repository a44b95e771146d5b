# SPDX-License-Identifier: Apache-2.0
"""Vector quantisation, by loops and by enumeration of all codes."""

from __future__ import annotations

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests.vae import tiny
from tfvae import likelihoods, networks, priors, vae
from tfvae.ops import random
from tfvae.ops.distributions import Quantized
from tfvae.vae import quantization

C, SIZE, G = 3, 2, 2
STEP = tf.constant(0, tf.int64)


def _model(hidden=None, seed=3, **kwargs):
    keras.utils.set_random_seed(seed)
    posterior = vae.VectorQuantizedPosterior(C, SIZE, **kwargs)
    model = vae.VAE(
        vae.learnable(
            functools.partial(
                networks.fully_connected_encoder,
                num_observed=tiny.NUM_OBSERVED,
                hidden=(8,),
            ),
            G * SIZE,
            posterior=posterior,
        ),
        tiny.decoder(),
        priors.QuantizedPrior(G * SIZE, G, C, hidden),
        likelihoods.GaussianLikelihood(0.1),
    )
    rng = np.random.default_rng(seed)
    for weight in model.prior.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


class QuantizedTest(tf.test.TestCase):
    def test_codes_are_those_of_the_nearest_vectors(self):
        rng = np.random.default_rng(0)
        outputs, codebook = (
            rng.normal(size=(5, G * SIZE)),
            rng.normal(size=(C, SIZE)),
        )
        codes, vectors = np.zeros((5, G * C)), np.zeros((5, G * SIZE))
        for n, g in itertools.product(range(5), range(G)):
            z = outputs[n, g * SIZE : (g + 1) * SIZE]
            nearest = min(
                range(C), key=lambda c: np.sum((z - codebook[c]) ** 2)
            )
            codes[n, g * C + nearest] = 1.0
            vectors[n, g * SIZE : (g + 1) * SIZE] = codebook[nearest]
        q = Quantized(
            *(tf.constant(v, tf.float32) for v in (outputs, codebook))
        )
        self.assertAllEqual(q.codes, codes)
        self.assertAllClose(q.mode, vectors)
        self.assertAllClose(q.sample(random.make_seed(0), 4), [vectors] * 4)


class CodebookTest(tf.test.TestCase):
    def test_update_is_that_of_a_loop(self):
        rng = np.random.default_rng(1)
        n, decay = 20, 0.9
        vectors = rng.normal(size=(n, SIZE)).astype(np.float32)
        codes = np.eye(C, dtype=np.float32)[rng.integers(0, C, n)]
        counts = np.full(C, 5.0)
        sums = counts[:, None] * rng.normal(size=(C, SIZE))
        before = [
            tf.constant(v, tf.float32)
            for v in (sums / counts[:, None], counts, sums)
        ]
        after = quantization.updated(
            quantization.Codebook(*before),
            vectors,
            codes,
            decay,
            0.01,
            random.make_seed(0),
        )
        for c in range(C):
            own = vectors[codes[:, c] == 1.0]
            count = decay * counts[c] + (1.0 - decay) * len(own)
            total = decay * sums[c] + (1.0 - decay) * own.sum(0)
            self.assertAllClose(after.counts[c], count, rtol=1e-5)
            self.assertAllClose(after.vectors[c], total / count, rtol=1e-4)

    def test_unused_codes_become_outputs_of_the_batch(self):
        vectors = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        codes = tf.constant([[1.0, 0.0, 0.0]] * 3)
        far = tf.constant([[3.0, 4.0], [99.0, 99.0], [-99.0, 99.0]])
        counts = tf.constant([3.0, 0.01, 0.9])
        before = quantization.Codebook(far, counts, far * counts[:, None])
        after = quantization.updated(
            before, vectors, codes, 0.99, 0.05, random.make_seed(0)
        )
        self.assertIn(
            after.vectors[1].numpy().tolist(), vectors.numpy().tolist()
        )
        self.assertAllClose(after.counts[1], 1.0)
        # One that is used little, but enough, stays.
        self.assertAllClose(after.vectors[2], far[2])

    def test_first_step_takes_vectors_from_the_data(self):
        posterior = vae.VectorQuantizedPosterior(C, SIZE)
        outputs = 100.0 + tf.reshape(tf.range(20.0), [5, G * SIZE])
        q = posterior.distribution(outputs)
        posterior.training_sample(q, random.make_seed(0), STEP)
        rows = tf.reshape(outputs, [-1, SIZE]).numpy().tolist()
        for vector in posterior.codebook.numpy().tolist():
            self.assertIn(vector, rows)

    def test_gradient_passes_to_the_outputs_and_commits_them(self):
        posterior = vae.VectorQuantizedPosterior(C, SIZE, commitment=0.5)
        outputs = tf.random.stateless_normal([5, G * SIZE], [1, 2])
        slopes = tf.random.stateless_normal([5, G * SIZE], [3, 4])
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            q = posterior.distribution(outputs)
            nearest = q.mode.numpy()
            latents = posterior.training_sample(q, random.make_seed(0), STEP)
            losses = tf.reduce_sum(slopes * latents, -1)
            losses, _ = posterior.estimator.estimate(q, latents, losses)
        self.assertAllClose(latents, nearest, atol=1e-6)
        commitment = 0.5 * np.sum((outputs - nearest) ** 2, -1)
        expected = np.sum(slopes * nearest, -1) + commitment
        self.assertAllClose(losses, expected, rtol=1e-5, atol=1e-5)
        self.assertAllClose(
            tape.gradient(losses, outputs), slopes + (outputs - nearest)
        )


class BoundTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(None, 4)
    def test_bound_is_one_term_of_the_sum_over_all_codes(self, hidden):
        model = _model(hidden)
        x = tiny.data()
        codebook = model.encoder.posterior.codebook.numpy()
        log_joints = []
        total = 0.0
        for codes in itertools.product(range(C), repeat=G):
            latents = np.concatenate([codebook[c] for c in codes])[None]
            log_prior = model.prior.log_prob(latents)
            total += float(np.exp(log_prior[0]))
            outputs = model.decode_outputs(tf.constant(latents))
            log_joints.append(
                model.likelihood.log_prob(x, np.ones_like(x), outputs)
                + log_prior
            )
        self.assertAlmostEqual(total, 1.0, places=4)
        log_joints = np.array(log_joints)
        bound = model.log_likelihood_bound(x, 1).numpy()
        self.assertAllLess(bound - np.logaddexp.reduce(log_joints, 0), 1e-4)
        closest = np.abs(log_joints - bound).min(0)
        self.assertAllLess(closest, 1e-3)
        self.assertAllClose(model.log_likelihood_bound(x, 7), bound, rtol=1e-4)

    @pytest.mark.slow
    def test_training_raises_the_bound_and_a_fitted_prior_raises_it_more(self):
        # Two values a data point, which determine each other.
        rng = np.random.default_rng(0)
        which = rng.integers(0, 2, 200)
        x = np.where(which[:, None] == 1, 0.9, 0.1) * np.ones(tiny.NUM_OBSERVED)
        x = (x + 0.02 * rng.normal(size=x.shape)).astype(np.float32)
        model = _model()
        model.adapt(x)
        model.compile(keras.optimizers.Adam(0.01))
        before = np.mean(model.log_likelihood_bound(x))
        model.fit(x, batch_size=50, epochs=20, verbose=0)
        after = np.mean(model.log_likelihood_bound(x))
        self.assertGreater(after, before + 3.0)
        fitted = model.with_fitted_prior(
            priors.QuantizedPrior(G * SIZE, G, C, 8),
            x,
            epochs=40,
            learning_rate=0.05,
            batch_size=60,
        )
        self.assertGreater(np.mean(fitted.log_likelihood_bound(x)), after)
        vectors = fitted.prior.sample(random.make_seed(0), 50).numpy()
        codebook = model.encoder.posterior.codebook.numpy()
        for row in vectors.reshape(-1, SIZE):
            self.assertLess(np.abs(codebook - row).sum(1).min(), 1e-6)


class WeightTest(tf.test.TestCase):
    def test_weight_zero_leaves_the_commitment_out(self):
        losses = []
        for commitment in (0.0, 1e6):
            model = _model(commitment=commitment)
            model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
            weights = np.zeros(tiny.NUM_DATA, np.float32)
            batches = tf.data.Dataset.from_tensors((tiny.data(), None, weights))
            logs = model.fit(batches, shuffle=False, verbose=0).history
            losses.append(logs["loss"][0])
        self.assertAllClose(losses, [0.0, 0.0])


class WrongUseTest(tf.test.TestCase):
    def test_it_is_reported(self):
        for name, value in (
            ("commitment", -1.0),
            ("decay", 1.0),
            ("revive_below", 0.0),
            ("num_codes", 1),
            ("code_size", 0),
        ):
            settings = {"num_codes": C, "code_size": SIZE, name: value}
            with self.assertRaisesRegex(ValueError, f"`{name}` must be"):
                vae.VectorQuantizedPosterior(**settings)
        posterior = vae.VectorQuantizedPosterior(C, SIZE)
        with self.assertRaisesRegex(ValueError, "`code_size` must divide"):
            vae.learnable(tiny.network, 5, posterior=posterior)
        encoder = vae.learnable(tiny.network, 4, posterior=posterior)
        with self.assertRaisesRegex(TypeError, "`prior` must be a Quantized"):
            tiny.make(encoder=encoder, prior=priors.StandardNormalPrior(4))
        with self.assertRaisesRegex(ValueError, "`num_codes` and `num_var"):
            tiny.make(encoder=encoder, prior=priors.QuantizedPrior(4, 2, C + 1))
        with self.assertRaisesRegex(TypeError, "`encoder` must have a Vector"):
            tiny.make(prior=priors.QuantizedPrior(2, 1, C))
        with self.assertRaisesRegex(RuntimeError, "must be connected"):
            priors.QuantizedPrior(2, 1, C).codebook()


if __name__ == "__main__":
    tf.test.main()
