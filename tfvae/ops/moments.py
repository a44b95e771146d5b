# SPDX-License-Identifier: Apache-2.0
"""Moments and ranges of data of any scale, without their missing entries."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Rows converted to float64 at a time.
_ROWS = 2**14


class Moments(NamedTuple):
    """Moments and ranges of D columns, or of all entries.

    Attributes:
      size: float64 `[D]` or scalar, observed entries.
      mean: float64 likewise; 0 where there are none.
      variance: float64 likewise; 0 where there are none.
      low: float64 likewise, the smallest value; NaN where there are none.
      high: float64 likewise, the largest value.
    """

    size: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def pooled(self) -> Moments:
        """Returns the moments of the entries of all columns."""
        count = self.size.sum()
        share = self.size / max(count, 1.0)
        mean = share @ self.mean
        variance = share @ (self.variance + np.square(self.mean - mean))
        # They leave out NaN.
        low, high = np.fmin.reduce(self.low), np.fmax.reduce(self.high)
        return Moments(count, mean, variance, low, high)

    def within_columns(self) -> Moments:
        """Returns `pooled` with the variance about the columns' means."""
        share = self.size / max(self.size.sum(), 1.0)
        return self.pooled()._replace(variance=share @ self.variance)


def of_columns(x: np.ndarray) -> Moments:
    """Returns the moments of each column, `[N, D]`, NaN where missing.

    Sums are of float64, as squares of float32 overflow from 1e19 on and vanish
    below 1e-23.
    """
    parts = [x[i : i + _ROWS] for i in range(0, len(x), _ROWS)]
    count = sum((~np.isnan(p)).sum(0, dtype=np.float64) for p in parts)
    total = sum(np.nansum(p, 0, dtype=np.float64) for p in parts)
    some = np.maximum(count, 1.0)
    mean = total / some
    squares = sum(
        np.nansum(np.square(p.astype(np.float64) - mean), 0) for p in parts
    )
    low = np.fmin.reduce([np.fmin.reduce(p) for p in parts])
    high = np.fmax.reduce([np.fmax.reduce(p) for p in parts])
    return Moments(
        count,
        mean,
        squares / some,
        low.astype(np.float64),
        high.astype(np.float64),
    )


def scale_of(found: Moments, of_constants: float) -> float:
    """Returns the standard deviation, or a positive number for constant data.

    Args:
      found: Pooled moments.
      of_constants: Scale of constant data, relative to their absolute value.
    """
    limits = np.finfo(np.float32)
    largest = float(np.maximum(-found.low, found.high))
    scale = float(np.sqrt(found.variance))
    # Smaller differences are lost when float32 data are centred.
    if scale <= 0.1 * limits.eps * largest:
        scale = of_constants * (largest or 1.0)
    # TensorFlow takes smaller numbers for zero.
    return max(scale, float(limits.tiny))
