# SPDX-License-Identifier: Apache-2.0
"""Tables on the console."""

from __future__ import annotations

from collections.abc import Sequence


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table, the first column to the left, the others to the right.

    Args:
      head: Names of the columns.
      rows: As many cells each.
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in [head, *rows]:
        rest = (
            cell.rjust(width)
            for cell, width in zip(row[1:], widths[1:], strict=True)
        )
        print("  ".join([row[0].ljust(widths[0]), *rest]))


def cell(value: float | None, form: str) -> str:
    """Returns a number as a cell of a table, "-" for None."""
    return "-" if value is None else format(value, form)
