# SPDX-License-Identifier: Apache-2.0
"""Lists the gin files that come with the package.

Usage:
  tfvae list
  tfvae list mixins

Prints the path and the first line of each file, or of those whose path
contains all given words. A listed path can be passed to --gin_file from any
folder, as in --gin_file=runs/bars.gin.
"""

from __future__ import annotations

import pathlib
import shutil
import sys
from collections.abc import Sequence

from tfvae import locations
from tfvae.cli import console


def main(words: Sequence[str]) -> int:
    """Prints the files whose path contains all of `words`.

    Returns:
      The exit code, 2 if there is no such file.
    """
    if {"--help", "-h"} & set(words):
        print((__doc__ or "").strip())
        return 0
    folder = locations.gin_folder()
    found = {
        path.relative_to(folder).as_posix(): first_line(path)
        for path in folder.rglob("*.gin")
    }
    shown = {
        name: text
        for name, text in found.items()
        if all(word in name for word in words)
    }
    if not shown:
        return console.print_error(
            f"no gin file has {' and '.join(map(repr, words))} in its path; "
            "`tfvae list` prints all gin files"
        )
    width = max(map(len, shown))
    # Whole lines for other programs.
    columns = sys.maxsize
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size((120, 24)).columns
    for name, text in sorted(shown.items()):
        print(f"{name:{width}}  {text}"[: max(columns, width + 20)])
    return 0


def first_line(path: pathlib.Path) -> str:
    """Returns the first line of a gin file, without the comment sign."""
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("#").strip()
