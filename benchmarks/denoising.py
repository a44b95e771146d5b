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
from typing import Any, NamedTuple

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
    parser = comparison_parser(__doc__, "fast,best,bm3d")
    parser.add_argument("--noise", default="15,25,50")
    parser.add_argument("--known_noise", action="store_true")
    given = parser.parse_args(argv)
    methods: dict[str, Denoise] = {
        "fast": by_subspaces("fast", given.known_noise),
        "best": by_subspaces("best", given.known_noise),
        "bm3d": by_bm3d,
        "tvae": by_tvae,
    }

    def restored(
        clean: np.ndarray, std: float, name: str, folder: pathlib.Path
    ) -> Restored:
        # As of an array [height, width] for pictures in grey.
        noise = np.random.default_rng(0).normal(0.0, std, clean.shape)
        noisy = (clean + noise).astype(np.float32)
        start = time.perf_counter()
        found = methods[name](noisy, std, folder)
        return Restored(found, time.perf_counter() - start)

    suffix = " known" if given.known_noise else ""
    for std in map(float, given.noise.split(",")):
        compare(given, std, f"noise {std:g}", restored, suffix)


class Restored(NamedTuple):
    """A restored picture, `[height, width, channels]`, and its seconds."""

    values: np.ndarray
    seconds: float


Restore = Callable[[np.ndarray, float, str, pathlib.Path], Restored]
"""From a clean picture, how far it is damaged, the name of a method and a
folder to what the method makes of the damaged picture."""


def comparison_parser(usage: str | None, names: str) -> argparse.ArgumentParser:
    """Returns a parser of the flags that `compare` reads."""
    parser = argparse.ArgumentParser(
        description=usage, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pictures", required=True)
    parser.add_argument("--run_dir", required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--methods", default=names)
    return parser


def compare(
    given: argparse.Namespace,
    level: float,
    title: str,
    restore: Restore,
    suffix: str = "",
) -> None:
    """Restores what is not in the folder yet, and prints a table.

    Args:
      given: The flags.
      level: How far pictures are damaged.
      title: Its name, for the table.
      restore: Damages and restores a picture.
      suffix: What else distinguishes results in the folder.
    """
    folder = pathlib.Path(given.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    names = given.methods.split(",")
    rows = []
    paths = _paths(given)
    for path in paths:
        done = _results(folder)
        row = {}
        for name in names:
            key = f"{path.stem} {level:g} {name}{suffix}"
            if key not in done:
                clean = images.read_image(path).values.astype(np.float32)
                own = folder / key.replace(" ", "_")
                done[key] = _scores(
                    clean, restore(clean, level, name, own), own
                )
                with (folder / "results.jsonl").open("a") as file:
                    file.write(json.dumps({"key": key, **done[key]}) + "\n")
            row[name] = done[key]
        rows.append(row)
    _print(title, [path.stem for path in paths], names, rows)


def _paths(given: argparse.Namespace) -> list[pathlib.Path]:
    found = sorted(
        path for path in pathlib.Path(given.pictures).iterdir() if path.suffix
    )
    only = given.only.split(",") if given.only else None
    paths = [one for one in found if only is None or one.stem in only]
    if not paths:
        raise ValueError(
            f"`--pictures` must be a folder with files, got {given.pictures}"
        )
    return paths


def _results(folder: pathlib.Path) -> dict[str, dict[str, float]]:
    path = folder / "results.jsonl"
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row.pop("key"): row for row in rows}


def _scores(
    clean: np.ndarray, restored: Restored, path: pathlib.Path
) -> dict[str, float]:
    values = np.clip(restored.values, 0.0, images.WHITE).astype(np.float32)
    images.write_image(path.with_name(f"{path.name}.png"), values)
    value = psnr(clean, values, images.WHITE)
    print(f"{path.name}: {value:.2f} dB, {restored.seconds:.1f} s", flush=True)
    return {"psnr": value, "seconds": restored.seconds}


def _print(
    title: str,
    pictures: Sequence[str],
    names: Sequence[str],
    rows: Sequence[dict[str, dict[str, float]]],
) -> None:
    print(f"\n{title}: PSNR in dB (seconds)")
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
