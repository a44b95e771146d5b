# SPDX-License-Identifier: Apache-2.0
"""Snapshots of weights, samples and latent grids, for the figures of a run."""

from __future__ import annotations

import logging
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tfvae import files
from tfvae.lso.plan import Plan, Use
from tfvae.lso.reading import as_picture
from tfvae.lso.tasks.base import Task

if TYPE_CHECKING:
    from tfvae.lso.latent_space import LatentSpace

WEIGHTS, SAMPLES, MANIFOLD = "weights.npz", "samples.npz", "manifold.npz"
"""Names of the files in the folder of a run."""

# The published grid of the manifold: 17 points from -4 to 4.
_SIDE, _BOUND = 17, 4.0

_DAMAGED = (
    EOFError,
    NotImplementedError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
_logger = logging.getLogger(__name__)

ScoreInputs = Callable[[np.ndarray, int], tuple[np.ndarray, list]]
"""`(decoder means [n, D], seed) -> scores [n] of the task, n inputs`."""


def rounds_to_see(num_rounds: int) -> list[int]:
    """Returns the rounds of the snapshots: the first, middle and last one."""
    return sorted({0, num_rounds // 2, num_rounds - 1})


def save_weights(
    folder: pathlib.Path, scores: np.ndarray, weights: np.ndarray
) -> None:
    """Saves the data weights of the first round, before any query."""
    if read_arrays(folder / WEIGHTS) is None:
        _save(folder / WEIGHTS, scores=scores, weights=weights)


def take(
    folder: pathlib.Path,
    task: Task,
    space: LatentSpace,
    score: ScoreInputs,
    plan: Plan,
    now: int,
) -> None:
    """Takes the snapshots of a round, unless there are such already.

    Args:
      folder: Of the run.
      task: What is optimised.
      space: The latent space of the round.
      score: Scores decoder means, beside the budget.
      plan: Has `num_samples`; no snapshot is taken where it is 0.
      now: The round; only those of `rounds_to_see` have snapshots.
    """
    if not plan.num_samples or now not in rounds_to_see(plan.num_rounds):
        return
    seed = plan.seed_of(Use.SAMPLING, now)
    _save_samples(folder, space, score, now, plan.num_samples, seed)
    if task.to_picture and space.num_latents == 2 and not space.is_binary:
        _save_manifold(folder, task, space, score, now)


def _save_samples(
    folder: pathlib.Path,
    space: LatentSpace,
    score: ScoreInputs,
    now: int,
    count: int,
    seed: int,
) -> None:
    """Scores draws from the prior and appends them to earlier rounds'."""
    rounds, scores = _read(folder / SAMPLES, "rounds", "scores")
    if now in rounds:
        return
    means = space.decode(space.sample_prior(seed, count))
    found, _ = score(means, seed)
    _save(
        folder / SAMPLES,
        rounds=np.append(rounds, now).astype(np.int64),
        scores=_grown(scores, found),
    )


def _save_manifold(
    folder: pathlib.Path,
    task: Task,
    space: LatentSpace,
    score: ScoreInputs,
    now: int,
) -> None:
    """Decodes a grid of two latents and adds it to those of earlier rounds."""
    path = folder / MANIFOLD
    rounds, images, scores = _read(path, "rounds", "images", "scores")
    if now in rounds:
        return
    ticks = np.linspace(-_BOUND, _BOUND, _SIDE)
    grid = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), -1)
    means = space.decode(grid.reshape(-1, 2).astype(np.float32))
    found, inputs = score(means, 0)
    if any(one is None for one in inputs):
        return  # A plane with invalid decodes is no picture.
    if as_picture(task, inputs[0]).ndim != 2:
        return  # So many drawings are no plane.
    pictures = np.stack([as_picture(task, one) for one in inputs])
    _save(
        path,
        rounds=np.append(rounds, now).astype(np.int64),
        images=_grown(
            images, pictures.reshape(_SIDE, _SIDE, *pictures.shape[1:])
        ),
        scores=_grown(scores, found.reshape(_SIDE, _SIDE)),
        bound=np.array(_BOUND),
    )


def _grown(stack: np.ndarray, newest: np.ndarray) -> np.ndarray:
    """Appends an array to a stack of arrays, which may be empty."""
    if not len(stack):
        return newest[None]
    return np.concatenate([stack, newest[None]])


def _read(path: pathlib.Path, *names: str) -> list[np.ndarray]:
    """Returns arrays of a file, empty ones if it is missing or damaged."""
    found = read_arrays(path, *names)
    return [np.zeros(0) if found is None else found[name] for name in names]


def read_arrays(
    path: pathlib.Path, *names: str
) -> dict[str, np.ndarray] | None:
    """Returns the arrays of an .npz file.

    Args:
      path: The file.
      *names: Names of arrays that it must have.

    Returns:
      Its arrays; None if it does not exist or, with a warning, is damaged.
    """
    try:
        # Not opened by `load`, which does not close damaged files.
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it must be an .npz file")
            found = dict(file)
    except FileNotFoundError:
        return None
    except _DAMAGED as error:
        _logger.warning("ignoring %s, which is damaged: %r", path, error)
        return None
    missing = {*names} - found.keys()
    if missing:
        _logger.warning("ignoring %s, which lacks %s", path, min(missing))
        return None
    return found


def _save(path: pathlib.Path, **arrays: Any) -> None:
    with files.replacing(path, "wb", is_synced=True) as file:
        np.savez_compressed(file, **arrays)
