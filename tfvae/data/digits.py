# SPDX-License-Identifier: Apache-2.0
"""Data source of the handwritten digits bundled with scikit-learn."""

from __future__ import annotations

import numpy as np

from tfvae import typed_gin
from tfvae.data.source import Observations
from tfvae.data.splits import enlarge

_SIDE = 8
_LARGEST = 16.0


@typed_gin.register
def sklearn_digits(*, size: tuple[int, int] | None = None) -> Observations:
    """The 1,797 handwritten digits bundled with scikit-learn.

    They need no file and no network. All are training data; `resplit_images`
    holds some out.

    Reference: Alpaydin and Kaynak, 1998, Optical recognition of handwritten
    digits, UCI machine learning repository (its test set).

    Args:
      size: Height and width to enlarge the 8 x 8 images to, the same
        multiple of 8; each pixel becomes a square of pixels.

    Returns:
      The images, of shape `(height, width, 1)` on [0, 1], and their labels.

    Raises:
      ValueError: If `size` is not a multiple of the images' own.
    """
    # Imported here, since nothing else in the package needs it.
    import sklearn.datasets

    height, width = (_SIDE, _SIDE) if size is None else size
    factor = height // _SIDE
    if factor < 1 or (height, width) != (factor * _SIDE, factor * _SIDE):
        raise ValueError(
            "`size` must be a height and a width that are the same multiple "
            f"of {_SIDE}, got {size!r}"
        )
    points, labels = sklearn.datasets.load_digits(return_X_y=True)
    images = (points / _LARGEST).astype(np.float32)
    images = enlarge(images.reshape(-1, _SIDE, _SIDE), factor)
    return Observations(
        name="digits",
        train=images.reshape(len(images), -1),
        event_shape=(height, width, 1),
        value_range=(0.0, 1.0),
        train_labels=labels,
    )
