# SPDX-License-Identifier: Apache-2.0

from . import (
    bits,
    densities,
    distributions,
    elbo,
    frechet,
    image_quality,
    limits,
    patches,
    random,
    sparse,
    truncated,
    whitening,
)

__all__ = [
    "bits",
    "densities",
    "distributions",
    "elbo",
    "frechet",
    "image_quality",
    "limits",
    "patches",
    "random",
    "sparse",
    "truncated",
    "whitening",
]
