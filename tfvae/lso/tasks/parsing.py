# SPDX-License-Identifier: Apache-2.0
"""From texts to their derivations, for any context-free grammar."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

Production = tuple[str, tuple[str, ...]]
"""Left side and right side."""

Derivation = tuple[int, ...]
"""Numbers of productions, each of which expands what stands leftmost."""

_Item = tuple[int, int, int]
"""Production, how much of its right side is found, and where it began."""


@dataclasses.dataclass(frozen=True)
class Token:
    """A terminal and where it begins in a text."""

    symbol: str
    place: int


def tokenize(text: str, terminals: Sequence[str]) -> list[Token]:
    """Returns the terminals of a text.

    Args:
      text: The text; blanks between terminals do not count.
      terminals: All there are; the first that fits is taken.

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
    """Returns symbols as a part of a sentence."""
    return " or ".join(repr(one) for one in symbols) or "nothing"


class Parser:
    """Earley's algorithm, which takes productions of any form but empty ones.

    Reference: Earley, 1970, "An efficient context-free parsing algorithm".
    """

    def __init__(self, productions: Sequence[Production]):
        """Creates the parser.

        Args:
          productions: No right side is empty.
        """
        self._productions = tuple(productions)
        self._lefts = {left for left, _ in productions}

    def parse(
        self, tokens: Sequence[Token], symbol: str, text: str
    ) -> Derivation:
        """Returns how tokens are derived; see `Grammar.parse`.

        Args:
          tokens: What was derived.
          symbol: From what.
          text: What to quote in errors.

        Raises:
          ValueError: If there is no derivation.
        """
        # For each place, the items there and the productions they have used.
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
                f"`text` must go on with {self._expected(chart[-1])}, got its "
                f"end in {text!r}"
            )
        return completed[symbol, 0]

    def _next(self, item: _Item) -> str | None:
        """Returns the next symbol of an item, None at its end."""
        number, num_found, _ = item
        right = self._productions[number][1]
        return right[num_found] if num_found < len(right) else None

    def _expected(self, items: dict[_Item, Derivation]) -> str:
        """Returns the terminals that may come next, as a part of a sentence."""
        found = {self._next(item) for item in items} - {None} - self._lefts
        return one_of(sorted(str(one) for one in found))

    def _predict(
        self, items: dict[_Item, Derivation], symbol: str, place: int
    ) -> None:
        """Adds the productions of a symbol that is expected at a place."""
        for number, (left, _) in enumerate(self._productions):
            if left == symbol:
                items.setdefault((number, 0, place), (number,))

    def _scan(
        self, items: dict[_Item, Derivation], token: Token
    ) -> dict[_Item, Derivation]:
        """Returns the items that go on with a token."""
        return {
            (item[0], item[1] + 1, item[2]): derivation
            for item, derivation in items.items()
            if self._next(item) == token.symbol
        }

    def _expand(
        self, chart: list[dict[_Item, Derivation]]
    ) -> dict[tuple[str, int], Derivation]:
        """Adds to the last items of a chart all that follow from them.

        Args:
          chart: Items of all places so far.

        Returns:
          What ends at the last place: symbol and where it began, to how it was
          derived.
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
