# SPDX-License-Identifier: Apache-2.0
r"""Denoises or in-paints a single image, without any other training data.

Usage:
  tfvae denoise --image=photo.png --output=restored.png \
      --run_dir=runs/photo
  tfvae denoise --image=photo.png --mask=scratches.png \
      --run_dir=runs/scratches
  tfvae denoise --image=house.png --noise_std=25 \
      --gin_file=papers/ecml2022_tvae/house_noise25.gin \
      --run_dir=runs/house25

The second example fills in the pixels where the mask is not black, and leaves
all others exactly as they are; with --denoise they are denoised. Without mask,
missing values (NaN) are filled in and all others denoised. The last example
adds noise to a clean image and measures PSNR and SSIM of the result.

Gin files that do not bind `experiment.data` are read after runs/denoise.gin,
and override parts of it. During training, figures/restored_latest.png in the
run folder shows the image as restored so far. Repeat the command to resume an
interrupted run.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from absl import flags

from tfvae.cli import console

# Flag -> the parameter that it binds.
_PARAMETERS = {
    "image": "IMAGE",
    "clean": "corrupted_image.clean",
    "mask": "corrupted_image.mask",
    "mask_grow": "corrupted_image.mask_grow",
    "mask_invert": "corrupted_image.mask_invert",
    "mask_threshold": "corrupted_image.mask_threshold",
    "noise_std": "corrupted_image.noise_std",
    "missing": "corrupted_image.missing_fraction",
    "stride": "corrupted_image.stride",
    "epochs": "fit.epochs",
    "output": "denoise.output",
    "overwrite": "denoise.overwrite",
    "lossy": "denoise.lossy",
    "output_std": "denoise.output_std",
    "std_factor": "denoise.std_factor",
}


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this subcommand."""
    for name, text in {
        "image": "Image to restore.",
        "clean": "The same image without noise, to measure PSNR and SSIM.",
        "mask": "Image of the same size, not black where pixels are missing;"
        " or the word alpha, for the transparent parts of the image itself.",
        "output": "File to write the restored image to: PNG, TIFF, .npy, or"
        " JPEG with quality 95.",
        "output_std": "File to write the standard deviation of each restored"
        " value to, in the picture's own units: .npy or TIFF.",
    }.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    for name, text in {
        "noise_std": "Standard deviation of Gaussian noise to add, in the"
        " image's own units.",
        "mask_threshold": "Value of the mask above which pixels are missing, in"
        " its own units, such as 127 for JPEG; with --mask=alpha, the opacity"
        " up to which they are.",
        "missing": "Fraction of the values to remove at random, 0 to 1.",
        "std_factor": "What the standard deviations are multiplied by; 1 for"
        " those of the posterior alone.",
    }.items():
        flags.DEFINE_float(name, None, text, flag_values=values)
    for name, text in {
        "mask_grow": "Pixels by which to extend what is missing, such as 2 for"
        " the soft rims of scratches.",
        "stride": "Pixels between neighbouring patches; 2 is 4 times as fast,"
        " for large images.",
        "epochs": "Passes over the patches; more give better results and take"
        " longer. The learning rate of a new run rises for half of them, then"
        " falls.",
    }.items():
        flags.DEFINE_integer(name, None, text, flag_values=values)
    for name, text in {
        "mask_invert": "The mask is black where pixels are missing.",
        "overwrite": "Let --output be a file that is read, such as --image.",
        "lossy": "Let --output be JPEG where observed values are to stay as"
        " they are.",
    }.items():
        flags.DEFINE_bool(name, None, text, flag_values=values)
    flags.DEFINE_bool(
        "denoise",
        None,
        "Whether to denoise observed values where others are missing. By"
        " default they stay exactly as they are under --mask and --missing, and"
        " are denoised otherwise.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "patch",
        None,
        "Side of a patch in pixels, or height,width. Larger ones are better"
        " for much noise, and reach into larger holes.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "value_range",
        None,
        "Two values that stand for black and white, such as -1000,3000; by"
        " default they are found from the type of the file and its values, and"
        " printed.",
        flag_values=values,
    )


def check(values: flags.FlagValues) -> None:
    """Raises a ValueError if there is nothing to restore."""
    if not (values.image or values.gin_file or values.gin_param):
        raise ValueError("`--image` must be given, as in --image=photo.png")
    _value_range(values)
    _patch(values)


def _patch(values: flags.FlagValues) -> tuple[int, int] | None:
    """Returns the value of `--patch`; raises a ValueError for others."""
    given = values.patch
    if given is None:
        return None
    sizes = [int(one) if one.strip().isdigit() else 0 for one in given]
    if len(sizes) not in (1, 2) or min(sizes) < 1:
        raise ValueError(
            "`--patch` must be one or two positive integers, as in --patch=8 "
            f"or --patch=8,12, got {','.join(given)!r}"
        )
    return sizes[0], sizes[-1]


def _value_range(values: flags.FlagValues) -> tuple[float, float] | None:
    """Returns the value of `--value_range`; raises a ValueError for others."""
    given = values.value_range
    if given is None:
        return None
    try:
        low, high = map(float, given)
    except ValueError as err:
        raise ValueError(
            "`--value_range` must be two numbers, as in "
            f"--value_range=-1000,3000, got {','.join(given)!r}"
        ) from err
    return low, high


@contextlib.contextmanager
def _naming_flags(values: flags.FlagValues) -> Iterator[None]:
    """Lets errors speak of `--patch` where Python's speak of `patch`."""
    try:
        yield
    except (OSError, TypeError, ValueError) as err:
        text = re.sub(
            r"`(\w+)`",
            lambda found: f"`--{found[1]}`" if found[1] in values else found[0],
            str(err),
        )
        if text == str(err):
            raise
        # Of the class that was meant: gin raises subclasses of its own.
        for kind in (FileNotFoundError, OSError, TypeError, ValueError):
            if isinstance(err, kind):
                raise kind(text) from err


def main(values: flags.FlagValues) -> None:
    """Runs the subcommand."""
    with _naming_flags(values):
        _denoise(values)


def _denoise(values: flags.FlagValues) -> None:
    from tfvae.runs import config
    from tfvae.runs.denoise import HALF_CYCLE, denoise, schedule_bindings

    gin_files = config.with_data(values.gin_file, "runs/denoise.gin")
    bindings = schedule_bindings(values.run_dir, values.epochs)
    bindings += console.bindings(values, _PARAMETERS)
    if values.denoise is not None:
        bindings.append(f"corrupted_image.keep_observed = {not values.denoise}")
    patch = _patch(values)
    if patch is not None:
        bindings.append(f"corrupted_image.patch = {patch!r}")
    value_range = _value_range(values)
    if value_range is not None:
        bindings.append(f"corrupted_image.value_range = {value_range!r}")
    may_be_idle = [HALF_CYCLE] if values.epochs is not None else []
    config.load(
        gin_files, bindings, function="denoise", may_be_idle=may_be_idle
    )
    denoise(values.run_dir)
