# SPDX-License-Identifier: Apache-2.0
"""Zero-shot denoising and in-painting of a single image.

The overlapping patches of the corrupted image are the training data; a model
trained on them estimates each patch by its posterior mean, and the overlapping
estimates of a pixel are merged into one value.
"""

from __future__ import annotations

import dataclasses
import math
import os

import numpy as np

from tfvae import typed_gin
from tfvae.data.images import (
    WHITE,
    add_noise,
    crop_image,
    drop_pixels,
    load_image,
    read_mask,
)
from tfvae.data.source import Observations
from tfvae.likelihoods import Likelihood
from tfvae.noise import Noise
from tfvae.ops.image_quality import psnr, ssim
from tfvae.ops.patches import (
    MERGE_METHODS,
    MergeMethod,
    extract_patches,
    merge_patches,
    patch_starts,
)
from tfvae.resources import check_memory


@dataclasses.dataclass(frozen=True)
class Restoration:
    """A corrupted image, cut into patches and merged from patch estimates.

    All images have values on 0..255; `scale` maps them to the model's values
    and back. Estimates are clipped to 0..255 only by `restore` and `score`
    (and when written to a file), never in between.

    Attributes:
      image: `[height, width, channels]` float32, the corrupted image; NaN
        marks a missing entry.
      clean: The uncorrupted image, for scores, or None.
      patch: Height and width of a patch in pixels.
      stride: Distance of neighbouring patches in pixels.
      merge_method: "mean", "median" or "gaussian", see `merge_patches`.
      scale: Factor from 0..255 to the model's values, such as 1 / 255.
      keep_observed: Whether observed entries are kept in the result, so
        that only missing ones are filled in; for incomplete images
        without noise.
      bits: Bits per channel to write the restored image with, 8 or 16.
      noise: What is known of the noise, in the units of `image`; None for
        noise of one level that is learned.
      name: Short name of the image.
    """

    image: np.ndarray
    clean: np.ndarray | None = None
    patch: tuple[int, int] = (8, 8)
    stride: int = 1
    merge_method: MergeMethod = "mean"
    scale: float = 1.0
    keep_observed: bool = False
    bits: int = 8
    noise: Noise | None = None
    name: str = "image"

    def __post_init__(self) -> None:
        """Validates all fields."""
        image = _as_image("image", self.image)
        patch = _as_pair(self.patch)
        if self.merge_method not in MERGE_METHODS:
            raise ValueError(
                f"`merge_method` must be one of {MERGE_METHODS!r}, got "
                f"{self.merge_method!r}"
            )
        if not self.scale > 0.0 or not math.isfinite(self.scale):
            raise ValueError(
                f"`scale` must be positive and finite, got {self.scale!r}"
            )
        object.__setattr__(self, "image", image)
        object.__setattr__(self, "patch", patch)
        if self.clean is not None:
            clean = _as_image("clean", self.clean)
            if clean.shape != image.shape or np.isnan(clean).any():
                raise ValueError(
                    "`clean` must be complete and have the shape of `image`, "
                    f"{image.shape!r}, got shape {clean.shape!r} with "
                    f"{np.count_nonzero(np.isnan(clean))} missing entries"
                )
            object.__setattr__(self, "clean", clean)
        self._check_memory()
        self._check_restorable()
        if self.noise is not None:
            object.__setattr__(self, "noise", self.noise.fitted(image))

    def _check_restorable(self) -> None:
        """Checks that every missing entry has a patch with observed ones."""
        rows = self._informed_rows()
        if rows.all():
            return
        informed = np.where(rows[:, None], np.float32(0.0), np.float32(np.nan))
        reached = merge_patches(
            np.repeat(informed, math.prod(self.patch), axis=1),
            (*self.image.shape[:2], 1),
            self.patch,
            self.stride,
        )
        num_lost = np.count_nonzero(np.isnan(reached))
        if num_lost:
            raise ValueError(
                "`patch` must be large enough to reach from every missing "
                "pixel to an observed one, got "
                f"{self.patch!r} and {num_lost} pixels out of reach"
            )

    def _informed_rows(self) -> np.ndarray:
        """Returns which patches have an observed entry, `[N_all]` bool."""
        observed = np.any(~np.isnan(self.image), axis=-1, keepdims=True)
        patches = extract_patches(observed, self.patch, self.stride)
        return np.any(patches, axis=1)

    @property
    def missing_fraction(self) -> float:
        """Fraction of the entries that are missing."""
        return float(np.isnan(self.image).mean())

    def observations(self) -> Observations:
        """The patches as data points; entirely missing ones are left out."""
        values = self._to_model(self.image)
        patches = extract_patches(values, self.patch, self.stride)
        low, high = self._to_model(np.array([0.0, WHITE])).tolist()
        return Observations(
            name=self.name,
            train=patches[self._informed_rows()],
            event_shape=(*self.patch, self.image.shape[2]),
            value_range=(low, high),
        )

    def _to_model(self, image: np.ndarray) -> np.ndarray:
        """Returns the model's values of those of an image, float32 `[...]`."""
        if self.noise is not None:
            image = self.noise.to_model(image.astype(np.float64))
        return image.astype(np.float32) * np.float32(self.scale)

    def likelihood(self, given: Likelihood) -> Likelihood:
        """Returns the likelihood for the noise: the given one if unknown.

        Args:
          given: The likelihood that is configured.

        Raises:
          ValueError: If the given one does not fit `noise`.
        """
        if self.noise is None:
            return given
        return self.noise.likelihood(given, self.scale)

    def _check_memory(self) -> None:
        """Checks the memory for cutting, selecting, scaling and batching."""
        starts = [
            len(patch_starts(size, patch, self.stride))
            for size, patch in zip(
                self.image.shape[:2], self.patch, strict=True
            )
        ]
        width = math.prod(self.patch) * self.image.shape[2]
        check_memory(
            4 * 4 * math.prod(starts) * width,
            f"the {math.prod(starts):,} patches of the image",
            "take a larger `stride`, a `crop`, or a smaller image",
        )

    def merge(self, estimates: np.ndarray) -> np.ndarray:
        """Merges patch estimates into an image, without clipping.

        Args:
          estimates: `[N, D]` on the model's scale, one row for each data
            point of `observations`, in its order.

        Returns:
          `[height, width, channels]` float32 on the scale of 0..255.

        Raises:
          ValueError: If the number or length of the rows is wrong, or an
            estimate is not finite.
        """
        rows = self._informed_rows()
        width = math.prod(self.patch) * self.image.shape[2]
        expected = (int(np.count_nonzero(rows)), width)
        estimates = np.asarray(estimates)
        if estimates.shape != expected:
            raise ValueError(
                f"`estimates` must have shape {expected!r}, got shape "
                f"{estimates.shape!r}"
            )
        if not np.isfinite(estimates).all():
            raise ValueError("`estimates` must be finite")
        patches = np.asarray(estimates / np.float32(self.scale), np.float32)
        if not rows.all():
            informed = patches
            patches = np.full((len(rows), width), np.nan, dtype=np.float32)
            patches[rows] = informed
        merged = merge_patches(
            patches,
            self.image.shape,
            self.patch,
            self.stride,
            self.merge_method,
        )
        if self.noise is None:
            return merged
        return self.noise.from_model(merged).astype(np.float32)

    def restore(self, estimates: np.ndarray) -> np.ndarray:
        """The restored image, clipped to 0..255.

        Args:
          estimates: See `merge`.

        Returns:
          `[height, width, channels]` float32. With `keep_observed` the
          observed entries are those of the corrupted image.
        """
        image = self.merge(estimates)
        if self.keep_observed:
            image = np.where(np.isnan(self.image), image, self.image)
        return np.clip(image, 0.0, WHITE)

    def score(
        self, image: np.ndarray, *, clip: bool = True
    ) -> dict[str, float]:
        """Compares an image with the clean one.

        Args:
          image: `[height, width, channels]` on 0..255.
          clip: Whether to clip `image` to 0..255 first.

        Returns:
          "psnr" in decibels and "ssim", each over the whole image with a
          data range of 255; "ssim" is NaN for images below 7 x 7 pixels.

        Raises:
          RuntimeError: If there is no clean image.
          ValueError: If `image` has another shape or missing entries.
        """
        if self.clean is None:
            raise RuntimeError("`clean` must be set for scores, got None")
        image = np.asarray(image)
        if image.shape != self.clean.shape or np.isnan(image).any():
            raise ValueError(
                "`image` must be complete and have the shape of `clean`, "
                f"{self.clean.shape!r}, got shape {image.shape!r} with "
                f"{np.count_nonzero(np.isnan(image))} missing entries"
            )
        image = np.clip(image, 0.0, WHITE) if clip else image
        return {
            "psnr": psnr(self.clean, image, WHITE),
            "ssim": ssim(self.clean, image, WHITE),
        }

    def corrupted_score(self) -> dict[str, float] | None:
        """Returns the score of the corrupted image, by convention not clipped.

        Returns:
          See `score`; None if there is no clean image or entries are
          missing.
        """
        if self.clean is None or np.isnan(self.image).any():
            return None
        return self.score(self.image, clip=False)


def _as_image(name: str, image: np.ndarray) -> np.ndarray:
    array = np.asarray(image)
    if array.dtype.kind not in "uif":
        raise TypeError(f"`{name}` must be numeric, got dtype {array.dtype}")
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            f"`{name}` must have shape [height, width, channels], got shape "
            f"{array.shape!r}"
        )
    array = np.ascontiguousarray(array, dtype=np.float32)
    if np.isinf(array).any() or np.isnan(array).all():
        raise ValueError(
            f"`{name}` must be finite or missing (NaN) in every entry, and "
            "observed in at least one, got infinite or only missing entries"
        )
    return array


def _as_pair(patch: int | tuple[int, int]) -> tuple[int, int]:
    pair = (patch, patch) if isinstance(patch, int) else tuple(patch)
    if len(pair) != 2:
        raise ValueError(f"`patch` must be (height, width), got {patch!r}")
    return int(pair[0]), int(pair[1])


@typed_gin.register
def corrupted_image(
    image: str | os.PathLike[str] | np.ndarray = "camera",
    *,
    clean: str | os.PathLike[str] | np.ndarray | None = None,
    crop: tuple[int, int, int, int] | None = None,
    noise_std: float = 0.0,
    missing_fraction: float = 0.0,
    whole_pixels: bool = False,
    mask: str | os.PathLike[str] | np.ndarray | None = None,
    patch: tuple[int, int] = (8, 8),
    stride: int = 1,
    merge_method: MergeMethod = "mean",
    scale: float = 1.0,
    keep_observed: bool | None = None,
    noise: Noise | None = None,
    seed: int = 0,
) -> Restoration:
    """Loads an image, corrupts it as asked, and prepares its restoration.

    To restore an image that is already corrupted, leave the corruptions at
    zero. To benchmark, pass a clean image and the corruption: `noise_std`
    adds white Gaussian noise (unclipped), `missing_fraction` drops entries.

    Args:
      image: A file, the name of an embedded picture or an array, see
        `load_image`; NaN marks missing entries.
      clean: The clean image, if it is not `image` itself.
      crop: Top row, left column, height and width of a region to work on.
      noise_std: Standard deviation of the noise to add, on 0..255.
      missing_fraction: Probability of each entry to be dropped.
      whole_pixels: Whether all channels of a pixel are dropped together;
        otherwise each colour value is dropped on its own.
      mask: What to in-paint: a file or array as large as `image` (before
        cropping), non-zero where missing. What `image` holds there is
        disregarded, also as a reference; give `clean` to get scores.
      patch: Height and width of a patch in pixels.
      stride: Distance of neighbouring patches in pixels.
      merge_method: "mean", "median" or "gaussian", see `merge_patches`.
      scale: Factor from 0..255 to the model's values.
      keep_observed: Whether to keep observed entries; None keeps them if
        entries are missing and no noise was added.
      noise: What is known of the noise that the image has, see `tfvae.noise`;
        None for noise of one level that is learned.
      seed: Seed of the corruption.

    Returns:
      The prepared restoration, with the bit depth of `image`. It has a
      `clean` image, and so scores, if
      `clean` was given, or if `image` is complete and was corrupted here
      by noise or random dropping.

    Raises:
      FileNotFoundError: If a file does not exist.
      ValueError: If an argument is out of range or shapes do not fit.
    """
    source, bits = load_image(image)
    reference = None if clean is None else load_image(clean).pixels
    missing = None if mask is None else _load_mask(mask, source.shape)
    if reference is not None and reference.shape != source.shape:
        raise ValueError(
            f"`clean` must have the shape of `image`, {source.shape!r}, got "
            f"shape {reference.shape!r}"
        )
    if missing is not None:
        source = np.where(missing, np.float32(np.nan), source)
    if crop is not None:
        source = crop_image(source, crop)
        reference = None if reference is None else crop_image(reference, crop)
    is_corrupted_here = noise_std != 0.0 or missing_fraction != 0.0
    if reference is None and is_corrupted_here and not np.isnan(source).any():
        reference = source
    # Two streams, so that the noise does not depend on the dropped entries.
    noisy = add_noise(source, noise_std, seed) if noise_std else source
    corrupted = drop_pixels(
        noisy, missing_fraction, whole_pixels=whole_pixels, seed=seed + 1
    )
    if keep_observed is None:
        keep_observed = bool(np.isnan(corrupted).any()) and noise_std == 0.0
    return Restoration(
        image=corrupted,
        clean=reference,
        patch=patch,
        stride=stride,
        merge_method=merge_method,
        scale=scale,
        keep_observed=keep_observed,
        bits=bits,
        noise=noise,
        name=_name(image),
    )


def _load_mask(
    mask: str | os.PathLike[str] | np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    height, width, channels = shape
    if not isinstance(mask, np.ndarray):
        return read_mask(mask, (height, width, channels))
    missing = mask != 0
    missing = missing[..., None] if missing.ndim == 2 else missing
    if missing.shape not in ((height, width, 1), (height, width, channels)):
        raise ValueError(
            f"`mask` must be as large as the image ({height} x {width}), got "
            f"shape {mask.shape!r}"
        )
    return np.broadcast_to(missing, shape)


def _name(image: str | os.PathLike[str] | np.ndarray) -> str:
    if isinstance(image, np.ndarray):
        return "image"
    return os.path.splitext(os.path.basename(image))[0]
