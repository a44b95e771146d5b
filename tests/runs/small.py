# SPDX-License-Identifier: Apache-2.0
"""Experiments that take a second, for the tests of the runners."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Sequence

from tfvae.runs import config
from tfvae.runs.denoise_many import Configuration

_MODEL = (
    "FullyConnectedDecoder.hidden = (4,)",
    "TVAE.num_latents = 6",
    "TVAE.num_states = 8",
    "TVAE.num_m_states = None",
    "Evolution.num_parents = 2",
    "Evolution.num_children = 2",
    "TVAE.inference_steps = 3",
    "fit.batch_size = 16",
    "fit.observe_every = 2",
)
_BARS = ("bars.num_data = 40", "bars.num_test = 0")
_PICTURE = (
    "IMAGE = 'camera'",
    "corrupted_image.crop = (90, 200, 16, 16)",
    "corrupted_image.patch = (4, 4)",
    "corrupted_image.noise_std = 25.0",
)


def load_bars(*params: str) -> None:
    """Configures `train` with 40 small bar pictures."""
    _load("runs/bars.gin", [*_MODEL, *_BARS], params)


def load_picture(*params: str) -> None:
    """Configures `denoise` with a picture of 16 x 16 pixels."""
    _load("runs/denoise.gin", [*_MODEL, *_PICTURE], params)


def pictures(image: str | pathlib.Path, *params: str) -> Configuration:
    """Returns a configuration of `denoise_many` with small patches."""
    given = [f"IMAGE = {str(image)!r}", "corrupted_image.patch = (4, 4)"]
    return Configuration(
        ["runs/denoise.gin"],
        [*_MODEL, *given, "denoise.export = False", "fit.epochs = 1", *params],
    )


def _load(name: str, defaults: Sequence[str], params: Sequence[str]) -> None:
    """Loads a file; `params` may make any of the `defaults` idle."""
    names = [one.partition(" = ")[0] for one in defaults]
    config.load([name], [*defaults, *params], may_be_idle=names)


def metrics(run_dir: str | pathlib.Path) -> list[dict[str, str]]:
    """Returns metrics.csv of a run, but for its time."""
    with open(pathlib.Path(run_dir) / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"]
    return rows
