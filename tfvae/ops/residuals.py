# SPDX-License-Identifier: Apache-2.0
"""How far the residuals of restored images are from white noise.

Models of patches take noise for white: what it adds to neighbouring pixels is
uncorrelated. Correlated noise is restored as if it were detail.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy.ndimage

# Share of the pixels that count as flat.
_FLAT_SHARE = 0.25
# Standard deviations of the Gaussians that restored images are smoothed by, for
# gradients and for noise, and the side of the windows whose mean is taken off.
_GRADIENT_SMOOTHING, _NOISE_SMOOTHING, _WINDOW = 2.0, 0.7, 7
# Correlation from which on noise is not white, see `Autocorrelation`.
_LEAST_CORRELATION = 0.14


class Autocorrelation(NamedTuple):
    """Correlation of the noise of neighbouring pixels, -1 to 1."""

    down: float
    """Of a pixel and the next one below."""
    across: float
    """Of a pixel and the next one to the right."""
    num_pairs: int
    """Pairs that were compared in the direction that had fewer."""

    @property
    def is_white(self) -> bool:
        """Whether one of them is as small as those of white noise.

        Detail that was not restored is correlated as well, but mostly along
        edges, in one direction.
        """
        if not self.num_pairs:
            return True
        # Both of them by chance are at most one in a thousand.
        standard_error = 1.0 / math.sqrt(self.num_pairs)
        limit = _LEAST_CORRELATION + standard_error
        return min(self.down, self.across) < limit


def autocorrelation(
    observed: np.ndarray, restored: np.ndarray
) -> Autocorrelation:
    """Measures how correlated the noise of neighbouring pixels is.

    The noise is what an image differs by from the restored one, less local
    means, in the quarter of the image with the smallest gradient: elsewhere
    detail that was not restored is part of the difference, and is correlated.
    Smoothing the restored image slightly returns to the difference some of the
    noise that was restored as if it were detail.

    Args:
      observed: `[height, width, channels]`, NaN where missing.
      restored: The same shape, complete.

    Returns:
      The correlations over pairs that are flat and observed, of all channels.
      Pixels that equal all their neighbours are left out, as they have no
      noise: margins, and parts that are clipped.
    """
    restored = np.asarray(restored, np.float32)
    height, width, channels = restored.shape
    noise = np.empty_like(restored)
    gradient = np.zeros((height, width), np.float32)
    for i in range(channels):
        smooth = scipy.ndimage.gaussian_filter(
            restored[..., i], _NOISE_SMOOTHING
        )
        noise[..., i] = _without_local_mean(observed[..., i] - smooth)
        gradient += np.square(
            scipy.ndimage.gaussian_gradient_magnitude(
                restored[..., i], _GRADIENT_SMOOTHING
            )
        )
    usable = ~np.isnan(noise) & _is_varied(observed)
    is_seen = usable.any(axis=-1)
    if not is_seen.any():
        return Autocorrelation(0.0, 0.0, 0)
    largest = np.quantile(gradient[is_seen], _FLAT_SHARE)
    usable &= (gradient <= largest)[..., None]
    down, num_down = _correlation(noise, usable)
    across, num_across = _correlation(
        noise.swapaxes(0, 1), usable.swapaxes(0, 1)
    )
    return Autocorrelation(down, across, min(num_down, num_across))


def _without_local_mean(values: np.ndarray) -> np.ndarray:
    """Subtracts means of windows, `[height, width]`, NaN where missing."""
    is_missing = np.isnan(values)
    share = scipy.ndimage.uniform_filter(
        (~is_missing).astype(np.float32), _WINDOW
    )
    total = scipy.ndimage.uniform_filter(
        np.where(is_missing, np.float32(0.0), values), _WINDOW
    )
    # Running sums may leave rounding errors where nothing is observed.
    return values - total / np.maximum(share, 0.5 / _WINDOW**2)


def _is_varied(observed: np.ndarray) -> np.ndarray:
    """Returns which pixels differ from a neighbour, `[...]` bool."""
    filled = np.nan_to_num(observed)
    size = (3, 3, 1)
    return scipy.ndimage.maximum_filter(
        filled, size
    ) != scipy.ndimage.minimum_filter(filled, size)


def _correlation(noise: np.ndarray, usable: np.ndarray) -> tuple[float, int]:
    """Returns that of neighbours along the first axis, and pairs."""
    both = usable[:-1] & usable[1:]
    first, second = noise[:-1][both], noise[1:][both]
    squares = np.sum(np.square(first), dtype=np.float64)
    squares *= np.sum(np.square(second), dtype=np.float64)
    if not squares:
        return 0.0, 0
    product = np.sum(first * second, dtype=np.float64)
    return float(product / math.sqrt(squares)), int(first.size)
