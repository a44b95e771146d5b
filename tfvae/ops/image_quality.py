# SPDX-License-Identifier: Apache-2.0
"""Image quality against a clean reference image: PSNR and SSIM."""

from __future__ import annotations

import math

import numpy as np
import skimage.metrics

SSIM_WINDOW = 7
"""Side in pixels of the windows that SSIM compares."""


def psnr(clean: np.ndarray, image: np.ndarray, data_range: float) -> float:
    """Peak signal-to-noise ratio, 10 log10(range^2 / mean squared error).

    Args:
      clean: Any shape, complete.
      image: The same shape.
      data_range: Distance of the largest from the smallest possible value.

    Returns:
      Decibels; infinity for equal images.
    """
    error = np.asarray(image, np.float64) - np.asarray(clean, np.float64)
    mean_squared = float((error**2).mean())
    if mean_squared == 0.0:
        return math.inf
    return 10.0 * math.log10(data_range**2 / mean_squared)


def ssim(clean: np.ndarray, image: np.ndarray, data_range: float) -> float:
    """Mean structural similarity over 7 x 7 windows and all channels.

    Args:
      clean: `[height, width, channels]`, complete.
      image: The same shape.
      data_range: Distance of the largest from the smallest possible value.

    Returns:
      A number up to 1; NaN if the image is smaller than a window.
    """
    if min(clean.shape[:2]) < SSIM_WINDOW:
        return math.nan
    return float(
        skimage.metrics.structural_similarity(
            np.asarray(clean, np.float64),
            np.asarray(image, np.float64),
            win_size=SSIM_WINDOW,
            data_range=data_range,
            channel_axis=-1,
        )
    )
