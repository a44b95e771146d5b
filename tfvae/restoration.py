# SPDX-License-Identifier: Apache-2.0
"""Zero-shot denoising and in-painting of a single image.

The overlapping patches of the corrupted image are the training data; a model
trained on them estimates each patch by its posterior mean, and the overlapping
estimates of a pixel are merged into one value.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import scipy.ndimage

from tfvae import typed_gin
from tfvae.arguments import check_positive
from tfvae.data.formats import alpha_limit
from tfvae.data.images import (
    WHITE,
    Image,
    ValueRange,
    add_noise,
    crop_image,
    crop_picture,
    drop_pixels,
    read_mask,
    value_range_of,
)
from tfvae.data.source import Observations
from tfvae.data.stacks import Channels, load_mask_page, load_page
from tfvae.likelihoods import Likelihood
from tfvae.noise import Noise
from tfvae.ops.image_quality import psnr, ssim
from tfvae.ops.patches import (
    MERGE_METHODS,
    ImagePatches,
    MergeMethod,
    PatchMerger,
    patch_starts,
)
from tfvae.ranks import ONE_PROCESS, Ranks
from tfvae.resources import check_memory

ALPHA = "alpha"
"""The mask that is the image's own transparency."""

PATCHES_IN_MEMORY = 2**28
"""Bytes of all patches up to which they are cut before training."""

Estimates = np.ndarray | Iterable[np.ndarray]
"""Estimates of all patches, `[N, D]`, or consecutive parts of them."""

_MOSTLY = 0.5
"""Share of missing values from which a mask may well be inverted."""

_BYTES_PER_ENTRY = 72
"""Memory for merging and comparing images, per entry: nine float64 arrays."""


@dataclasses.dataclass(frozen=True)
class Restoration:
    """A corrupted image, cut into patches and merged from patch estimates.

    All images have values on 0..255, to which `value_range` maps those of a
    file; `scale` maps them to the model's values and back. Estimates are
    clipped to `limits` only by `restore` and `score`, never in between.

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
      source: The image in its own dtype and units, with its metadata, which
        `picture` gives to the result; by default `image` with 8 bits.
      value_range: The values of `source` that 0 and 255 stand for.
      limits: The smallest and the largest estimate, on 0..255; None for
        none, as for floats.
      noise_std: Standard deviation of the noise that was added, in the
        units of `source`.
      is_masked: Whether a mask has said what is missing.
      noise: What is known of the noise, in the units of `source`; None for
        noise of one level that is learned.
      strength: Factor by which observed values go from the observed image to
        the estimate, 0 to 1. Missing ones are always those of the estimate.
      name: Short name of the image.
      remarks: Further lines of `describe`.
    """

    image: np.ndarray
    clean: np.ndarray | None = None
    patch: tuple[int, int] = (8, 8)
    stride: int = 1
    merge_method: MergeMethod = "mean"
    scale: float = 1.0
    keep_observed: bool = False
    source: Image = None  # type: ignore[assignment] # Set below.
    value_range: ValueRange = ValueRange(0.0, WHITE)
    limits: tuple[float, float] | None = (0.0, WHITE)
    noise_std: float = 0.0
    is_masked: bool = False
    noise: Noise | None = None
    strength: float = 1.0
    name: str = "image"
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Validates all fields."""
        image = _as_image("image", self.image)
        patch = _as_pair(self.patch)
        if self.merge_method not in MERGE_METHODS:
            raise ValueError(
                f"`merge_method` must be one of {MERGE_METHODS!r}, got "
                f"{self.merge_method!r}"
            )
        check_positive(scale=self.scale)
        self._check_strength()
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
        if self.source is None:
            rounded = np.rint(np.nan_to_num(image)).clip(0.0, WHITE)
            source = Image(rounded.astype(np.uint8))
            object.__setattr__(self, "source", source)
        self._check_memory()
        self._check_restorable()
        object.__setattr__(self, "noise", self._fitted_noise())

    def _check_strength(self) -> None:
        if not 0.0 <= self.strength <= 1.0:
            raise ValueError(
                f"`strength` must be from 0 to 1, got {self.strength!r}"
            )
        if self.keep_observed and self.strength != 1.0:
            raise ValueError(
                "`strength` must be 1 where observed values stay exactly as "
                "they are (`--denoise` denoises them), got "
                f"{self.strength!r}"
            )

    def _fitted_noise(self) -> Noise | None:
        if self.noise is None:
            return None
        return self.noise.fitted(self.value_range.from_pixels(self.image))

    def _check_restorable(self) -> None:
        """Checks that every missing entry has a patch with observed ones."""
        rows = self._informed_rows()
        if rows is None:
            return
        # How many informed patches each pixel is in, as sums over windows.
        starts = np.zeros(self.image.shape[:2], bool)
        starts[np.ix_(*self._starts())] = rows.reshape(self._grid())
        padding = [(size - 1, 0) for size in self.patch]
        reached = _window_sums(np.pad(starts, padding), self.patch)
        num_lost = np.count_nonzero(reached == 0)
        if num_lost:
            raise ValueError(
                "`patch` must be large enough to reach from every missing "
                "pixel to an observed one, got "
                f"{self.patch!r} and {num_lost} pixels out of reach; "
                f"{self._reaching_patch()}"
            )

    def _reaching_patch(self) -> str:
        """Says which patch would reach all missing pixels."""
        missing = np.isnan(self.image).all(axis=-1)
        distance = scipy.ndimage.distance_transform_cdt(
            missing, metric="chessboard"
        )
        # A window of this side holds both pixels, wherever the stride puts it.
        side = int(distance.max()) + self.stride
        if side <= min(missing.shape):
            hint = f"`--patch={side}` would reach them"
        else:
            hint = "no square patch would reach them"
        share = self.missing_fraction
        return hint + (f". {_is_inverted(share)}" if share > _MOSTLY else "")

    def _starts(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the first row and the first column of the patches."""
        rows, columns = (
            patch_starts(size, patch, self.stride)
            for size, patch in zip(
                self.image.shape[:2], self.patch, strict=True
            )
        )
        return rows, columns

    def _grid(self) -> tuple[int, int]:
        rows, columns = self._starts()
        return len(rows), len(columns)

    def _informed_rows(self) -> np.ndarray | None:
        """Returns which patches have an observed entry, `[N_all]` bool.

        None if all of them have.
        """
        observed = np.any(~np.isnan(self.image), axis=-1)
        if observed.all():
            return None
        counts = _window_sums(observed, self.patch)
        rows = counts[np.ix_(*self._starts())].reshape(-1) > 0
        return None if rows.all() else rows

    @property
    def num_patches(self) -> int:
        """Number of data points of `observations`."""
        rows = self._informed_rows()
        return self.count_patches() if rows is None else int(rows.sum())

    @property
    def missing_fraction(self) -> float:
        """Fraction of the entries that are missing."""
        return float(np.isnan(self.image).mean())

    def observations(self) -> Observations:
        """The patches as data points; entirely missing ones are left out.

        Up to `PATCHES_IN_MEMORY` they are an array, beyond `LazyRows` that
        are cut from the image when they are asked for.
        """
        patches = self.patches()
        is_small = self.patch_bytes <= PATCHES_IN_MEMORY
        return Observations(
            name=self.name,
            train=np.asarray(patches) if is_small else cast(Any, patches),
            event_shape=(*self.patch, self.image.shape[2]),
            value_range=self.model_range(),
        )

    def model_range(self) -> tuple[float, float]:
        """Returns the model's values of 0 and 255."""
        low, high = self._to_model(np.array([0.0, WHITE])).tolist()
        return low, high

    def patches(self) -> ImagePatches:
        """The data points of `observations`, cut when they are asked for."""
        return ImagePatches(
            self._to_model(self.image),
            self.patch,
            self.stride,
            is_kept=self._informed_rows(),
        )

    def _to_model(self, image: np.ndarray) -> np.ndarray:
        """Returns the model's values of pixels, float32 `[...]`."""
        if self.noise is not None:
            image = self.noise.to_model(image, self.value_range)
        return image.astype(np.float32) * np.float32(self.scale)

    def _from_model(self, merged: np.ndarray) -> np.ndarray:
        """Returns the pixels that merged estimates on 0..255 stand for."""
        if self.noise is None:
            return merged
        return self.noise.from_model(merged, self.value_range)

    def likelihood(self, given: Likelihood) -> Likelihood:
        """Returns the likelihood for the noise: the given one if unknown.

        Args:
          given: The likelihood that is configured.

        Raises:
          ValueError: If the given one does not fit `noise`.
        """
        if self.noise is None:
            return given
        return self.noise.likelihood(given, self.scale, self.value_range)

    @property
    def num_entries(self) -> int:
        """Number of values of the image."""
        return self.image.size

    @property
    def patch_bytes(self) -> int:
        """Bytes of all patches as an array."""
        width = math.prod(self.patch) * self.image.shape[2]
        return 4 * self.count_patches() * width

    def count_patches(self, stride: int | None = None) -> int:
        """Returns the number of overlapping patches, missing ones included.

        Args:
          stride: Distance of neighbouring patches; None for `stride`.
        """
        return math.prod(
            len(patch_starts(size, patch, stride or self.stride))
            for size, patch in zip(
                self.image.shape[:2], self.patch, strict=True
            )
        )

    def _check_memory(self) -> None:
        """Checks the memory for cutting, batching and merging."""
        count, needed = self.count_patches(), self.patch_bytes
        if self.merge_method != "median":
            needed = min(needed, PATCHES_IN_MEMORY)
        check_memory(
            4 * needed + _BYTES_PER_ENTRY * self.image.size,
            f"the {count:,} patches of the image",
            "take a larger `stride`, a `crop`, or a smaller image",
        )

    def merge(
        self, estimates: Estimates, ranks: Ranks = ONE_PROCESS
    ) -> np.ndarray:
        """Merges patch estimates into an image, without clipping.

        Args:
          estimates: `[N, D]` on the model's scale, one row for each data
            point of `observations`, in its order; or an iterable of
            consecutive parts of that, so that not all need to be in memory.
          ranks: The processes, each of which passes the estimates of its rows
            and returns the same image.

        Returns:
          `[height, width, channels]` float32 on the scale of 0..255.

        Raises:
          ValueError: If the number or length of the rows is wrong, or an
            estimate is not finite.
        """
        merger = self._merger(ranks=ranks)
        if hasattr(estimates, "shape"):
            if estimates.shape != merger.shape:
                raise _wrong_shape(merger.shape, estimates.shape)
            estimates = [cast(np.ndarray, estimates)]
        for part in estimates:
            merger.add(self._checked(part, merger))
        if ranks.size > 1:
            merger.add_others(ranks.gather)
        return self._from_model(merger.image())

    def merge_moments(
        self,
        moments: Iterable[tuple[np.ndarray, np.ndarray]],
        ranks: Ranks = ONE_PROCESS,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Merges means and variances of patches.

        The standard deviation of an entry is that of the mixture of what the
        patches say of it: its variance is the mean of their variances plus the
        variance of their means. Patches that overlap are fitted to the same
        noise, so that averages of more of them are not more certain.

        Args:
          moments: Consecutive parts of the posterior means and variances of
            all patches, `[n, D]` each, on the model's scale.
          ranks: See `merge`.

        Returns:
          The merged image, see `merge`, and the standard deviations, both
          `[height, width, channels]` float32 on the scale of 0..255. Those of
          observed entries are `strength` times as large, 0 with
          `keep_observed`. Where the model is of a transform of the image,
          half the distance of what one deviation below the estimate and one
          above stand for.

        Raises:
          ValueError: As `merge`.
        """
        merger = self._merger(with_variances=True, ranks=ranks)
        for means, variances in moments:
            merger.add(
                self._checked(means, merger),
                self._checked(variances, merger) / np.float32(self.scale),
            )
        if ranks.size > 1:
            merger.add_others(ranks.gather)
        within, between = merger.variances()
        return self.from_moments(merger.image(), within + between)

    def from_moments(
        self, mean: np.ndarray, variance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the image and its standard deviations.

        Args:
          mean: `[height, width, channels]`, an estimate of `values`.
          variance: The variance of its entries.

        Returns:
          See `merge_moments`.
        """
        std = np.sqrt(variance)
        if self.is_transformed:
            low, high = (self._from_model(mean + d) for d in (-std, std))
            std = np.asarray(0.5 * (high - low), np.float32)
        share = 0.0 if self._is_kept else self.strength
        if share != 1.0:
            is_missing = np.isnan(self.image)
            std = np.where(is_missing, std, np.float32(share) * std)
        return self._from_model(mean), std

    @property
    def values(self) -> np.ndarray:
        """The image as a model has it, before `scale`.

        `[height, width, channels]` float32 on 0..255, or what `noise` makes of
        that.
        """
        if self.noise is None:
            return self.image
        values = self.noise.to_model(self.image, self.value_range)
        return values.astype(np.float32)

    def _merger(
        self, with_variances: bool = False, ranks: Ranks = ONE_PROCESS
    ) -> PatchMerger:
        is_kept = self._informed_rows()
        if ranks.size > 1:
            if is_kept is None:
                is_kept = np.ones(self.num_patches, bool)
            mine = np.flatnonzero(is_kept)[ranks.rows(int(is_kept.sum()))]
            is_kept = np.zeros_like(is_kept)
            is_kept[mine] = True
        return PatchMerger(
            self.image.shape,
            self.patch,
            self.stride,
            self.merge_method,
            is_kept=is_kept,
            with_variances=with_variances,
        )

    def _checked(self, part: np.ndarray, merger: PatchMerger) -> np.ndarray:
        """Returns validated estimates on the scale of 0..255, float32."""
        part = np.asarray(part)
        if part.ndim != 2 or part.shape[1] != merger.shape[1]:
            raise _wrong_shape(merger.shape, part.shape)
        if not np.isfinite(part).all():
            raise ValueError("`estimates` must be finite")
        return np.asarray(part / np.float32(self.scale), np.float32)

    def restore(
        self, estimates: Estimates, ranks: Ranks = ONE_PROCESS
    ) -> np.ndarray:
        """The restored image, clipped to `limits`.

        Args:
          estimates: See `merge`.
          ranks: See `merge`.

        Returns:
          `[height, width, channels]` float32. Observed entries are blended
          with those of the corrupted image, see `strength`; with
          `keep_observed` they are those of the corrupted image.
        """
        return self.finished(self.merge(estimates, ranks))

    def finished(self, image: np.ndarray) -> np.ndarray:
        """Returns a merged image as `restore` does, with what is kept."""
        if self._is_kept:
            image = np.where(np.isnan(self.image), image, self.image)
        elif self.strength != 1.0:
            change = np.float32(self.strength) * (image - self.image)
            blended = self.image + change
            image = np.where(np.isnan(self.image), image, blended)
        return self._clipped(image)

    @property
    def _is_kept(self) -> bool:
        """Whether observed values stay exactly as they are."""
        return self.keep_observed or self.strength == 0.0

    def _clipped(self, image: np.ndarray) -> np.ndarray:
        return image if self.limits is None else np.clip(image, *self.limits)

    def picture(self, restored: np.ndarray) -> Image:
        """The restored image as it is written: dtype, units and metadata.

        Args:
          restored: `[height, width, channels]` on 0..255, from `restore`.

        Returns:
          The image. With `keep_observed` the observed values are those of
          `source`, bit for bit.
        """
        source, dtype = self.source, self.source.values.dtype
        values = self.value_range.from_pixels(restored)
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            values = np.rint(values).clip(limits.min, limits.max)
        else:
            widest = np.finfo(dtype).max
            values = values.clip(-widest, widest)
        values = values.astype(dtype)
        is_premultiplied = source.is_premultiplied and dtype.kind in "iu"
        if is_premultiplied and source.alpha is not None:
            values = np.minimum(values, source.alpha[..., None])
        if self._is_kept:
            kept = self.value_range.to_pixels(source.values) == self.image
            values = np.where(kept, source.values, values)
        return dataclasses.replace(source, values=values)

    def residual(self, restored: np.ndarray) -> np.ndarray:
        """Observed minus restored values, as written, in units of `source`.

        Args:
          restored: `[height, width, channels]` on 0..255, from `restore`.

        Returns:
          `[height, width, channels]`, float64 where the dtype of `source`
          needs it, otherwise float32; NaN where missing.
        """
        values = self.source.values
        observed = np.where(
            self.value_range.to_pixels(values) == self.image,
            values.astype(np.float64),
            self.value_range.from_pixels(self.image),
        )
        found = observed - self.picture(restored).values
        return found.astype(np.result_type(values.dtype, np.float32))

    def fingerprint(self) -> str:
        """SHA-256 of all that the result depends on: images and settings."""
        digest = hashlib.sha256()
        for field in dataclasses.fields(self):
            if field.name != "remarks":
                _digest(digest, getattr(self, field.name))
        return digest.hexdigest()

    @property
    def is_transformed(self) -> bool:
        """Whether the model's values are other than scaled pixels."""
        return self.noise is not None and self.noise.is_transform

    def in_units(self, noise_std: float) -> tuple[float, float]:
        """Converts a standard deviation of the model's values.

        It has none in the units of `source` where `is_transformed`.

        Args:
          noise_std: The standard deviation, in the model's values.

        Returns:
          The standard deviation in the units of `source`, and as a share of
          `value_range`.
        """
        share = noise_std / self.scale / WHITE
        return share * self.value_range.width, share

    def describe(self) -> str:
        """Says what the image is taken to be and what will be done, as lines.

        Returns:
          The first line has size, channels, dtype, values, their range, and
          what was done in reading; further ones noise that was added, and
          what happens to missing and to observed values.
        """
        height, width, channels = self.image.shape
        colours = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
        colours += " + alpha" if self.source.alpha is not None else ""
        values = self.source.values
        found = ValueRange(float(np.nanmin(values)), float(np.nanmax(values)))
        lines = [
            "; ".join(
                [
                    f"{self.name}: {height} x {width} pixels, {colours}, "
                    f"{values.dtype}, values {found}, on a range of "
                    f"{self.value_range}",
                    *self.source.notes,
                ]
            )
        ]
        if self.noise_std:
            share = 100.0 * self.noise_std / self.value_range.width
            lines.append(
                "adding Gaussian noise of standard deviation "
                f"{self.noise_std:g} ({share:.3g} % of the range)"
            )
        if self.noise is not None:
            lines.append(self.noise.describe())
        missing, fate = self.missing_fraction, "are denoised"
        if self.strength != 1.0:
            fate += f" at a strength of {self.strength:g}"
        if self.keep_observed:
            fate = "stay exactly as they are"
        if missing:
            lines.append(
                f"{100.0 * missing:.3g} % of the values are missing and filled "
                f"in; the others {fate}"
            )
            if self.is_masked and missing > _MOSTLY:
                lines.append(_is_inverted(missing))
        else:
            lines.append(f"all values {fate}")
        lines.extend(self.remarks)
        return "\n".join(lines)

    def score(
        self, image: np.ndarray, *, clip: bool = True
    ) -> dict[str, float]:
        """Compares an image with the clean one.

        Args:
          image: `[height, width, channels]` on 0..255.
          clip: Whether to clip `image` to `limits` first.

        Returns:
          "psnr" in decibels and "ssim", each over the whole image, relative
          to `value_range`; "ssim" is NaN for images below 7 x 7 pixels.

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
        image = self._clipped(image) if clip else image
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


def _wrong_shape(
    expected: tuple[int, int], found: tuple[int, ...]
) -> ValueError:
    return ValueError(
        f"`estimates` must have shape {expected!r}, got shape {found!r}"
    )


def _window_sums(values: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """Returns the sums of all windows of an array `[height, width]`, int64."""
    sums = values.astype(np.int64)
    for axis, size in enumerate(window):
        before = np.insert(np.cumsum(sums, axis), 0, 0, axis)
        count = before.shape[axis] - size
        ends = np.take(before, range(size, size + count), axis)
        sums = ends - np.take(before, range(count), axis)
    return sums


def _is_inverted(share: float) -> str:
    return (
        f"{100.0 * share:.3g} % of the picture is missing: is the mask "
        "inverted (`--mask_invert`)?"
    )


def _digest(digest: Any, value: Any) -> None:
    """Adds arrays with dtype and shape, images, and other values as text."""
    if isinstance(value, Image):
        for field in dataclasses.fields(value):
            _digest(digest, getattr(value, field.name))
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).data)
    else:
        digest.update(f"{value!r};".encode())


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
            "observed in at least one, got infinite or only missing entries "
            "(of a mask: is it inverted?)"
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
    value_range: tuple[float, float] | None = None,
    noise_std: float = 0.0,
    missing_fraction: float = 0.0,
    whole_pixels: bool = False,
    mask: str | os.PathLike[str] | np.ndarray | None = None,
    mask_threshold: float | None = None,
    mask_invert: bool = False,
    mask_grow: int = 0,
    patch: int | tuple[int, int] = (8, 8),
    stride: int = 1,
    merge_method: MergeMethod = "mean",
    scale: float = 1.0,
    keep_observed: bool | None = None,
    noise: Noise | None = None,
    strength: float = 1.0,
    seed: int = 0,
    page: int | None = None,
    axes: str | None = None,
    channels: Channels | None = None,
) -> Restoration:
    """Loads an image, corrupts it as asked, and prepares its restoration.

    To restore an image that is already corrupted, leave the corruptions at
    zero. To benchmark, pass a clean image and the corruption: `noise_std`
    adds white Gaussian noise (unclipped), `missing_fraction` drops entries.

    The image may have any dtype and units: `Restoration.picture` returns the
    restored one in the same.

    Args:
      image: A file, the name of an embedded picture or an array, see
        `load_image`; NaN marks missing entries.
      clean: The clean image, if it is not `image` itself.
      crop: Top row, left column, height and width of a region to work on.
      value_range: The values that stand for black and white, in the image's
        units, which PSNR and shares of noise refer to; None for those that
        `tfvae.data.value_range_of` finds in `clean`, or else in `image`.
      noise_std: Standard deviation of the noise to add, in the image's units.
      missing_fraction: Probability of each entry to be dropped.
      whole_pixels: Whether all channels of a pixel are dropped together;
        otherwise each colour value is dropped on its own.
      mask: What to in-paint: a file or array as large as `image` (before
        cropping), non-zero where missing. What `image` holds there is
        disregarded, also as a reference; give `clean` to get scores. "alpha"
        for the image's own transparent parts, which become opaque.
      mask_threshold: The value of the mask above which pixels are missing, see
        `read_mask`; of "alpha", the opacity up to which they are.
      mask_invert: Whether all other pixels are missing instead.
      mask_grow: Pixels by which to extend what is missing.
      patch: Height and width of a patch in pixels, or both as one number;
        in a smaller image it is as large as that.
      stride: Distance of neighbouring patches in pixels; at most the side of
        a patch that is reduced.
      merge_method: "mean", "median" or "gaussian", see `merge_patches`.
      scale: Factor from 0..255 to the model's values.
      keep_observed: Whether observed values stay exactly as they are. None
        keeps them where `mask` or `missing_fraction` says what is missing,
        unless noise is added; of an image that has NaN itself they are
        denoised.
      noise: What is known of the noise that the image has, in its units, see
        `tfvae.noise`; None for noise of one level that is learned.
      strength: How far observed values are denoised: 1 for the model's
        estimate, 0 for the values themselves.
      seed: Seed of the corruption.
      page: Number, from 0, of the page to restore of an image of several;
        `clean` and `mask` have as many pages or one for all.
      axes: The axes of an array or TIFF file where they are not known, such
        as "CYX" for channels that come first, see `tfvae.data.open_stack`.
      channels: "together" or "alone", whether a page has all channels of a
        pixel or one, see `tfvae.data.open_stack`.

    Returns:
      The prepared restoration. It has a `clean` image, and so scores, if
      `clean` was given, or if `image` is complete and was corrupted here
      by noise or random dropping.

    Raises:
      FileNotFoundError: If a file does not exist.
      ValueError: If an argument is out of range or shapes do not fit.
    """
    source, num_pages = load_page(image, page, axes=axes, channels=channels)
    reference = None
    of_pages: Any = {
        "axes": axes,
        "channels": channels,
        "num_pages": num_pages,
    }
    if clean is not None:
        reference, _ = load_page(clean, page, **of_pages, name="clean")
    if mask is not None:
        mask = load_mask_page(mask, page, **of_pages)
    missing = _missing(mask, source, mask_threshold, mask_invert, mask_grow)
    if missing is not None and isinstance(mask, str) and mask == ALPHA:
        source = _with_opaque(source, missing)
    if reference is not None:
        _check_reference(reference, source)
    if crop is not None:
        source = crop_picture(source, crop)
        reference = None if reference is None else crop_picture(reference, crop)
        missing = None if missing is None else crop_image(missing, crop)
    chosen = _chosen_range(value_range, source, reference)
    pixels = chosen.to_pixels(source.values)
    if missing is not None:
        pixels = np.where(missing, np.float32(np.nan), pixels)
    whole = None if reference is None else chosen.to_pixels(reference.values)
    is_corrupted_here = noise_std != 0.0 or missing_fraction != 0.0
    if whole is None and is_corrupted_here and not np.isnan(pixels).any():
        whole = pixels
    # Two streams, so that the noise does not depend on the dropped entries.
    noisy = pixels
    if noise_std:
        noisy = add_noise(pixels, noise_std * WHITE / chosen.width, seed)
    corrupted = drop_pixels(
        noisy, missing_fraction, whole_pixels=whole_pixels, seed=seed + 1
    )
    if keep_observed is None:
        is_told = mask is not None or missing_fraction != 0.0
        keep_observed = is_told and noise_std == 0.0
    fitted, stride, remarks = _fitted(patch, stride, corrupted.shape)
    return Restoration(
        image=corrupted,
        clean=whole,
        patch=fitted,
        stride=stride,
        merge_method=merge_method,
        scale=scale,
        keep_observed=keep_observed,
        source=source,
        value_range=chosen,
        limits=_limits(source, chosen),
        noise_std=noise_std,
        is_masked=mask is not None,
        noise=noise,
        strength=strength,
        name=_name(image) + (f"_page{page}" if num_pages > 1 else ""),
        remarks=remarks,
    )


def _fitted(
    patch: int | tuple[int, int], stride: int, image_shape: tuple[int, ...]
) -> tuple[tuple[int, int], int, tuple[str, ...]]:
    """Reduces a patch to the size of a smaller image.

    Returns:
      The patch, the stride, and a remark if they are others than those given.
    """
    given = _as_pair(patch)
    height, width = (
        min(size, whole)
        for size, whole in zip(given, image_shape[:2], strict=True)
    )
    if (height, width) == given:
        return given, stride, ()
    remark = (
        f"patches are {height} x {width} pixels instead of {given[0]} x "
        f"{given[1]}, as the picture is smaller"
    )
    if stride > min(height, width) > 0:
        stride = min(height, width)
        remark += f"; stride {stride}"
    return (height, width), stride, (remark,)


def _check_reference(reference: Image, source: Image) -> None:
    """Checks that a clean image has the shape and units of a corrupted one."""
    if reference.values.shape != source.values.shape:
        raise ValueError(
            "`clean` must have the shape of `image`, "
            f"{source.values.shape!r}, got shape {reference.values.shape!r}"
        )
    dtypes = reference.values.dtype, source.values.dtype
    if dtypes[0] != dtypes[1] and not any(one.kind == "f" for one in dtypes):
        raise ValueError(
            "`clean` must have the units of `image`, whose dtype is "
            f"{dtypes[1]}, got dtype {dtypes[0]}"
        )


def _chosen_range(
    given: tuple[float, float] | None, source: Image, reference: Image | None
) -> ValueRange:
    """Returns the range that is given, or that the clean values suggest."""
    if given is None:
        values = (reference or source).values
        if np.isnan(values).all():
            raise ValueError(
                "`image` must be observed in at least one entry, got only "
                "missing ones"
            )
        return value_range_of(values)
    try:
        low, high = (float(one) for one in given)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            "`value_range` must be two finite numbers, the smaller one first, "
            f"got {given!r}"
        )
    return ValueRange(low, high)


def _limits(source: Image, chosen: ValueRange) -> tuple[float, float] | None:
    """Returns the limits of estimates on 0..255: none for floats.

    Integers do not leave the range, unless observed values do.
    """
    if source.values.dtype.kind == "f":
        return None
    low = min(chosen.low, float(source.values.min()))
    high = max(chosen.high, float(source.values.max()))
    limits = np.iinfo(source.values.dtype)
    low, high = max(low, float(limits.min)), min(high, float(limits.max))
    ends = chosen.to_pixels(np.array([low, high]))
    return float(ends[0]), float(ends[1])


def _missing(
    mask: str | os.PathLike[str] | np.ndarray | None,
    source: Image,
    threshold: float | None,
    invert: bool,
    grow: int,
) -> np.ndarray | None:
    """Returns where a mask says that values are missing, or None without."""
    if mask is None:
        if threshold is not None or invert or grow:
            raise ValueError(
                "`mask` must be given with `mask_threshold`, `mask_invert` or "
                "`mask_grow`, got None"
            )
        return None
    if isinstance(mask, str) and mask == ALPHA and not os.path.exists(mask):
        if source.alpha is None:
            raise ValueError(
                "`mask` must not be 'alpha' for an image without alpha channel"
            )
        mask = source.alpha <= (threshold or 0)
        threshold = None
    return read_mask(
        mask,
        source.values.shape,
        threshold=threshold,
        invert=invert,
        grow=grow,
    )


def _with_opaque(source: Image, missing: np.ndarray) -> Image:
    """Returns an image that is opaque where it will be filled in."""
    if source.alpha is None:
        return source
    opaque = source.alpha.dtype.type(alpha_limit(source.alpha.dtype))
    alpha = np.where(missing.all(axis=-1), opaque, source.alpha)
    return dataclasses.replace(source, alpha=alpha)


def _name(image: str | os.PathLike[str] | np.ndarray) -> str:
    if isinstance(image, np.ndarray):
        return "image"
    return os.path.splitext(os.path.basename(image))[0]
