# SPDX-License-Identifier: Apache-2.0
"""Run that writes data points as shards, for training beyond the memory."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import gin

from tfvae import typed_gin
from tfvae.data.shard_inputs import (
    ARRAY_SUFFIXES,
    TABLE_SUFFIXES,
    ArrayFiles,
    ImageFiles,
    TableFiles,
    matching_files,
)
from tfvae.data.shard_writing import Input, write_shards
from tfvae.data.shards import Manifest
from tfvae.runs import config


@typed_gin.configurable
def shard(
    run_dir: str | os.PathLike[str],
    *,
    inputs: str | Sequence[str] = gin.REQUIRED,
    key: str | None = None,
    patch: int | tuple[int, int] | None = None,
    stride: int | None = None,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    dtype: str | None = None,
    missing: Literal["allow", "refuse"] = "allow",
    rows_per_shard: int | None = None,
) -> Manifest:
    """Writes data points as shards, or continues where a call was interrupted.

    Args:
      run_dir: Folder of the shards.
      inputs: Files, folders or patterns, one or several: `.npy` and `.npz`
        arrays, CSV and Parquet tables, or images; all of one kind.
      key: Name of the array in `.npz` files; may be left out if they hold only
        one.
      patch: Side, or height and width, of patches of the images; None for
        whole images.
      stride: Distance of neighbouring patches, in pixels; 1 if None.
      size: Side, or height and width, that images are resized to.
      channels: 1 to convert images to grey, 3 to RGB; None if they agree.
      dtype: Type of the stored values, see `write_shards`.
      missing: Whether entries may be missing (NaN, empty fields of tables).
      rows_per_shard: Data points of a shard; None for 256 MB.

    Returns:
      The manifest, which is also written to manifest.json.

    Raises:
      FileNotFoundError: If there are no inputs.
      TypeError: If values are no numbers.
      ValueError: If inputs are damaged, of several kinds, or do not fit each
        other or a setting.
      OSError: If the shards do not fit on the disk.
    """
    config.check("shard")
    paths = matching_files([inputs] if isinstance(inputs, str) else inputs)
    of_images = {
        "patch": patch,
        "stride": stride,
        "size": size,
        "channels": channels,
    }
    source = _source(paths, key, of_images)
    found = write_shards(
        run_dir,
        source,
        dtype=dtype,
        allow_missing=missing == "allow",
        rows_per_shard=rows_per_shard,
    )
    low, high = found.value_range
    print(
        f"{found.num_rows:,} data points of {found.num_columns:,} dimensions, "
        f"{found.dtype} from {low:g} to {high:g}, in {len(found.shards)} "
        f"shards; train on them by --gin_file=runs/shards.gin "
        f"--gin_param=\"FOLDER='{run_dir}'\"",
        flush=True,
    )
    return found


def _source(
    paths: Sequence[str], key: str | None, of_images: dict[str, Any]
) -> Input:
    """Returns the input of a kind of files; settings of others are refused."""
    suffixes = {pathlib.Path(path).suffix.lower() for path in paths}
    is_array = suffixes <= set(ARRAY_SUFFIXES)
    is_table = suffixes <= set(TABLE_SUFFIXES)
    is_mixed = suffixes & {*ARRAY_SUFFIXES, *TABLE_SUFFIXES}
    if is_mixed and not (is_array or is_table):
        raise ValueError(
            "`shard.inputs` must be all arrays, all tables or all images, got "
            f"files that end in {', '.join(sorted(suffixes))}"
        )
    given = [name for name, value in of_images.items() if value is not None]
    if given and (is_array or is_table):
        raise ValueError(
            f"`shard.{given[0]}` must be None for arrays and tables, got "
            f"{of_images[given[0]]!r}"
        )
    if key is not None and not is_array:
        raise ValueError(
            f"`shard.key` must be None but for .npz files, got {key!r}"
        )
    if is_array:
        return ArrayFiles(paths, key)
    if is_table:
        return TableFiles(paths)
    if of_images["stride"] is not None and of_images["patch"] is None:
        raise ValueError(
            "`shard.patch` must be given with `shard.stride`, got None"
        )
    return ImageFiles(
        paths,
        patch=_pair(of_images["patch"]),
        stride=of_images["stride"] or 1,
        size=_pair(of_images["size"]),
        channels=of_images["channels"],
    )


def _pair(sides: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Returns height and width."""
    if sides is None or not isinstance(sides, int):
        return sides
    return sides, sides
