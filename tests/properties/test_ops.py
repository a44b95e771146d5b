# SPDX-License-Identifier: Apache-2.0
"""Properties of the pure functions, on drawn arguments."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf
from hypothesis import assume, given
from hypothesis import strategies as st

from tests import oracles
from tests.properties import drawn
from tfvae.ops import (
    bits,
    densities,
    elbo,
    frechet,
    limits,
    moments,
    patches,
    random,
    sparse,
    truncated,
    whitening,
)
from tfvae.ops.distributions import DiagonalGaussian, IndependentBernoulli

# Log-joints as they occur, and what is left of them far from all data.
LOG_JOINTS = st.one_of(
    drawn.floats(-50.0, 50.0), st.sampled_from([-1e4, -1e30, -3e38, -np.inf])
)
FINITE = st.one_of(drawn.floats(-50.0, 50.0), drawn.floats(-1e38, 1e38))


@st.composite
def states(draw, min_latents=1, max_latents=70, max_states=9):
    """Draws states float32 `[K, H]`, some of them equal."""
    num_latents = draw(st.integers(min_latents, max_latents))
    num_states = draw(st.integers(1, max_states))
    rows = draw(
        hnp.arrays(
            np.float32,
            (num_states, num_latents),
            elements=st.sampled_from([0.0, 1.0]),
        )
    )
    return rows[
        draw(
            hnp.arrays(
                np.int64, num_states, elements=st.integers(0, num_states - 1)
            )
        )
    ]


@st.composite
def scored_states(draw):
    """Draws packed states `[B, K, 1]`, log-joints `[B, K]` and a number S."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=7))
    packed = draw(hnp.arrays(np.uint8, (*shape, 1), elements=st.integers(0, 3)))
    log_joints = draw(hnp.arrays(np.float32, shape, elements=LOG_JOINTS))
    return packed, log_joints, draw(st.integers(1, shape[1]))


class BitsTest(tf.test.TestCase):
    @given(states())
    def test_unpacked_states_are_those_that_were_packed(self, rows):
        packed = bits.pack(tf.constant(rows))
        self.assertAllEqual(bits.unpack(packed, rows.shape[1]), rows)
        self.assertAllEqual(
            bits.pack(bits.unpack(packed, rows.shape[1])), packed
        )

    @given(states())
    def test_keys_are_equal_where_states_are(self, rows):
        keys = bits.keys(bits.pack(tf.constant(rows))).numpy()
        equal = (rows[:, None] == rows[None]).all(-1)
        self.assertAllEqual(keys[:, None] == keys[None], equal)

    @given(states())
    def test_distinct_states_are_those_of_a_loop(self, rows):
        keys = bits.keys(bits.pack(tf.constant(rows)))
        found = truncated.distinct(keys)
        for one, other in zip(
            found, oracles.distinct(keys.numpy()), strict=True
        ):
            self.assertAllEqual(one, other)


class TruncatedTest(tf.test.TestCase):
    @given(scored_states())
    def test_best_distinct_states_are_those_of_a_loop(self, case):
        packed, log_joints, num_states = case
        found = truncated.best_distinct(
            tf.constant(packed), tf.constant(log_joints), num_states
        )
        for row in range(len(packed)):
            expected = oracles.best_distinct(
                packed[row], log_joints[row], num_states
            )
            self.assertAllEqual(found.log_joints[row], np.float32(expected))
            real = np.isfinite(expected)
            kept = found.packed[row].numpy()[real]
            self.assertEqual(oracles.count_distinct(kept), real.sum())

    @given(scored_states(), drawn.floats(-1e3, 1e3))
    def test_free_energy_is_a_log_sum(self, case, shift):
        _, log_joints, _ = case
        log_joints = np.maximum(log_joints, np.float32(-3.4e38))
        found = truncated.free_energy(tf.constant(log_joints)).numpy()
        exact = scipy.special.logsumexp(np.float64(log_joints), -1)
        self.assertAllClose(found, exact, rtol=1e-6, atol=1e-5)
        self.assertTrue(np.all(found >= log_joints.max(1)))
        self.assertAllClose(
            truncated.free_energy(tf.constant(log_joints[:, ::-1])),
            found,
            rtol=1e-6,
            atol=1e-5,
        )
        shifted = truncated.free_energy(tf.constant(log_joints + shift))
        self.assertAllClose(shifted, found + shift, rtol=1e-6, atol=1e-3)

    @given(scored_states())
    def test_posterior_weights_are_probabilities(self, case):
        packed, log_joints, num_states = case
        found = truncated.best_distinct(
            tf.constant(packed), tf.constant(log_joints), num_states
        ).log_joints
        weights = truncated.posterior_weights(found).numpy()
        self.assertAllClose(weights.sum(1), np.ones(len(weights)), rtol=1e-5)
        self.assertAllInRange(weights, 0.0, 1.0)
        self.assertAllInRange(
            truncated.effective_states(found).numpy(),
            1.0 - 1e-5,
            num_states * (1.0 + 1e-5),
        )
        for kept in (1, num_states):
            dropped = truncated.dropped_mass(found, kept).numpy()
            self.assertAllClose(dropped, weights[:, kept:].sum(1), atol=1e-6)

    @given(scored_states(), drawn.floats(0.0, 0.99))
    def test_kept_states_leave_no_more_mass_than_is_allowed(self, case, most):
        log_joints = -np.sort(-np.maximum(case[1], np.float32(-3.4e38)))
        kept = int(truncated.num_kept(tf.constant(log_joints), most))
        weights = np.array([oracles.posterior(row) for row in log_joints])
        dropped = [weights[:, n:].sum(1).mean() for n in (kept - 1, kept)]
        self.assertLessEqual(dropped[1], most + 1e-5)
        if kept > 1:
            self.assertGreater(dropped[0], most - 1e-5)

    @given(st.data())
    def test_best_products_are_those_of_the_whole_matrix(self, data):
        sizes = [data.draw(st.integers(1, 5)) for _ in range(3)]
        left = data.draw(drawn.arrays((sizes[0], sizes[1])))
        right = data.draw(drawn.arrays((sizes[2], sizes[1])))
        count = data.draw(st.integers(1, sizes[2]))
        values, index = truncated.best_products(
            tf.constant(left), tf.constant(right), count
        )
        products = np.float64(left) @ np.float64(right).T
        expected = -np.sort(-products)[:, :count]
        self.assertAllClose(values, expected, atol=1e-4)
        chosen = np.take_along_axis(products, index.numpy(), 1)
        self.assertAllClose(chosen, expected, atol=1e-4)
        for row in index.numpy():
            self.assertLen(set(row), count)

    @given(st.data())
    def test_initial_states_are_distinct(self, data):
        num_bits = data.draw(st.integers(1, 6))
        num_states = data.draw(st.integers(1, 2**num_bits))
        packed = truncated.initial_states(
            random.make_seed(data.draw(drawn.SEEDS)), 2, num_states, num_bits
        )
        for row in packed.numpy():
            self.assertEqual(oracles.count_distinct(row), num_states)
        self.assertAllEqual(bits.pack(bits.unpack(packed, num_bits)), packed)

    @given(st.data())
    def test_enumeration_does_not_depend_on_how_many_states_at_once(self, data):
        num_bits = data.draw(st.integers(1, 4))
        weights = data.draw(drawn.arrays((3, num_bits), -9.0, 9.0))

        def log_joint(rows):
            return tf.matmul(tf.constant(weights), rows, transpose_b=True)

        every = oracles.enumerate_states(num_bits)
        expected = scipy.special.logsumexp(np.float64(weights) @ every.T, -1)
        at_once = data.draw(st.integers(0, 20))
        found = truncated.enumerated_free_energy(
            log_joint, 3, num_bits, tf.constant(at_once)
        )
        self.assertAllClose(found, expected, rtol=1e-5, atol=1e-5)


class DensitiesTest(tf.test.TestCase):
    @given(st.data())
    def test_log_densities_are_those_of_loops(self, data):
        num_observed = data.draw(st.integers(1, 5))
        x = data.draw(drawn.reals(num_observed, scale=1.0))
        x = np.clip(x, -9.0, 9.0)
        shape = (len(x), num_observed)
        mean = data.draw(drawn.arrays(shape))
        log_variance = data.draw(drawn.arrays(shape, -9.0, 9.0))
        values, observed = densities.split_missing(tf.constant(x))
        found = densities.diagonal_gaussian_log_prob(
            values, observed, tf.constant(mean), tf.constant(log_variance)
        )
        for row in range(len(x)):
            expected = oracles.gaussian_log_prob(
                np.float64(x[row]),
                np.float64(mean[row]),
                np.exp(np.float64(log_variance[row])),
            )
            self.assertAllClose(found[row], expected, rtol=1e-4, atol=1e-4)

    @given(st.data())
    def test_features_give_the_log_density(self, data):
        num_observed = data.draw(st.integers(1, 5))
        x = np.clip(data.draw(drawn.reals(num_observed, scale=1.0)), -9.0, 9.0)
        shape = (data.draw(st.integers(1, 4)), num_observed)
        mean = tf.constant(data.draw(drawn.arrays(shape)))
        log_variance = tf.constant(data.draw(drawn.arrays(shape, -3.0, 3.0)))
        variance = tf.constant(10.0 ** data.draw(st.integers(-2, 3)))
        x, observed = densities.split_missing(tf.constant(x))

        def pairs(features, *parameters):
            of_data, of_parameters = features
            return tf.matmul(
                of_data, of_parameters(*parameters), transpose_b=True
            )

        one, other = x[:, None], observed[:, None]
        # About 1e-7 of the squares that cancel, over the variance.
        tolerance = 1e-6 * 200.0 * num_observed
        self.assertAllClose(
            pairs(densities.gaussian_features(x, observed, variance), mean),
            densities.gaussian_log_prob(
                densities.squared_error(one, other, mean),
                tf.reduce_sum(other, -1),
                variance,
            ),
            rtol=1e-5,
            atol=tolerance / float(variance) + 1e-4,
        )
        self.assertAllClose(
            pairs(
                densities.diagonal_gaussian_features(x, observed),
                mean,
                log_variance,
            ),
            densities.diagonal_gaussian_log_prob(
                one, other, mean, log_variance
            ),
            rtol=1e-5,
            atol=tolerance * 20.0,
        )
        x = tf.clip_by_value(x, 0.0, 1.0)
        self.assertAllClose(
            pairs(densities.bernoulli_features(x, observed), mean),
            densities.bernoulli_log_prob(x[:, None], other, mean),
            rtol=1e-5,
            atol=1e-4,
        )

    @given(st.data())
    def test_prior_of_binary_states_sums_to_one(self, data):
        num_latents = data.draw(st.integers(1, 6))
        probs = data.draw(drawn.arrays(num_latents, 1e-5, 1.0 - 1e-5))
        every = tf.constant(bits.all_states(num_latents))
        log_prior = densities.bernoulli_log_prior(every, tf.constant(probs))
        self.assertAllClose(tf.reduce_sum(tf.exp(log_prior)), 1.0, rtol=1e-3)
        for state, found in zip(every.numpy(), log_prior.numpy(), strict=True):
            self.assertAllClose(
                found, oracles.log_prior(state, probs), rtol=1e-3, atol=1e-3
            )


class DistributionsTest(tf.test.TestCase):
    @given(st.data())
    def test_gaussians_agree_with_scipy(self, data):
        shape = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
        mean = data.draw(drawn.arrays(shape))
        log_variance = data.draw(drawn.arrays(shape, -9.0, 9.0))
        at = data.draw(drawn.arrays(shape))
        one = DiagonalGaussian(tf.constant(mean), tf.constant(log_variance))
        exact = scipy.stats.norm(
            np.float64(mean), np.exp(0.5 * np.float64(log_variance))
        )
        self.assertAllClose(
            one.log_prob(tf.constant(at)),
            exact.logpdf(at).sum(-1),
            rtol=1e-4,
            atol=1e-4,
        )
        self.assertAllClose(
            one.entropy(), exact.entropy().sum(-1), rtol=1e-5, atol=1e-5
        )
        cross = scipy.stats.norm.logpdf(mean) - 0.5 * exact.var()
        self.assertAllClose(
            one.kl_from_standard_normal(),
            -(exact.entropy() + cross).sum(-1),
            rtol=1e-4,
            atol=1e-4,
        )

    @given(hnp.arrays(np.float32, 3, elements=FINITE), drawn.SEEDS)
    def test_bernoullis_are_finite_for_any_logits(self, logits, seed):
        one = IndependentBernoulli(tf.constant(logits))
        entropy = float(one.entropy())
        self.assertBetween(entropy, -1e-5, 3.0 * np.log(2.0) + 1e-5)
        sample = one.sample(random.make_seed(seed))
        self.assertAllInSet(sample, [0.0, 1.0])
        self.assertFalse(np.isnan(one.log_prob(sample)))
        relaxed = one.relaxed_sample(random.make_seed(seed), 0.3)
        self.assertAllInRange(relaxed, 0.0, 1.0)
        every = tf.constant(bits.all_states(3))
        total = np.exp(np.float64(one.log_prob(every))).sum()
        self.assertAllClose(total, 1.0, rtol=1e-3)


class ElboTest(tf.test.TestCase):
    @given(st.data())
    def test_bound_is_a_log_mean_of_weights(self, data):
        shape = (data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4)))
        weights = data.draw(hnp.arrays(np.float32, shape, elements=LOG_JOINTS))
        found = elbo.importance_weighted_bound(
            lambda draw: tf.gather(tf.constant(weights), draw),
            shape[1],
            shape[0],
        ).numpy()
        expected = scipy.special.logsumexp(np.float64(weights), 0)
        expected -= np.log(shape[0])
        self.assertFalse(np.isnan(found).any())
        finite = np.isfinite(expected) & (expected > -3.4e38)
        self.assertAllClose(
            found[finite], expected[finite], rtol=1e-5, atol=1e-4
        )


class LimitsTest(tf.test.TestCase):
    @given(hnp.arrays(np.float32, 9, elements=drawn.floats(-3e38, 3e38)))
    def test_compression_is_odd_increasing_and_leaves_usual_values(self, x):
        x = np.sort(x)
        found = limits.compress(tf.constant(x), 10.0).numpy()
        # But for the last digit, in which vectorised logarithms differ.
        self.assertAllGreaterEqual(np.diff(found), -2e-5)
        self.assertAllInRange(found, -100.0, 100.0)
        self.assertAllClose(
            found, -limits.compress(tf.constant(-x), 10.0).numpy(), rtol=1e-6
        )
        usual = np.abs(x) <= 10.0
        self.assertAllEqual(found[usual], x[usual])


class MomentsTest(tf.test.TestCase):
    @given(st.data())
    def test_moments_are_those_of_float64(self, data):
        x = data.draw(drawn.reals(data.draw(st.integers(1, 4))))
        found = moments.of_columns(x)
        exact = x.astype(np.float64)
        for column in range(x.shape[1]):
            seen = exact[:, column][~np.isnan(exact[:, column])]
            self.assertEqual(found.size[column], len(seen))
            if len(seen):
                self.assertAllClose(
                    [found.mean[column], found.variance[column]],
                    [seen.mean(), seen.var()],
                    rtol=1e-9,
                )
        pooled = found.pooled()
        scale = np.nanmax(np.abs(exact)) or 1.0
        self.assertAllClose(pooled.mean / scale, np.nanmean(exact) / scale)
        self.assertAllClose(
            pooled.variance / scale**2, np.nanvar(exact) / scale**2
        )
        self.assertLessEqual(
            found.within_columns().variance, pooled.variance * (1.0 + 1e-9)
        )
        self.assertGreater(moments.scale_of(pooled, 1e-4), 0.0)


class RandomTest(tf.test.TestCase):
    @given(drawn.SEEDS, st.integers(1, 40), st.data())
    def test_draws_are_in_their_range(self, seed, num_values, data):
        seed = random.make_seed(seed)
        self.assertAllInRange(
            random.uniform(seed, [50]), 0.0, 1.0, open_upper_bound=True
        )
        self.assertAllInRange(random.normal(seed, [50]), -5.5, 5.5)
        self.assertAllInRange(
            random.integers(seed, [50], num_values), 0, num_values - 1
        )
        count = data.draw(st.integers(1, min(num_values, 8)))
        rows = random.distinct_integers(seed, [5], num_values, count).numpy()
        self.assertAllInRange(rows, 0, num_values - 1)
        for row in rows:
            self.assertLen(set(row), count)

    @given(st.data())
    def test_what_has_no_weight_is_never_drawn(self, data):
        shape = (2, data.draw(st.integers(1, 6)))
        weights = data.draw(
            hnp.arrays(
                np.float32,
                shape,
                elements=st.sampled_from([0.0, 1e-30, 0.1, 1.0, 1e30]),
            )
        )
        assume((weights.max(1) > 0.0).all())
        seed = random.make_seed(data.draw(drawn.SEEDS))
        index = random.categorical(seed, tf.constant(weights), 60).numpy()
        chosen = np.take_along_axis(weights, index, 1)
        self.assertAllGreater(chosen, 0.0)


class SparseTest(tf.test.TestCase):
    @given(st.data())
    def test_sums_of_rows_are_the_matrix_product(self, data):
        num_rows, num_latents = data.draw(st.integers(1, 5)), 64
        x = np.zeros((num_rows, num_latents), np.float32)
        for _ in range(data.draw(st.integers(0, 2 * num_rows))):
            place = data.draw(
                st.tuples(*[st.integers(0, n - 1) for n in x.shape])
            )
            x[place] = data.draw(st.sampled_from([1.0, 1.0, 1.0, 0.5, -1.0]))
        matrix = data.draw(drawn.arrays((num_latents, 3)))
        variable, inputs = tf.Variable(matrix), tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            found = sparse.sum_rows(inputs, variable, with_state_gradient=True)
            total = tf.reduce_sum(tf.square(found))
        slopes = tape.gradient(total, [variable, inputs])
        exact = np.float64(x) @ np.float64(matrix)
        self.assertAllClose(found, exact, atol=1e-4)
        self.assertAllClose(slopes[0], 2.0 * x.T @ exact, atol=1e-2)
        self.assertAllClose(slopes[1], 2.0 * exact @ matrix.T, atol=1e-2)


@st.composite
def cuts(draw):
    """Draws an image, some pixels missing, and how it is cut."""
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=3, max_side=6))
    image = draw(drawn.arrays(shape)) * draw(drawn.SCALES)
    image[draw(drawn.masks(shape))] = np.nan
    patch = tuple(draw(st.integers(1, side)) for side in shape[:2])
    return image, patch, draw(st.integers(1, min(patch)))


class PatchesTest(tf.test.TestCase):
    @given(cuts(), st.sampled_from(patches.MERGE_METHODS))
    def test_patches_of_an_image_merge_to_the_image(self, case, method):
        image, patch, stride = case
        parts = patches.extract_patches(image, patch, stride)
        merged = patches.merge_patches(
            parts, image.shape, patch, stride, method
        )
        # Weighted means of equal numbers, in float64.
        self.assertAllClose(
            merged, image.astype(np.float32), rtol=1e-6, atol=1e-37
        )

    @given(st.integers(1, 40), st.data())
    def test_patches_cover_every_pixel(self, size, data):
        patch = data.draw(st.integers(1, size))
        stride = data.draw(st.integers(1, patch))
        starts = patches.patch_starts(size, patch, stride)
        covered = starts[:, None] + np.arange(patch)
        self.assertEqual(set(covered.reshape(-1)), set(range(size)))
        self.assertTrue(np.all(np.diff(starts) > 0))


class FrechetTest(tf.test.TestCase):
    @given(st.data())
    def test_moments_do_not_depend_on_batches(self, data):
        shape = (data.draw(st.integers(2, 6)), data.draw(st.integers(1, 3)))
        features = np.float64(data.draw(drawn.arrays(shape)))
        features += data.draw(st.sampled_from([0.0, 1e3]))
        features *= data.draw(drawn.SCALES)
        parts = data.draw(drawn.splits(len(features)))
        found = frechet.batch_moments(features[part] for part in parts)
        scale = np.abs(features).max() or 1.0
        self.assertAllClose(found.mean / scale, features.mean(0) / scale)
        covariance = np.cov(features.T).reshape(shape[1], shape[1])
        self.assertAllClose(
            found.covariance / scale**2, covariance / scale**2, atol=1e-9
        )

    @given(st.data())
    def test_distance_is_symmetric_and_zero_from_itself(self, data):
        size = data.draw(st.integers(1, 3))
        scale = data.draw(drawn.SCALES)
        one, other = (
            frechet.moments(scale * data.draw(drawn.arrays((count, size))))
            for count in (3, 5)
        )
        unit = scale**2
        distance = frechet.frechet_distance(*one, *other)
        self.assertTrue(np.isfinite(distance))
        self.assertAllClose(
            frechet.frechet_distance(*other, *one) / unit,
            distance / unit,
            atol=1e-9,
        )
        itself = frechet.frechet_distance(*one, *one)
        self.assertBetween(itself / unit, 0.0, 1e-9)


class WhiteningTest(tf.test.TestCase):
    @given(st.data())
    def test_whitened_points_have_unit_covariance(self, data):
        size = data.draw(st.integers(1, 3))
        points = np.float64(data.draw(drawn.arrays((8, size))))
        points += np.random.default_rng(0).normal(size=points.shape)
        scale = data.draw(drawn.SCALES)
        mean, transform = whitening.zca_whitening(
            scale * points, kept_variance=1.0, bias=0.0
        )
        white = (scale * points - mean) @ transform
        self.assertAllClose(white.mean(0), np.zeros(size), atol=1e-3)
        self.assertAllClose(
            white.T @ white / len(white), np.eye(size), atol=1e-2
        )


if __name__ == "__main__":
    tf.test.main()
