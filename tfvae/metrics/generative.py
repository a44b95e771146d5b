# SPDX-License-Identifier: Apache-2.0
"""Distances between generated and real data, in the space of features."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfvae.metrics.features import FeatureExtractor
from tfvae.ops import frechet

_BATCH_SIZE = 100
"""Batch size for computing features."""


class SampleDistances(NamedTuple):
    """Distances between generated and real data.

    Attributes:
      frechet_distance: Squared Frechet distance between Gaussians fitted to
        the features. It is biased upwards for finite samples, the more so
        the fewer there are: compare only equal numbers of samples.
      kernel_distance: Unbiased squared kernel distance of the features,
        averaged over subsets.
      kernel_distance_std: Standard deviation over the subsets.
      num_samples: Number of generated data.
      num_data: Number of real data.
      features: Name of the features.
    """

    frechet_distance: float
    kernel_distance: float
    kernel_distance_std: float
    num_samples: int
    num_data: int
    features: str


class Reference(NamedTuple):
    """Features of the real data, computed once for all comparisons.

    Attributes:
      extractor: The feature extractor.
      features: `[m, F]` float32, features of the data.
      moments: Mean and covariance of the features.
    """

    extractor: FeatureExtractor
    features: np.ndarray
    moments: frechet.Moments

    @classmethod
    def of(cls, extractor: FeatureExtractor, data: np.ndarray) -> Reference:
        """Computes the features of real data.

        Args:
          extractor: The feature extractor.
          data: `[m, D]`, at least two.

        Returns:
          The reference, for `sample_distances`.

        Raises:
          ValueError: If there are fewer than two data, or some have missing
            entries.
        """
        features = _features(extractor, _checked("data", data))
        return cls(extractor, features, frechet.moments(features))


def sample_distances(
    samples: np.ndarray,
    reference: Reference,
    *,
    value_range: tuple[float, float] = (0.0, 1.0),
    subset_size: int = 1000,
    num_subsets: int = 100,
    seed: int = 0,
) -> SampleDistances:
    """Compares generated with real data, in the space of features.

    Args:
      samples: `[n, D]`, at least two.
      reference: Features of the real data, from `Reference.of`.
      value_range: Samples are clipped to it, as displayed images are.
      subset_size: See `tfvae.ops.frechet.kernel_distance`; at most the
        number of samples and of data.
      num_subsets: See `tfvae.ops.frechet.kernel_distance`.
      seed: See `tfvae.ops.frechet.kernel_distance`.

    Returns:
      The distances.

    Raises:
      ValueError: If samples are not finite, or an argument is out of range.
    """
    clipped = np.clip(_checked("samples", samples), *value_range)
    features = _features(reference.extractor, clipped)
    moments = frechet.moments(features)
    kernel_distance = frechet.kernel_distance(
        features,
        reference.features,
        subset_size=min(subset_size, len(features), len(reference.features)),
        num_subsets=num_subsets,
        seed=seed,
    )
    return SampleDistances(
        frechet_distance=frechet.frechet_distance(*moments, *reference.moments),
        kernel_distance=kernel_distance.mean,
        kernel_distance_std=kernel_distance.std,
        num_samples=len(features),
        num_data=len(reference.features),
        features=reference.extractor.name,
    )


def _checked(name: str, points: np.ndarray) -> np.ndarray:
    """Validates and returns points `[n, D]`."""
    points = np.asarray(points)
    if points.ndim != 2 or len(points) < 2:
        raise ValueError(
            f"`{name}` must have shape [images, pixels] with at least two "
            f"images, got shape {points.shape!r}"
        )
    if not np.isfinite(points).all():
        rows = np.flatnonzero(~np.isfinite(points).all(axis=1))
        raise ValueError(
            f"`{name}` must be finite, got other values in {rows.size} of "
            f"{len(points)} images"
        )
    return points


def _features(extractor: FeatureExtractor, points: np.ndarray) -> np.ndarray:
    """Features `[n, F]` of points `[n, D]`, computed in batches."""
    return np.concatenate(
        [
            extractor(points[start : start + _BATCH_SIZE])
            for start in range(0, len(points), _BATCH_SIZE)
        ]
    )
