# SPDX-License-Identifier: Apache-2.0
"""PSNR of denoised counts: Poisson likelihood, and Anscombe transforms.

Usage:
  PYTHONPATH=. python -m benchmarks.poisson [--image=cameraman.png]
      [--crop=0,0,256,256] [--epochs=32] [--patch=8] [--seeds=1]

Draws counts from a clean picture whose white is 1, 4 and 30 counts, and 30
counts with Gaussian read noise beside them, and denoises them by

  gaussian    TVAE with a Gaussian likelihood of one variance, as by default
  poisson     TVAE with `PoissonLikelihood`
  transform   generalised Anscombe transform, TVAE with a Gaussian likelihood of
              variance 1, exact unbiased inverse
  bm3d        the same transform and inverse around BM3D (pip install bm3d; its
              licence allows non-commercial use only), or scikit-image's
              non-local means where that is not installed

All but the first know the noise. Without `--image` the picture is "camera" of
scikit-image, resized to 256 x 256. PSNR is in decibels, relative to white, over
the whole picture, of estimates clipped to 0 and white.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import pathlib
import statistics
import time
from collections.abc import Callable

import keras
import numpy as np
import skimage.restoration

import tfvae
from benchmarks.tables import print_table
from tfvae.data import images
from tfvae.ops import anscombe
from tfvae.ops.anscombe import PoissonGaussian
from tfvae.ops.image_quality import psnr
from tfvae.schedules import TriangularCyclical

_BM3D = "bm3d"
_HAS_BM3D = importlib.util.find_spec(_BM3D) is not None

CASES = {
    "peak 1": (1.0, PoissonGaussian()),
    "peak 4": (4.0, PoissonGaussian()),
    "peak 30": (30.0, PoissonGaussian()),
    "peak 30, read noise 3": (30.0, PoissonGaussian(read_noise_std=3.0)),
}
"""White in counts, and the noise, by name."""

_BATCH_SIZE, _M_BATCH_SIZE = 2048, 128


def _denoised(
    image: np.ndarray,
    noise: tfvae.PoissonGaussianNoise | None,
    settings: argparse.Namespace,
) -> np.ndarray:
    """Returns the TVAE's estimate of an image, with the settings of `denoise`.

    Args:
      image: `[height, width, 1]`.
      noise: What is known of its noise.
      settings: With `patch` and `epochs`.
    """
    patch = (settings.patch, settings.patch)
    task = tfvae.Restoration(image, patch=patch, noise=noise)
    return task.merge(_estimates(task, settings.epochs))


def _estimates(task: tfvae.Restoration, epochs: int) -> np.ndarray:
    """Returns the estimates of all patches by a model trained on them."""
    keras.utils.set_random_seed(0)
    x = task.observations().train
    likelihood = task.likelihood(tfvae.GaussianLikelihood())
    model = tfvae.TVAE(
        tfvae.FullyConnectedDecoder(
            likelihood.num_outputs(x.shape[1]), (128,), "leaky_relu"
        ),
        num_latents=512,
        num_data=len(x),
        likelihood=likelihood,
        num_states=16,
        num_m_states=16,
        m_batch_size=_M_BATCH_SIZE,
        evolution=tfvae.Evolution(
            num_parents=2, num_children=2, num_generations=1
        ),
    )
    model.adapt(x)
    half_cycle = epochs * len(x) // _M_BATCH_SIZE // 2
    model.compile(
        keras.optimizers.Adam(TriangularCyclical(1e-4, 0.01, half_cycle))
    )
    index = np.arange(len(x))
    model.fit(x, index, batch_size=_BATCH_SIZE, epochs=epochs, verbose=0)
    return model.stored_reconstruction(x, index)


def _by_gaussian(
    x: np.ndarray, noise: PoissonGaussian, settings: argparse.Namespace
) -> np.ndarray:
    return _denoised(x, None, settings)


def _by_poisson(
    x: np.ndarray, noise: PoissonGaussian, settings: argparse.Namespace
) -> np.ndarray:
    known = tfvae.PoissonGaussianNoise(
        **dataclasses.asdict(noise), by_likelihood=True
    )
    return _denoised(x, known, settings)


def _by_transform(
    x: np.ndarray, noise: PoissonGaussian, settings: argparse.Namespace
) -> np.ndarray:
    known = tfvae.PoissonGaussianNoise(**dataclasses.asdict(noise))
    return _denoised(x, known, settings)


def _by_other(
    x: np.ndarray, noise: PoissonGaussian, settings: argparse.Namespace
) -> np.ndarray:
    values = anscombe.forward(x, noise)[..., 0]
    # BM3D's thresholds are made for values from 0 to 1.
    low, width = values.min(), np.ptp(values)
    scaled, std = (values - low) / width, 1.0 / width
    if _HAS_BM3D:
        found = importlib.import_module(_BM3D).bm3d(scaled, std)
    else:
        found = skimage.restoration.denoise_nl_means(
            scaled, patch_size=7, patch_distance=10, h=0.8 * std, sigma=std
        )
    return anscombe.inverse(low + width * found, noise)[..., None]


METHODS: dict[str, Callable[..., np.ndarray]] = {
    "gaussian": _by_gaussian,
    "poisson": _by_poisson,
    "transform": _by_transform,
    _BM3D if _HAS_BM3D else "nl_means": _by_other,
}


def _picture(path: pathlib.Path | None) -> np.ndarray:
    """Returns a grey picture on 0 .. 255, `[height, width, 1]`."""
    if path is None:
        return images.embedded_image("camera", size=(256, 256))
    return images.convert_channels(images.read_image(path).pixels, 1)


def _draw(clean: np.ndarray, noise: PoissonGaussian, seed: int) -> np.ndarray:
    """Returns a picture with noise, of clean rates in counts."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(clean).astype(np.float64)
    read = rng.normal(noise.offset, noise.read_noise_std, counts.shape)
    return noise.gain * counts + read


def main(argv: list[str] | None = None) -> list[list[str]]:
    """Prints the table, and returns its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=pathlib.Path)
    parser.add_argument("--crop", help="top,left,height,width")
    parser.add_argument("--epochs", type=int, default=32)
    parser.add_argument("--patch", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1)
    settings = parser.parse_args(argv)
    if settings.image is not None and not settings.image.exists():
        print(f"skipped: `--image` {settings.image} does not exist")
        return []
    clean = _picture(settings.image)
    if settings.crop is not None:
        top, left, height, width = map(int, settings.crop.split(","))
        clean = images.crop_image(clean, (top, left, height, width))
    print(
        f"{clean.shape[0]} x {clean.shape[1]} pixels, patches of "
        f"{settings.patch}, {settings.epochs} epochs"
    )
    if not _HAS_BM3D:
        print(
            "bm3d is not installed (its licence allows non-commercial use "
            "only): non-local means instead"
        )
    rows = []
    for name, (peak, noise) in CASES.items():
        rates = peak * clean.astype(np.float64) / images.WHITE
        found: dict[str, list[float]] = {"noisy": []}
        seconds: dict[str, float] = {}
        for seed in range(settings.seeds):
            x = _draw(rates, noise, seed)
            found["noisy"].append(psnr(rates, x, peak))
            for method, denoise in METHODS.items():
                start = time.perf_counter()
                restored = np.clip(denoise(x, noise, settings), 0.0, peak)
                seconds[method] = time.perf_counter() - start
                value = psnr(rates, restored, peak)
                found.setdefault(method, []).append(value)
                print(
                    f"{name}, seed {seed}, {method}: {value:.2f} dB, "
                    f"{seconds[method]:.0f} s",
                    flush=True,
                )
        rows.append(
            [name, *(f"{statistics.mean(v):.2f}" for v in found.values())]
        )
    print_table(["PSNR / dB", "noisy", *METHODS], rows)
    return rows


if __name__ == "__main__":
    main()
