# SPDX-License-Identifier: Apache-2.0
"""Experiments that take a second, for the tests of the runners."""

from __future__ import annotations

import csv
import pathlib

from tfvae.runs import config

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
    names = [one.split()[0] for one in _BARS]  # Idle with other data.
    bindings = [*_MODEL, *_BARS, *params]
    config.load(["runs/bars.gin"], bindings, may_be_idle=names)


def load_picture(*params: str) -> None:
    """Configures `denoise` with a picture of 16 x 16 pixels."""
    config.load(["runs/denoise.gin"], [*_MODEL, *_PICTURE, *params])


def metrics(run_dir: str | pathlib.Path) -> list[dict[str, str]]:
    """Returns metrics.csv of a run, but for its time."""
    with open(pathlib.Path(run_dir) / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"]
    return rows
