# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.stats
from absl.testing import absltest, parameterized

from tfvae.sweeps import anova, comparisons


class ComparisonsTest(parameterized.TestCase):
    def test_p_values_are_those_of_scipy(self):
        differences = np.array([-1.0, -2.0, 0.5, -1.5])
        expected = scipy.stats.ttest_1samp(differences, 0.0, alternative="less")
        self.assertAlmostEqual(
            comparisons.p_less(differences), expected.pvalue, places=12
        )
        expected = scipy.stats.ttest_1samp(differences, 0.0)
        self.assertAlmostEqual(
            comparisons.p_different(differences), expected.pvalue, places=12
        )

    def test_equivalence_needs_both_limits(self):
        differences = np.array([0.9, 1.0, 1.1])
        self.assertLess(comparisons.p_within(differences, 0.0, 2.0), 0.01)
        self.assertGreater(comparisons.p_within(differences, 0.0, 1.0), 0.4)
        self.assertGreater(comparisons.p_within(differences, 1.0, 2.0), 0.4)

    @parameterized.parameters((-0.5, 0.7), (-2.0, 2.0), (-1.2, -1.1))
    def test_p_values_of_limits_are_those_of_one_sided_tests(self, low, high):
        differences = np.array([-1.0, -2.0, 0.5, -1.5])

        def p_value(limit, alternative):
            return scipy.stats.ttest_1samp(
                differences, limit, alternative=alternative
            ).pvalue

        self.assertAlmostEqual(
            comparisons.p_within(differences, low, high),
            max(p_value(low, "greater"), p_value(high, "less")),
            places=12,
        )
        outside = min(p_value(low, "less"), p_value(high, "greater"))
        self.assertAlmostEqual(
            comparisons.p_outside(differences, low, high),
            min(1.0, 2.0 * outside),
            places=12,
        )

    @parameterized.parameters(
        (2.0, 1.0, 0.0),
        (1.0, 0.0, 0.0),
        (0.0, 1.0, 1.0),
        (-1.0, 1.0, 0.0),
    )
    def test_same_differences_are_within_limits_or_not(
        self, value, within, different
    ):
        same = np.full(3, value)
        self.assertEqual(comparisons.p_within(same, 0.0, 1.5), within)
        self.assertEqual(comparisons.p_different(same), different)

    @parameterized.parameters(
        ([-1.0, -1.0], 0.0), ([0.0, 0.0], 1.0), ([1.0, 1.0], 1.0)
    )
    def test_differences_without_noise_are_certain(self, differences, expected):
        self.assertEqual(comparisons.p_less(np.array(differences)), expected)

    def test_one_repetition_says_nothing(self):
        for test in (comparisons.p_less, comparisons.p_different):
            self.assertTrue(np.isnan(test(np.array([1.0]))))
        self.assertEqual(comparisons.p_text(np.nan), "needs repetitions")

    def test_holm_multiplies_the_smallest_by_the_number(self):
        # Sorted: 0.01 * 3, 0.02 * 2, then the largest of those and 0.04.
        np.testing.assert_allclose(
            comparisons.holm([0.04, 0.01, 0.02]), [0.04, 0.03, 0.04]
        )
        p_values = np.random.default_rng(0).uniform(0.0, 0.5, 9)
        largest, expected = 0.0, {}
        for rank, p_value in enumerate(sorted(p_values)):
            largest = max(largest, (9 - rank) * p_value)
            expected[p_value] = min(largest, 1.0)
        np.testing.assert_allclose(
            comparisons.holm(p_values), [expected[p] for p in p_values]
        )
        self.assertTrue(np.isnan(comparisons.holm([0.1, np.nan])).all())

    def test_only_models_with_both_levels_are_paired(self):
        frame = pd.DataFrame(
            [
                {"repetition": r, "layer": layer, "encoder": e, "value": value}
                for r, layer, e, value in (
                    *((0, "fc", "L", 1.0), (0, "fc", "NL", 3.0)),
                    *((0, "conv", "L", 2.0), (0, "conv", "NL", 6.0)),
                    *((1, "fc", "L", 1.5), (1, "fc", "NL", 3.0)),
                    *((1, "conv", "L", 2.5), (1, "conv", "NL", 7.0)),
                    # Unfinished: its mean would be of another model.
                    *((2, "fc", "L", 1.0), (2, "fc", "NL", 3.0)),
                    (2, "conv", "L", 2.0),
                )
            ]
        )
        found = comparisons.pairs(
            frame, "value", "encoder", ("NL", "L"), ["layer"]
        )
        self.assertEqual(found["NL"].tolist(), [4.5, 5.0])
        self.assertEqual(found["L"].tolist(), [1.5, 2.0])

    def test_duel_counts_the_smaller_means(self):
        rows = [
            {
                "repetition": r,
                "prior": prior,
                "objective": objective,
                "frechet_distance": value + r,
            }
            for r in range(2)
            for (prior, objective), value in {
                ("flow2", "elbo"): 1.0,
                ("flow2", "thesis"): 2.0,
                ("flow6", "elbo"): 4.0,
                ("flow6", "thesis"): 3.0,
                ("normal", "elbo"): 0.0,  # The other one is not finished.
            }.items()
        ]
        factors = ["prior", "objective"]
        found = comparisons.duel(
            pd.DataFrame(rows), "frechet_distance", "objective", factors
        )
        self.assertEqual(found.wins, {"elbo": 1, "thesis": 1})
        self.assertLen(found.lines, 2)
        model, means, p_value = found.lines[0]
        self.assertEqual(model, {"prior": "flow2"})
        self.assertEqual(means, {"elbo": 1.5, "thesis": 2.5})
        self.assertEqual(p_value, 0.0)


class AnovaTest(absltest.TestCase):
    def test_two_factors_by_hand(self):
        # Means 2, 6, 3, 11 of two values each, 5.5 of all. Factors: 8 times
        # the squared half difference, 1.5 and 3 and 1; residuals: 4 times 2.
        values = {
            ("fc", "L"): (1.0, 3.0),
            ("fc", "NL"): (5.0, 7.0),
            ("conv", "L"): (2.0, 4.0),
            ("conv", "NL"): (10.0, 12.0),
        }
        frame = pd.DataFrame(
            [
                {"layer": layer, "encoder": encoder, "value": value}
                for (layer, encoder), pair in values.items()
                for value in pair
            ]
        )
        found = anova.anova(frame, "value", ["layer", "encoder"])
        self.assertEqual(found.residual_df, 4)
        self.assertEqual(found.formula, "layer * encoder")
        expected = {
            "layer": (18.0, 9.0),
            "encoder": (72.0, 36.0),
            "layer x encoder": (8.0, 4.0),
        }
        self.assertEqual([one.name for one in found.terms], [*expected])
        for term in found.terms:
            sum_of_squares, f = expected[term.name]
            self.assertAlmostEqual(term.sum_of_squares, sum_of_squares)
            self.assertAlmostEqual(term.f, f)
            self.assertEqual(term.df, 1)
            self.assertAlmostEqual(term.p, scipy.stats.f.sf(f, 1, 4))
            self.assertAlmostEqual(
                term.eta_squared, sum_of_squares / (sum_of_squares + 8.0)
            )


if __name__ == "__main__":
    absltest.main()
