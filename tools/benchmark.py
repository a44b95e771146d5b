# SPDX-License-Identifier: Apache-2.0
r"""Measures how fast a configuration trains, beside another program or not.

Usage:
  python tools/benchmark.py --gin_file=gin/quickstart.gin \
      --run_dir=runs/benchmark
  python tools/benchmark.py --gin_param="IMAGE='house.png'" \
      --gin_file=gin/papers/ecml2022_tvae/house_noise25.gin \
      --compare="python other.py" --run_dir=runs/benchmark

Prints a table and writes benchmark.json: data points per second of whole EM
epochs, medians, and the most memory used. The command to compare with prints
a JSON line with "per_second" for each of its epochs; both run in turn.
"""

from __future__ import annotations

import sys

import console
from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this tool."""
    flags.DEFINE_string(
        "compare", None, "Command to run beside ours.", flag_values=values
    )


def main(values: flags.FlagValues) -> None:
    """Runs the tool."""
    from tfvae.runners import config
    from tfvae.runners.benchmark import benchmark

    bindings = console.bindings(values, {"compare": "benchmark.compare"})
    config.load(console.gin_files(values), bindings)
    benchmark(console.run_dir(values))


if __name__ == "__main__":
    sys.exit(console.run(main, __doc__, define))
