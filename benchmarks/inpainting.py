# SPDX-License-Identifier: Apache-2.0
r"""PSNR of pictures whose missing pixels are filled in, beside other methods.

Usage:
  PYTHONPATH=. python -m benchmarks.inpainting --pictures=set12 \
      --run_dir=runs/inpainting [--missing=0.5,0.8] [--only=01,02] \
      [--methods=subspaces,biharmonic,dictionary]

The pictures are all files of the folder, in grey. Pixels are missing at random,
by `numpy.random.default_rng(0)`; the others are as they were. `subspaces` is
`tfvae denoise --mask=...` with its defaults, without the estimate of its
uncertainty; `biharmonic` that of scikit-image; `dictionary` an alternation of
dictionary learning and orthogonal matching pursuit, both of scikit-learn, of
8 x 8 patches with stride 2, from what lies nearest, with errors that shrink
from 30 to 3.
Results are kept in results.jsonl of the folder and are not computed again.
Prints a table for each share, with seconds, and writes the pictures.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Sequence

import numpy as np
import scipy.ndimage
import skimage.restoration
import sklearn.decomposition

from benchmarks.denoising import Restored, compare, comparison_parser
from tfvae.data import images
from tfvae.local_subspaces import LocalSubspaces
from tfvae.ops.patches import extract_patches, merge_patches

_SIDE, _STRIDE, _ATOMS, _ROUNDS = 8, 2, 256, 8

Fill = Callable[[np.ndarray], np.ndarray]
"""From a picture `[height, width]`, NaN where missing, to the filled one."""


def by_subspaces(image: np.ndarray) -> np.ndarray:
    """Fills in by local subspaces."""
    *_, filled = LocalSubspaces().filling_rounds(image[..., None])
    return filled[..., 0]


def by_biharmonic(image: np.ndarray) -> np.ndarray:
    """Fills in by the biharmonic equation."""
    missing = np.isnan(image)
    known = np.where(missing, 0.0, image) / images.WHITE
    filled = skimage.restoration.inpaint_biharmonic(known, missing)
    return images.WHITE * filled


def by_dictionary(image: np.ndarray) -> np.ndarray:
    """Fills in by sparse codes of patches."""
    missing = np.isnan(image)
    rows, columns = scipy.ndimage.distance_transform_edt(
        missing, return_distances=False, return_indices=True
    )
    filled = image[rows, columns].astype(np.float64)
    patch = (_SIDE, _SIDE)
    learner = sklearn.decomposition.MiniBatchDictionaryLearning(
        _ATOMS,
        batch_size=1024,
        max_iter=5,
        fit_algorithm="cd",
        transform_algorithm="omp",
        random_state=0,
    )
    for error in np.geomspace(30.0, 3.0, _ROUNDS):
        patches = extract_patches(filled[..., None], patch, _STRIDE)
        means = patches.mean(1, keepdims=True)
        learner.set_params(transform_alpha=(error * _SIDE) ** 2)
        learner.partial_fit(patches - means)
        estimates = learner.transform(patches - means) @ learner.components_
        shape = (*image.shape, 1)
        merged = merge_patches(estimates + means, shape, patch, _STRIDE)
        filled = np.where(missing, merged[..., 0], image)
    return filled


_METHODS: dict[str, Fill] = {
    "subspaces": by_subspaces,
    "biharmonic": by_biharmonic,
    "dictionary": by_dictionary,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Fills in what is not in the folder yet, and prints the tables."""
    parser = comparison_parser(__doc__, ",".join(_METHODS))
    parser.add_argument("--missing", default="0.5,0.8")
    given = parser.parse_args(argv)
    for share in map(float, given.missing.split(",")):
        compare(given, share, f"{100.0 * share:g} % missing", _filled)


def _filled(
    clean: np.ndarray, share: float, name: str, folder: pathlib.Path
) -> Restored:
    del folder
    draws = np.random.default_rng(0).random(clean.shape[:2])
    image = np.where(draws < share, np.float32(np.nan), clean[..., 0])
    start = time.perf_counter()
    found = _METHODS[name](image)
    return Restored(found[..., None], time.perf_counter() - start)


if __name__ == "__main__":
    main()
