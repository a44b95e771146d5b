# SPDX-License-Identifier: Apache-2.0
"""Data sources: callables that return `Observations`."""

from tfvae.data.arrays import array_file, idx_images
from tfvae.data.digits import sklearn_digits
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
from tfvae.data.molecules import molecule_file, molecule_sequences
from tfvae.data.source import (
    Observations,
    batches_with,
    indexed_batches,
    split_test,
)
from tfvae.data.splits import resplit_images
from tfvae.data.squares import square_images, squares
from tfvae.data.tfds import tfds_images
from tfvae.data.weighted import WeightedBatches, loss_weighted_batches

__all__ = [
    "EMBEDDED_IMAGES",
    "Observations",
    "WeightedBatches",
    "add_noise",
    "array_file",
    "bar_features",
    "bars",
    "batches_with",
    "crop_image",
    "drop_pixels",
    "embedded_image",
    "idx_images",
    "image_files",
    "image_patches",
    "indexed_batches",
    "load_image",
    "molecule_file",
    "molecule_sequences",
    "loss_weighted_batches",
    "read_image",
    "read_mask",
    "resize_image",
    "resplit_images",
    "sklearn_digits",
    "split_test",
    "square_images",
    "squares",
    "tfds_images",
    "write_image",
]
