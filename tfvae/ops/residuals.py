# SPDX-License-Identifier: Apache-2.0
"""Residuals of restored images: their autocorrelation, and as a picture.

Where a model is right about the signal and the noise is white, what it removes
from neighbouring pixels is uncorrelated.
"""

from __future__ import annotations

import numpy as np

_WHITE = 255.0
# Share of the magnitudes that a picture of residuals shows without clipping.
_SHOWN_SHARE = 0.995


def shown(residual: np.ndarray) -> np.ndarray:
    """Returns a picture of residuals, symmetric around mid-grey.

    Black and white are the magnitude that 99.5 % of the entries do not exceed.

    Args:
      residual: `[...]`, NaN where missing.

    Returns:
      `[...]` on 0..255; 127.5 where the residual is 0 or missing.
    """
    magnitudes = np.abs(residual)
    limit = float(np.nanquantile(magnitudes, _SHOWN_SHARE))
    # Nearly all are 0 where only a few entries have been denoised.
    limit = limit or float(np.nanmax(magnitudes)) or 1.0
    relative = np.clip(np.nan_to_num(residual) / limit, -1.0, 1.0)
    return 0.5 * _WHITE * (1.0 + relative)
