# SPDX-License-Identifier: Apache-2.0
"""What every observation model must do, and what each does besides."""

from __future__ import annotations

import functools
import math

import gin
import keras
import numpy as np
import scipy.integrate
import scipy.optimize
import tensorflow as tf
from absl.testing import parameterized

from tests import oracles
from tfvae import likelihoods
from tfvae.ops import densities, random


def _moved(likelihood):
    """Gives a likelihood an offset and a scale that are not the default."""
    likelihood.offset.assign(0.3)
    likelihood.scale.assign(0.8)
    return likelihood


def _adapted_to_counts():
    likelihood = likelihoods.PoissonLikelihood()
    likelihood.scale.assign(2.5)
    likelihood.shift.assign(0.4)
    return likelihood


# Every likelihood of the library: how to make one that is not the default,
# the oracle of its density, and outputs `[K, O]` for D = 1.
CASES = {
    likelihoods.GaussianLikelihood: (
        lambda: _moved(
            likelihoods.GaussianLikelihood(
                initial_variance=0.3, standardize=False
            )
        ),
        oracles.gaussian(0.3, 0.3, 0.8),
        [[-1.2], [0.0], [0.4]],
    ),
    likelihoods.DiagonalGaussianLikelihood: (
        lambda: _moved(
            likelihoods.DiagonalGaussianLikelihood(standardize=False)
        ),
        oracles.diagonal_gaussian(0.3, 0.8),
        [[-1.2, 0.0], [0.0, -1.0], [0.4, 0.7]],
    ),
    likelihoods.BernoulliLikelihood: (
        likelihoods.BernoulliLikelihood,
        oracles.bernoulli(),
        [[-1.2], [0.0], [3.0]],
    ),
    likelihoods.PoissonLikelihood: (
        _adapted_to_counts,
        oracles.poisson(0.4, 2.5),
        [[-2.0], [0.0], [3.0]],
    ),
}
# Their data points are no entries that could be missing one by one, nor can
# there be any number of them: in test_sequence_likelihood.
TESTED_ELSEWHERE = {likelihoods.SequenceLikelihood}
EVERY_CASE = [(c.__name__, *case) for c, case in CASES.items()]


def _data(shape, seed=0):
    """Data in every likelihood's support, some entries missing."""
    rng = np.random.default_rng(seed)
    x = rng.random(shape).astype(np.float32)
    x[rng.random(shape) < 0.3] = np.nan
    return x


def _outputs(likelihood, num_observed, num_states, seed=1):
    shape = (num_states, likelihood.num_outputs(num_observed))
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _pairs(likelihood, x, observed, outputs):
    """Log p(x | s) of all data with all outputs, as products of features."""
    of_data, of_outputs = likelihood.features(x, observed)
    return tf.matmul(of_data, of_outputs(outputs), transpose_b=True)


def _moments(likelihood, outputs):
    """Mass, mean, variance and kurtosis of x given outputs, D = 1."""
    if isinstance(likelihood, likelihoods.BernoulliLikelihood):
        grid, integrate = np.array([0.0, 1.0]), np.sum
    elif isinstance(likelihood, likelihoods.PoissonLikelihood):
        grid, integrate = np.arange(100.0), np.sum
    else:
        grid = np.linspace(-15.0, 15.0, 2001)
        integrate = functools.partial(scipy.integrate.simpson, x=grid)
    x = tf.constant(grid[:, None], tf.float32)
    log_prob = likelihood.log_prob(x, tf.ones_like(x), tf.constant([outputs]))
    density = np.exp(np.float64(log_prob))
    mass, mean, square = (integrate(density * grid**k) for k in range(3))
    variance = square - mean**2
    kurtosis = integrate(density * (grid - mean) ** 4) / variance**2
    return mass, mean, variance, kurtosis


class ConformanceTest(tf.test.TestCase, parameterized.TestCase):
    def test_every_likelihood_of_the_library_has_a_case(self):
        found = {
            cls
            for name, cls in keras.saving.get_custom_objects().items()
            if name.startswith("tfvae>")
            and issubclass(cls, likelihoods.Likelihood)
        }
        self.assertEqual(found, {*CASES, *TESTED_ELSEWHERE})

    @parameterized.named_parameters(*EVERY_CASE)
    def test_outputs_and_observed_dimensions_correspond(self, make, *_):
        likelihood = make()
        for num_observed in (1, 5):
            num_outputs = likelihood.num_outputs(num_observed)
            self.assertEqual(likelihood.num_observed(num_outputs), num_observed)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_log_prob_equals_the_oracle_with_entries_missing(
        self, make, oracle, _
    ):
        likelihood = make()
        data = _data((6, 4))
        outputs = _outputs(likelihood, 4, 5)
        x, observed = densities.split_missing(tf.constant(data[:, None]))
        log_prob = likelihood.log_prob(x, observed, tf.constant(outputs))
        expected = [
            [oracle(row, one) for one in outputs.astype(np.float64)]
            for row in data.astype(np.float64)
        ]
        self.assertAllClose(log_prob, expected, rtol=1e-5, atol=1e-5)
        # States of each data point, instead of the same for all.
        of_each = tf.repeat(tf.constant(outputs)[None], 6, axis=0)
        self.assertAllClose(
            likelihood.log_prob(x, observed, of_each), log_prob, rtol=1e-5
        )

    @parameterized.product(
        case=tuple(CASES),
        share_missing=(0.0, 0.3),
        shape=((6, 4, 5), (1, 1, 1)),
    )
    def test_pairs_are_scored_like_one_by_one(self, case, share_missing, shape):
        num_data, num_observed, num_states = shape
        make, oracle, _ = CASES[case]
        likelihood = make()
        rng = np.random.default_rng(0)
        data = rng.random((num_data, num_observed)).astype(np.float32)
        data[rng.random(data.shape) < share_missing] = np.nan
        outputs = _outputs(likelihood, num_observed, num_states)
        x, observed = densities.split_missing(tf.constant(data))
        pairs = _pairs(likelihood, x, observed, tf.constant(outputs))
        one_by_one = [
            [
                likelihood.log_prob(x[n], observed[n], tf.constant(output))
                for output in outputs
            ]
            for n in range(num_data)
        ]
        self.assertAllClose(pairs, one_by_one, rtol=1e-5, atol=1e-5)
        expected = [
            [oracle(row, one) for one in outputs.astype(np.float64)]
            for row in data.astype(np.float64)
        ]
        self.assertAllClose(pairs, expected, rtol=1e-5, atol=1e-5)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_pairs_do_not_depend_on_what_stands_at_missing_entries(
        self, make, *_
    ):
        likelihood = make()
        x, observed = densities.split_missing(tf.constant(_data((6, 4))))
        outputs = tf.constant(_outputs(likelihood, 4, 5))
        other = tf.where(observed > 0.0, x, 99.0)
        self.assertAllEqual(
            _pairs(likelihood, x, observed, outputs),
            _pairs(likelihood, other, observed, outputs),
        )

    @parameterized.named_parameters(*EVERY_CASE)
    def test_pairs_are_scored_in_graphs_of_unknown_sizes(self, make, *_):
        likelihood = make()
        x, observed = densities.split_missing(tf.constant(_data((6, 4))))
        outputs = tf.constant(_outputs(likelihood, 4, 5))
        unknown = tf.TensorSpec([None, None], tf.float32)
        expected = _pairs(likelihood, x, observed, outputs)
        compiled = tf.function(
            functools.partial(_pairs, likelihood),
            input_signature=[
                unknown,
                unknown,
                tf.TensorSpec([None, outputs.shape[1]], tf.float32),
            ],
        )
        self.assertAllClose(compiled(x, observed, outputs), expected, rtol=1e-6)

    def test_likelihood_without_features_is_reported(self):
        with self.assertRaisesRegex(
            NotImplementedError,
            r"Likelihood does not implement `features`.*\(shared=False\)",
        ):
            likelihoods.Likelihood().features(tf.ones([1, 1]), tf.ones([1, 1]))

    @parameterized.named_parameters(*EVERY_CASE)
    def test_pairs_of_nothing_observed_have_probability_1(self, make, *_):
        likelihood = make()
        zeros = tf.zeros([2, 4])
        outputs = tf.constant(_outputs(likelihood, 4, 5))
        log_prob = _pairs(likelihood, zeros, zeros, outputs)
        self.assertAllEqual(log_prob, np.zeros((2, 5)))

    @parameterized.named_parameters(*EVERY_CASE)
    def test_density_has_mass_1_and_the_stated_mean(self, make, _, grid):
        likelihood = make()
        for outputs in grid:
            mass, mean, *_ = _moments(likelihood, outputs)
            self.assertAllClose(mass, 1.0, rtol=1e-4)
            found = likelihood.mean(tf.constant([outputs]))
            self.assertAllClose(found, [[mean]], rtol=1e-4, atol=1e-4)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_samples_have_the_moments_of_the_density(self, make, _, grid):
        likelihood = make()
        num_samples = 40000
        for outputs in grid:
            _, mean, variance, kurtosis = _moments(likelihood, outputs)
            samples = likelihood.sample(
                random.make_seed(2), tf.repeat([outputs], num_samples, axis=0)
            ).numpy()
            self.assertEqual(samples.shape, (num_samples, 1))
            # Four standard errors of the mean; of the variance, four of at
            # least those of a normal distribution, whose kurtosis is 3.
            error = 4.0 * math.sqrt(variance / num_samples)
            self.assertAllClose(samples.mean(), mean, rtol=0, atol=error)
            error = 4.0 * math.sqrt(max(kurtosis - 1.0, 2.0) / num_samples)
            self.assertAllClose(samples.var(), variance, rtol=error)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_gradient_is_finite_at_extreme_outputs(self, make, *_):
        likelihood = make()
        x, observed = densities.split_missing(tf.constant(_data((1, 4))))
        for size in (-50.0, 50.0):
            outputs = tf.fill([1, likelihood.num_outputs(4)], size)
            with tf.GradientTape() as tape:
                tape.watch(outputs)
                log_prob = likelihood.log_prob(x, observed, outputs)
            self.assertAllInRange(log_prob, -1e12, 1e12)
            gradient = tape.gradient(log_prob, outputs)
            self.assertAllInRange(gradient, -1e12, 1e12)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_nothing_changes_before_a_pass_is_done(self, make, *_):
        likelihood = make()
        x, observed = densities.split_missing(tf.constant(_data((6, 1, 4))))
        outputs = tf.constant(_outputs(likelihood, 4, 5)[None].repeat(6, 0))
        before = likelihood.log_prob(x, observed, outputs)
        likelihood.accumulate(
            *likelihood.statistics(x, observed, outputs, tf.fill([6, 5], 0.2))
        )
        likelihood.maximise(tf.constant(False))
        self.assertAllEqual(likelihood.log_prob(x, observed, outputs), before)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_closed_form_never_lowers_the_expected_log_prob(self, make, *_):
        likelihood = make()
        x, observed = densities.split_missing(tf.constant(_data((6, 1, 4))))
        outputs = tf.constant(_outputs(likelihood, 4, 5)[None].repeat(6, 0))
        weights = tf.nn.softmax(tf.random.stateless_normal([6, 5], [1, 2]))

        def expected_log_prob():
            log_prob = likelihood.log_prob(x, observed, outputs)
            return float(tf.reduce_sum(weights * log_prob))

        before = expected_log_prob()
        likelihood.accumulate(
            *likelihood.statistics(x, observed, outputs, weights)
        )
        likelihood.maximise(tf.constant(True))
        self.assertGreaterEqual(expected_log_prob(), before)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_configuration_and_weights_survive_a_round_trip(self, make, *_):
        likelihood = make()
        likelihood.adapt(10.0 * _data((20, 4)))
        config = keras.saving.serialize_keras_object(likelihood)
        copy = keras.saving.deserialize_keras_object(config)
        self.assertIs(type(copy), type(likelihood))
        self.assertEqual(copy.get_config(), likelihood.get_config())
        copy.set_weights(likelihood.get_weights())
        x, observed = densities.split_missing(tf.constant(_data((6, 4))))
        outputs = tf.constant(_outputs(likelihood, 4, 6))
        self.assertAllEqual(
            copy.log_prob(x, observed, outputs),
            likelihood.log_prob(x, observed, outputs),
        )

    @parameterized.named_parameters(*EVERY_CASE)
    def test_no_weight_is_trained_by_gradient(self, make, *_):
        self.assertEmpty(make().trainable_variables)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_monitored_values_are_scalars(self, make, *_):
        for value in make().monitored().values():
            self.assertEqual(value.shape, ())

    @parameterized.named_parameters(*EVERY_CASE)
    def test_gin_refers_to_it_by_name(self, make, *_):
        cls = type(make())
        self.assertIs(type(gin.get_configurable(cls.__name__)()), cls)

    @parameterized.named_parameters(*EVERY_CASE)
    def test_data_outside_the_support_are_reported(self, make, *_):
        likelihood = make()
        likelihood.validate(_data((5, 4)))
        low, high = likelihood.support
        for value in (low - 0.5, high + 0.5):
            if math.isfinite(value):
                x = np.array([[0.5, np.nan], [value, 0.5]])
                with self.assertRaisesRegex(
                    ValueError, rf"`x` must be in .* got values .*{value:g}"
                ):
                    likelihood.validate(x)


class StandardizedTest(tf.test.TestCase, parameterized.TestCase):
    classes = (
        likelihoods.GaussianLikelihood,
        likelihoods.DiagonalGaussianLikelihood,
    )

    @parameterized.parameters(*classes)
    def test_outputs_are_in_units_of_the_data(self, cls):
        likelihood = cls()
        data = 50.0 + 7.0 * _data((60, 3))
        likelihood.adapt(data)
        for output in (-1.0, 0.0, 2.0):
            outputs = tf.fill([1, likelihood.num_outputs(3)], output)
            expected = np.nanmean(data) + output * np.nanstd(data)
            self.assertAllClose(likelihood.mean(outputs), [[expected] * 3])

    @parameterized.parameters(*classes)
    def test_outputs_are_in_the_datas_own_units_if_asked_for(self, cls):
        likelihood = cls(standardize=False)
        likelihood.adapt(50.0 + 7.0 * _data((60, 3)))
        outputs = tf.fill([1, likelihood.num_outputs(3)], 4.0)
        self.assertAllClose(likelihood.mean(outputs), [[4.0] * 3])

    @parameterized.parameters(*classes)
    def test_density_moves_with_the_data(self, cls):
        # p(a x + b) = p(x) / a, for each observed entry.
        data = _data((9, 4))
        log_probs = []
        for scale, offset in ((1.0, 0.0), (20.0, -300.0)):
            likelihood = cls()
            moved = scale * data + offset
            likelihood.adapt(moved)
            x, observed = densities.split_missing(tf.constant(moved))
            outputs = tf.constant(_outputs(likelihood, 4, 9))
            log_prob = likelihood.log_prob(x, observed, outputs)
            jacobian = math.log(scale) * tf.reduce_sum(observed, -1)
            log_probs.append(log_prob + jacobian)
        self.assertAllClose(*log_probs, rtol=1e-4)

    @parameterized.product(
        cls=classes, standardize=(True, False), share_missing=(0.0, 0.4)
    )
    def test_pairs_of_pixels_are_scored_exactly(
        self, cls, standardize, share_missing
    ):
        # Patches of 144 pixels on 0 .. 255 and means near them: squares of
        # the pixels are thousands of times the squared errors.
        likelihood = cls(standardize=standardize)
        rng = np.random.default_rng(0)
        num_pixels, noise_std = 144, 10.0
        data = 180.0 + rng.uniform(-40.0, 40.0, (20, num_pixels))
        means = data[:7] + rng.normal(0.0, noise_std, (7, num_pixels))
        data[rng.random(data.shape) < share_missing] = np.nan
        data = data.astype(np.float32)
        likelihood.adapt(data)
        offset, scale = float(likelihood.offset), float(likelihood.scale)
        outputs = (means - offset) / scale
        if cls is likelihoods.GaussianLikelihood:
            likelihood.variance.assign(noise_std**2)
            oracle = oracles.gaussian(noise_std**2, offset, scale)
        else:
            ratio = np.full_like(means, 2.0 * math.log(noise_std / scale))
            outputs = np.concatenate([outputs, ratio], -1)
            oracle = oracles.diagonal_gaussian(offset, scale)
        outputs = tf.constant(outputs, tf.float32)
        x, observed = densities.split_missing(tf.constant(data))
        pairs = _pairs(likelihood, x, observed, outputs)
        expected = np.array(
            [
                [oracle(row, one) for one in np.float64(outputs)]
                for row in np.float64(data)
            ]
        )
        self.assertAllClose(pairs, expected, rtol=2e-6, atol=1e-3)
        self.assertAllClose(
            pairs,
            likelihood.log_prob(x[:, None], observed[:, None], outputs),
            rtol=2e-6,
            atol=1e-3,
        )

    @parameterized.parameters(*classes)
    def test_constant_data_leave_a_positive_scale(self, cls):
        likelihood = cls()
        likelihood.adapt(np.full((5, 2), 3.0))
        self.assertAllInRange(likelihood.scale.numpy(), 1e-6, 1e-3)
        self.assertAllClose(likelihood.offset, 3.0)


class BaseClassTest(tf.test.TestCase):
    def test_methods_without_a_default_are_abstract(self):
        likelihood = likelihoods.Likelihood()
        x = tf.zeros([1, 2])
        for method, arguments in (
            ("log_prob", (x, x, x)),
            ("mean", (x,)),
            ("sample", (random.make_seed(0), x)),
        ):
            with self.assertRaisesRegex(NotImplementedError, ""):
                getattr(likelihood, method)(*arguments)


class GaussianTest(tf.test.TestCase, parameterized.TestCase):
    def test_variance_maximises_the_expected_log_prob_of_a_pass(self):
        # Three batches of different sizes, entries missing.
        likelihood = likelihoods.GaussianLikelihood()
        rng = np.random.default_rng(0)
        data, outputs = _data((11, 4)), rng.normal(size=(11, 5, 4))
        weights = rng.dirichlet(np.ones(5), 11)
        for rows in (slice(0, 4), slice(4, 8), slice(8, 11)):
            x, observed = densities.split_missing(tf.constant(data[rows, None]))
            likelihood.accumulate(
                *likelihood.statistics(
                    x,
                    observed,
                    tf.constant(outputs[rows], tf.float32),
                    tf.constant(weights[rows], tf.float32),
                )
            )
            likelihood.maximise(tf.constant(rows.stop == 11))

        def loss(log_variance):
            log_prob = oracles.gaussian(np.exp(log_variance))
            return -sum(
                weights[n, k] * log_prob(data[n], outputs[n, k])
                for n in range(11)
                for k in range(5)
            )

        best = scipy.optimize.minimize_scalar(loss, tol=1e-10)
        self.assertAllClose(likelihood.variance, np.exp(best.x), rtol=1e-5)

    def test_sums_start_anew_after_a_pass(self):
        likelihood = likelihoods.GaussianLikelihood()
        ones, weights = tf.ones([1, 1, 2]), tf.ones([1, 1])
        for error, expected in ((3.0, 9.0), (2.0, 4.0)):
            likelihood.accumulate(
                *likelihood.statistics(ones * error, ones, 0.0 * ones, weights)
            )
            likelihood.maximise(tf.constant(True))
            self.assertAllClose(likelihood.variance, expected)

    def test_variance_of_perfect_outputs_stays_positive(self):
        likelihood = likelihoods.GaussianLikelihood()
        ones = tf.ones([1, 1, 2])
        likelihood.accumulate(
            *likelihood.statistics(ones, ones, ones, tf.ones([1, 1]))
        )
        likelihood.maximise(tf.constant(True))
        self.assertAllClose(likelihood.variance, likelihoods.MIN_VARIANCE)

    def test_adapt_takes_the_variance_of_observed_entries(self):
        likelihood = likelihoods.GaussianLikelihood()
        data = 7.0 * _data((50, 3))
        likelihood.adapt(data)
        self.assertAllClose(likelihood.variance, np.nanvar(data))
        noise_std = likelihood.monitored()["noise_std"]
        self.assertAllClose(noise_std, np.nanstd(data))

    def test_fixed_variance_stays(self):
        likelihood = likelihoods.GaussianLikelihood(
            0.5, standardize=False, is_fixed=True
        )
        x, outputs = tf.constant([[1.0, 2.0]]), tf.constant([[0.5, 4.0]])
        ones = tf.ones_like(x)
        found = likelihood.log_prob(x, ones, outputs)
        # Half a unit of variance: the squared error, and D / 2 log pi.
        self.assertAllClose(found, [-4.25 - np.log(np.pi)])
        likelihood.accumulate(
            *likelihood.statistics(
                x[:, None], ones[:, None], outputs[:, None], tf.ones([1, 1])
            )
        )
        likelihood.maximise(tf.constant(True))
        self.assertAllEqual(likelihood.variance, 0.5)

    def test_adapt_keeps_a_variance_that_was_given(self):
        likelihood = likelihoods.GaussianLikelihood(initial_variance=0.01)
        likelihood.adapt(7.0 * _data((50, 3)))
        self.assertAllClose(likelihood.variance, 0.01)

    def test_given_variance_does_not_depend_on_what_was_adapted_to_before(self):
        x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
        likelihood = likelihoods.GaussianLikelihood(initial_variance=0.01)
        likelihood.adapt(1e6 * x)  # Raised to what these data allow.
        self.assertGreater(float(likelihood.variance), 1e3)
        likelihood.adapt(x)
        self.assertAllClose(likelihood.variance, 0.01)

    @parameterized.parameters(0.0, -1.0, math.nan)
    def test_variance_that_is_not_positive_is_reported(self, variance):
        with self.assertRaisesRegex(
            ValueError, "`initial_variance` must be positive or None, got"
        ):
            likelihoods.GaussianLikelihood(initial_variance=variance)


class DiagonalGaussianTest(tf.test.TestCase):
    def test_zero_outputs_have_the_mean_and_variance_of_the_data(self):
        likelihood = likelihoods.DiagonalGaussianLikelihood()
        data = 100.0 * _data((50, 3))
        likelihood.adapt(data)
        x = tf.ones([1, 3])
        expected = oracles.gaussian(np.nanvar(data))(
            np.ones(3), np.full(3, np.nanmean(data))
        )
        log_prob = likelihood.log_prob(x, x, tf.zeros([1, 6]))
        self.assertAllClose(log_prob, [expected], rtol=1e-5)

    def test_log_variances_stay_within_the_limit(self):
        likelihood = likelihoods.DiagonalGaussianLikelihood()
        limit = likelihoods.MAX_LOG_VARIANCE_RATIO
        for ratio in (-1e4, 1e4):
            outputs = tf.constant([[0.0, ratio]])
            x = tf.zeros([1, 1])
            log_prob = likelihood.log_prob(x, tf.ones([1, 1]), outputs)
            log_variance = -2.0 * log_prob - math.log(2.0 * math.pi)
            self.assertAllClose(log_variance, [math.copysign(limit, ratio)])

    def test_odd_number_of_outputs_is_reported(self):
        likelihood = likelihoods.DiagonalGaussianLikelihood()
        with self.assertRaisesRegex(
            ValueError, "`decoder` must have an even number of outputs.*got 5"
        ):
            likelihood.num_observed(5)


if __name__ == "__main__":
    tf.test.main()
