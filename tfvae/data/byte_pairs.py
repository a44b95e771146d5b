# SPDX-License-Identifier: Apache-2.0
"""Byte-pair merges: frequent pairs of adjacent tokens become tokens.

Reference: Sennrich, Haddow and Birch, 2016, "Neural machine translation of rare
words with subword units", section 3.2. A token is a text, and the merge of two
tokens is their concatenation, so that the tokens of a sequence, joined, are the
joined symbols of the sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

Pair = tuple[str, str]
"""Two adjacent tokens, which a merge replaces by their concatenation."""

# A pair that occurs less often is not worth a token.
_MIN_COUNT = 2


def learn_merges(
    sequences: Iterable[Sequence[str]], num_merges: int
) -> tuple[Pair, ...]:
    """Learns merges from sequences of symbols.

    Each merge is that of the most frequent pair of adjacent tokens whose
    concatenation is no token yet; of equally frequent pairs, that whose tokens
    come first, symbols in alphabetical order and then merges in the order in
    which they were learnt. Occurrences may overlap in the count, and are
    replaced from left to right.

    Args:
      sequences: Sequences of symbols.
      num_merges: Largest number of merges.

    Returns:
      The merges, fewer where no pair is left that occurs twice.
    """
    sequences = [list(one) for one in sequences]
    tokens = sorted({symbol for one in sequences for symbol in one})
    index = {token: i for i, token in enumerate(tokens, 1)}
    # Zeros separate the sequences.
    joined = np.array(
        [i for one in sequences for i in (0, *(index[s] for s in one))],
        np.int64,
    )
    merges: list[Pair] = []
    known = set(tokens)
    while len(merges) < num_merges:
        best = _most_frequent(joined, tokens, known)
        if best is None:
            break
        first, second = best
        pair = (tokens[first - 1], tokens[second - 1])
        merges.append(pair)
        tokens.append("".join(pair))
        known.add(tokens[-1])
        joined = _replaced(joined, first, second, len(tokens))
    return tuple(merges)


def _most_frequent(
    joined: np.ndarray, tokens: Sequence[str], known: set[str]
) -> tuple[int, int] | None:
    """Returns the pair to merge next, numbers from 1, or None."""
    size = len(tokens) + 1
    counts = np.bincount(joined[:-1] * size + joined[1:], minlength=size**2)
    counts[:size] = counts[::size] = 0  # Those with a separator.
    while True:
        first, second = divmod(int(np.argmax(counts)), size)
        if counts[first * size + second] < _MIN_COUNT:
            return None
        if tokens[first - 1] + tokens[second - 1] not in known:
            return first, second
        counts[first * size + second] = 0


def _replaced(
    joined: np.ndarray, first: int, second: int, merged: int
) -> np.ndarray:
    """Replaces a pair of numbers by one, from left to right."""
    places = np.flatnonzero((joined[:-1] == first) & (joined[1:] == second))
    if first == second:
        # Every other one of a run of overlapping occurrences.
        starts = np.diff(places, prepend=-2) != 1
        run = np.maximum.accumulate(np.where(starts, np.arange(len(places)), 0))
        places = places[(np.arange(len(places)) - run) % 2 == 0]
    joined = joined.copy()
    joined[places] = merged
    return np.delete(joined, places + 1)


def merged(sequence: Sequence[str], ranks: dict[Pair, int]) -> tuple[str, ...]:
    """Applies merges to a sequence of symbols, in the order they were learnt.

    Args:
      sequence: Symbols, which need not have been in the data.
      ranks: The place of each merge in the order.

    Returns:
      The tokens. Joined, they are the joined symbols.
    """
    tokens = list(sequence)
    none = len(ranks)
    places = [
        ranks.get(pair, none) for pair in zip(tokens, tokens[1:], strict=False)
    ]
    while (best := min(places, default=none)) < none:
        i = places.index(best)  # From left to right.
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
        del places[i]
        for j in range(max(i - 1, 0), min(i + 1, len(places))):
            places[j] = ranks.get((tokens[j], tokens[j + 1]), none)
    return tuple(tokens)
