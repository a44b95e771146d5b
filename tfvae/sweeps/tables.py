# SPDX-License-Identifier: Apache-2.0
"""Tables of text as Markdown and CSV."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas as pd
import tabulate  # noqa: F401 (pandas writes Markdown with it)

from tfvae import files


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> pd.DataFrame:
    """Returns a table of text; column names may repeat."""
    return pd.DataFrame([*rows], columns=[*columns], dtype=object)


def markdown(frame: pd.DataFrame) -> str:
    """Returns a table of text as Markdown."""
    escaped = frame.map(_escaped)
    escaped.columns = [_escaped(name) for name in frame.columns]
    # `disable_numparse` keeps text that looks like a number as it is.
    return escaped.to_markdown(index=False, disable_numparse=True) + "\n"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def write_csv(path: pathlib.Path, frame: pd.DataFrame) -> None:
    """Writes a table as a CSV file, atomically."""
    with files.replacing(path, newline="") as file:
        frame.to_csv(file, index=False, lineterminator="\r\n")
