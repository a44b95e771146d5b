# SPDX-License-Identifier: Apache-2.0
"""Restoration of several images by one model of the patches of all of them."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from tfvae import typed_gin
from tfvae.data.images import WHITE
from tfvae.data.source import Observations
from tfvae.likelihoods import Likelihood
from tfvae.ops.rows import JoinedRows
from tfvae.resources import check_memory
from tfvae.restoration import (
    PATCHES_IN_MEMORY,
    Estimates,
    Restoration,
    corrupted_image,
)


@dataclasses.dataclass(frozen=True)
class JointRestoration:
    """Several restorations whose patches are the data points of one model.

    The data points of the first image come first, in the order of its
    `observations`, then those of the second, and so on.

    Attributes:
      restorations: One for each image. Images may differ in size, dtype and
        units, but not in the number of channels, the patch and the scale.
      name: Short name of all of them.
    """

    restorations: tuple[Restoration, ...]
    name: str = "images"

    def __post_init__(self) -> None:
        """Checks that all patches have the same shape and scale."""
        restorations = tuple(self.restorations)
        object.__setattr__(self, "restorations", restorations)
        if not restorations:
            raise ValueError("`restorations` must be at least one, got none")
        self._check_equal("number of channels", lambda one: one.image.shape[2])
        self._check_equal("patch", lambda one: one.patch)
        self._check_equal("scale", lambda one: one.scale)
        check_memory(
            4 * min(self.patch_bytes, PATCHES_IN_MEMORY),
            f"the {self.count_patches():,} patches of all images",
            "take a larger `stride`, or restore each image alone",
        )

    def _check_equal(self, what: str, of: Callable[[Restoration], Any]) -> None:
        first = self.restorations[0]
        for one in self.restorations[1:]:
            if of(one) != of(first):
                raise ValueError(
                    "`restorations` must have the same "
                    f"{what} to share a model, got {of(first)!r} of "
                    f"{first.name} and {of(one)!r} of {one.name}; leave it "
                    "out, or restore each by a model of its own (without "
                    "`--joint`)"
                )

    @property
    def _event_shape(self) -> tuple[int, int, int]:
        first = self.restorations[0]
        return *first.patch, first.image.shape[2]

    @property
    def patch(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        return self.restorations[0].patch

    @property
    def stride(self) -> int:
        """Largest distance of neighbouring patches in pixels."""
        return max(one.stride for one in self.restorations)

    @property
    def num_entries(self) -> int:
        """Number of values of all images."""
        return sum(one.num_entries for one in self.restorations)

    @property
    def patch_bytes(self) -> int:
        """Bytes of all patches as an array."""
        return sum(one.patch_bytes for one in self.restorations)

    def count_patches(self, stride: int | None = None) -> int:
        """Returns the number of patches, see `Restoration.count_patches`."""
        return sum(one.count_patches(stride) for one in self.restorations)

    @property
    def num_patches(self) -> tuple[int, ...]:
        """Number of data points of each image."""
        return tuple(one.num_patches for one in self.restorations)

    def rows(self) -> Iterator[slice]:
        """Yields the data points of each image, as a slice of all."""
        ends = list(itertools.accumulate(self.num_patches, initial=0))
        for start, end in itertools.pairwise(ends):
            yield slice(start, end)

    def observations(self) -> Observations:
        """The patches of all images as data points.

        As those of one image, they are an array or `LazyRows`.
        """
        patches = self.patches()
        is_small = self.patch_bytes <= PATCHES_IN_MEMORY
        ranges = [one.model_range() for one in self.restorations]
        lows, highs = zip(*ranges, strict=True)
        return Observations(
            name=self.name,
            train=np.asarray(patches) if is_small else cast(Any, patches),
            event_shape=self._event_shape,
            value_range=(min(lows), max(highs)),
        )

    def patches(self) -> JoinedRows:
        """The data points of `observations`, cut when they are asked for."""
        return JoinedRows([one.patches() for one in self.restorations])

    def likelihood(self, given: Likelihood) -> Likelihood:
        """Returns the likelihood for the noise: the given one if unknown.

        Args:
          given: The likelihood that is configured.

        Raises:
          ValueError: If the given one does not fit the noise, or the noise of
            the images differs in the model's values.
        """
        names: dict[str, str] = {}
        for one in self.restorations:
            found = one.likelihood(given)
            settings = {**found.get_config(), "name": None}
            names.setdefault(f"{type(found)} {settings}", one.name)
        if len(names) > 1:
            first, second, *_ = names.values()
            raise ValueError(
                "`noise` must be the same in the model's values for images "
                f"that share a model, got another for {second} than for "
                f"{first}; give all of them one `value_range`"
            )
        return found

    @property
    def has_one_range(self) -> bool:
        """Whether all images have the same range of values."""
        return len({one.value_range for one in self.restorations}) == 1

    @property
    def is_noise_known(self) -> bool:
        """Whether the noise is given, rather than learned."""
        return all(one.noise is not None for one in self.restorations)

    @property
    def is_transformed(self) -> bool:
        """Whether the model's values are other than scaled pixels."""
        return any(one.is_transformed for one in self.restorations)

    def restore(
        self, estimate: Callable[[slice], Estimates]
    ) -> list[np.ndarray]:
        """The restored images, one after the other.

        Args:
          estimate: From data points, as a slice of all, to their estimates,
            see `Restoration.merge`; called for one image at a time.

        Returns:
          For each image what `Restoration.restore` does.
        """
        return [
            one.restore(estimate(rows))
            for one, rows in zip(self.restorations, self.rows(), strict=True)
        ]

    def score(self, images: Sequence[np.ndarray]) -> dict[str, float]:
        """Returns the mean scores over the images that have a clean one.

        Args:
          images: All images on 0..255, as `restore` returns them.

        Returns:
          See `Restoration.score`; nothing without any clean image.
        """
        scores = [
            one.score(image)
            for one, image in zip(self.restorations, images, strict=True)
            if one.clean is not None
        ]
        return {
            name: float(np.mean([one[name] for one in scores]))
            for name in (scores[0] if scores else ())
        }

    def in_units(self, noise_std: float) -> tuple[float, float]:
        """Converts a standard deviation of the model's values.

        Args:
          noise_std: The standard deviation, in the model's values.

        Returns:
          The standard deviation in the units of the images, or on 0..255 where
          their ranges differ, and as a share of the range.
        """
        found, share = self.restorations[0].in_units(noise_std)
        return (found if self.has_one_range else share * WHITE), share

    def describe(self) -> str:
        """Says what each image is taken to be, as lines."""
        return "\n".join(
            [
                f"{len(self.restorations)} images with one model of all "
                "patches",
                *(one.describe() for one in self.restorations),
            ]
        )

    def fingerprint(self) -> str:
        """SHA-256 of all that the result depends on: images and settings."""
        digest = hashlib.sha256()
        for one in self.restorations:
            digest.update(one.fingerprint().encode())
        return digest.hexdigest()


@typed_gin.register
@typed_gin.uses(
    passes={
        "each": typed_gin.arguments(
            image="an entry of `corrupted_images.images`"
        )
    }
)
def corrupted_images(
    images: Sequence[Mapping[str, Any]],
    *,
    each: Callable[..., Restoration] = corrupted_image,
    name: str = "images",
) -> JointRestoration:
    """Loads images and prepares their restoration by one model.

    Example:
      corrupted_images([{"image": "a.tif", "page": i} for i in range(20)])

    Args:
      images: For each image the arguments of `corrupted_image`.
      each: Called with them.
      name: Short name of all of them.

    Raises:
      ValueError: If an argument is out of range, or the images have different
        numbers of channels.
    """
    return JointRestoration(tuple(each(**one) for one in images), name)
