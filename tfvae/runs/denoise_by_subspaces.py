# SPDX-License-Identifier: Apache-2.0
"""The part of a restoration that local subspaces do in place of a model."""

from __future__ import annotations

import csv
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tqdm

from tfvae import files
from tfvae.data import images
from tfvae.local_subspaces import Estimate, LocalSubspaces, check_fillable
from tfvae.ops import noise_level
from tfvae.restoration import Restoration
from tfvae.runs.run_directory import RunDirectory

# Smallest standard deviation of the noise, on 0..255.
_LEAST = 1e-3


class Restored(NamedTuple):
    """A restored image.

    Attributes:
      image: `[height, width, channels]` float32 on 0..255.
      std: The standard deviations of its values, likewise.
      rows: The metrics of each epoch or round.
      noise: What its noise was known or found to be, for the summary.
    """

    image: np.ndarray
    std: np.ndarray
    rows: list[dict[str, float]]
    noise: dict[str, Any]


def noise_of(restoration: Restoration) -> tuple[float, dict[str, Any]]:
    """Returns the noise of an image that local subspaces can restore.

    Args:
      restoration: The image.

    Returns:
      The standard deviation of the noise of `Restoration.values`, 0 where
      missing values are to be filled in, and what it is known or found to be,
      for the summary.

    Raises:
      ValueError: If there are missing values and noise, or too few others, or
        the noise differs between pixels or can not be estimated.
    """
    size = restoration.image.shape[:2]
    if min(size) < 2:
        raise ValueError(
            "`image` must have at least 2 x 2 pixels with --method=subspaces, "
            f"got {size[0]} x {size[1]}"
        )
    if restoration.missing_fraction:
        if not restoration.keep_observed or restoration.noise is not None:
            raise ValueError(
                "`image` must be complete, or what is observed must stay as it "
                "is, with --method=subspaces; --method=tvae fills in and "
                "denoises"
            )
        check_fillable(restoration.values)
        return 0.0, {}
    if restoration.noise is not None:
        described = restoration.noise.describe().removeprefix("noise: ")
        std = restoration.noise.std_of_model(restoration.value_range)
        return std, {"noise": described}
    try:
        std = noise_level.noise_std(restoration.values)
    except ValueError as error:
        raise ValueError(f"{error}; `--known_noise_std` gives it") from error
    noise_std, share = restoration.in_units(std * restoration.scale)
    print(
        f"noise: standard deviation {noise_std:.4g} ({100.0 * share:.3g} % of "
        f"the range {restoration.value_range}), estimated",
        flush=True,
    )
    return max(std, _LEAST), {"noise_std": noise_std}


def restore(
    run: RunDirectory,
    restoration: Restoration,
    method: LocalSubspaces,
    found: tuple[float, dict[str, Any]],
) -> Restored:
    """Restores an image, from the last round of the run if there is one.

    After each round figures/restored_latest.png has the image as restored so
    far, and metrics.csv its time and scores.

    Args:
      run: Folder of the run, locked.
      restoration: The image.
      method: How it is restored.
      found: What `noise_of` returned.
    """
    run.write_config()
    run.checkpoints.mkdir(exist_ok=True)
    run.figures.mkdir(exist_ok=True)
    std, noise = found
    work = _filling if restoration.missing_fraction else _denoising
    last: tuple[np.ndarray, np.ndarray] | None = None
    mean, variance, rows = _saved(run)
    if mean is not None and variance is not None:
        last = mean, variance
    started = time.monotonic()
    for estimate in work(method, restoration, std, last, len(rows)):
        last = estimate.mean, estimate.variance
        now = time.monotonic()
        row: dict[str, Any] = {
            "round": len(rows) + 1,
            "seconds": now - started,
        }
        started = now
        image, _ = _finished(restoration, *last)
        if restoration.clean is not None:
            row |= restoration.score(image)
        rows.append(row)
        _save(run, *last, rows)
        _show(run, restoration, image)
        scores = f", {row['psnr']:.2f} dB" if "psnr" in row else ""
        print(
            f"round {row['round']}: {row['seconds']:.1f} s{scores}",
            flush=True,
        )
    assert last is not None
    return Restored(*_finished(restoration, *last), rows, noise)


def _denoising(
    method: LocalSubspaces,
    restoration: Restoration,
    std: float,
    last: tuple[np.ndarray, np.ndarray] | None,
    num_done: int,
) -> Iterator[Estimate]:
    """Yields estimates of a complete picture, with a progress bar."""
    values, scale = restoration.values, np.float32(1.0)
    if restoration.is_transformed:  # What suits the noise is chosen on 0..255.
        scale = np.float32(images.WHITE / max(np.ptp(values), std))
    noise = float(scale * std)
    num_left = method.count_rounds(noise) - num_done
    with _bar(num_left * method.num_steps(noise, values.shape)) as bar:
        for estimate in method.rounds(
            scale * values,
            noise,
            None if last is None else scale * last[0],
            num_done,
            lambda: bar.update(),
        ):
            yield Estimate(estimate.mean / scale, estimate.variance / scale**2)


def _filling(
    method: LocalSubspaces,
    restoration: Restoration,
    std: float,
    last: tuple[np.ndarray, np.ndarray] | None,
    num_done: int,
) -> Iterator[Estimate]:
    """Yields estimates of a picture with missing values; see `_denoising`."""
    del std  # There is no noise.
    values = restoration.values
    num_rounds = method.count_filling_rounds()
    num_left = num_rounds - num_done + (num_rounds if last is None else 0)
    with _bar(num_left) as bar:
        start, variance = last or (None, None)
        if variance is None:
            print(
                f"hiding some observed values for {num_rounds} rounds, to see "
                "how well others are filled in",
                flush=True,
            )
            variance = method.filling_variance(values, lambda: bar.update())
        for mean in method.filling_rounds(
            values, start, num_done, lambda: bar.update()
        ):
            yield Estimate(mean, variance)


def _bar(total: int) -> tqdm.tqdm:
    return tqdm.tqdm(
        total=total,
        desc="restoring",
        disable=None,  # tqdm: disable unless on a terminal.
        leave=False,
        unit="step",
    )


def _finished(
    restoration: Restoration, mean: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    image, std = restoration.from_moments(mean, variance)
    return restoration.finished(image), std


def _show(
    run: RunDirectory, restoration: Restoration, image: np.ndarray
) -> None:
    is_deep = restoration.source.values.dtype == np.uint16
    images.write_image(
        run.figures / "restored_latest.png",
        images.shown_channels(image),
        bits=16 if is_deep else 8,
    )


# Rounds that are done, on disk.


def _path(run: RunDirectory, number: int) -> pathlib.Path:
    return run.checkpoints / f"round-{number:06d}.npz"


def _save(
    run: RunDirectory,
    mean: np.ndarray,
    variance: np.ndarray,
    rows: list[dict[str, float]],
) -> None:
    """Writes the estimate after a round and removes that before it."""
    with files.replacing(run.metrics) as file:
        writer = csv.DictWriter(file, rows[-1].keys())
        writer.writeheader()
        writer.writerows(rows)
    number = len(rows)
    columns = {name: [row[name] for row in rows] for name in rows[-1]}
    with files.replacing(_path(run, number), "wb", is_synced=True) as binary:
        np.savez(binary, mean=mean, variance=variance, **columns)  # type: ignore[arg-type]
    _path(run, number - 1).unlink(missing_ok=True)


def _saved(
    run: RunDirectory,
) -> tuple[np.ndarray | None, np.ndarray | None, list[dict[str, float]]]:
    """Returns the last estimate of the run, if any, and its metrics."""
    for path in sorted(run.checkpoints.glob("round-*.npz"), reverse=True):
        try:
            with path.open("rb") as file, np.load(file) as opened:
                arrays = dict(opened)
            mean, variance = arrays.pop("mean"), arrays.pop("variance")
        except (OSError, EOFError, KeyError, ValueError):
            print(f"{path} is damaged: the picture is restored anew")
            continue
        rows = [
            {name: values[i].item() for name, values in arrays.items()}
            for i in range(len(arrays["round"]))
        ]
        print(f"resuming after round {len(rows)}", flush=True)
        return mean, variance, rows
    return None, None, []
