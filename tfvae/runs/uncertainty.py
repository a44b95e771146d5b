# SPDX-License-Identifier: Apache-2.0
"""Standard deviations of restored pixels: files, figure and summary."""

from __future__ import annotations

import math
import pathlib

import numpy as np

from tfvae import files
from tfvae.data import encoding, images
from tfvae.data.formats import Image
from tfvae.plots import embedding
from tfvae.restoration import Restoration
from tfvae.runs import summaries
from tfvae.runs.experiment import Experiment
from tfvae.runs.run_directory import RunDirectory

SUFFIXES = (".npy", ".tif", ".tiff")
"""Endings of the files that standard deviations can be written to."""

FILE = "uncertainty.npy"
"""File of a run folder that has them, in the picture's own units."""

# Share of the values that are not white in the figure.
_SHOWN = 0.995


def write(
    run: RunDirectory,
    restoration: Restoration,
    restored: np.ndarray,
    std: np.ndarray,
    factor: float,
) -> dict[str, float]:
    """Writes uncertainty.npy and figures/uncertainty.png, and prints a line.

    Args:
      run: Folder of the run.
      restoration: The restoration.
      restored: The restored image, on 0..255.
      std: Its standard deviations, likewise.
      factor: What they are multiplied by.

    Returns:
      For the summary: the mean standard deviation in the picture's units and,
      with a clean picture, the shares of its values within one and two
      standard deviations of the restored ones.
    """
    std = np.float32(factor) * std
    units = std * np.float32(restoration.value_range.width / images.WHITE)
    with files.replacing(run.path / FILE, "wb") as file:
        np.save(file, encoding.as_array(units))
    shown, white = drawn(units)
    images.write_image(run.figures / "uncertainty.png", images.WHITE * shown)
    print(
        f"uncertainty of {restoration.name}: standard deviations of "
        f"{np.min(units):.3g} to {np.max(units):.3g}, median "
        f"{np.median(units):.3g}; white in "
        f"figures/uncertainty.png is {white:.3g}"
    )
    found = {"mean_std": float(np.mean(units, dtype=np.float64))}
    if restoration.clean is not None:
        error = np.abs(restored - restoration.clean)
        is_restored = np.ones(error.shape, bool)
        if restoration.keep_observed:
            is_restored = np.isnan(restoration.image)
        for count in (1, 2) if is_restored.any() else ():
            within = (error <= count * std)[is_restored]
            found[f"within_{count}_std"] = float(within.mean())
    return found


def merged(
    parts: Experiment, restoration: Restoration, rows: slice | None = None
) -> np.ndarray:
    """Returns the posterior's standard deviations; all ranks have to call it.

    Args:
      parts: The trained experiment.
      restoration: Its restoration.
      rows: The data points of the picture, as a slice of all with both ends;
        None for all.

    Returns:
      `[height, width, channels]` on the scale of 0..255.
    """
    points, index = summaries.stored_points(parts, rows)
    _, std = restoration.merge_moments(
        parts.model.stored_moments(points, index), parts.model.ranks
    )
    return std


def drawn(std: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns standard deviations as they are shown, and what is white.

    Args:
      std: `[height, width, channels]`, or `[height, width]` as in `FILE`.

    Returns:
      `[height, width, 1 or 3]` from 0, white is 1; and the standard deviation
      that is white.
    """
    shown = images.shown_channels(std if std.ndim == 3 else std[..., None])
    white = embedding.signed_limit(shown, _SHOWN) or 1.0
    return shown / white, white


def check_kind(output: str, restoration: Restoration) -> None:
    """Raises a ValueError if `output` could not hold standard deviations."""
    suffix = pathlib.Path(output).suffix
    channels = restoration.image.shape[2]
    reason = encoding.why_unsuitable(suffix, np.dtype("f4"), channels, False)
    if reason is not None:
        raise ValueError(
            f"`output_std` must end in .tif, as {suffix} can not hold {reason},"
            f" got {output!r}."
        )


def check_factor(factor: float) -> None:
    """Raises a ValueError unless `std_factor` is positive and finite."""
    if not factor > 0.0 or not math.isfinite(factor):
        raise ValueError(
            f"`std_factor` must be positive and finite, got {factor!r}."
        )


def copy(run: RunDirectory, output: str) -> None:
    """Writes the standard deviations of a finished run to a file.

    Args:
      run: Folder of the run.
      output: The file, which ends in one of `SUFFIXES`.

    Raises:
      FileNotFoundError: If the run has none.
    """
    path = run.path / FILE
    if not path.exists():
        raise FileNotFoundError(
            f"`output_std` needs the standard deviations of the run, but {path}"
            " does not exist; choose another `run_dir`."
        )
    std = np.load(path)
    std = std[..., None] if std.ndim == 2 else std
    images.write_values(output, Image(std))
