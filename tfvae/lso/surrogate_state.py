# SPDX-License-Identifier: Apache-2.0
"""Durable storage of what a surrogate knows before and after a proposal.

It is written before the proposal is recorded in the ledger. So a resumed run
continues from the state after the last recorded proposal, whenever the run was
killed.
"""

from __future__ import annotations

import logging
import pathlib
import zipfile
from typing import NamedTuple

import numpy as np

from tfvae import files

STATE = "surrogate.npz"
"""Name of the file in the folder of a run."""

_logger = logging.getLogger(__name__)


class State(NamedTuple):
    """What proposals of a round depend on, beside the ledger."""

    surrogate: dict[str, np.ndarray]
    """State of the surrogate; empty before its first fit in the round."""
    latents: np.ndarray
    """float32 `[f, M]`, latents that decoded to inputs with a known result."""
    inputs: list[str]
    """The keys of these inputs, see `Collection.key`."""


class Change(NamedTuple):
    """The states before and after a proposal."""

    round: int
    first: int
    """Number of the first query of the proposal."""
    before: State
    after: State


def save(path: pathlib.Path, change: Change) -> None:
    """Writes the file atomically and flushes it to the disk."""
    arrays = {"round": np.array(change.round), "first": np.array(change.first)}
    for name in ("before", "after"):
        state: State = getattr(change, name)
        arrays[f"{name}.latents"] = state.latents
        arrays[f"{name}.inputs"] = np.array(state.inputs, np.str_)
        for key, value in state.surrogate.items():
            arrays[f"{name}.surrogate.{key}"] = value
    with files.replacing(path, "wb", is_synced=True) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    # The directory entry, too: it must be durable before the ledger.
    files.sync_folder(path.parent)


def load(path: pathlib.Path) -> Change | None:
    """Loads what `save` wrote; None if there is no file, or it is damaged."""
    if not path.exists():
        return None
    try:
        # `np.load` would leave a damaged file open.
        with path.open("rb") as opened, np.load(opened) as file:
            arrays = dict(file)
        return Change(
            int(arrays["round"]),
            int(arrays["first"]),
            _state(arrays, "before"),
            _state(arrays, "after"),
        )
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        _logger.warning(
            "%s is damaged; the surrogate is fitted anew, so that later "
            "queries are not those of an unbroken run",
            path,
        )
        return None


def _state(arrays: dict[str, np.ndarray], name: str) -> State:
    start = f"{name}.surrogate."
    return State(
        {
            key.removeprefix(start): value
            for key, value in arrays.items()
            if key.startswith(start)
        },
        arrays[f"{name}.latents"],
        arrays[f"{name}.inputs"].tolist(),
    )
