# SPDX-License-Identifier: Apache-2.0
r"""How often clean pixels are within 1 and 2 standard deviations.

Usage:
  PYTHONPATH=. python -m benchmarks.calibration --run_dir=runs/calibration

Adds noise to crops of pictures, denoises them by `tfvae denoise`, and counts
how often a clean value is within 1 and 2 of the standard deviations of the
restored ones. One factor for all standard deviations is fitted to half of the
pictures, so that 68.3 % of their clean values are within 1, and tried on the
others. Prints a table, and writes calibration.json to the folder. Finished runs
are not repeated.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import NamedTuple

import numpy as np

from benchmarks.tables import print_table
from tfvae.data.images import embedded_image
from tfvae.runs import config
from tfvae.runs.denoise import denoise
from tfvae.runs.uncertainty import FILE

# Pictures of scikit-image; every other one is fitted to.
_PICTURES = (
    "camera",
    "coins",
    "astronaut",
    "brick",
    "chelsea",
    "moon",
    "coffee",
    "grass",
)
_SIDE = 128
_WITHIN = 0.6827  # of a normal distribution, within one standard deviation


class Errors(NamedTuple):
    """Errors of a restored picture, and what it says of them.

    Attributes:
      error: `[n]`, absolute, in the picture's units.
      std: `[n]`, standard deviations, not scaled.
    """

    error: np.ndarray
    std: np.ndarray

    def within(self, count: float, factor: float = 1.0) -> float:
        """Returns the share of errors of at most `count` deviations."""
        return float(np.mean(self.error <= count * factor * self.std))


def fitted_factor(errors: list[Errors]) -> float:
    """Returns the factor by which 68.3 % of errors are within one deviation.

    Each picture counts the same.
    """
    ratios = [one.error / np.maximum(one.std, 1e-9) for one in errors]
    size = min(map(len, ratios))
    rng = np.random.default_rng(0)
    drawn = [rng.choice(one, size, replace=False) for one in ratios]
    return float(np.quantile(np.concatenate(drawn), _WITHIN))


def measure(
    picture: str, noise_std: float, epochs: int, folder: pathlib.Path
) -> Errors:
    """Restores a noisy picture, or reads what a run before has restored."""
    height, width = embedded_image(picture).shape[:2]
    corner = (height - _SIDE) // 2, (width - _SIDE) // 2
    clean = embedded_image(picture, crop=(*corner, _SIDE, _SIDE))
    # Floats, so that results are not rounded.
    np.save(f"{folder}_clean.npy", clean)
    config.load(
        ["runs/denoise.gin"],
        [
            f"IMAGE = '{folder}_clean.npy'",
            "corrupted_image.value_range = (0, 255)",
            f"corrupted_image.noise_std = {noise_std!r}",
            f"denoise.output = '{folder}.npy'",
            "denoise.export = False",
            "denoise.std_factor = 1.0",
            f"fit.epochs = {epochs}",
            f"cyclical_adam.half_cycle_epochs = {epochs / 2:g}",
        ],
        function="denoise",
    )
    denoise(folder)
    restored = np.load(f"{folder}.npy").reshape(clean.shape)
    error = np.abs(restored.astype(np.float64) - clean)
    return Errors(error.ravel(), np.load(folder / FILE).ravel())


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run_dir", type=pathlib.Path, required=True)
    parser.add_argument("--noise_std", type=float, nargs="*", default=[25.0])
    parser.add_argument("--epochs", type=int, default=16)
    given = parser.parse_args()
    given.run_dir.mkdir(parents=True, exist_ok=True)
    found = {
        (noise_std, picture): measure(
            picture,
            noise_std,
            given.epochs,
            given.run_dir / f"{picture}_{noise_std:g}",
        )
        for noise_std in given.noise_std
        for picture in _PICTURES
    }
    factor = fitted_factor(
        [one for (_, name), one in found.items() if name in _PICTURES[::2]]
    )
    rows = [
        [
            picture,
            f"{noise_std:g}",
            "fitted to" if picture in _PICTURES[::2] else "tested on",
            *(
                f"{100.0 * one.within(count, scale):.1f}"
                for scale in (1.0, factor)
                for count in (1, 2)
            ),
        ]
        for (noise_std, picture), one in found.items()
    ]
    print(f"factor: {factor:.3f}; shares in %")
    header = ["picture", "noise", "", "1 sd", "2 sd", "1 sd, x factor"]
    print_table([*header, "2 sd, x factor"], rows)
    (given.run_dir / "calibration.json").write_text(
        json.dumps({"factor": factor, "rows": rows}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
