# SPDX-License-Identifier: Apache-2.0
r"""Writes data points as shards, for training on more than the memory holds.

Usage:
  tfvae shard --input=points.npy --run_dir=shards/points
  tfvae shard --input="parts/*.npz" --key=x --run_dir=shards/parts
  tfvae shard --input=table.csv --missing=refuse --run_dir=shards/table
  tfvae shard --input=photos --patch=8 --stride=4 --run_dir=shards/photos
  tfvae train --gin_file=runs/shards.gin \
      --gin_param="FOLDER='shards/photos'" --run_dir=runs/photos

Writes shard-000000.npy, ... and, when all are complete, manifest.json to the
folder. Repeat the command to continue after an interrupt or a kill. Inputs are
.npy and .npz arrays, CSV and Parquet tables, or images, in the order of their
names; NaN and empty fields are missing entries.
"""

from __future__ import annotations

from absl import flags

from tfvae.cli import console

_PARAMETERS = {
    "input": "shard.inputs",
    **{
        name: f"shard.{name}"
        for name in (
            *("key", "patch", "stride", "size", "channels"),
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
    flags.DEFINE_string(
        "key", None, "Name of the array in .npz files.", flag_values=values
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
    """Raises a ValueError if there is no input."""
    if not values.input and not values.gin_file:
        raise ValueError(
            "`--input` must be given, as in --input=points.npy or "
            "--input='parts/*.npy'"
        )


def main(values: flags.FlagValues) -> None:
    """Runs the subcommand."""
    from tfvae.runs import config
    from tfvae.runs.shard import shard

    config.load(
        values.gin_file,
        console.bindings(values, _PARAMETERS),
        function="shard",
    )
    shard(values.run_dir)
