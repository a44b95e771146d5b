# SPDX-License-Identifier: Apache-2.0
r"""Denoises or in-paints an image, without any other training data.

Usage:
  tfvae denoise --image=photo.png --output=restored.png \
      --run_dir=runs/photo
  tfvae denoise --image=photo.png --mask=scratches.png \
      --run_dir=runs/scratches
  tfvae denoise --image=house.png --add_noise_std=25 \
      --gin_file=papers/ecml2022_tvae/house_noise25.gin \
      --run_dir=runs/house25
  tfvae denoise --image=cells.tif --noise=poisson-gaussian --offset=100 \
      --run_dir=runs/cells
  tfvae denoise --image=stack.tif --output=restored.tif --joint \
      --run_dir=runs/stack
  tfvae denoise --image=photos --output=restored --run_dir=runs/photos

The second example fills in the pixels where the mask is not black, and leaves
all others exactly as they are; with --denoise they are denoised. Without mask,
missing values (NaN) are filled in and all others denoised. The third example
adds noise to a clean image and measures PSNR and SSIM of the result. The last
two restore all pages of a stack, by one model of all their patches, and all
pictures of a folder, by a model each; what fails is reported and left out.

A picture is restored by local subspaces of similar patches, in a minute or so
(--quality=fast: in seconds). A TVAE is trained on the picture's patches where
values are missing and others are noisy, with gin files, or with a flag that
only it has, such as --epochs; --method decides otherwise.

The level of the noise is found, unless --known_noise_std gives it. Noise of
counts, such as photons, grows with the signal: --noise=poisson, or
--noise=poisson-gaussian where a camera adds read noise, estimates its gain and
its read noise where they are not given, and denoises a transform of the image
whose noise is the same everywhere (--poisson_likelihood: the counts).

Gin files that do not bind `experiment.data` are read after runs/denoise.gin (or
runs/denoise_subspaces.gin, with --method=subspaces), and override parts of it.
Meanwhile figures/restored_latest.png in the run folder shows the image as
restored so far. Repeat the command to resume an
interrupted run. A single picture is restored by several processes (needs
tfvae[mpi]; see docs/scaling.md):
  mpiexec -n 4 tfvae denoise --image=... --run_dir=...
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from absl import flags

from tfvae import ranks as ranks_lib
from tfvae.cli import console

if TYPE_CHECKING:
    from tfvae.data.formats import Image
    from tfvae.runs.denoise_many import Configuration

# Flag -> the parameter that it binds.
_PARAMETERS = {
    "image": "IMAGE",
    "clean": "corrupted_image.clean",
    "mask": "corrupted_image.mask",
    "mask_grow": "corrupted_image.mask_grow",
    "mask_invert": "corrupted_image.mask_invert",
    "mask_threshold": "corrupted_image.mask_threshold",
    "strength": "corrupted_image.strength",
    "add_noise_std": "corrupted_image.noise_std",
    "known_noise_std": "GaussianNoise.std",
    "missing": "corrupted_image.missing_fraction",
    "stride": "corrupted_image.stride",
    "epochs": "fit.epochs",
    "quality": "LocalSubspaces.quality",
    "output": "denoise.output",
    "overwrite": "denoise.overwrite",
    "lossy": "denoise.lossy",
    "axes": "corrupted_image.axes",
    "channels": "corrupted_image.channels",
    "output_std": "denoise.output_std",
    "std_factor": "denoise.std_factor",
}
_TVAE, _SUBSPACES = "tvae", "subspaces"
_COMPLETE = "as the picture is complete"
# Flags that only a TVAE has, and others that choose it unless told otherwise.
_OF_TVAE = ("stride", "patch", "epochs", "joint", "poisson_likelihood", "seed")
_CHOOSING_TVAE = (*_OF_TVAE, "gin_file", "gin_param")
_POISSON = "poisson"
_POISSON_GAUSSIAN = "poisson-gaussian"
# Likewise, for noise that grows with the signal.
_OF_POISSON = {
    "gain": "PoissonGaussianNoise.gain",
    "offset": "PoissonGaussianNoise.offset",
    "read_noise_std": "PoissonGaussianNoise.read_noise_std",
    "poisson_likelihood": "PoissonGaussianNoise.by_likelihood",
}
# Likewise, in messages of `read_mask`.
_OF_MASK = {
    "mask_grow": "read_mask.grow",
    "mask_threshold": "read_mask.threshold",
}
# Whose arguments messages name without the function.
_NAMED = ("corrupted_image", "denoise", "PoissonGaussianNoise", "read_mask")


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this subcommand."""
    for name, text in {
        "image": "Image to restore, a stack of pages, or a folder of images.",
        "clean": "The same image without noise, to measure PSNR and SSIM; of a"
        " folder, a folder with files of the same names, as of masks.",
        "mask": "Image of the same size, not black where pixels are missing;"
        " or the word alpha, for the transparent parts of the image itself.",
        "output": "File to write the restored image to: PNG, TIFF, .npy, or"
        " JPEG with quality 95; a folder, if the image is one.",
        "pages": "Pages of a stack to restore, numbered from 0, as in 0-4,7; by"
        " default all. The others are copied unchanged.",
        "axes": "Letter of each axis of an array (.npy) or TIFF stack, where"
        " the file does not say it: Y rows, X columns, S red, green and blue, C"
        " channels, T, Z or Q other pages, as in CYX.",
        "output_std": "File to write the standard deviation of each restored"
        " value to, in the picture's own units: .npy or TIFF.",
    }.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    for name, text in {
        "add_noise_std": "Standard deviation of Gaussian noise to add to a"
        " clean image, in the image's own units. For the noise that an image"
        " has, see --known_noise_std.",
        "known_noise_std": "Standard deviation of the noise that the image has,"
        " that of --add_noise_std included, in the image's own units. By"
        " default it is learned.",
        "gain": "How much one count adds to a value of the image, in its own"
        " units, with --noise=poisson or"
        " poisson-gaussian. By default it is estimated.",
        "offset": "Value of the image without any signal, in its own units,"
        " with --noise=poisson or poisson-gaussian (0 unless set).",
        "read_noise_std": "Standard deviation of the image without any signal,"
        " in its own units, with --noise=poisson-gaussian. By default it is"
        " estimated.",
        "mask_threshold": "Value of the mask above which pixels are missing, in"
        " its own units, such as 127 for JPEG; with --mask=alpha, the opacity"
        " up to which they are.",
        "missing": "Fraction of the values to remove at random, 0 to 1.",
        "strength": "How far observed values are denoised, from 0, which leaves"
        " them as they are, to 1, the model's estimate (1 unless set). Missing"
        " values are always filled in.",
        "std_factor": "What the standard deviations are multiplied by; 1 for"
        " those of the posterior alone.",
    }.items():
        console.define_float(name, text, values)
    for name, text in {
        "mask_grow": "Pixels by which to extend what is missing, such as 2 for"
        " the soft rims of scratches.",
        "stride": "Pixels between neighbouring patches; 2 is 4 times as fast,"
        " for large images.",
        "epochs": "Passes over the patches; more give better results and take"
        " longer. The learning rate of a new run rises for half of them, then"
        " falls.",
    }.items():
        console.define_integer(name, text, values)
    for name, text in {
        "mask_invert": "The mask is black where pixels are missing.",
        "overwrite": "Let --output be a file that is read, such as --image.",
        "lossy": "Let --output be JPEG where observed values are to stay as"
        " they are.",
        "joint": "Restore all pages or pictures by one model of the patches of"
        " all, rather than by a model each.",
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
    flags.DEFINE_alias("noise_std", "add_noise_std", flag_values=values)
    flags.DEFINE_enum(
        "noise",
        None,
        ["gaussian", _POISSON, _POISSON_GAUSSIAN],
        "The noise that the image has (gaussian unless set).",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "poisson_likelihood",
        None,
        "Denoise counts by a Poisson likelihood instead of a transform, with"
        " --noise=poisson or poisson-gaussian.",
        flag_values=values,
    )

    flags.DEFINE_enum(
        "method",
        None,
        [_SUBSPACES, _TVAE],
        "What restores the picture: local subspaces of similar patches, or a"
        " TVAE that is trained on them. By default the former, unless values"
        " are missing and others noisy, or a flag or a gin file is of the"
        " latter.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "quality",
        None,
        ["best", "fast"],
        "Of --method=subspaces: patches of several sizes, or of one, in a fifth"
        " of the time (best unless set).",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "channels",
        None,
        ["together", "alone"],
        "Whether channels are restored together, as parts of a patch, or each"
        " alone. By default red, green and blue are together, and channels of a"
        " microscope (axis C) alone.",
        flag_values=values,
    )


def check(values: flags.FlagValues) -> None:
    """Raises a ValueError if there is nothing to restore."""
    if not (values.image or values.gin_file or values.gin_param):
        raise ValueError("`--image` must be given, as in --image=photo.png")
    is_poisson = values.noise in (_POISSON, _POISSON_GAUSSIAN)
    for name in _OF_POISSON:
        if values[name].value is not None and not is_poisson:
            raise ValueError(
                f"`--{name}` must be given with --noise={_POISSON} or "
                f"--noise={_POISSON_GAUSSIAN} only, got "
                f"{values[name].value!r}"
            )
    if values.known_noise_std is not None and is_poisson:
        raise ValueError(
            "`--known_noise_std` must not be given with "
            f"--noise={values.noise}, whose level differs from pixel to pixel, "
            f"got {values.known_noise_std!r}"
        )
    if values.read_noise_std is not None and values.noise == _POISSON:
        raise ValueError(
            f"`--noise` must be {_POISSON_GAUSSIAN} with --read_noise_std, got "
            f"{_POISSON}"
        )
    if values.quality is not None and values.method == _TVAE:
        raise ValueError(
            "`--quality` must be given with --method=subspaces only, got "
            f"{values.quality}; more --epochs are better for --method=tvae"
        )
    _value_range(values)
    _patch(values)
    _pages(values)


def _given(values: flags.FlagValues, names: Sequence[str]) -> list[str]:
    """Returns which of the flags are given; 0 is, and no list is not."""
    return [
        name
        for name in names
        if not (values[name].value is None or values[name].value == [])
    ]


def _method(values: flags.FlagValues, num_ranks: int) -> tuple[str, str]:
    """Returns what restores the picture, and why, in a few words."""
    from tfvae.runs import config
    from tfvae.runs.run_directory import RunDirectory

    if values.method is not None:
        return values.method, "as --method says"
    saved = None
    if values.run_dir:
        saved = RunDirectory(values.run_dir).read_config()
    if saved is not None:
        is_model = "denoise.method" not in config.bindings(saved)
        return (_TVAE if is_model else _SUBSPACES), "as the run was started"
    if values.quality is not None:
        return _SUBSPACES, "as --quality is given"
    given = _given(values, _CHOOSING_TVAE)
    if given:
        return _TVAE, f"as --{given[0]} is given"
    if num_ranks > 1:
        return _TVAE, "on several processes"
    if values.mask is not None or values.missing:
        is_noisy = values.denoise or values.add_noise_std
        if is_noisy or values.known_noise_std or values.noise:
            return _TVAE, "as values are missing and others are noisy"
        return _SUBSPACES, "as what is not missing is to stay"
    return _SUBSPACES, _COMPLETE


def _pages(values: flags.FlagValues) -> list[int] | None:
    """Returns the value of `--pages`; raises a ValueError for others."""
    given = values.pages
    if given is None:
        return None
    found: set[int] = set()
    for one in given.split(","):
        first, dash, last = one.strip().partition("-")
        last = last if dash else first
        is_range = console.is_digits(first) and console.is_digits(last)
        if not is_range or int(first) > int(last):
            raise ValueError(
                "`--pages` must be numbers from 0 and ranges of them, as in "
                f"--pages=0-4,7, got {given!r}"
            )
        found |= set(range(int(first), int(last) + 1))
    return sorted(found)


def _patch(values: flags.FlagValues) -> tuple[int, int] | None:
    """Returns the value of `--patch`; raises a ValueError for others."""
    given = values.patch
    if given is None:
        return None
    sizes = [int(one) if console.is_digits(one.strip()) else 0 for one in given]
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


def _noise_bindings(values: flags.FlagValues) -> list[str]:
    """Returns the bindings of what is known of the noise, none by default."""
    if values.noise in (_POISSON, _POISSON_GAUSSIAN):
        found = ["corrupted_image.noise = @PoissonGaussianNoise()"]
        if values.noise == _POISSON:
            found.append("PoissonGaussianNoise.read_noise_std = 0.0")
        return found
    if values.known_noise_std is not None:
        return ["corrupted_image.noise = @GaussianNoise()"]
    return []


def _flag(name: str, values: flags.FlagValues) -> str | None:
    """Returns the flag that sets what an error is about, or None."""
    for flag, parameter in (_PARAMETERS | _OF_POISSON | _OF_MASK).items():
        owner, dot, argument = parameter.rpartition(".")
        is_bound = bool(dot) and name == parameter
        if is_bound or (owner in _NAMED and name == argument):
            return f"`--{flag}`"
    return f"`--{name}`" if name in values else None


def _with_flags(text: str, values: flags.FlagValues) -> str:
    """Returns an error's text with flags instead of arguments."""
    return re.sub(
        r"`([\w.]+)`",
        lambda found: _flag(found[1], values) or found[0],
        text,
    )


@contextlib.contextmanager
def _naming_flags(values: flags.FlagValues) -> Iterator[None]:
    """Lets errors speak of `--patch` where Python's speak of `patch`."""
    try:
        yield
    except (OSError, TypeError, ValueError) as err:
        text = _with_flags(str(err), values)
        if text == str(err):
            raise
        # Of the class that was meant: gin raises subclasses of its own.
        for kind in (FileNotFoundError, OSError, TypeError, ValueError):
            if isinstance(err, kind):
                raise kind(text) from err


def main(values: flags.FlagValues) -> None:
    """Runs the subcommand."""
    with console.joined_job() as ranks, _naming_flags(values):
        _denoise(values, ranks)


# The other ranks would wait for this one for ever.
failed = ranks_lib.end_job


def _configuration(values: flags.FlagValues, method: str) -> Configuration:
    from tfvae.runs import config
    from tfvae.runs.denoise_many import Configuration

    default = "runs/denoise.gin"
    if method == _SUBSPACES:
        default = "runs/denoise_subspaces.gin"
    gin_files = config.with_data(values.gin_file, default)
    bindings = _noise_bindings(values)
    bindings += console.bindings(values, _PARAMETERS | _OF_POISSON)
    if values.denoise is not None:
        bindings.append(f"corrupted_image.keep_observed = {not values.denoise}")
    patch = _patch(values)
    if patch is not None:
        bindings.append(f"corrupted_image.patch = {patch!r}")
    value_range = _value_range(values)
    if value_range is not None:
        bindings.append(f"corrupted_image.value_range = {value_range!r}")
    return Configuration(gin_files, bindings, values.epochs)


def _reading() -> contextlib.AbstractContextManager[Image]:
    """Reads the configured picture, once for all that follows within."""
    from tfvae.data.stacks import read_once
    from tfvae.runs import config

    image, page, axes, channels = (
        config.value(f"corrupted_image.{name}")
        for name in ("image", "page", "axes", "channels")
    )
    return read_once(image, page, axes=axes, channels=channels)


def _denoise(values: flags.FlagValues, ranks: ranks_lib.Ranks) -> None:
    """Chooses what restores the picture, and restores it."""
    import numpy as np

    from tfvae.runs.denoise_many import has_many

    method, reason = _method(values, ranks.size)
    if method == _SUBSPACES and ranks.size > 1:
        raise ValueError(
            "`--method` must be tvae on several processes, got subspaces"
        )
    given = _given(values, _OF_TVAE)
    if method == _SUBSPACES and given:
        raise ValueError(
            f"`--{given[0]}` must be given with --method=tvae only, got "
            f"{_SUBSPACES}, {reason}"
        )
    configuration = _configuration(values, method)
    configuration.load(values.run_dir)
    is_many = has_many()
    with contextlib.ExitStack() as stack:
        if values.method is None and reason == _COMPLETE and not is_many:
            image = stack.enter_context(_reading())
            if np.isnan(image.values).any():
                method = _TVAE
                reason = "as values are missing and others are noisy"
                configuration = _configuration(values, method)
                configuration.load(values.run_dir)
        if not ranks.rank:
            print(f"method: {method}, {reason}", flush=True)
        _restore(values, ranks, configuration, is_many)


def _restore(
    values: flags.FlagValues,
    ranks: ranks_lib.Ranks,
    configuration: Configuration,
    is_many: bool,
) -> None:
    """Restores what is configured, which may be many pictures."""
    from tfvae.runs import config
    from tfvae.runs.denoise import denoise
    from tfvae.runs.denoise_many import denoise_many

    pages = _pages(values)
    if is_many:
        if ranks.size > 1:
            raise ValueError(
                "`--image` must be a single picture on several processes, got "
                f"{config.value('corrupted_image.image')} with {ranks.size}; "
                "start it without mpiexec"
            )
        denoise_many(
            values.run_dir,
            configuration,
            pages=pages,
            joint=bool(values.joint),
            explain=functools.partial(_with_flags, values=values),
        )
        return
    if values.joint or pages not in (None, [0]):
        image = config.value("corrupted_image.image")
        raise ValueError(
            f"`--{'joint' if values.joint else 'pages'}` needs a folder or an "
            f"image of several pages, got {image}"
            f"{'' if os.path.exists(str(image)) else ', which is no file'}"
        )
    denoise(values.run_dir, ranks)
