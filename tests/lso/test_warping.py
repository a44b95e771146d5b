# SPDX-License-Identifier: Apache-2.0
"""Warpings of scores: order, ties, outliers, and what they converge to."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import scipy.stats
import tensorflow as tf
from absl.testing import parameterized
from hypothesis import example, given
from hypothesis import strategies as st

from tfvae.lso.warping import RankGaussian, YeoJohnson

WARPINGS = (RankGaussian(), YeoJohnson())
_FINITE = st.floats(allow_nan=False, allow_infinity=False)
_ANY = hnp.arrays(np.float64, st.integers(1, 30), elements=_FINITE)
# Of any scale, and with ties.
_USUAL = st.builds(
    lambda values, scale, places: scale * np.asarray(values)[places],
    st.lists(st.floats(-4.0, 4.0), min_size=8, max_size=8),
    st.sampled_from([1e-300, 1e-20, 1.0, 1e30, 1e300]),
    st.lists(st.integers(0, 7), min_size=1, max_size=30),
)


def _lognormal(count=2000):
    return np.exp(2.0 * np.random.default_rng(0).standard_normal(count))


class OrderTest(tf.test.TestCase):
    @given(st.one_of(_ANY, _USUAL))
    @example(np.array([1e30, *np.linspace(0.0, 1.0, 20)]))
    @example(np.array([-1e30, *np.linspace(0.0, 1.0, 20)]))
    @example(np.array([1e30, 2e30, *np.linspace(0.0, 1.0, 20)]))
    @example(np.array([1.7e308, -1.7e308, 0.0]))
    @example(np.array([5e-324, 0.0]))
    @example(np.array([1.0, np.nextafter(1.0, 2.0)]))
    @example(np.full(5, 1e30))
    @example(np.zeros(1))
    def test_larger_scores_have_larger_values_and_equal_ones_equal(
        self, scores
    ):
        order = np.where(scores[:, None] > scores[None], 1.0, 0.0)
        order -= np.where(scores[:, None] < scores[None], 1.0, 0.0)
        for warping in WARPINGS:
            warped = warping(scores)
            self.assertEqual(warped.dtype, np.float64)
            self.assertAllInRange(warped, -1e9, 1e9)
            self.assertAllEqual(
                np.sign(warped[:, None] - warped[None]), order, str(warping)
            )


class WarpingTest(tf.test.TestCase, parameterized.TestCase):
    def test_ranks_become_normal_quantiles(self):
        scores = np.random.default_rng(0).gumbel(size=500)
        warped = RankGaussian()(scores)
        # The empirical distribution is within a rank of the normal one.
        self.assertLess(scipy.stats.kstest(warped, "norm").statistic, 1 / 500)
        # A tie has the mean rank, 2 of 3 here.
        self.assertAllClose(RankGaussian()([5.0, 5.0, 5.0]), np.zeros(3))
        self.assertAllClose(
            RankGaussian()([7.0, 1.0]),
            scipy.stats.norm.ppf([1.625 / 2.25, 0.625 / 2.25]),
        )

    def test_ranks_forget_distances(self):
        scores = _lognormal(50)
        self.assertAllEqual(
            RankGaussian()(scores), RankGaussian()(1e5 * np.log(scores))
        )

    def test_power_has_the_largest_likelihood(self):
        scores = _lognormal()
        centre = np.median(scores)
        scaled = (scores - centre) / np.median(np.abs(scores - centre))
        expected, _ = scipy.stats.yeojohnson(scaled)
        expected = (expected - expected.mean()) / expected.std()
        self.assertAllClose(YeoJohnson()(scores), expected, atol=1e-3)

    def test_power_makes_long_tails_shorter(self):
        scores = _lognormal()
        self.assertGreater(scipy.stats.skew(scores), 5.0)
        self.assertLess(abs(scipy.stats.skew(YeoJohnson()(scores))), 0.5)
        self.assertLess(abs(scipy.stats.skew(YeoJohnson()(-scores))), 0.5)

    def test_power_leaves_normal_scores_as_they_are(self):
        scores = 3.0 + 0.1 * np.random.default_rng(0).standard_normal(2000)
        standard = (scores - scores.mean()) / scores.std()
        self.assertAllClose(YeoJohnson()(scores), standard, atol=0.15)

    def test_an_outlier_does_not_drown_the_others(self):
        usual = np.random.default_rng(0).standard_normal(50)
        for outlier in (1e30, -1e30):
            for warping in WARPINGS:
                warped = warping(np.append(usual, outlier))
                self.assertGreater(warped[:-1].std(), 0.5)
                self.assertAllInRange(warped, -8.0, 8.0)

    @parameterized.parameters(*WARPINGS)
    def test_says_what_is_wrong(self, warping):
        with self.assertRaisesRegex(ValueError, "`scores` must be .* got nan"):
            warping(np.array([0.0, np.nan]))
        with self.assertRaisesRegex(ValueError, r"`scores` .* shape \[n\], n"):
            warping(np.zeros(0))


if __name__ == "__main__":
    tf.test.main()
