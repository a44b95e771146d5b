# SPDX-License-Identifier: Apache-2.0
"""Estimate of the standard deviation of white noise in a picture.

Blocks that hardly vary at low frequencies have little but noise at high ones
(Ponomarenko, Lukin, Zriakhov, Kaarna and Astola, 2007, "An automatic approach
to lossy compression of AVIRIS images"). Coefficients of the discrete cosine
transform of white noise are independent, so that the choice of the blocks, by
other coefficients, does not change its variance. Where values were clipped, or
flat parts were added, there is less noise, or none. So blocks with values at
the ends of a channel's range, and with flat lines, are left out, unless there
are few others or those have no noise: flat parts then are those of a drawing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy.fft

_SIDE = 8
# Sums of the two frequencies from which they are high.
_HIGH = 7
# Share of the blocks that are chosen, and the fewest.
_SHARE, _FEWEST = 0.1, 16
# Smallest share of the blocks that may be used alone; and the least noise that
# the quietest of them have, in units of that of the chosen ones.
_USED, _QUIET, _LEAST_NOISE = 0.02, 0.005, 0.1
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
    found = []
    for channel in np.moveaxis(image, -1, 0) if height and width else ():
        blocks = np.lib.stride_tricks.sliding_window_view(
            channel, (_SIDE, _SIDE)
        )[::step, ::step].reshape(-1, _SIDE, _SIDE)
        blocks = blocks[~np.isnan(blocks).any((1, 2))]
        if len(blocks) >= _FEWEST:
            found.append(_of_channel(blocks, channel))
    if not found:
        raise ValueError(
            "`image` must have at least "
            f"{_FEWEST} complete blocks of {_SIDE} x {_SIDE} pixels, from "
            "which its noise is estimated"
        )
    # Of channels that are clipped everywhere only if all are such.
    used = [one for one in found if one.is_whole] or found
    return float(np.sqrt(np.mean([one.variance for one in used])))


class _Noise(NamedTuple):
    """The noise of a channel."""

    variance: float
    is_whole: bool
    """Whether it is that of blocks which have all of the noise."""


def _of_channel(blocks: np.ndarray, channel: np.ndarray) -> _Noise:
    """Estimates the noise of a channel from blocks of it, `[n, 8, 8]`."""
    ends = np.nanmin(channel), np.nanmax(channel)
    is_used = ~np.isin(blocks, ends).any((1, 2))
    for axis in (1, 2):  # No line of a block is flat.
        is_used &= (np.ptp(blocks, axis) > 0.0).all(1)
    if np.count_nonzero(is_used) >= max(_FEWEST, _USED * len(blocks)):
        variance, quiet = _variance(blocks[is_used])
        if quiet >= _LEAST_NOISE * variance:
            return _Noise(variance, True)
    return _Noise(_variance(blocks)[0], False)


def _variance(blocks: np.ndarray) -> tuple[float, float]:
    """Estimates the variance of the noise, and that of the quietest blocks."""
    squares = np.square(scipy.fft.dctn(blocks, axes=(1, 2), norm="ortho"))
    frequencies = np.add.outer(np.arange(_SIDE), np.arange(_SIDE))
    is_low = (frequencies > 0) & (frequencies < _HIGH)
    energies = squares[:, is_low].sum(1)
    high = squares[:, frequencies >= _HIGH]
    count = max(_FEWEST, int(_SHARE * len(blocks)))
    chosen = np.argsort(energies, kind="stable")[:count]
    # Of most frequencies: some may have a pattern.
    variance = np.median(high[chosen].mean(0))
    return float(variance), float(np.quantile(high.mean(1), _QUIET))
