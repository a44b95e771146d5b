# SPDX-License-Identifier: Apache-2.0
"""Properties of likelihoods and priors, on drawn data and parameters."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.priors import small as small_priors
from tests.properties import drawn
from tfvae import likelihoods
from tfvae.ops import bits, densities, random
from tfvae.ops.distributions import DiagonalGaussian

STEPS, SYMBOLS, GROUPS = 2, 3, (0, 1, 0)
LIKELIHOODS = {
    "gaussian": likelihoods.GaussianLikelihood,
    "fixed": lambda: likelihoods.GaussianLikelihood(0.5, is_fixed=True),
    "own_units": lambda: likelihoods.GaussianLikelihood(standardize=False),
    "diagonal": likelihoods.DiagonalGaussianLikelihood,
    "bernoulli": likelihoods.BernoulliLikelihood,
    "sequence": lambda: likelihoods.SequenceLikelihood(STEPS, SYMBOLS, GROUPS),
}
REAL = ("gaussian", "diagonal")
pytestmark = pytest.mark.filterwarnings("ignore:the columns of .x. are much")


class Case(NamedTuple):
    """A likelihood, data `[N, D]` and decoder outputs `[K, O]`."""

    name: str
    x: np.ndarray
    outputs: np.ndarray

    def make(self):
        likelihood = LIKELIHOODS[self.name]()
        try:
            likelihood.adapt(self.x)
        except ValueError:  # A variance of 0.5 that data do not fit.
            assume(self.name != "fixed")
            raise
        return likelihood


def points(name, num_observed, **kwargs):
    """Draws data in a likelihood's support."""
    if name == "sequence":
        return drawn.sequences(STEPS, SYMBOLS)
    if name == "bernoulli":
        return drawn.unit(num_observed)
    return drawn.reals(num_observed, **kwargs)


@st.composite
def cases(draw, names=tuple(LIKELIHOODS), size=4.0, **kwargs):
    name = draw(st.sampled_from(names))
    x = draw(points(name, draw(st.integers(1, 4)), **kwargs))
    num_outputs = LIKELIHOODS[name]().num_outputs(x.shape[1])
    shape = (draw(st.integers(1, 4)), num_outputs)
    return Case(name, x, draw(drawn.arrays(shape, -size, size)))


def pairs(likelihood, x, outputs):
    """Returns log p(x | s) of all data and outputs, `[N, K]`."""
    x, observed = densities.split_missing(tf.constant(x))
    return likelihood.log_prob(
        x[:, None], observed[:, None], tf.constant(outputs)
    ).numpy()


def products(likelihood, x, outputs):
    """As `pairs`, by inner products of features."""
    of_data, of_outputs = likelihood.features(
        *densities.split_missing(tf.constant(x))
    )
    features = of_outputs(tf.constant(outputs))
    return tf.matmul(of_data, features, transpose_b=True).numpy()


class LikelihoodsTest(tf.test.TestCase):
    @given(cases(size=1e6), st.data())
    def test_no_nan_comes_of_finite_data(self, case, data):
        likelihood = case.make()
        far = drawn.reals(case.x.shape[1])
        others = data.draw(far) if case.name in REAL else case.x
        outputs = tf.Variable(case.outputs)
        for x in (case.x, others):
            values, observed = densities.split_missing(tf.constant(x))
            with tf.GradientTape() as tape:
                found = likelihood.log_prob(
                    values[:, None], observed[:, None], outputs
                )
            self.assertTrue(np.isfinite(found).all(), found)
            slopes = tape.gradient(found, outputs)
            self.assertTrue(np.isfinite(slopes).all(), slopes)
            self.assertTrue(np.isfinite(products(likelihood, x, outputs)).all())
        # Of outputs that the data's units take out of float32: infinity.
        self.assertFalse(np.isnan(likelihood.mean(outputs)).any())
        sample = likelihood.sample(random.make_seed(0), outputs).numpy()
        self.assertFalse(np.isnan(sample).any())
        likelihood.validate(sample)

    @given(cases(), st.data())
    def test_rows_do_not_depend_on_each_other(self, case, data):
        likelihood = case.make()
        whole = pairs(likelihood, case.x, case.outputs)
        order = np.array(data.draw(st.permutations(range(len(case.x)))))
        permuted = pairs(likelihood, case.x[order], case.outputs)
        self.assertAllClose(permuted, whole[order], rtol=1e-6)
        parts = [
            pairs(likelihood, case.x[rows], case.outputs)
            for rows in data.draw(drawn.splits(len(case.x)))
        ]
        self.assertAllClose(np.concatenate(parts), whole, rtol=1e-6)

    @given(cases(), drawn.floats(-1e15, 1e15))
    def test_what_stands_behind_missing_entries_does_not_matter(
        self, case, value
    ):
        likelihood = case.make()
        x, observed = densities.split_missing(tf.constant(case.x))
        other = tf.where(observed > 0.0, x, value)
        outputs = tf.constant(case.outputs)
        for one in (x, other):
            found = likelihood.log_prob(
                one[:, None], observed[:, None], outputs
            )
            of_data, of_outputs = likelihood.features(one, observed)
            product = tf.matmul(of_data, of_outputs(outputs), transpose_b=True)
            if one is x:
                expected = found, product
        self.assertAllEqual(found, expected[0])
        self.assertAllEqual(product, expected[1])

    @given(cases(scale=1.0))
    def test_features_give_the_log_density(self, case):
        likelihood = case.make()
        outputs = case.outputs
        found = products(likelihood, case.x, outputs)
        expected = pairs(likelihood, case.x, outputs)
        # Rounding errors of squares that cancel, in units of the variance.
        squares, variance = 1.0, 1.0
        if case.name not in ("bernoulli", "sequence"):
            unit = (case.x - float(likelihood.offset)) / float(likelihood.scale)
            means = outputs[:, : unit.shape[1]]
            squares += np.nanmax(unit**2) + np.max(means**2)
            variance = np.exp(-4.0)
            if case.name != "diagonal":
                relative = likelihood.variance / likelihood.scale**2
                variance = float(relative)
        error = 2e-6 * case.x.shape[1] * squares / variance
        self.assertAllClose(found, expected, rtol=1e-5, atol=1e-4 + error)

    @given(cases(REAL, scale=1.0), drawn.BINARY_SCALES)
    def test_units_of_data_shift_log_densities(self, case, scale):
        # To multiples of 2**-10, which no scale takes out of float32.
        x = np.round(case.x * 2.0**10) / 2.0**10
        assume(np.nanmax(np.abs(x)) > 0.0)  # Zeros have no units.
        expected = pairs(case._replace(x=x).make(), x, case.outputs)
        scaled = (x * scale).astype(np.float32)
        found = pairs(case._replace(x=scaled).make(), scaled, case.outputs)
        shift = (~np.isnan(x)).sum(1) * np.log(scale)
        self.assertAllClose(
            found + shift[:, None], expected, rtol=1e-6, atol=1e-4
        )

    @given(cases(("bernoulli",), size=30.0))
    def test_binary_data_have_probabilities_that_sum_to_one(self, case):
        every = bits.all_states(case.x.shape[1])
        found = pairs(case.make(), every, case.outputs)
        total = scipy.special.logsumexp(np.float64(found), 0)
        self.assertAllClose(total, np.zeros(len(total)), atol=1e-4)

    @given(cases(("sequence",), size=30.0))
    def test_sequences_have_probabilities_that_sum_to_one(self, case):
        likelihood = case.make()
        # Of all sequences whose symbols are of the groups of that one.
        for groups in itertools.product(range(max(GROUPS) + 1), repeat=STEPS):
            members = [np.flatnonzero(np.equal(GROUPS, g)) for g in groups]
            every = [
                np.eye(SYMBOLS, dtype=np.float32)[list(symbols)].reshape(-1)
                for symbols in itertools.product(*members)
            ]
            found = pairs(likelihood, np.array(every), case.outputs)
            total = scipy.special.logsumexp(np.float64(found), 0)
            self.assertAllClose(total, np.zeros(len(total)), atol=1e-4)
        mean = likelihood.mean(tf.constant(case.outputs)).numpy()
        sums = mean.reshape(-1, SYMBOLS).sum(1)
        self.assertAllClose(sums, np.ones(len(sums)), rtol=1e-5)

    @given(cases(("gaussian",)), st.data())
    def test_noise_is_the_weighted_mean_of_squared_errors(self, case, data):
        num_data, num_states = len(case.x), len(case.outputs)
        shape = (num_data, num_states)
        row_weights = np.array(
            data.draw(
                st.lists(drawn.WEIGHTS, min_size=num_data, max_size=num_data)
            )
        )
        q = data.draw(drawn.arrays(shape, 0.0, 1.0)) + np.float32(0.1)
        q /= q.sum(1, keepdims=True)
        likelihood = case.make()
        before = float(likelihood.variance)
        x, observed = densities.split_missing(tf.constant(case.x))
        row = tf.constant(row_weights, tf.float32)
        outputs = tf.repeat(tf.constant(case.outputs)[None], num_data, 0)
        for part in data.draw(drawn.splits(num_data)):
            likelihood.accumulate(
                *likelihood.statistics(
                    x[part, None],
                    (row[:, None] * observed)[part, None],
                    outputs[part],
                    tf.constant(q[part]),
                )
            )
        likelihood.maximise(tf.constant(True))
        if not row_weights.any():
            self.assertEqual(float(likelihood.variance), before)
            return
        scale = float(likelihood.scale)
        unit = (np.float64(case.x) - float(likelihood.offset)) / scale
        errors = np.square(unit[:, None] - np.float64(case.outputs))
        total = row_weights[:, None, None] * np.float64(q)[..., None]
        total = np.where(np.isnan(errors), 0.0, total)
        expected = np.nansum(total * errors) / total.sum()
        self.assertAllClose(
            float(likelihood.variance) / scale**2,
            max(expected, likelihoods.MIN_VARIANCE),
            rtol=1e-3,
            atol=1e-6,
        )

    @given(cases(("gaussian", "own_units", "diagonal")))
    # The scale was subnormal, a zero to TensorFlow.
    @example(Case("gaussian", np.float32([[1.2e-38]]), np.float32([[0.0]])))
    def test_units_are_finite_and_positive(self, case):
        likelihood = case.make()
        unit = tf.constant(1.0) / likelihood.scale.value
        self.assertTrue(np.isfinite(unit))
        self.assertGreater(unit, 0.0)
        mean = likelihood.mean(tf.constant(case.outputs))
        self.assertTrue(np.isfinite(mean).all())

    @given(drawn.reals(2), st.integers(-60, 60))
    # It was rounded to float32, to zero here.
    @example(np.float32([[1e-30, 2e-30]]), -60)
    # Its ratio to the squared scale was infinite.
    @example(np.float32([[1e-16, 1e-16]]), 0)
    def test_fixed_variances_are_finite_in_units_of_data_or_refused(
        self, x, exponent
    ):
        likelihood = likelihoods.GaussianLikelihood(
            10.0**exponent, is_fixed=True
        )
        try:
            likelihood.adapt(x)
        except ValueError as err:
            self.assertRegex(str(err), "`initial_variance` that is fixed")
            return
        self.assertEqual(float(likelihood.variance), 10.0**exponent)
        outputs = np.zeros((1, 2), np.float32)
        self.assertTrue(np.isfinite(pairs(likelihood, x, outputs)).all())


class PriorsTest(tf.test.TestCase):
    CLASSES = tuple(small_priors.CASES)

    @drawn.LAYERS
    @given(st.data())
    def test_no_nan_comes_of_finite_latents(self, data):
        cls = data.draw(st.sampled_from(self.CLASSES))
        num_latents = data.draw(st.integers(2, 4))
        prior = small_priors.model(cls, num_latents).prior
        shape = (data.draw(st.integers(1, 5)), num_latents)
        latents = tf.constant(data.draw(drawn.arrays(shape, -1e3, 1e3)))
        if cls in small_priors.BINARY:
            latents = tf.cast(latents > 0.0, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(latents)
            found = prior.log_prob(latents)
        self.assertTrue(np.isfinite(found).all())
        slopes = tape.gradient(found, [latents, *prior.trainable_variables])
        for slope in slopes:
            self.assertTrue(np.isfinite(slope).all())
        seed = random.make_seed(data.draw(drawn.SEEDS))
        self.assertTrue(np.isfinite(prior.sample(seed, 5)).all())
        order = np.array(data.draw(st.permutations(range(shape[0]))))
        self.assertAllClose(
            prior.log_prob(tf.gather(latents, order)),
            tf.gather(found, order),
            rtol=1e-5,
            atol=1e-5,
        )
        parts = [
            prior.log_prob(latents[rows])
            for rows in data.draw(drawn.splits(shape[0]))
        ]
        self.assertAllClose(tf.concat(parts, 0), found, rtol=1e-5, atol=1e-5)

    @drawn.LAYERS
    @given(st.data())
    def test_fitting_starts_from_finite_weights(self, data):
        cls = data.draw(st.sampled_from(self.CLASSES))
        shape = (data.draw(st.integers(1, 6)), data.draw(st.integers(2, 3)))
        latents = data.draw(drawn.arrays(shape))
        latents = latents * np.float32(10.0 ** data.draw(st.integers(-6, 6)))
        if cls in small_priors.BINARY:
            latents = np.float32(latents > 0.0)
        prior = small_priors.model(cls, shape[1]).prior
        prior.adapt(latents, seed=data.draw(drawn.SEEDS))
        for weight in prior.get_weights():
            self.assertTrue(np.isfinite(weight).all())
        found = prior.log_prob(tf.constant(latents))
        self.assertTrue(np.isfinite(found).all())

    @given(st.data())
    def test_divergence_from_the_standard_normal_is_not_negative(self, data):
        shape = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
        one = DiagonalGaussian(
            tf.constant(data.draw(drawn.arrays(shape, -30.0, 30.0))),
            tf.constant(data.draw(drawn.arrays(shape, -60.0, 60.0))),
        )
        found = one.kl_from_standard_normal().numpy()
        self.assertTrue(np.isfinite(found).all())
        self.assertAllGreaterEqual(found, -1e-5)

    @given(hnp.arrays(np.float32, 3, elements=drawn.floats(-30.0, 30.0)))
    def test_binary_states_have_probabilities_that_sum_to_one(self, logits):
        cls = small_priors.BINARY[0]
        prior = small_priors.model(cls, 3).prior
        prior.logits.assign(logits)
        found = prior.log_prob(tf.constant(bits.all_states(3)))
        total = scipy.special.logsumexp(np.float64(found))
        self.assertAllClose(total, 0.0, atol=1e-4)


if __name__ == "__main__":
    tf.test.main()
