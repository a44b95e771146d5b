# SPDX-License-Identifier: Apache-2.0
"""Tests of weights by score, against limits, loops and published figures."""

from __future__ import annotations

import math

import keras
import numpy as np
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized

from tfvae.lso import weighting

ALL = (
    weighting.Unweighted(),
    weighting.Rank(1e-2),
    weighting.CemPi(0.8),
    weighting.DbAS(0.8, 0.3),
    weighting.RWR(2.0),
    weighting.FB(0.8),
)


def _scores(num_data: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=num_data)


def _slow_rank_weights(scores: np.ndarray, k: float) -> np.ndarray:
    """Returns rank weights by counting, point by point."""
    num_data = len(scores)
    weights = [
        1.0 / (k * num_data + sum(other > score for other in scores))
        for score in scores
    ]
    return np.array(weights) / sum(weights)


class WeightingTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(*ALL)
    def test_weights_are_not_negative_and_sum_to_one(self, weights_of):
        for num_data in (1, 2, 1000):
            weights = weights_of(_scores(num_data))
            self.assertEqual(weights.shape, (num_data,))
            self.assertDTypeEqual(weights, np.float64)
            self.assertAllGreaterEqual(weights, 0.0)
            self.assertAllClose(weights.sum(), 1.0, rtol=1e-12)

    @parameterized.parameters(*ALL)
    def test_better_points_weigh_no_less(self, weights_of):
        weights = weights_of(np.sort(_scores(500)))
        self.assertAllGreaterEqual(np.diff(weights), 0.0)

    @parameterized.parameters(*ALL)
    def test_order_of_the_data_does_not_matter(self, weights_of):
        scores = np.round(_scores(300), 1)
        order = np.random.default_rng(1).permutation(300)
        self.assertAllClose(
            weights_of(scores)[order], weights_of(scores[order]), rtol=1e-12
        )

    @parameterized.parameters(*ALL)
    def test_equal_scores_have_equal_weights(self, weights_of):
        weights = weights_of(np.full(7, -3.0))
        self.assertAllClose(weights, np.full(7, 1 / 7), rtol=1e-12)

    @parameterized.product(
        weights_of=ALL, wrong=[math.nan, math.inf, -math.inf]
    )
    def test_refuses_scores_that_are_not_finite(self, weights_of, wrong):
        scores = _scores(5)
        scores[3] = wrong
        with self.assertRaisesRegex(
            ValueError, rf"`scores` must be finite, got {wrong} .*point 3 "
        ):
            weights_of(scores)

    @parameterized.parameters(((0,),), ((2, 2),), ((),))
    def test_refuses_other_shapes(self, shape):
        with self.assertRaisesRegex(ValueError, r"`scores` must have shape"):
            weighting.Rank()(np.zeros(shape))

    @parameterized.parameters(*ALL)
    def test_settings_survive_serialisation(self, weights_of):
        saved = keras.saving.serialize_keras_object(weights_of)
        again = keras.saving.deserialize_keras_object(saved)
        self.assertEqual(again, weights_of)

    @parameterized.parameters(
        (weighting.Rank, {"k": -1.0}, "`k`"),
        (weighting.Rank, {"k": math.nan}, "`k`"),
        (weighting.CemPi, {"quantile": 1.5}, "`quantile`"),
        (weighting.FB, {"quantile": -0.1}, "`quantile`"),
        (weighting.DbAS, {"quantile": math.nan}, "`quantile`"),
        (weighting.DbAS, {"noise": -1.0}, "`noise`"),
        (weighting.DbAS, {"noise": math.inf}, "`noise`"),
        (weighting.RWR, {"alpha": -1.0}, "`alpha`"),
        (weighting.RWR, {"alpha": math.nan}, "`alpha`"),
    )
    def test_refuses_values_out_of_range(self, weights_of, values, name):
        with self.assertRaisesRegex(ValueError, f"{name} must be .*, got"):
            weights_of(**values)


class RankTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(1e-3, 1e-1, 1.0, 1e3)
    def test_equals_a_slow_count_with_ties(self, k):
        scores = np.round(_scores(200), 1)
        self.assertLess(len(np.unique(scores)), 60)
        self.assertAllClose(
            weighting.Rank(k)(scores), _slow_rank_weights(scores, k), rtol=1e-12
        )

    @parameterized.parameters(1e-3, 1.0)
    def test_ties_are_broken_by_the_order_of_the_data_if_asked(self, k):
        scores = np.round(_scores(200), 1)
        # What is earlier counts as a little better.
        nudged = scores - 1e-9 * np.arange(200)
        self.assertAllClose(
            weighting.Rank(k, breaks_ties=True)(scores),
            weighting.Rank(k)(nudged),
            rtol=1e-12,
        )

    @parameterized.product(
        k=[1e-3, 1e-2, 1e-1, 1.0],
        num_data=[10_000, 100_000],
        ends=[(0.0, 0.01), (0.0, 0.1), (0.2, 0.5), (0.9, 1.0)],
    )
    def test_mass_of_quantiles_does_not_depend_on_n(self, k, num_data, ends):
        weights = np.sort(weighting.Rank(k)(_scores(num_data)))[::-1]
        first, last = (round(num_data * end) for end in ends)
        limit = math.log((k + ends[1]) / (k + ends[0])) / math.log((k + 1) / k)
        # A sum of 1 / (kN + rank) exceeds its integral by less than its first
        # term: 1 / (kN), of a whole of log((k + 1) / k).
        error = 1.0 / (k * num_data * math.log((k + 1) / k))
        self.assertNear(weights[first:last].sum(), limit, error)

    def test_large_k_is_uniform(self):
        scores = _scores(100)
        uniform = np.full(100, 0.01)
        self.assertAllClose(weighting.Rank(1e9)(scores), uniform, rtol=1e-8)
        for k in (math.inf, 1e308):
            self.assertAllClose(weighting.Rank(k)(scores), uniform, rtol=1e-12)

    def test_small_k_is_the_best_and_those_that_tie_with_it(self):
        scores = [1.0, 5.0, 2.0, 5.0]
        best = [0.0, 0.5, 0.0, 0.5]
        self.assertAllClose(weighting.Rank(1e-9)(scores), best, atol=1e-8)
        self.assertAllClose(weighting.Rank(5e-324)(scores), best, atol=1e-8)
        self.assertAllEqual(weighting.Rank(0.0)(scores), best)

    @parameterized.parameters(np.exp, np.arctan, lambda y: 3.0 * y - 70.0)
    def test_increasing_transforms_change_nothing(self, transform):
        scores = np.round(_scores(300), 2)
        rank = weighting.Rank(1e-2)
        self.assertAllEqual(rank(scores), rank(transform(scores)))

    @parameterized.parameters(
        # k, max, min, top 1 %, top 10 %, ESS / N, rows when replicated
        (1e-1, 4.17, 0.379, 0.040, 0.289, 0.632, 7345),
        (1e-3, 143.0, 0.144, 0.355, 0.67, 0.046, 8308),
    )
    def test_published_figures(self, k, high, low, top1, top10, share, rows):
        num_data = 5000
        weights = weighting.Rank(k)(_scores(num_data))
        falling = np.sort(weights)[::-1]
        self.assertNear(falling[0] * num_data, high, 0.01 * high)
        self.assertNear(falling[-1] * num_data, low, 0.02 * low)
        self.assertNear(falling[:50].sum(), top1, 0.005)
        self.assertNear(falling[:500].sum(), top10, 0.005)
        size = weighting.effective_sample_size(weights)
        self.assertNear(size / num_data, share, 0.002)
        self.assertLen(weighting.replicate(weights)[0], rows)


class QuantileTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(0.0, 0.35, 0.8, 1.0)
    def test_cem_pi_is_the_indicator_of_the_quantile(self, quantile):
        scores = np.round(_scores(101), 1)
        above = scores >= np.quantile(scores, quantile)
        self.assertAllClose(
            weighting.CemPi(quantile)(scores), above / above.sum(), rtol=1e-12
        )

    def test_dbas_is_the_probability_of_improvement(self):
        scores, noise = _scores(100), 0.7
        normal = scipy.stats.norm(scores, noise)
        chance = normal.sf(np.quantile(scores, 0.9))
        self.assertAllClose(
            weighting.DbAS(0.9, noise)(scores),
            chance / chance.sum(),
            rtol=1e-10,
        )

    def test_dbas_without_noise_is_cem_pi(self):
        scores = np.round(_scores(200), 1)
        cem_pi = weighting.CemPi(0.7)(scores)
        self.assertAllEqual(weighting.DbAS(0.7, 0.0)(scores), cem_pi)
        # Scores at the quantile itself have a chance of one half.
        scores = _scores(100)
        self.assertAllClose(
            weighting.DbAS(0.7, 1e-9)(scores), weighting.CemPi(0.7)(scores)
        )

    def test_fb_replaces_the_oldest_by_the_best_new_ones(self):
        kept, num_dropped = weighting.FB(0.5).retain(
            10, [3.0, -1.0, 7.0, 2.0, 9.0]
        )
        self.assertAllEqual(kept, [0, 2, 4])
        self.assertEqual(num_dropped, 3)

    def test_fb_leaves_data(self):
        kept, num_dropped = weighting.FB(0.0).retain(3, np.arange(5.0))
        self.assertLen(kept, 5)
        self.assertEqual(num_dropped, 2)
        kept, num_dropped = weighting.FB().retain(3, [])
        self.assertEmpty(kept)
        self.assertEqual(num_dropped, 0)
        with self.assertRaisesRegex(ValueError, "`new_scores` must be finite"):
            weighting.FB().retain(3, [1.0, math.nan])

    @parameterized.parameters(*ALL[:-1])
    def test_others_keep_everything(self, weights_of):
        kept, num_dropped = weights_of.retain(10, np.zeros(4))
        self.assertAllEqual(kept, [0, 1, 2, 3])
        self.assertEqual(num_dropped, 0)


class RWRTest(tf.test.TestCase):
    def test_is_the_softmax_of_scores(self):
        scores = _scores(50)
        expected = np.exp(2.5 * scores) / np.exp(2.5 * scores).sum()
        weights = weighting.RWR(2.5)(scores)
        self.assertAllClose(weights, expected, rtol=1e-12)

    def test_large_scores_do_not_overflow(self):
        weights = weighting.RWR(1.0)([1e5, 1e5 - 1.0, -1e300])
        self.assertAllClose(weights, scipy.special.softmax([0.0, -1, -np.inf]))

    def test_alpha_zero_is_uniform(self):
        weights = weighting.RWR(0.0)(_scores(4))
        self.assertAllClose(weights, np.full(4, 0.25))


class ReplicateTest(tf.test.TestCase, parameterized.TestCase):
    def test_equals_the_loop_that_takes_ones_away(self):
        weights = np.random.default_rng(0).exponential(size=100)
        weights[::7] = 0.0
        expected = []
        for i, weight in enumerate(weights / weights.mean()):
            while weight > 1.0:
                expected.append((i, 1.0))
                weight -= 1.0
            if weight > 0.0:
                expected.append((i, weight))
        index, values = weighting.replicate(weights)
        self.assertAllEqual(index, [i for i, _ in expected])
        self.assertAllClose(values, [weight for _, weight in expected])

    def test_whole_numbers_have_so_many_copies(self):
        index, weights = weighting.replicate([1.0, 0.0, 3.0, 0.0])
        self.assertAllEqual(index, [0, 2, 2, 2])
        self.assertAllClose(weights, np.ones(4))

    @parameterized.parameters(3, 7, 1000, 4999)
    def test_equal_weights_have_one_copy_each(self, num_data):
        index, weights = weighting.replicate(np.full(num_data, 0.1))
        self.assertAllEqual(index, np.arange(num_data))
        self.assertAllClose(weights, np.ones(num_data))


class EffectiveSampleSizeTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        ([3.0, 3.0, 3.0], 3.0),
        ([0.0, 2.0, 0.0], 1.0),
        ([1.0, 2.0], 9.0 / 5.0),
        ([1e300, 1e300], 2.0),
    )
    def test_closed_forms(self, weights, expected):
        self.assertAllClose(
            weighting.effective_sample_size(weights), expected, rtol=1e-12
        )


if __name__ == "__main__":
    tf.test.main()
