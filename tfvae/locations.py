# SPDX-License-Identifier: Apache-2.0
"""Locations of the gin files, `papers` and `benchmarks`."""

from __future__ import annotations

import pathlib
import sys

_PACKAGE = pathlib.Path(__file__).parent


def gin_folder() -> pathlib.Path:
    """Returns the folder of the gin files, of the package or of the clone."""
    installed = _PACKAGE / "gin"
    return installed if installed.is_dir() else _PACKAGE.parent / "gin"


def clone() -> pathlib.Path | None:
    """Returns the root of the clone that the package is part of, or None."""
    root = _PACKAGE.parent
    return root if (root / "papers").is_dir() else None


def make_clone_importable() -> None:
    """Makes `papers` and `benchmarks`, which are never installed, importable.

    Does nothing outside of a clone.
    """
    root = clone()
    if root is not None and str(root) not in sys.path:
        sys.path.append(str(root))


def needs_clone(what: str) -> str:
    """Returns the error message for a part that is in clones only.

    Args:
      what: The part, as the subject of the sentence.
    """
    return (
        f"{what} is not part of the installed package; it needs a clone of the "
        "repository, with `pip install -e .` in it"
    )
