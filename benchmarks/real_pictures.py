# SPDX-License-Identifier: Apache-2.0
"""Real noisy pictures, restored beside non-local means and BM3D.

Usage:
  PYTHONPATH=. python -m benchmarks.real_pictures --run_dir=runs/real
      [--epochs=32] [--only=sky]

Restores a computed tomography in Hounsfield units, a magnetic resonance image
(both samples of pydicom) and a part of the Hubble Deep Field (of scikit-image).
None has a clean version. Each is restored by one `tfvae denoise` command, which
is printed, and drawn to NAME.png: noisy, and restored by tfvae, by
scikit-image's non-local means and by BM3D, above the same region of each,
enlarged. The latter two get the noise that `noise_std` finds, as neither
estimates it.

Needs `pip install pydicom`; without `pip install bm3d`, whose licence allows
non-commercial use only, BM3D is left out. tfvae does not read DICOM: the values
are written to .npy files first, in their own units.
"""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import shlex
import sys
import time
from collections.abc import Callable

import numpy as np
import skimage.restoration

from tfvae import plots
from tfvae.cli import main as cli
from tfvae.data import images

_BM3D = "bm3d"
# Shown are values between these percentiles, as black to white.
_PERCENTILES = (0.5, 99.0)


def _dicom(name: str) -> np.ndarray:
    """Returns a sample of pydicom in its own units, `[height, width]` int16."""
    import pydicom
    from pydicom.data import get_testdata_file

    data = get_testdata_file(name, read=True, download=False)
    if not isinstance(data, pydicom.Dataset):
        raise FileNotFoundError(f"`{name}` must be a sample of pydicom.")
    values = data.pixel_array.astype(np.float64)
    values = values * float(data.get("RescaleSlope", 1.0))
    values += float(data.get("RescaleIntercept", 0.0))
    return np.rint(values).astype(np.int16)


def _sky() -> np.ndarray:
    """Returns red of a part of the Hubble Deep Field, `[160, 160]` uint8."""
    return images.load_image("hubble").values[600:760, 100:260, 0]


PICTURES: dict[str, Callable[[], np.ndarray]] = {
    "ct": lambda: _dicom("CT_small.dcm"),
    "mr": lambda: _dicom("MR_small.dcm"),
    "sky": _sky,
}
"""Functions that return a picture, `[height, width]`, by name."""


def noise_std(values: np.ndarray) -> float:
    """Estimates the standard deviation of noise, white or not.

    Of all windows of 8 x 8 pixels a tenth has a smaller standard deviation:
    those where the picture is flat. Second differences, which estimators of
    white noise go by, find a fifth of the noise of a computed tomography, as
    neighbouring pixels have nearly the same.

    Args:
      values: `[height, width]`.
    """
    windows = np.lib.stride_tricks.sliding_window_view(values, (8, 8))
    return float(np.percentile(windows.std(axis=(-2, -1)), 10.0))


def non_local_means(values: np.ndarray, std: float) -> np.ndarray:
    """Restores a picture by non-local means, as scikit-image recommends."""
    return skimage.restoration.denoise_nl_means(
        values,
        patch_size=5,
        patch_distance=6,
        h=0.8 * std,
        sigma=std,
        fast_mode=False,
    )


def bm3d(values: np.ndarray, std: float) -> np.ndarray:
    """Restores a picture by BM3D, whose thresholds are for values on 0..1."""
    low, width = values.min(), np.ptp(values)
    scaled = (values - low) / width
    found = importlib.import_module(_BM3D).bm3d(scaled, std / width)
    return low + width * found


def compare(name: str, folder: pathlib.Path, epochs: int) -> None:
    """Restores a picture in all ways, and draws them.

    Args:
      name: One of `PICTURES`.
      folder: Folder for the picture, the run and the figure.
      epochs: Epochs of tfvae.
    """
    values = PICTURES[name]()
    path, output = folder / f"{name}.npy", folder / f"{name}_restored.npy"
    np.save(path, values)
    command = ["denoise", f"--image={path}", f"--output={output}"]
    command += [f"--epochs={epochs}", f"--run_dir={folder / name}"]
    # The run records it as its command.
    sys.argv = ["tfvae", *command]
    print("$", shlex.join(sys.argv), flush=True)
    start = time.perf_counter()
    if cli.main(command):
        raise RuntimeError(f"`tfvae denoise` failed on {name}.")
    results = {
        "noisy": values.astype(np.float64),
        "tfvae": np.load(output).reshape(values.shape).astype(np.float64),
    }
    print(f"{name}: tfvae took {time.perf_counter() - start:.0f} s")
    std = noise_std(results["noisy"])
    print(f"{name}: noise of standard deviation {std:.4g} for the others")
    results["non-local means"] = non_local_means(results["noisy"], std)
    if importlib.util.find_spec(_BM3D) is None:
        print("left out: BM3D (pip install bm3d; non-commercial use only)")
    else:
        results["BM3D"] = bm3d(results["noisy"], std)
    low, high = np.percentile(values, _PERCENTILES)
    shown = [
        (images.WHITE * (one - low) / (high - low))[..., None]
        for one in results.values()
    ]
    region = plots.busiest_region(shown[1], max(min(values.shape) // 3, 32))
    plots.comparison(shown, [*results], region, folder / f"{name}.png")
    print(f"wrote {folder / name}.png", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Compares all pictures, or the one that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--run_dir", type=pathlib.Path, required=True)
    parser.add_argument("--epochs", type=int, default=32)
    parser.add_argument("--only", choices=[*PICTURES])
    settings = parser.parse_args(argv)
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    for name in [settings.only] if settings.only else PICTURES:
        compare(name, settings.run_dir, settings.epochs)


if __name__ == "__main__":
    main(sys.argv[1:])
