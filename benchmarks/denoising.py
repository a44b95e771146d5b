# SPDX-License-Identifier: Apache-2.0
r"""PSNR of restored pictures: local subspaces, fast and best, beside others.

Usage:
  PYTHONPATH=. python -m benchmarks.denoising --pictures=set12 \
      --run_dir=runs/denoising [--noise=15,25,50] [--missing=50,80] \
      [--only=01,02] [--methods=fast,best,bm3d,tvae] [--known_noise]

The pictures are all files of the folder. Noise is that of
`numpy.random.default_rng(0)`, not rounded; results are clipped to 0..255 before
they are compared. Local subspaces find the level of the noise themselves, as
`tfvae denoise` does, unless `--known_noise`; BM3D (`pip install bm3d`, default
profile) is given it. `tvae` is `tfvae denoise --method=tvae` with its defaults,
which takes much longer.

With `--missing`, that percentage of the pixels is missing, at random by the
same generator, and there is no noise. `biharmonic` is scikit-image's
`inpaint_biharmonic`, `dictionary` the one of `benchmarks.dictionary`.

Results are kept in results.jsonl of the folder and are not computed again.
Prints a table for each level, with SSIM and seconds of processor time, and
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
import skimage.restoration

from benchmarks import dictionary
from benchmarks.tables import print_table
from tfvae.data import images
from tfvae.local_subspaces import LocalSubspaces
from tfvae.ops import noise_level
from tfvae.ops.image_quality import psnr, ssim
from tfvae.runs import config
from tfvae.runs.denoise import denoise

Denoise = Callable[[np.ndarray, float, pathlib.Path], np.ndarray]
"""From a noisy picture, its noise and a folder to the denoised picture; from
one with missing values, the percentage of them, and a folder, likewise."""


Corrupt = Callable[[np.ndarray, float], np.ndarray]
"""From a clean picture and a level to the corrupted picture."""

_NOISE_METHODS = "fast,best,bm3d"


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


def filling(quality: Any) -> Denoise:
    """Returns what fills in missing values by local subspaces."""

    def run(
        damaged: np.ndarray, percentage: float, folder: pathlib.Path
    ) -> np.ndarray:
        del percentage, folder
        *_, filled = LocalSubspaces(quality=quality).filling_rounds(damaged)
        return filled

    return run


def by_biharmonic(
    damaged: np.ndarray, percentage: float, folder: pathlib.Path
) -> np.ndarray:
    """Fills in missing values by the biharmonic equation."""
    del percentage, folder
    is_missing = np.isnan(damaged)
    return skimage.restoration.inpaint_biharmonic(
        np.where(is_missing, 0.0, damaged)[..., 0], is_missing[..., 0]
    )[..., None]


def by_dictionary(
    damaged: np.ndarray, percentage: float, folder: pathlib.Path
) -> np.ndarray:
    """Fills in missing values by a dictionary that the picture has taught."""
    del percentage, folder
    return dictionary.filled(damaged[..., 0])[..., None]


def noisy(clean: np.ndarray, std: float) -> np.ndarray:
    """Adds noise."""
    # As of an array [height, width] for pictures in grey.
    noise = np.random.default_rng(0).normal(0.0, std, clean.shape)
    return (clean + noise).astype(np.float32)


def damaged(clean: np.ndarray, percentage: float) -> np.ndarray:
    """Returns a picture with missing values."""
    chances = np.random.default_rng(0).random(clean.shape)
    return np.where(100.0 * chances < percentage, np.float32(np.nan), clean)


def main(argv: Sequence[str] | None = None) -> None:
    """Denoises what is not in the folder yet, and prints the tables."""
    given = _options(argv)
    methods: dict[str, Denoise] = {
        "fast": by_subspaces("fast", given.known_noise),
        "best": by_subspaces("best", given.known_noise),
        "bm3d": by_bm3d,
        "tvae": by_tvae,
    }
    kind, levels, chosen = "noise", given.noise, _NOISE_METHODS
    corrupt: Corrupt = noisy
    if given.missing:
        kind, levels, corrupt = "missing", given.missing, damaged
        methods = {
            "fast": filling("fast"),
            "best": filling("best"),
            "biharmonic": by_biharmonic,
            "dictionary": by_dictionary,
        }
        chosen = ",".join(methods)
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
    names = (given.methods or chosen).split(",")
    for level in map(float, levels.split(",")):
        rows = []
        for path in paths:
            done = _results(folder)
            row = {}
            for name in names:
                key = f"{path.stem} {kind} {level:g} {name}"
                key += " known" if given.known_noise else ""
                if key not in done:
                    done[key] = _measured(
                        path,
                        corrupt,
                        level,
                        methods[name],
                        folder / key.replace(" ", "_"),
                    )
                    with (folder / "results.jsonl").open("a") as file:
                        file.write(json.dumps({"key": key, **done[key]}) + "\n")
                row[name] = done[key]
            rows.append(row)
        _print(f"{kind} {level:g}", [path.stem for path in paths], names, rows)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pictures", required=True)
    parser.add_argument("--run_dir", required=True)
    parser.add_argument("--noise", default="15,25,50")
    parser.add_argument("--missing", default="")
    parser.add_argument("--only", default="")
    parser.add_argument("--methods", default="")
    parser.add_argument("--known_noise", action="store_true")
    return parser.parse_args(argv)


def _results(folder: pathlib.Path) -> dict[str, dict[str, float]]:
    path = folder / "results.jsonl"
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row.pop("key"): row for row in rows}


def _measured(
    path: pathlib.Path,
    corrupt: Corrupt,
    level: float,
    method: Denoise,
    folder: pathlib.Path,
) -> dict[str, float]:
    clean = images.read_image(path).values.astype(np.float32)
    corrupted = corrupt(clean, level)
    start = time.process_time()
    restored = method(corrupted, level, folder)
    seconds = time.process_time() - start
    restored = np.clip(restored, 0.0, images.WHITE).astype(np.float32)
    images.write_image(folder.with_suffix(".png"), restored)
    scores = {
        "psnr": psnr(clean, restored, images.WHITE),
        "ssim": ssim(clean, restored, images.WHITE),
        "seconds": seconds,
    }
    print(
        f"{folder.name}: {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}, "
        f"{seconds:.1f} s",
        flush=True,
    )
    return scores


def _print(
    title: str,
    pictures: Sequence[str],
    names: Sequence[str],
    rows: Sequence[dict[str, dict[str, float]]],
) -> None:
    print(f"\n{title}: PSNR in dB, SSIM (seconds of processor time)")
    mean = {
        name: {
            key: float(np.mean([row[name][key] for row in rows]))
            for key in ("psnr", "ssim", "seconds")
        }
        for name in names
    }
    table = [
        [picture, *(_cell(row[name]) for name in names)]
        for picture, row in zip([*pictures, "mean"], [*rows, mean], strict=True)
    ]
    print_table(["picture", *names], table)


def _cell(found: dict[str, float]) -> str:
    return "{psnr:.2f}, {ssim:.4f} ({seconds:.0f})".format(**found)


if __name__ == "__main__":
    main()
