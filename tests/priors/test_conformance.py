# SPDX-License-Identifier: Apache-2.0
"""What every prior of the library must do."""

from __future__ import annotations

import inspect
import math

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests import oracles
from tests.priors import small
from tfvae import priors
from tfvae.ops import random
from tfvae.ops.distributions import (
    DiagonalGaussian,
    IndependentBernoulli,
    IndependentCategorical,
    Quantized,
)

EVERY_CASE = [(cls.__name__, cls) for cls in small.CASES]
TRAINED = [
    (cls.__name__, cls)
    for cls in small.CASES
    if cls is not priors.StandardNormalPrior
]
CLOSED_FORMS = (
    priors.StandardNormalPrior,
    priors.IndependentBernoulliPrior,
    priors.IndependentCategoricalPrior,
)
# A right estimate is off by more for one seed in two million.
STANDARD_ERRORS = 5.0
POLICIES = ("mixed_float16", "float64")


def _space(cls):
    """All states of 2 latents, or a grid over where they are, and its cell."""
    if cls in small.BINARY:
        return tf.constant(oracles.enumerate_states(2), tf.float32), 1.0
    if cls in small.CATEGORICAL:
        return tf.eye(2), 1.0
    if cls is priors.QuantizedPrior:
        return small.model(cls).prior.codebook(), 1.0
    # The trapezoidal rule is exact to float32 for densities this smooth that
    # vanish at the border.
    axis = np.linspace(-14.0, 14.0, 351)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    return tf.constant(grid, tf.float32), (axis[1] - axis[0]) ** 2


def _posteriors(cls):
    """Four posteriors of the family of a prior, and four of the other one."""
    rng = np.random.default_rng(2)
    real = DiagonalGaussian(
        *tf.constant(rng.normal(size=(2, 4, 3)), tf.float32)
    )
    binary = IndependentBernoulli(real.mean)
    if cls in small.CATEGORICAL:
        return IndependentCategorical(real.mean[:, None]), real
    if cls is priors.QuantizedPrior:
        return Quantized(real.mean, small.model(cls, 3).prior.codebook()), real
    return (binary, real) if cls in small.BINARY else (real, binary)


@pytest.mark.usefixtures("kept_kernels")
class ConformanceTest(tf.test.TestCase, parameterized.TestCase):
    def test_every_prior_of_the_library_has_a_case(self):
        registered = {
            cls
            for name, cls in keras.saving.get_custom_objects().items()
            if name.startswith("tfvae>")
            and inspect.isclass(cls)
            and issubclass(cls, priors.Prior)
        }
        self.assertEqual(registered, set(small.CASES))
        self.assertContainsSubset(
            {cls.__name__ for cls in registered}, priors.__all__
        )

    @parameterized.named_parameters(*EVERY_CASE)
    def test_leading_dimensions_are_those_of_the_latents(self, cls):
        prior = small.model(cls, 3).prior
        latents = small.latents(cls, (4, 5, 3))
        log_prob = prior.log_prob(latents)
        self.assertEqual(log_prob.shape, (4, 5))
        self.assertEqual(log_prob.dtype, tf.float32)
        self.assertAllClose(prior.log_prob(latents[2]), log_prob[2], rtol=1e-5)
        self.assertAllClose(
            prior.log_prob(latents[2, 1]), log_prob[2, 1], rtol=1e-5
        )
        for part in prior.log_prob_parts(latents):
            self.assertEqual(part.shape, (4, 5))

    @parameterized.named_parameters(*EVERY_CASE)
    def test_parts_sum_to_log_prob(self, cls):
        prior = small.model(cls).prior
        latents = small.latents(cls, (7, 2))
        parts = prior.log_prob_parts(latents)
        self.assertAllClose(
            parts.base_log_prob + parts.log_det,
            prior.log_prob(latents),
            rtol=1e-5,
        )

    @parameterized.named_parameters(*EVERY_CASE)
    def test_density_has_the_mass_1(self, cls):
        points, cell = _space(cls)
        probs = np.exp(np.float64(small.model(cls).prior.log_prob(points)))
        self.assertAllClose(probs.sum() * cell, 1.0, atol=1e-4)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_draws_have_the_moments_of_the_density(self, cls):
        prior = small.model(cls).prior
        points, cell = _space(cls)
        probs = np.exp(np.float64(prior.log_prob(points))) * cell
        draws = prior.sample(random.make_seed(3), 20000)

        def statistics(z):
            # Means, second moments, a bounded function, and the entropy.
            return np.stack(
                [
                    *np.transpose(z),
                    *np.transpose(np.square(z)),
                    z[:, 0] * z[:, 1],
                    np.cos(2.0 * z[:, 0] - z[:, 1]),
                    -prior.log_prob(z),
                ],
                -1,
            ).astype(np.float64)

        found = statistics(draws)
        expected = probs @ statistics(points)
        error = found.std(0) / math.sqrt(len(found))
        difference = np.abs(found.mean(0) - expected)
        excess = difference - STANDARD_ERRORS * error
        self.assertAllLessEqual(excess - 1e-4 * np.abs(expected), 1e-4)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_same_seed_gives_the_same_draws(self, cls):
        prior = small.model(cls, 3).prior
        sample = tf.function(prior.sample)
        first = prior.sample(random.make_seed(1), 20)
        self.assertEqual(first.shape, (20, 3))
        self.assertEqual(first.dtype, tf.float32)
        self.assertAllEqual(prior.sample(random.make_seed(1), 20), first)
        self.assertNotAllClose(prior.sample(random.make_seed(2), 20), first)
        in_graph = sample(random.make_seed(1), tf.constant(20))
        self.assertAllClose(in_graph, first, rtol=1e-5, atol=1e-6)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_every_trainable_weight_gets_a_gradient(self, cls):
        prior = small.model(cls, 3).prior
        latents = small.latents(cls, (6, 3))
        weights = prior.trainable_variables
        self.assertEqual(not weights, cls is priors.StandardNormalPrior)
        with tf.GradientTape() as tape:
            tape.watch(latents)
            loss = tf.reduce_sum(prior.log_prob(latents))
        # Masses of codes are constant nearly everywhere.
        is_smooth = cls is not priors.QuantizedPrior
        sources = [*([latents] if is_smooth else []), *weights]
        gradients = tape.gradient(loss, sources)
        paths = ["latents"] if is_smooth else []
        paths += [weight.path for weight in weights]
        for path, gradient in zip(paths, gradients, strict=True):
            self.assertIsNotNone(gradient, path)
            self.assertAllInRange(gradient, -1e6, 1e6)
            self.assertGreater(np.abs(gradient).max(), 1e-8, path)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_kl_is_the_mean_log_ratio_of_draws(self, cls):
        prior = small.model(cls, 3).prior
        posterior, _ = _posteriors(cls)
        draws = posterior.sample(random.make_seed(5), 20000)
        ratio = posterior.log_prob(draws) - prior.log_prob(draws)
        others = posterior.sample(random.make_seed(6), 20000)
        estimates = prior.kl(posterior, others)
        if cls in CLOSED_FORMS:
            self.assertEqual(estimates.shape, [4])
            estimates = tf.repeat(estimates[None], len(others), 0)
        self.assertEqual(estimates.shape, [20000, 4])
        self._assert_same_mean(np.float64(ratio), np.float64(estimates))

    @parameterized.named_parameters((cls.__name__, cls) for cls in CLOSED_FORMS)
    def test_default_kl_of_draws_agrees_with_the_closed_form(self, cls):
        prior = small.model(cls, 3).prior
        posterior, _ = _posteriors(cls)
        draws = posterior.sample(random.make_seed(5), 20000)
        estimates = np.float64(priors.Prior.kl(prior, posterior, draws))
        exact = prior.kl(posterior, draws)
        self.assertGreater(estimates.std(0).min(), 0.1)
        self._assert_same_mean(
            estimates, np.broadcast_to(np.float64(exact), estimates.shape)
        )

    @parameterized.named_parameters(*EVERY_CASE)
    def test_kl_of_another_family_is_estimated_from_the_draws(self, cls):
        prior = small.model(cls, 3).prior
        _, other = _posteriors(cls)
        draws = other.sample(random.make_seed(5))
        expected = -other.entropy() - prior.log_prob(draws)
        self.assertAllClose(prior.kl(other, draws), expected, rtol=1e-5)
        parts = prior.log_prob_parts(draws)
        self.assertAllEqual(
            prior.kl(other, draws, parts), prior.kl(other, draws)
        )

    def _assert_same_mean(self, one, other):
        """Asserts equality of means over draws, within standard errors."""
        variance = one.var(0) / len(one) + other.var(0) / len(other)
        # Where both are constant, float32 rounds.
        error = STANDARD_ERRORS * np.sqrt(variance) + 1e-5
        self.assertAllLessEqual(np.abs(one.mean(0) - other.mean(0)) - error, 0)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_one_graph_serves_all_calls_and_sees_new_weights(self, cls):
        model = small.model(cls, 3)
        signature = [tf.TensorSpec([None, 3], tf.float32)]
        log_prob = tf.function(model.prior.log_prob, input_signature=signature)
        for seed in range(3):
            for weight in model.trainable_weights:
                weight.assign(0.9 * weight + 0.1)
            latents = small.latents(cls, (4 + seed, 3), seed)
            self.assertAllClose(
                log_prob(latents), model.prior.log_prob(latents), rtol=1e-4
            )
        self.assertEqual(log_prob.experimental_get_tracing_count(), 1)

    @parameterized.named_parameters(*TRAINED)
    def test_adapted_prior_finds_the_data_likelier(self, cls):
        model = small.model(cls, 3)
        rng = np.random.default_rng(3)
        if cls in small.BINARY:
            latents = rng.random((500, 3)) < [0.05, 0.5, 0.9]
            latents[:, 1] = True  # Without a zero its probability is not 1.
        elif cls in small.CATEGORICAL:
            latents = np.eye(3)[rng.choice(3, 500, p=[0.02, 0.03, 0.95])]
        else:
            latents = 5.0 + 0.1 * rng.normal(size=(500, 3))
        latents = latents.astype(np.float32)
        x = rng.normal(size=(50, small.NUM_OBSERVED))
        model.encoder.dense.bias.assign([5.0] * 3 + [-1.0] * 3)
        before = tf.reduce_mean(model.prior.log_prob(latents))
        model.prior.adapt_inputs(x)
        model.prior.adapt(latents)
        after = tf.reduce_mean(model.prior.log_prob(latents))
        if cls is priors.VampPrior:
            # It adapts to data, not to latents.
            self.assertAllInSet(
                model.prior.pseudo_inputs, np.float32(x).ravel()
            )
        else:
            self.assertGreater(after, before + 0.5)
        self.assertAllInRange(after, -100.0, 100.0)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_number_of_latents_is_checked(self, cls):
        for num_latents in (0, -1, 2.0):
            with self.assertRaisesRegex(
                ValueError,
                "`num_latents` must be an integer of at least 1, got "
                f"{num_latents!r}",
            ):
                cls(num_latents, **small.CASES[cls])

    @parameterized.named_parameters(*EVERY_CASE)
    def test_gin_refers_to_it_by_name(self, cls):
        prior = gin.get_configurable(cls.__name__)(2, **small.CASES[cls])
        self.assertIs(type(prior), cls)


class PolicyTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.addCleanup(
            keras.config.set_dtype_policy, keras.config.dtype_policy()
        )
        self.addCleanup(keras.config.set_floatx, keras.config.floatx())

    @parameterized.named_parameters(*EVERY_CASE)
    def test_densities_are_float32_under_any_policy(self, cls):
        latents = small.latents(cls, (6, 3))
        # What no policy rounds on its way into a model.
        latents = tf.round(8.0 * latents) / 8.0
        expected = self._results(cls, latents)
        for policy in POLICIES:
            keras.config.set_dtype_policy(policy)
            if not policy.startswith("mixed"):
                keras.config.set_floatx(policy)
            for found, value in zip(
                self._results(cls, latents), expected, strict=True
            ):
                self.assertEqual(found.dtype, tf.float32, policy)
                self.assertAllEqual(found, value, policy)

    def _results(self, cls, latents):
        """Returns all that a prior computes, in the scope of a model as well.

        A model's call opens the scope in which weights are cast.
        """
        model = small.model(cls, 3, encoder_dtype="float32")
        prior = model.prior
        posterior, _ = _posteriors(cls)
        seed = random.make_seed(5)
        with tf.GradientTape() as tape:
            in_model = model(latents)
        gradients = tape.gradient(in_model, prior.trainable_weights)
        return [
            in_model,
            *gradients,
            prior.log_prob(latents),
            *prior.log_prob_parts(latents),
            prior.sample(seed, 5),
            prior.kl(posterior, posterior.sample(seed)),
            *prior.weights,
        ]

    @parameterized.parameters("mixed_float16", "mixed_bfloat16")
    def test_components_from_an_encoder_of_half_precision_are_float32(
        self, policy
    ):
        latents = small.latents(priors.VampPrior, (6, 3))
        expected = small.model(priors.VampPrior, 3).prior.log_prob(latents)
        keras.config.set_dtype_policy(policy)
        prior = small.model(priors.VampPrior, 3).prior
        self.assertEqual(
            {value.dtype for value in prior.components()}, {tf.float32}
        )
        self.assertAllClose(prior.log_prob(latents), expected, rtol=0.02)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_other_dtypes_are_refused_except_in_files(self, cls):
        for dtype in ("float16", "mixed_bfloat16", "float64"):
            with self.assertRaisesRegex(
                ValueError, f"`dtype` must be float32.*got '{dtype}'"
            ):
                cls(2, **small.CASES[cls], dtype=dtype)
        prior = cls(2, **small.CASES[cls])
        config = {**prior.get_config(), "dtype": "mixed_float16"}
        self.assertEqual(cls.from_config(config).compute_dtype, "float32")


class SavingTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.named_parameters(*EVERY_CASE)
    def test_configuration_holds_every_argument(self, cls):
        config = small.CASES[cls]
        parameters = inspect.signature(cls.__init__).parameters
        own = set(parameters) - {"self", "num_latents", "kwargs"}
        self.assertEqual(set(config), own)
        for name, value in config.items():
            self.assertNotEqual(parameters[name].default, value, name)
        prior = cls(2, **config, name="given")
        copy = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(prior)
        )
        self.assertEqual(copy.name, "given")
        for name, value in {"num_latents": 2, **config}.items():
            self.assertEqual(getattr(copy, name), value, name)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_keras_file_holds_the_prior(self, cls):
        model = small.model(cls, 3)
        path = self.create_tempdir().full_path + "/model.keras"
        model.save(path)
        copy = keras.saving.load_model(path)
        self.assertLen(copy.weights, len(model.weights))
        for found, expected in zip(copy.weights, model.weights, strict=True):
            self.assertAllEqual(found, expected)
        latents = small.latents(cls, (5, 3))
        self.assertAllEqual(
            copy.prior.log_prob(latents), model.prior.log_prob(latents)
        )
        seed = random.make_seed(1)
        self.assertAllEqual(
            copy.prior.sample(seed, 5), model.prior.sample(seed, 5)
        )

    @parameterized.named_parameters(*EVERY_CASE)
    def test_exported_functions_give_the_same(self, cls):
        model = small.model(cls, 3)
        module = tf.Module()
        module.model = model
        module.log_prob = tf.function(
            model.prior.log_prob,
            input_signature=[tf.TensorSpec([None, 3], tf.float32)],
        )
        module.sample = tf.function(
            model.prior.sample,
            input_signature=[
                tf.TensorSpec([2], tf.int32),
                tf.TensorSpec([], tf.int32),
            ],
        )
        path = self.create_tempdir().full_path
        tf.saved_model.save(module, path)
        loaded = tf.saved_model.load(path)
        latents = small.latents(cls, (5, 3))
        self.assertAllClose(
            loaded.log_prob(latents), model.prior.log_prob(latents), rtol=1e-5
        )
        seed = random.make_seed(1)
        self.assertAllClose(
            loaded.sample(seed, tf.constant(6)),
            model.prior.sample(seed, 6),
            rtol=1e-4,
            atol=1e-5,
        )


class BaseClassTest(tf.test.TestCase):
    def test_methods_without_a_default_are_abstract(self):
        prior = priors.Prior(2)
        with self.assertRaisesRegex(NotImplementedError, ""):
            prior.log_prob(tf.zeros([1, 2]))
        with self.assertRaisesRegex(NotImplementedError, ""):
            prior.sample(random.make_seed(0), 1)

    def test_log_prob_and_sample_are_all_a_new_prior_needs(self):
        class Uniform(priors.Prior):
            def log_prob(self, latents):
                return tf.zeros(tf.shape(latents)[:-1])

            def sample(self, seed, num_samples):
                return random.uniform(seed, [num_samples, self.num_latents])

        model = small.Model(small.Encoder(2), Uniform(2))
        model.prior.adapt(np.zeros((3, 2)))
        model.prior.adapt_inputs(np.zeros((3, small.NUM_OBSERVED)))
        draws = model.prior.sample(random.make_seed(0), 3)
        parts = model.prior.log_prob_parts(draws)
        self.assertAllEqual(parts.base_log_prob, [0.0] * 3)
        self.assertAllEqual(parts.log_det, [0.0] * 3)
        posterior = model.encoder(tf.zeros([1, small.NUM_OBSERVED]))
        # E_q[log q - log p] is minus the entropy where log p is 0.
        self.assertAllClose(
            model.prior.kl(posterior, draws), -posterior.entropy() + [0.0] * 3
        )


if __name__ == "__main__":
    tf.test.main()
