# SPDX-License-Identifier: Apache-2.0

from . import (
    arrays,
    batches,
    blocks,
    byte_pairs,
    decoding,
    digits,
    encoding,
    formats,
    generated,
    image_sources,
    images,
    molecules,
    openexr,
    selfies,
    shard_inputs,
    shard_writing,
    shards,
    source,
    splits,
    stack_encoding,
    stacks,
    tfds,
    weighted,
    weighted_rows,
)
from .arrays import array_file, idx_images
from .batches import batches_with, indexed_batches
from .digits import sklearn_digits
from .generated import bar_features, bars
from .image_sources import image_files, image_patches
from .images import (
    EMBEDDED_IMAGES,
    Image,
    ValueRange,
    add_noise,
    crop_image,
    drop_pixels,
    embedded_image,
    load_image,
    read_image,
    read_mask,
    resize_image,
    value_range_of,
    write_image,
    write_values,
)
from .molecules import molecule_file, molecule_sequences
from .shard_writing import write_shards
from .shards import ShardedRows, sample_rows, shard_files
from .source import Observations, split_test
from .splits import resplit_images
from .squares import square_images, squares
from .stack_encoding import write_stack
from .stacks import Stack, open_stack
from .tfds import tfds_images
from .weighted import WeightedBatches, loss_weighted_batches
from .weighted_rows import WeightedRows

__all__ = [
    "arrays",
    "batches",
    "blocks",
    "byte_pairs",
    "decoding",
    "digits",
    "encoding",
    "formats",
    "generated",
    "image_sources",
    "images",
    "molecules",
    "openexr",
    "selfies",
    "shard_inputs",
    "shard_writing",
    "shards",
    "source",
    "splits",
    "stack_encoding",
    "stacks",
    "tfds",
    "weighted",
    "weighted_rows",
    "EMBEDDED_IMAGES",
    "Image",
    "Observations",
    "ShardedRows",
    "Stack",
    "ValueRange",
    "WeightedBatches",
    "WeightedRows",
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
    "open_stack",
    "loss_weighted_batches",
    "read_image",
    "read_mask",
    "resize_image",
    "resplit_images",
    "sample_rows",
    "shard_files",
    "sklearn_digits",
    "split_test",
    "square_images",
    "squares",
    "tfds_images",
    "value_range_of",
    "write_image",
    "write_shards",
    "write_stack",
    "write_values",
]
