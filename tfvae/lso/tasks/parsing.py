# SPDX-License-Identifier: Apache-2.0
"""Earley parser: leftmost derivations for any context-free grammar."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

Production = tuple[str, tuple[str, ...]]
"""Left side and right side."""

Derivation = tuple[int, ...]
"""Indices of productions, each of which expands the leftmost nonterminal."""

_Item = tuple[int, int, int]
"""Earley item: production, position in its right side, and where it began."""


@dataclasses.dataclass(frozen=True)
class Token:
    """A terminal and its position in a text."""

    symbol: str
    place: int


def tokenize(text: str, terminals: Sequence[str]) -> list[Token]:
    """Splits a text into terminals.

    Args:
      text: The text; blanks between terminals are ignored.
      terminals: All terminals; the first that fits is taken.

    Raises:
      ValueError: If none fits.
    """
    found = []
    place = 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        symbol = next((t for t in terminals if text.startswith(t, place)), None)
        if symbol is None:
            raise ValueError(
                f"`text` must consist of {one_of(terminals)}, got "
                f"{text[place]!r} at {place} of {text!r}"
            )
        found.append(Token(symbol, place))
        place += len(symbol)
    return found


def one_of(symbols: Sequence[str]) -> str:
    """Joins symbols by "or", for error messages."""
    return " or ".join(repr(one) for one in symbols) or "nothing"


class Parser:
    """Earley's algorithm for grammars without empty productions.

    Reference: Earley, 1970, "An efficient context-free parsing algorithm".
    """

    def __init__(self, productions: Sequence[Production]):
        """Creates the parser.

        Args:
          productions: The productions; no right side may be empty.
        """
        self._productions = tuple(productions)
        self._lefts = {left for left, _ in productions}

    def parse(
        self, tokens: Sequence[Token], symbol: str, text: str
    ) -> Derivation:
        """Returns a leftmost derivation of tokens; see `Grammar.parse`.

        Args:
          tokens: The tokens to parse.
          symbol: Nonterminal to derive them from.
          text: The text to quote in error messages.

        Raises:
          ValueError: If there is no derivation.
        """
        # For each position, its items and the productions they have used.
        chart: list[dict[_Item, Derivation]] = [{}]
        self._predict(chart[0], symbol, 0)
        completed = self._expand(chart)
        for token in tokens:
            chart.append(self._scan(chart[-1], token))
            if not chart[-1]:
                raise ValueError(
                    f"`text` must have {self._expected(chart[-2])} at "
                    f"{token.place}, got {token.symbol!r} in {text!r}"
                )
            completed = self._expand(chart)
        if (symbol, 0) not in completed:
            raise ValueError(
                f"`text` must continue with {self._expected(chart[-1])}, got "
                f"the end of {text!r}"
            )
        return completed[symbol, 0]

    def _next(self, item: _Item) -> str | None:
        """Returns the next symbol of an item, None at its end."""
        number, num_found, _ = item
        right = self._productions[number][1]
        return right[num_found] if num_found < len(right) else None

    def _expected(self, items: dict[_Item, Derivation]) -> str:
        """Returns the terminals that may come next, for error messages."""
        found = {self._next(item) for item in items} - {None} - self._lefts
        return one_of(sorted(str(one) for one in found))

    def _predict(
        self, items: dict[_Item, Derivation], symbol: str, place: int
    ) -> None:
        """Adds the productions of a symbol expected at a position."""
        for number, (left, _) in enumerate(self._productions):
            if left == symbol:
                items.setdefault((number, 0, place), (number,))

    def _scan(
        self, items: dict[_Item, Derivation], token: Token
    ) -> dict[_Item, Derivation]:
        """Returns the items that are advanced by a token."""
        return {
            (item[0], item[1] + 1, item[2]): derivation
            for item, derivation in items.items()
            if self._next(item) == token.symbol
        }

    def _expand(
        self, chart: list[dict[_Item, Derivation]]
    ) -> dict[tuple[str, int], Derivation]:
        """Completes the last item set of a chart by prediction and completion.

        Args:
          chart: Item sets of all positions so far.

        Returns:
          The derivations of all symbols that end at the last position, by
          symbol and position where it began.
        """
        items = chart[-1]
        completed: dict[tuple[str, int], Derivation] = {}
        queue = list(items)
        for item in queue:
            symbol = self._next(item)
            num_before = len(items)
            if symbol in self._lefts:
                self._predict(items, str(symbol), len(chart) - 1)
            elif symbol is None:
                left, place = self._productions[item[0]][0], item[2]
                if (left, place) in completed:
                    continue
                completed[left, place] = items[item]
                for other, derivation in list(chart[place].items()):
                    if self._next(other) == left:
                        number, num_found, origin = other
                        items.setdefault(
                            (number, num_found + 1, origin),
                            derivation + items[item],
                        )
            queue += list(items)[num_before:]
        return completed
