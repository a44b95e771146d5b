# SPDX-License-Identifier: Apache-2.0
"""Atomic replacement of SavedModel folders."""

from __future__ import annotations

import os
import pathlib
import shutil

# Entries that TensorFlow and `export_saved_model` write into a SavedModel.
_SAVED_MODEL_ENTRIES = {
    "assets",
    "assets.extra",
    "fingerprint.pb",
    "saved_model.pb",
    "variables",
}


def check_replaceable(path: pathlib.Path) -> None:
    """Raises a FileExistsError if `path` is anything but a SavedModel."""
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
    """Flushes a folder's files to the disk, so that a rename comes after."""
    for file in [*path.rglob("*"), path]:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace(path: pathlib.Path, new: pathlib.Path) -> None:
    """Renames `new` to `path`, and then deletes the folder it replaces."""
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
