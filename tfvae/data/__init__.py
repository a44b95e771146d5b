# SPDX-License-Identifier: Apache-2.0
"""Data sources: callables that return `Observations`."""

from tfvae.data.generated import bar_features, bars
from tfvae.data.image_sources import image_files, image_patches
from tfvae.data.images import (
    EMBEDDED_IMAGES,
    add_noise,
    crop_image,
    drop_pixels,
    embedded_image,
    load_image,
    read_image,
    read_mask,
    resize_image,
    write_image,
)
from tfvae.data.source import Observations, indexed_batches, split_test

__all__ = [
    "EMBEDDED_IMAGES",
    "Observations",
    "add_noise",
    "bar_features",
    "bars",
    "crop_image",
    "drop_pixels",
    "embedded_image",
    "image_files",
    "image_patches",
    "indexed_batches",
    "load_image",
    "read_image",
    "read_mask",
    "resize_image",
    "split_test",
    "write_image",
]
