# SPDX-License-Identifier: Apache-2.0
"""Run that writes data points as shards, for training beyond the memory."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, Literal

from tfvae import typed_gin
from tfvae.data.record_inputs import RecordFiles
from tfvae.data.shard_inputs import (
    ARRAY_SUFFIXES,
    RECORDS,
    TABLE_SUFFIXES,
    ArrayFiles,
    ImageFiles,
    TableFiles,
    is_record_file,
    matching_files,
)
from tfvae.data.shard_writing import Input, write_shards
from tfvae.data.shards import Manifest
from tfvae.data.tfds import TfdsSplit
from tfvae.runs import config

# A name, which may have a version after a colon, and a split, which may have
# one in brackets.
_TFDS = re.compile(r"([^\[\]]+):((?:[^:\[\]]|\[[^\[\]]*\])+)")


@typed_gin.configurable
def shard(
    run_dir: str | os.PathLike[str],
    *,
    inputs: str | Sequence[str] | None = None,
    tfds: str | None = None,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    download: bool = False,
    key: str | None = None,
    shape: tuple[int, ...] | None = None,
    raw: str | None = None,
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
        arrays, CSV and Parquet tables, TFRecord files, or images; all of one
        kind. None with `tfds`.
      tfds: Name and split of a data set of TensorFlow Datasets, such as
        "mnist:train" or "my_data/config:1.0.0:train[:50%]"; see `tfds_images`.
      data_dir: Where `tfds` is prepared; the library's own default if None.
      manual_dir: Folder with the files that `tfds` would download.
      download: Whether `tfds` may be downloaded.
      key: Name of the array in `.npz` files, or of the feature in TFRecord
        files, which may be left out if there is only one; of the feature of
        `tfds`, "image" if None.
      shape: Shape of a data point of TFRecord files, see `RecordFiles`.
      raw: Type of the numbers that the bytes in TFRecord files are, such as
        "uint8"; None for numbers and for encoded pictures.
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
      ConnectionError: If `tfds` cannot be downloaded.
      TypeError: If values are no numbers.
      ValueError: If inputs are damaged, of several kinds, or do not fit each
        other or a setting.
      OSError: If the shards do not fit on the disk.
    """
    config.check("shard")
    of_records = {"shape": shape, "raw": raw}
    of_images = {
        "patch": patch,
        "stride": stride,
        "size": size,
        "channels": channels,
    }
    of_tfds = {
        "data_dir": data_dir,
        "manual_dir": manual_dir,
        "download": download or None,
    }
    if (inputs is None) == (tfds is None):
        raise ValueError(
            "either `shard.inputs` or `shard.tfds` must be given, got "
            f"{inputs!r} and {tfds!r}"
        )
    source: Input
    if tfds is not None:
        _refuse({**of_records, **of_images, "size": None}, "`shard.tfds`")
        source = _split(tfds, key, _pair(size), of_tfds)
    else:
        _refuse(of_tfds, "files")
        given = [inputs] if isinstance(inputs, str) else inputs
        paths = matching_files(given or [])
        source = _source(paths, key, of_records, of_images)
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


def _refuse(settings: dict[str, Any], what: str) -> None:
    """Raises a ValueError if there is a setting of something else."""
    for name, value in settings.items():
        if value is not None:
            raise ValueError(
                f"`shard.{name}` must be None for {what}, got {value!r}"
            )


def _split(
    tfds: str,
    key: str | None,
    size: tuple[int, int] | None,
    settings: dict[str, Any],
) -> TfdsSplit:
    """Returns the input that `shard.tfds` names."""
    found = _TFDS.fullmatch(tfds)
    if found is None:
        raise ValueError(
            "`shard.tfds` must be a name and a split, as in 'mnist:train', got "
            f"{tfds!r}"
        )
    return TfdsSplit(
        *found.groups(),
        feature="image" if key is None else key,
        size=size,
        **{**settings, "download": bool(settings["download"])},
    )


def _source(
    paths: Sequence[str],
    key: str | None,
    of_records: dict[str, Any],
    of_images: dict[str, Any],
) -> Input:
    """Returns the input of a kind of files; settings of others are refused."""
    suffixes = {
        RECORDS if is_record_file(path) else pathlib.Path(path).suffix.lower()
        for path in paths
    }
    is_array = suffixes <= set(ARRAY_SUFFIXES)
    is_table = suffixes <= set(TABLE_SUFFIXES)
    is_record = suffixes == {RECORDS}
    is_mixed = suffixes & {*ARRAY_SUFFIXES, *TABLE_SUFFIXES, RECORDS}
    if is_mixed and not (is_array or is_table or is_record):
        raise ValueError(
            "`shard.inputs` must be all arrays, all tables, all TFRecord files "
            "or all images, got files that end in "
            f"{', '.join(sorted(suffixes))}"
        )
    if is_array or is_table:
        _refuse(of_images, "arrays and tables")
    if is_record:
        _refuse(of_images, "TFRecord files")
        return RecordFiles(paths, key, **of_records)
    _refuse(of_records, "all but TFRecord files")
    if key is not None and not is_array:
        raise ValueError(
            "`shard.key` must be None but for .npz and TFRecord files, got "
            f"{key!r}"
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
