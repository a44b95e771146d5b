# SPDX-License-Identifier: Apache-2.0
"""Estimate of the standard deviation of white noise in a picture.

Blocks that hardly vary at low frequencies have little but noise at high ones
(Ponomarenko, Lukin, Zriakhov, Kaarna and Astola, 2007, "An automatic approach
to lossy compression of AVIRIS images"). Coefficients of the discrete cosine
transform of white noise are independent, so that the choice of the blocks, by
other coefficients, does not change its variance.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft

_SIDE = 8
# Sums of the two frequencies from which they are high.
_HIGH = 7
# Share of the blocks that are chosen, and the fewest.
_SHARE, _FEWEST = 0.1, 16
# Blocks that are looked at, at most.
_MOST = 2**17


def noise_std(image: np.ndarray) -> float:
    """Estimates the standard deviation of the white noise of a picture.

    Args:
      image: `[height, width, channels]`, NaN where missing.

    Returns:
      The standard deviation in the units of the picture, the same for all
      channels; 0 for a picture without noise.

    Raises:
      ValueError: If the picture has too few complete blocks of 8 x 8 pixels.
    """
    image = np.asarray(image, np.float64)
    height, width = (max(0, size - _SIDE + 1) for size in image.shape[:2])
    step = max(1, math.ceil(math.sqrt(height * width / _MOST)))
    if height and width:
        blocks = np.lib.stride_tricks.sliding_window_view(
            image, (_SIDE, _SIDE), (0, 1)
        )[::step, ::step].reshape(-1, image.shape[2], _SIDE, _SIDE)
        blocks = blocks[~np.isnan(blocks).any((1, 2, 3))]
    if not (height and width) or len(blocks) < _FEWEST:
        raise ValueError(
            "`image` must have at least "
            f"{_FEWEST} complete blocks of {_SIDE} x {_SIDE} pixels, from "
            "which its noise is estimated"
        )
    squares = np.square(scipy.fft.dctn(blocks, axes=(2, 3), norm="ortho"))
    frequencies = np.add.outer(np.arange(_SIDE), np.arange(_SIDE))
    is_low = (frequencies > 0) & (frequencies < _HIGH)
    energies = squares[..., is_low].sum((1, 2))
    count = max(_FEWEST, int(_SHARE * len(blocks)))
    chosen = np.argsort(energies, kind="stable")[:count]
    variances = squares[chosen][..., frequencies >= _HIGH].mean((0, 1))
    # Of most frequencies: some may have a pattern.
    return float(np.sqrt(np.median(variances)))
