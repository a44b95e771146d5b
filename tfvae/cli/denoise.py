# SPDX-License-Identifier: Apache-2.0
r"""Denoises or in-paints one picture, without any other training data.

Usage:
  tfvae denoise --image=photo.png --output=restored.png \
      --run_dir=runs/photo
  tfvae denoise --image=photo.png --mask=scratches.png \
      --run_dir=runs/scratches
  tfvae denoise --image=house.png --noise_std=25 \
      --gin_file=papers/ecml2022_tvae/house_noise25.gin \
      --run_dir=runs/house25

The second example fills in where the mask is not black. The last one adds
noise to a clean picture and measures how much of it is removed. Files that do
not say what to restore override parts of runs/denoise.gin. Watch
figures/restored_latest.png in the run folder. The same command again resumes
a run that was interrupted.
"""

from __future__ import annotations

from absl import flags

from tfvae.cli import console

# Flag -> the parameter that it binds.
_PARAMETERS = {
    "image": "IMAGE",
    "clean": "corrupted_image.clean",
    "mask": "corrupted_image.mask",
    "noise_std": "corrupted_image.noise_std",
    "missing": "corrupted_image.missing_fraction",
    "stride": "corrupted_image.stride",
    "epochs": "fit.epochs",
    "output": "denoise.output",
}


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this subcommand."""
    for name, text in {
        "image": "Picture to restore.",
        "clean": "The same picture without noise, to measure PSNR and SSIM.",
        "mask": "Picture of the same size, not black where pixels are missing.",
        "output": "Where to write the restored picture.",
    }.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    for name, text in {
        "noise_std": "Standard deviation of noise to add, on 0..255.",
        "missing": "Share of the values to drop at random, 0 to 1.",
    }.items():
        flags.DEFINE_float(name, None, text, flag_values=values)
    for name, text in {
        "stride": "Pixels between patches; 2 is 4 times as fast, for large"
        " pictures.",
        "epochs": "Passes over the patches; more are better and slower. The"
        " learning rate of a new run rises for half of them, then falls.",
    }.items():
        flags.DEFINE_integer(name, None, text, flag_values=values)


def check(values: flags.FlagValues) -> None:
    """Raises a ValueError if there is nothing to restore."""
    if not (values.image or values.gin_file or values.gin_param):
        raise ValueError("`--image` must be given, as in --image=photo.png")


def main(values: flags.FlagValues) -> None:
    """Runs the subcommand."""
    from tfvae.runs import config
    from tfvae.runs.denoise import denoise, schedule_bindings

    gin_files = config.with_data(values.gin_file, "runs/denoise.gin")
    bindings = schedule_bindings(values.run_dir, values.epochs)
    bindings += console.bindings(values, _PARAMETERS)
    config.load(gin_files, bindings)
    denoise(values.run_dir)
