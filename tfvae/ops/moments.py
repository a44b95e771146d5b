# SPDX-License-Identifier: Apache-2.0
"""Moments and ranges of data of any scale, without their missing entries."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfvae.ops.rows import LazyRows

# Rows, and entries of them, converted to float64 at a time.
_ROWS, _ENTRIES = 2**14, 2**24


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


def of_columns(x: np.ndarray | LazyRows) -> Moments:
    """Returns the moments of each column, `[N, D]`, NaN where missing.

    Sums are of float64, as squares of float32 overflow from 1e19 on and vanish
    below 1e-23.
    """
    rows = min(_ROWS, max(1, _ENTRIES // max(1, x.shape[1])))
    starts = range(0, len(x), rows)
    count = np.zeros(x.shape[1:])
    total, low, high = np.zeros_like(count), [], []
    for start in starts:
        part = x[start : start + rows]
        count += (~np.isnan(part)).sum(0, dtype=np.float64)
        total += np.nansum(part, 0, dtype=np.float64)
        low.append(np.fmin.reduce(part))
        high.append(np.fmax.reduce(part))
    some = np.maximum(count, 1.0)
    mean = total / some
    squares = np.zeros_like(count)
    for start in starts:
        part = x[start : start + rows].astype(np.float64)
        squares += np.nansum(np.square(part - mean), 0)
    return Moments(
        count,
        mean,
        squares / some,
        np.fmin.reduce(low).astype(np.float64),
        np.fmax.reduce(high).astype(np.float64),
    )


def merged(parts: list[Moments]) -> Moments:
    """Returns the moments of columns whose rows are in several parts.

    Args:
      parts: Moments of D columns each.
    """
    if len(parts) == 1:
        return parts[0]
    size, mean, variance, low, high = (
        np.stack(values) for values in zip(*parts, strict=True)
    )
    count = size.sum(0)
    share = size / np.maximum(count, 1.0)
    whole = (share * mean).sum(0)
    spread = (share * (variance + np.square(mean - whole))).sum(0)
    # They leave out NaN.
    return Moments(
        count, whole, spread, np.fmin.reduce(low), np.fmax.reduce(high)
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
