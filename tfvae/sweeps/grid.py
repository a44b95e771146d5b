# SPDX-License-Identifier: Apache-2.0
"""Grid of a study: factors, cells, and the layout of its tables."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tfvae.arguments import check_counts

Factors = Mapping[str, Mapping[str, Sequence[str]]]
"""Factor -> level -> gin files, and bindings like `fit.epochs = 3`."""

# No hyphen, which separates the levels in the name of a cell.
_LEVEL = re.compile(r"[A-Za-z0-9_.+]+")


class Cell(NamedTuple):
    """One run of a study."""

    levels: dict[str, str]
    """The level of each factor."""
    repetition: int
    """Counted from 0; repetitions of the same levels differ in their seed."""
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder, such as `conv-large-0`."""
        return "-".join([*self.levels.values(), str(self.repetition)])


class Layout(NamedTuple):
    """How the levels of a study become rows, columns and tables."""

    factors: dict[str, list[str]]
    """The levels of each factor."""
    columns: str
    """The factor whose levels are the columns of a table."""
    separate: list[str]
    """The factors that have separate tables for each level."""

    @classmethod
    def of(
        cls, factors: Factors, columns: str | None, separate: Sequence[str]
    ) -> Layout:
        """Returns the layout of validated settings; see `study.study`.

        Raises:
          ValueError: If one of them is not a factor, or none is left for the
            columns.
        """
        names = list(factors)
        for name in [*separate, *([columns] if columns is not None else [])]:
            if name not in names:
                raise ValueError(
                    "`study.columns` and `study.separate` must be among "
                    f"{', '.join(names)}, got {name!r}."
                )
        rest = [name for name in names if name not in separate]
        if not rest or (columns is not None and columns not in rest):
            raise ValueError(
                "`study.separate` must leave a factor for the columns, got "
                f"{list(separate)!r}."
            )
        return cls(
            {name: list(levels) for name, levels in factors.items()},
            rest[-1] if columns is None else columns,
            list(separate),
        )

    @property
    def rows(self) -> list[str]:
        """The factors whose levels are the rows of a table."""
        return [
            name
            for name in self.factors
            if name != self.columns and name not in self.separate
        ]

    @property
    def within(self) -> list[str]:
        """The factors that vary in a table."""
        return [name for name in self.factors if name not in self.separate]


def cells(
    factors: Factors,
    repetitions: int,
    *,
    seed: int = 0,
    exclude: Sequence[Mapping[str, str]] = (),
    once: Sequence[Mapping[str, str]] = (),
) -> list[Cell]:
    """Returns the cells of a study, ordered by repetition.

    Args:
      factors: The factors that are varied.
      repetitions: Number of runs of each combination of levels.
      seed: Seed of the first repetition, increased by one in each further one.
      exclude: Combinations to leave out, such as `{"layer": "fc"}`; a
        combination is left out if it has all levels of one of these.
      once: Combinations that are run in the first repetition only.

    Raises:
      TypeError: If `factors` is not a mapping of mappings of lists of text.
      ValueError: If there are no cells, or a name is not allowed.
    """
    _check(factors, repetitions, seed, [*exclude, *once])
    combinations = [
        dict(zip(factors, levels, strict=True))
        for levels in itertools.product(*factors.values())
    ]
    kept = [one for one in combinations if not _agrees(one, exclude)]
    if not kept:
        raise ValueError(
            "`study.exclude` must leave at least one combination, got "
            f"{list(exclude)!r}."
        )
    return [
        Cell(levels, repetition, seed + repetition)
        for repetition in range(repetitions)
        for levels in kept
        if not (repetition and _agrees(levels, once))
    ]


def _agrees(
    levels: Mapping[str, str], rules: Sequence[Mapping[str, str]]
) -> bool:
    """Returns whether `levels` contain all levels of any rule."""
    return any(rule.items() <= levels.items() for rule in rules)


def files_and_bindings(
    factors: Factors, levels: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Returns the gin files and the bindings of a combination of levels."""
    parts = [part for name in factors for part in factors[name][levels[name]]]
    return (
        [part for part in parts if "=" not in part],
        [part for part in parts if "=" in part],
    )


def _check(
    factors: Factors,
    repetitions: int,
    seed: int,
    exclude: Sequence[Mapping[str, str]],
) -> None:
    if not isinstance(factors, Mapping) or not factors:
        raise TypeError(
            "`study.factors` must be a dictionary of factors, such as "
            "{'size': {'small': ['model.width = 8'], ...}}, got "
            f"{factors!r}."
        )
    for name, levels in factors.items():
        _check_factor(name, levels)
    check_counts(**{"study.repetitions": repetitions})
    check_counts(minimum=0, **{"study.seed": seed})
    for rule in exclude:
        for name, level in rule.items():
            if level not in factors.get(name, ()):
                raise ValueError(
                    "`study.exclude` and `study.once` must name factors and "
                    f"levels of the study, got {name!r}: {level!r}."
                )


def _check_factor(name: str, levels: Mapping[str, Sequence[str]]) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(
            f"`study.factors` must have names like `encoder`, got {name!r}."
        )
    if not isinstance(levels, Mapping) or not levels:
        raise TypeError(
            f"`study.factors` must have a dictionary of levels for {name!r}, "
            f"got {levels!r}."
        )
    for level, parts in levels.items():
        if not isinstance(level, str) or not _LEVEL.fullmatch(level):
            raise ValueError(
                f"`study.factors` must have levels of {name!r} of letters, "
                f"digits and _.+ only, got {level!r}."
            )
        if isinstance(parts, str) or not all(
            isinstance(part, str) for part in parts
        ):
            raise TypeError(
                f"`study.factors` must have a list of gin files and bindings "
                f"for {name!r}: {level!r}, got {parts!r}."
            )
