# SPDX-License-Identifier: Apache-2.0
"""Durable storage of proposed queries that have no score yet.

They are written to the disk, with the state of the surrogate that proposed
them, before the first of them is evaluated: a resumed run evaluates the same
queries and continues with the same surrogate.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from tfvae import files

_STATE = "surrogate."


class Query(NamedTuple):
    """An input to evaluate."""

    number: int
    """Index in the whole run, from 0."""
    round: int
    latent: np.ndarray
    """The latents, `[M]`."""
    input: Any
    """The input in JSON form; None for an invalid decode."""
    seed: int
    failure: str | None = None
    """Why there is no input, in one line."""


class Pending(NamedTuple):
    """The last proposed queries, and the state of the surrogate."""

    queries: list[Query]
    surrogate: dict[str, np.ndarray]
    """The state of the surrogate; empty without one."""


def save(path: pathlib.Path, pending: Pending) -> None:
    """Writes the file atomically and flushes it to the disk."""
    queries = pending.queries
    content = [
        {name: value for name, value in q._asdict().items() if name != "latent"}
        for q in queries
    ]
    arrays: dict[str, Any] = {
        "queries": np.frombuffer(json.dumps(content).encode(), np.uint8),
        "latents": np.stack([query.latent for query in queries]),
        **{_STATE + name: value for name, value in pending.surrogate.items()},
    }
    with files.replacing(path, "wb", is_synced=True) as file:
        np.savez(file, **arrays)
    # The directory entry, too: it must be durable before the ledger.
    files.sync_folder(path.parent)


def load(path: pathlib.Path) -> Pending | None:
    """Loads what `save` wrote; None if there is no file."""
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        content = json.loads(file["queries"].tobytes())
        latents = file["latents"]
        state = {
            name.removeprefix(_STATE): file[name]
            for name in file.files
            if name.startswith(_STATE)
        }
    queries = [
        Query(latent=latent, **one)
        for one, latent in zip(content, latents, strict=True)
    ]
    return Pending(queries, state)
