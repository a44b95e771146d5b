# SPDX-License-Identifier: Apache-2.0
"""Paths of the files that come with the package, installed or in a clone."""

from __future__ import annotations

import pathlib
import sys

_PACKAGE = pathlib.Path(__file__).parent


def gin_folder() -> pathlib.Path:
    """Returns the folder of the gin files: package data, or of the clone."""
    installed = _PACKAGE / "gin"
    return installed if installed.is_dir() else _PACKAGE.parent / "gin"


def clone() -> pathlib.Path | None:
    """Returns the root of the clone that the package is part of, or None."""
    root = _PACKAGE.parent
    return root if (root / "papers").is_dir() else None


def make_clone_importable() -> None:
    """Lets `papers` and `benchmarks`, which are never installed, be imported.

    Does nothing outside of a clone.
    """
    root = clone()
    if root is not None and str(root) not in sys.path:
        sys.path.append(str(root))


def needs_clone(what: str) -> str:
    """Returns the error message for what an installed package lacks."""
    return (
        f"{what} is not part of the installed package; it needs a clone of the "
        "repository, with `pip install -e .` in it"
    )
