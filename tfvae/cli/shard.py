# SPDX-License-Identifier: Apache-2.0
r"""Writes data points as shards, for training on more than the memory holds.

Usage:
  tfvae shard --input=points.npy --run_dir=shards/points
  tfvae shard --input="parts/*.npz" --key=x --run_dir=shards/parts
  tfvae shard --input=table.csv --missing=refuse --run_dir=shards/table
  tfvae shard --input=photos --patch=8 --stride=4 --run_dir=shards/photos
  tfvae shard --input="data/*.tfrecord*" --key=image --run_dir=shards/records
  tfvae shard --tfds=mnist:train --data_dir=tfds --run_dir=shards/mnist
  tfvae train --gin_file=runs/shards.gin \
      --gin_param="FOLDER='shards/photos'" --run_dir=runs/photos

Writes shard-000000.npy, ... and, when all are complete, manifest.json to the
folder. Repeat the command to continue after an interrupt or a kill. Inputs are
.npy and .npz arrays, CSV and Parquet tables, TFRecord files, or images, in the
order of their names; NaN and empty fields are missing entries. Or they are a
split of a data set of TensorFlow Datasets.
"""

from __future__ import annotations

from absl import flags

from tfvae.cli import console

_PARAMETERS = {
    "input": "shard.inputs",
    **{
        name: f"shard.{name}"
        for name in (
            *("tfds", "data_dir", "download", "key", "raw"),
            *("patch", "stride", "size", "channels"),
            *("dtype", "missing", "rows_per_shard"),
        )
    },
}


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this subcommand."""
    flags.DEFINE_multi_string(
        "input",
        None,
        "File, folder or pattern such as 'parts/*.npy'. Repeatable.",
        flag_values=values,
    )
    for name, text in (
        (
            "tfds",
            "Name and split of a data set of TensorFlow Datasets, such as"
            " mnist:train or 'mnist:train[:50%]', in the place of --input.",
        ),
        ("data_dir", "Folder in which --tfds is prepared."),
        (
            "key",
            "Name of the array in .npz files, or of the feature in TFRecord"
            " files or of --tfds (image unless set).",
        ),
        (
            "raw",
            "Type of the numbers that the bytes in TFRecord files are, such as"
            " uint8 (an encoded picture unless set).",
        ),
    ):
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_bool(
        "download",
        None,
        "Whether --tfds may be downloaded (no unless set).",
        flag_values=values,
    )
    flags.DEFINE_list(
        "shape",
        None,
        "Shape of a data point of TFRecord files, such as 28,28,1 (a vector, or"
        " that of the picture, unless set).",
        flag_values=values,
    )
    for name, text in (
        ("patch", "Side of patches of the images (whole images unless set)."),
        ("stride", "Distance of neighbouring patches (1 unless set)."),
        ("size", "Side that images are resized to."),
        ("channels", "1 to convert images to grey, 3 to RGB."),
        ("rows_per_shard", "Data points of a shard (256 MB unless set)."),
    ):
        console.define_integer(name, text, values, 1)
    flags.DEFINE_enum(
        "dtype",
        None,
        ["float32", "float16", "uint8"],
        "Type of the stored values (uint8 for bytes, float32 for others "
        "unless set).",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "missing",
        None,
        ["allow", "refuse"],
        "Whether entries may be missing (allow unless set).",
        flag_values=values,
    )


def check(values: flags.FlagValues) -> None:
    """Raises a ValueError if there is no input, or a flag has a wrong value."""
    if not (values.input or values.tfds or values.gin_file):
        raise ValueError(
            "`--input` must be given, as in --input=points.npy or "
            "--input='parts/*.npy', or `--tfds`"
        )
    _shape(values)


def _shape(values: flags.FlagValues) -> tuple[int, ...] | None:
    """Returns the value of `--shape`; raises a ValueError for others."""
    given = values.shape
    if given is None:
        return None
    if not given or not all(
        one.isascii() and one.isdigit() and int(one) > 0 for one in given
    ):
        raise ValueError(
            "`--shape` must be positive integers, as in --shape=28,28,1, got "
            f"{','.join(given)!r}"
        )
    return tuple(map(int, given))


def main(values: flags.FlagValues) -> None:
    """Runs the subcommand."""
    from tfvae.runs import config
    from tfvae.runs.shard import shard

    bindings = console.bindings(values, _PARAMETERS)
    shape = _shape(values)
    if shape is not None:
        bindings.append(f"shard.shape = {shape!r}")
    config.load(values.gin_file, bindings, function="shard")
    shard(values.run_dir)
