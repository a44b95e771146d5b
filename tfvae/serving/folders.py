# SPDX-License-Identifier: Apache-2.0
"""Folders of SavedModels, replaced as a whole or not at all."""

from __future__ import annotations

import os
import pathlib
import shutil

# What TensorFlow, and `export_saved_model`, write into a SavedModel's folder.
_SAVED_MODEL_ENTRIES = {
    "assets",
    "assets.extra",
    "fingerprint.pb",
    "saved_model.pb",
    "variables",
}


def check_replaceable(path: pathlib.Path) -> None:
    """Raises a FileExistsError where something would be lost."""
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(
            "`path` must be a new folder or a SavedModel to replace, got the "
            f"file {path}"
        )
    entries = {entry.name for entry in path.iterdir()}
    others = sorted(entries - _SAVED_MODEL_ENTRIES)
    if others or (entries and "saved_model.pb" not in entries):
        raise FileExistsError(
            "`path` must be a new folder or a SavedModel to replace, got "
            f"{path} with {', '.join((others or sorted(entries))[:3])} in it"
        )


def flush(path: pathlib.Path) -> None:
    """Brings a folder's files to the disk, lest a rename overtakes them."""
    for file in [*path.rglob("*"), path]:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace(path: pathlib.Path, new: pathlib.Path) -> None:
    """Renames `new` to `path`; what was there goes away last."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    try:
        new.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
