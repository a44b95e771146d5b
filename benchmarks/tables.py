# SPDX-License-Identifier: Apache-2.0
"""Console tables of the benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

import tabulate


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table, the first column left-aligned, the others right-aligned.

    Args:
      head: Names of the columns.
      rows: Rows with one cell for each column.
    """
    print(
        tabulate.tabulate(
            rows,
            head,
            tablefmt="plain",
            colalign=["left", *["right"] * (len(head) - 1)],
            disable_numparse=True,
            preserve_whitespace=True,
        )
    )


def cell(value: float | None, form: str) -> str:
    """Returns a formatted number for a table, "-" for None."""
    return "-" if value is None else format(value, form)
