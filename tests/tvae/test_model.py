# SPDX-License-Identifier: Apache-2.0
"""Tests of a TVAE's densities, inference and generation by enumeration."""

from __future__ import annotations

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests import grids, oracles
from tests.tvae import tiny
from tfvae import likelihoods, networks, tvae
from tfvae.ops import patches
from tfvae.tvae import joint

EVERY_LIKELIHOOD = tuple(tiny.LIKELIHOODS)
ALL_STATES = 2**tiny.NUM_LATENTS


@pytest.mark.usefixtures("kept_kernels")
class BoundTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(*EVERY_LIKELIHOOD)
    def test_bound_is_log_likelihood_when_states_are_exhaustive(self, kind):
        model, x = tiny.shared(kind, ALL_STATES), tiny.data()
        expected = tiny.exact(model, x)
        inference = model.infer(x)
        self.assertAllClose(inference.bound, expected, rtol=1e-5, atol=1e-5)
        self.assertEqual(int(inference.num_steps), 0)
        self.assertAllClose(model.log_likelihood_bound(x), inference.bound)
        for row in inference.packed.numpy():
            self.assertEqual(oracles.count_distinct(row), ALL_STATES)

    @parameterized.parameters(*EVERY_LIKELIHOOD)
    @grids.by_default(0, 2)
    def test_bound_is_at_most_log_likelihood_otherwise(self, kind):
        model, x = tiny.shared(kind), tiny.data()
        exact = tiny.exact(model, x)
        inference = model.infer(x)
        self.assertAllLess(inference.bound - exact, 0.0)
        # It is the bound on just the states that are returned.
        states = oracles.unpack(inference.packed.numpy(), tiny.NUM_LATENTS)
        values = tiny.log_joints(model, x, states)
        for n in range(tiny.NUM_DATA):
            self.assertEqual(oracles.count_distinct(states[n]), tiny.NUM_STATES)
            self.assertAllClose(
                inference.bound[n], oracles.free_energy(values[n]), rtol=1e-5
            )
            self.assertAllClose(
                inference.weights[n], oracles.posterior(values[n]), rtol=1e-4
            )
            self.assertAllLessEqual(np.diff(values[n]), 1e-5)

    @parameterized.parameters(*EVERY_LIKELIHOOD)
    def test_log_likelihood_equals_enumeration(self, kind):
        model, x = tiny.shared(kind), tiny.data()
        self.assertAllClose(
            model.log_likelihood(x), tiny.exact(model, x), rtol=1e-5, atol=1e-5
        )

    def test_bound_grows_with_states_up_to_log_likelihood(self):
        model, x = tiny.shared(num_states=ALL_STATES), tiny.data()
        # The best states come first, so that K's first states are a set too.
        packed = model.infer(x).packed.numpy()
        states = oracles.unpack(packed, tiny.NUM_LATENTS)
        values = tiny.log_joints(model, x, states)
        bounds = np.logaddexp.accumulate(values, axis=1)
        self.assertAllGreater(np.diff(bounds, axis=1), 0.0)
        self.assertAllClose(bounds[:, -1], model.log_likelihood(x), rtol=1e-5)

    @parameterized.parameters(1, 3 * 5 * 3, 10**6)
    def test_log_likelihood_does_not_depend_on_slices(self, at_once):
        # 1, 3 (of 16, and 5 rows of 3 entries), or all states at once.
        original = joint.ENTRIES_AT_ONCE
        self.addCleanup(setattr, joint, "ENTRIES_AT_ONCE", original)
        joint.ENTRIES_AT_ONCE = at_once
        model, x = tiny.make(num_data=0), tiny.data()[:5]
        self.assertAllClose(
            model.log_likelihood(x), tiny.exact(model, x), rtol=1e-5
        )

    def test_probabilities_of_all_binary_data_sum_to_1(self):
        model = tiny.shared("bernoulli", ALL_STATES)
        every = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
        total = tf.reduce_sum(tf.exp(model.log_likelihood(every)))
        self.assertAllClose(total, 1.0, rtol=1e-5)

    def test_probabilities_of_all_counts_sum_to_1(self):
        # Rates are up to 3, and P(x > 14) of one is below 1e-6.
        model = tiny.shared("poisson", ALL_STATES)
        every = np.array(list(itertools.product(np.arange(15.0), repeat=3)))
        self.assertAllLess(tiny.means(model, oracles.enumerate_states(4)), 3.0)
        total = tf.reduce_sum(tf.exp(model.log_likelihood(every)))
        self.assertAllClose(total, 1.0, rtol=1e-5)

    def test_missing_entries_are_summed_out(self):
        # p(x_1, x_2) = sum over x_0 of p(x_0, x_1, x_2).
        model = tiny.shared("bernoulli")
        row = [0.0, 1.0]
        joint = model.log_likelihood([[0.0, *row], [1.0, *row]])
        marginal = model.log_likelihood([[np.nan, *row]])
        self.assertAllClose(tf.reduce_logsumexp(joint), marginal[0], rtol=1e-5)

    def test_too_many_latents_to_enumerate_are_reported(self):
        model = tvae.TVAE(networks.FullyConnectedDecoder(3, ()), 21)
        with self.assertRaisesRegex(
            ValueError, "`num_latents` must be at most 20.*got 21"
        ):
            model.log_likelihood(tiny.data())


@pytest.mark.usefixtures("kept_kernels")
class InferTest(tf.test.TestCase, parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model, cls.x = tiny.shared(), tiny.data()

    def test_more_steps_give_a_higher_bound(self):
        before = np.full(tiny.NUM_DATA, -np.inf)
        for max_steps in (1, 3, 10):
            inference = self.model.infer(
                self.x, max_steps=max_steps, tolerance=0.0
            )
            self.assertEqual(int(inference.num_steps), max_steps)
            self.assertAllGreaterEqual(inference.bound - before, -1e-5)
            before = inference.bound.numpy()

    def test_seed_decides_the_search(self):
        first, same, other = (
            self.model.infer(self.x, seed=seed, max_steps=1)
            for seed in (1, 1, 2)
        )
        self.assertAllEqual(first.packed, same.packed)
        self.assertNotAllEqual(first.packed, other.packed)

    def test_settings_are_the_models_where_none_are_given(self):
        model = tiny.make(seed=5, inference_steps=2, inference_tolerance=0.0)
        default = model.infer(self.x)
        given = model.infer(self.x, seed=5, max_steps=2, tolerance=0.0)
        self.assertEqual(int(default.num_steps), 2)
        self.assertAllEqual(default.packed, given.packed)

    def test_stored_states_are_not_touched(self):
        before = self.model.get_weights()
        self.model.infer(self.x)
        self.assertAllEqual(self.model.states.packed, before[-2])
        for value, old in zip(self.model.get_weights(), before, strict=True):
            self.assertAllEqual(value, old)

    def test_one_graph_serves_all_batch_sizes(self):
        for size in (1, 5, 11):
            self.model.infer(self.x[:size])
        self.assertEqual(self.model._infer.experimental_get_tracing_count(), 1)

    @parameterized.parameters("infer", "reconstruct", "log_likelihood", "adapt")
    def test_wrong_data_are_reported_before_any_work(self, method):
        call = getattr(self.model, method)
        infinite, missing = tiny.data(), tiny.data()
        infinite[2, 1], missing[3] = np.inf, np.nan
        for x, error, message in (
            (np.ones(3), ValueError, r"must have shape \[N, 3\]"),
            (np.ones((5, 4)), ValueError, r"must have shape \[N, 3\]"),
            (np.array([["a", "b", "c"]]), TypeError, "must be numbers"),
            (infinite, ValueError, "infinite values in 1 rows, the first 2"),
            (missing, ValueError, "none in 1 rows, the first 3"),
        ):
            with self.assertRaisesRegex(error, message):
                call(x)

    @parameterized.parameters("infer", "reconstruct", "log_likelihood", "adapt")
    def test_data_outside_the_likelihoods_support_are_reported(self, method):
        model = tiny.shared("bernoulli")
        with self.assertRaisesRegex(
            ValueError, r"`x` must be in \[0, 1\] for Bernoulli.* to 255"
        ):
            getattr(model, method)(255.0 * np.eye(3, dtype=np.float32))


@pytest.mark.usefixtures("kept_kernels")
class ReconstructionTest(tf.test.TestCase, parameterized.TestCase):
    def _expected(self, model, x, states):
        """sum_s q(s) E[x | s], by loops, over states `[N, K, H]`."""
        values = tiny.log_joints(model, x, states)
        means = tiny.means(model, states)
        means = np.broadcast_to(means, (len(x), *means.shape[-2:]))
        return [
            oracles.posterior(row) @ mean
            for row, mean in zip(values, means, strict=True)
        ]

    @parameterized.parameters(*EVERY_LIKELIHOOD)
    def test_reconstruction_is_the_posterior_mean_of_all_states(self, kind):
        # Missing entries too: there it is the in-painting.
        model, x = tiny.shared(kind, ALL_STATES), tiny.data()
        every = oracles.enumerate_states(tiny.NUM_LATENTS)
        expected = self._expected(model, x, every)
        self.assertAllClose(model.reconstruct(x), expected, rtol=1e-4)
        # With all states there is nothing to store.
        self.assertIsNone(model.states)
        self.assertAllClose(
            model.stored_reconstruction(x, tiny.INDEX), expected, rtol=1e-4
        )

    def test_reconstruction_averages_over_the_inferred_states(self):
        model, x = tiny.shared(), tiny.data()
        inference = model.infer(x)
        states = oracles.unpack(inference.packed.numpy(), tiny.NUM_LATENTS)
        expected = self._expected(model, x, states)
        self.assertAllClose(model.reconstruct(x), expected, rtol=1e-4)

    def test_prediction_is_reconstruction_batch_by_batch(self):
        model, x = tiny.shared(), tiny.data()
        expected = [model.reconstruct(x[:8]), model.reconstruct(x[8:])]
        predicted = model.predict(x, batch_size=8, verbose=0)
        self.assertAllClose(predicted, tf.concat(expected, 0), rtol=1e-5)

    def test_stored_reconstruction_averages_over_the_stored_states(self):
        model, x = tiny.shared(), tiny.data()
        index = np.array([7, 0, 4])
        states = tiny.stored_states(model)[index]
        self.assertAllClose(
            model.stored_reconstruction(x[index], index),
            self._expected(model, x[index], states),
            rtol=1e-4,
        )

    @parameterized.product(
        kind=EVERY_LIKELIHOOD, num_states=(tiny.NUM_STATES, ALL_STATES)
    )
    def test_stored_moments_are_those_of_the_posterior(self, kind, num_states):
        model, x = tiny.shared(kind, num_states), tiny.data()
        index = np.array([7, 0, 4])
        if num_states == ALL_STATES:
            every = oracles.enumerate_states(tiny.NUM_LATENTS)
            states = np.broadcast_to(every, (3, *every.shape))
        else:
            states = tiny.stored_states(model)[index]
        q = tiny.Parameters(model).posterior(x[index], states)[..., None]
        means = tiny.means(model, states)
        mean = (q * means).sum(1)
        variance = (q * np.square(means - mean[:, None])).sum(1)
        ((found_mean, found_variance),) = model.stored_moments(x[index], index)
        self.assertAllClose(found_mean, mean, rtol=1e-4)
        self.assertAllClose(found_variance, variance, rtol=1e-3, atol=1e-6)

    def test_lazy_rows_are_reconstructed_as_arrays(self):
        model, x = tiny.shared(), tiny.data()
        image = np.nan_to_num(x).reshape(11, 3, 1)
        lazy = patches.ImagePatches(image, (1, 3))
        self.assertAllEqual(
            model.stored_reconstruction(lazy, tiny.INDEX),
            model.stored_reconstruction(np.asarray(lazy), tiny.INDEX),
        )

    def test_model_without_data_has_nothing_stored(self):
        model = tiny.make(num_data=0)
        self.assertIsNone(model.states)
        with self.assertRaisesRegex(
            RuntimeError, "TVAE was created without `num_data`"
        ):
            model.stored_reconstruction(tiny.data(), tiny.INDEX)


@pytest.mark.usefixtures("kept_kernels")
class GenerationTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(((),), ((5,),), ((2, 3),))
    def test_decoded_means_keep_the_leading_dimensions(self, leading):
        model = tiny.shared()
        states = np.random.default_rng(0).integers(0, 2, (*leading, 4))
        means = model.decode(states)
        self.assertEqual(means.shape, (*leading, 3))
        self.assertAllClose(means, tiny.means(model, states), rtol=1e-5)

    def test_states_that_are_not_binary_are_reported(self):
        with self.assertRaisesRegex(
            ValueError, "`states` must be zeros and ones, got values from 0 to"
        ):
            tiny.shared().decode(np.linspace(0.0, 0.9, 4))

    def test_states_of_wrong_width_are_reported(self):
        with self.assertRaisesRegex(
            ValueError, r"`states` must have shape \[..., 4\], got \(2, 5\)"
        ):
            tiny.shared().decode(np.ones((2, 5)))

    @parameterized.parameters(*EVERY_LIKELIHOOD)
    def test_singleton_means_are_means_of_single_latents(self, kind):
        model = tiny.shared(kind)
        expected = tiny.means(model, np.eye(4))
        self.assertAllClose(model.singleton_means(), expected, rtol=1e-5)

    @parameterized.parameters(*EVERY_LIKELIHOOD)
    def test_samples_have_the_moments_of_the_model(self, kind):
        model, num_samples = tiny.shared(kind), 40000
        every = oracles.enumerate_states(tiny.NUM_LATENTS)
        prior = np.exp(
            [oracles.log_prior(s, model.prior_probs.numpy()) for s in every]
        )
        means = tiny.means(model, every)
        mean = prior @ means
        variance = prior @ (means - mean) ** 2
        samples = model.sample(num_samples, seed=3, mean=True).numpy()
        error = 4.0 * np.sqrt(variance / num_samples)
        self.assertAllInRange((samples.mean(0) - mean) / error, -1.0, 1.0)
        # Four standard errors of a variance with kurtosis up to 9.
        relative = 4.0 * math.sqrt(8.0 / num_samples)
        self.assertAllClose(samples.var(0), variance, rtol=relative)

        samples = model.sample(num_samples, seed=3).numpy()
        variance += prior @ self._noise_variance(model, every)
        error = 4.0 * np.sqrt(variance / num_samples)
        self.assertAllInRange((samples.mean(0) - mean) / error, -1.0, 1.0)
        self.assertAllClose(samples.var(0), variance, rtol=relative)

    def _noise_variance(self, model, states):
        """Variance of x given s, `[K, D]`."""
        likelihood = model.likelihood
        if isinstance(likelihood, likelihoods.BernoulliLikelihood):
            means = tiny.means(model, states)
            return means * (1.0 - means)
        if isinstance(likelihood, likelihoods.PoissonLikelihood):
            return tiny.means(model, states)
        if isinstance(likelihood, likelihoods.GaussianLikelihood):
            return np.full((len(states), 3), float(likelihood.variance))
        outputs = oracles.perceptron(model.decoder.get_weights(), states)
        ratio = 15.0 * np.tanh(outputs[:, 3:] / 15.0)
        return float(likelihood.scale) ** 2 * np.exp(ratio)

    def test_seed_decides_the_samples(self):
        model = tiny.shared()
        first, same, other = (model.sample(4, seed=s) for s in (1, 1, 2))
        self.assertAllEqual(first, same)
        self.assertNotAllEqual(first, other)
        self.assertEqual(model.sample(tf.constant(4), seed=1).shape, (4, 3))


class CreationTest(tf.test.TestCase, parameterized.TestCase):
    def test_first_states_are_distinct_and_prior_is_one_latent(self):
        decoder = networks.FullyConnectedDecoder(3, ())
        model = tvae.TVAE(decoder, 5, num_data=20, num_states=31)
        self.assertAllClose(model.prior_probs, [0.2] * 5)
        for row in model.states.packed.numpy():
            self.assertEqual(oracles.count_distinct(row), 31)

    def test_everything_is_built_at_once(self):
        model = tiny.shared()
        self.assertTrue(model.built)
        self.assertLen(model.trainable_variables, 4)
        names = {variable.path for variable in model.variables}
        self.assertLen(names, len(model.variables))

    @parameterized.parameters(
        (dict(num_states=17), r"`num_states` must be .*2\*\*num_latents = 16"),
        (dict(num_m_states=7), "`num_m_states` must be from 1 to `num_states`"),
        (
            dict(num_states=16, num_m_states=3),
            "`num_m_states` must be None where the states are all",
        ),
        (
            dict(evolution=tvae.Evolution(num_parents=7)),
            "`num_parents` must be at most `num_states` = 6, got 7",
        ),
        (
            dict(evolution=tvae.Evolution(num_parents=2, num_children=5)),
            "`num_children` must be at most `num_latents` = 4",
        ),
        (dict(num_data=-1), "`num_data` must not be negative"),
    )
    def test_sizes_that_do_not_fit_are_reported(self, changes, message):
        with self.assertRaisesRegex(ValueError, message):
            tiny.make(**changes)

    def test_evolution_does_not_matter_with_all_states(self):
        evolution = tvae.Evolution(num_parents=40, num_children=40)
        model = tiny.make(num_states=ALL_STATES, evolution=evolution)
        self.assertTrue(model.is_exhaustive)

    def test_decoder_that_does_not_fit_the_likelihood_is_reported(self):
        with self.assertRaisesRegex(
            ValueError, "`decoder` must have an even number of outputs.*got 5"
        ):
            tvae.TVAE(
                networks.FullyConnectedDecoder(5),
                4,
                likelihood=likelihoods.DiagonalGaussianLikelihood(),
                num_states=4,
            )

    def test_decoder_of_images_that_are_not_flattened_is_reported(self):
        decoder = keras.Sequential(
            [
                keras.layers.Input((4,)),
                keras.layers.Dense(6),
                keras.layers.Reshape((2, 3)),
            ]
        )
        with self.assertRaisesRegex(
            ValueError,
            r"`decoder` must map \[b, H\] to .*got output shape \(None, 2, 3\)",
        ):
            tvae.TVAE(decoder, 4, num_states=4)


if __name__ == "__main__":
    tf.test.main()
