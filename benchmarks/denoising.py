# SPDX-License-Identifier: Apache-2.0
r"""PSNR of denoised pictures: local subspaces, fast and best, beside BM3D.

Usage:
  PYTHONPATH=. python -m benchmarks.denoising --pictures=set12 \
      --run_dir=runs/denoising [--noise=15,25,50] [--only=01,02] \
      [--methods=fast,best,bm3d,tvae] [--known_noise]

The pictures are all files of the folder. Noise is that of
`numpy.random.default_rng(0)`, not rounded; results are clipped to 0..255 before
they are compared. Local subspaces find the level of the noise themselves, as
`tfvae denoise` does, unless `--known_noise`; BM3D (`pip install bm3d`, default
profile) is given it. `tvae` is `tfvae denoise --method=tvae` with its defaults,
which takes much longer. Results are kept in results.jsonl of the folder and are
not computed again. Prints a table for each level of noise, with seconds, and
writes the pictures to the folder.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.tables import print_table
from tfvae.data import images
from tfvae.local_subspaces import LocalSubspaces
from tfvae.ops import noise_level
from tfvae.ops.image_quality import psnr
from tfvae.runs import config
from tfvae.runs.denoise import denoise

Denoise = Callable[[np.ndarray, float, pathlib.Path], np.ndarray]
"""From a noisy picture, its noise and a folder to the denoised picture."""


def by_subspaces(quality: Any, is_known: bool) -> Denoise:
    """Returns what denoises by local subspaces."""

    def run(noisy: np.ndarray, std: float, folder: pathlib.Path) -> np.ndarray:
        del folder
        found = std if is_known else noise_level.noise_std(noisy)
        return LocalSubspaces(quality=quality).denoised(noisy, found).mean

    return run


def by_bm3d(noisy: np.ndarray, std: float, folder: pathlib.Path) -> np.ndarray:
    """Denoises by BM3D."""
    import bm3d

    del folder
    return bm3d.bm3d(noisy, std).reshape(noisy.shape)


def by_tvae(noisy: np.ndarray, std: float, folder: pathlib.Path) -> np.ndarray:
    """Denoises by a TVAE, of the patches of this picture."""
    del std
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / "noisy.npy"
    np.save(image, noisy)
    config.load(
        ["runs/denoise.gin"],
        [
            f"IMAGE = {str(image)!r}",
            f"corrupted_image.value_range = (0.0, {images.WHITE})",
            "denoise.export = False",
        ],
        function="denoise",
    )
    denoise(folder / "run")
    restored = images.read_image(folder / "run" / "figures" / "restored.tif")
    return restored.values


def main(argv: Sequence[str] | None = None) -> None:
    """Denoises what is not in the folder yet, and prints the tables."""
    given = _options(argv)
    methods: dict[str, Denoise] = {
        "fast": by_subspaces("fast", given.known_noise),
        "best": by_subspaces("best", given.known_noise),
        "bm3d": by_bm3d,
        "tvae": by_tvae,
    }
    found = sorted(
        path for path in pathlib.Path(given.pictures).iterdir() if path.suffix
    )
    only = given.only.split(",") if given.only else None
    paths = [one for one in found if only is None or one.stem in only]
    if not paths:
        raise ValueError(
            f"`--pictures` must be a folder with files, got {given.pictures}"
        )
    folder = pathlib.Path(given.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    names = given.methods.split(",")
    for std in map(float, given.noise.split(",")):
        rows = []
        for path in paths:
            done = _results(folder)
            row = {}
            for name in names:
                key = f"{path.stem} {std:g} {name}"
                key += " known" if given.known_noise else ""
                if key not in done:
                    done[key] = _measured(
                        path, std, methods[name], folder / key.replace(" ", "_")
                    )
                    with (folder / "results.jsonl").open("a") as file:
                        file.write(json.dumps({"key": key, **done[key]}) + "\n")
                row[name] = done[key]
            rows.append(row)
        _print(std, [path.stem for path in paths], names, rows)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pictures", required=True)
    parser.add_argument("--run_dir", required=True)
    parser.add_argument("--noise", default="15,25,50")
    parser.add_argument("--only", default="")
    parser.add_argument("--methods", default="fast,best,bm3d")
    parser.add_argument("--known_noise", action="store_true")
    return parser.parse_args(argv)


def _results(folder: pathlib.Path) -> dict[str, dict[str, float]]:
    path = folder / "results.jsonl"
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row.pop("key"): row for row in rows}


def _measured(
    path: pathlib.Path, std: float, method: Denoise, folder: pathlib.Path
) -> dict[str, float]:
    clean = images.read_image(path).values.astype(np.float32)
    rng = np.random.default_rng(0)
    # As of an array [height, width] for pictures in grey.
    noise = rng.normal(0.0, std, clean.shape)
    noisy = (clean + noise).astype(np.float32)
    start = time.perf_counter()
    restored = method(noisy, std, folder)
    seconds = time.perf_counter() - start
    restored = np.clip(restored, 0.0, images.WHITE)
    images.write_image(folder.with_suffix(".png"), restored)
    value = psnr(clean, restored.astype(np.float32), images.WHITE)
    print(f"{folder.name}: {value:.2f} dB, {seconds:.1f} s", flush=True)
    return {"psnr": value, "seconds": seconds}


def _print(
    std: float,
    pictures: Sequence[str],
    names: Sequence[str],
    rows: Sequence[dict[str, dict[str, float]]],
) -> None:
    print(f"\nnoise {std:g}: PSNR in dB (seconds)")
    table = [
        [picture]
        + [
            f"{row[name]['psnr']:.2f} ({row[name]['seconds']:.0f})"
            for name in names
        ]
        for picture, row in zip(pictures, rows, strict=True)
    ]
    means = [
        [
            np.mean([row[name][key] for row in rows])
            for key in ("psnr", "seconds")
        ]
        for name in names
    ]
    table.append(["mean", *(f"{one:.2f} ({took:.0f})" for one, took in means)])
    print_table(["picture", *names], table)


if __name__ == "__main__":
    main()
