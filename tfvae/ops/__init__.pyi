# SPDX-License-Identifier: Apache-2.0

from . import (
    anscombe,
    bits,
    densities,
    distributions,
    elbo,
    frechet,
    image_quality,
    limits,
    moments,
    patches,
    random,
    residuals,
    rows,
    sparse,
    truncated,
    whitening,
)

__all__ = [
    "anscombe",
    "bits",
    "densities",
    "distributions",
    "elbo",
    "frechet",
    "image_quality",
    "limits",
    "moments",
    "patches",
    "random",
    "residuals",
    "rows",
    "sparse",
    "truncated",
    "whitening",
]
