# SPDX-License-Identifier: Apache-2.0
"""Tests of byte-pair merges against a slow transcription of the algorithm."""

from __future__ import annotations

import collections

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae.data import byte_pairs


def _replace(sequence, pair):
    found = []
    for symbol in sequence:
        found.append(symbol)
        if len(found) > 1 and tuple(found[-2:]) == pair:
            found[-2:] = ["".join(pair)]
    return found


def reference(sequences, num_merges):
    """Learns merges by counting texts anew each time."""
    sequences = [list(one) for one in sequences]
    tokens = sorted({symbol for one in sequences for symbol in one})
    merges = []
    for _ in range(num_merges):
        counts = collections.Counter(
            pair
            for one in sequences
            for pair in zip(one, one[1:], strict=False)
        )
        able = [
            (-count, tokens.index(pair[0]), tokens.index(pair[1]), pair)
            for pair, count in counts.items()
            if count > 1 and "".join(pair) not in tokens
        ]
        if not able:
            break
        pair = min(able)[-1]
        merges.append(pair)
        tokens.append("".join(pair))
        sequences = [_replace(one, pair) for one in sequences]
    return tuple(merges), sequences


def _drawn(seed, count, symbols, longest=12):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(len(symbols)))
    return [
        tuple(rng.choice(symbols, rng.integers(longest + 1), p=probs))
        for _ in range(count)
    ]


def _ranks(merges):
    return {pair: i for i, pair in enumerate(merges)}


class LearnMergesTest(tf.test.TestCase, parameterized.TestCase):
    def test_most_frequent_pair_comes_first_and_may_grow(self):
        merges = byte_pairs.learn_merges(["abc", "abc", "abd"], 9)
        self.assertEqual(merges, (("a", "b"), ("ab", "c")))

    def test_first_of_equally_frequent_pairs_is_merged(self):
        merges = byte_pairs.learn_merges(["bc", "ad", "bc", "ad"], 1)
        self.assertEqual(merges, (("a", "d"),))

    def test_no_pair_reaches_over_the_end_of_a_sequence(self):
        self.assertEqual(byte_pairs.learn_merges(["a", "b"] * 3, 5), ())

    @parameterized.product(seed=[*range(6)], symbols=["ab", "abcd"])
    def test_equals_the_transcription(self, seed, symbols):
        sequences = _drawn(seed, 30, list(symbols))
        merges, segmented = reference(sequences, 12)
        self.assertEqual(byte_pairs.learn_merges(sequences, 12), merges)
        self.assertEqual(
            [byte_pairs.merged(one, _ranks(merges)) for one in sequences],
            [tuple(one) for one in segmented],
        )

    def test_every_merge_makes_another_token(self):
        merges = byte_pairs.learn_merges(_drawn(1, 80, list("abc")), 40)
        self.assertLen({"".join(pair) for pair in merges}, len(merges))


class MergedTest(parameterized.TestCase):
    @parameterized.parameters(*range(5))
    def test_unseen_sequence_keeps_its_symbols(self, seed):
        ranks = _ranks(byte_pairs.learn_merges(_drawn(0, 60, list("abc")), 30))
        for sequence in _drawn(seed + 1, 20, list("abcxy"), 30):
            tokens = byte_pairs.merged(sequence, ranks)
            self.assertEqual("".join(tokens), "".join(sequence))
            self.assertLessEqual(len(tokens), len(sequence))

    def test_no_merge_that_applies_is_left(self):
        ranks = _ranks(byte_pairs.learn_merges(_drawn(0, 60, list("ab")), 9))
        for sequence in _drawn(7, 20, list("ab")):
            tokens = byte_pairs.merged(sequence, ranks)
            self.assertEmpty(
                set(zip(tokens, tokens[1:], strict=False)) & ranks.keys()
            )

    def test_runs_are_merged_from_the_left(self):
        ranks = {("a", "a"): 0}
        self.assertEqual(byte_pairs.merged("aaa", ranks), ("aa", "a"))


if __name__ == "__main__":
    tf.test.main()
