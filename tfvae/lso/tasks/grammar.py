# SPDX-License-Identifier: Apache-2.0
"""Context-free grammars: one-hot encoding and decoding of derivations.

A text is represented by its leftmost derivation, a sequence of productions.
Sequences of at most T productions out of K, padded with a padding production,
are the one-hot rows `[T K]` that a grammar VAE is trained on.

Reference: Kusner, Paige and Hernandez-Lobato, 2017, "Grammar variational
autoencoder", section 3.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from tfvae.arguments import check_counts
from tfvae.lso.tasks import parsing
from tfvae.lso.tasks.parsing import Derivation, Production

# Keeps sampling possible where all admissible probabilities are zero.
_TINY = 1e-100


class Grammar:
    """A context-free grammar for texts of at most T productions.

        grammar = Grammar(
            [("S", ("S", "+", "T")), ("S", ("T",)), ("T", ("x",))], num_steps=9
        )
        rows = grammar.encode(["x+x"])
        texts = grammar.read(probabilities, seed=0)

    Symbols on the left of a production are nonterminals, all others are
    terminals; the first left side is the start symbol. The padding production
    comes last.

    Attributes:
      productions: `(left, right)` of each, without the padding.
      num_steps: T.
      num_symbols: K, the number of productions including the padding.
      groups: `[K]`, index of the left side of each production; the leftmost
        nonterminal determines the group of the next production.
    """

    def __init__(
        self,
        productions: Sequence[tuple[str, Sequence[str]]],
        num_steps: int,
    ):
        """Creates the grammar.

        Args:
          productions: Left side and right side of each.
          num_steps: T.

        Raises:
          ValueError: If there is no production, a right side is empty or has
            an empty symbol, two are equal, or unit productions form a cycle.
        """
        self.productions = tuple(
            (left, tuple(right)) for left, right in productions
        )
        check_counts(num_steps=num_steps)
        _check_productions(self.productions)
        self.num_steps = num_steps
        self.num_symbols = len(self.productions) + 1
        self._lefts = list(dict.fromkeys(left for left, _ in self.productions))
        self.groups = [
            *(self._lefts.index(left) for left, _ in self.productions),
            len(self._lefts),
        ]
        # Longest first, so that `sin(` is not read as `s`.
        symbols = {one for _, right in self.productions for one in right}
        self._terminals = sorted(
            symbols - set(self._lefts), key=lambda one: (-len(one), one)
        )
        self._parser = parsing.Parser(self.productions)

    @functools.cached_property
    def masks(self) -> np.ndarray:
        """Masks of each left side's productions, bool `[left sides, K]`."""
        return np.arange(self.groups[-1] + 1)[:, None] == np.array(self.groups)

    # Texts to productions.

    def parse(self, text: str, symbol: str | None = None) -> Derivation:
        """Parses a text; returns the productions of a leftmost derivation.

        The tokenizer takes the longest terminal that fits and ignores blanks.
        Productions may be left-recursive. For an ambiguous text, one of its
        derivations is returned.

        Args:
          text: The text to parse.
          symbol: Nonterminal to derive it from; None for the start symbol.

        Raises:
          ValueError: If the grammar does not derive it; the number of
            productions is not limited here.
        """
        tokens = parsing.tokenize(text, self._terminals)
        return self._parser.parse(tokens, symbol or self._lefts[0], text)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encodes texts as one-hot rows, float32 `[n, T K]`.

        Raises:
          ValueError: If the grammar does not derive one of them in T
            productions.
        """
        return self.one_hot([self.parse(text) for text in texts])

    def one_hot(self, derivations: Sequence[Sequence[int]]) -> np.ndarray:
        """Pads derivations and one-hot encodes them, float32 `[n, T K]`.

        Raises:
          ValueError: If one is longer than T.
        """
        padding = self.num_symbols - 1
        index = np.full((len(derivations), self.num_steps), padding)
        for row, derivation in zip(index, derivations, strict=True):
            if len(derivation) > self.num_steps:
                raise ValueError(
                    f"a text must take at most {self.num_steps} productions, "
                    f"got {len(derivation)} for {self.text(derivation)!r}"
                )
            row[: len(derivation)] = derivation
        rows = np.eye(self.num_symbols, dtype=np.float32)[index]
        return rows.reshape(len(rows), self.num_steps * self.num_symbols)

    # Productions to texts.

    def text(self, derivation: Sequence[int]) -> str:
        """Returns the text of a derivation; padding at its end is ignored.

        Raises:
          ValueError: If a production does not expand the leftmost nonterminal,
            or nonterminals are left.
        """
        padding = self.num_symbols - 1
        stack = [self._lefts[0]]
        found = []
        for number in derivation:
            if number == padding and not stack:
                break
            left, right = (
                ("padding", ())
                if number == padding
                else self.productions[number]
            )
            if not stack or stack[-1] != left:
                raise ValueError(
                    f"`derivation` must expand {stack[-1] if stack else None}, "
                    f"got production {number}, of {left}, in "
                    f"{list(derivation)!r}"
                )
            stack.pop()
            stack += reversed(right)
            while stack and stack[-1] not in self._lefts:
                found.append(stack.pop())
        if stack:
            raise ValueError(
                f"`derivation` must leave no nonterminal, got {stack[-1]} "
                f"left by {list(derivation)!r}"
            )
        return "".join(found)

    def decode(self, rows: np.ndarray) -> list[str]:
        """Decodes one-hot rows `[n, T K]` to texts."""
        steps = np.reshape(rows, (-1, self.num_steps, self.num_symbols))
        return [self.text(row) for row in steps.argmax(-1)]

    @functools.cached_property
    def _pushed(self) -> tuple[np.ndarray, np.ndarray]:
        """Nonterminals each production pushes on the stack, and their number.

        The former is `[K, R]`, last nonterminal first.
        """
        pushed = [
            [
                self._lefts.index(one)
                for one in right[::-1]
                if one in self._lefts
            ]
            for _, right in self.productions
        ] + [[]]
        counts = np.array([len(one) for one in pushed])
        table = np.zeros((len(pushed), max(counts.max(), 1)), np.int64)
        for row, one in zip(table, pushed, strict=True):
            row[: len(one)] = one
        return table, counts

    def sample(
        self, probabilities: np.ndarray, uniforms: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Samples derivations, in each step among the admissible productions.

        Args:
          probabilities: `[n, T, K]`, not negative; those of admissible
            productions are renormalised.
          uniforms: `[n, T]`, draws on [0, 1).

        Returns:
          Productions, int64 `[n, T]`, and whether the derivation is complete,
          bool `[n]`.
        """
        num_rows = len(probabilities)
        rows = np.arange(num_rows)
        table, counts = self._pushed
        depth = 2 + self.num_steps * table.shape[1]
        # The bottom symbol of the stack, which padding expands, stays there.
        stack = np.full((num_rows, depth), len(self._lefts))
        stack[:, 1] = 0
        size = np.full(num_rows, 2)
        found = np.empty((num_rows, self.num_steps), np.int64)
        for t in range(self.num_steps):
            allowed = self.masks[stack[rows, size - 1]]
            weights = (np.float64(probabilities[:, t]) + _TINY) * allowed
            cumulative = np.cumsum(weights, -1)
            draws = uniforms[:, t, None] * cumulative[:, -1:]
            # Rounding may put a draw on the total itself.
            last = self.num_symbols - 1 - allowed[:, ::-1].argmax(-1)
            chosen = np.minimum((cumulative <= draws).sum(-1), last)
            found[:, t] = chosen
            size = np.maximum(size - 1, 1)
            for r in range(table.shape[1]):
                more = rows[r < counts[chosen]]
                stack[more, size[more]] = table[chosen[more], r]
                size[more] += 1
        return found, size == 1

    def read(
        self, probabilities: np.ndarray, seed: int, num_attempts: int = 1
    ) -> list[str | None]:
        """Samples texts, and returns the most frequent one of each row.

        Ties are resolved in favour of the one drawn first.

        Args:
          probabilities: `[n, T K]` or `[n, T, K]`.
          seed: Seed of the draws; those of a row do not depend on later rows.
          num_attempts: Draws for each row.

        Returns:
          n texts, None where no draw was complete within T productions.
        """
        shape = (-1, self.num_steps, self.num_symbols)
        probabilities = np.reshape(probabilities, shape)
        rng = np.random.default_rng(seed)
        uniforms = rng.random(
            (len(probabilities) * num_attempts, self.num_steps)
        )
        repeated = np.repeat(probabilities, num_attempts, axis=0)
        found, is_whole = self.sample(repeated, uniforms)
        distinct, index = np.unique(found, axis=0, return_inverse=True)
        votes = np.where(is_whole, index.reshape(-1), -1)
        texts: dict[int, str | None] = {-1: None}
        for number in np.unique(votes[votes >= 0]):
            texts[number] = self.text(distinct[number])
        return [
            texts[_most_common(of_row)]
            for of_row in votes.reshape(-1, num_attempts)
        ]


def _most_common(votes: np.ndarray) -> int:
    """Returns the most common vote other than -1, the first one of ties."""
    counts = collections.Counter(vote for vote in votes.tolist() if vote >= 0)
    return counts.most_common(1)[0][0] if counts else -1


def _check_productions(
    productions: Sequence[Production],
) -> None:
    """Raises a ValueError for invalid productions; see `Grammar`."""
    if not productions or len(set(productions)) < len(productions):
        raise ValueError(
            "`productions` must be distinct, at least one, got "
            f"{list(productions)!r}"
        )
    for left, right in productions:
        if not left or not right or not all(right):
            raise ValueError(
                "`productions` must have symbols on both sides, none of them "
                f"empty, got {left!r} to {right!r}"
            )
    alone: dict[str, set[str]] = {}
    for left, right in productions:
        if len(right) == 1:
            alone.setdefault(left, set()).add(right[0])
    for left in alone:
        if left in _reached(alone, left):
            raise ValueError(
                "`productions` must have no cycle of unit productions, got "
                f"one of {left!r}"
            )


def _reached(edges: dict[str, set[str]], start: str) -> Iterator[str]:
    """Yields the nodes that can be reached from a node of a graph."""
    seen: set[str] = set()
    queue = [start]
    while queue:
        for one in edges.get(queue.pop(), set()) - seen:
            seen.add(one)
            queue.append(one)
            yield one
