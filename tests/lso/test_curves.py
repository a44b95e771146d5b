# SPDX-License-Identifier: Apache-2.0
"""Curves of the best queries, against a slow transcription."""

from __future__ import annotations

import numpy as np
from absl.testing import absltest, parameterized

from tfvae.lso import curves


def _slow(scores, keys, k, budget):
    """The definition, word by word, for every number of queries anew."""
    curve = []
    for num_queries in range(1, budget + 1):
        first = list(zip(scores, keys, strict=True))[:num_queries]
        if k > 1:
            kept = {}
            for score, key in first:
                if key not in kept:
                    kept[key] = score
            values = list(kept.values())
        else:
            values = [score for score, _ in first]
        values.sort(reverse=True)
        curve.append(values[min(k, num_queries, len(values)) - 1])
    return np.array(curve)


class TopKTest(parameterized.TestCase):
    @parameterized.product(k=[1, 2, 10, 50], extra=[0, 7])
    def test_is_the_published_definition(self, k, extra):
        rng = np.random.default_rng(k)
        # Few inputs, so that most come again; and scores that are noisy, so
        # that it matters which of the same inputs counts.
        keys = [None if x == 0 else str(x) for x in rng.integers(0, 40, 120)]
        scores = rng.normal(size=120)
        scores[[key is None for key in keys]] = -4.0
        np.testing.assert_array_equal(
            curves.top_k(scores, keys, k, 120 + extra),
            _slow(scores, keys, k, 120 + extra),
        )

    def test_top_50_after_50_queries_is_the_worst_of_them(self):
        scores = np.random.default_rng(0).normal(size=80)
        curve = curves.top_k(scores, range(80), 50)
        self.assertEqual(curve[49], scores[:50].min())
        self.assertGreater(curve[79], curve[49])

    def test_first_of_the_same_inputs_counts_but_for_the_best(self):
        scores, keys = np.array([1.0, 3.0, 2.0]), ["a", "a", "b"]
        self.assertEqual(curves.top_k(scores, keys, 1).tolist(), [1, 3, 3])
        self.assertEqual(curves.top_k(scores, keys, 2).tolist(), [1, 1, 1])

    def test_all_invalid_decodes_are_one_input(self):
        scores = np.array([-7.0, -7.0, -7.0, 2.0, 1.0])
        keys = [None, None, None, "a", "b"]
        self.assertEqual(
            curves.top_k(scores, keys, 2).tolist(), [-7, -7, -7, -7, 1]
        )

    def test_run_that_ended_early_keeps_its_last_value(self):
        curve = curves.top_k(np.array([1.0, 2.0]), ["a", "b"], 1, budget=4)
        self.assertEqual(curve.tolist(), [1, 2, 2, 2])

    @parameterized.parameters(
        (dict(scores=[]), "`scores` must be a vector of at least one"),
        (dict(scores=[1.0, np.nan]), "`scores` must .* none of them NaN"),
        (dict(keys="abc"), "`keys` must have the length 2 .* got 3"),
        (dict(k=0), "`k` must be an integer of at least 1, got 0"),
        (dict(budget=1), "`budget` must be at least 2, .* got 1"),
    )
    def test_refuses(self, wrong, message):
        arguments = dict(scores=[1.0, 2.0], keys="ab", k=1) | wrong
        with self.assertRaisesRegex(ValueError, message):
            curves.top_k(**arguments)


class MeanAndSpreadTest(absltest.TestCase):
    def test_spread_is_that_of_the_population(self):
        values = np.array([[1.0, 4.0], [3.0, 4.0]])
        mean, spread = curves.mean_and_spread(values)
        self.assertEqual(mean.tolist(), [2.0, 4.0])
        self.assertEqual(spread.tolist(), [1.0, 0.0])

    def test_refuses_no_run(self):
        with self.assertRaisesRegex(ValueError, "`curves` must have shape"):
            curves.mean_and_spread(np.empty((0, 3)))


if __name__ == "__main__":
    absltest.main()
