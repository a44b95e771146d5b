# SPDX-License-Identifier: Apache-2.0
"""In-painting by a dictionary of patches, for comparison.

The dictionary is learnt by scikit-learn's `MiniBatchDictionaryLearning` from
the patches of the picture as it is filled in so far. Each patch, less the mean
of its observed values, is coded by orthogonal matching pursuit on these alone
(Mairal, Elad and Sapiro, 2008, "Sparse representation for color image
restoration"), and missing pixels become the mean of all estimates of them. Both
are repeated, from the biharmonic solution on.
"""

from __future__ import annotations

import warnings

import numpy as np
import skimage.restoration
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning

_SIDE, _NUM_ATOMS, _ROUNDS = 8, 128, 2
# Patches that the dictionary is learnt from, and that are coded at a time.
_NUM_LEARNT, _AT_ONCE = 10_000, 4096
# Root of the mean squared error at which a patch is coded, and the most atoms
# as a share of its observed values.
_ERROR, _MOST = 4.0, 0.2


def filled(damaged: np.ndarray) -> np.ndarray:
    """Fills in a picture.

    Args:
      damaged: `[height, width]` on 0..255, NaN where missing.
    """
    is_missing = np.isnan(damaged)
    picture = skimage.restoration.inpaint_biharmonic(
        np.where(is_missing, 0.0, damaged), is_missing
    )
    given, observed = _patches(damaged), ~_patches(is_missing)
    rng = np.random.default_rng(0)
    atoms = None
    for _ in range(_ROUNDS):
        patches = _patches(picture)
        chosen = rng.permutation(len(patches))[:_NUM_LEARNT]
        learner = MiniBatchDictionaryLearning(
            _NUM_ATOMS,
            batch_size=256,
            max_iter=3,
            fit_algorithm="cd",
            dict_init=atoms,
            random_state=0,
        )
        sample = patches[chosen]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            learner.fit((sample - sample.mean(1, keepdims=True)) / 255.0)
        atoms = learner.components_
        parts = [
            coded(given[i : i + _AT_ONCE], observed[i : i + _AT_ONCE], atoms)
            for i in range(0, len(given), _AT_ONCE)
        ]
        merged = _merged(np.concatenate(parts), damaged.shape)
        picture = np.where(is_missing, merged, damaged)
    return picture


def coded(
    patches: np.ndarray, observed: np.ndarray, atoms: np.ndarray
) -> np.ndarray:
    """Returns the sparse approximations of patches that are partly observed.

    Args:
      patches: `[n, D]`.
      observed: bool `[n, D]`.
      atoms: `[K, D]`.

    Returns:
      `[n, D]`.
    """
    count = np.maximum(observed.sum(1), 1)
    mean = np.where(observed, patches, 0.0).sum(1) / count
    target = np.where(observed, patches - mean[:, None], 0.0)
    norms = np.sqrt(observed.astype(np.float64) @ np.square(atoms).T) + 1e-9
    residual = target.copy()
    found = np.zeros_like(target)
    most = np.maximum((_MOST * count).astype(int), 1)
    chosen = np.zeros((len(patches), 0), int)
    active = np.arange(len(patches))
    for number in range(1, most.max() + 1):
        errors = np.sqrt(np.square(residual[active]).sum(1) / count[active])
        stay = (errors > _ERROR) & (number <= most[active])
        active, chosen = active[stay], chosen[stay]
        if not len(active):
            break
        closeness = np.abs(residual[active] @ atoms.T) / norms[active]
        np.put_along_axis(closeness, chosen, -1.0, 1)
        chosen = np.concatenate([chosen, closeness.argmax(1)[:, None]], 1)
        basis = atoms[chosen]  # [a, number, D]
        seen = basis * observed[active, None]
        moments = seen @ seen.transpose(0, 2, 1) + 1e-9 * np.eye(number)
        products = seen @ target[active, :, None]
        weights = np.linalg.solve(moments, products)[:, None, :, 0]
        found[active] = (weights @ basis)[:, 0]
        residual[active] = target[active] - found[active] * observed[active]
    return found + mean[:, None]


def _patches(picture: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(picture, (_SIDE, _SIDE))
    return windows.reshape(-1, _SIDE**2)


def _merged(patches: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    height, width = (size - _SIDE + 1 for size in shape)
    parts = patches.reshape(height, width, _SIDE, _SIDE)
    total, count = np.zeros(shape), np.zeros(shape)
    for i in range(_SIDE):
        for j in range(_SIDE):
            total[i : i + height, j : j + width] += parts[:, :, i, j]
            count[i : i + height, j : j + width] += 1.0
    return total / count
