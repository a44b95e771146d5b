# SPDX-License-Identifier: Apache-2.0
"""Quality of generated data: Frechet and kernel distances of features."""

from tfvae.metrics.features import ClassifierFeatures, FeatureExtractor
from tfvae.metrics.generative import (
    Reference,
    SampleDistances,
    sample_distances,
)
from tfvae.metrics.inception import InceptionFeatures

__all__ = [
    "ClassifierFeatures",
    "FeatureExtractor",
    "InceptionFeatures",
    "Reference",
    "SampleDistances",
    "sample_distances",
]
